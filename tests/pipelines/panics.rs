//! Closures and folds that panic over some items: these are left out, and nothing else is.

use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::{Fold, Pipeline, Window};
use annals::prelude::*;
use annals::projections::Options;
use annals::{MemoryStore, Store};
use annals_core::conformance::Dice;

use crate::shop::{Picture, Sale, ShopEvent, caught_up, options, order, ordered, rebuild, sold};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "careful", key = (Window, String))]
struct Careful {
    orders: u64,
    cents: i64,
}

impl Fold<Sale> for Careful {
    fn add(&mut self, sale: &Sale) {
        self.orders += 1;
        assert!(sale.cents % 7 != 3, "no fold of {}", sale.cents);
        self.cents += sale.cents;
    }

    fn merge(&mut self, other: Careful) {
        self.orders += other.orders;
        self.cents += other.cents;
        assert!(self.cents % 11 != 5, "no sum of {}", self.cents);
    }
}

macro_rules! views {
    ($($name:ident = $stored:literal,)*) => {$(
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
        #[view(name = $stored, key = (Window, String))]
        struct $name(Careful);
    )*};
}

views! { Hops = "hops", Visits = "visits", Moving = "moving", Rows = "rows", }

/// Panics in a map, a key, folds, merges and rows.
pub(crate) fn panicking() -> Pipeline {
    let seconds = Duration::from_secs;
    Pipeline::new("panicking", 1, move |log| {
        let sold = sold(log).map(|sale| {
            assert!(sale.cents % 13 != 1, "no map of {}", sale.cents);
            sale.clone()
        });
        let keyed = sold.key_by(|sale| {
            assert!(sale.cents % 17 != 1, "no key of {}", sale.cents);
            sale.product.clone()
        });
        let minutes = keyed.tumbling(seconds(60)).folded::<Careful>();
        minutes.into_view();
        minutes.into_view_as::<Rows>(|_, _, row| {
            assert!(row.cents % 3 != 1, "no row of {}", row.cents);
            Rows(row.clone())
        });
        let hops = keyed.hopping(seconds(60), seconds(20)).folded::<Careful>();
        hops.into_view_as::<Hops>(|_, _, row| Hops(row.clone()));
        let visits = keyed.sessions(seconds(8)).folded::<Careful>();
        visits.into_view_as::<Visits>(|_, _, row| Visits(row.clone()));
        let moving = keyed.sliding(seconds(9)).folded::<Careful>();
        moving.into_view_as::<Moving>(|_, _, row| Moving(row.clone()));
    })
}

async fn built(store: &Arc<dyn Store>, options: Options) -> (Picture, Vec<String>) {
    let db = Annals::on(store.clone());
    let db = db.with(panicking().options(options)).start().await.unwrap();
    rebuild(&db, "panicking").await;
    let pipeline = db.pipeline("panicking").unwrap();
    let dead = pipeline.dead_records(10_000).await.unwrap();
    let dead = dead.into_iter();
    let dead = dead.map(|of| format!("{} {}", of.position, of.cause));
    let picture = Picture::of(&**store, "panicking").await;
    db.stop().await;
    (picture, dead.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn panics_leave_the_same_out_in_every_rebuild() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut dice = Dice::new(17);
    order(&*store, &mut dice, 0, 300).await;
    let (one, dead) = built(&store, options()).await;
    let kinds = [
        "`map` panicked: no map of ",
        "`key_by` panicked: no key of ",
        "`tumbling` panicked over `",
        "`hopping` panicked over `",
        "`sessions` panicked over `",
        "`sliding` panicked over `",
        "`into_view` panicked over `",
        "no sum of",
        "no row of",
    ];
    for kind in kinds {
        assert!(
            dead.iter().any(|of| of.contains(kind)),
            "{kind} of {dead:#?}"
        );
    }
    let full = one
        .rows
        .iter()
        .filter(|(key, _)| key.starts_with("careful"));
    assert!(full.count() > 20);
    for (slots, options) in [
        (1, Options::default()),
        (2, options()),
        (5, Options::default()),
    ] {
        let (several, _) = built(&store, options.slots(slots)).await;
        assert_eq!(several, one, "{slots} slots");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_key_goes_on_after_a_panic() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let db = Annals::on(store.clone()).with(panicking()).start().await;
    let db = db.unwrap();
    let noon = crate::shop::noon();
    for (second, cents) in [(0, 7), (1, 10), (2, 21), (3, 24), (100, 0)] {
        let at = noon + chrono::TimeDelta::seconds(second);
        crate::shop::append(&*store, at, &ordered("tea", cents)).await;
    }
    caught_up(&db, "panicking").await;
    let row = db.view::<Careful>().get((crate::shop::at(0), "tea".into()));
    let rest = Careful {
        orders: 2,
        cents: 28,
    };
    assert_eq!(row.await.unwrap(), Some(rest));
    db.stop().await;
}

#[test]
fn a_trial_tells_of_a_panic_and_goes_on() {
    let trial = Pipeline::new("small", 1, |log| {
        let keyed = sold(log).key_by(|sale| sale.product.clone());
        let minutes = keyed.tumbling(Duration::from_mins(1));
        minutes.folded::<Careful>().into_view();
    });
    let trial = trial.trial().at("10:00:00", ordered("tea", 7)).unwrap();
    let trial = trial.at("10:00:01", ordered("tea", 3)).unwrap();
    let shipped = ShopEvent::Shipped { order: "1".into() };
    let trial = trial.at("10:02:00", shipped).unwrap();
    let story = trial.end().unwrap().to_string();
    let dead = "`tumbling` panicked over `tea`: no fold of 3";
    assert!(story.contains(dead), "{story}");
    let row = "-> careful [1970-01-01T10:00:00 tea] {\"orders\":1,\"cents\":7}";
    assert!(story.contains(row), "{story}");
}
