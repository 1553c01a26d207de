//! What stops a pipeline, and what it says then.

use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::Pipeline;
use annals::prelude::*;
use annals::store::{Append, ChangeStream, EventStore, NewEvent, StreamChange};
use annals::{MemoryStore, Partition, Store};
use chrono::TimeDelta;

use crate::shop::{Sales, append, at, caught_up, noon, options, ordered, rebuild, sales};

const WAIT: Duration = Duration::from_secs(30);

/// Three orders of one stream, two minutes apart.
async fn minutes(store: &dyn Store) -> StreamId {
    let stream = StreamId::new("order-1").unwrap();
    let events = [0, 2, 4].map(|minute| {
        let mut new = NewEvent::of(&ordered("tea", 1)).unwrap();
        new.occurred_at = noon() + TimeDelta::minutes(minute);
        new
    });
    let append = Append::new(stream.clone(), events);
    store.append(append).await.unwrap();
    stream
}

/// Why a pipeline does not get to the end of the log.
async fn reason(store: &MemoryStore, pipeline: Pipeline) -> String {
    let name = "sales";
    let db = Annals::on(Arc::new(store.clone())).with(pipeline);
    let db = db.start_in_background().await.unwrap();
    let head = db.store().head(Partition(0)).await.unwrap().visible;
    let token = Token::new(db.store().id()).with(Partition(0), head);
    let waited = db.pipeline(name).unwrap().wait_for(token, WAIT).await;
    db.stop().await;
    waited.unwrap_err().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn archived_events_stop_it_unless_it_does_without() {
    let store = MemoryStore::new();
    let stream = minutes(&store).await;
    let before = Version::new(2);
    let archive = ChangeStream::new(&stream, StreamChange::Archive { before });
    store.change_stream(archive).await.unwrap();
    let error = reason(&store, sales().options(options())).await;
    let names = "pipeline `sales` has not read position 1 of `order-1`, and that was archived";
    assert!(error.contains(names), "{error}");
    let options = options().leave_out_archived();
    let db = Annals::on(Arc::new(store)).with(sales().options(options));
    let db = db.start().await.unwrap();
    rebuild(&db, "sales").await;
    let rows = db.view::<Sales>().rows().await.unwrap().rows;
    let keys: Vec<_> = rows.into_iter().map(|row| row.key).collect();
    assert_eq!(keys, [(at(120), "tea".to_owned())]);
    db.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_before_it_was_archived_stays() {
    let store = MemoryStore::new();
    let db = Annals::on(Arc::new(store.clone())).with(sales());
    let db = db.start().await.unwrap();
    let stream = minutes(&store).await;
    caught_up(&db, "sales").await;
    let before = Version::new(3);
    let archive = ChangeStream::new(&stream, StreamChange::Archive { before });
    store.change_stream(archive).await.unwrap();
    append(&store, noon() + TimeDelta::minutes(6), &ordered("tea", 1)).await;
    caught_up(&db, "sales").await;
    let rows = db.view::<Sales>().rows().await.unwrap().rows;
    assert_eq!(rows.len(), 3);
    db.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_state_than_is_allowed_stops_it() {
    let store = MemoryStore::new();
    minutes(&store).await;
    let error = reason(&store, sales().state_bytes_max(8)).await;
    assert!(error.contains("in slot 0 would be"), "{error}");
    assert!(error.contains("`state_bytes_max`"), "{error}");
}
