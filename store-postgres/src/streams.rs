//! What a stream is, as the database says.

use annals_core::{Deletion, Position, Status, StreamId, StreamState, Version};
use sqlx::postgres::{PgExecutor, PgRow};
use sqlx::{Error, Row};

use crate::database::Database;
use crate::error::corrupt;
use crate::row::{bytes, moment, number, optional_int8, text};
use crate::statements as sql;

/// The stored codes of a status that does not follow from events alone.
const BY_ITS_EVENTS: i16 = 0;
const DELETED: i16 = 2;
const TOMBSTONED: i16 = 3;

/// What a stored code and a version say together.
pub(crate) fn status(code: i16, version: u64) -> Status {
    match (code, version) {
        (TOMBSTONED, _) => Status::Tombstoned,
        (DELETED, _) => Status::Deleted,
        (_, 0) => Status::Absent,
        _ => Status::Active,
    }
}

/// The code under which a status is stored.
pub(crate) fn code(status: Status) -> i16 {
    match status {
        Status::Deleted => DELETED,
        Status::Tombstoned => TOMBSTONED,
        _ => BY_ITS_EVENTS,
    }
}

/// All that is known of a stream, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// None when it was never named.
    pub(crate) key: Option<i64>,
    pub(crate) state: StreamState,
    pub(crate) head: u64,
    /// The position of its last event.
    pub(crate) last: u64,
    /// The last change of any stream.
    pub(crate) changes: i64,
}

/// What the stream is.
pub(crate) async fn see(
    database: &Database,
    on: impl PgExecutor<'_>,
    stream: &StreamId,
) -> Result<Seen, Error> {
    let row = sqlx::query(database.text(sql::STREAM))
        .bind(stream.as_str())
        .fetch_one(on)
        .await?;
    seen(&row)
}

/// Reads the columns of `sql/stream.sql`.
pub(crate) fn seen(row: &PgRow) -> Result<Seen, Error> {
    let head = number(row, 0)?;
    let changes = row.try_get(1)?;
    let Some(key) = optional_int8(row, 2)? else {
        return Ok(Seen {
            key: None,
            state: StreamState::absent(),
            head,
            last: 0,
            changes,
        });
    };
    let mut state = StreamState::absent();
    let version = number(row, 6)?;
    state.status = status(row.try_get(3)?, version);
    state.version = Version::new(version);
    state.truncated_before = Version::new(number(row, 4)?);
    state.archived_before = Version::new(number(row, 5)?);
    if bytes(row, 8)?.is_some() {
        state.deletions = text(row, 8)?
            .split(',')
            .map(deletion)
            .collect::<Result<_, _>>()?;
    }
    Ok(Seen {
        key: Some(key),
        state,
        head,
        last: number(row, 7)?,
        changes,
    })
}

fn deletion(column: &str) -> Result<Deletion, Error> {
    let wrong = || corrupt("a deletion that is not understood");
    let mut parts = column.split(' ').map(str::parse::<i64>);
    let mut next = || parts.next().and_then(Result::ok).ok_or_else(wrong);
    let version = next()?;
    let position = next()?;
    let recorded_at = next()?;
    Ok(Deletion {
        version: Version::new(version.cast_unsigned()),
        position: Position::new(position.cast_unsigned()),
        recorded_at: moment(recorded_at)?,
    })
}
