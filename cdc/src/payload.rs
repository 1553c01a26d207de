//! From a record to the content of events, and back: what is stored of a change.

use std::sync::Arc;

use annals_core::Stored;
use serde::{Deserialize, Serialize};

use crate::columns::Columns;
use crate::record::{BeforeImage, RowOp, RowRecord};

/// Why a row is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Because {
    /// A statement deleted it.
    #[default]
    Deleted,
    /// Its table was truncated.
    Truncate,
    /// It was not there any more when the table was compared.
    Sweep,
}

impl Because {
    fn is_deleted(&self) -> bool {
        *self == Because::Deleted
    }
}

/// How much of the old row is in the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BeforeKind {
    #[default]
    None,
    Key,
    Full,
}

/// The content of a `read`, `inserted`, `updated` or `deleted` event.
///
/// ```
/// use annals_cdc::RowPayload;
///
/// let text = r#"{"key":{"id":"42"},"after":{"id":"42","status":"shipped"},"schema":3}"#;
/// let payload: RowPayload = serde_json::from_str(text)?;
/// assert_eq!(payload.key.get("id"), Some(Some("42")));
/// assert_eq!(serde_json::to_string(&payload)?, text);
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RowPayload {
    /// The key of the row after the change, or the one that a deleted row had.
    pub key: Columns,
    /// What is known of the old row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<Columns>,
    #[serde(default, skip_serializing_if = "is_default")]
    before_kind: BeforeKind,
    /// The row after the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Columns>,
    /// Columns that did not change and were not sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unchanged: Vec<Arc<str>>,
    /// Values of unchanged columns that were read from the stream of the old key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Columns>,
    /// Why a row is gone.
    #[serde(default, skip_serializing_if = "Because::is_deleted")]
    pub because: Because,
    /// The number of the table's schema.
    #[serde(default, skip_serializing_if = "is_default")]
    pub schema: u32,
}

/// As [`RowPayload`], without copies of the values: it is written for every change.
#[derive(Serialize)]
pub(crate) struct RowPayloadOf<'a> {
    key: &'a Columns,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<&'a Columns>,
    #[serde(skip_serializing_if = "is_default")]
    before_kind: BeforeKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<&'a Columns>,
    #[serde(skip_serializing_if = "is_empty")]
    unchanged: &'a [Arc<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    carried: Option<&'a Columns>,
    #[serde(skip_serializing_if = "Because::is_deleted")]
    because: Because,
    #[serde(skip_serializing_if = "is_default")]
    schema: u32,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_empty(names: &&[Arc<str>]) -> bool {
    names.is_empty()
}

impl<'a> RowPayloadOf<'a> {
    pub(crate) fn new(
        record: &'a RowRecord,
        schema: u32,
        carried: Option<&'a Columns>,
    ) -> RowPayloadOf<'a> {
        RowPayloadOf {
            key: &record.key,
            before: record.before.columns(),
            before_kind: BeforeKind::of(&record.before),
            after: record.after.as_ref(),
            unchanged: &record.unchanged,
            carried,
            because: record.because,
            schema,
        }
    }
}

impl BeforeKind {
    fn of(before: &BeforeImage) -> BeforeKind {
        match before {
            BeforeImage::None => BeforeKind::None,
            BeforeImage::Key(_) => BeforeKind::Key,
            BeforeImage::Full(_) => BeforeKind::Full,
        }
    }
}

impl RowPayload {
    /// What is stored of a change.
    pub fn of(record: &RowRecord, schema: u32) -> RowPayload {
        RowPayload {
            key: record.key.clone(),
            before: record.before.columns().cloned(),
            before_kind: BeforeKind::of(&record.before),
            after: record.after.clone(),
            unchanged: record.unchanged.clone(),
            carried: None,
            because: record.because,
            schema,
        }
    }

    pub(crate) fn by_hand(
        key: Columns,
        before: Option<Columns>,
        after: Option<Columns>,
        because: Because,
    ) -> RowPayload {
        let before_kind = match before {
            Some(_) => BeforeKind::Full,
            None => BeforeKind::None,
        };
        RowPayload {
            key,
            before,
            before_kind,
            after,
            because,
            ..RowPayload::default()
        }
    }

    /// The old row, where all of it is known.
    pub(crate) fn full_before(&self) -> Option<&Columns> {
        let is_full = self.before_kind == BeforeKind::Full;
        self.before.as_ref().filter(|_| is_full)
    }

    /// What is known of the old row.
    pub fn before(&self) -> BeforeImage {
        match (self.before_kind, &self.before) {
            (BeforeKind::Key, Some(columns)) => BeforeImage::Key(columns.clone()),
            (BeforeKind::Full, Some(columns)) => BeforeImage::Full(columns.clone()),
            _ => BeforeImage::None,
        }
    }
}

/// The content of a `moved` event: its row goes on under another key.
///
/// ```
/// let moved: annals_cdc::MovedPayload = serde_json::from_str(
///     r#"{"key":{"id":"42"},"to":{"id":"43"}}"#,
/// )?;
/// assert_eq!(moved.to.get("id"), Some(Some("43")));
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)]
pub struct MovedPayload {
    /// The key that the row had.
    pub key: Columns,
    /// The key that it has now.
    pub to: Columns,
}

/// The content of a `truncated` event.
///
/// ```
/// let text = r#"{"cascade":true,"restart_identity":null,"rows":812}"#;
/// let truncated: annals_cdc::TruncatePayload = serde_json::from_str(text)?;
/// assert_eq!(truncated.rows, Some(812));
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)]
pub struct TruncatePayload {
    /// Whether tables that refer to it were included, where the source says so.
    pub cascade: Option<bool>,
    /// Whether its sequences began again, where the source says so.
    pub restart_identity: Option<bool>,
    /// How many rows were deleted by it; nothing when that was not counted.
    pub rows: Option<u64>,
}

/// A stored change, its payload read.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EventBody {
    /// A row was read, inserted, updated or deleted.
    Row(RowOp, RowPayload),
    /// A row goes on under another key.
    Moved(MovedPayload),
}

/// A stored change of a row that cannot be read.
///
/// ```
/// use annals_cdc::body_of;
/// use annals_core::Stored;
///
/// let stored = Stored {
///     event_type: "public.orders.archived",
///     schema_version: 1,
///     codec: "json",
///     payload: b"{}",
/// };
/// let error = body_of(stored).unwrap_err();
/// assert_eq!(error.to_string(), "`public.orders.archived` v1 in `json` is no change of a row");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedChange {
    /// It is something else.
    #[error("`{event_type}` v{schema_version} in `{codec}` is no change of a row")]
    Other {
        /// The stored name of its type.
        event_type: String,
        /// The version of its shape.
        schema_version: u32,
        /// How it is written.
        codec: String,
    },
    /// Its payload is not what it should be.
    #[error("the payload of a `{event_type}` cannot be read")]
    Payload {
        /// The stored name of its type.
        event_type: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// Reads a stored change of a row.
///
/// # Errors
///
/// [`MalformedChange`] when it is none.
pub fn body_of(stored: Stored<'_>) -> Result<EventBody, MalformedChange> {
    let malformed = |source| MalformedChange::Payload {
        event_type: stored.event_type.to_owned(),
        source,
    };
    let op = match stored.event_type.rsplit_once('.') {
        _ if stored.schema_version != 1 || stored.codec != "json" => None,
        Some((_, "read")) => Some(RowOp::Read),
        Some((_, "inserted")) => Some(RowOp::Insert),
        Some((_, "updated")) => Some(RowOp::Update),
        Some((_, "deleted")) => Some(RowOp::Delete),
        Some((_, "moved")) => {
            let moved = serde_json::from_slice(stored.payload).map_err(malformed)?;
            return Ok(EventBody::Moved(moved));
        }
        _ => None,
    };
    let Some(op) = op else {
        return Err(MalformedChange::Other {
            event_type: stored.event_type.to_owned(),
            schema_version: stored.schema_version,
            codec: stored.codec.to_owned(),
        });
    };
    let payload = serde_json::from_slice(stored.payload).map_err(malformed)?;
    Ok(EventBody::Row(op, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::TableName;

    #[test]
    fn what_is_written_without_copies_is_the_payload() {
        let columns = |value| Columns::default().with("id", Some(value)).with("n", None);
        let carried = columns("3");
        for (before, after, unchanged, because) in [
            (
                BeforeImage::None,
                Some(columns("1")),
                vec![],
                Because::Deleted,
            ),
            (BeforeImage::Key(columns("0")), None, vec![], Because::Sweep),
            (
                BeforeImage::Full(columns("0")),
                Some(columns("1")),
                vec!["big".into()],
                Because::Deleted,
            ),
        ] {
            let record = RowRecord {
                op: RowOp::Update,
                table: TableName::new("public", "t"),
                key: columns("1"),
                before,
                after,
                unchanged,
                schema: None,
                because,
                snapshot: None,
            };
            for carried in [None, Some(&carried)] {
                let mut payload = RowPayload::of(&record, 3);
                payload.carried = carried.cloned();
                let written = RowPayloadOf::new(&record, 3, carried);
                assert_eq!(
                    serde_json::to_string(&written).unwrap(),
                    serde_json::to_string(&payload).unwrap()
                );
            }
        }
    }
}
