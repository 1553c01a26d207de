//! Views over topics: exact after kills, and stopped where going on would be wrong.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use annals::prelude::*;
use annals::projections::{Options, RebuildError, SlotState, StartError, ViewError};
use annals::sqlite::SqliteStore;
use annals_core::{Assignment, Partition, ViewStore};
use annals_kafka::{Kafka, NewRecord, Topic, TopicSpec};

use tokio::sync::watch;

use super::rows::{Sum, now};
use crate::broker::{TIMEOUT, is_long, kafka, send, topic};

const KEYS: usize = 50;

async fn views(path: &Path) -> Arc<dyn ViewStore> {
    Arc::new(
        SqliteStore::open(&format!("sqlite:{}", path.display()))
            .await
            .unwrap(),
    )
}

fn sums(topic: &str) -> Topic {
    Topic::named(topic)
        .every_record_is("account.counted")
        .category("account")
}

async fn follow(kafka: &Kafka, read: Topic, path: &Path) -> Result<Program, StartError> {
    let lease = Duration::from_secs(2);
    let options = Options::default()
        .slots(2)
        .batch_events_max(100)
        .lease(lease);
    let db = kafka.read(read).await.unwrap();
    db.with(Sum::projection().options(options))
        .views_in(views(path).await)
        .start_in_background()
        .await
}

/// The row of a key once everything that is in the topic was folded.
async fn row(db: &Program, key: &str) -> Option<Sum> {
    let token = now(db).await;
    let reads = async {
        loop {
            let read = db.view::<Sum>().get(key).at_least(token.clone());
            match read.within(TIMEOUT).await {
                Err(ViewError::Building { .. }) => tokio::task::yield_now().await,
                found => return found.unwrap(),
            }
        }
    };
    tokio::time::timeout(TIMEOUT, reads).await.unwrap()
}

async fn produce(kafka: &Kafka, topic: &str, from: usize, to: usize) {
    let publisher = kafka.publisher().unwrap();
    for number in from..to {
        let record = NewRecord::to(topic)
            .key(format!("k{}", number % KEYS))
            .value(format!(r#"{{"cents":{number}}}"#));
        publisher.queue(&record).await.unwrap();
    }
    publisher.flush().await.unwrap();
}

#[tokio::test]
async fn a_topic_becomes_rows_and_goes_on_where_it_stopped() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "rows", 3).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sums.db");
    for round in 1..=2 {
        produce(&kafka, &topic, (round - 1) * 1_000, round * 1_000).await;
        let db = follow(&kafka, sums(&topic), &path).await.unwrap();
        let found = row(&db, "k7").await.unwrap();
        assert_eq!((found.records, found.out_of_order), (20 * round as u64, 0));
        db.stop().await;
    }
}

const CHILD: &str = "on_kafka::read_models::follows_until_it_is_killed";
const PLACE: &str = "ANNALS_KAFKA_VIEW_PLACE";

/// Follows until it is killed; does nothing unless it is asked to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follows_until_it_is_killed() {
    let Ok(place) = std::env::var(PLACE) else {
        return;
    };
    let (topic, path) = place.split_once(' ').unwrap();
    let read = sums(topic).group(topic);
    let db = follow(&kafka().await, read, Path::new(path)).await.unwrap();
    std::future::pending::<()>().await;
    drop(db);
}

fn start(topic: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD])
        .env(PLACE, format!("{topic} {}", path.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_exact_after_kills_and_rebalances() {
    let (events, kills, rebalances) = if is_long() {
        (100_000, 10, 20)
    } else {
        (20_000, 4, 2)
    };
    let kafka = kafka().await;
    let topic = topic(&kafka, "exact", 6).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sums.db");
    // Made first: those that follow open it at the same time.
    views(&path).await;
    // It stays, and sees the group change.
    let db = follow(&kafka, sums(&topic).group(&topic), &path)
        .await
        .unwrap();
    let mut assigned = db.store().assignment().unwrap();
    let mut children = vec![start(&topic, &path), start(&topic, &path)];
    for kill in 0..kills {
        let from = events * kill / kills;
        produce(&kafka, &topic, from, events * (kill + 1) / kills).await;
        // Killed in the middle of what it folds: each death is also a change of the group.
        let while_it_folds = Duration::from_millis(400 + 130 * (kill % 5) as u64);
        tokio::time::sleep(while_it_folds).await;
        let mut child = children.remove(0);
        child.kill().unwrap();
        child.wait().unwrap();
        children.push(start(&topic, &path));
    }
    // Each change of what it has is in a rebalance of its own; the first one was none.
    let seen = |assigned: &watch::Receiver<Assignment>| assigned.borrow().generation - 1;
    while seen(&assigned) < rebalances {
        let mut child = children.remove(0);
        child.kill().unwrap();
        child.wait().unwrap();
        children.push(start(&topic, &path));
        // A member that died is missed by then.
        let enough = assigned.wait_for(|now| now.generation > rebalances);
        let _ = tokio::time::timeout(Duration::from_secs(8), enough).await;
    }
    let changed = seen(&assigned);
    println!("{events} events over {changed} rebalances and {kills} kills or more");
    for key in 0..KEYS {
        let numbers = (0..events).filter(|number| number % KEYS == key);
        let cents = numbers.clone().map(|number| number as i64).sum::<i64>();
        let found = row(&db, &format!("k{key}")).await.unwrap();
        let expected = (numbers.count() as u64, cents, 0);
        assert_eq!(
            (found.records, found.cents, found.out_of_order),
            expected,
            "k{key}"
        );
    }
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    db.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_go_with_the_partitions_of_a_group() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "hinted", 2).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sums.db");
    produce(&kafka, &topic, 0, 100).await;
    let member = || sums(&topic).group(&topic);
    let one = follow(&kafka, member(), &path).await.unwrap();
    assert_eq!(row(&one, "k7").await.unwrap().records, 2);
    let two = follow(&kafka, member(), &path).await.unwrap();
    // Slot 0 goes with partition 0, slot 1 with partition 1.
    let works_on_its_partition = |db: &Program| {
        let slots = &db.status()[0].slots;
        let live = slots.iter().filter(|slot| slot.state == SlotState::Live);
        let live: Vec<u32> = live.map(|slot| u32::from(slot.slot)).collect();
        let assigned = db.store().assignment().unwrap();
        let assigned = assigned.borrow().partitions.clone();
        let assigned: Vec<u32> = assigned.iter().map(|of| of.0).collect();
        live.len() == 1 && live == assigned
    };
    let divided = async {
        while !works_on_its_partition(&one) || !works_on_its_partition(&two) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, divided).await.unwrap();
    two.stop().await;
    drop(two);
    let alone = async {
        let both = |db: &Program| {
            let mut slots = db.status()[0].slots.clone().into_iter();
            slots.all(|slot| slot.state == SlotState::Live)
        };
        while !both(&one) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, alone).await.unwrap();
    one.stop().await;
}

#[tokio::test]
async fn records_removed_before_they_were_folded_stop_the_view() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "retention", 1).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sums.db");
    send(
        &kafka,
        &topic,
        &[("a", r#"{"cents":1}"#), ("a", r#"{"cents":2}"#)],
    )
    .await;
    let db = follow(&kafka, sums(&topic), &path).await.unwrap();
    assert_eq!(row(&db, "a").await.unwrap().cents, 3);
    db.stop().await;
    send(
        &kafka,
        &topic,
        &[("a", r#"{"cents":4}"#), ("a", r#"{"cents":8}"#)],
    )
    .await;
    kafka.delete_records(&topic, Partition(0), 3).await.unwrap();

    let db = follow(&kafka, sums(&topic), &path).await.unwrap();
    let why = stopped(&db).await;
    assert!(why.contains("positions 3 to 3 of partition 0"), "{why}");
    db.stop().await;

    let accepted = sums(&topic)
        .accept_gap(Partition(0), Position::new(3), "a test")
        .from_what_is_left();
    let db = follow(&kafka, accepted, &path).await.unwrap();
    assert_eq!(row(&db, "a").await.unwrap().cents, 11);
    // A rebuild would see one record of the four.
    let why = db.rebuild::<Sum>().begin().await.unwrap_err();
    let forgotten = vec![(Partition(0), Position::new(3))];
    assert!(
        matches!(&why, RebuildError::Shorter { partitions, .. } if *partitions == forgotten),
        "{why}"
    );
    let building = db.rebuild::<Sum>().from_what_is_left().begin().await;
    building.unwrap().finished(|_| {}).await.unwrap();
    assert_eq!(row(&db, "a").await.unwrap().cents, 8);
    db.stop().await;
}

/// Each key has so many records.
async fn all_have(db: &Program, records: u64) {
    for key in 0..KEYS {
        let found = row(db, &format!("k{key}")).await.unwrap();
        assert_eq!(found.records, records, "k{key}");
    }
}

/// Gives a topic three partitions and waits until a broker says so.
async fn grow(kafka: &Kafka, topic: &str) {
    kafka.grow_topic(topic, 3).await.unwrap();
    while kafka.partitions_of(topic).await.unwrap() < 3 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_view_over_more_partitions_stops_before_it_folds_any() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "more", 2).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sums.db");
    produce(&kafka, &topic, 0, 100).await;
    let db = follow(&kafka, sums(&topic), &path).await.unwrap();
    all_have(&db, 2).await;
    db.stop().await;
    grow(&kafka, &topic).await;
    produce(&kafka, &topic, 100, 200).await;
    for accepted in [false, true] {
        let read = match accepted {
            // That of another view, which began later.
            true => sums(&topic).accept_more_partitions(3, 3),
            false => sums(&topic),
        };
        let db = follow(&kafka, read, &path).await.unwrap();
        let why = stopped(&db).await;
        assert!(why.contains("had 2 partitions, it has 3 now"), "{why}");
        let way = "go on with `Topic::accept_more_partitions(2, 3)`";
        assert!(why.contains(way), "{why}");
        for key in 0..KEYS {
            let found = db.view::<Sum>().get(format!("k{key}")).await.unwrap();
            assert_eq!(found.unwrap().records, 2, "k{key}");
        }
        db.stop().await;
    }

    let read = sums(&topic).accept_more_partitions(2, 3);
    let db = follow(&kafka, read, &path).await.unwrap();
    all_have(&db, 4).await;
    db.stop().await;
    // What it stored is found again.
    produce(&kafka, &topic, 200, 300).await;
    let read = sums(&topic).accept_more_partitions(2, 3);
    let db = follow(&kafka, read, &path).await.unwrap();
    all_have(&db, 6).await;
    db.stop().await;
}

#[tokio::test]
async fn a_rebuild_goes_on_over_more_partitions() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "rebuilt", 2).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sums.db");
    produce(&kafka, &topic, 0, 100).await;
    let db = follow(&kafka, sums(&topic), &path).await.unwrap();
    assert_eq!(row(&db, "k7").await.unwrap().records, 2);
    db.stop().await;
    grow(&kafka, &topic).await;
    produce(&kafka, &topic, 100, 200).await;
    let db = follow(&kafka, sums(&topic), &path).await.unwrap();
    let why = stopped(&db).await;
    assert!(why.contains(", or rebuild it; "), "{why}");
    let building = db.rebuild::<Sum>().begin().await.unwrap();
    building.finished(|_| {}).await.unwrap();
    all_have(&db, 4).await;
    db.stop().await;
}

#[tokio::test]
async fn a_topic_made_again_stops_the_view() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "recreated", 1).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sums.db");
    produce(&kafka, &topic, 0, 100).await;
    let db = follow(&kafka, sums(&topic), &path).await.unwrap();
    assert_eq!(row(&db, "k7").await.unwrap().records, 2);
    db.stop().await;
    kafka.delete_topic(&topic).await.unwrap();
    while kafka.partitions_of(&topic).await.is_ok() {
        tokio::task::yield_now().await;
    }
    kafka
        .ensure([TopicSpec::named(&topic).partitions(1)])
        .await
        .unwrap();
    // Longer than before: only the ids of the events give it away.
    produce(&kafka, &topic, 0, 500).await;
    let db = follow(&kafka, sums(&topic), &path).await.unwrap();
    let why = stopped(&db).await;
    assert!(why.contains("is not the one that was read there"), "{why}");
    db.stop().await;
}

#[tokio::test]
async fn records_that_make_no_sense_delay_nothing_else() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "poison", 1).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sums.db");
    let publisher = kafka.publisher().unwrap();
    let good = || NewRecord::to(&topic).key("a").value(r#"{"cents":1}"#);
    for record in [
        NewRecord::to(&topic).key("a").value("not json"),
        NewRecord::to(&topic).key("a").value(vec![0xff; 600_000]),
        NewRecord::to(&topic)
            .key(vec![0xff, 0xfe])
            .value(r#"{"cents":2}"#),
        NewRecord::to(&topic).key("").value(r#"{"cents":3}"#),
        NewRecord::to(&topic).value(r#"{"cents":4}"#),
        NewRecord::to(&topic).key("b").tombstone(),
    ] {
        publisher.queue(&record).await.unwrap();
        publisher.queue(&good()).await.unwrap();
    }
    publisher.flush().await.unwrap();
    let read = sums(&topic).not_json_is("account.broken");
    let db = follow(&kafka, read, &path).await.unwrap();
    let found = row(&db, "a").await.unwrap();
    assert_eq!((found.records, found.cents), (6, 6));
    assert_eq!(row(&db, "%FF%FE").await.unwrap().cents, 2);
    assert_eq!(row(&db, "~0.8").await.unwrap().cents, 4);
    db.stop().await;
}

#[tokio::test]
async fn an_unreadable_record_is_named_by_its_offset() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "unreadable", 3).await;
    let directory = tempfile::tempdir().unwrap();
    send(&kafka, &topic, &[("a", r#"{"cents":1}"#)]).await;
    let other_shape = NewRecord::to(&topic).key("a").value(r#"{"crowns":1}"#);
    let sent = kafka.publisher().unwrap().send(other_shape).await;
    let (partition, offset) = sent.unwrap();
    assert_eq!(offset, 1);
    // Its category is another name.
    let read = sums(&topic);
    let db = follow(&kafka, read, &directory.path().join("sums.db")).await;
    let db = db.unwrap();
    let said = stopped(&db).await;
    let expected = format!("offset 1 of partition {partition} of topic `{topic}`");
    assert!(said.contains(&expected), "{said}");
    db.stop().await;
}

/// Why a view stopped.
async fn stopped(db: &Program) -> String {
    let waits = async {
        loop {
            let status = db.status();
            let mut said = status.iter().map(ToString::to_string);
            if let Some(said) = said.find(|said| said.contains("stopped")) {
                return said;
            }
            tokio::task::yield_now().await;
        }
    };
    let stopped = tokio::time::timeout(TIMEOUT, waits).await;
    stopped.unwrap_or_else(|_| panic!("{:#?}", db.status()))
}
