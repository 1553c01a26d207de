//! The state of a stream, as it is stored.

use annals_core::{Deletion, Position, Status, StreamId, StreamState, Version};
use chrono::{DateTime, Utc};
use hashlink::LruCache;
use rusqlite::{Connection, OptionalExtension, Statement};

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
    let mut statement = connection.prepare_cached(sql::STREAM)?;
    row_by(&mut statement, stream)
}

/// As [`row`], by that statement.
pub(crate) fn row_by(
    statement: &mut Statement<'_>,
    stream: &StreamId,
) -> Result<Option<StreamRow>, rusqlite::Error> {
    statement
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
    let mut deletions = Deletions::default();
    if row.deletions > 0 {
        deletions.read_on(connection, row.key)?;
    }
    Ok((Some(row.key), row.state(deletions.of_stream)))
}

impl StreamRow {
    fn state(&self, deletions: Vec<Deletion>) -> StreamState {
        let mut state = StreamState::absent();
        state.status = self.status();
        state.version = Version::new(self.version);
        state.truncated_before = Version::new(self.truncated_before);
        state.archived_before = Version::new(self.archived_before);
        state.deletions = deletions;
        state
    }
}

/// The deletions of a stream, as far as they were read. One that was committed never changes.
#[derive(Debug, Default)]
struct Deletions {
    of_stream: Vec<Deletion>,
    last_key: i64,
}

impl Deletions {
    /// Reads those that came since.
    fn read_on(&mut self, connection: &Connection, stream: i64) -> Result<(), rusqlite::Error> {
        let mut statement = connection.prepare_cached(sql::STREAM_DELETIONS)?;
        let mut rows = statement.query((stream, self.last_key))?;
        while let Some(row) = rows.next()? {
            self.of_stream.push(Deletion {
                version: Version::new(number(row, 0)?),
                position: Position::new(number(row, 1)?),
                recorded_at: moment(row.get(2)?)?,
            });
            self.last_key = row.get(3)?;
        }
        Ok(())
    }
}

/// So many deletions of a stream are read each time; only more are worth caching.
const DELETIONS_MIN: i64 = 16;
/// More of one stream are not cached: some 2 MB.
const DELETIONS_MAX: i64 = 65_536;
/// Streams with many deletions that a connection caches.
const STREAMS: usize = 8;

/// The deletions of the streams that had many, so that a look at such a stream does not read all of
/// them.
#[derive(Debug)]
pub(crate) struct DeletionCache(LruCache<i64, Deletions>);

impl Default for DeletionCache {
    fn default() -> DeletionCache {
        DeletionCache(LruCache::new(STREAMS))
    }
}

impl DeletionCache {
    /// As [`state`], in a transaction that only reads.
    pub(crate) fn state(
        &mut self,
        connection: &Connection,
        stream: &StreamId,
    ) -> Result<(Option<i64>, StreamState), rusqlite::Error> {
        let Some(row) = row(connection, stream)? else {
            return Ok((None, StreamState::absent()));
        };
        if !(DELETIONS_MIN..=DELETIONS_MAX).contains(&row.deletions) {
            return state(connection, stream);
        }
        let mut deletions = self.0.remove(&row.key).unwrap_or_default();
        if (deletions.of_stream.len() as i64) < row.deletions {
            deletions.read_on(connection, row.key)?;
        }
        let found = row.state(deletions.of_stream.clone());
        self.0.insert(row.key, deletions);
        Ok((Some(row.key), found))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletions_that_were_read_are_not_read_again() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(include_str!("sql/schema/001_tables.sql"))
            .unwrap();
        let stream = StreamId::new("a-1").unwrap();
        connection
            .execute(
                "insert into annals_streams (name, status) values ('a-1', 2)",
                [],
            )
            .unwrap();
        let mut cache = DeletionCache::default();
        let mut expected = state(&connection, &stream).unwrap().1;
        for n in 0..100 {
            let known = expected.deletions.len();
            expected.deletions.push(Deletion {
                version: Version::new(n),
                position: Position::new(n),
                recorded_at: DateTime::UNIX_EPOCH,
            });
            save(&connection, 1, &expected, known).unwrap();
            assert_eq!(state(&connection, &stream).unwrap().1, expected);
            assert_eq!(cache.state(&connection, &stream).unwrap().1, expected);
        }
        connection
            .execute("delete from annals_deletions", [])
            .unwrap();
        assert_eq!(cache.state(&connection, &stream).unwrap().1, expected);
    }
}
