//! Tables that are grouped by another key, their updates thinned out, and patterns.

use super::{
    Seen,
    clocks::{items, number, seen},
    support::Run,
};
use annals_streams::{
    AtMostEvery, Count, Detect, Fold, GroupBy, Newer, Pattern, Skip, Span, TakeBack,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Writes down what was added and what was taken back.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Trace(String);

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_string)
}

impl Fold<Value> for Trace {
    const COMMUTES: bool = false;

    fn add(&mut self, item: &Value) {
        self.0 += &format!("+{}", text(item));
    }

    fn merge(&mut self, other: Self) {
        self.0 += &other.0;
    }
}

impl TakeBack<Value> for Trace {
    fn take_back(&mut self, item: &Value) {
        self.0 += &format!("-{}", text(item));
    }
}

pub(crate) fn group(case: &Value, steps: &[Value], restarting: bool) -> Seen {
    match case["config"]["agg"].as_str() {
        Some("count") => grouped::<Count>(case, steps, restarting),
        _ => grouped::<Trace>(case, steps, restarting),
    }
}

/// Groups by the row's key or by its value; some rows belong to no group.
fn group_by<A: TakeBack<Value>>(config: &Value) -> GroupBy<String, String, Value, A> {
    let by_key = config["group_by"] == "key";
    let skipped: Vec<String> = items(&config["skip_row_keys"])
        .iter()
        .map(Value::to_string)
        .collect();
    let newer = if config["versioned"] == true {
        Newer::ByTime
    } else {
        Newer::ByArrival
    };
    GroupBy::new(newer, move |key: &String, value: &Value| {
        let group = if by_key {
            key.clone()
        } else {
            value.to_string()
        };
        (!skipped.contains(key)).then_some(group)
    })
}

fn row(item: &Value) -> (String, Option<Value>) {
    let value = item["value"].clone();
    (item["key"].to_string(), (!value.is_null()).then_some(value))
}

fn parsed(key: &str) -> Value {
    serde_json::from_str(key).expect("keys are JSON")
}

fn grouped<A: TakeBack<Value> + 'static>(case: &Value, steps: &[Value], restarting: bool) -> Seen {
    let config = case["config"].clone();
    let mut run = Run::new(move || group_by::<A>(&config)).restarting(restarting);
    let mut all = Vec::new();
    for step in steps {
        for item in items(step) {
            run.put(number(&item["ts"]), &row(item));
        }
        let rows = std::mem::take(&mut run.out.rows).into_iter();
        let rows = rows.map(|row| json!([parsed(&row.item.key), row.item.new, row.time.micros()]));
        all.push(seen([("out", rows.collect())]));
    }
    all
}

/// Counts rows by value and holds the counts back. What comes with the record that ends a span is
/// still in what leaves.
pub(crate) fn suppress(case: &Value, steps: &[Value], restarting: bool) -> Seen {
    let config = case["config"].clone();
    let make = move || {
        let rows_max = config["max_records"]
            .as_u64()
            .map_or(usize::MAX, |max| max as usize);
        match config["mode"].as_str() {
            Some("time_limit") => {
                let wait = Span::from_micros(number(&config["wait"]));
                AtMostEvery::<String, Count>::new(wait).at_most_rows(rows_max)
            }
            _ => AtMostEvery::when_full(rows_max),
        }
    };
    let mut calm = Run::new(make).restarting(restarting);
    let groups = json!({ "group_by": "value" });
    let mut run = Run::new(move || group_by::<Count>(&groups)).restarting(restarting);
    let mut all = Vec::new();
    for step in steps {
        let mut raw = Vec::new();
        for item in items(step) {
            run.put(number(&item["ts"]), &row(item));
            for row in std::mem::take(&mut run.out.rows) {
                let time = row.time.micros();
                raw.push(json!([parsed(&row.item.key), row.item.new, time]));
                calm.put(time, &(row.item.key, row.item.new));
                calm.advance(time - 1);
            }
        }
        let rows = std::mem::take(&mut calm.out.rows).into_iter();
        let rows = rows.map(|row| json!([parsed(&row.item.0), row.item.1, row.time.micros()]));
        all.push(seen([("raw", raw.into()), ("out", rows.collect())]));
    }
    all
}

/// A start, then an end, whatever lies between; a time of 0 is none.
pub(crate) fn start_then_end(case: &Value, steps: &[Value], restarting: bool) -> Seen {
    let within = number(&case["config"]["within"]);
    let mut all = Vec::new();
    for step in steps {
        let make = move || {
            let pattern = Pattern::first(|event: &Value| event["type"] == "start")
                .then(|_, event| event["type"] == "end")
                .skipping(Skip::ToAny);
            let bounded = within > 0;
            let pattern = if bounded {
                pattern.within(Span::from_micros(within))
            } else {
                pattern
            };
            Detect::<(), Value>::new(pattern).expect("the pattern can end")
        };
        let mut run = Run::new(make).restarting(restarting);
        for event in items(step) {
            run.put(number(&event["ts"]), &((), event.clone()));
        }
        run.advance(i64::MAX);
        let matches = run.out.rows.iter().map(|row| {
            row.item
                .1
                .items
                .iter()
                .map(|event| event["id"].clone())
                .collect::<Value>()
        });
        all.push(seen([("matches", matches.collect())]));
    }
    all
}
