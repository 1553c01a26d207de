//! Changes of a table as ordinary events of a type.

use std::marker::PhantomData;

use annals_core::{
    CodecError, DecodeError, Decoded, Encoded, Event, Invalid, Shape, Stored, Tag, derive::unknown,
};

use crate::columns::Columns;
use crate::payload::{Because, EventBody, MovedPayload, RowPayload, TruncatePayload, body_of};
use crate::record::{BeforeImage, RowOp};
use crate::row::{ColumnError, ReceivedRow, TableRow};
use crate::schema::Column;

/// A change of a row of a captured table: an ordinary event, which views, reactors and processes
/// handle.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::exhaustive_enums)]
pub enum Change<T: TableRow> {
    /// It was there when the table was copied; it may be known already.
    Read {
        /// The row.
        after: T,
    },
    /// It is new.
    Inserted {
        /// The row.
        after: T,
    },
    /// It has other values, and perhaps another key.
    Updated {
        /// What is known of it before.
        before: Before<T>,
        /// The row.
        after: T,
    },
    /// It goes on under another key.
    Moved {
        /// That key.
        to: T::Key,
    },
    /// It is gone.
    Deleted {
        /// What is known of it before.
        before: Before<T>,
        /// Why.
        because: Because,
    },
}

/// What is known of a row before a change.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::exhaustive_enums)]
pub enum Before<T: TableRow> {
    /// Nothing: the table does not send it.
    Unknown,
    /// Its key.
    Key(T::Key),
    /// All of it.
    Row(T),
}

/// What is about a table as a whole: a type of its own, because it has no key.
///
/// ```
/// # use annals_cdc::{TableEvent, TableRow};
/// # fn example<T: TableRow>(event: &TableEvent<T>) {
/// if let TableEvent::Truncated(truncated) = event {
///     println!("{:?} rows", truncated.rows);
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TableEvent<T> {
    /// It was emptied. A `deleted` follows for each row, unless that was turned off.
    Truncated(TruncatePayload),
    /// It looks otherwise from here on.
    Schema {
        /// The number of this shape, from 1.
        number: u32,
        /// Its columns.
        columns: Vec<Column>,
    },
    /// Not made.
    #[doc(hidden)]
    Never(std::convert::Infallible, PhantomData<fn() -> T>),
}

/// A change of a row in columns, as it is stored: what [`TableOf`](crate::TableOf) is folded from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RawChange<T> {
    /// What is stored.
    pub body: EventBody,
    table: PhantomData<fn() -> T>,
}

fn malformed(stored: Stored<'_>, error: impl Into<CodecError>) -> DecodeError {
    DecodeError::Malformed {
        event_type: stored.event_type.to_owned(),
        schema_version: stored.schema_version,
        source: error.into(),
    }
}

fn body<E: Event>(stored: Stored<'_>) -> Result<EventBody, DecodeError> {
    let is_known = |shape: &Shape| {
        shape.event_type == stored.event_type && shape.schema_version == stored.schema_version
    };
    if !E::shapes().iter().any(is_known) {
        return Err(unknown::<E>(stored));
    }
    body_of(stored).map_err(|error| malformed(stored, CodecError::new(error)))
}

fn shape_of<T: TableRow>(index: usize) -> &'static Shape {
    &T::shapes()[index]
}

fn encoded(value: &impl serde::Serialize) -> Result<Encoded, CodecError> {
    Ok(Encoded {
        codec: "json",
        payload: serde_json::to_vec(value).map_err(CodecError::new)?.into(),
    })
}

impl<T: TableRow> Event for Change<T> {
    const CATEGORY: &'static str = T::CATEGORY;

    fn shapes() -> &'static [Shape] {
        T::shapes()
    }

    fn shape(&self) -> &'static Shape {
        shape_of::<T>(match self {
            Change::Read { .. } => 0,
            Change::Inserted { .. } => 1,
            Change::Updated { .. } => 2,
            Change::Deleted { .. } => 3,
            Change::Moved { .. } => 4,
        })
    }

    fn tags(&self) -> Result<Vec<Tag>, Invalid> {
        Ok(Vec::new())
    }

    /// Only what has whole rows can be written by hand, for tests: an ingest writes the rest.
    fn encode(&self) -> Result<Encoded, CodecError> {
        let (before, after, because) = match self {
            Change::Read { after } | Change::Inserted { after } => {
                (&Before::Unknown, Some(after), Because::Deleted)
            }
            Change::Updated { before, after } => (before, Some(after), Because::Deleted),
            Change::Deleted { before, because } => (before, None, *because),
            Change::Moved { .. } => {
                return Err(CodecError::new("a moved row is written by an ingest only"));
            }
        };
        let before = match before {
            Before::Row(row) => Some(row.to_columns()),
            _ => None,
        };
        let after = after.map(TableRow::to_columns);
        let key = key_in::<T>(after.as_ref().or(before.as_ref()));
        let key = key.ok_or_else(|| {
            CodecError::new("a deletion without the row is written by an ingest only")
        })?;
        encoded(&RowPayload::by_hand(key, before, after, because))
    }

    fn decode(stored: Stored<'_>) -> Result<Decoded<Change<T>>, DecodeError> {
        let change = match body::<Change<T>>(stored)? {
            EventBody::Moved(MovedPayload { to, .. }) => {
                T::key_of(&to).map(|to| Change::Moved { to })
            }
            EventBody::Row(op, payload) => change(op, &payload),
        };
        change
            .map(Decoded::One)
            .map_err(|error| malformed(stored, CodecError::new(error)))
    }
}

fn key_in<T: TableRow>(columns: Option<&Columns>) -> Option<Columns> {
    let names: Vec<_> = T::key_names().iter().map(|name| (*name).into()).collect();
    columns.map(|columns| columns.only(&names))
}

/// A stored change of a row as the type says it.
pub(crate) fn change<T: TableRow>(
    op: RowOp,
    payload: &RowPayload,
) -> Result<Change<T>, ColumnError> {
    let after = || {
        let empty = Columns::default();
        let columns = payload.after.as_ref().unwrap_or(&empty);
        let mut columns = std::borrow::Cow::Borrowed(columns);
        let mut unchanged = payload.unchanged.clone();
        if let Some(carried) = &payload.carried {
            unchanged.retain(|name| carried.get(name).is_none());
            for (name, value) in carried.iter() {
                columns.to_mut().set(name, value.map(str::to_owned));
            }
        }
        T::from_columns(&ReceivedRow {
            columns: &columns,
            unchanged: &unchanged,
            schema: payload.schema,
        })
    };
    let before = || -> Result<Before<T>, ColumnError> {
        Ok(match payload.before() {
            BeforeImage::None => Before::Unknown,
            BeforeImage::Key(columns) => T::key_of(&columns).map_or(Before::Unknown, Before::Key),
            BeforeImage::Full(columns) => Before::Row(T::from_columns(&ReceivedRow {
                columns: &columns,
                unchanged: &[],
                schema: payload.schema,
            })?),
        })
    };
    Ok(match op {
        RowOp::Read => Change::Read { after: after()? },
        RowOp::Insert => Change::Inserted { after: after()? },
        RowOp::Update => Change::Updated {
            before: before()?,
            after: after()?,
        },
        RowOp::Delete => Change::Deleted {
            before: before()?,
            because: payload.because,
        },
    })
}

impl<T: TableRow> Event for RawChange<T> {
    const CATEGORY: &'static str = T::CATEGORY;

    fn shapes() -> &'static [Shape] {
        T::shapes()
    }

    fn shape(&self) -> &'static Shape {
        shape_of::<T>(match &self.body {
            EventBody::Row(RowOp::Read, _) => 0,
            EventBody::Row(RowOp::Insert, _) => 1,
            EventBody::Row(RowOp::Update, _) => 2,
            EventBody::Row(RowOp::Delete, _) => 3,
            EventBody::Moved(_) => 4,
        })
    }

    fn tags(&self) -> Result<Vec<Tag>, Invalid> {
        Ok(Vec::new())
    }

    fn encode(&self) -> Result<Encoded, CodecError> {
        match &self.body {
            EventBody::Row(_, payload) => encoded(payload),
            EventBody::Moved(payload) => encoded(payload),
        }
    }

    fn decode(stored: Stored<'_>) -> Result<Decoded<RawChange<T>>, DecodeError> {
        Ok(Decoded::One(RawChange {
            body: body::<RawChange<T>>(stored)?,
            table: PhantomData,
        }))
    }
}

impl<T: TableRow> Event for TableEvent<T> {
    const CATEGORY: &'static str = T::CATEGORY;

    fn shapes() -> &'static [Shape] {
        T::table_shapes()
    }

    fn shape(&self) -> &'static Shape {
        match self {
            TableEvent::Truncated(_) => &T::table_shapes()[0],
            _ => &T::table_shapes()[1],
        }
    }

    fn tags(&self) -> Result<Vec<Tag>, Invalid> {
        Ok(Vec::new())
    }

    fn encode(&self) -> Result<Encoded, CodecError> {
        match self {
            TableEvent::Truncated(truncated) => encoded(truncated),
            TableEvent::Schema { number, columns } => encoded(&serde_json::json!({
                "number": number,
                "identity": crate::schema::Identity::Default,
                "columns": columns,
            })),
            TableEvent::Never(never, _) => match *never {},
        }
    }

    fn decode(stored: Stored<'_>) -> Result<Decoded<TableEvent<T>>, DecodeError> {
        #[derive(serde::Deserialize)]
        struct Payload {
            number: u32,
            columns: Vec<Column>,
        }
        let wrong = |error| malformed(stored, CodecError::new(error));
        let is_of = |shape: &Shape| {
            shape.event_type == stored.event_type && shape.schema_version == stored.schema_version
        };
        let event = match T::table_shapes().iter().position(is_of) {
            Some(0) => {
                TableEvent::Truncated(serde_json::from_slice(stored.payload).map_err(wrong)?)
            }
            Some(_) => {
                let Payload { number, columns } =
                    serde_json::from_slice(stored.payload).map_err(wrong)?;
                TableEvent::Schema { number, columns }
            }
            None => return Err(unknown::<TableEvent<T>>(stored)),
        };
        Ok(Decoded::One(event))
    }
}
