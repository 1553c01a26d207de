//! A topic as a log: positions, heads, times, several readers.

use std::time::Instant;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Filter, Log, Partition, Position, ReadLog, RecordedEvent};
use annals_kafka::{Kafka, NewRecord, Topic, TopicLog};

use crate::broker::{TIMEOUT, kafka, send, topic};

/// Everything in a partition, page by page.
async fn all(log: &TopicLog, partition: Partition, filter: Filter) -> Vec<RecordedEvent> {
    let mut after = Position::START;
    let mut events = Vec::new();
    loop {
        let read = ReadLog::after(after)
            .partition(partition)
            .filter(filter.clone());
        let page = log.read(read).await.unwrap();
        events.extend(page.events);
        after = page.scanned;
        if page.end {
            assert_eq!(after, log.head(partition).await.unwrap().visible);
            return events;
        }
    }
}

async fn followed(kafka: &Kafka, topic: &str) -> TopicLog {
    let read = Topic::named(topic)
        .every_record_is("clicked")
        .category("clicks");
    kafka.log(read).await.unwrap()
}

fn numbers(count: usize) -> Vec<(String, String)> {
    (0..count)
        .map(|number| (format!("k{}", number % 7), number.to_string()))
        .collect()
}

async fn send_numbers(kafka: &Kafka, topic: &str, count: usize) {
    let numbers = numbers(count);
    let records: Vec<(&str, &str)> = numbers.iter().map(|(k, v)| (&**k, &**v)).collect();
    send(kafka, topic, &records).await;
}

#[tokio::test]
async fn every_record_is_read_once_in_order() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "read", 1).await;
    send_numbers(&kafka, &topic, 20_000).await;
    let log = followed(&kafka, &topic).await;
    let events = all(&log, Partition(0), Filter::default()).await;
    assert_eq!(events.len(), 20_000);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event.position, Position::new(number as u64 + 1));
        assert_eq!(&event.payload[..], number.to_string().as_bytes());
        assert_eq!(event.stream.as_str(), format!("clicks-k{}", number % 7));
        assert_eq!(&*event.event_type, "clicked");
    }
    assert!(events.windows(2).all(|pair| pair[0].id < pair[1].id));
}

#[tokio::test]
async fn an_empty_partition_is_at_its_end() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "empty", 2).await;
    let log = followed(&kafka, &topic).await;
    assert!(all(&log, Partition(1), Filter::default()).await.is_empty());
}

#[tokio::test]
async fn a_filter_scans_past_events_without_a_match() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "filter", 1).await;
    send_numbers(&kafka, &topic, 3_000).await;
    let log = followed(&kafka, &topic).await;
    let nothing = all(&log, Partition(0), Filter::default().types(["other"])).await;
    assert!(nothing.is_empty());
}

#[tokio::test]
async fn a_reader_at_the_end_is_told_of_what_comes() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "live", 1).await;
    let log = followed(&kafka, &topic).await;
    let mut hint = log.hint();
    all(&log, Partition(0), Filter::default()).await;
    hint.reset();
    send(&kafka, &topic, &[("a", "1")]).await;
    let read = ReadLog::after(Position::START);
    let page = loop {
        hint.wait(TIMEOUT).await;
        let page = log.read(read.clone()).await.unwrap();
        if !page.events.is_empty() {
            break page;
        }
    };
    assert_eq!(page.events.len(), 1);
}

#[tokio::test]
async fn readers_at_different_places_read_the_same() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "shared", 1).await;
    send_numbers(&kafka, &topic, 30_000).await;
    let log = followed(&kafka, &topic).await;
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move { all(&log, Partition(0), Filter::default()).await.len() })
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 30_000);
    }
}

#[tokio::test]
async fn single_events_are_found_beside_those_who_follow() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "single", 1).await;
    send_numbers(&kafka, &topic, 500).await;
    let log = followed(&kafka, &topic).await;
    for position in [1, 250, 500] {
        let position = Position::new(position);
        let read = ReadLog::after(position.minus(1)).up_to(position).limit(1);
        let page = log.read(read).await.unwrap();
        assert_eq!(page.events[0].position, position);
        assert_eq!((page.scanned, page.end), (position, true));
    }
}

#[tokio::test]
async fn a_page_backward_begins_with_the_newest() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "backward", 1).await;
    send_numbers(&kafka, &topic, 300).await;
    let log = followed(&kafka, &topic).await;
    let mut read = ReadLog::after(Position::START).backward().limit(100);
    let mut found = Vec::new();
    loop {
        let page = log.read(read.clone()).await.unwrap();
        found.extend(page.events.iter().map(|event| event.position.get()));
        if page.end {
            break;
        }
        read.up_to = page.scanned.minus(1);
    }
    let expected: Vec<u64> = (1..=300).rev().collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_position_is_found_for_a_time() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "times", 1).await;
    let publisher = kafka.publisher().unwrap();
    let at = |seconds: i64| DateTime::<Utc>::from_timestamp(1_700_000_000 + seconds, 0).unwrap();
    for second in 0..10 {
        let record = NewRecord::to(&topic).key("a").value("1").at(at(second));
        publisher.queue(&record).await.unwrap();
    }
    publisher.flush().await.unwrap();
    let log = followed(&kafka, &topic).await;
    for (moment, position) in [(at(-1), 0), (at(0), 1), (at(4), 5), (at(99), 10)] {
        let found = log.position_at(Partition(0), moment).await.unwrap();
        assert_eq!(found, Position::new(position), "{moment}");
    }
}

#[tokio::test]
async fn members_of_a_group_share_its_partitions() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "group", 4).await;
    let member = |instance: &str| Topic::named(&topic).group(&topic).instance(instance);
    let first = kafka.log(member("a")).await.unwrap();
    let mut assigned = first.assignment().unwrap();
    let all = assigned.wait_for(|of| of.partitions.len() == 4);
    tokio::time::timeout(TIMEOUT, all).await.unwrap().unwrap();
    let second = kafka.log(member("b")).await.unwrap();
    let mut other = second.assignment().unwrap();
    let half = async {
        other.wait_for(|of| of.partitions.len() == 2).await.unwrap();
        assigned
            .wait_for(|of| of.partitions.len() == 2)
            .await
            .unwrap();
    };
    tokio::time::timeout(TIMEOUT, half).await.unwrap();
    let mine = assigned.borrow().partitions.clone();
    assert!(mine.is_disjoint(&other.borrow().partitions));
    let partition = *mine.first().unwrap();
    let group = first.group().unwrap();
    group.commit([(partition, Position::new(0))]).await.unwrap();
    let committed = group.committed(4).await.unwrap();
    let found = committed
        .iter()
        .find(|of| of.partition == partition)
        .unwrap();
    assert_eq!(found.position, Some(Position::START));
}

const SLOW: &str = "on_kafka::following::slow_reader";
const PLACE: &str = "ANNALS_KAFKA_SLOW_PLACE";

/// MiB of this process: what it has now, or the most that it had.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1_024
}

/// Takes ten times as long for a page as it takes to read it, and says what that needed; does
/// nothing unless it is asked to.
#[tokio::test]
async fn slow_reader() {
    let Ok(topic) = std::env::var(PLACE) else {
        return;
    };
    let before = memory("VmRSS:");
    let log = followed(&kafka().await, &topic).await;
    let mut hint = log.hint();
    let (mut after, mut events) = (Position::START, 0);
    while events < LARGE {
        let asked = Instant::now();
        let page = log.read(ReadLog::after(after)).await.unwrap();
        let took = asked.elapsed();
        events += page.events.len();
        after = page.scanned;
        let handled = Instant::now() + took * 10;
        while Instant::now() < handled {
            hint.wait(handled - Instant::now()).await;
        }
    }
    println!("needed {} MiB", memory("VmHWM:").saturating_sub(before));
}

const LARGE: usize = 8_000;
const LARGE_BYTES: usize = 10_000;

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_reader_ten_times_too_slow_needs_bounded_memory() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "slow", 1).await;
    let publisher = kafka.publisher().unwrap();
    let mut state = 1_u64;
    for _ in 0..LARGE {
        // Noise: what is packed well is unpacked by the client, an answer at a time.
        let noise = (0..LARGE_BYTES / 8).flat_map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()
        });
        let record = NewRecord::to(&topic)
            .key("a")
            .value(noise.collect::<Vec<u8>>());
        publisher.queue(&record).await.unwrap();
    }
    publisher.flush().await.unwrap();
    let mut reads = std::process::Command::new(std::env::current_exe().unwrap());
    reads.args(["--exact", SLOW, "--nocapture"]);
    reads.env(PLACE, &topic);
    let output = tokio::task::spawn_blocking(move || reads.output().unwrap());
    let output = String::from_utf8(output.await.unwrap().stdout).unwrap();
    let needed = output.split("needed ").nth(1).expect(&output);
    let needed: u64 = needed.split(' ').next().unwrap().parse().unwrap();
    println!("of a topic of 76 MiB, {needed} MiB were in memory");
    // Eight pages of 1 MiB are kept, and the client fetches 4 MiB ahead.
    assert!(needed < 40, "{needed} MiB");
}
