//! One random log, cut into pages, batches and slots in every way, with commits that fail between:
//! rows, versions and state are the same, byte for byte.

use std::sync::Arc;
use std::time::Duration;

use annals::Store;
use annals::pipeline::{Fold, Pipeline, Window, Windowed};
use annals::prelude::*;
use annals::projections::Options;
use annals::store::{Append, NewEvent};
use annals_core::conformance::faulty::FaultyStore;
use annals_core::conformance::{Dice, rounds};
use chrono::TimeDelta;

use crate::broken::TwoOfThree;
use crate::kinds::{all_kinds, keyed};
use crate::panics::panicking;
use crate::shop::{Location, Picture, Sales, append, noon, ordered, rebuild, sales};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "chained", key = (Window, String), history)]
struct Chained {
    minutes: u64,
    orders: u64,
}

impl Fold<Windowed<Sales>> for Chained {
    fn add(&mut self, minute: &Windowed<Sales>) {
        self.minutes += 1;
        self.orders += minute.value.orders;
    }

    fn merge(&mut self, other: Chained) {
        self.minutes += other.minutes;
        self.orders += other.orders;
    }
}

/// Windows of windows.
fn chained() -> Pipeline {
    Pipeline::new("chained", 1, |log| {
        let minutes = keyed(log).tumbling(Duration::from_secs(20));
        let minutes = minutes.folded::<Sales>().finals();
        let hours = minutes.tumbling(Duration::from_secs(60));
        hours.folded::<Chained>().into_view();
    })
}

/// Late, doubled, future-dated and unreadable events, and stretches in which only time goes on.
async fn write(store: &dyn Store, dice: &mut Dice, events: u64) {
    let mut second = 0;
    let mut last = ordered("tea", 0);
    for number in 0..events {
        second += dice.roll(4) as i64;
        let product = ["tea", "rum", "salt", "ale"][dice.roll(4) as usize];
        let event = ordered(product, dice.roll(500) as i64);
        let at = noon() + TimeDelta::seconds(second);
        match dice.roll(24) {
            0 => {
                let late = at - TimeDelta::seconds(dice.roll(300) as i64);
                append(store, late, &event).await;
            }
            1 => append(store, at, &last).await,
            2 => append(store, at + TimeDelta::days(30_000), &event).await,
            3 => {
                let payload = b"{\"cents\":[]}".as_slice();
                let mut spoiled = NewEvent::json("order.ordered", payload);
                spoiled.occurred_at = at;
                let stream = StreamId::new(format!("order-spoiled-{number}")).unwrap();
                store.append(Append::new(stream, [spoiled])).await.unwrap();
            }
            4 => {
                second += 90;
                let to = (noon() + TimeDelta::seconds(second - 5)).timestamp_micros();
                let payload = format!("{{\"to\":{to}}}").into_bytes();
                let stream = StreamId::any("$clock-0").unwrap();
                let went_on = NewEvent::json("$clock.advanced", payload);
                store.append(Append::new(stream, [went_on])).await.unwrap();
            }
            _ => append(store, at, &event).await,
        }
        last = event;
    }
}

type Named = (&'static str, fn() -> Pipeline);

fn pipelines() -> [Named; 4] {
    [
        ("kinds", all_kinds),
        ("panicking", panicking),
        ("chained", chained),
        ("sales", sales),
    ]
}

/// What a rebuild gives; `page` events are read at once, and `batch` are in a commit.
async fn built(
    store: &Arc<dyn Store>,
    (name, pipeline): (&str, fn() -> Pipeline),
    (page, batch, slots): (usize, usize, u16),
) -> Picture {
    // What came too late is keyed again, for which all keys are in one place.
    let slots = if name == "sales" { 1 } else { slots };
    let mut options = Options::default().batch_events_max(page).slots(slots);
    options.build_events_max = batch;
    options.back_off = Duration::from_millis(1);
    let db = Annals::on(store.clone()).with(pipeline().options(options));
    let db = db.start().await.unwrap();
    rebuild(&db, name).await;
    let picture = Picture::of(&**store, name).await;
    db.stop().await;
    picture
}

pub(crate) async fn a_random_log_gives_one_result_however_it_is_cut(location: Location) {
    let store = location.open().await;
    let all = match location {
        Location::Memory(_) => rounds(1, 40),
        _ => rounds(1, 10),
    };
    for round in 0..all {
        let mut dice = Dice::new(100 + round);
        write(&*store, &mut dice, 100).await;
        for of in pipelines() {
            // What was built before this part of the log came goes on with it.
            let first = built(&store, of, (8_192, 20_000, 1)).await;
            assert!(!first.state.is_empty() && first.rows.len() > 20, "{}", of.0);
            let cuts = [(1, 1, 1), (7, 20_000, 2), (8_192, 1, 5), (7, 1, 256)];
            for cut in cuts.into_iter().take(rounds(3, 4) as usize) {
                let other = built(&store, of, cut).await;
                assert_eq!(other, first, "{} in round {round}, cut as {cut:?}", of.0);
            }
            let faulty = FaultyStore::new(Arc::clone(&store), TwoOfThree::default());
            let faulty: Arc<dyn Store> = faulty;
            let other = built(&faulty, of, (7, 7, 3)).await;
            assert_eq!(other, first, "{} in round {round}, with failures", of.0);
        }
    }
}
