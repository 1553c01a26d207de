//! What can be asked of the rows of a pipeline.

use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::{Heartbeat, Pipeline, Time, Window};
use annals::prelude::*;
use annals::projections::{Program, StartError};
use annals::{MemoryStore, Store};
use chrono::TimeDelta;

use crate::kinds::keyed;
use crate::shop::{
    Location, Picture, Sales, TooLate, append, at, caught_up, noon, options, ordered,
};
use crate::shop::{rebuild, sales};

fn sum(orders: u64, cents: i64) -> Sales {
    Sales { orders, cents }
}

pub(crate) async fn rows_are_asked_as_those_of_views_are(location: Location) {
    let store = location.open().await;
    let db = Annals::on(store.clone())
        .with(sales())
        .start()
        .await
        .unwrap();
    let after = |seconds| noon() + TimeDelta::seconds(seconds);
    for (seconds, product, cents) in [(1, "tea", 250), (30, "rum", 900), (59, "tea", 50)] {
        append(&*store, after(seconds), &ordered(product, cents)).await;
    }
    caught_up(&db, "sales").await;
    let view = db.view::<Sales>();
    let tea = || (at(0), "tea".to_owned());
    assert_eq!(view.get(tea()).await.unwrap(), None, "the minute is open");
    append(&*store, after(70), &ordered("salt", 1)).await;
    caught_up(&db, "sales").await;
    assert_eq!(view.get(tea()).await.unwrap(), Some(sum(2, 300)));
    // What came out at an event is known from there on, and not before.
    assert_eq!(view.get(tea()).as_of(Position::new(3)).await.unwrap(), None);
    let then = view.get(tea()).as_of(Position::new(4)).await.unwrap();
    assert_eq!(then, Some(sum(2, 300)));
    let history = view.history(tea()).await.unwrap().versions;
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].from, Position::new(4));
    append(&*store, after(20), &ordered("tea", 5)).await;
    let token = db.advance_clock(Time::MAX).await.unwrap();
    let again = db.advance_clock(Time::MAX).await.unwrap();
    assert_eq!(again, token, "said twice, it is there once");
    let salt = view.get((at(60), "salt".to_owned())).at_least(token);
    assert_eq!(salt.await.unwrap(), Some(sum(1, 1)));
    let rows = view.rows().await.unwrap().rows;
    let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
    let of = |seconds, product: &str| (at(seconds), product.to_owned());
    assert_eq!(keys, [of(0, "rum"), of(0, "tea"), of(60, "salt")]);
    let minute = view
        .rows()
        .keys(of(0, "")..of(60, ""))
        .limit(1)
        .await
        .unwrap();
    assert_eq!(minute.rows[0].key, of(0, "rum"));
    let rest = view.rows().keys(of(0, "")..of(60, "")).after(minute.next);
    assert_eq!(rest.await.unwrap().rows.len(), 1);
    let changed = view.changed_between(Position::START, Position::new(6));
    let changed = changed.await.unwrap().changes;
    assert_eq!(changed.len(), 3);
    let late = db.view::<TooLate>().rows().await.unwrap().rows;
    assert_eq!(late.len(), 1);
    assert_eq!(late[0].value, TooLate { cents: 5 });
    let status = db.pipeline("sales").unwrap().status();
    assert_eq!(status.slots[&0].watermark, Time::MAX);
    let slot = &status.slots[&0];
    assert_eq!(
        (slot.open, slot.state_bytes),
        (0, 0),
        "everything has closed"
    );
    assert_eq!(slot.missed, 1);
    db.stop().await;
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "priced", key = (Window, String))]
struct Priced {
    #[view(index)]
    cents: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "counted", key = (Window, String))]
struct OrderCounts {
    #[view(index)]
    orders: u64,
    #[view(index)]
    largest: Option<i64>,
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_several_outputs_are_found_by_their_indexes() {
    for location in Location::all() {
        let store = location.open().await;
        let pipeline = Pipeline::new("indexed", 1, |log| {
            let minutes = keyed(log)
                .tumbling(Duration::from_mins(1))
                .folded::<Sales>();
            minutes.into_view_as::<Priced>(|_, _, of| Priced { cents: of.cents });
            minutes.into_view_as::<OrderCounts>(|_, _, of| OrderCounts {
                orders: of.orders,
                largest: (of.orders > 1).then_some(of.cents),
            });
        });
        let db = Annals::on(store.clone())
            .with(pipeline)
            .start()
            .await
            .unwrap();
        let orders = [("tea", 250), ("rum", -900), ("tea", 50), ("salt", 7)];
        for (second, (product, cents)) in (1..).zip(orders) {
            let at = noon() + TimeDelta::seconds(second);
            append(&*store, at, &ordered(product, cents)).await;
        }
        db.advance_clock(Time::MAX).await.unwrap();
        caught_up(&db, "indexed").await;
        let priced = db.view::<Priced>();
        let products = async |range: (Bound<i64>, Bound<i64>)| {
            let rows = priced.rows().by_index::<i64>("cents", range).await.unwrap();
            let keys = rows.rows.into_iter().map(|row| row.key.1);
            keys.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(products((Unbounded, Unbounded)).await, "rum salt tea");
        assert_eq!(products((Unbounded, Excluded(7))).await, "rum");
        assert_eq!(products((Included(7), Unbounded)).await, "salt tea");
        let counted = db.view::<OrderCounts>();
        let page = counted.rows().by_index::<i64>("largest", ..).await.unwrap();
        assert_eq!(page.rows.len(), 1, "absent entries are in no range");
        let first = counted
            .rows()
            .by_index::<u64>("orders", ..)
            .limit(2)
            .await
            .unwrap();
        let last = counted
            .rows()
            .by_index::<u64>("orders", ..)
            .after(first.next);
        assert_eq!(last.await.unwrap().rows[0].value.orders, 2);
        db.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_the_clock_and_the_busiest_keys() {
    let store = Location::memory().open().await;
    let db = Annals::on(store.clone())
        .with(sales())
        .start()
        .await
        .unwrap();
    for second in 0..60 {
        let product = if second % 4 == 0 { "rum" } else { "tea" };
        let at = noon() + TimeDelta::seconds(second);
        append(&*store, at, &ordered(product, 1)).await;
    }
    append(&*store, noon() + TimeDelta::minutes(5), &ordered("tea", 1)).await;
    append(&*store, noon(), &ordered("tea", 1)).await;
    caught_up(&db, "sales").await;
    let status = db.pipeline("sales").unwrap().status();
    let hot = &status.slots[&0].hot_keys;
    let keys: Vec<_> = hot.iter().map(|of| of.key.as_str()).collect();
    assert_eq!(keys, ["tea", "rum"]);
    assert!((65..=85).contains(&hot[0].percent), "{hot:?}");
    // The program's status has the same.
    let all = db.status();
    let all = all.iter().find(|of| of.view == "sales").unwrap();
    let told = all.slots[0].event_time.as_ref().unwrap();
    assert_eq!(told.watermark_micros, status.slots[&0].watermark.micros());
    assert_eq!((told.open, told.too_late), (1, 1));
    assert_eq!(&told.hot_keys, hot);
    let text = format!("{all:#}");
    let clock = "event time 2026-03-31T12:04:56.999999Z (held by partition 0), 1 open, 1 too late";
    assert!(text.contains(clock), "{text}");
    assert!(text.contains("busiest key `tea` with"), "{text}");
    assert!(serde_json::to_string(all).unwrap().contains("\"hot_keys\""));
    db.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_watched_per_view() {
    let store = Location::memory().open().await;
    let db = Annals::on(store.clone())
        .with(sales())
        .start()
        .await
        .unwrap();
    let mut all = db.view::<Sales>().watch_all();
    let mut late = db.view::<TooLate>().watch((at(0), "tea".to_owned()));
    append(&*store, noon(), &ordered("tea", 250)).await;
    append(&*store, noon() + TimeDelta::minutes(5), &ordered("tea", 1)).await;
    append(&*store, noon(), &ordered("tea", 3)).await;
    let Some(annals::projections::Update::Changed(change)) = all.next().await.unwrap() else {
        panic!("the row of the first minute");
    };
    assert_eq!(
        (change.key, change.value),
        ((at(0), "tea".into()), Some(sum(1, 250)))
    );
    let change = late.next().await.unwrap().unwrap();
    assert_eq!(change.value, Some(TooLate { cents: 3 }));
    db.stop().await;
}

#[tokio::test]
async fn a_view_that_names_no_events_is_refused_alone() {
    let store = Location::memory().open().await;
    let started = Annals::on(store).with(Sales::projection()).start().await;
    let error = started.unwrap_err();
    assert!(matches!(error, StartError::NoEvents("sales")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_close_in_a_quiet_log_with_a_heartbeat() {
    let store = Location::memory().open().await;
    let quiet = Heartbeat::when_quiet(Duration::from_millis(20));
    let db = Annals::on(store.clone()).with(sales()).with(quiet);
    let db = db.start().await.unwrap();
    let mut rows = db.view::<Sales>().watch_all();
    append(&*store, noon(), &ordered("tea", 250)).await;
    let Some(annals::projections::Update::Changed(change)) = rows.next().await.unwrap() else {
        panic!("the row of the only minute");
    };
    assert_eq!(change.key, (at(0), "tea".into()));
    caught_up(&db, "sales").await;
    let live = Picture::of(&*store, "sales").await.rows;
    rebuild(&db, "sales").await;
    assert_eq!(Picture::of(&*store, "sales").await.rows, live);
    db.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_of_no_slot_of_another_process() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let program = || {
        let mut options = options().slots(2).lease(Duration::from_millis(200));
        options.poll = Duration::from_millis(10);
        let minutes = Pipeline::new("minutes", 1, |log| {
            let minutes = keyed(log).tumbling(Duration::from_mins(1));
            minutes.folded::<Sales>().into_view();
        });
        Annals::on(store.clone()).with(minutes.options(options))
    };
    let slots = |db: &Program| {
        let status = db.pipeline("minutes").unwrap().status();
        status.slots.into_keys().collect::<Vec<_>>()
    };
    let one = program().start().await.unwrap();
    append(&*store, noon(), &ordered("tea", 1)).await;
    caught_up(&one, "minutes").await;
    assert_eq!(slots(&one), [0, 1]);
    let other = program().start().await.unwrap();
    let both = async {
        while slots(&one).len() + slots(&other).len() != 2 || slots(&other).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let wait = tokio::time::timeout(Duration::from_secs(60), both).await;
    wait.unwrap_or_else(|_| panic!("{:?} and {:?}", slots(&one), slots(&other)));
    let mut all = [slots(&one), slots(&other)].concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1]);
    other.stop().await;
    one.stop().await;
}
