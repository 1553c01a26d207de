//! A log that is published, and what its readers see.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use annals::projections::With as _;
use annals::sqlite::SqliteStore;
use annals_core::{
    Annals, Append, Event as _, Failure, Log, MemoryStore, Metadata, NewEvent, Partition, Position,
    ReadLog, RecordedEvent, StreamId, Tag,
};
use annals_kafka::{Kafka, Relay, Topic, TopicSpec, murmur2_partition};
use tokio::sync::oneshot;

use super::rows::Counted;
use crate::broker::{TIMEOUT, fresh, is_long, kafka, topic};

async fn append(store: &dyn annals_core::Store, stream: &str, events: usize) {
    let event = |number: usize| {
        NewEvent::json(
            Counted::shapes()[0].event_type,
            format!(r#"{{"cents":{number}}}"#),
        )
        .tag("kind:test".parse::<Tag>().unwrap())
        .metadata(Metadata::default().actor("ada").key("anything", "ä\n"))
    };
    let events: Vec<NewEvent> = (0..events).map(event).collect();
    let stream = StreamId::new(stream).unwrap();
    store.append(Append::new(stream, events)).await.unwrap();
}

/// Everything that a reader of committed records sees, in order per partition.
async fn published(kafka: &Kafka, topic: &str) -> Vec<RecordedEvent> {
    let mut events = Vec::new();
    let Ok(log) = kafka.log(Topic::named(topic).cloud_events()).await else {
        // The relay has not made it yet.
        return events;
    };
    for partition in (0..log.partitions()).map(Partition) {
        let mut after = Position::START;
        loop {
            let read = ReadLog::after(after).partition(partition);
            let page = log.read(read).await.unwrap();
            events.extend(page.events);
            after = page.scanned;
            if page.end {
                break;
            }
        }
    }
    events
}

/// Waits until so many events are published.
async fn until_published(kafka: &Kafka, topic: &str, count: usize) -> Vec<RecordedEvent> {
    let waits = async {
        loop {
            let events = published(kafka, topic).await;
            if events.len() >= count {
                return events;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, waits).await.unwrap()
}

#[tokio::test]
async fn what_was_published_comes_back_equal() {
    let kafka = kafka().await;
    let name = fresh("equal").leak() as &str;
    let store = Arc::new(MemoryStore::new());
    append(&*store, "account-a", 3).await;
    append(&*store, "account-b", 2).await;
    let db = Annals::on(Arc::<MemoryStore>::clone(&store));
    let relay = Relay::named(name).to(&kafka, TopicSpec::named(name).partitions(4));
    let (stop, stopped) = oneshot::channel::<()>();
    let run_db = db.clone();
    let runs = tokio::spawn(async move { relay.run(&run_db, async { drop(stopped.await) }).await });
    until_published(&kafka, name, 5).await;
    append(&*store, "account-a", 1).await;
    let mut events = until_published(&kafka, name, 6).await;
    stop.send(()).unwrap();
    runs.await.unwrap().unwrap();
    let mut expected = store
        .read(ReadLog::after(Position::START))
        .await
        .unwrap()
        .events;
    for event in &events {
        let key = event.stream.as_str().as_bytes();
        assert_eq!(event.partition, Partition(murmur2_partition(key, 4)));
    }
    // All but the place in the log comes back.
    for event in events.iter_mut().chain(&mut expected) {
        event.partition = Partition(0);
        event.position = Position::START;
    }
    events.sort_by_key(|event| event.id);
    expected.sort_by_key(|event| event.id);
    assert_eq!(events, expected);
}

#[tokio::test]
async fn a_relay_is_a_part_of_a_program() {
    let kafka = kafka().await;
    let name = fresh("part").leak() as &str;
    let store = Arc::new(MemoryStore::new());
    append(&*store, "account-a", 2).await;
    let relay = Relay::named(name).to(&kafka, TopicSpec::named(name).partitions(1));
    let db = Annals::on(Arc::<MemoryStore>::clone(&store))
        .with(relay)
        .start()
        .await
        .unwrap();
    until_published(&kafka, name, 2).await;
    append(&*store, "account-a", 1).await;
    until_published(&kafka, name, 3).await;
    db.stop().await;
    append(&*store, "account-a", 1).await;
    assert_eq!(published(&kafka, name).await.len(), 3);
}

#[tokio::test]
async fn another_log_is_not_published_under_the_same_name() {
    let kafka = kafka().await;
    let name = fresh("other").leak() as &str;
    let relay = || Relay::named(name).to(&kafka, TopicSpec::named(name).partitions(1));
    let store = Arc::new(MemoryStore::new());
    append(&*store, "account-a", 1).await;
    let db = Annals::on(store);
    let first = relay();
    tokio::select! {
        ended = first.run(&db, std::future::pending()) => panic!("{ended:?}"),
        _ = until_published(&kafka, name, 1) => {}
    }
    let other = Arc::new(MemoryStore::new());
    append(&*other, "account-a", 1).await;
    let error = relay()
        .run(&Annals::on(other), std::future::pending())
        .await
        .unwrap_err();
    assert_eq!(error.failure(), Failure::Invalid);
    assert!(
        error.to_string().contains("it has published the log"),
        "{error}"
    );
    assert_eq!(published(&kafka, name).await.len(), 1);
}

const VICTIM: &str = "on_kafka::relays::victim";
const PLACE: &str = "ANNALS_KAFKA_RELAY_PLACE";

/// Publishes until it is killed; does nothing unless it is asked to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Ok(place) = std::env::var(PLACE) else {
        return;
    };
    let (name, path) = place.split_once(' ').unwrap();
    let store = SqliteStore::open(&format!("sqlite:{path}")).await.unwrap();
    let name: &'static str = name.to_owned().leak();
    let relay = Relay::named(name)
        .batch_events_max(200)
        .to(&kafka().await, TopicSpec::existing(name));
    let db = Annals::on(Arc::new(store));
    relay.run(&db, std::future::pending()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_killed_many_times_publishes_each_event_once() {
    let (events, kills) = if is_long() {
        (100_000, 50)
    } else {
        (20_000, 8)
    };
    let kafka = kafka().await;
    let name = topic(&kafka, "killed", 3).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bank.db");
    let store = SqliteStore::open(&format!("sqlite:{}", path.display()))
        .await
        .unwrap();
    for number in 0..events / 100 {
        append(&store, &format!("account-{}", number % 40), 100).await;
    }
    for kill in 0..=kills {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", VICTIM])
            .env(PLACE, format!("{name} {}", path.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        if kill == kills {
            until_published(&kafka, &name, events).await;
        } else {
            // Opening takes a while; later kills fall into transactions.
            let while_it_runs = Duration::from_millis(300 + 170 * (kill % 8) as u64);
            tokio::time::sleep(while_it_runs).await;
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    let found = published(&kafka, &name).await;
    let mut expected: BTreeMap<StreamId, Vec<u64>> = BTreeMap::new();
    for stream in 0..40 {
        let per_stream = (events / 40) as u64;
        let stream = StreamId::new(format!("account-{stream}")).unwrap();
        expected.insert(stream, (1..=per_stream).collect());
    }
    let mut versions: BTreeMap<StreamId, Vec<u64>> = BTreeMap::new();
    for event in found {
        versions
            .entry(event.stream)
            .or_default()
            .push(event.version.get());
    }
    // Nothing twice, nothing missing, in order per key.
    assert_eq!(versions, expected);
}
