//! Columns of rows are read where they lie, in the binary format.

use annals_core::StreamId;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{Error, Row, ValueRef};

use crate::error::corrupt;

/// The columns of an event, as statements that read events name them after those of their own.
pub(crate) const COLUMNS: &str = "position, stream, version, kind, append_index, occurred_at, \
    recorded_at, id, tags, metadata, payload";

/// What came of a row.
pub(crate) trait Columns {
    /// The bytes of a column; none when it is null.
    fn column(&self, at: usize) -> Result<Option<&[u8]>, Error>;
}

impl Columns for PgRow {
    fn column(&self, at: usize) -> Result<Option<&[u8]>, Error> {
        let value = self.try_get_raw(at)?;
        if value.is_null() {
            return Ok(None);
        }
        value.as_bytes().map(Some).map_err(Error::Decode)
    }
}

/// The bytes of a column; none when it is null.
pub(crate) fn bytes(row: &impl Columns, column: usize) -> Result<Option<&[u8]>, Error> {
    row.column(column)
}

/// A number of eight bytes; an error when it is null.
pub(crate) fn int8(row: &impl Columns, column: usize) -> Result<i64, Error> {
    optional_int8(row, column)?.ok_or_else(|| corrupt(format!("nothing in column {column}")))
}

/// A number of eight bytes, or null.
pub(crate) fn optional_int8(row: &impl Columns, column: usize) -> Result<Option<i64>, Error> {
    let Some(bytes) = bytes(row, column)? else {
        return Ok(None);
    };
    let bytes = bytes
        .try_into()
        .map_err(|_| corrupt(format!("column {column} is no bigint")))?;
    Ok(Some(i64::from_be_bytes(bytes)))
}

/// A number of four bytes.
pub(crate) fn int4(row: &impl Columns, column: usize) -> Result<i32, Error> {
    let bytes = bytes(row, column)?.unwrap_or_default();
    bytes
        .try_into()
        .map(i32::from_be_bytes)
        .map_err(|_| corrupt(format!("column {column} is no integer")))
}

/// A text that is not null.
pub(crate) fn text(row: &impl Columns, column: usize) -> Result<&str, Error> {
    std::str::from_utf8(bytes(row, column)?.unwrap_or_default())
        .map_err(|_| corrupt(format!("column {column} is not UTF-8")))
}

/// An id or a digest.
pub(crate) fn sixteen(row: &impl Columns, column: usize) -> Result<[u8; 16], Error> {
    let bytes = bytes(row, column)?.unwrap_or_default();
    bytes
        .try_into()
        .map_err(|_| corrupt(format!("column {column} is no uuid")))
}

/// A count or a place, which is never negative.
pub(crate) fn number(row: &impl Columns, column: usize) -> Result<u64, Error> {
    u64::try_from(int8(row, column)?)
        .map_err(|_| corrupt(format!("a negative number in column {column}")))
}

/// The name of a stream.
pub(crate) fn stream_id(row: &impl Columns, column: usize) -> Result<StreamId, Error> {
    StreamId::any(text(row, column)?).map_err(|error| corrupt(error.to_string()))
}

/// A stored time.
pub(crate) fn moment(micros: i64) -> Result<DateTime<Utc>, Error> {
    DateTime::from_timestamp_micros(micros).ok_or_else(|| corrupt(format!("{micros} is no moment")))
}
