//! What stops a pipeline, and what it says then.

use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::Pipeline;
use annals::prelude::*;
use annals::store::{Append, ChangeStream, EventStore, NewEvent, StreamChange};
use annals::{MemoryStore, Partition, Store};
use chrono::TimeDelta;

use crate::shop::{Sales, append, at, caught_up, noon, options, ordered, rebuild, sales, sold};

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

#[tokio::test]
async fn one_view_is_written_by_one_pipeline() {
    let again = Pipeline::new("sales-again", 1, |log| {
        let windows = sold(log)
            .key_by(|sale| sale.product.clone())
            .tumbling(Duration::from_mins(5));
        windows.folded::<Sales>().into_view();
    });
    let db = Annals::on(Arc::new(MemoryStore::new()));
    let refused = db.with(sales()).with(again).start().await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "pipeline `sales-again` cannot run: pipeline `sales` writes view `sales` too; merge the \
         streams in one pipeline, or write two views"
    );
}

/// The share of a sale in nothing, which is no number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "shares", key = String)]
struct Share {
    of_all: f64,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_no_number_is_a_dead_record() {
    let store = MemoryStore::new();
    let shares = Pipeline::new("shares", 1, |log| {
        sold(log)
            .key_by(|sale| sale.product.clone())
            .into_view_with::<Share>(|key, sale| {
                let all = if key == "tea" { 0.0 } else { 2.0 };
                let of_all = (sale.cents - 1) as f64 / all;
                (key.clone(), Share { of_all })
            });
    });
    let db = Annals::on(Arc::new(store.clone())).with(shares);
    let db = db.start().await.unwrap();
    let stream = StreamId::new("order-1").unwrap();
    let events = ["tea", "rum"].map(|product| NewEvent::of(&ordered(product, 1)).unwrap());
    store.append(Append::new(stream, events)).await.unwrap();
    caught_up(&db, "shares").await;
    let rows = db.view::<Share>().rows().await.unwrap().rows;
    let rows: Vec<_> = rows
        .into_iter()
        .map(|row| (row.key, row.value.of_all))
        .collect();
    assert_eq!(rows, [("rum".to_owned(), 0.0)]);
    let dead = db
        .pipeline("shares")
        .unwrap()
        .dead_records(9)
        .await
        .unwrap();
    let [dead] = &dead[..] else {
        panic!("{dead:?}")
    };
    let cause = dead.cause.to_string();
    assert!(
        cause.contains("is not read back as it was written"),
        "{cause}"
    );
    db.stop().await;
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
    let options = options().skip_archived();
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
    assert!(error.contains(" bytes, at most 8 are allowed"), "{error}");
}
