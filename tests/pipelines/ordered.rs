//! Stages that remember: duplicates, order, state machines, patterns. And the time of what flows
//! from one such stage into another.

use std::time::Duration;

use annals::pipeline::{Keyed, Log, Pattern, Pipeline, Sum, Window};
use annals::prelude::*;

use crate::shop::{Sale, ordered, sold};

const MINUTE: Duration = Duration::from_secs(60);

fn cents(log: &Log) -> Keyed<String, i64> {
    let sold = sold(log).key_by(|sale: &Sale| sale.product.clone());
    sold.map(|_, sale| sale.cents)
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "said", key = String)]
struct Said {
    cents: Vec<i64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "totals", key = (Window, String))]
struct Totals {
    cents: i64,
}

fn into_said(items: &Keyed<String, Vec<i64>>) {
    items.into_view_with::<Said>(|product, cents| {
        let cents = cents.clone();
        (product.clone(), Said { cents })
    });
}

/// The cents of `tea` at these times of ten o'clock.
fn story(pipeline: &Pipeline, events: &[(&str, i64)]) -> String {
    let mut trial = pipeline.trial();
    for (at, cents) in events {
        let at = format!("10:{at}");
        trial = trial.at(&at, ordered("tea", *cents)).unwrap();
    }
    let trial = trial.end().unwrap().to_string();
    let lines = trial.lines().filter(|line| line.contains("->"));
    lines.map(|line| format!("{}\n", line.trim())).collect()
}

#[test]
fn a_duplicate_goes_on_once_while_it_is_remembered() {
    let once = Pipeline::new("once", 1, |log| {
        let once = cents(log).distinct_by(|cents| *cents, MINUTE);
        into_said(&once.map(|_, cents| vec![*cents]));
    });
    let events = [
        ("00:00", 1),
        ("00:10", 2),
        ("00:20", 1),
        // The watermark lags by three seconds.
        ("01:02.999999", 1),
        ("01:03.000001", 1),
    ];
    insta::assert_snapshot!(story(&once, &events), @r#"
    -> said [tea] {"cents":[1]}
    -> said [tea] {"cents":[2]}
    -> said [tea] {"cents":[1]}
    "#);
}

#[test]
fn a_scan_sees_what_came_before() {
    let rising = Pipeline::new("rising", 1, |log| {
        let sorted = cents(log).in_time_order();
        let pairs = sorted.scan(MINUTE, |before: &mut Option<i64>, cents| {
            let pair = before.map(|before| vec![before, *cents]);
            *before = Some(*cents);
            pair
        });
        into_said(&pairs);
    });
    // The third one comes late, and within the bound; the last finds nothing that is remembered.
    let events = [("00:01", 1), ("00:04", 3), ("00:02", 2), ("09:00", 9)];
    insta::assert_snapshot!(story(&rising, &events), @r#"
    -> said [tea] {"cents":[1,2]}
    -> said [tea] {"cents":[2,3]}
    "#);
}

#[test]
fn a_pattern_is_found_in_the_order_of_time() {
    let found = Pipeline::new("found", 1, |log| {
        let pattern = Pattern::times(2, |cents: &i64| *cents > 5)
            .then(|before, cents| *cents > before[0] + before[1])
            .within(MINUTE);
        let found = cents(log).detect(pattern);
        into_said(&found.map(|_, found| found.to_vec()));
    });
    // The last one comes a whole minute after the second.
    let events = [("00:01", 6), ("00:03", 20), ("00:02", 7), ("01:02", 99)];
    insta::assert_snapshot!(story(&found, &events), @r#"-> said [tea] {"cents":[6,7,20]}"#);
}

#[test]
fn an_absence_comes_when_its_time_is_over() {
    let quiet = Pipeline::new("quiet", 1, |log| {
        let quiet = Pattern::first(|cents: &i64| *cents == 1)
            .never(|_, cents| *cents == 2)
            .within(MINUTE);
        let quiet = cents(log).detect(quiet).map(|_, found| found[0]);
        let quiet = quiet.tumbling(MINUTE).folded::<Sum>();
        quiet.into_view_as::<Totals>(|_, _, sum| Totals {
            cents: sum.0 as i64,
        });
    });
    // The second one is answered in time; the first ends in the minute after it began.
    let events = [("00:30", 1), ("02:00", 1), ("02:30", 2), ("09:00", 9)];
    let told = story(&quiet, &events);
    insta::assert_snapshot!(told, @r#"-> totals [1970-01-01T10:01:00 tea] {"cents":1}"#);
}

#[test]
fn what_is_late_for_an_order_or_pattern_is_beside() {
    let late = Pipeline::new("late", 1, |log| {
        let cents = cents(log);
        let late = cents.in_time_order().late();
        into_said(&late.map(|_, cents| vec![*cents]));
        let late = cents.detect(Pattern::first(|_: &i64| true)).late();
        let sums = late.tumbling(MINUTE).folded::<Sum>().on_update();
        sums.into_view_as::<Totals>(|_, _, sum| Totals {
            cents: sum.0 as i64,
        });
    });
    // Three seconds are allowed, and no microsecond more.
    let events = [("00:10", 1), ("00:07", 2), ("00:06.999999", 3)];
    let told = story(&late, &events);
    let mut lines: Vec<_> = told.lines().collect();
    lines.sort_unstable();
    let said = r#"-> said [tea] {"cents":[3]}"#;
    let total = r#"-> totals [1970-01-01T10:00:00 tea] {"cents":3}"#;
    assert_eq!(lines, [said, total]);
}

#[test]
fn a_pattern_without_an_end_is_refused() {
    let endless = Pipeline::new("endless", 1, |log| {
        let endless = Pattern::first(|_: &i64| true).never(|_, _| true);
        into_said(&cents(log).detect(endless).map(|_, found| found.to_vec()));
    });
    let error = endless.trial().end().unwrap_err();
    assert!(error.to_string().contains("needs `within`"), "{error}");
}
