//! Three partitions: keys divided over all of them, or a slot for each partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::{Fold, Keyed, Log, Pipeline, Results, Time, Window};
use annals::prelude::*;
use annals::projections::Program;
use annals::store::{Append, NewEvent, ReadLog};
use annals::{Filter, MemoryStore, Partition, Store};
use annals_core::conformance::Dice;
use chrono::{DateTime, TimeDelta, Utc};

use crate::shop::{Picture, ShopEvent, caught_up, noon, options, ordered, rebuild};

const WAIT: Duration = Duration::from_secs(30);
const PRODUCTS: [&str; 8] = ["ale", "gin", "oil", "rum", "rye", "salt", "silk", "tea"];

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "minutes", key = (Window, String))]
struct Minutes {
    orders: u64,
    cents: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "bouts", key = (Window, String))]
struct Bouts {
    orders: u64,
}

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(category = "minute")]
enum MinuteEvent {
    Closed { product: String, cents: i64 },
}

impl Fold<i64> for Minutes {
    fn add(&mut self, cents: &i64) {
        self.orders += 1;
        self.cents += cents;
    }

    fn merge(&mut self, other: Minutes) {
        self.orders += other.orders;
        self.cents += other.cents;
    }
}

/// Products have a stream of their own each, which is their key.
fn by_product(log: &Log) -> Keyed<String, i64> {
    let orders = log
        .events::<ShopEvent>()
        .out_of_order_by(Duration::from_secs(3))
        .filter_map(|event| match &**event {
            ShopEvent::Ordered { product, cents } => Some((product.clone(), *cents)),
            ShopEvent::Shipped { .. } => None,
        });
    orders
        .key_by(|(product, _)| product.clone())
        .partitioned_by(|product| format!("order-{product}"))
        .map(|_, (_, cents)| *cents)
}

fn minutes() -> Pipeline {
    Pipeline::new("minutes", 1, |log| {
        count(log);
    })
}

/// Writes what was sold in each minute, and how many orders came close together.
fn count(log: &Log) -> Results<String, Minutes> {
    let orders = by_product(log);
    let minutes = orders.tumbling(Duration::from_mins(1)).folded::<Minutes>();
    minutes.into_view();
    let bouts = orders.sessions(Duration::from_secs(20)).count();
    bouts.into_view_as::<Bouts>(|_, _, orders| Bouts { orders: *orders });
    minutes
}

/// The same, and each minute is appended too.
fn appended() -> Pipeline {
    Pipeline::new("minutes", 1, |log| {
        count(log)
            .append(|product, minute| {
                let event = MinuteEvent::Closed {
                    product: product.clone(),
                    cents: minute.value.cents,
                };
                (format!("minute-{product}"), event)
            })
            .from_the_beginning();
    })
}

async fn append_to(store: &dyn Store, stream: &str, at: DateTime<Utc>, event: &ShopEvent) {
    let mut new = NewEvent::of(event).unwrap();
    new.occurred_at = at;
    let stream = StreamId::new(stream).unwrap();
    store.append(Append::new(stream, [new])).await.unwrap();
}

/// Orders of all products; some of them come late for their partition where `late` says so.
async fn orders(store: &dyn Store, seed: u64, count: i64, late: i64) {
    let mut dice = Dice::new(seed);
    for second in 0..count {
        let product = PRODUCTS[dice.roll(8) as usize];
        let late = match dice.roll(9) {
            0 if late > 0 => dice.roll(late as u64) as i64,
            _ => 0,
        };
        let at = noon() + TimeDelta::seconds(second - late);
        let order = ordered(product, dice.roll(100) as i64);
        append_to(store, &format!("order-{product}"), at, &order).await;
    }
}

/// What was appended for each product, in order.
async fn sent(store: &dyn Store) -> BTreeMap<String, Vec<i64>> {
    let mut sent: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for partition in (0..3).map(Partition) {
        let filter = Filter::default().types(["minute.closed"]);
        let read = ReadLog::after(Position::START).partition(partition);
        let page = store.read(read.filter(filter)).await.unwrap();
        assert!(page.end);
        for record in page.events {
            let event: serde_json::Value = serde_json::from_slice(&record.payload).unwrap();
            let product = event["product"].as_str().unwrap().to_owned();
            sent.entry(product)
                .or_default()
                .push(event["cents"].as_i64().unwrap());
        }
    }
    sent
}

fn three() -> Arc<dyn Store> {
    Arc::new(MemoryStore::with_partitions(3))
}

async fn started(store: &Arc<dyn Store>, pipeline: Pipeline) -> Program {
    let db = Annals::on(store.clone()).with(pipeline);
    db.start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_layouts_give_the_same_rows_and_events() {
    let mut seen = Vec::new();
    for pipeline in [
        appended(),
        appended().slots(3),
        appended().by_partition(),
        appended().by_partition().options(options()),
    ] {
        let store = three();
        orders(&*store, 4, 400, 0).await;
        let db = started(&store, pipeline).await;
        let token = db.advance_clock(Time::MAX).await.unwrap();
        let minutes = db.pipeline("minutes").unwrap();
        minutes.wait_until_sent(token, WAIT).await.unwrap();
        let sent = sent(&*store).await;
        assert!(sent.values().flatten().count() > 30);
        rebuild(&db, "minutes").await;
        let rows = Picture::of(&*store, "minutes").await.rows;
        db.stop().await;
        assert!(rows.len() > 50, "{} rows", rows.len());
        seen.push((rows, sent));
    }
    for other in &seen[1..] {
        assert_eq!(*other, seen[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_one_partition_is_rebuilt_byte_for_byte() {
    let store = three();
    let db = started(&store, minutes().by_partition().options(options())).await;
    // What is late is late by the clock of its own partition, whatever the others do.
    orders(&*store, 9, 500, 90).await;
    caught_up(&db, "minutes").await;
    let live = Picture::of(&*store, "minutes").await;
    assert!(!live.state.is_empty() && live.rows.len() > 30);
    let status = db.pipeline("minutes").unwrap().status();
    assert_eq!(status.slots.len(), 3);
    assert!(
        status.slots.values().any(|slot| slot.missed > 0),
        "{status}"
    );
    rebuild(&db, "minutes").await;
    assert_eq!(Picture::of(&*store, "minutes").await, live);
    db.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_partition_holds_no_other_slot() {
    let quiet = |layout: fn(Pipeline) -> Pipeline| async move {
        let store = three();
        let db = started(&store, layout(minutes())).await;
        for minute in 0..2 {
            let at = noon() + TimeDelta::minutes(2 * minute);
            append_to(&*store, "order-tea", at, &ordered("tea", 5)).await;
        }
        caught_up(&db, "minutes").await;
        let rows = db.view::<Minutes>().rows().await.unwrap().rows.len();
        db.stop().await;
        rows
    };
    assert_eq!(quiet(|all| all.slots(3)).await, 0);
    assert_eq!(quiet(Pipeline::by_partition).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_partition_stops_its_slot() {
    let store = three();
    let home = store.partition_of(&StreamId::new("order-tea").unwrap());
    let elsewhere = (0..).map(|number| format!("order-{number}"));
    let mut elsewhere =
        elsewhere.filter(|name| store.partition_of(&StreamId::new(name.as_str()).unwrap()) != home);
    let stream = elsewhere.next().unwrap();
    let partition = store.partition_of(&StreamId::new(stream.as_str()).unwrap());
    append_to(&*store, "order-tea", noon(), &ordered("tea", 1)).await;
    append_to(&*store, &stream, noon(), &ordered("tea", 1)).await;
    let db = Annals::on(store.clone()).with(minutes().by_partition());
    let db = db.start_in_background().await.unwrap();
    let token = Token::new(store.id()).with(partition, Position::new(1));
    let waited = db.pipeline("minutes").unwrap().wait_for(token, WAIT).await;
    let error = waited.unwrap_err().to_string();
    for named in [
        format!("it is in stream `{stream}`"),
        format!("its key `tea` is in stream `order-tea`, which belongs to partition {home}"),
        format!("partition {partition}"),
        "`key_by_stream`".to_owned(),
    ] {
        assert!(error.contains(&named), "{named}: {error}");
    }
    db.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_of_an_event_keys_its_partition() {
    let counts = Pipeline::new("counts", 1, |log| {
        let orders = log.events::<ShopEvent>().key_by_stream();
        let minutes = orders.tumbling(Duration::from_mins(1)).count();
        minutes.into_view_as::<Bouts>(|_, _, orders| Bouts { orders: *orders });
    });
    let store = three();
    orders(&*store, 2, 120, 0).await;
    let db = started(&store, counts.by_partition()).await;
    db.advance_clock(Time::MAX).await.unwrap();
    caught_up(&db, "counts").await;
    let rows = db.view::<Bouts>().rows().await.unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.value.orders).sum::<u64>(), 120);
    assert!(rows.iter().all(|row| row.key.1.starts_with("order-")));
    db.stop().await;
}

#[tokio::test]
async fn what_needs_all_keys_is_refused_by_partition() {
    let best = Pipeline::new("best", 1, |log| {
        let counts = by_product(log).tumbling(Duration::from_mins(1)).count();
        let best = counts.top(1, |count| *count).finals();
        best.into_view_with::<Bouts>(|(), best| {
            let orders = best.value[0].1;
            ((best.window, best.value[0].0.clone()), Bouts { orders })
        });
    });
    let started = Annals::on(three()).with(best.by_partition()).start().await;
    let error = started.unwrap_err().to_string();
    assert!(error.contains("`top` needs all keys"), "{error}");
}

/// A slot reads one partition, and none of the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_keeps_the_checkpoint_of_its_own_partition() {
    let store = three();
    orders(&*store, 3, 60, 0).await;
    let db = started(&store, minutes().by_partition()).await;
    caught_up(&db, "minutes").await;
    let views = store.views().unwrap();
    let generations = views.generations("minutes").await.unwrap();
    let checkpoints = views.checkpoints(generations[0].id).await.unwrap();
    let places: Vec<_> = checkpoints
        .iter()
        .map(|of| (of.slot, of.partition))
        .collect();
    assert_eq!(places, [0, 1, 2].map(|of| (of, Partition(of.into()))));
    let lag: Vec<_> = db.status().iter().map(|of| of.lag_events()).collect();
    assert!(lag.iter().all(|lag| *lag == 0), "{lag:?}");
    db.stop().await;
}
