//! Joins of streams and tables, as stories; and what flows from one stage into another.

use std::time::Duration;

use annals::pipeline::{Fold, Keyed, Log, Pipeline, Side, Sum, Table, TakeBack, Window, Within};
use annals::prelude::*;
use annals_core::conformance::Dice;

use crate::shop::{Sale, ordered, sold};

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(category = "catalogue")]
enum CatalogueEvent {
    Listed { product: String, cost: i64 },
    Gone { product: String },
}

fn listed(cost: i64) -> CatalogueEvent {
    let product = "tea".into();
    CatalogueEvent::Listed { product, cost }
}

fn gone() -> CatalogueEvent {
    let product = "tea".into();
    CatalogueEvent::Gone { product }
}

fn sales(log: &Log) -> Keyed<String, i64> {
    let sold = sold(log).key_by(|sale: &Sale| sale.product.clone());
    sold.map(|_, sale| sale.cents)
}

fn costs(log: &Log) -> Keyed<String, Option<i64>> {
    let events = log.events::<CatalogueEvent>();
    let events = events.out_of_order_by(Duration::from_secs(3));
    let costs = events.map(|event| match &**event {
        CatalogueEvent::Listed { product, cost } => (product.clone(), Some(*cost)),
        CatalogueEvent::Gone { product } => (product.clone(), None),
    });
    costs
        .key_by(|(product, _)| product.clone())
        .map(|_, (_, cost)| *cost)
}

fn table(log: &Log) -> Table<String, i64> {
    costs(log).table(|cost| *cost)
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "margins", key = String)]
struct Margin {
    cents: i64,
    cost: Option<i64>,
}

fn margin(cents: &i64, cost: Option<&i64>) -> Margin {
    Margin {
        cents: *cents,
        cost: cost.copied(),
    }
}

enum Told {
    Sold(i64),
    Catalogue(CatalogueEvent),
}

use Told::{Catalogue, Sold};

/// What comes out, line by line.
fn story(pipeline: &Pipeline, events: Vec<(&str, Told)>) -> String {
    let mut trial = pipeline.trial();
    for (at, told) in events {
        let at = format!("10:{at}");
        trial = match told {
            Sold(cents) => trial.at(&at, ordered("tea", cents)).unwrap(),
            Catalogue(event) => trial.at(&at, event).unwrap(),
        };
    }
    let trial = trial.end().unwrap().to_string();
    let lines = trial.lines().filter(|line| line.contains("->"));
    lines.map(|line| format!("{}\n", line.trim())).collect()
}

#[test]
fn a_late_right_side_within_bounds_is_found() {
    let near = Pipeline::new("near", 1, |log| {
        let costs = costs(log).filter_map(|_, cost| *cost);
        let around = Within::around(MINUTE);
        sales(log).left_join(&costs, around, margin).into_view();
    });
    let events = vec![
        ("00:00", Sold(1)),
        ("01:00", Catalogue(listed(70))),
        // A microsecond too late for the first one.
        ("01:00.000001", Catalogue(listed(80))),
        ("05:00", Sold(2)),
    ];
    insta::assert_snapshot!(story(&near, events), @r#"
    -> margins [tea] {"cents":1,"cost":70}
    -> margins [tea] {"cents":2,"cost":null}
    "#);
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "late", key = String)]
struct CameLate {
    side: String,
    cents: i64,
}

impl CameLate {
    fn of(side: &str, product: &str, cents: i64) -> (String, CameLate) {
        let side = side.to_owned();
        (product.to_owned(), CameLate { side, cents })
    }
}

#[test]
fn what_is_late_for_a_join_is_beside() {
    let near = Pipeline::new("near", 1, |log| {
        let costs = costs(log).filter_map(|_, cost| *cost);
        let around = Within::around(MINUTE);
        let near = sales(log).join(&costs, around, |cents, cost| margin(cents, Some(cost)));
        near.into_view();
        near.late()
            .into_view_with::<CameLate>(|product, late| match late {
                Side::Left(cents) => CameLate::of("left", product, *cents),
                Side::Right(cost) => CameLate::of("right", product, *cost),
            });
    });
    let events = vec![
        ("00:00", Sold(1)),
        ("05:00", Sold(2)),
        // A minute and more before the watermark, and alone.
        ("03:00", Catalogue(listed(70))),
        ("03:30", Sold(3)),
        // Before the watermark as well, and it meets what waits there.
        ("04:30", Catalogue(listed(80))),
    ];
    insta::assert_snapshot!(story(&near, events), @r#"
    -> late [tea] {"side":"right","cents":70}
    -> late [tea] {"side":"left","cents":3}
    -> margins [tea] {"cents":2,"cost":80}
    "#);
    let then = Pipeline::new("then", 1, |log| {
        let late = sales(log).look_up(&table(log), margin).late();
        late.into_view_with::<CameLate>(|product, cents| CameLate::of("left", product, *cents));
    });
    let events = vec![("00:10", Sold(1)), ("00:07", Sold(2)), ("00:06", Sold(3))];
    insta::assert_snapshot!(story(&then, events), @r#"-> late [tea] {"side":"left","cents":3}"#);
}

#[test]
fn a_sale_meets_the_cost_of_its_own_time() {
    let then = Pipeline::new("then", 1, |log| {
        sales(log).look_up(&table(log), margin).into_view();
    });
    let events = vec![
        ("00:00", Catalogue(listed(70))),
        ("00:10", Sold(1)),
        // Said after the sale, and true before it.
        ("00:08", Catalogue(listed(75))),
        ("00:20", Catalogue(gone())),
        ("00:19", Sold(2)),
        ("00:21", Sold(3)),
        // Late: the watermark is further.
        ("00:05", Sold(4)),
    ];
    insta::assert_snapshot!(story(&then, events), @r#"
    -> margins [tea] {"cents":1,"cost":75}
    -> margins [tea] {"cents":2,"cost":75}
    -> margins [tea] {"cents":3,"cost":null}
    "#);
}

#[test]
fn the_latest_row_is_that_with_the_largest_time() {
    let latest = Pipeline::new("latest", 1, |log| {
        let table = table(log);
        sales(log).look_up_latest(&table, margin).into_view();
    });
    let events = vec![
        ("00:00", Catalogue(listed(70))),
        ("00:10", Sold(1)),
        ("00:20", Catalogue(listed(75))),
        // An older one says nothing any more.
        ("00:15", Catalogue(listed(60))),
        ("00:05", Sold(2)),
    ];
    insta::assert_snapshot!(story(&latest, events), @r#"
    -> margins [tea] {"cents":1,"cost":70}
    -> margins [tea] {"cents":2,"cost":75}
    "#);
}

#[test]
fn a_table_writes_and_removes_its_rows() {
    let rows = Pipeline::new("rows", 1, |log| {
        let last = sales(log).table(|cents| Some(*cents));
        let both =
            table(log).left_join(&last, |cost, cents| margin(cents.unwrap_or(&0), Some(cost)));
        both.filter(|margin| margin.cents < 9).into_view();
    });
    let events = vec![
        ("00:00", Sold(1)),
        ("00:01", Catalogue(listed(70))),
        ("00:02", Sold(9)),
        ("00:03", Sold(2)),
        ("00:04", Catalogue(gone())),
        ("00:05", Sold(3)),
    ];
    insta::assert_snapshot!(story(&rows, events), @r#"
    -> margins [tea] {"cents":1,"cost":70}
    -> margins [tea] removed
    -> margins [tea] {"cents":2,"cost":70}
    -> margins [tea] removed
    "#);
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "totals", key = (Window, String))]
struct Total {
    cents: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Costs(i64);

impl Fold<i64> for Costs {
    fn add(&mut self, cost: &i64) {
        self.0 += cost;
    }

    fn merge(&mut self, other: Costs) {
        self.0 += other.0;
    }
}

impl TakeBack<i64> for Costs {
    fn take_back(&mut self, cost: &i64) {
        self.0 -= cost;
    }
}

#[test]
fn a_group_takes_back_what_its_rows_were() {
    #[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
    #[view(name = "by-price", key = bool)]
    struct ByPrice {
        cost: i64,
    }
    let grouped = Pipeline::new("grouped", 1, |log| {
        let dear = table(log).group_by(|_, cost| *cost > 50);
        let costs = dear.folded::<Costs>();
        costs.into_view_as::<ByPrice>(|_, costs| ByPrice { cost: costs.0 });
    });
    let events = vec![
        ("00:00", Catalogue(listed(70))),
        ("00:01", Catalogue(listed(60))),
        ("00:02", Catalogue(listed(40))),
        ("00:03", Catalogue(gone())),
    ];
    insta::assert_snapshot!(story(&grouped, events), @r#"
    -> by-price [true] {"cost":70}
    -> by-price [true] {"cost":60}
    -> by-price [true] {"cost":0}
    -> by-price [false] {"cost":40}
    -> by-price [false] {"cost":0}
    "#);
}

#[test]
fn windows_of_a_join_wait_for_its_rows() {
    // The sale that stays alone comes out when no cost can come any more, at 10:01:05: the window
    // of its minute has to be open then.
    let totals = Pipeline::new("totals", 1, |log| {
        let costs = costs(log).filter_map(|_, cost| *cost);
        let after = Within::after(MINUTE);
        let joined = sales(log).left_join(&costs, after, |cents, cost| cents - cost.unwrap_or(&0));
        let sums = joined.tumbling(MINUTE).folded::<Sum>();
        sums.into_view_as::<Total>(|_, _, sum| Total {
            cents: sum.0 as i64,
        });
    });
    let events = vec![
        ("00:05", Sold(100)),
        ("00:55", Sold(5)),
        ("01:06", Catalogue(listed(30))),
        ("09:00", Sold(7)),
    ];
    insta::assert_snapshot!(story(&totals, events), @r#"
    -> totals [1970-01-01T10:00:00 tea] {"cents":100}
    -> totals [1970-01-01T10:01:00 tea] {"cents":-25}
    -> totals [1970-01-01T10:09:00 tea] {"cents":7}
    "#);
}

#[test]
fn a_join_of_other_windows_is_refused() {
    let other = Pipeline::new("other", 1, |log| {
        let sales = sales(log);
        let pairs = sales
            .tumbling(MINUTE)
            .join(&sales.sessions(MINUTE), |a, b| a + b);
        pairs.into_view_with::<Total>(|product, pair| {
            let cents = pair.value;
            ((pair.window, product.clone()), Total { cents })
        });
    });
    let error = other.trial().end().unwrap_err();
    assert!(error.to_string().contains("the same size"), "{error}");
    let empty = Pipeline::new("empty", 1, |log| {
        let within = Within::between(annals::streams::Span::from_micros(-10), Duration::ZERO);
        let sales = sales(log);
        sales
            .join(&sales, within, |a, _| margin(a, None))
            .into_view();
    });
    let error = empty.trial().end().unwrap_err();
    assert!(error.to_string().contains("contain nothing"), "{error}");
}

#[test]
fn deduplicated_totals_equal_the_truth() {
    let totals = |deduplicates: bool| {
        Pipeline::new("totals", 1, move |log| {
            let sales = sales(log);
            let sales = match deduplicates {
                true => sales.distinct_by(|cents| *cents, Duration::from_hours(1)),
                false => sales,
            };
            let sums = sales.tumbling(Duration::from_hours(1)).folded::<Sum>();
            sums.into_view_as::<Total>(|_, _, sum| Total {
                cents: sum.0 as i64,
            });
        })
    };
    let mut dice = Dice::new(18);
    let mut truth = 0;
    let mut duplicates = 0;
    let mut deliveries = Vec::new();
    for number in 0..1_000_i64 {
        // Every payment has its own sum of cents, which is its id.
        let cents = 10_000 + number * 7;
        truth += cents;
        deliveries.push((number, cents));
        if dice.roll(5) == 0 {
            duplicates += 1;
            deliveries.push((number + dice.roll(3) as i64, cents));
        }
    }
    assert!((150..250).contains(&duplicates), "{duplicates} of 1,000");
    deliveries.sort_by_key(|(at, _)| *at);
    for (deduplicates, is_true) in [(true, true), (false, false)] {
        let mut trial = totals(deduplicates).trial();
        for (at, cents) in &deliveries {
            let at = format!("10:{:02}:{:02}", at / 60, at % 60);
            trial = trial.at(&at, ordered("tea", *cents)).unwrap();
        }
        let told = trial.end().unwrap().to_string();
        let wanted = format!("{{\"cents\":{truth}}}");
        assert_eq!(told.contains(&wanted), is_true, "{wanted} in {told}");
    }
}

/// The catalogue as a view of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "catalogue", key = String, events(CatalogueEvent))]
struct Entry {
    cost: i64,
    listings: u64,
}

impl Project<CatalogueEvent> for Entry {
    fn keys(event: &Recorded<CatalogueEvent>) -> Result<Vec<String>, Poison> {
        match &**event {
            CatalogueEvent::Listed { product, .. } | CatalogueEvent::Gone { product } => {
                Ok(vec![product.clone()])
            }
        }
    }

    fn on(row: &mut Row<'_, Entry>, event: &Recorded<CatalogueEvent>) -> Result<(), Poison> {
        match &**event {
            CatalogueEvent::Listed { cost, .. } if *cost < 0 => {
                return Err(Poison::new("a negative cost"));
            }
            CatalogueEvent::Listed { cost, .. } => {
                row.cost = *cost;
                row.listings += 1;
            }
            CatalogueEvent::Gone { .. } => row.remove(),
        }
        Ok(())
    }
}

#[test]
fn a_view_is_a_table_by_its_own_fold() {
    let then = Pipeline::new("then", 1, |log| {
        let catalogue = log.table::<Entry>();
        let cost = |cents: &i64, entry: Option<&Entry>| {
            margin(
                cents,
                entry
                    .map(|entry| entry.cost + entry.listings as i64)
                    .as_ref(),
            )
        };
        sales(log).look_up(&catalogue, cost).into_view();
    });
    let events = vec![
        ("00:00", Catalogue(listed(70))),
        ("00:05", Catalogue(listed(80))),
        ("00:07", Catalogue(listed(-1))),
        ("00:10", Sold(1)),
        ("00:20", Catalogue(gone())),
        ("00:30", Sold(2)),
    ];
    insta::assert_snapshot!(story(&then, events), @r#"
    -> $dead [0000000000/00000000000000000003/00001/tea] {"partition":0,"position":3,"id":"b91248a4-2e98-8433-926b-cc99ab5f5bd9","event_type":"catalogue.listed","cause":"`fold` failed over `tea`: a negative cost"}
    -> margins [tea] {"cents":1,"cost":82}
    -> margins [tea] {"cents":2,"cost":null}
    "#);
    let mine = Pipeline::new("mine", 1, |log| {
        sales(log)
            .look_up(&log.table::<Margin>(), |cents, _| margin(cents, None))
            .into_view();
    });
    let error = mine.trial().end().unwrap_err();
    assert!(
        error.to_string().contains("folded from no events"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_made_becomes_a_dead_letter() {
    let odd = Pipeline::new("odd", 1, |log| {
        let odd = sold(log).try_map(|sale| match sale.cents {
            cents if cents % 2 == 0 => Err(format!("{cents} is even")),
            cents => Ok((sale.product.clone(), cents)),
        });
        let odd = odd.key_by(|(product, _)| product.clone());
        let odd = odd.map(|_, (_, cents)| *cents);
        // Seven is the sale over which the row of the join panics.
        let pairs = odd.left_join(
            &odd,
            Within::after(Duration::from_secs(1)),
            |cents, other| {
                assert!(*cents != 7, "seven");
                margin(cents, other)
            },
        );
        pairs.into_view();
    });
    let events = vec![("00:00", Sold(1)), ("00:10", Sold(2)), ("00:20", Sold(7))];
    let told = story(&odd, events);
    assert!(told.contains("`try_map` failed: 2 is even"), "{told}");
    assert!(
        told.contains("`left_join` panicked over `tea`: seven"),
        "{told}"
    );
    assert_eq!(told.matches("-> margins").count(), 1, "{told}");
}

#[cfg(feature = "cdc")]
#[test]
fn a_captured_table_is_a_table() {
    use annals::cdc::{Before, CapturedTables as _, Change, TableRow};

    #[derive(Clone, Debug, TableRow)]
    #[table("public.limits")]
    struct Limit {
        #[key]
        product: String,
        cents: i64,
    }

    let limit = |cents| Limit {
        product: "tea".into(),
        cents,
    };
    let captured = Pipeline::new("captured", 1, |log| {
        let limits = log.table_of::<Limit>();
        let limits = limits.map(|_, limit| limit.row().map_or(0, |limit| limit.cents));
        sales(log).look_up(&limits, margin).into_view();
    });
    let trial = captured.trial().at("10:00:00", ordered("tea", 1)).unwrap();
    let after = limit(70);
    let trial = trial.at("10:00:05", Change::Inserted { after }).unwrap();
    let trial = trial.at("10:00:06", ordered("tea", 2)).unwrap();
    let changed = Change::Updated {
        before: Before::Row(limit(70)),
        after: limit(80),
    };
    let trial = trial.at("10:00:07", changed).unwrap();
    let trial = trial.at("10:00:08", ordered("tea", 3)).unwrap();
    let before = Before::Row(limit(80));
    let because = annals::cdc::Because::Deleted;
    let gone = Change::Deleted { before, because };
    let trial = trial.at("10:00:09", gone).unwrap();
    let trial = trial.at("10:00:10", ordered("tea", 4)).unwrap();
    let told = trial.end().unwrap().to_string();
    for (cents, cost) in [("1", "null"), ("2", "70"), ("3", "80"), ("4", "null")] {
        let row = format!("-> margins [tea] {{\"cents\":{cents},\"cost\":{cost}}}");
        assert!(told.contains(&row), "{row} of {told}");
    }
}
