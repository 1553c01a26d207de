//! Pipelines without a store, as stories.

use std::collections::BTreeSet;
use std::time::Duration;

use annals::pipeline::{Count, Fold, Pipeline, Sum, Time, Window};
use annals::prelude::*;
use annals::projections::ViewKey;

use crate::shop::{Sale, Sales, ShopEvent, ordered, sales, sold};

#[test]
fn a_trial_says_what_came_out_and_why() {
    let trial = sales().trial().at("10:00:01", ordered("tea", 250)).unwrap();
    let trial = trial.at("10:00:59", ordered("rum", 900)).unwrap();
    let trial = trial.at("10:01:03", ordered("tea", 300)).unwrap();
    let trial = trial.at("10:01:04.000001", ordered("tea", 1)).unwrap();
    let trial = trial.at("10:00:30", ordered("tea", 7)).unwrap();
    let trial = trial.advance_to("10:05").unwrap().end().unwrap();
    insta::assert_snapshot!(trial, @r#"
    10:00:01 order.ordered {"product":"tea","cents":250}
    10:00:59 order.ordered {"product":"rum","cents":900}
    10:01:03 order.ordered {"product":"tea","cents":300}
      -> sales [1970-01-01T10:00:00 rum] {"orders":1,"cents":900}
      -> sales [1970-01-01T10:00:00 tea] {"orders":1,"cents":250}
    10:01:04.000001 order.ordered {"product":"tea","cents":1}
    10:00:30 order.ordered {"product":"tea","cents":7}
      -> sales-too-late [1970-01-01T10:00:00 tea] {"cents":7}
    10:05 time has come so far
      -> sales [1970-01-01T10:01:00 tea] {"orders":2,"cents":301}
    the end: time has come so far
    "#);
}

#[test]
fn a_wrong_pipeline_says_what_is_wrong() {
    let nothing = Pipeline::new("nothing", 1, |log| {
        log.events::<ShopEvent>();
    });
    let error = nothing.trial().advance_to("10:00").unwrap_err();
    assert_eq!(
        error.to_string(),
        "it writes nothing; end with `into_view` or `append`"
    );
    let zero = Pipeline::new("zero", 1, |log| {
        let keyed = sold(log).key_by(|sale| sale.product.clone());
        keyed.tumbling(Duration::ZERO).folded::<Sales>().into_view();
    });
    let error = zero.trial().end().unwrap_err();
    assert!(
        error.to_string().contains("at least 1 microsecond"),
        "{error}"
    );
    let misplaced = Pipeline::new("misplaced", 1, |log| {
        let sold = sold(log).out_of_order_by(Duration::from_secs(1));
        sold.key_by(|sale| sale.product.clone())
            .tumbling(Duration::from_mins(1))
            .folded::<Sales>()
            .into_view();
    });
    let error = misplaced.trial().end().unwrap_err();
    assert!(
        error.to_string().contains("right after `events`"),
        "{error}"
    );
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "counts", key = (Window, String))]
struct Counts {
    count: u64,
}

impl Fold<Sale> for Counts {
    fn add(&mut self, _: &Sale) {
        self.count += 1;
    }

    fn merge(&mut self, other: Counts) {
        self.count += other.count;
    }
}

#[test]
fn merged_streams_keep_the_order_of_the_log() {
    let merged = Pipeline::new("merged", 1, |log| {
        let cheap = sold(log).filter(|sale| sale.cents < 100);
        let dear = sold(log).filter(|sale| sale.cents >= 100);
        cheap
            .merge(&dear)
            .key_by(|sale| sale.product.clone())
            .sessions(Duration::from_secs(10))
            .folded::<Count>()
            .on_update()
            .into_view_as::<Counts>(|_, _, count| Counts { count: count.0 });
    });
    let trial = merged.trial().at("10:00:00", ordered("tea", 1)).unwrap();
    let trial = trial.at("10:00:20", ordered("tea", 500)).unwrap();
    let trial = trial.at("10:00:10", ordered("tea", 2)).unwrap();
    insta::assert_snapshot!(trial.end().unwrap(), @r#"
    10:00:00 order.ordered {"product":"tea","cents":1}
      -> counts [1970-01-01T10:00:00 tea] {"count":1}
    10:00:20 order.ordered {"product":"tea","cents":500}
      -> counts [1970-01-01T10:00:20 tea] {"count":1}
    10:00:10 order.ordered {"product":"tea","cents":2}
      -> counts [1970-01-01T10:00:20 tea] removed
      -> counts [1970-01-01T10:00:10 tea] {"count":2}
    the end: time has come so far
    "#);
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "best", key = Window)]
struct Best {
    products: Vec<(String, u64)>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "by-product", key = (String, Window))]
struct ByProduct {
    count: u64,
}

impl Fold<Sale> for ByProduct {
    fn add(&mut self, _: &Sale) {
        self.count += 1;
    }

    fn merge(&mut self, other: ByProduct) {
        self.count += other.count;
    }
}

/// The best products of each minute, in the minutes that the payload names.
fn best(with_ties: bool) -> Pipeline {
    Pipeline::new("best", 1, move |log| {
        let events = log.events::<ShopEvent>().timed_by(|event| match &**event {
            // The minute of an order is in its cents.
            ShopEvent::Ordered { cents, .. } => Time::from_micros(cents * 60_000_000),
            ShopEvent::Shipped { .. } => Time::from_micros(0),
        });
        let sold = events.filter_map(|event| match &**event {
            ShopEvent::Ordered { product, .. } => Some(product.clone()),
            ShopEvent::Shipped { .. } => None,
        });
        let sold = sold.key_by(|product| product.clone());
        let counts = sold.tumbling(Duration::from_mins(1)).count();
        let best = match with_ties {
            true => counts.top_with_ties(1, |count| *count),
            false => counts.top(1, |count| *count),
        };
        best.into_view_as::<Best>(|(), _, products| Best {
            products: products.clone(),
        });
    })
}

#[test]
fn the_best_are_one_or_all_that_are_level() {
    for (with_ties, best_of_first) in [
        (false, r#"{"products":[["rum",2]]}"#),
        (true, r#"{"products":[["rum",2],["tea",2]]}"#),
    ] {
        let mut trial = best(with_ties).trial();
        // When they were recorded says nothing here.
        for (at, product) in [(1, "tea"), (1, "rum"), (1, "salt"), (1, "rum"), (1, "tea")] {
            trial = trial.at("23:00", ordered(product, at)).unwrap();
        }
        let trial = trial.at("10:00", ordered("salt", 2)).unwrap();
        let story = trial.to_string();
        let first = format!("  -> best [1970-01-01T00:01:00] {best_of_first}\n");
        assert!(story.ends_with(&first), "{story}");
    }
}

#[test]
fn rows_are_keyed_by_window_or_by_key_first() {
    let both = Pipeline::new("both", 1, |log| {
        let sold = sold(log).key_by(|sale| sale.product.clone());
        let minutes = sold.tumbling(Duration::from_mins(1));
        minutes.folded::<ByProduct>().into_view_by_key();
        minutes.folded::<Counts>().into_view();
    });
    let trial = both.trial().at("10:00:00", ordered("tea", 1)).unwrap();
    let story = trial.end().unwrap().to_string();
    for row in [
        "  -> by-product [tea 1970-01-01T10:00:00] {\"count\":1}\n",
        "  -> counts [1970-01-01T10:00:00 tea] {\"count\":1}\n",
    ] {
        assert!(story.contains(row), "{story}");
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "items", key = String)]
struct Items(i128);

#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "rows", key = String)]
struct Rows(i128);

/// The guide says how a second sum is made of windows that are corrected.
#[test]
fn a_table_of_windows_takes_back_what_was_corrected() {
    let minute = Duration::from_mins(1);
    let corrected = Pipeline::new("corrected", 1, |log| {
        let sold = sold(log).key_by(|sale| sale.product.clone());
        let cents = sold.map(|_, sale| sale.cents);
        let minutes = cents
            .tumbling(minute)
            .allow_late(minute)
            .folded::<Sum>()
            .finals();
        let sums = minutes.scan(Duration::from_hours(24), |sum: &mut i128, of| {
            *sum += of.value.0;
            Some(*sum)
        });
        sums.into_view_with::<Items>(|product, sum| (product.clone(), Items(*sum)));
        let newest = minutes
            .map(|product, of| (product.clone(), of.clone()))
            .unkeyed()
            .key_by(|(product, of)| (of.window, product.clone()))
            .table(|(_, of)| Some(of.value.0 as i64));
        let sums = newest.group_by(|(_, product), _| product.clone());
        let sums = sums.folded::<Sum>().changes();
        sums.into_view_with::<Rows>(|product, change| {
            let sum = change.new.unwrap_or_default();
            (product.clone(), Rows(sum.0))
        });
    });
    let mut trial = corrected.trial();
    for (at, cents) in [
        ("10:00:00", 5),
        ("10:01:10", 7),
        ("10:00:50", 2),
        ("10:00:55", 3),
    ] {
        trial = trial.at(at, ordered("tea", cents)).unwrap();
    }
    let story = trial.end().unwrap().to_string();
    let last = |view: &str| {
        let mut rows = story.lines().filter(|line| line.contains(view));
        rows.next_back().map(|line| line.trim().to_owned())
    };
    assert_eq!(
        last("-> rows").as_deref(),
        Some("-> rows [tea] 17"),
        "{story}"
    );
    assert_eq!(
        last("-> items").as_deref(),
        Some("-> items [tea] 29"),
        "{story}"
    );
}

#[test]
fn windows_beyond_all_dates_have_rows_of_their_own() {
    let micros = [
        i64::MIN + 70,
        i64::MIN + 7_000_000,
        0,
        i64::MAX - 8_000_000,
        i64::MAX - 70,
    ];
    let far = Pipeline::new("far", 1, |log| {
        let sold = log.events::<ShopEvent>().timed_by(|event| match &**event {
            ShopEvent::Ordered { cents, .. } => Time::from_micros(*cents),
            ShopEvent::Shipped { .. } => Time::MIN,
        });
        let keyed = sold.key_by(|_| "all".to_owned());
        let second = keyed.tumbling(Duration::from_secs(1)).count();
        second.into_view_as::<Far>(|_, window, _| Far(window.start.micros()));
    });
    let mut trial = far.trial();
    for micros in micros {
        trial = trial.at("10:00:00", ordered("tea", micros)).unwrap();
    }
    let story = trial.end().unwrap().to_string();
    let rows = story.lines().filter_map(|line| line.split_once("-> far ["));
    let rows: Vec<_> = rows.filter_map(|(_, row)| row.split_once(' ')).collect();
    let keys: BTreeSet<_> = rows.iter().map(|(window, _)| *window).collect();
    assert_eq!((rows.len(), keys.len()), (5, 5), "{story}");
    assert!(rows.is_sorted_by_key(|(window, _)| *window), "{story}");
    for (window, row) in rows {
        let start = Window::from_key(window).unwrap().start.micros();
        assert!(row.ends_with(&format!("] {start}")), "{window} {row}");
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "far", key = (Window, String))]
struct Far(i64);
