//! State that cannot be saved, or would not be read back: the items that make it so are skipped,
//! and nothing else is.

use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::{Fold, Pipeline, Window, Within};
use annals::prelude::*;
use annals::projections::Options;
use annals::{MemoryStore, Store};
use annals_core::conformance::Dice;
use chrono::TimeDelta;
use serde::Serializer;

use crate::panics::built;
use crate::shop::{Location, Sale, append, caught_up, noon, options, order, ordered, sold};

/// No number for some cents.
fn ratio(cents: i64, by: i64) -> f64 {
    let zero = if cents % by == 3 { 0.0 } else { 1.0 };
    (zero * cents as f64) / zero
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "ratios", key = (Window, String))]
struct Ratios {
    orders: u64,
    sum: f64,
    #[serde(skip_serializing_if = "is_set")]
    odd: bool,
    touchy: Touchy,
    last: Option<f64>,
}

fn is_set(odd: &bool) -> bool {
    *odd
}

/// Panics over some cents when it is written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Touchy(i64);

impl Serialize for Touchy {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 % 17 != 5, "{} is not written", self.0);
        to.serialize_i64(self.0)
    }
}

impl Fold<Sale> for Ratios {
    fn add(&mut self, sale: &Sale) {
        self.orders += 1;
        self.sum += ratio(sale.cents, 7);
        self.odd |= sale.cents % 11 == 4;
        if self.touchy.0 % 17 != 5 {
            self.touchy.0 = sale.cents;
        }
        if self.last.is_none_or(|last| !last.is_nan()) {
            self.last = Some(ratio(sale.cents, 19));
        }
    }

    fn merge(&mut self, other: Ratios) {
        self.orders += other.orders;
        self.sum += other.sum;
        self.odd |= other.odd;
        self.touchy.0 = self.touchy.0.max(other.touchy.0);
        self.last = self.last.or(other.last);
    }
}

macro_rules! views {
    ($($name:ident($of:ty) = $stored:literal, $key:ty;)*) => {$(
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
        #[view(name = $stored, key = $key)]
        struct $name($of);
    )*};
}

views! {
    Visits(u64) = "visits", (Window, String);
    Hops(u64) = "hops", (Window, String);
    Moving(u64) = "moving", (Window, String);
    Steps(i64) = "steps", String;
    Sorted(i64) = "sorted", String;
    Pairs(i64) = "pairs", String;
    Known(i64) = "known", String;
}

fn unsaved() -> Pipeline {
    let seconds = Duration::from_secs;
    Pipeline::new("unsaved", 1, move |log| {
        let sold = sold(log).key_by(|sale| sale.product.clone());
        sold.tumbling(seconds(10)).folded::<Ratios>().into_view();
        let hops = sold.hopping(seconds(20), seconds(5)).folded::<Ratios>();
        hops.into_view_as::<Hops>(|_, _, row| Hops(row.orders));
        let visits = sold.sessions(seconds(8)).folded::<Ratios>();
        visits.into_view_as::<Visits>(|_, _, row| Visits(row.orders));
        let moving = sold.sliding(seconds(9)).folded::<Ratios>();
        moving.into_view_as::<Moving>(|_, _, row| Moving(row.orders));
        let steps = sold.scan(seconds(60), |last: &mut Option<f64>, sale| {
            *last = Some(ratio(sale.cents, 23));
            Some(sale.cents)
        });
        steps.into_view_with::<Steps>(|product, cents| (product.clone(), Steps(*cents)));
        let ratios = sold.map(|_, sale| (sale.cents, ratio(sale.cents, 13)));
        let sorted = ratios.in_time_order();
        sorted.into_view_with::<Sorted>(|product, of| (product.clone(), Sorted(of.0)));
        let others = ratios.filter(|(cents, _)| cents % 3 == 0);
        let pairs = ratios.left_join(&others, Within::around(seconds(6)), |one, _| one.0);
        pairs.into_view_with::<Pairs>(|product, cents| (product.clone(), Pairs(*cents)));
        let table = ratios.table(|of| Some(*of));
        let known = sold.look_up(&table, |sale, of| sale.cents + of.map_or(0, |of| of.0));
        known.into_view_with::<Known>(|product, cents| (product.clone(), Known(*cents)));
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn items_whose_state_cannot_be_saved_are_dead_records() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    order(&*store, &mut Dice::new(23), 0, 300).await;
    let (one, dead) = built(&store, "unsaved", unsaved(), options()).await;
    for kind in [
        "tumbling",
        "hopping",
        "sessions",
        "scan",
        "in_time_order",
        "left_join",
        "look_up",
    ] {
        let failed = format!("`{kind}` failed over `");
        assert!(
            dead.iter().any(|of| of.contains(&failed)),
            "{kind}: {dead:#?}"
        );
    }
    for why in [
        "NaN, which JSON has no form for",
        "missing field `odd`",
        "is not written",
    ] {
        assert!(dead.iter().any(|of| of.contains(why)), "{why} of {dead:#?}");
    }
    for view in [
        "ratios", "hops", "visits", "moving", "steps", "sorted", "pairs", "known",
    ] {
        let of_view = |(key, _): &&(String, String)| key.starts_with(&format!("{view}\u{1e}"));
        assert!(one.rows.iter().filter(of_view).count() >= 3, "{view}");
    }
    for (slots, options) in [
        (1, Options::default()),
        (2, options()),
        (5, Options::default()),
    ] {
        let options = options.slots(slots);
        let (several, _) = built(&store, "unsaved", unsaved(), options).await;
        assert_eq!(several, one, "{slots} slots");
    }
}

/// What is in the view of ratios, and the positions of dead records.
async fn ratios(store: &Arc<dyn Store>) -> (Vec<(String, u64)>, Vec<u64>) {
    let windows = Pipeline::new("ratios-only", 1, |log| {
        let sold = sold(log).key_by(|sale| sale.product.clone());
        let windows = sold.tumbling(Duration::from_secs(60));
        windows.folded::<Ratios>().on_update().into_view();
    });
    let db = Annals::on(Arc::clone(store)).with(windows.options(options()));
    let db = db.start().await.unwrap();
    caught_up(&db, "ratios-only").await;
    let rows = db.view::<Ratios>().rows().await.unwrap().rows;
    let rows = rows.into_iter();
    let rows = rows.map(|row| (row.key.1, row.value.orders)).collect();
    let handle = db.pipeline("ratios-only").unwrap();
    let dead = handle.dead_records(9).await.unwrap();
    db.stop().await;
    (rows, dead.into_iter().map(|of| of.position).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_starts_again_after_state_became_nan() {
    for location in Location::all() {
        let store = location.open().await;
        let moment = |second| noon() + TimeDelta::seconds(second);
        append(&*store, moment(1), &ordered("tea", 1)).await;
        let (rows, dead) = ratios(&store).await;
        assert_eq!((rows, dead), (vec![("tea".to_owned(), 1)], vec![]));
        append(&*store, moment(2), &ordered("tea", 10)).await;
        append(&*store, moment(3), &ordered("rum", 2)).await;
        let before = vec![("rum".to_owned(), 1), ("tea".to_owned(), 1)];
        assert_eq!(ratios(&store).await, (before, vec![2]));
        append(&*store, moment(4), &ordered("tea", 1)).await;
        let after = vec![("rum".to_owned(), 1), ("tea".to_owned(), 2)];
        assert_eq!(ratios(&store).await, (after, vec![2]));
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "skipping", key = String)]
struct Skipping {
    #[serde(skip_serializing_if = "is_set")]
    odd: bool,
}

#[test]
fn a_row_whose_field_is_skipped_is_a_dead_record() {
    let rows = Pipeline::new("rows", 1, |log| {
        let sold = sold(log).key_by(|sale| sale.product.clone());
        sold.into_view_with::<Skipping>(|product, sale| {
            let odd = sale.cents % 2 == 1;
            (product.clone(), Skipping { odd })
        });
    });
    let trial = rows.trial().at("10:00:00", ordered("tea", 2)).unwrap();
    let trial = trial.at("10:00:01", ordered("rum", 3)).unwrap();
    let story = trial.end().unwrap().to_string();
    assert!(
        story.contains("-> skipping [tea] {\"odd\":false}"),
        "{story}"
    );
    assert!(!story.contains("-> skipping [rum]"), "{story}");
    let why = "a row of view `skipping` is not read back as it was written: missing field `odd`";
    assert!(story.contains(why), "{story}");
}
