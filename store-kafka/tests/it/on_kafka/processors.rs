//! Consume, transform, produce: exact, with dead letters that come back.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use annals_core::{
    Failure, Invalid, Log, LogId, Outgoing, Outlet as _, OutletMark, Partition, Position, ReadLog,
    RecordedEvent,
};
use annals_kafka::{Kafka, KafkaOutlet, NewRecord, Processor, Topic, TopicSpec};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::relays::noise;
use crate::broker::{TIMEOUT, fresh, is_long, kafka, send, topic, url};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Paid {
    cents: i64,
}

fn screening(name: &str) -> Processor {
    Processor::named(name)
        .reads(format!("{name}-in"))
        .writes(TopicSpec::named(format!("{name}-out")).partitions(3))
        .dead_letters(TopicSpec::named(format!("{name}-dead")).partitions(1))
}

async fn all(kafka: &Kafka, topic: &str) -> Vec<RecordedEvent> {
    let log = kafka.log(Topic::named(topic)).await.unwrap();
    let mut events = Vec::new();
    for partition in (0..log.partitions()).map(Partition) {
        let mut after = Position::START;
        loop {
            let page = log
                .read(ReadLog::after(after).partition(partition))
                .await
                .unwrap();
            events.extend(page.events);
            after = page.scanned;
            if page.end {
                break;
            }
        }
    }
    events
}

async fn until(kafka: &Kafka, topic: &str, count: usize) -> Vec<RecordedEvent> {
    let waits = async {
        loop {
            let found = match kafka.partitions_of(topic).await {
                Ok(_) => all(kafka, topic).await,
                Err(_) => Vec::new(),
            };
            if found.len() >= count {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, waits).await.unwrap()
}

#[tokio::test]
async fn a_failed_record_is_a_dead_letter_and_delays_nothing() {
    let kafka = kafka().await;
    let name = fresh("screening");
    let reads = format!("{name}-in");
    kafka
        .ensure([TopicSpec::named(&reads).partitions(1)])
        .await
        .unwrap();
    let publisher = kafka.publisher().unwrap();
    let records = [
        NewRecord::to(&reads).key("a").value(r#"{"cents":1}"#),
        NewRecord::to(&reads)
            .key(vec![0xff])
            .value("not json")
            .header("trace", "7")
            .header("annals.error.mine", "8"),
        NewRecord::to(&reads).value(r#"{"cents":-1}"#),
        NewRecord::to(&reads).key("b").value(r#"{"cents":13}"#),
        NewRecord::to(&reads).key("c").tombstone(),
        NewRecord::to(&reads).key("d").value(r#"{"cents":5}"#),
        NewRecord::to(&reads).key("e").value(r#"{"cents":2}"#),
    ];
    for record in &records {
        publisher.queue(record).await.unwrap();
    }
    publisher.flush().await.unwrap();
    let writes = format!("{name}-out");
    let out_topic = writes.clone();
    let processor = screening(&name).each(move |paid: Paid, out| {
        match paid.cents {
            -1 => return Err(Invalid::new("a payment below zero")),
            13 => panic!("thirteen"),
            5 => out.record(NewRecord::to(&out_topic).value(vec![b'x'; 2 << 20])),
            _ => out.send(&out_topic, "k", &paid)?,
        }
        Ok(())
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let run_kafka = kafka.clone();
    let runs = tokio::spawn(async move {
        processor
            .run(&run_kafka, async { drop(stopped.await) })
            .await
    });
    let dead = until(&kafka, &format!("{name}-dead"), 4).await;
    let written = until(&kafka, &writes, 2).await;
    stop.send(()).unwrap();
    runs.await.unwrap().unwrap();
    let payloads: Vec<&[u8]> = written.iter().map(|event| &event.payload[..]).collect();
    assert_eq!(payloads, [br#"{"cents":1}"#, br#"{"cents":2}"#]);
    let said = |event: &RecordedEvent, name: &str| {
        event.metadata.keys[&format!("kafka.header.annals.error.{name}")].clone()
    };
    let kinds: Vec<String> = dead.iter().map(|event| said(event, "kind")).collect();
    assert_eq!(kinds, ["undecodable", "refused", "panicked", "too_large"]);
    assert_eq!(&dead[0].payload[..], b"not json");
    assert_eq!(dead[0].metadata.keys["kafka.header.trace"], "7");
    assert_eq!(
        (said(&dead[0], "offset"), said(&dead[1], "attempts")),
        ("1".into(), "3".into())
    );

    // Sent back once each, to where they came from.
    let letters = kafka.dead_letters(&format!("{name}-dead"));
    let chosen = letters
        .replay_where(|letter| letter.value() == Some(b"not json"))
        .await;
    assert_eq!(chosen.unwrap(), 1);
    assert_eq!(letters.replay().await.unwrap(), 0);
    let back = until(&kafka, &reads, records.len() + 1).await;
    let read = back[1].recorded_at;
    let back = back.last().unwrap();
    assert_eq!(&back.payload[..], b"not json");
    assert_eq!(back.recorded_at, read);
    assert_eq!(back.metadata.keys["kafka.header.annals.error.mine"], "8");
    assert_eq!(back.metadata.keys["kafka.header.annals.replayed"], "1");
    assert_eq!(back.metadata.keys["kafka.key64"], "/w==");
    assert!(
        !back
            .metadata
            .keys
            .contains_key("kafka.header.annals.error.kind")
    );
}

#[tokio::test]
async fn without_a_dead_letter_topic_a_failure_stops_the_processor() {
    let kafka = kafka().await;
    let reads = topic(&kafka, "stops", 1).await;
    send(&kafka, &reads, &[("a", "broken")]).await;
    let processor = Processor::named(&reads)
        .reads(&reads)
        .each(|_: Paid, _| Ok::<_, Invalid>(()));
    let error = processor
        .run(&kafka, std::future::pending())
        .await
        .unwrap_err();
    assert_eq!(error.failure(), Failure::Invalid);
    let said = error.to_string();
    assert!(
        said.contains("the record at offset 0 of partition 0"),
        "{said}"
    );
}

#[tokio::test]
async fn at_least_once_commits_after_its_results_and_says_so() {
    let kafka = kafka().await;
    let reads = topic(&kafka, "least", 1).await;
    let writes = topic(&kafka, "most", 1).await;
    send(
        &kafka,
        &reads,
        &[("a", r#"{"cents":1}"#), ("a", r#"{"cents":2}"#)],
    )
    .await;
    let committed = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&committed);
    let out_topic = writes.clone();
    let processor = Processor::named(&reads)
        .reads(&reads)
        .at_least_once()
        .on_commit(move |offsets| told.lock().unwrap().extend_from_slice(offsets))
        .each(move |paid: Paid, out| out.send(&out_topic, "k", &paid));
    let until_two = async {
        let last = || committed.lock().unwrap().last().copied();
        while last() != Some((Partition(0), 2)) {
            tokio::task::yield_now().await;
        }
    };
    processor.run(&kafka, until_two).await.unwrap();
    assert_eq!(all(&kafka, &writes).await.len(), 2);
}

/// Copies its topic to another one until that holds so many records.
async fn copies(kafka: &Kafka, processor: Processor, writes: &str, count: usize) -> Vec<String> {
    let copied = async {
        until(kafka, writes, count).await;
    };
    processor.run(kafka, copied).await.unwrap();
    let events = all(kafka, writes).await;
    let text = |event: &RecordedEvent| String::from_utf8(event.payload.to_vec()).unwrap();
    events.iter().map(text).collect()
}

fn copier(name: &str, reads: &str, writes: &str) -> Processor {
    let to = writes.to_owned();
    Processor::named(name)
        .reads(reads)
        .each_bytes(move |record, out| {
            out.record(NewRecord::to(&to).value(record.value().unwrap_or_default()));
            Ok::<_, Invalid>(())
        })
}

#[tokio::test]
async fn a_processor_stops_at_records_removed_before_it_read_them() {
    let kafka = kafka().await;
    let reads = topic(&kafka, "removes", 1).await;
    let writes = topic(&kafka, "copied", 1).await;
    send(&kafka, &reads, &[("a", "0"), ("a", "1")]).await;
    let copier = |name: &str| copier(name, &reads, &writes);
    assert_eq!(copies(&kafka, copier(&reads), &writes, 2).await, ["0", "1"]);
    send(&kafka, &reads, &[("a", "2"), ("a", "3"), ("a", "4")]).await;
    kafka.delete_records(&reads, Partition(0), 4).await.unwrap();
    let stopped = copier(&reads).run(&kafka, std::future::pending());
    let error = tokio::time::timeout(TIMEOUT, stopped)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.failure(), Failure::Invalid);
    let said = error.to_string();
    let range = format!("offsets 2 to 3 of partition 0 of topic `{reads}` were removed");
    assert!(said.starts_with(&range), "{said}");
    let way = "`Processor::accept_gap(Partition(0), 3, reason)` continues after them";
    assert!(said.ends_with(way), "{said}");
    // Less than all of it is not accepted.
    let less = copier(&reads).accept_gap(Partition(0), 2, "a test");
    let stopped = less.run(&kafka, std::future::pending());
    let error = tokio::time::timeout(TIMEOUT, stopped)
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().starts_with(&range), "{error}");
    let accepted = copier(&reads).accept_gap(Partition(0), 3, "a test");
    let copied = copies(&kafka, accepted, &writes, 3).await;
    assert_eq!(copied, ["0", "1", "4"]);
    // What was never begun misses nothing.
    let copied = copies(&kafka, copier(&fresh("begins")), &writes, 4).await;
    assert_eq!(copied, ["0", "1", "4", "4"]);
}

#[tokio::test]
async fn a_removed_marker_stops_no_processor() {
    let kafka = kafka().await;
    let reads = topic(&kafka, "marked", 1).await;
    let writes = topic(&kafka, "copied", 1).await;
    // A record, and the marker of its transaction.
    let mut outlet = KafkaOutlet::named(&kafka, fresh("marked")).unwrap();
    outlet.open().await.unwrap();
    let log = LogId::random();
    let take = |number: u64| {
        let record = Outgoing {
            to: reads.as_str().into(),
            key: "a".into(),
            payload: Some(number.to_string().into()),
            headers: Vec::new(),
            occurred_at: Default::default(),
        };
        let mark = OutletMark {
            log,
            partition: Partition(0),
            position: Position::new(number),
            event: None,
            note: Default::default(),
        };
        (vec![record], mark)
    };
    let (batch, mark) = take(1);
    outlet.take(batch, mark).await.unwrap();
    let group: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", url().trim_start_matches("kafka://"))
        .set("group.id", &reads)
        .create()
        .unwrap();
    let passed = async {
        loop {
            let mut list = TopicPartitionList::new();
            list.add_partition(&reads, 0);
            let found = group.committed_offsets(list, TIMEOUT).unwrap();
            if found.elements()[0].offset() == Offset::Offset(2) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let run = copier(&reads, &reads, &writes).run(&kafka, passed);
    tokio::time::timeout(TIMEOUT, run).await.unwrap().unwrap();
    kafka.delete_records(&reads, Partition(0), 2).await.unwrap();
    let (batch, mark) = take(2);
    outlet.take(batch, mark).await.unwrap();
    let copier = copier(&reads, &reads, &writes);
    assert_eq!(copies(&kafka, copier, &writes, 2).await, ["1", "2"]);
}

#[tokio::test]
async fn a_letter_too_large_for_its_topic_is_replayed_from_its_place() {
    let kafka = kafka().await;
    let large = [("message.max.bytes", "2000000")];
    let sends = Kafka::connect_with(&url(), large).await.unwrap();
    // As large as brokers take, and somewhat less than clients send.
    let poison = [noise(1_030_000), noise(999_000)];
    for letters_take in [None, Some("10000")] {
        let name = fresh("large");
        let reads = topic(&kafka, "large-in", 1).await;
        let dead = format!("{name}-dead");
        if let Some(bytes) = letters_take {
            let small = TopicSpec::named(&dead).partitions(1);
            kafka
                .ensure([small.setting("max.message.bytes", bytes)])
                .await
                .unwrap();
        }
        let publisher = sends.publisher().unwrap();
        for value in &poison {
            let record = NewRecord::to(&reads).key("a").value(value.as_str());
            publisher.send(record.header("trace", "7")).await.unwrap();
        }
        let processor = Processor::named(&name)
            .reads(&reads)
            .dead_letters(TopicSpec::named(&dead).partitions(1))
            .each(|_: Paid, _| Ok::<_, Invalid>(()));
        let both = async {
            until(&kafka, &dead, 2).await;
        };
        let runs = processor.run(&kafka, both);
        tokio::time::timeout(TIMEOUT, runs).await.unwrap().unwrap();
        for (letter, value) in all(&kafka, &dead).await.iter().zip(&poison) {
            let keys = &letter.metadata.keys;
            let omitted = keys.get("kafka.header.annals.error.omitted_bytes");
            assert_eq!(keys["kafka.header.trace"], "7");
            match letters_take {
                None => assert!(&letter.payload[..] == value.as_bytes() && omitted.is_none()),
                Some(_) => {
                    assert_eq!(&letter.payload[..], b"null");
                    assert_eq!(omitted, Some(&value.len().to_string()));
                }
            }
        }
        let letters = kafka.dead_letters(&dead);
        let second =
            letters.replay_where(|letter| letter.header("annals.error.offset") == Some(b"1"));
        assert_eq!(second.await.unwrap(), 1);
        let back = until(&kafka, &reads, 3).await;
        assert!(back[2].payload == back[1].payload);
        let keys = &back[2].metadata.keys;
        assert_eq!(keys["kafka.header.annals.replayed"], "1");
        assert_eq!(keys["kafka.header.trace"], "7");
        assert!(!keys.keys().any(|key| key.contains("annals.error.")));
    }
}

#[tokio::test]
async fn letters_that_come_during_a_replay_wait_for_the_next() {
    let kafka = kafka().await;
    let reads = topic(&kafka, "during", 1).await;
    let dead = topic(&kafka, "dead", 1).await;
    let publisher = kafka.publisher().unwrap();
    let letter = |value: &str| {
        let letter = NewRecord::to(&dead).key("a").value(value);
        letter.header("annals.error.topic", reads.clone())
    };
    publisher.send(letter("first")).await.unwrap();
    let letters = kafka.dead_letters(&dead);
    let (looks, looked) = oneshot::channel();
    let (goes_on, may_go_on) = std::sync::mpsc::channel();
    let state = Mutex::new((Some(looks), may_go_on));
    let replay = letters.replay_where(move |_| {
        let mut state = state.lock().unwrap();
        // The next one is there before the replay goes on.
        if let Some(looks) = state.0.take() {
            looks.send(()).unwrap();
            state.1.recv().unwrap();
        }
        true
    });
    let comes = async {
        looked.await.unwrap();
        publisher.send(letter("second")).await.unwrap();
        goes_on.send(()).unwrap();
    };
    let both = async { tokio::join!(replay, comes) };
    let (sent, ()) = tokio::time::timeout(TIMEOUT, both).await.unwrap();
    assert_eq!(sent.unwrap(), 1);
    let back = until(&kafka, &reads, 1).await;
    assert_eq!(back.len(), 1);
    assert_eq!(&back[0].payload[..], b"first");
    assert_eq!(letters.replay().await.unwrap(), 1);
    let back = until(&kafka, &reads, 2).await;
    assert_eq!(&back[1].payload[..], b"second");
}

#[tokio::test]
async fn letters_that_were_removed_are_passed_over() {
    let kafka = kafka().await;
    let reads = topic(&kafka, "removed", 1).await;
    let dead = topic(&kafka, "dead", 1).await;
    send(&kafka, &reads, &[("a", "first"), ("a", "second")]).await;
    let processor = Processor::named(&reads)
        .reads(&reads)
        .dead_letters(TopicSpec::existing(&dead))
        .each(|_: Paid, _| Ok::<_, Invalid>(()));
    let both = async {
        until(&kafka, &dead, 2).await;
    };
    processor.run(&kafka, both).await.unwrap();
    kafka.delete_records(&dead, Partition(0), 1).await.unwrap();
    assert_eq!(kafka.dead_letters(&dead).replay().await.unwrap(), 1);
    let back = until(&kafka, &reads, 3).await;
    assert_eq!(&back[2].payload[..], b"second");
    assert_eq!(kafka.dead_letters(&dead).replay().await.unwrap(), 0);
}

#[tokio::test]
async fn a_letter_whose_record_was_removed_says_so() {
    let kafka = kafka().await;
    let (reads, dead) = with_a_letter_without_its_value(&kafka).await;
    kafka.delete_records(&reads, Partition(0), 1).await.unwrap();
    let letters = kafka.dead_letters(&dead);
    let error = letters.replay().await.unwrap_err();
    let says = "it cannot be sent back. Pass over it with `replay_where`";
    assert!(error.to_string().ends_with(says), "{error}");
    assert_eq!(letters.replay_where(|_| false).await.unwrap(), 0);
    assert_eq!(letters.replay().await.unwrap(), 0);
}

/// A topic with one record that is too large for its dead letter, and the topic of that letter.
async fn with_a_letter_without_its_value(kafka: &Kafka) -> (String, String) {
    let name = fresh("gone");
    let reads = topic(kafka, "gone-in", 1).await;
    let dead = format!("{name}-dead");
    let small = TopicSpec::named(&dead).partitions(1);
    kafka
        .ensure([small.setting("max.message.bytes", "2000")])
        .await
        .unwrap();
    send(kafka, &reads, &[("a", &noise(4_000))]).await;
    let processor = Processor::named(&name)
        .reads(&reads)
        .dead_letters(TopicSpec::existing(&dead))
        .each(|_: Paid, _| Ok::<_, Invalid>(()));
    let letter = async {
        until(kafka, &dead, 1).await;
    };
    processor.run(kafka, letter).await.unwrap();
    (reads, dead)
}

#[tokio::test]
async fn a_record_in_a_letters_place_is_not_sent() {
    let kafka = kafka().await;
    let (reads, dead) = with_a_letter_without_its_value(&kafka).await;
    kafka.delete_topic(&reads).await.unwrap();
    while kafka.partitions_of(&reads).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let again = TopicSpec::named(&reads).partitions(1);
    kafka.ensure([again]).await.unwrap();
    send(&kafka, &reads, &[("a", "another one")]).await;
    let error = kafka.dead_letters(&dead).replay().await.unwrap_err();
    let says = "it cannot be sent back. Pass over it with `replay_where`";
    assert!(error.to_string().ends_with(says), "{error}");
    assert_eq!(all(&kafka, &reads).await.len(), 1);
}

#[tokio::test]
async fn a_replay_goes_past_the_markers_of_letters() {
    let kafka = kafka().await;
    let reads = topic(&kafka, "replayed", 1).await;
    let dead = topic(&kafka, "dead", 1).await;
    send(&kafka, &reads, &[("a", "no payment")]).await;
    let processor = Processor::named(&reads)
        .reads(&reads)
        .dead_letters(TopicSpec::existing(&dead))
        .each(|_: Paid, _| Ok::<_, Invalid>(()));
    let letter = async {
        until(&kafka, &dead, 1).await;
    };
    processor.run(&kafka, letter).await.unwrap();
    assert_eq!(kafka.dead_letters(&dead).replay().await.unwrap(), 1);
    let group: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", url().trim_start_matches("kafka://"))
        .set("group.id", format!("annals.replay.{dead}"))
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(&dead, 0);
    // The letter, and the marker of its transaction.
    let committed = group.committed_offsets(list, TIMEOUT).unwrap();
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(2));
    assert_eq!(kafka.dead_letters(&dead).replay().await.unwrap(), 0);
}

/// What is done once, when the processor of this name has read the first record of a batch.
#[cfg(feature = "testing")]
static AT_READ: Mutex<Option<(String, Done)>> = Mutex::new(None);

#[cfg(feature = "testing")]
type Done = Box<dyn FnOnce() + Send>;

#[cfg(feature = "testing")]
fn at_the_next_read(processor: &str, done: impl FnOnce() + Send + 'static) {
    use annals_kafka::testing::{Step, at_steps};

    *AT_READ.lock().unwrap() = Some((format!("kafka-processor-{processor}"), Box::new(done)));
    at_steps(|step| {
        let mut at_read = AT_READ.lock().unwrap();
        let this = std::thread::current();
        let is_it = at_read.as_ref();
        let is_it = is_it.is_some_and(|(thread, _)| this.name() == Some(thread.as_str()));
        if step == Step::AfterRead && is_it {
            let done = at_read.take().unwrap().1;
            drop(at_read);
            done();
        }
    });
}

#[cfg(feature = "testing")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_revoked_while_a_batch_is_read_is_processed_once() {
    let kafka = kafka().await;
    let reads = topic(&kafka, "revoked", 2).await;
    let writes = topic(&kafka, "copied", 1).await;
    let numbers: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let records: Vec<(&str, &str)> = numbers.iter().map(|of| (&of[..], &of[..])).collect();
    send(&kafka, &reads, &records).await;
    let (held, is_held) = oneshot::channel();
    let (go_on, goes_on) = std::sync::mpsc::channel();
    at_the_next_read(&reads, move || {
        held.send(()).unwrap();
        goes_on.recv_timeout(TIMEOUT).unwrap();
    });
    // The first one is slow: it is done with its batch after the second one is with its own.
    let is_done = Arc::new((Mutex::new(false), Condvar::new()));
    let second_done = Arc::clone(&is_done);
    let to = writes.clone();
    let first = Processor::named(&reads).reads(&reads);
    let first = first.each_bytes(move |record, out| {
        let done = second_done.0.lock().unwrap();
        let waits = second_done
            .1
            .wait_timeout_while(done, TIMEOUT, |done| !*done);
        drop(waits.unwrap());
        out.record(NewRecord::to(&to).value(record.value().unwrap_or_default()));
        Ok::<_, Invalid>(())
    });
    let second = copier(&reads, &reads, &writes).on_commit(move |_| {
        *is_done.0.lock().unwrap() = true;
        is_done.1.notify_all();
    });
    let (stop, stopped) = tokio::sync::watch::channel(());
    let runs = [first, second].map(|processor| {
        let kafka = kafka.clone();
        let mut stopped = stopped.clone();
        async move {
            processor
                .run(&kafka, async { drop(stopped.changed().await) })
                .await
        }
    });
    let [first, second] = runs;
    let first = tokio::spawn(first);
    is_held.await.unwrap();
    let second = tokio::spawn(second);
    let group: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", url().trim_start_matches("kafka://"))
        .create()
        .unwrap();
    // Both are members, and one partition is to move.
    loop {
        let found = group.fetch_group_list(Some(&reads), TIMEOUT).unwrap();
        let of = &found.groups()[0];
        if of.state() == "Stable" && of.members().len() == 2 {
            break;
        }
        tokio::task::yield_now().await;
    }
    go_on.send(()).unwrap();
    let copied = until(&kafka, &writes, numbers.len()).await;
    stop.send(()).unwrap();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    let text = |event: &RecordedEvent| String::from_utf8(event.payload.to_vec()).unwrap();
    let mut copied: Vec<String> = copied.iter().map(text).collect();
    copied.sort_by_key(|of| of.parse::<u32>().unwrap());
    assert_eq!(copied, numbers);
}

const CHILD: &str = "on_kafka::processors::copies_until_it_is_killed";
const PLACE: &str = "ANNALS_KAFKA_PROCESSOR_PLACE";

/// Copies until it is killed; does nothing unless it is asked to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_until_it_is_killed() {
    let Ok(name) = std::env::var(PLACE) else {
        return;
    };
    let writes = format!("{name}-out");
    let processor = Processor::named(&name)
        .reads(format!("{name}-in"))
        .writes(TopicSpec::existing(&writes))
        .each_bytes(move |record, out| {
            let mut copy = NewRecord::to(&writes).value(record.value().unwrap_or_default());
            copy = copy.key(record.key().unwrap_or_default());
            out.record(copy);
            Ok::<_, Invalid>(())
        });
    processor
        .run(&kafka().await, std::future::pending())
        .await
        .unwrap();
}

fn start(name: &str) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD])
        .env(PLACE, name)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copiers_that_are_killed_copy_each_record_once() {
    let (count, kills) = if is_long() {
        (100_000, 10)
    } else {
        (10_000, 3)
    };
    let kafka = kafka().await;
    let name = fresh("copier");
    let reads = format!("{name}-in");
    let writes = format!("{name}-out");
    let specs = [&reads, &writes].map(|name| TopicSpec::named(name).partitions(4));
    kafka.ensure(specs).await.unwrap();
    let mut children = vec![start(&name), start(&name)];
    let publisher = kafka.publisher().unwrap();
    for kill in 0..kills {
        for number in count * kill / kills..count * (kill + 1) / kills {
            let record = NewRecord::to(&reads).key(format!("k{}", number % 29));
            publisher
                .queue(&record.value(number.to_string()))
                .await
                .unwrap();
        }
        publisher.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(900 + 200 * kill as u64)).await;
        let mut child = children.remove(0);
        child.kill().unwrap();
        child.wait().unwrap();
        children.push(start(&name));
    }
    let waits = async {
        while all(&kafka, &writes).await.len() < count {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    // The group waits for members that died, and the broker for their transactions.
    tokio::time::timeout(Duration::from_secs(150), waits)
        .await
        .unwrap();
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut copied: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for event in all(&kafka, &writes).await {
        let number = std::str::from_utf8(&event.payload)
            .unwrap()
            .parse()
            .unwrap();
        copied
            .entry(event.stream.id().to_owned())
            .or_default()
            .push(number);
    }
    let mut expected: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for number in 0..count {
        expected
            .entry(format!("k{}", number % 29))
            .or_default()
            .push(number);
    }
    // Nothing twice, nothing missing, in order per key.
    assert_eq!(copied, expected);
}
