//! Windows of all kinds, with and without suppression after them.

use super::{
    Seen,
    clocks::{items, number, seen},
    support::Run,
};
use annals_streams::{
    Aligned, AlignedWindows, Collect, Count, Emission, Fold, Kind, Late, Operator, Row, Sessions,
    Sliding, Span, State, UntilClosed, Window, WindowOptions,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The sum of integers in JSON.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Total(i64);

impl Fold<Value> for Total {
    fn add(&mut self, item: &Value) {
        self.0 += number(item);
    }

    fn merge(&mut self, other: Self) {
        self.0 += other.0;
    }
}

/// All items, sorted as text.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Sorted(Vec<Value>);

impl Fold<Value> for Sorted {
    fn add(&mut self, item: &Value) {
        self.0.push(item.clone());
        self.0.sort_by_cached_key(Value::to_string);
    }

    fn merge(&mut self, other: Self) {
        other.0.iter().for_each(|item| self.add(item));
    }
}

/// Keys are the JSON text of what the case has.
type Keyed = (String, Value);
type Rows<A> = Vec<Row<Emission<String, A>>>;
type Gap = Box<dyn Fn(&Value) -> Span + Send + Sync>;

pub(crate) fn see(case: &Value, steps: &[Value], restarting: bool) -> Result<Seen, String> {
    let config = &case["config"];
    let operator = case["operator"].as_str().unwrap_or_default();
    let aggregate = match operator {
        "event_time_window_sum" => "sum",
        "event_time_window_collect" => "collect",
        _ => config["agg"].as_str().unwrap_or_default(),
    };
    match aggregate {
        "count" => with_kind::<Count>(case, steps, restarting),
        "sum" => with_kind::<Total>(case, steps, restarting),
        "collect" => with_kind::<Collect<Value>>(case, steps, restarting),
        "collect_sorted" => with_kind::<Sorted>(case, steps, restarting),
        unknown => Err(format!("unknown aggregate `{unknown}`")),
    }
}

fn with_kind<A: Fold<Value> + 'static>(
    case: &Value,
    steps: &[Value],
    restarting: bool,
) -> Result<Seen, String> {
    let config = case["config"].clone();
    let operator = case["operator"].as_str().unwrap_or_default();
    let kind = match operator {
        "time_window_aggregate" => "hopping",
        "sliding_window_aggregate" => "sliding",
        "session_window_aggregate" => "session",
        "window_count_then_suppress" => config["window"].as_str().unwrap_or_default(),
        _ => config["type"].as_str().unwrap_or_default(),
    };
    let options = options(&config, operator);
    let span = |name: &str| Span::from_micros(number(&config[name]));
    match kind {
        "hopping" | "hop" | "tumbling" | "tumble" => {
            let slide = ["advance", "slide", "size"];
            let slide = slide.iter().find(|name| config.get(**name).is_some());
            let slide = span(slide.expect("a size"));
            let aligned = Aligned::hopping(span("size"), slide).map_err(|e| e.to_string())?;
            let offset = config.get("offset").map_or(0, number);
            let aligned = aligned.offset_by(Span::from_micros(offset));
            let make = move || AlignedWindows::<String, Value, A>::new(aligned, options);
            Ok(drive(
                case,
                steps,
                Run::new(make).restarting(restarting),
                restarting,
            ))
        }
        "sliding" => {
            let span = span("difference");
            let make = move || Sliding::<String, Value, A>::new(span, options);
            Ok(drive(
                case,
                steps,
                Run::new(make).restarting(restarting),
                restarting,
            ))
        }
        // A gap by key and value comes with the item, so that the operator can ask for it.
        "session" => {
            let gaps = config.clone();
            let make = move || {
                let gaps = gaps.clone();
                Sessions::<String, Value, OfPair<A>>::by_item(gap_of(gaps), options)
            };
            Ok(drive(
                case,
                steps,
                Run::new(make).restarting(restarting),
                restarting,
            ))
        }
        unknown => Err(format!("unknown window `{unknown}`")),
    }
}

fn options(config: &Value, operator: &str) -> WindowOptions {
    let event_time = operator.starts_with("event_time");
    let mut options = match config["emit"].as_str() {
        Some("final") => WindowOptions::on_close(),
        None if event_time => WindowOptions::on_close(),
        _ => WindowOptions::on_update(),
    };
    if event_time {
        options = options.allow_late(Span::from_micros(number(&config["lateness"])));
    }
    if config["purge"] == true {
        options.discarding()
    } else {
        options
    }
}

/// Folds the value of an item that is a pair of key and value.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct OfPair<A>(A);

impl<A: Fold<Value>> Fold<Value> for OfPair<A> {
    const COMMUTES: bool = A::COMMUTES;

    fn add(&mut self, item: &Value) {
        self.0.add(&item["value"]);
    }

    fn merge(&mut self, other: Self) {
        self.0.merge(other.0);
    }
}

fn gap_of(config: Value) -> Gap {
    Box::new(move |item| {
        let Some(by) = config.get("gap_by") else {
            return Span::from_micros(number(&config["gap"]));
        };
        let of_key = &by[item["key"].as_str().unwrap_or_default()];
        let value = &item["value"];
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_string);
        let gap = of_key.as_i64().or_else(|| of_key[&text].as_i64());
        Span::from_micros(gap.unwrap_or_else(|| number(&of_key["*"])))
    })
}

/// Runs windows over the steps, in the way of the case's dialect.
fn drive<A, O>(case: &Value, steps: &[Value], mut run: Run<O>, restarting: bool) -> Seen
where
    A: Serialize,
    O: Operator<In = Keyed, Out = Emission<String, A>, Late = Late<String, Value>> + State,
{
    let config = &case["config"];
    let operator = case["operator"].as_str().unwrap_or_default();
    let event_time = operator.starts_with("event_time");
    let suppressed = operator == "window_count_then_suppress";
    let session = operator.starts_with("session")
        || config["window"] == "session"
        || config["type"] == "session";
    // Kafka has no windows that begin before 0; the comparison leaves them out.
    let hopping = operator.starts_with("time_window")
        || config["window"] == "tumbling"
        || config["window"] == "hopping";
    let shown = |window: &Window| !hopping || window.start.micros() >= 0;
    let mut finals = Run::new(UntilClosed::<(Window, String), (Value, i64)>::new);
    finals.restarting = restarting;
    let mut stream_time: Option<i64> = None;
    let mut state: Vec<Value> = Vec::new();
    let mut all = Vec::new();
    for step in steps {
        for item in items(step) {
            if item.get("restart").is_some() {
                run.restart();
                continue;
            }
            if let Some(watermark) = item.get("watermark") {
                run.advance(number(watermark));
                continue;
            }
            let time = number(&item["ts"]);
            let key = item["key"].to_string();
            let value = if session {
                item.clone()
            } else {
                item["value"].clone()
            };
            if event_time {
                run.put(time, &(key, value));
                continue;
            }
            let now = stream_time.map_or(time, |max| max.max(time));
            stream_time = Some(now);
            let watermark = now - number(&config["grace"]) - 1;
            let before = run.out.rows.len();
            run.put_at(watermark, time, &(key, value));
            if suppressed {
                finals.advance(watermark);
                for row in &run.out.rows[before..] {
                    let Emission {
                        key,
                        window,
                        value,
                        max_time,
                        ..
                    } = &row.item;
                    let value = value
                        .as_ref()
                        .map(|value| (json!(value), max_time.micros()));
                    finals.put(row.time.micros(), &((*window, key.clone()), value));
                }
            }
        }
        let rows: Rows<A> = std::mem::take(&mut run.out.rows);
        let rows: Vec<_> = rows
            .into_iter()
            .filter(|row| shown(&row.item.window))
            .collect();
        let late = std::mem::take(&mut run.out.late);
        let out: Vec<Value> = if event_time {
            rows.iter()
                .map(|row| event_time_row(row, session))
                .collect()
        } else {
            rows.iter().map(stream_time_row).collect()
        };
        for row in &out {
            state.retain(|known| known["key"] != row["key"] || known["window"] != row["window"]);
            state.push(row.clone());
        }
        let dropped = dropped(&late, &shown);
        let mut fields = seen([
            ("dropped_count", dropped.len().into()),
            ("dropped", dropped.into()),
            (
                "final_state",
                state
                    .iter()
                    .filter(|row| !row["value"].is_null())
                    .cloned()
                    .collect(),
            ),
            (
                "late",
                late.iter()
                    .filter(|row| !row.item.folded)
                    .map(late_row)
                    .collect(),
            ),
            ("last", out.last().cloned().into_iter().collect()),
            ("raw", out.clone().into()),
            ("out", out.into()),
        ]);
        if suppressed {
            let finals = std::mem::take(&mut finals.out.rows);
            let rows = finals
                .into_iter()
                .filter(|row| shown(&row.item.0.0))
                .map(|row| {
                    let ((window, key), value) = row.item;
                    let time = value.as_ref().map(|(_, time)| *time);
                    let value = value.map(|(value, _)| value);
                    json!({
                        "key": parsed(&key),
                        "window": [window.start.micros(), window.end.micros()],
                        "value": value,
                        "ts": time,
                    })
                });
            fields.insert("out".to_string(), rows.collect());
        }
        all.push(fields);
    }
    all
}

fn parsed(key: &str) -> Value {
    serde_json::from_str(key).expect("keys are JSON")
}

fn stream_time_row<A: Serialize>(row: &Row<Emission<String, A>>) -> Value {
    let Emission {
        key,
        window,
        value,
        max_time,
        kind,
    } = &row.item;
    assert_eq!(*kind == Kind::Retraction, value.is_none());
    json!({
        "key": parsed(key),
        "window": [window.start.micros(), window.end.micros()],
        "value": value,
        "ts": max_time.micros(),
    })
}

/// As Flink shows it: a session is `[first, last + gap)`, a row is stamped with the end less one.
fn event_time_row<A: Serialize>(row: &Row<Emission<String, A>>, session: bool) -> Value {
    let Emission {
        key, window, value, ..
    } = &row.item;
    let last = row.time.micros();
    if session {
        let window = [window.start.micros(), last];
        json!({ "key": parsed(key), "value": value, "window": window, "ts": last - 1 })
    } else {
        json!({ "key": parsed(key), "value": value, "ts": last })
    }
}

fn late_row(row: &Row<Late<String, Value>>) -> Value {
    let Late { key, item, .. } = &row.item;
    let value = item.get("value").unwrap_or(item);
    json!({ "key": parsed(key), "value": value, "ts": row.time.micros() })
}

fn dropped(late: &[Row<Late<String, Value>>], shown: &impl Fn(&Window) -> bool) -> Vec<Value> {
    let mut dropped = Vec::new();
    for row in late {
        for window in row.item.missed.iter().filter(|window| shown(window)) {
            dropped.push(json!({
                "key": parsed(&row.item.key),
                "ts": row.time.micros(),
                "window": [window.start.micros(), window.end.micros()],
            }));
        }
    }
    dropped
}

/// Intervals as sessions whose items say how far they reach.
pub(crate) fn merge_intervals(steps: &[Value]) -> Seen {
    let mut all = Vec::new();
    for step in steps {
        let options = WindowOptions::on_close();
        let length = |length: &i64| Span::from_micros(*length);
        let make = move || Sessions::<(), i64, Count>::by_item(length, options);
        let mut run = Run::new(make);
        for interval in items(step) {
            let start = number(&interval[0]);
            run.put(start, &((), number(&interval[1]) - start));
        }
        run.advance(i64::MAX);
        let merged = run
            .out
            .rows
            .iter()
            .map(|row| json!([row.item.window.start.micros(), row.time.micros()]));
        all.push(seen([("merged", merged.collect())]));
    }
    all
}

pub(crate) fn session_assign(case: &Value, steps: &[Value]) -> Seen {
    let gap = number(&case["config"]["gap"]);
    // Beam shows where a session closes, the others its last event.
    let shows_gap = case["config"]["dialect"] == "beam";
    let mut all = Vec::new();
    for step in steps {
        let make = move || {
            let gap = Span::from_micros(gap);
            Sessions::<(), Value, Sorted>::new(gap, WindowOptions::on_close())
        };
        let mut run = Run::new(make);
        for time in items(step) {
            run.put(number(time), &((), time.clone()));
        }
        run.advance(i64::MAX);
        let sessions = run.out.rows.iter().map(|row| {
            let Window { start, end } = row.item.window;
            let end = end.micros() + if shows_gap { gap } else { 0 };
            let mut times = row.item.value.clone().unwrap_or_default().0;
            times.sort_by_key(number);
            json!([start.micros(), end, times])
        });
        all.push(seen([("sessions", sessions.collect())]));
    }
    all
}

pub(crate) fn assign(case: &Value, steps: &[Value]) -> Result<Seen, String> {
    let config = &case["config"];
    let mut all = Vec::new();
    for step in steps {
        let item = &step[0];
        let span = |name: &str| {
            let value = item.get(name).unwrap_or(&config[name]);
            Span::from_micros(value.as_i64().unwrap_or(0))
        };
        let aligned = Aligned::hopping(span("size"), span("slide")).map_err(|e| e.to_string())?;
        let aligned = aligned.offset_by(span("offset"));
        let windows = aligned.windows(annals_streams::Time::from_micros(number(&item["ts"])));
        let from = if config["dialect"] == "kafka" {
            0
        } else {
            i64::MIN
        };
        let windows = windows.filter(|window| window.start.micros() >= from);
        let windows = windows.map(|window| json!([window.start.micros(), window.end.micros()]));
        all.push(seen([("windows", windows.collect())]));
    }
    Ok(all)
}

/// The steps with all items but the last of the first one in another order.
pub(crate) fn shuffled(steps: &[Value], seed: u64) -> Vec<Value> {
    let mut items = items(&steps[0]).to_vec();
    let last = items.pop();
    let mut random = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    for at in (1..items.len()).rev() {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        items.swap(at, (random >> 33) as usize % (at + 1));
    }
    items.extend(last);
    let mut steps = steps.to_vec();
    steps[0] = items.into();
    steps
}
