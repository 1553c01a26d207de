//! A log that is published, and what its readers see.

use std::sync::Arc;

use annals::prelude::Program;
use annals::projections::{SlotState, Status, With as _};
use annals::runner::Kind;
use annals::sqlite::SqliteStore;
use annals_core::chrono::{DateTime, TimeDelta};
use annals_core::{
    Annals, Append, Clock as _, Event as _, EventStore as _, Failure, Log, MemoryStore, Metadata,
    NewEvent, Partition, Position, ReadLog, RecordedEvent, Store, StreamId, SystemClock, Tag,
};
use annals_kafka::{Kafka, Relay, Topic, TopicSpec, murmur2_partition};
use tokio::sync::oneshot;

use super::rows::Counted;
use crate::broker::{TIMEOUT, fresh, kafka};

pub(super) async fn append(store: &dyn Store, stream: &str, events: usize) {
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
pub(super) async fn published(kafka: &Kafka, topic: &str) -> Vec<RecordedEvent> {
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
pub(super) async fn until_published(
    kafka: &Kafka,
    topic: &str,
    count: usize,
) -> Vec<RecordedEvent> {
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
        event.topic = None;
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

/// Waits until the status of the relay of a program is as wanted.
async fn until_status(db: &Program, is_wanted: impl Fn(&Status) -> bool) -> Status {
    let waits = async {
        loop {
            let mut all = db.status().into_iter();
            let found = all.find(|of| of.kind == Kind::Relay && is_wanted(of));
            if let Some(found) = found {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, waits).await.unwrap()
}

#[tokio::test]
async fn of_two_programs_one_publishes_and_both_know_the_lag() {
    let kafka = kafka().await;
    let name = fresh("leased").leak() as &str;
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("bank.db").display());
    let open = || async {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&url).await.unwrap());
        let relay = Relay::named(name).to(&kafka, TopicSpec::named(name).partitions(2));
        let db = Annals::on(Arc::clone(&store)).with(relay);
        (store, db.start().await.unwrap())
    };
    let (store, first) = open().await;
    append(&*store, "account-a", 3).await;
    let is_live = |status: &Status| status.slots.iter().all(|of| of.state == SlotState::Live);
    let at_head = |head: u64| {
        move |status: &Status| {
            status.lag_events() == 0
                && status
                    .slots
                    .iter()
                    .any(|slot| slot.head.get(&Partition(0)) == Some(&Position::new(head)))
        }
    };
    until_status(&first, |status| is_live(status) && at_head(3)(status)).await;
    let (_, second) = open().await;
    let status = until_status(&second, at_head(3)).await;
    let SlotState::Elsewhere { owner, .. } = &status.slots[0].state else {
        panic!("{status:?}");
    };
    let of_first = until_status(&first, is_live).await;
    assert_eq!(Some(owner), of_first.slots[0].owner.as_ref());
    first.stop().await;
    append(&*store, "account-a", 2).await;
    until_status(&second, |status| is_live(status) && at_head(5)(status)).await;
    second.stop().await;
    let versions: Vec<u64> = published(&kafka, name)
        .await
        .iter()
        .map(|event| event.version.get())
        .collect();
    assert_eq!(versions, [1, 2, 3, 4, 5]);
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

/// Bytes that no compression makes smaller.
pub(super) fn noise(bytes: usize) -> String {
    let mut state = 7_u64;
    let letter = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from(b'!' + ((state >> 33) % 90) as u8)
    };
    (0..bytes).map(letter).collect()
}

#[tokio::test]
async fn a_records_time_is_that_of_its_publishing() {
    let kafka = kafka().await;
    let name = fresh("times").leak() as &str;
    let store = Arc::new(MemoryStore::new());
    let began = SystemClock.now();
    let (long_ago, ahead) = (DateTime::UNIX_EPOCH, began + TimeDelta::hours(2));
    for (stream, moment) in [("account-a", long_ago), ("account-b", ahead)] {
        let mut event = NewEvent::json(Counted::shapes()[0].event_type, r#"{"cents":1}"#);
        event.occurred_at = moment;
        let stream = StreamId::new(stream).unwrap();
        store.append(Append::new(stream, [event])).await.unwrap();
    }
    let db = Annals::on(store);
    let relay = Relay::named(name).to(&kafka, TopicSpec::named(name).partitions(1));
    assert_eq!(relay.catch_up(&db).await.unwrap(), 2);
    let events = published(&kafka, name).await;
    let occurred: Vec<_> = events.iter().map(|event| event.occurred_at).collect();
    assert_eq!(occurred, [long_ago, ahead]);
    // One that takes it as plain records finds both times.
    let log = kafka.log(Topic::named(name)).await.unwrap();
    let page = log.read(ReadLog::after(Position::START)).await.unwrap();
    let occurred: Vec<_> = page.events.iter().map(|event| event.occurred_at).collect();
    assert_eq!(occurred, [long_ago, ahead]);
    let published = began - TimeDelta::seconds(1)..SystemClock.now() + TimeDelta::seconds(1);
    for event in &page.events {
        assert!(
            published.contains(&event.recorded_at),
            "{}",
            event.recorded_at
        );
    }
}

#[tokio::test]
async fn records_that_are_too_large_only_together_are_published() {
    let kafka = kafka().await;
    let name = fresh("together").leak() as &str;
    let store = Arc::new(MemoryStore::new());
    let long = noise(20 * 600);
    let events = (0..20).map(|number| {
        let note = &long[number * 600..(number + 1) * 600];
        let payload = serde_json::json!({ "cents": number, "note": note }).to_string();
        NewEvent::json(Counted::shapes()[0].event_type, payload)
    });
    let stream = StreamId::new("account-a").unwrap();
    let append = Append::new(stream, events.collect::<Vec<_>>());
    store.append(append).await.unwrap();
    let db = Annals::on(store);
    let topic = TopicSpec::named(name)
        .partitions(1)
        .setting("max.message.bytes", "3000");
    let relay = Relay::named(name).to(&kafka, topic);
    let sent = tokio::time::timeout(TIMEOUT, relay.catch_up(&db));
    assert_eq!(sent.await.unwrap().unwrap(), 20);
    assert_eq!(published(&kafka, name).await.len(), 20);
}

#[tokio::test]
async fn a_refused_record_is_named_with_its_topic_and_event() {
    let kafka = kafka().await;
    let payload = serde_json::json!({ "cents": 1, "note": noise(4_000) }).to_string();
    let settings = [
        ("max.message.bytes", "2000"),
        // Whatever comes is older.
        ("message.timestamp.before.max.ms", "0"),
    ];
    for (setting, value) in settings {
        let name = fresh("refuses").leak() as &str;
        let store = Arc::new(MemoryStore::new());
        let event = NewEvent::json(Counted::shapes()[0].event_type, payload.clone());
        let stream = StreamId::new("account-a").unwrap();
        let appended = store.append(Append::new(stream, [event])).await.unwrap();
        let db = Annals::on(store);
        let topic = TopicSpec::named(name).partitions(1).setting(setting, value);
        let relay = Relay::named(name).to(&kafka, topic);
        let error = relay.catch_up(&db);
        let error = tokio::time::timeout(TIMEOUT, error)
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.failure(), Failure::Invalid);
        let said = error.to_string();
        let id = format!("of event `{}` with the key `account-a`", appended.last().id);
        assert!(said.contains(&id), "{said}");
        assert!(said.contains(&format!("topic `{name}`")), "{said}");
    }
}
