//! The cases of other engines, through our operators.
//!
//! A case names an operator, its parameters, steps of input and what has to be seen after each.
//! `expected_annals` comes before `expected`: it says where we differ on purpose. Another file of
//! the same form is read from `ANNALS_STREAM_CASES`.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop there"
)]

#[path = "conformance/clocks.rs"]
mod clocks;
#[path = "conformance/compare.rs"]
mod compare;
#[path = "conformance/joins.rs"]
mod joins;
mod support;
#[path = "conformance/tables.rs"]
mod tables;
#[path = "conformance/windows.rs"]
mod windows;

use serde_json::{Map, Value};
use std::{collections::BTreeMap, path::PathBuf};

/// What is to be seen after each step, by name.
pub(crate) type Seen = Vec<Map<String, Value>>;

fn cases() -> Vec<Value> {
    let copy = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/streaming-cases.json"
    );
    let path = std::env::var_os("ANNALS_STREAM_CASES").map_or(copy.into(), PathBuf::from);
    let text = std::fs::read_to_string(&path).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn see(case: &Value, steps: &[Value], restarting: bool) -> Result<Seen, String> {
    let operator = case["operator"].as_str().unwrap_or_default();
    match operator {
        "time_window_aggregate"
        | "sliding_window_aggregate"
        | "session_window_aggregate"
        | "window_count_then_suppress"
        | "event_time_window_sum"
        | "event_time_window_collect" => windows::see(case, steps, restarting),
        "merge_intervals" => Ok(windows::merge_intervals(steps)),
        "session_assign" => Ok(windows::session_assign(case, steps)),
        "assign_windows" => windows::assign(case, steps),
        "stream_stream_join" => Ok(joins::stream_stream(case, steps, restarting)),
        "interval_join" => Ok(joins::interval(case, steps, restarting)),
        "stream_table_join" => Ok(joins::stream_table(case, steps, restarting)),
        "table_table_join" => Ok(joins::table_table(case, steps, restarting)),
        "foreign_key_table_join" => Ok(joins::foreign_key(case, steps, restarting)),
        "table_group_aggregate" => Ok(tables::group(case, steps, restarting)),
        "table_group_count_then_suppress" => Ok(tables::suppress(case, steps, restarting)),
        "bounded_out_of_orderness" => Ok(clocks::out_of_order(case, steps)),
        "watermark_merge" => Ok(clocks::merge(case, steps)),
        "pattern_start_then_end" => Ok(tables::start_then_end(case, steps, restarting)),
        unknown => Err(format!("unknown operator `{unknown}`")),
    }
}

/// What a case may choose from, and where it has to.
const CHOICES: [(&str, &str, &[&str]); 9] = [
    ("_window_aggregate", "emit", &["update", "final"]),
    ("event_time_window", "type", &["tumble", "hop", "session"]),
    ("then_suppress", "agg", &["count"]),
    ("stream_join", "type", &["inner", "left", "outer"]),
    ("stream_table_join", "type", &["inner", "left"]),
    ("table_table_join", "type", &["inner", "left", "outer"]),
    ("foreign_key", "type", &["inner", "left"]),
    ("table_group_aggregate", "group_by", &["key", "value"]),
    ("table_group_aggregate", "agg", &["count", "add_sub_trace"]),
];

/// Refuses a choice that is not known: nothing of a case is guessed.
fn check_choices(case: &Value) -> Result<(), String> {
    let operator = case["operator"].as_str().unwrap_or_default();
    let known = |of: &str, name: &str, value: &Value, known: &[&str]| {
        let is_known = value.as_str().is_some_and(|value| known.contains(&value));
        let unknown = || format!("unknown {of} `{name}`: {value}");
        is_known.then_some(()).ok_or_else(unknown)
    };
    for (part, name, values) in CHOICES {
        let value = &case["config"][name];
        let counts_rows = operator.starts_with("table_group") && part == "then_suppress";
        if operator.contains(part) && !counts_rows {
            known("choice", name, value, values)?;
        }
    }
    for (name, values) in [
        ("emit", &["update", "final"][..]),
        (
            "type",
            &["inner", "left", "outer", "tumble", "hop", "session"],
        ),
        ("mode", &["time_limit", "max_records"]),
    ] {
        if let Some(value) = case["config"].get(name) {
            known("choice", name, value, values)?;
        }
    }
    let steps = case["input"].as_array().into_iter().flatten();
    for item in steps.filter_map(Value::as_array).flatten() {
        if let Some(side) = item.get("side").or_else(|| item.get("wm_side")) {
            known("side of", &item.to_string(), side, &["L", "R", "S", "T"])?;
        }
    }
    known("order", "order", &case["order"], &["exact", "any"])
}

fn run(case: &Value) -> Result<(), String> {
    check_choices(case)?;
    let steps = case["input"].as_array().ok_or("no input")?;
    let expected = case.get("expected_annals").unwrap_or(&case["expected"]);
    let expected = expected.as_array().ok_or("nothing expected")?;
    for restarting in [false, true] {
        let seen = see(case, steps, restarting)?;
        compare::all(case, &seen, expected)?;
    }
    if case["config"]["also_run_right_first"] == true {
        let items = steps[0].as_array().ok_or("a step is no list")?;
        let mut turned = items.clone();
        turned.rotate_left(items.len() / 2);
        let seen = see(case, &[turned.into()], false)?;
        compare::all(case, &seen, expected)?;
    }
    // Any order of all items but the last one gives the same state.
    if case["config"]["agg"] == "collect_sorted" && case["config"]["emit"] == "update" {
        for seed in 0..200 {
            let shuffled = windows::shuffled(steps, seed);
            let seen = see(case, &shuffled, false)?;
            compare::all(case, &seen, expected)?;
        }
    }
    Ok(())
}

#[test]
fn every_case_comes_out_as_expected() {
    let mut ran: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    let mut failures = Vec::new();
    let cases = cases();
    for case in &cases {
        let text = |name: &str| case[name].as_str().unwrap_or("?").to_string();
        *ran.entry(text("operator"))
            .or_default()
            .entry(text("verdict"))
            .or_default() += 1;
        if let Err(error) = run(case) {
            failures.push(format!("{} ({}): {error}", text("id"), text("operator")));
        }
    }
    for (operator, verdicts) in &ran {
        let verdicts: Vec<_> = verdicts
            .iter()
            .map(|(name, n)| format!("{n} {name}"))
            .collect();
        println!("{operator}: {}", verdicts.join(", "));
    }
    println!("{} cases, {} failed", cases.len(), failures.len());
    assert!(!cases.is_empty(), "no cases ran");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn an_unknown_operator_fails() {
    let case = serde_json::json!({
        "operator": "guess", "config": {}, "input": [[]], "expected": [{}], "order": "any",
    });
    assert_eq!(run(&case), Err("unknown operator `guess`".to_string()));
}

#[test]
fn an_unknown_choice_fails() {
    let mut tried = 0;
    for case in cases() {
        for name in ["emit", "type", "mode", "group_by", "agg", "window"] {
            if case["config"].get(name).is_some() {
                let mut unknown = case.clone();
                unknown["config"][name] = "guess".into();
                let error = run(&unknown).unwrap_err();
                assert!(error.starts_with("unknown "), "{}: {error}", case["id"]);
                tried += 1;
            }
        }
    }
    assert!(tried > 40, "{tried}");
}

#[test]
fn a_corrupted_case_fails() {
    let mut corrupted = 0;
    let mut missed = Vec::new();
    for case in cases() {
        let name = if case.get("expected_annals").is_some() {
            "expected_annals"
        } else {
            "expected"
        };
        for leaf in 0..compare::leaves(&case[name]) {
            let mut wrong = case.clone();
            compare::corrupt(&mut wrong[name], leaf);
            corrupted += 1;
            if run(&wrong).is_ok() {
                missed.push(format!("{}: leaf {leaf}", case["id"]));
            }
        }
    }
    println!("{corrupted} corruptions");
    assert!(corrupted > 0);
    assert!(missed.is_empty(), "not noticed: {}", missed.join("\n"));
}
