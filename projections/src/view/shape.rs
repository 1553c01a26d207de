//! What a view is made of beside its events: the fields of a row, as far as its default shows them,
//! and the types of its keys and indexes. Rows of another make are rebuilt, also when the version
//! was not raised.

use annals_core::GenerationSpec;
use annals_runner::contained;
use serde_json::Value;

use super::{IndexType, View};
use crate::key::ViewKey as _;

/// What a generation of this view is made of, beside the types of events that it handles.
pub(crate) fn make_of<V: View>() -> Vec<String> {
    let key = contained(V::Key::type_of_key).ok();
    let mut make: Vec<_> = shape_of::<V>().into_iter().collect();
    make.extend(key.map(|key| format!("{}{key}", GenerationSpec::KEYS)));
    make.extend(indexes_of::<V>().map(|indexes| format!("{}{indexes}", GenerationSpec::ENTRIES)));
    make
}

/// The same of a view that a pipeline writes, in one text.
#[cfg(feature = "streams")]
pub(crate) fn output_make_of<V: View>() -> String {
    let shape = shape_of::<V>().unwrap_or_default();
    let indexes = indexes_of::<V>().unwrap_or_default();
    let key = contained(V::Key::type_of_key).unwrap_or_default();
    format!("{key} {shape} {indexes}")
}

/// The types of its indexes, where they are known.
fn indexes_of<V: View>() -> Option<String> {
    let names = contained(|| {
        let types = V::index_types();
        types.iter().map(IndexType::stored_name).collect::<Vec<_>>()
    });
    let names = names.unwrap_or_default();
    (!names.is_empty()).then(|| names.join(" "))
}

/// What a generation names its rows. Nothing when the default cannot be written.
fn shape_of<V: View>() -> Option<String> {
    let row = contained(|| serde_json::to_value(V::default()));
    let mut text = String::new();
    write(&row.ok()?.ok()?, &mut text);
    // FNV-1a: the same in every process and version.
    let digest = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Some(format!("row:{digest:016x}"))
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Null => text.push('?'),
        Value::Bool(_) => text.push('b'),
        Value::Number(number) => text.push(if number.is_f64() { 'f' } else { 'i' }),
        Value::String(_) => text.push('s'),
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            let mut names: Vec<_> = fields.keys().collect();
            names.sort_unstable();
            text.push('{');
            for name in names {
                text.push_str(&format!("{name:?}:"));
                write(&fields[name], text);
            }
            text.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shape(value: &Value) -> String {
        let mut text = String::new();
        write(value, &mut text);
        text
    }

    #[test]
    fn a_shape_is_independent_of_the_order_of_fields() {
        let row = json!({"b": 1, "a": {"x": null, "y": [1.5, true]}, "c": "text"});
        assert_eq!(shape(&row), r#"{"a":{"x":?"y":[fb]}"b":i"c":s}"#);
        assert_eq!(shape(&json!(7)), shape(&json!(8)));
        assert_ne!(shape(&json!({"a": 1})), shape(&json!({"b": 1})));
        assert_ne!(shape(&json!({"a": 1})), shape(&json!({"a": 1, "b": 1})));
    }
}
