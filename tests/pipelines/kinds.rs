//! Every kind of window, in one slot and in several, on one partition and on three.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::{Keyed, Pipeline, Time, Window};
use annals::prelude::*;
use annals::projections::{Options, StartError};
use annals::{MemoryStore, Store};
use annals_core::conformance::Dice;
use chrono::TimeDelta;

use crate::shop::{Picture, Sale, Sales, ShopEvent, append, at, caught_up, noon, options, order};
use crate::shop::{ordered, rebuild, sold};

macro_rules! view {
    ($($name:ident = $stored:literal,)*) => {$(
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
        #[view(name = $stored, key = (Window, String))]
        struct $name {
            orders: u64,
            cents: i64,
            end: i64,
        }

        impl $name {
            fn of(window: &Window, sales: &Sales) -> $name {
                $name {
                    orders: sales.orders,
                    cents: sales.cents,
                    end: window.end.micros(),
                }
            }
        }
    )*};
}

view! {
    Hopping = "hopping",
    Sliding = "sliding",
    Visits = "visits",
    Patient = "patient",
    Calm = "calm",
    Corrected = "corrected",
    Soon = "soon",
}

pub(crate) fn keyed(log: &annals::pipeline::Log) -> Keyed<String, Sale> {
    sold(log).key_by(|sale| sale.product.clone())
}

pub(crate) fn all_kinds() -> Pipeline {
    let seconds = Duration::from_secs;
    Pipeline::new("kinds", 1, move |log| {
        let sold = keyed(log);
        let into = |_: &String, window: &Window, of: &Sales| Hopping::of(window, of);
        let hopping = sold.hopping(seconds(60), seconds(20)).folded::<Sales>();
        hopping.into_view_as::<Hopping>(into);
        let sliding = sold.sliding(seconds(15)).folded::<Sales>();
        sliding.into_view_as::<Sliding>(|_, window, of| Sliding::of(window, of));
        let visits = sold.sessions(seconds(8)).folded::<Sales>().on_update();
        visits.into_view_as::<Visits>(|_, window, of| Visits::of(window, of));
        let patient = sold.sessions_by(|sale| Duration::from_secs(sale.cents as u64 % 20));
        let patient = patient.folded::<Sales>();
        patient.into_view_as::<Patient>(|_, window, of| Patient::of(window, of));
        let minutes = sold.tumbling(seconds(60)).offset(seconds(7));
        let minutes = minutes.allow_late(seconds(45)).folded::<Sales>();
        minutes.into_view_as::<Corrected>(|_, window, of| Corrected::of(window, of));
        let calm = sold.tumbling(seconds(60)).folded::<Sales>().on_update();
        let calm = calm.at_most_every(seconds(10));
        calm.into_view_as::<Calm>(|_, window, of| Calm::of(window, of));
        let soon = sold.tumbling(seconds(60)).folded::<Sales>();
        let soon = soon.as_soon_as(|sales| sales.orders >= 3);
        soon.into_view_with::<Soon>(|product, of| {
            (
                (of.window, product.clone()),
                Soon::of(&of.window, &of.value),
            )
        });
    })
}

async fn rows_of(store: &Arc<dyn Store>, slots: u16, options: Options) -> Picture {
    let db = Annals::on(store.clone())
        .with(all_kinds().options(options.slots(slots)))
        .start()
        .await
        .unwrap();
    rebuild(&db, "kinds").await;
    let picture = Picture::of(&**store, "kinds").await;
    db.stop().await;
    picture
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_window_is_independent_of_slots() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut dice = Dice::new(3);
    order(&*store, &mut dice, 0, 400).await;
    let one = rows_of(&store, 1, options()).await;
    let views: BTreeSet<&str> = one
        .rows
        .iter()
        .filter_map(|(key, _)| key.split('\u{1e}').next())
        .collect();
    let all = [
        "calm",
        "corrected",
        "hopping",
        "patient",
        "sliding",
        "soon",
        "visits",
    ];
    assert_eq!(views, BTreeSet::from(all));
    assert!(!one.state.is_empty());
    for (slots, options) in [(2, options()), (5, Options::default()), (256, options())] {
        let several = rows_of(&store, slots, options).await;
        assert_eq!(several, one, "{slots} slots");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_closes_when_all_partitions_have_passed_it() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::with_partitions(3));
    let mut dice = Dice::new(5);
    for number in 0..300 {
        let event = ordered("tea", dice.roll(100) as i64);
        append(&*store, noon() + TimeDelta::seconds(number), &event).await;
    }
    let sums = || {
        Pipeline::new("sums", 1, |log| {
            let minutes = keyed(log).tumbling(Duration::from_secs(60));
            let minutes = minutes.folded::<Sales>();
            minutes.into_view_as::<Hopping>(|_, window, of| Hopping::of(window, of));
        })
    };
    let mut seen = Vec::new();
    for slots in [1, 3] {
        let store = store.clone();
        let db = Annals::on(store.clone())
            .with(sums().slots(slots))
            .start()
            .await
            .unwrap();
        caught_up(&db, "sums").await;
        let third = db.view::<Hopping>().get((at(120), "tea".to_owned()));
        assert!(third.await.unwrap().is_some_and(|row| row.orders == 60));
        db.advance_clock(Time::MAX).await.unwrap();
        rebuild(&db, "sums").await;
        seen.push(Picture::of(&*store, "sums").await.rows);
        db.stop().await;
    }
    assert_eq!(seen[0].len(), 5);
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn what_needs_one_slot_is_refused_in_several() {
    #[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
    #[view(name = "best", key = Window)]
    struct Best {
        products: Vec<(String, u64)>,
    }
    let best = Pipeline::new("best", 1, |log| {
        let counts = keyed(log).tumbling(Duration::from_mins(1)).count();
        counts
            .top(3, |count| *count)
            .into_view_as::<Best>(|(), _, products| Best {
                products: products.clone(),
            });
    });
    let store = Arc::new(MemoryStore::new());
    let error = Annals::on(store)
        .with(best.slots(2))
        .start()
        .await
        .unwrap_err();
    assert!(
        matches!(&error, StartError::Pipeline { name: "best", .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("`top` needs all keys"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_and_future_events_become_dead_letters_or_stop_it() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let sum = |goes_on: bool| {
        let name = if goes_on { "goes-on" } else { "stops" };
        Pipeline::new(name, 1, move |log| {
            let events = log
                .events::<ShopEvent>()
                .at_most_ahead(Duration::from_mins(1));
            let events = if goes_on {
                events.dead_letters()
            } else {
                events
            };
            let sold = events.filter_map(|event| match &**event {
                ShopEvent::Ordered { product, cents } => Some(Sale {
                    product: product.clone(),
                    cents: *cents,
                }),
                ShopEvent::Shipped { .. } => None,
            });
            let sums = sold.key_by(|sale| sale.product.clone());
            let sums = sums.tumbling(Duration::from_mins(1)).folded::<Sales>();
            sums.on_update()
                .into_view_as::<Hopping>(|_, window, of| Hopping::of(window, of));
        })
    };
    let tea = ordered("tea", 5);
    let year_2099 = noon() + TimeDelta::days(365 * 73);
    let long_ago = noon() - TimeDelta::days(365 * 10);
    append(&*store, long_ago, &tea).await;
    append(&*store, year_2099, &tea).await;
    let mut spoiled =
        annals::store::NewEvent::json("order.ordered", b"{\"cents\":true}".as_slice());
    spoiled.occurred_at = long_ago;
    let stream = StreamId::new("order-spoiled").unwrap();
    let spoiled = annals::store::Append::new(stream, [spoiled]);
    store.append(spoiled).await.unwrap();
    append(&*store, long_ago, &tea).await;
    let db = Annals::on(store.clone())
        .with(sum(true))
        .start()
        .await
        .unwrap();
    caught_up(&db, "goes-on").await;
    let dead = db
        .pipeline("goes-on")
        .unwrap()
        .dead_records(9)
        .await
        .unwrap();
    let places: Vec<u64> = dead.iter().map(|record| record.position).collect();
    assert_eq!(places, [2, 3]);
    assert!(dead[0].cause.contains("2099"), "{}", dead[0].cause);
    let rows = db.view::<Hopping>().rows().await.unwrap().rows;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].value.orders, 2);
    db.stop().await;

    let store = Annals::on(store);
    let db = store.with(sum(false)).start_in_background().await.unwrap();
    let stops = db.pipeline("stops").unwrap();
    let token = Token::new(db.store().id()).with(annals::Partition(0), Position::new(4));
    let wait = Duration::from_secs(30);
    let error = stops.wait_for(token.clone(), wait).await.unwrap_err();
    assert!(error.to_string().contains("`skip_event`"), "{error}");
    stops.skip_event(3, "a test wrote it").await.unwrap();
    stops.wait_for(token, wait).await.unwrap();
    db.stop().await;
}
