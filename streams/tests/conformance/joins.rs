//! Joins of two streams, of a stream with a table, of two tables.

use super::{
    Seen,
    clocks::{items, number, seen},
    support::Run,
};
use annals_streams::{
    AsOfJoin, AsOfOptions, ForeignKeyJoin, IntervalJoin, JoinType, MinOfInputs, Newer, Side, Span,
    TableJoin, Time, Within,
};
use serde_json::{Value, json};

fn join_type(config: &Value) -> JoinType {
    match config["type"].as_str() {
        Some("left") => JoinType::Left,
        Some("outer") => JoinType::Outer,
        // An interval join has no type. Another one was refused before.
        _ => JoinType::Inner,
    }
}

fn newer(config: &Value) -> Newer {
    if config["versioned"] == true {
        Newer::ByTime
    } else {
        Newer::ByArrival
    }
}

fn parsed(key: &str) -> Value {
    serde_json::from_str(key).expect("keys are JSON")
}

fn text(value: Option<&Value>) -> String {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_string)
    };
    value.map_or("null".to_string(), text)
}

fn joined(left: Option<&Value>, right: Option<&Value>) -> String {
    format!("{}+{}", text(left), text(right))
}

fn sided(item: &Value) -> Side<(String, Value), (String, Value)> {
    let keyed = (item["key"].to_string(), item["value"].clone());
    if item["side"] == "L" {
        Side::Left(keyed)
    } else {
        Side::Right(keyed)
    }
}

fn sided_rows(item: &Value) -> Side<(String, Option<Value>), (String, Option<Value>)> {
    let value = item["value"].clone();
    let keyed = (item["key"].to_string(), (!value.is_null()).then_some(value));
    if item["side"] == "L" {
        Side::Left(keyed)
    } else {
        Side::Right(keyed)
    }
}

/// One clock for both sides and all keys.
pub(crate) fn stream_stream(case: &Value, steps: &[Value], restarting: bool) -> Seen {
    let config = &case["config"];
    let join = join_type(config);
    let bound = |name: &str| Span::from_micros(number(&config[name]));
    let within = Within::between(bound("before"), bound("after"));
    let grace = number(&config["grace"]);
    let row = |left: Option<&Value>, right: Option<&Value>| (left.cloned(), right.cloned());
    let make = move || IntervalJoin::new(join, within, row).closing_at_bounds();
    let mut run = Run::new(make).restarting(restarting);
    let mut stream_time: Option<i64> = None;
    let mut all = Vec::new();
    for step in steps {
        for item in items(step) {
            let time = number(&item["ts"]);
            let now = stream_time.map_or(time, |max| max.max(time));
            stream_time = Some(now);
            run.put_at(now - grace - 1, time, &sided(item));
        }
        let rows = std::mem::take(&mut run.out.rows).into_iter().map(|row| {
            let (key, (left, right)) = row.item;
            let time = row.time.micros();
            json!({ "key": parsed(&key), "left": left, "right": right, "ts": time })
        });
        let rows: Value = rows.collect();
        let late = std::mem::take(&mut run.out.late).into_iter().map(|row| {
            let side = if matches!(row.item, Side::Left(_)) {
                "L"
            } else {
                "R"
            };
            json!([side, row.time.micros()])
        });
        all.push(seen([("out", rows), ("late", late.collect())]));
    }
    all
}

/// The time of an item is also its value; each side has its own watermark.
pub(crate) fn interval(case: &Value, steps: &[Value], restarting: bool) -> Seen {
    let config = &case["config"];
    let join = join_type(config);
    // An end that does not belong to the bounds is one tick inside.
    let lower = number(&config["lower"]) + i64::from(config["lower_inclusive"] != true);
    let upper = number(&config["upper"]) - i64::from(config["upper_inclusive"] != true);
    let within = Within::between(Span::from_micros(-lower), Span::from_micros(upper));
    let row = |left: Option<&i64>, right: Option<&i64>| (left.copied(), right.copied());
    let make = move || IntervalJoin::new(join, within, row).closing_at_bounds();
    let mut run = Run::new(make).restarting(restarting);
    let mut clock = MinOfInputs::new();
    clock.add("L".to_string());
    clock.add("R".to_string());
    let mut all = Vec::new();
    for step in steps {
        for item in items(step) {
            if let Some(side) = item["wm_side"].as_str() {
                clock.advance(side.to_string(), Time::from_micros(number(&item["wm"])));
                run.advance(clock.watermark().micros());
                continue;
            }
            let time = number(&item["ts"]);
            let keyed = (item["key"].to_string(), time);
            let item = match item["side"].as_str() {
                Some("L") => Side::Left(keyed),
                _ => Side::Right(keyed),
            };
            run.put(time, &item);
        }
        let rows = std::mem::take(&mut run.out.rows).into_iter().map(|row| {
            let (_, (left, right)) = row.item;
            json!([left, right, row.time.micros()])
        });
        let rows: Value = rows.collect();
        let late = std::mem::take(&mut run.out.late).into_iter().map(|row| {
            let side = if matches!(row.item, Side::Left(_)) {
                "L"
            } else {
                "R"
            };
            json!([side, row.time.micros()])
        });
        let late: Value = late.collect();
        let (left, right) = run.operator.held();
        let times = |times: Vec<Time>| times.into_iter().map(Time::micros).collect::<Value>();
        all.push(seen([
            ("out", rows),
            ("late", late),
            ("left_buffer", times(left)),
            ("right_buffer", times(right)),
        ]));
    }
    all
}

/// The stream alone moves the clock.
pub(crate) fn stream_table(case: &Value, steps: &[Value], restarting: bool) -> Seen {
    let config = &case["config"];
    let join = join_type(config);
    let options = match (config["versioned"] == true, config.get("grace").is_some()) {
        (_, true) => AsOfOptions::as_of(),
        (true, false) => AsOfOptions::at_once(),
        (false, false) => AsOfOptions::newest(),
    };
    // However late: Kafka joins it.
    let options = options.allow_late(Span::MAX);
    let grace = config.get("grace").map_or(0, number);
    let mut run = Run::new(move || AsOfJoin::new(join, options, joined)).restarting(restarting);
    let mut stream_time: Option<i64> = None;
    let mut all = Vec::new();
    for step in steps {
        for item in items(step) {
            let time = number(&item["ts"]);
            let key = item["key"].to_string();
            let value = item["value"].clone();
            if item["side"] == "T" {
                if !item["key"].is_null() {
                    let value = (!value.is_null()).then_some(value);
                    run.put(time, &Side::Right((key, value)));
                }
                continue;
            }
            let now = stream_time.map_or(time, |max| max.max(time));
            stream_time = Some(now);
            if item["key"].is_null() || value.is_null() {
                run.advance(now - grace - 1);
            } else {
                run.put_at(now - grace - 1, time, &Side::Left((key, value)));
            }
        }
        let rows = std::mem::take(&mut run.out.rows).into_iter();
        let rows = rows.map(|row| json!([parsed(&row.item.0), row.item.1, row.time.micros()]));
        all.push(seen([("out", rows.collect())]));
    }
    all
}

pub(crate) fn table_table(case: &Value, steps: &[Value], restarting: bool) -> Seen {
    let config = &case["config"];
    let join = join_type(config);
    let newer = newer(config);
    let with_old = config["with_old"] == true;
    let mut run = Run::new(move || TableJoin::new(join, newer, joined)).restarting(restarting);
    let mut all = Vec::new();
    for step in steps {
        for item in items(step).iter().filter(|item| !item["key"].is_null()) {
            run.put(number(&item["ts"]), &sided_rows(item));
        }
        let rows = std::mem::take(&mut run.out.rows).into_iter().map(|row| {
            let key = parsed(&row.item.key);
            let time = row.time.micros();
            if with_old {
                json!([key, row.item.new, time, row.item.old])
            } else {
                json!([key, row.item.new, time])
            }
        });
        all.push(seen([("out", rows.collect())]));
    }
    all
}

/// The left value names the right key after a bar.
pub(crate) fn foreign_key(case: &Value, steps: &[Value], restarting: bool) -> Seen {
    let config = &case["config"];
    let join = join_type(config);
    let newer = newer(config);
    let refers_to = |left: &Value| {
        let (_, key) = left.as_str()?.split_once('|')?;
        Some(json!(key).to_string())
    };
    let row =
        |left: Option<&Value>, right: Option<&Value>| format!("({},{})", text(left), text(right));
    let make = move || ForeignKeyJoin::new(join, newer, refers_to, row);
    let mut run = Run::new(make).restarting(restarting);
    let mut all = Vec::new();
    for step in steps {
        for item in items(step).iter().filter(|item| !item["key"].is_null()) {
            run.put(number(&item["ts"]), &sided_rows(item));
        }
        let rows = std::mem::take(&mut run.out.rows).into_iter();
        let rows = rows.map(|row| json!([parsed(&row.item.key), row.item.new]));
        all.push(seen([("out", rows.collect())]));
    }
    all
}
