//! Watermarks of one input and of several.

use super::Seen;
use annals_streams::{MinOfInputs, OutOfOrder, Span, Strategy, Time};
use serde_json::{Map, Value};

pub(crate) fn items(step: &Value) -> &[Value] {
    step.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn number(value: &Value) -> i64 {
    value.as_i64().expect("a number")
}

pub(crate) fn seen<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields
        .into_iter()
        .map(|(name, value)| (name.to_string(), value))
        .collect()
}

pub(crate) fn out_of_order(case: &Value, steps: &[Value]) -> Seen {
    let mut clock = OutOfOrder::by(Span::from_micros(number(&case["config"]["delay"])));
    let mut all = Vec::new();
    for step in steps {
        for time in items(step) {
            clock.observe(Time::from_micros(number(time)), Time::MAX);
        }
        all.push(seen([("watermark", clock.watermark().micros().into())]));
    }
    all
}

pub(crate) fn merge(case: &Value, steps: &[Value]) -> Seen {
    let name = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let mut inputs = MinOfInputs::new();
    for input in items(&case["config"]["outputs"]) {
        inputs.add(name(input));
    }
    let mut all = Vec::new();
    for step in steps {
        for item in items(step) {
            if item.get("remove").is_some() {
                inputs.remove(&name(&item["remove"]));
            }
            if item.get("add").is_some() {
                inputs.add(name(&item["add"]));
            }
            if item.get("wm").is_some() {
                inputs.advance(name(&item["out"]), Time::from_micros(number(&item["wm"])));
            }
            if item["idle"] == true {
                inputs.idle(name(&item["out"]));
            }
        }
        let watermark = inputs.watermark();
        let shown = (watermark > Time::MIN).then(|| watermark.micros());
        all.push(seen([
            ("wm", shown.into()),
            ("idle", inputs.is_idle().into()),
        ]));
    }
    all
}
