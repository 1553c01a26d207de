//! Windows over the partitions of a topic that other programs write, in both layouts.

use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::{Pipeline, Window};
use annals::prelude::*;
use annals::sqlite::SqliteStore;
use annals_core::{Log as _, Outgoing, Outlet, Partition, ReadLog, StoreError};
use annals_kafka::{Kafka, KafkaOutlet, NewRecord, Topic};

use super::rows::{Counted, now};
use crate::broker::{TIMEOUT, kafka, topic};

const RECORDS: u64 = 600;
const KEYS: u64 = 20;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "minutes", key = (Window, String))]
struct Minutes {
    records: u64,
}

fn minutes() -> Pipeline {
    Pipeline::new("minutes", 1, |log| {
        let records = log.events::<Counted>().key_by_stream();
        let minutes = records.tumbling(Duration::from_mins(1)).count().on_update();
        minutes.into_view_as::<Minutes>(|_, _, records| Minutes { records: *records });
    })
}

fn counted(topic: &str) -> Topic {
    Topic::named(topic)
        .every_record_is("account.counted")
        .category("account")
}

async fn produce(kafka: &Kafka, topic: &str, records: u64) {
    let publisher = kafka.publisher().unwrap();
    for number in 0..records {
        let record = NewRecord::to(topic)
            .key(format!("k{}", number % KEYS))
            .value(format!(r#"{{"cents":{number}}}"#));
        publisher.queue(&record).await.unwrap();
    }
    publisher.flush().await.unwrap();
}

/// The sum of all windows.
async fn records(db: &Program) -> u64 {
    let token = now(db).await;
    let rows = db.view::<Minutes>().rows().at_least(token).within(TIMEOUT);
    let rows = rows.await.unwrap().rows;
    rows.iter().map(|row| row.value.records).sum()
}

/// Gives a topic three partitions and waits until a broker says so.
async fn grow(kafka: &Kafka, topic: &str) {
    kafka.grow_topic(topic, 3).await.unwrap();
    while kafka.partitions_of(topic).await.unwrap() < 3 {
        tokio::task::yield_now().await;
    }
}

/// What the pipeline says once it has stopped.
async fn said_when_stopped(db: &Program) -> String {
    let status = async {
        loop {
            let status = db.status().first().map(ToString::to_string);
            if let Some(status) = status.filter(|of| of.contains("stopped")) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, status).await.unwrap()
}

async fn rebuild(db: &Program, pipeline: &str) {
    let rebuild = db.pipeline(pipeline).unwrap().rebuild();
    let building = rebuild.begin().await.unwrap();
    building.finished(|_| {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_over_more_partitions_needs_a_rebuild() {
    let layouts: [fn(Pipeline) -> Pipeline; 3] = [
        Pipeline::by_partition,
        |pipeline| pipeline,
        |pipeline| pipeline.slots(2),
    ];
    let kafka = kafka().await;
    for (number, layout) in layouts.into_iter().enumerate() {
        let is_by_partition = number == 0;
        let topic = topic(&kafka, "more-minutes", 2).await;
        let directory = tempfile::tempdir().unwrap();
        let file = format!("sqlite:{}", directory.path().join("rows.db").display());
        let views = Arc::new(SqliteStore::open(&file).await.unwrap());
        produce(&kafka, &topic, 100).await;
        let db = kafka.read(counted(&topic)).await.unwrap();
        let db = db.with(layout(minutes())).views_in(Arc::clone(&views) as _);
        let db = db.start().await.unwrap();
        assert_eq!(records(&db).await, 100);
        db.stop().await;
        grow(&kafka, &topic).await;
        produce(&kafka, &topic, 100).await;

        let accepted = counted(&topic).accept_more_partitions(2, 3);
        let db = kafka.read(accepted).await.unwrap();
        let db = db.with(layout(minutes())).views_in(views);
        let db = db.start_in_background().await.unwrap();
        let said = said_when_stopped(&db).await;
        assert!(said.contains("had 2 partitions, it has 3 now"), "{said}");
        if is_by_partition {
            let why = "declare a new version without `by_partition`";
            assert!(said.contains(why), "{said}");
            db.stop().await;
            continue;
        }
        let why = "rebuild it, or declare a new version";
        assert!(said.contains(why), "{said}");
        rebuild(&db, "minutes").await;
        assert_eq!(records(&db).await, 200);
        db.stop().await;
    }
}

/// Publishes what it reads.
fn copies(kafka: &Kafka, to: &str) -> Pipeline {
    let kafka = kafka.clone();
    let to: Arc<str> = to.into();
    let pipeline = Pipeline::new("copies", 1, move |log| {
        let counted = log.events::<Counted>().map(|event| (**event).clone());
        let counted = counted.key_by(|Counted::Counted { cents }| *cents);
        let outlet = format!("pipeline.{to}");
        let open = move || -> Result<Box<dyn Outlet>, StoreError> {
            Ok(Box::new(KafkaOutlet::named(&kafka, &outlet)?))
        };
        let published = counted.publish_to(open, move |key: &i64, _| Outgoing {
            to: Arc::clone(&to),
            key: key.to_string().into(),
            payload: Some(key.to_string().into()),
            headers: Vec::new(),
            occurred_at: Default::default(),
        });
        published.from_the_beginning();
    });
    pipeline.slots(2)
}

/// How many records a reader of committed records finds.
async fn count_of(kafka: &Kafka, topic: &str) -> usize {
    let log = kafka.log(Topic::named(topic)).await.unwrap();
    let mut count = 0;
    for partition in (0..log.partitions()).map(Partition) {
        let mut read = ReadLog::after(Position::START).partition(partition);
        loop {
            let page = log.read(read.clone()).await.unwrap();
            count += page.events.len();
            if page.end {
                break;
            }
            read.after = page.scanned;
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuilt_pipeline_publishes_over_more_partitions() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "more-copies", 2).await;
    let to = crate::broker::topic(&kafka, "copied", 3).await;
    let directory = tempfile::tempdir().unwrap();
    let file = format!("sqlite:{}", directory.path().join("rows.db").display());
    let views = Arc::new(SqliteStore::open(&file).await.unwrap());
    let start = async || {
        let db = kafka.read(counted(&topic)).await.unwrap();
        let db = db.with(copies(&kafka, &to));
        let db = db.views_in(Arc::clone(&views) as _);
        db.start_in_background().await.unwrap()
    };
    let until_sent = async |db: &Program| {
        let pipeline = db.pipeline("copies").unwrap();
        pipeline.wait_until_sent(now(db).await, TIMEOUT).await
    };
    produce(&kafka, &topic, 100).await;
    let db = start().await;
    until_sent(&db).await.unwrap();
    assert_eq!(count_of(&kafka, &to).await, 100);
    db.stop().await;
    grow(&kafka, &topic).await;
    produce(&kafka, &topic, 100).await;
    let db = start().await;
    let said = said_when_stopped(&db).await;
    assert!(said.contains("had 2 partitions, it has 3 now"), "{said}");
    rebuild(&db, "copies").await;
    until_sent(&db).await.unwrap();
    db.stop().await;
    assert_eq!(count_of(&kafka, &to).await, 200);
    // What it has noted is found again.
    produce(&kafka, &topic, 100).await;
    let db = start().await;
    until_sent(&db).await.unwrap();
    db.stop().await;
    assert_eq!(count_of(&kafka, &to).await, 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_layouts_count_the_same_records_of_a_topic() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "minutes", 3).await;
    produce(&kafka, &topic, RECORDS).await;
    let mut seen = Vec::new();
    for pipeline in [minutes(), minutes().slots(2), minutes().by_partition()] {
        let read = counted(&topic);
        let directory = tempfile::tempdir().unwrap();
        let file = format!("sqlite:{}", directory.path().join("rows.db").display());
        let views = Arc::new(SqliteStore::open(&file).await.unwrap());
        let db = kafka.read(read).await.unwrap();
        let db = db.with(pipeline).views_in(views).start().await.unwrap();
        let token = now(&db).await;
        let rows = db.view::<Minutes>().rows().at_least(token).within(TIMEOUT);
        let rows = rows.await.unwrap().rows;
        db.stop().await;
        assert_eq!(
            rows.iter().map(|row| row.value.records).sum::<u64>(),
            RECORDS
        );
        assert!(rows.iter().all(|row| row.key.1.starts_with("account-k")));
        seen.push(rows);
    }
    for other in &seen[1..] {
        assert_eq!(*other, seen[0]);
    }
}
