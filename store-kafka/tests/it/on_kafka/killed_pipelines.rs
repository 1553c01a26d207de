//! Pipelines that publish, killed at each step of a transaction: who reads what was committed sees
//! each alert once.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::Pipeline;
use annals::prelude::*;
use annals::projections::Options;
use annals::sqlite::SqliteStore;
use annals::store::{Append, NewEvent};
use annals_core::chrono::{DateTime, Utc};
use annals_core::{EventStore as _, Log as _, Outgoing, Outlet, Partition, ReadLog, StoreError};
use annals_kafka::{Kafka, KafkaOutlet, Topic};
use serde::{Deserialize, Serialize};

use super::killed::{STEP, STEPS, ends_at_its_step};
use crate::broker::{TIMEOUT, is_long, kafka, topic};

const CHILD: &str = "on_kafka::killed_pipelines::publishes_until_it_is_killed";
const PLACE: &str = "ANNALS_KAFKA_PIPELINE_PLACE";
/// The alert is about more than so much.
const LIMIT: u64 = 70;

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(category = "payment")]
enum PaymentEvent {
    Paid { user: u64, number: u64, cents: u64 },
}

/// Publishes each large payment. Few alerts wait at once, so that there are many transactions.
fn alerts(kafka: &Kafka, topic: &str) -> Pipeline {
    let kafka = kafka.clone();
    let topic: Arc<str> = topic.into();
    let pipeline = Pipeline::new("alerts", 1, move |log| {
        let paid = log.events::<PaymentEvent>().map(|event| (**event).clone());
        let paid = paid.key_by(|PaymentEvent::Paid { user, .. }| *user);
        let high = paid.filter(|PaymentEvent::Paid { cents, .. }| *cents > LIMIT);
        let outlet = format!("pipeline.{topic}");
        let open = move || -> Result<Box<dyn Outlet>, StoreError> {
            Ok(Box::new(KafkaOutlet::named(&kafka, &outlet)?))
        };
        let published = high.publish_to(open, move |user, PaymentEvent::Paid { number, .. }| {
            Outgoing {
                to: Arc::clone(&topic),
                key: user.to_string().into(),
                payload: Some(format!("{user} {number}").into()),
                headers: Vec::new(),
                occurred_at: DateTime::<Utc>::UNIX_EPOCH,
            }
        });
        published.from_the_beginning();
    });
    let options = Options::default()
        .batch_events_max(40)
        .poll(Duration::from_millis(20))
        .lease(Duration::from_millis(500));
    pipeline.options(options).slots(2).outbox_events_max(5)
}

/// Publishes until it is killed; does nothing unless it is asked to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_until_it_is_killed() {
    let Ok(place) = std::env::var(PLACE) else {
        return;
    };
    ends_at_its_step();
    let (topic, path) = place.split_once(' ').unwrap();
    let store = SqliteStore::open(&format!("sqlite:{path}")).await.unwrap();
    let pipeline = alerts(&kafka().await, topic);
    let db = Annals::on(Arc::new(store)).with(pipeline).start().await;
    let _running = db.unwrap();
    std::future::pending::<()>().await;
}

/// Appends so many payments; how each user's alerts go on.
async fn pay(store: &SqliteStore, from: u64, count: u64, wanted: &mut BTreeMap<u64, Vec<u64>>) {
    let mut append = Append::default();
    for number in from..from + count {
        let user = number * 7 % 11;
        let cents = number * 37 % 101;
        let event = NewEvent::of(&PaymentEvent::Paid {
            user,
            number,
            cents,
        })
        .unwrap();
        append = append.event(StreamId::new(format!("payment-{user}")).unwrap(), event);
        if cents > LIMIT {
            wanted.entry(user).or_default().push(number);
        }
    }
    store.append(append).await.unwrap();
}

/// The alerts of each user, as a reader of committed records sees them.
async fn published(kafka: &Kafka, topic: &str) -> BTreeMap<u64, Vec<u64>> {
    let log = kafka.log(Topic::named(topic)).await.unwrap();
    let mut alerts: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for partition in (0..log.partitions()).map(Partition) {
        let mut read = ReadLog::after(Position::START).partition(partition);
        loop {
            let page = log.read(read.clone()).await.unwrap();
            for event in &page.events {
                let text = std::str::from_utf8(&event.payload).unwrap();
                let (user, number) = text.split_once(' ').unwrap();
                let of_user = alerts.entry(user.parse().unwrap()).or_default();
                of_user.push(number.parse().unwrap());
            }
            if page.end {
                break;
            }
            read.after = page.scanned;
        }
    }
    alerts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_killed_at_each_step_publishes_each_alert_once() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "alerts", 3).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("payments.db").display().to_string();
    let store = SqliteStore::open(&format!("sqlite:{path}")).await.unwrap();
    // It serves before there is anything: what is built sends all at once, and waits for no one.
    let log = Arc::new(store.clone());
    let begun = Annals::on(log).with(alerts(&kafka, &topic)).start();
    begun.await.unwrap().stop().await;
    let mut wanted = BTreeMap::new();
    let mut paid = 0;
    for _ in 0..if is_long() { 10 } else { 1 } {
        for step in STEPS {
            // Enough that every child process comes to its third transaction.
            pay(&store, paid, 400, &mut wanted).await;
            paid += 400;
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", CHILD])
                .env(PLACE, format!("{topic} {path}"))
                .env(STEP, format!("{step:?}"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let ended = tokio::task::spawn_blocking(move || child.wait());
            let status = ended.await.unwrap().unwrap();
            // By the signal, and not by itself.
            assert_eq!(status.code(), None, "{step:?}: {status}");
        }
    }
    let db = Annals::on(Arc::new(store)).with(alerts(&kafka, &topic));
    let db = db.start().await.unwrap();
    let head = db.store().head(Partition(0)).await.unwrap().visible;
    let all = Token::new(db.store().id()).with(Partition(0), head);
    let pipeline = db.pipeline("alerts").unwrap();
    pipeline
        .wait_until_sent(all.clone(), TIMEOUT)
        .await
        .unwrap();
    let alerts: usize = wanted.values().map(Vec::len).sum();
    assert!(alerts > 500, "{alerts} alerts");
    assert_eq!(published(&kafka, &topic).await, wanted);
    // A rebuild publishes none.
    let rebuild = pipeline.rebuild().begin().await.unwrap();
    rebuild.finished(|_| ()).await.unwrap();
    pipeline.wait_until_sent(all, TIMEOUT).await.unwrap();
    db.stop().await;
    assert_eq!(published(&kafka, &topic).await, wanted);
}
