//! Programs of lessons on stream processing, computed with the operators.
//!
//! Each is computed from its events as they come; where arrival is of no account also shuffled
//! within 20 seconds, with each tenth event delivered twice. Another folder of the same form is
//! read from `ANNALS_LESSONS`.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop there"
)]

mod support;

use annals_streams::{
    Aligned, AlignedWindows, AsSoonAs, Count, Distinct, DistinctBy, Emission, Fold, InTimeOrder,
    Input, Operator, OutOfOrder, Output, Place, Scan, Sessions, Span, Strategy, Sum, Time,
    TopOfWindow, WindowOptions,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

fn text(file: &str) -> String {
    let copies = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/lessons");
    let folder = std::env::var_os("ANNALS_LESSONS").map_or(copies.into(), PathBuf::from);
    std::fs::read_to_string(folder.join(file)).unwrap()
}

fn lesson(file: &str) -> Value {
    serde_json::from_str(&text(file)).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn number(value: &Value) -> i64 {
    value.as_i64().expect("an integer")
}

fn name(value: &Value) -> String {
    value.as_str().expect("a text").to_string()
}

fn micros(micros: i64) -> Span {
    Span::from_micros(micros)
}

/// Rows of a file with a head, as lists of fields.
fn csv(file: &str) -> Vec<Vec<String>> {
    let text = text(file);
    let lines = text.lines().skip(1).filter(|line| !line.is_empty());
    lines
        .map(|line| line.split(',').map(str::to_string).collect())
        .collect()
}

/// What an operator makes of events in the order in which they come.
struct Fed<O: Operator> {
    operator: O,
    clock: OutOfOrder,
    out: Output<O::Out, O::Late>,
    position: u64,
}

impl<O: Operator> Fed<O> {
    fn new(operator: O, out_of_order_by: i64) -> Self {
        let clock = OutOfOrder::by(micros(out_of_order_by));
        Self {
            operator,
            clock,
            out: Output::new(),
            position: 0,
        }
    }

    fn put(&mut self, time: i64, item: O::In) {
        self.clock.observe(Time::from_micros(time), Time::MAX);
        self.position += 1;
        let input = Input {
            watermark: self.clock.watermark(),
            time: Time::from_micros(time),
            place: Place::at(self.position),
            item: &item,
        };
        self.operator.process(input, &mut self.out);
    }

    fn end(mut self) -> Output<O::Out, O::Late> {
        self.operator.advance(Time::MAX, &mut self.out);
        self.out
    }
}

/// Events that come up to so much later than they happened, each tenth of them twice.
fn shuffled<T: Clone>(events: &[(i64, T)], by: i64, seed: u64) -> Vec<(i64, T)> {
    let mut random = seed;
    let mut next = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as i64
    };
    let mut arriving = Vec::new();
    for (number, (time, event)) in events.iter().enumerate() {
        arriving.push((time + next() % by, number, *time, event.clone()));
        if number % 10 == 0 {
            arriving.push((time + next() % by, number, *time, event.clone()));
        }
    }
    arriving.sort_by_key(|(arrives, number, _, _)| (*arrives, *number));
    arriving
        .into_iter()
        .map(|(_, _, time, event)| (time, event))
        .collect()
}

/// Lets each event pass once, by its id.
fn once<T: annals_streams::Kept>(
    events: &[(i64, T)],
    out_of_order_by: i64,
    id: impl Fn(&T) -> String + Send + Sync + 'static,
) -> Vec<(i64, T)> {
    let mut distinct = Fed::new(DistinctBy::new(micros(HOUR), id), out_of_order_by);
    for (time, event) in events {
        distinct.put(*time, ((), event.clone()));
    }
    let rows = distinct.end().rows.into_iter();
    rows.map(|row| (row.time.micros(), row.item.1)).collect()
}

type Totals = (Count, Cents);

/// A sum over the second of a pair.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Cents(i64);

impl<T> Fold<(T, i64)> for Cents {
    fn add(&mut self, item: &(T, i64)) {
        self.0 += item.1;
    }

    fn merge(&mut self, other: Self) {
        self.0 += other.0;
    }
}

fn totals_row(emission: &Emission<(), Totals>) -> Value {
    let (count, cents) = emission.value.clone().unwrap_or_default();
    json!([
        emission.window.start.micros(),
        emission.window.end.micros(),
        count.0,
        cents.0
    ])
}

#[test]
fn revenue_comes_out_as_the_lesson_says() {
    let lesson = lesson("revenue.json");
    let purchases = list(&lesson["events"])
        .iter()
        .filter(|event| event[3] == "purchase");
    let events: Vec<_> = purchases
        .map(|event| {
            (
                number(&event[5]),
                (number(&event[0]), name(&event[2]), number(&event[4])),
            )
        })
        .collect();
    let shuffled = once(&shuffled(&events, 20 * SECOND, 1), 20 * SECOND, |event| {
        event.0.to_string()
    });
    for events in [events, shuffled] {
        let scan = Scan::new(
            Span::MAX,
            |sum: &mut i64, (_, _, cents): &(i64, String, i64)| {
                *sum += cents;
                Some(*sum)
            },
        );
        let mut revenue = Fed::new(scan, 20 * SECOND);
        for (time, event) in &events {
            revenue.put(*time, (event.1.clone(), event.clone()));
        }
        let mut per_product: BTreeMap<String, i64> = BTreeMap::new();
        per_product.extend(revenue.end().take());
        let cents: i64 = per_product.values().sum();
        assert_eq!(json!(events.len()), lesson["purchases"]);
        assert_eq!(json!(cents), lesson["cents"]);
        assert_eq!(json!(per_product), lesson["per_product"]);
    }
}

#[test]
fn windows_come_out_as_the_lesson_says() {
    let lesson = lesson("windows.json");
    let events: Vec<_> = list(&lesson["events"])
        .iter()
        .map(|event| {
            (
                number(&event["at"]),
                (name(&event["user"]), number(&event["cents"])),
            )
        })
        .collect();
    let newest = events.iter().map(|(time, _)| *time).max().unwrap();
    let with_ids: Vec<_> = events
        .iter()
        .enumerate()
        .map(|(id, event)| (event.0, (id, event.1.clone())))
        .collect();
    let again = once(&shuffled(&with_ids, 20 * SECOND, 2), 20 * SECOND, |event| {
        event.0.to_string()
    });
    let again = again
        .into_iter()
        .map(|(time, (_, event))| (time, event))
        .collect();
    for (events, delay) in [(events, 0), (again, 20 * SECOND)] {
        for (rows, size, slide) in [
            (&lesson["tumbling_60s"]["rows"], MINUTE, MINUTE),
            (&lesson["hopping_120s_30s"]["rows"], 2 * MINUTE, MINUTE / 2),
        ] {
            let aligned = Aligned::hopping(micros(size), micros(slide)).unwrap();
            let windows = AlignedWindows::<(), (String, i64), Totals>::new(
                aligned,
                WindowOptions::on_close(),
            );
            let mut fed = Fed::new(windows, delay);
            for (time, event) in &events {
                fed.put(*time, ((), event.clone()));
            }
            let first = number(&rows[0][0]);
            // The lesson's tumbling windows are those that the newest event has passed.
            let whole = size == slide;
            let rows_seen: Value = fed
                .end()
                .rows
                .iter()
                .filter(|row| row.item.window.start.micros() >= first)
                .filter(|row| !whole || row.item.window.end.micros() <= newest)
                .map(|row| totals_row(&row.item))
                .collect();
            assert_eq!(&rows_seen, rows);
        }
        let gap = micros(30 * SECOND);
        let sessions =
            Sessions::<String, (String, i64), Totals>::new(gap, WindowOptions::on_close());
        let mut fed = Fed::new(sessions, delay);
        for (time, event) in &events {
            fed.put(*time, (event.0.clone(), event.clone()));
        }
        let mut rows: Vec<_> = fed.end().take();
        rows.sort_by(|one, other| (&one.key, one.window).cmp(&(&other.key, other.window)));
        let rows: Value = rows
            .into_iter()
            .map(|row| {
                let (count, cents) = row.value.unwrap_or_default();
                let window = row.window;
                json!([
                    row.key,
                    window.start.micros(),
                    window.end.micros(),
                    count.0,
                    cents.0
                ])
            })
            .collect();
        assert_eq!(rows, lesson["session_30s"]["rows"]);
    }
}

#[test]
fn late_events_are_refused_as_the_lesson_says() {
    let lesson = lesson("late.json");
    for (tolerance, field) in [
        (0, "out_of_order_by_0s"),
        (3 * SECOND, "out_of_order_by_3s"),
    ] {
        let want = &lesson[field];
        let aligned = Aligned::tumbling(micros(10 * SECOND)).unwrap();
        let windows =
            AlignedWindows::<(), (usize, i64), Totals>::new(aligned, WindowOptions::on_close());
        let mut fed = Fed::new(windows, tolerance);
        for (index, event) in list(&lesson["events"]).iter().enumerate() {
            fed.put(number(&event["at"]), ((), (index, number(&event["cents"]))));
        }
        let late: Value = fed
            .out
            .late
            .iter()
            .map(|row| json!(row.item.item.0))
            .collect();
        assert_eq!(late, want["dropped_index"]);
        assert_eq!(json!(fed.out.late.len()), want["dropped"]);
        let closed: Value = fed
            .out
            .rows
            .iter()
            .map(|row| totals_row(&row.item))
            .collect();
        assert_eq!(closed, want["closed"]);
    }
}

#[test]
fn the_leaderboard_comes_out_as_the_lesson_says() {
    let events: Vec<_> = csv("leaderboard-events.csv")
        .into_iter()
        .map(|row| {
            (
                row[0].parse().unwrap(),
                (row[1].clone(), row[2].parse::<i64>().unwrap()),
            )
        })
        .collect();
    let lesson = lesson("leaderboard.json");
    let mut in_time = events.clone();
    in_time.sort_by_key(|(time, _)| *time);
    let with_ids: Vec<_> = in_time
        .into_iter()
        .enumerate()
        .map(|(id, event)| (event.0, (id, event.1)))
        .collect();
    let again = once(&shuffled(&with_ids, 20 * SECOND, 3), 20 * SECOND, |event| {
        event.0.to_string()
    });
    let again = again
        .into_iter()
        .map(|(time, (_, event))| (time, event))
        .collect();
    for events in [events, again] {
        let hours = Aligned::tumbling(micros(HOUR)).unwrap();
        for options in [WindowOptions::on_close(), WindowOptions::on_update()] {
            let windows = AlignedWindows::<String, (String, i64), Cents>::new(hours, options);
            let mut fed = Fed::new(windows, 20 * SECOND);
            for (time, event) in &events {
                fed.put(*time, (event.0.clone(), event.clone()));
            }
            let out = fed.end();
            assert_eq!(out.late.len(), 0);
            let mut top = TopOfWindow::new(10, Span::ZERO);
            let mut best = Output::new();
            for row in out.rows {
                let scores = Emission {
                    key: row.item.key,
                    window: row.item.window,
                    kind: row.item.kind,
                    value: row.item.value.map(|cents| cents.0),
                    max_time: row.item.max_time,
                };
                let watermark = Time::MIN;
                let place = Place::default();
                top.process(
                    Input {
                        watermark,
                        time: row.time,
                        place,
                        item: &scores,
                    },
                    &mut best,
                );
            }
            top.flush(&mut best);
            let hours: Value = best
                .rows
                .iter()
                .map(
                    |row| json!({ "start": row.item.window.start.micros(), "top": row.item.value }),
                )
                .collect();
            assert_eq!(hours, lesson["hours"]);
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Payment {
    id: String,
    user: String,
    cents: i64,
    country: String,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Countries(Distinct<String>);

impl Fold<Payment> for Countries {
    fn add(&mut self, payment: &Payment) {
        self.0.add(&payment.country);
    }

    fn merge(&mut self, other: Self) {
        self.0.merge(other.0);
    }
}

#[test]
fn five_transactions_give_the_alerts_of_the_lesson() {
    let lesson = lesson("five-transactions.json");
    let events: Vec<_> = list(&lesson["transactions"])
        .iter()
        .map(|row| {
            let payment = Payment {
                id: name(&row[0]),
                user: name(&row[1]),
                cents: number(&row[2]),
                country: name(&row[3]),
            };
            (number(&row[4]), payment)
        })
        .collect();
    let again = once(&shuffled(&events, 20 * SECOND, 4), 20 * SECOND, |payment| {
        payment.id.clone()
    });
    let mut want: Vec<String> = list(&lesson["alerts"])
        .iter()
        .map(Value::to_string)
        .collect();
    want.sort();
    for events in [events, again] {
        let mut alerts: Vec<Value> = Vec::new();
        for (_, payment) in events.iter().filter(|(_, payment)| payment.cents > 100_000) {
            let found = json!({ "transaction": payment.id, "cents": payment.cents });
            alerts.push(json!(["HIGH_VALUE", payment.user, found]));
        }
        let five = Aligned::tumbling(micros(5 * MINUTE)).unwrap();
        let windows =
            AlignedWindows::<String, Payment, Count>::new(five, WindowOptions::on_update());
        let mut velocity = Fed::new(windows, 20 * SECOND);
        let gap = micros(HOUR);
        let sessions = Sessions::<String, Payment, Countries>::new(gap, WindowOptions::on_update());
        let mut countries = Fed::new(sessions, 20 * SECOND);
        for (time, payment) in &events {
            velocity.put(*time, (payment.user.clone(), payment.clone()));
            countries.put(*time, (payment.user.clone(), payment.clone()));
        }
        let many = AsSoonAs::new(Span::ZERO, |count: &Count| count.0 > 3);
        for found in first(many, velocity.end()) {
            let start = found.window.start.micros();
            let count = found.value.unwrap_or_default();
            let found_in = json!({ "count": count, "window_start": start });
            alerts.push(json!(["HIGH_VELOCITY", found.key, found_in]));
        }
        let several = AsSoonAs::new(Span::ZERO, |countries: &Countries| countries.0.0.len() > 1);
        for found in first(several, countries.end()) {
            let countries = json!({ "countries": found.value });
            alerts.push(json!(["MULTIPLE_COUNTRIES", found.key, countries]));
        }
        let mut alerts: Vec<String> = alerts.iter().map(Value::to_string).collect();
        alerts.sort();
        assert_eq!(alerts, want);
    }
}

fn first<A: Clone, L>(
    mut soon: AsSoonAs<String, A>,
    windows: Output<Emission<String, A>, L>,
) -> Vec<Emission<String, A>> {
    let mut out = Output::new();
    for row in &windows.rows {
        let place = Place::default();
        let input = Input {
            watermark: Time::MIN,
            time: row.time,
            place,
            item: &row.item,
        };
        soon.process(input, &mut out);
    }
    out.take()
}

/// What the rules look at: the payments of the last 300 seconds, and all before.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Recent {
    payments: Vec<(i64, i64)>,
    count: i128,
    all: Sum,
}

type Transaction = (i64, String, i64);

fn judge(recent: &mut Recent, (at, id, cents): &Transaction) -> Option<[String; 4]> {
    recent
        .payments
        .retain(|(time, _)| *time >= at - 300 * SECOND);
    recent.payments.push((*at, *cents));
    recent.count += 1;
    recent.all.add(cents);
    let count = recent.payments.len();
    let total: i64 = recent.payments.iter().map(|(_, cents)| cents).sum();
    let mut rules = Vec::new();
    if count > 5 {
        rules.push("velocity");
    }
    if total > 100_000 {
        rules.push("total");
    }
    if recent.count >= 5 && i128::from(*cents) * recent.count > 3 * recent.all.0 {
        rules.push("spike");
    }
    let alert = || {
        [
            id.clone(),
            count.to_string(),
            total.to_string(),
            rules.join("+"),
        ]
    };
    (!rules.is_empty()).then(alert)
}

#[test]
fn ten_thousand_transactions_give_the_alerts_of_the_lesson() {
    let events: Vec<_> = csv("fraud-transactions.csv")
        .into_iter()
        .map(|row| {
            let at = row[2].parse().unwrap();
            (
                at,
                (
                    row[0].clone(),
                    row[1].clone(),
                    row[3].parse::<i64>().unwrap(),
                ),
            )
        })
        .collect();
    let want: BTreeSet<Vec<String>> = csv("fraud-alerts.csv").into_iter().collect();
    assert!(!want.is_empty());
    let again = once(&shuffled(&events, 20 * SECOND, 5), 20 * SECOND, |event| {
        event.0.clone()
    });
    for events in [events, again] {
        let mut sorted = Fed::new(InTimeOrder::new(), 20 * SECOND);
        for (time, (id, user, cents)) in &events {
            sorted.put(*time, (user.clone(), (*time, id.clone(), *cents)));
        }
        let mut rules = Fed::new(Scan::new(Span::MAX, judge), 0);
        for row in sorted.end().rows {
            rules.put(row.time.micros(), row.item);
        }
        let alerts = rules.end().take();
        let count = alerts.len();
        let alerts: BTreeSet<Vec<String>> = alerts
            .into_iter()
            .map(|(user, [id, count, total, rules])| vec![id, user, count, total, rules])
            .collect();
        assert_eq!(count, want.len());
        assert_eq!(alerts, want);
    }
}
