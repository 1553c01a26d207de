//! The state of a stream, as it is stored.

use annals_core::{Deletion, Position, Status, StreamId, StreamState, Version};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension};

use crate::error::corrupt;
use crate::statements as sql;

/// The stored codes of a status that does not follow from the events alone.
const BY_ITS_EVENTS: i64 = 0;
const DELETED: i64 = 2;
const TOMBSTONED: i64 = 3;

/// The row of a stream, with its version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamRow {
    pub(crate) key: i64,
    pub(crate) version: u64,
    pub(crate) truncated_before: u64,
    pub(crate) archived_before: u64,
    status: i64,
    deletions: i64,
}

impl StreamRow {
    pub(crate) fn status(&self) -> Status {
        match (self.status, self.version) {
            (TOMBSTONED, _) => Status::Tombstoned,
            (DELETED, _) => Status::Deleted,
            (_, 0) => Status::Absent,
            _ => Status::Active,
        }
    }
}

/// The stream's row; none when no event or change ever named it.
pub(crate) fn row(
    connection: &Connection,
    stream: &StreamId,
) -> Result<Option<StreamRow>, rusqlite::Error> {
    connection
        .prepare_cached(sql::STREAM)?
        .query_row([stream.as_str()], |row| {
            Ok(StreamRow {
                key: row.get(0)?,
                status: row.get(1)?,
                truncated_before: number(row, 2)?,
                archived_before: number(row, 3)?,
                deletions: row.get(4)?,
                version: row.get::<_, Option<i64>>(5)?.map_or(0, i64::cast_unsigned),
            })
        })
        .optional()
}

/// The stream's key, when it has one, and its state.
pub(crate) fn state(
    connection: &Connection,
    stream: &StreamId,
) -> Result<(Option<i64>, StreamState), rusqlite::Error> {
    let Some(row) = row(connection, stream)? else {
        return Ok((None, StreamState::absent()));
    };
    let mut state = StreamState::absent();
    state.status = row.status();
    state.version = Version::new(row.version);
    state.truncated_before = Version::new(row.truncated_before);
    state.archived_before = Version::new(row.archived_before);
    if row.deletions > 0 {
        let mut statement = connection.prepare_cached(sql::STREAM_DELETIONS)?;
        let deletions = statement.query_map([row.key], |row| {
            Ok(Deletion {
                version: Version::new(number(row, 0)?),
                position: Position::new(number(row, 1)?),
                recorded_at: moment(row.get(2)?)?,
            })
        })?;
        state.deletions = deletions.collect::<Result<_, _>>()?;
    }
    Ok((Some(row.key), state))
}

/// Saves the state of the stream `key`, of which `known` deletions were saved before.
pub(crate) fn save(
    connection: &Connection,
    key: i64,
    state: &StreamState,
    known: usize,
) -> Result<(), rusqlite::Error> {
    let status = match state.status {
        Status::Deleted => DELETED,
        Status::Tombstoned => TOMBSTONED,
        _ => BY_ITS_EVENTS,
    };
    let row = (
        key,
        status,
        stored(state.truncated_before),
        stored(state.archived_before),
        state.deletions.len() as i64,
    );
    connection
        .prepare_cached(sql::UPDATE_STREAM)?
        .execute(row)?;
    for deletion in &state.deletions[known..] {
        let position = deletion.position.get().cast_signed();
        let row = (
            key,
            stored(deletion.version),
            position,
            deletion.recorded_at.timestamp_micros(),
        );
        connection
            .prepare_cached(sql::INSERT_DELETION)?
            .execute(row)?;
    }
    Ok(())
}

fn stored(version: Version) -> i64 {
    version.get().cast_signed()
}

/// A count, version or position, which is never negative.
pub(crate) fn number(row: &rusqlite::Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| corrupt(format!("a negative number in column {column}")))
}

/// A stored time.
pub(crate) fn moment(micros: i64) -> Result<DateTime<Utc>, rusqlite::Error> {
    DateTime::from_timestamp_micros(micros).ok_or_else(|| corrupt(format!("{micros} is no moment")))
}
