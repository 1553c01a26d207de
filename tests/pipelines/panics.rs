//! Closures and folds that panic over some items: these are skipped, and nothing else is.

use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::{Fold, Pattern, Pipeline, Window, Within};
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

pub(crate) async fn built(
    store: &Arc<dyn Store>,
    name: &str,
    pipeline: Pipeline,
    options: Options,
) -> (Picture, Vec<String>) {
    let db = Annals::on(store.clone());
    let db = db.with(pipeline.options(options)).start().await.unwrap();
    rebuild(&db, name).await;
    let pipeline = db.pipeline(name).unwrap();
    let dead = pipeline.dead_records(10_000).await.unwrap();
    let dead = dead.into_iter();
    let dead = dead.map(|of| format!("{} {}", of.position, of.cause));
    let picture = Picture::of(&**store, name).await;
    db.stop().await;
    (picture, dead.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn panics_leave_the_same_out_in_every_rebuild() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut dice = Dice::new(17);
    order(&*store, &mut dice, 0, 300).await;
    let (one, dead) = built(&store, "panicking", panicking(), options()).await;
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
        let options = options.slots(slots);
        let (several, _) = built(&store, "panicking", panicking(), options).await;
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

macro_rules! joined_views {
    ($($name:ident = $stored:literal,)*) => {$(
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
        #[view(name = $stored, key = String, history)]
        struct $name {
            cents: Vec<i64>,
        }

        impl $name {
            fn of(product: &str, cents: &[i64]) -> (String, $name) {
                let cents = cents.to_vec();
                (product.to_owned(), $name { cents })
            }
        }
    )*};
}

joined_views! {
    Found = "found", Absent = "absent", Pairs = "pairs", Known = "known",
    Steps = "steps", Once = "once", Long = "long",
}

fn calm(number: i64, by: i64, what: &str) -> i64 {
    assert!(number % by != 2, "no {what} of {number}");
    number
}

/// Panics in conditions, joins, tables and steps; and rows that no store takes.
fn joining() -> Pipeline {
    let seconds = Duration::from_secs;
    Pipeline::new("joining", 1, move |log| {
        let sold = sold(log).key_by(|sale| sale.product.clone());
        let cents = sold.map(|_, sale| sale.cents);
        let rises = Pattern::first(|cents: &i64| calm(*cents, 11, "first") > 40)
            .then(|before, cents| calm(*cents, 13, "second") > before[0])
            .within(seconds(30));
        let found = cents.detect(rises);
        found.into_view_with::<Found>(|product, found| Found::of(product, found));
        let quiet = Pattern::first(|cents: &i64| *cents % 2 == 0)
            .never(|_, cents| calm(*cents, 17, "absence") % 5 == 0)
            .within(seconds(9));
        let absent = cents.detect(quiet);
        absent.into_view_with::<Absent>(|product, found| Absent::of(product, found));
        let near = Within::around(seconds(6));
        let pairs = cents.left_join(
            &cents.filter(|cents| *cents % 3 == 0),
            near,
            |one, other| {
                let other = other.copied().unwrap_or_default();
                vec![calm(*one, 19, "pair"), other]
            },
        );
        pairs.into_view_with::<Pairs>(|product, pair| Pairs::of(product, pair));
        let table = cents.table(|cents| Some(calm(*cents, 23, "row")));
        let known = cents.look_up(&table, |cents, row| {
            vec![
                calm(*cents, 29, "look-up"),
                row.copied().unwrap_or_default(),
            ]
        });
        known.into_view_with::<Known>(|product, known| Known::of(product, known));
        let steps = cents.scan(seconds(60), |sum: &mut i64, cents| {
            *sum += calm(*cents, 31, "step");
            Some(*sum)
        });
        steps.into_view_with::<Steps>(|product, sum| Steps::of(product, &[*sum]));
        let once = cents.distinct_by(|cents| calm(*cents, 37, "id"), seconds(60));
        once.into_view_with::<Once>(|product, cents| Once::of(product, &[*cents]));
        cents.into_view_with::<Long>(|product, cents| {
            let times = if cents % 41 == 2 { 300 } else { 1 };
            Long::of(&product.repeat(times), &[*cents])
        });
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn panics_in_joins_and_patterns_are_dead_records() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    order(&*store, &mut Dice::new(17), 0, 300).await;
    let (one, dead) = built(&store, "joining", joining(), options()).await;
    let kinds = [
        "`detect` panicked over `tea` from position ",
        "no first of ",
        "no second of ",
        "no absence of ",
        "`left_join` panicked over `",
        "`table` panicked over `",
        "`look_up` panicked over `",
        "`scan` panicked over `",
        "`distinct_by` panicked over `",
        "`into_view` failed over `rum`: a row of view `long` has no key",
    ];
    for kind in kinds {
        assert!(
            dead.iter().any(|of| of.contains(kind)),
            "{kind} of {dead:#?}"
        );
    }
    for view in ["found", "absent", "pairs", "known", "steps", "once", "long"] {
        let rows = one.rows.iter();
        let rows = rows.filter(|(key, _)| key.starts_with(&format!("{view}\u{1e}")));
        assert_eq!(rows.count(), 3, "{view}");
    }
    for (slots, options) in [
        (1, Options::default()),
        (2, options()),
        (5, Options::default()),
    ] {
        let options = options.slots(slots);
        let (several, _) = built(&store, "joining", joining(), options).await;
        assert_eq!(several, one, "{slots} slots");
    }
}

#[test]
fn an_item_whose_condition_panics_is_as_if_not_there() {
    let rising = Pipeline::new("rising", 1, |log| {
        let cents = sold(log).key_by(|sale| sale.product.clone());
        let cents = cents.map(|_, sale| sale.cents);
        let rises = Pattern::first(|cents: &i64| *cents < 10)
            .then(|before, cents| calm(*cents, 10, "second") > before[0])
            .within(Duration::from_secs(30));
        let found = cents.detect(rises);
        found.into_view_with::<Found>(|product, found| Found::of(product, found));
    });
    let mut trial = rising.trial();
    for (second, cents) in [(1, 5), (2, 12), (3, 7), (4, 9)] {
        let at = format!("10:00:0{second}");
        trial = trial.at(&at, ordered("tea", cents)).unwrap();
    }
    let story = trial.end().unwrap().to_string();
    // 12 would have been the first to follow 5.
    assert!(
        story.contains("-> found [tea] {\"cents\":[5,7]}"),
        "{story}"
    );
    assert!(
        story.contains("-> found [tea] {\"cents\":[7,9]}"),
        "{story}"
    );
    let dead = "`detect` panicked over `tea` from position 2: no second of 12";
    assert!(story.contains(dead), "{story}");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_long_panic_is_recorded_as_far_as_it_is_read() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    order(&*store, &mut Dice::new(17), 0, 10).await;
    let pipeline = Pipeline::new("wordy", 1, |log| {
        let sold = sold(log).map(|sale| {
            assert!(sale.cents < 0, "{}", "x".repeat(1 << 20));
            sale.clone()
        });
        let keyed = sold.key_by(|sale| sale.product.clone());
        keyed
            .tumbling(Duration::from_secs(60))
            .folded::<Careful>()
            .into_view();
    });
    let db = Annals::on(store.clone()).with(pipeline.options(options()));
    let db = db.start().await.unwrap();
    caught_up(&db, "wordy").await;
    let dead = db
        .pipeline("wordy")
        .unwrap()
        .dead_records(10)
        .await
        .unwrap();
    assert!(!dead.is_empty());
    for dead in dead {
        assert!(dead.cause.len() <= annals_core::DeadLetter::REASON_BYTES_MAX);
        assert!(
            dead.cause.contains("xxx… (cut, of 10"),
            "{}",
            dead.cause.len()
        );
    }
    db.stop().await;
}
