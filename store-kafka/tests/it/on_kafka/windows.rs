//! Windows over the partitions of a topic that other programs write, in both layouts.

use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::{Pipeline, Window};
use annals::prelude::*;
use annals::sqlite::SqliteStore;
use annals_kafka::{NewRecord, Topic};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_layouts_count_the_same_records_of_a_topic() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "minutes", 3).await;
    let publisher = kafka.publisher().unwrap();
    for number in 0..RECORDS {
        let record = NewRecord::to(topic.as_str())
            .key(format!("k{}", number % KEYS))
            .value(format!(r#"{{"cents":{number}}}"#));
        publisher.queue(&record).await.unwrap();
    }
    publisher.flush().await.unwrap();
    let mut seen = Vec::new();
    for pipeline in [minutes(), minutes().slots(2), minutes().by_partition()] {
        let read = Topic::named(topic.as_str())
            .every_record_is("account.counted")
            .category("account");
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
