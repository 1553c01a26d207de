//! What was seen beside what was expected, and expectations made wrong on purpose.

use super::Seen;
use serde_json::{Map, Value};

pub(crate) fn all(case: &Value, seen: &Seen, expected: &[Value]) -> Result<(), String> {
    if seen.len() != expected.len() {
        return Err(format!(
            "{} steps seen, {} expected",
            seen.len(),
            expected.len()
        ));
    }
    for (step, (seen, expected)) in seen.iter().zip(expected).enumerate() {
        let mut expected = expected
            .as_object()
            .cloned()
            .ok_or("a step expects no object")?;
        let operator = case["operator"].as_str().unwrap_or_default();
        if operator.starts_with("event_time") && !expected.contains_key("late") {
            expected.insert("late".to_string(), Value::Array(vec![]));
        }
        for (field, want) in &expected {
            let got = field_of(seen, field).ok_or_else(|| format!("`{field}` is not known"))?;
            // Results that close together have an order of our own, which other tests look at.
            let ordered = field == "raw" || (field != "dropped" && !windowed(operator));
            let exact = case["order"] == "exact" && ordered && field != "raw_any";
            if sorted(got, exact) != sorted(want, exact) {
                return Err(format!("step {step} {field}\n  got  {got}\n  want {want}"));
            }
        }
    }
    Ok(())
}

fn windowed(operator: &str) -> bool {
    operator.contains("window")
}

fn field_of<'a>(seen: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    let field = if field == "raw_any" { "raw" } else { field };
    seen.get(field)
}

fn sorted(value: &Value, exact: bool) -> Vec<String> {
    let Some(rows) = value.as_array() else {
        return vec![value.to_string()];
    };
    let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
    if !exact {
        rows.sort();
    }
    rows
}

/// How many values could be made wrong.
pub(crate) fn leaves(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(leaves).sum(),
        Value::Object(fields) => fields.values().map(leaves).sum(),
        _ => 1,
    }
}

/// Makes the value at this place wrong.
pub(crate) fn corrupt(value: &mut Value, mut leaf: usize) {
    match value {
        Value::Array(items) => {
            for item in items {
                let inside = leaves(item);
                if leaf < inside {
                    return corrupt(item, leaf);
                }
                leaf -= inside;
            }
        }
        Value::Object(fields) => {
            for (_, item) in fields {
                let inside = leaves(item);
                if leaf < inside {
                    return corrupt(item, leaf);
                }
                leaf -= inside;
            }
        }
        Value::Null => *value = 1.into(),
        Value::Bool(flag) => *flag = !*flag,
        Value::Number(number) => {
            let wrong = number.as_i64().map_or(0, |number| number.wrapping_add(1));
            *value = wrong.into();
        }
        Value::String(text) => text.push('x'),
    }
}
