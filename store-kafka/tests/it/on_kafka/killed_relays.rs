//! Relays that are killed, at any moment and at each step of a transaction.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::sqlite::SqliteStore;
use annals_core::{Annals, Log as _, Position, ReadLog, RecordedEvent, StreamId};
use annals_kafka::testing::Step;
use annals_kafka::{Kafka, Relay, TopicSpec};

use super::killed::{STEP, STEPS, ends_at_its_step};
use super::relays::{append, published, until_published};
use crate::broker::{TIMEOUT, is_long, kafka, topic};

/// The long form begins no round more after this.
const LONGEST: Duration = Duration::from_secs(240);

const CHILD: &str = "on_kafka::killed_relays::publishes_until_it_is_killed";
const PLACE: &str = "ANNALS_KAFKA_RELAY_PLACE";

/// Publishes until it is killed; does nothing unless it is asked to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_until_it_is_killed() {
    let Ok(place) = std::env::var(PLACE) else {
        return;
    };
    ends_at_its_step();
    let (name, path) = place.split_once(' ').unwrap();
    let store = SqliteStore::open(&format!("sqlite:{path}")).await.unwrap();
    let name: &'static str = name.to_owned().leak();
    let relay = Relay::named(name)
        .batch_events_max(200)
        .to(&kafka().await, TopicSpec::existing(name));
    let db = Annals::on(Arc::new(store));
    relay.run(&db, std::future::pending()).await.unwrap();
}

/// A bank of some accounts, and the topic of its relay.
struct Bank {
    kafka: Kafka,
    name: String,
    store: SqliteStore,
    path: String,
    events: usize,
    _directory: tempfile::TempDir,
}

impl Bank {
    async fn of(events: usize) -> Bank {
        let kafka = kafka().await;
        let name = topic(&kafka, "killed", 3).await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bank.db").display().to_string();
        let store = SqliteStore::open(&format!("sqlite:{path}")).await.unwrap();
        let bank = Bank {
            kafka,
            name,
            store,
            path,
            events: 0,
            _directory: directory,
        };
        bank.grown(events).await
    }

    async fn grown(mut self, events: usize) -> Bank {
        for number in 0..events / 100 {
            append(&self.store, &format!("account-{}", number % 40), 100).await;
        }
        self.events += events;
        self
    }

    fn child(&self, step: Option<Step>) -> Child {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", CHILD])
            .env(PLACE, format!("{} {}", self.name, self.path))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(step) = step {
            child.env(STEP, format!("{step:?}"));
        }
        child.spawn().unwrap()
    }

    /// Lets a last relay finish, and compares what readers see with the log.
    async fn check(&self) {
        let mut last = self.child(None);
        until_published(&self.kafka, &self.name, self.events).await;
        last.kill().unwrap();
        last.wait().unwrap();
        let found = of_streams(published(&self.kafka, &self.name).await);
        let read = || async {
            let mut events = Vec::new();
            let mut after = Position::START;
            loop {
                let page = self.store.read(ReadLog::after(after)).await.unwrap();
                after = page.scanned;
                events.extend(page.events);
                if page.end {
                    return events;
                }
            }
        };
        // Nothing twice, nothing missing, in order per key.
        assert!(found == of_streams(read().await));
    }
}

/// Versions and ids, by stream.
fn of_streams(events: Vec<RecordedEvent>) -> BTreeMap<StreamId, Vec<(u64, annals_core::EventId)>> {
    let mut streams: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in events {
        let of_stream = streams.entry(event.stream).or_default();
        of_stream.push((event.version.get(), event.id));
    }
    streams
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_killed_many_times_publishes_each_event_once() {
    let (events, kills) = if is_long() {
        (100_000, 50)
    } else {
        (20_000, 8)
    };
    let bank = Bank::of(events).await;
    for kill in 0..kills {
        let mut child = bank.child(None);
        // Opening takes a while; later kills fall into transactions.
        let while_it_runs = Duration::from_millis(300 + 170 * (kill % 8) as u64);
        tokio::time::sleep(while_it_runs).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    bank.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_killed_at_each_step_publishes_each_event_once() {
    let rounds = if is_long() { 50 } else { 1 };
    let mut bank = Bank::of(0).await;
    let began = Instant::now();
    let mut deaths = 0;
    for _ in 0..rounds {
        if began.elapsed() > LONGEST {
            break;
        }
        for step in STEPS {
            // Enough that every child process comes to its third transaction.
            bank = bank.grown(1_000).await;
            let mut child = bank.child(Some(step));
            let ended = tokio::task::spawn_blocking(move || child.wait());
            let status = tokio::time::timeout(TIMEOUT, ended).await.unwrap();
            let status = status.unwrap().unwrap();
            deaths += 1;
            // By the signal, and not by itself.
            assert_eq!(status.code(), None, "{step:?}: {status}");
        }
    }
    println!("{} events over {deaths} deaths", bank.events);
    bank.check().await;
}
