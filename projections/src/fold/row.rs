//! A row as it is stored: JSON, fields in the order of the type, and read back before it is
//! believed.

use std::collections::{BTreeMap, BTreeSet};

use annals_core::{Codec, Json};
use annals_runner::{ViewError, WorkError, chain, contained};
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::view::View;

/// A row that cannot be stored or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row `{}` of view `{view}` {what}", .key.escape_debug())]
pub(crate) struct RowError {
    view: &'static str,
    pub(crate) key: String,
    what: String,
}

impl RowError {
    pub(crate) fn of<V: View>(key: &str, what: String) -> RowError {
        RowError {
            view: V::NAME,
            key: key.into(),
            what,
        }
    }

    /// What is wrong, without the row.
    pub(crate) fn into_what(self) -> String {
        self.what
    }

    /// What is wrong, without the key.
    pub(crate) fn reason(&self) -> String {
        format!("the row {}", self.what)
    }
}

impl From<RowError> for WorkError {
    fn from(error: RowError) -> WorkError {
        WorkError::Stopped(chain(&error))
    }
}

impl From<RowError> for ViewError {
    fn from(error: RowError) -> ViewError {
        ViewError::unreadable(error)
    }
}

/// A row as it is stored.
pub(crate) fn encode<V: View>(key: &str, value: &V) -> Result<Bytes, RowError> {
    match contained(|| Json::encode(value)) {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(error)) => Err(RowError::of::<V>(
            key,
            format!("cannot be written: {error}"),
        )),
        Err(panic) => Err(RowError::of::<V>(
            key,
            format!("cannot be written: {panic}"),
        )),
    }
}

/// A stored row.
pub(crate) fn decoded<V: View>(key: &str, stored: Option<&Bytes>) -> Result<Option<V>, RowError> {
    let Some(bytes) = stored else { return Ok(None) };
    let what = match contained(|| serde_json::from_slice(bytes)) {
        Ok(Ok(value)) => return Ok(Some(value)),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic,
    };
    Err(RowError::of::<V>(
        key,
        format!("cannot be read: {what}; raise the `version` of the view when its fields change"),
    ))
}

/// The entries of the indexes of a row.
pub(super) fn indexed<V: View>(key: &str, value: &V) -> Result<Vec<String>, RowError> {
    let entries = contained(|| value.indexed())
        .map_err(|panic| RowError::of::<V>(key, format!("cannot be indexed: {panic}")))?;
    let most = annals_core::VIEW_KEY_BYTES_MAX;
    match entries.iter().position(|entry| entry.len() > most) {
        None => Ok(entries),
        Some(index) => {
            let name = V::INDEXES.get(index).copied().unwrap_or_default();
            let bytes = entries[index].len();
            Err(RowError::of::<V>(
                key,
                format!(
                    "cannot be indexed: its entry in index `{name}` has {bytes} bytes, at most \
                     {most} are possible"
                ),
            ))
        }
    }
}

/// Whether a stored row is what is read back from it.
pub(crate) fn read_back<V: View>(key: &str, stored: Option<&Bytes>) -> Result<(), RowError> {
    let Some(bytes) = stored else { return Ok(()) };
    let unlike = |what: String| {
        Err(RowError::of::<V>(
            key,
            format!("is not read back as it was written: {what}"),
        ))
    };
    let value: V = match contained(|| serde_json::from_slice(bytes)) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => return unlike(error.to_string()),
        Err(panic) => return unlike(panic),
    };
    let again = encode(key, &value)?;
    match first_difference(bytes, &again) {
        None => Ok(()),
        Some(difference) => unlike(difference),
    }
}

/// The first field in which two stored rows differ by value, and in what.
pub(crate) fn first_difference(one: &[u8], other: &[u8]) -> Option<String> {
    if one == other {
        return None;
    }
    let (Ok(one), Ok(other)) = (serde_json::from_slice(one), serde_json::from_slice(other)) else {
        return Some("one of them is no JSON".into());
    };
    differs(&mut String::new(), one, other)
}

/// Texts, and not numbers of a fixed width, are compared: `u128` is exact too.
fn differs(path: &mut String, one: &RawValue, other: &RawValue) -> Option<String> {
    type Fields<'a> = BTreeMap<String, &'a RawValue>;
    let (one, other) = (one.get(), other.get());
    if one == other {
        return None;
    }
    let fields = serde_json::from_str::<Fields<'_>>(one);
    if let (Ok(one), Ok(other)) = (fields, serde_json::from_str::<Fields<'_>>(other)) {
        let names: BTreeSet<_> = one.keys().chain(other.keys()).collect();
        return names.into_iter().find_map(|name| {
            let (one, other) = (one.get(name).copied(), other.get(name).copied());
            within(path, &format!(".{name}"), one, other)
        });
    }
    let items = serde_json::from_str::<Vec<&RawValue>>(one);
    if let (Ok(one), Ok(other)) = (items, serde_json::from_str::<Vec<&RawValue>>(other)) {
        let longer = one.len().max(other.len());
        return (0..longer).find_map(|index| {
            let (one, other) = (one.get(index).copied(), other.get(index).copied());
            within(path, &format!("[{index}]"), one, other)
        });
    }
    let text = serde_json::from_str::<String>(one);
    if let (Ok(one), Ok(other)) = (text, serde_json::from_str::<String>(other))
        && one == other
    {
        return None;
    }
    said(path, one, other)
}

fn within(
    path: &mut String,
    step: &str,
    one: Option<&RawValue>,
    other: Option<&RawValue>,
) -> Option<String> {
    let outer = path.len();
    path.push_str(step);
    let found = match (one, other) {
        (Some(one), Some(other)) => differs(path, one, other),
        (one, other) => {
            let one = one.map_or("nothing", RawValue::get);
            said(path, one, other.map_or("nothing", RawValue::get))
        }
    };
    path.truncate(outer);
    found
}

fn said(path: &str, one: &str, other: &str) -> Option<String> {
    let field = match path.trim_start_matches('.') {
        "" => "the value".to_owned(),
        path => format!("field `{path}`"),
    };
    let short = |text: &str| -> String { text.chars().take(80).collect() };
    Some(format!("{field} is {} and {}", short(one), short(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(one: &str, other: &str, expected: Option<&str>) {
        let found = first_difference(one.as_bytes(), other.as_bytes());
        assert_eq!(found.as_deref(), expected);
    }

    #[test]
    fn rows_are_compared_by_value_and_the_field_is_named() {
        check(r#"{"a":1,"b":[2]}"#, r#"{"b":[2],"a":1}"#, None);
        check(
            r#"{"a":{"b":[1,2]}}"#,
            r#"{"a":{"b":[1,3]}}"#,
            Some("field `a.b[1]` is 2 and 3"),
        );
        check(r#"{"a":1}"#, "{}", Some("field `a` is 1 and nothing"));
        check("{}", r#"{"a":1}"#, Some("field `a` is nothing and 1"));
        check("1", "2", Some("the value is 1 and 2"));
        check(r#"{"a":"\u00e9"}"#, r#"{"a":"é"}"#, None);
    }

    #[test]
    fn numbers_are_compared_to_the_last_digit() {
        check(
            r#"{"a":340282366920938463463374607431768211454}"#,
            r#"{"a":340282366920938463463374607431768211455}"#,
            Some(
                "field `a` is 340282366920938463463374607431768211454 and \
                 340282366920938463463374607431768211455",
            ),
        );
    }
}
