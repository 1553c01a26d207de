//! What was removed before it was read, topics that grow, topics that are made again.

use std::time::Duration;

use annals::runner::records_at;
use annals_core::{Failure, Filter, Log, Partition, Position, ReadLog, StoreError};
use annals_kafka::{Topic, TopicLog};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::relays::noise;
use crate::broker::{TIMEOUT, fresh, kafka, send, topic, url};

const FIVE: [(&str, &str); 5] = [("a", "1"), ("a", "2"), ("a", "3"), ("a", "4"), ("a", "5")];

async fn positions(log: &TopicLog, after: u64) -> Vec<u64> {
    let page = log
        .read(ReadLog::after(Position::new(after)))
        .await
        .unwrap();
    page.events
        .iter()
        .map(|event| event.position.get())
        .collect()
}

#[tokio::test]
async fn records_removed_before_they_were_read_stop_a_reader() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "removed", 1).await;
    send(&kafka, &topic, &FIVE).await;
    kafka.delete_records(&topic, Partition(0), 3).await.unwrap();
    let log = kafka.log(Topic::named(&topic)).await.unwrap();
    assert_eq!(
        log.begins_after(Partition(0)).await.unwrap(),
        Position::new(3)
    );
    let error = log
        .read(ReadLog::after(Position::new(1)))
        .await
        .unwrap_err();
    assert_eq!(error.failure(), Failure::Invalid);
    let said = error.to_string();
    let range = format!("positions 2 to 3 of partition 0 of topic `{topic}` were removed");
    assert!(said.starts_with(&range), "{said}");
    let error = log.read(ReadLog::after(Position::START)).await.unwrap_err();
    assert!(error.to_string().contains("from_what_is_left"), "{error}");
    // What comes after the gap is read as ever.
    assert_eq!(positions(&log, 3).await, [4, 5]);
}

#[tokio::test]
async fn an_accepted_gap_is_passed_over() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "accepted", 1).await;
    send(&kafka, &topic, &FIVE).await;
    kafka.delete_records(&topic, Partition(0), 3).await.unwrap();
    let accepted = Topic::named(&topic).accept_gap(Partition(0), Position::new(3), "a test");
    let log = kafka.log(accepted).await.unwrap();
    assert_eq!(positions(&log, 1).await, [4, 5]);
    let left = kafka
        .log(Topic::named(&topic).from_what_is_left())
        .await
        .unwrap();
    assert_eq!(positions(&left, 0).await, [4, 5]);
    assert!(left.read(ReadLog::after(Position::new(1))).await.is_err());
}

/// Positions of a range of few.
async fn in_range(log: &TopicLog, (after, up_to): (u64, u64)) -> Result<Vec<u64>, StoreError> {
    let read = ReadLog::after(Position::new(after)).up_to(Position::new(up_to));
    let page = log.read(read).await?;
    assert_eq!((page.scanned, page.end), (Position::new(up_to), true));
    Ok(page.events.iter().map(|of| of.position.get()).collect())
}

#[tokio::test]
async fn a_short_range_begins_where_the_log_does() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "short", 1).await;
    send(&kafka, &topic, &FIVE).await;
    let begins = Topic::named(&topic).from_offsets([(Partition(0), 2)]);
    let begins = kafka.log(begins).await.unwrap();
    assert_eq!(in_range(&begins, (0, 5)).await.unwrap(), [3, 4, 5]);
    kafka.delete_records(&topic, Partition(0), 3).await.unwrap();
    let log = kafka.log(Topic::named(&topic)).await.unwrap();
    for up_to in [3, 4, 5] {
        let error = in_range(&log, (1, up_to)).await.unwrap_err();
        let range = format!("positions 2 to 3 of partition 0 of topic `{topic}` were removed");
        assert!(error.to_string().starts_with(&range), "{error}");
    }
    let error = in_range(&log, (2, 3)).await.unwrap_err();
    assert_eq!(error.failure(), Failure::Invalid);
    let accepted = Topic::named(&topic).accept_gap(Partition(0), Position::new(3), "a test");
    let accepted = kafka.log(accepted).await.unwrap();
    assert_eq!(in_range(&accepted, (1, 5)).await.unwrap(), [4, 5]);
    // Who asks for one event is told that it is not there.
    let second = ReadLog::after(Position::new(1)).up_to(Position::new(2));
    let found = log.read(second.limit(1)).await.unwrap();
    assert!(found.events.is_empty());
    let positions: Vec<Position> = (1..=4).map(Position::new).collect();
    let found = records_at(&log, Partition(0), &positions).await.unwrap();
    let found: Vec<u64> = found.iter().map(|of| of.position.get()).collect();
    assert_eq!(found, [4]);
}

#[tokio::test]
async fn a_short_range_is_read_past_what_does_not_match() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "large", 1).await;
    let large = noise(200_000);
    // More than a page before the one that matches.
    let mut records = vec![("a", &large[..]); 12];
    records.push(("b", "1"));
    send(&kafka, &topic, &records).await;
    let log = kafka.log(Topic::named(&topic)).await.unwrap();
    let last = ReadLog::after(Position::new(12)).up_to(Position::new(13));
    let last = log.read(last).await.unwrap().events.remove(0);
    let filter = Filter::default().stream_prefix(last.stream.as_str());
    let mut read = ReadLog::after(Position::START)
        .up_to(Position::new(13))
        .filter(filter);
    let mut found = Vec::new();
    loop {
        let page = log.read(read.clone()).await.unwrap();
        found.extend(page.events);
        if page.end {
            break;
        }
        read.after = page.scanned;
    }
    assert_eq!(found, [last]);
}

/// An open transaction with so many records.
fn open_transaction(topic: &str, records: usize) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", url().trim_start_matches("kafka://"))
        .set("transactional.id", fresh("open"))
        .create()
        .unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    producer.begin_transaction().unwrap();
    for _ in 0..records {
        let record = BaseRecord::to(topic).partition(0).key("a").payload("7");
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
    producer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_records_before_an_open_transaction_stall_no_read() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "aborted", 1).await;
    send(&kafka, &topic, &FIVE).await;
    let aborted = open_transaction(&topic, 3);
    let open = open_transaction(&topic, 1);
    // Its marker comes after the first record of the other one.
    aborted.abort_transaction(TIMEOUT).unwrap();
    let log = kafka.log(Topic::named(&topic)).await.unwrap();
    // The broker writes the marker a moment after it has answered.
    let ends = async {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        while log.head(Partition(0)).await.unwrap().visible != Position::new(8) {
            looks.tick().await;
        }
    };
    tokio::time::timeout(TIMEOUT, ends).await.unwrap();
    for after in [3, 5, 6] {
        let left: Vec<u64> = (after + 1..=5).collect();
        assert_eq!(in_range(&log, (after, 8)).await.unwrap(), left);
    }
    let backward = ReadLog::after(Position::START).backward();
    let page = log.read(backward).await.unwrap();
    let found: Vec<u64> = page.events.iter().map(|of| of.position.get()).collect();
    assert_eq!(found, [5, 4, 3, 2, 1]);
    open.abort_transaction(TIMEOUT).unwrap();
}

#[tokio::test]
async fn a_log_can_begin_at_an_offset() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "offset", 1).await;
    send(&kafka, &topic, &FIVE).await;
    let begins = Topic::named(&topic).from_offsets([(Partition(0), 2)]);
    let log = kafka.log(begins).await.unwrap();
    assert_eq!(positions(&log, 0).await, [3, 4, 5]);
}

#[tokio::test]
async fn the_events_of_a_topic_made_again_have_other_ids() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "again", 1).await;
    send(&kafka, &topic, &FIVE).await;
    let log = kafka.log(Topic::named(&topic)).await.unwrap();
    let before = log
        .read(ReadLog::after(Position::START))
        .await
        .unwrap()
        .events;
    drop(log);
    kafka.delete_topic(&topic).await.unwrap();
    let spec = annals_kafka::TopicSpec::named(&topic).partitions(1);
    // The name is free a moment after the deletion was acknowledged.
    while kafka.partitions_of(&topic).await.is_ok() {
        tokio::task::yield_now().await;
    }
    kafka.ensure([spec]).await.unwrap();
    send(&kafka, &topic, &FIVE).await;
    let log = kafka.log(Topic::named(&topic)).await.unwrap();
    let after = log
        .read(ReadLog::after(Position::START))
        .await
        .unwrap()
        .events;
    assert_eq!(after.len(), before.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.position, after.position);
        assert_ne!(before.id, after.id);
    }
}

#[tokio::test]
async fn only_the_accepted_number_of_partitions_is_followed() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "grown", 2).await;
    kafka.grow_topic(&topic, 3).await.unwrap();
    // Brokers learn of it one after another.
    let opened = || kafka.log(Topic::named(&topic).accept_more_partitions(2, 3));
    while kafka.partitions_of(&topic).await.unwrap() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(opened().await.unwrap().partitions(), 3);
    for (had, has) in [(9, 3), (2, 4), (1, 2)] {
        let other = Topic::named(&topic).accept_more_partitions(had, has);
        let error = kafka.log(other).await.unwrap_err();
        assert_eq!(error.failure(), Failure::Invalid);
    }
}
