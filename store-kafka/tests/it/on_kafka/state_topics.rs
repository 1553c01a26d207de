//! The rows of a view as a compacted topic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals::prelude::*;
use annals_core::{Append, Log as _, MemoryStore, NewEvent, Partition, Position, ReadLog, Store};
use annals_kafka::{Kafka, StateTopic, Topic, TopicSpec, murmur2_partition};

use super::rows::now;
use crate::broker::{TIMEOUT, fresh, kafka};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "account")]
enum AccountEvent {
    Deposited { cents: i64 },
    Closed,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "balances", version = 1, events(AccountEvent))]
struct Balance {
    cents: i64,
}

/// What no account takes, until it is mended.
const POISON: i64 = 13;
static MENDED: AtomicBool = AtomicBool::new(false);

impl Project<AccountEvent> for Balance {
    fn on(balance: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        match &**event {
            AccountEvent::Deposited { cents: POISON } if !MENDED.load(Ordering::SeqCst) => {
                return Err(Poison::new("no account takes this"));
            }
            AccountEvent::Deposited { cents } => balance.cents += cents,
            AccountEvent::Closed => balance.remove(),
        }
        Ok(())
    }
}

/// The next version: another shape, and no rows of accounts that begin with `x`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "balances", version = 2, events(AccountEvent))]
struct Deposits {
    deposits: u64,
}

impl Project<AccountEvent> for Deposits {
    fn keys(event: &Recorded<AccountEvent>) -> Result<Vec<String>, Poison> {
        let account = event.record.stream.id().to_owned();
        let is_ours = !account.starts_with('x');
        Ok(is_ours.then_some(account).into_iter().collect())
    }

    fn on(deposits: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        match &**event {
            AccountEvent::Deposited { .. } => deposits.deposits += 1,
            AccountEvent::Closed => deposits.remove(),
        }
        Ok(())
    }
}

async fn deposit(store: &dyn Store, account: &str, cents: i64) {
    let payload = format!(r#"{{"cents":{cents}}}"#);
    append(store, account, NewEvent::json("account.deposited", payload)).await;
}

async fn append(store: &dyn Store, account: &str, event: NewEvent) {
    let stream = StreamId::new(format!("account-{account}")).unwrap();
    store.append(Append::new(stream, [event])).await.unwrap();
}

/// The last value of each key, tombstones included, as a reader of the topic has it.
async fn latest(kafka: &Kafka, topic: &str) -> BTreeMap<String, String> {
    let mut latest = BTreeMap::new();
    let Ok(log) = kafka.log(Topic::named(topic)).await else {
        // It was not made yet.
        return latest;
    };
    for partition in (0..log.partitions()).map(Partition) {
        let mut after = Position::START;
        loop {
            let read = ReadLog::after(after).partition(partition);
            let page = log.read(read).await.unwrap();
            for event in page.events {
                let key = event.stream.id().to_owned();
                let expected = murmur2_partition(key.as_bytes(), log.partitions());
                assert_eq!(partition, Partition(expected));
                let value = String::from_utf8(event.payload.to_vec()).unwrap();
                latest.insert(key, value);
            }
            after = page.scanned;
            if page.end {
                break;
            }
        }
    }
    latest
}

/// Waits until the topic has these values, and no others.
async fn until_topic_has(kafka: &Kafka, topic: &str, values: &[(&str, &str)]) {
    let expected: BTreeMap<String, String> = values
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let mut seen = BTreeMap::new();
    let waits = async {
        while seen != expected {
            seen = latest(kafka, topic).await;
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(TIMEOUT, waits).await;
    assert!(waited.is_ok(), "{seen:?}, and not {expected:?}");
}

fn state_topic(kafka: &Kafka, topic: &str) -> StateTopic {
    StateTopic::of("balances").to(kafka, TopicSpec::named(topic).partitions(3))
}

/// State topics are known by their view: tests that run at once have a cluster each, or a turn.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test]
async fn a_state_topic_has_the_latest_row_of_each_key() {
    let _turn = TURN.lock().await;
    let kafka = kafka().await;
    let topic = fresh("balances");
    let store = Arc::new(MemoryStore::new());
    for (account, cents) in [("ada", 5), ("bob", 7), ("ada", 10)] {
        deposit(&*store, account, cents).await;
    }
    let start = || {
        Annals::on(Arc::<MemoryStore>::clone(&store))
            .with(Balance::projection())
            .with(state_topic(&kafka, &topic))
            .start()
    };
    let db = start().await.unwrap();
    let both = [("ada", r#"{"cents":15}"#), ("bob", r#"{"cents":7}"#)];
    until_topic_has(&kafka, &topic, &both).await;
    append(&*store, "bob", NewEvent::json("account.closed", "null")).await;
    deposit(&*store, "eve", 1).await;
    let after = [
        ("ada", r#"{"cents":15}"#),
        ("bob", "null"),
        ("eve", r#"{"cents":1}"#),
    ];
    until_topic_has(&kafka, &topic, &after).await;
    db.stop().await;
    // What changes while nothing runs is published afterwards.
    deposit(&*store, "ada", 1).await;
    let db = start().await.unwrap();
    let after = [
        ("ada", r#"{"cents":16}"#),
        ("bob", "null"),
        ("eve", r#"{"cents":1}"#),
    ];
    until_topic_has(&kafka, &topic, &after).await;
    db.stop().await;
}

#[tokio::test]
async fn another_generation_brings_its_rows_and_removes_other_keys() {
    let _turn = TURN.lock().await;
    let kafka = kafka().await;
    let topic = fresh("generations");
    let store = Arc::new(MemoryStore::new());
    for (account, cents) in [("ada", 5), ("xaver", 7)] {
        deposit(&*store, account, cents).await;
    }
    let on = || Annals::on(Arc::<MemoryStore>::clone(&store));
    let db = on()
        .with(Balance::projection())
        .with(state_topic(&kafka, &topic))
        .start()
        .await
        .unwrap();
    let both = [("ada", r#"{"cents":5}"#), ("xaver", r#"{"cents":7}"#)];
    until_topic_has(&kafka, &topic, &both).await;
    db.stop().await;
    let db = on()
        .with(Deposits::projection())
        .with(state_topic(&kafka, &topic))
        .start()
        .await
        .unwrap();
    let other = [("ada", r#"{"deposits":1}"#), ("xaver", "null")];
    until_topic_has(&kafka, &topic, &other).await;
    deposit(&*store, "ada", 5).await;
    let other = [("ada", r#"{"deposits":2}"#), ("xaver", "null")];
    until_topic_has(&kafka, &topic, &other).await;
    db.stop().await;
}

#[tokio::test]
async fn a_row_that_a_retry_changes_is_published() {
    let _turn = TURN.lock().await;
    let kafka = kafka().await;
    let topic = fresh("retried");
    let store = Arc::new(MemoryStore::new());
    deposit(&*store, "ada", 5).await;
    let db = Annals::on(Arc::<MemoryStore>::clone(&store))
        .with(Balance::projection())
        .with(state_topic(&kafka, &topic))
        .start()
        .await
        .unwrap();
    deposit(&*store, "ada", POISON).await;
    deposit(&*store, "bob", 1).await;
    let before = [("ada", r#"{"cents":5}"#), ("bob", r#"{"cents":1}"#)];
    until_topic_has(&kafka, &topic, &before).await;
    db.view::<Balance>()
        .rows()
        .at_least(now(&db).await)
        .within(TIMEOUT)
        .await
        .unwrap();
    MENDED.store(true, Ordering::SeqCst);
    db.view::<Balance>().retry("ada").await.unwrap();
    let after = [("ada", r#"{"cents":18}"#), ("bob", r#"{"cents":1}"#)];
    until_topic_has(&kafka, &topic, &after).await;
    db.stop().await;
    MENDED.store(false, Ordering::SeqCst);
}

#[tokio::test]
async fn a_topic_that_forgets_tombstones_early_is_refused() {
    let _turn = TURN.lock().await;
    let kafka = kafka().await;
    let topic = fresh("forgetful");
    let spec = TopicSpec::named(&topic)
        .partitions(1)
        .setting("delete.retention.ms", "60000");
    let db = Annals::on(Arc::new(MemoryStore::new()))
        .with(Balance::projection())
        .with(StateTopic::of("balances").to(&kafka, spec))
        .start()
        .await
        .unwrap();
    let why = async {
        loop {
            let all = db.status();
            let why = all.iter().map(|of| of.why().to_owned());
            if let Some(why) = why.into_iter().find(|why| why.contains("tombstones")) {
                return why;
            }
            tokio::task::yield_now().await;
        }
    };
    let why = tokio::time::timeout(TIMEOUT, why).await.unwrap();
    assert!(why.contains("after 60000 ms"), "{why}");
    db.stop().await;
}

#[tokio::test]
async fn a_recreated_state_topic_has_all_rows_again() {
    let _turn = TURN.lock().await;
    let kafka = kafka().await;
    let topic = fresh("balances-recreated");
    let store = Arc::new(MemoryStore::new());
    for (account, cents) in [("a", 1), ("b", 2)] {
        deposit(&*store, account, cents).await;
    }
    let start = || async {
        Annals::on(Arc::<MemoryStore>::clone(&store))
            .with(Balance::projection())
            .with(state_topic(&kafka, &topic))
            .start()
            .await
            .unwrap()
    };
    let rows = [("a", r#"{"cents":1}"#), ("b", r#"{"cents":2}"#)];
    let db = start().await;
    until_topic_has(&kafka, &topic, &rows).await;
    db.stop().await;
    kafka.delete_topic(&topic).await.unwrap();
    let db = start().await;
    until_topic_has(&kafka, &topic, &rows).await;
    db.stop().await;
}
