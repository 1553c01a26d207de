//! Deleting, tombstoning, truncating and archiving a stream, inside the open write transaction.

use std::collections::BTreeSet;

use annals_core::{
    AppendError, ChangeStream, Clock, DeadLetter, EventId, Invalid, Position, StreamChange,
    StreamState, Version, Violation,
};
use rusqlite::{Connection, OptionalExtension};

use crate::error::corrupt;
use crate::known::stream_id;
use crate::statements as sql;
use crate::stream_cache::{StreamStatements, tag_key};
use crate::streams;
use crate::write_tx::{Refused, Stop, WriteTx};

/// The stored codes of changes.
const DELETE: i64 = 0;
const TOMBSTONE: i64 = 1;
const TRUNCATE: i64 = 2;
const ARCHIVE: i64 = 3;

/// The change that was done under an id.
pub(crate) fn done_change(
    connection: &Connection,
    id: EventId,
) -> Result<Option<ChangeStream>, rusqlite::Error> {
    connection
        .prepare_cached(sql::STREAM_CHANGE)?
        .query_row([id.as_uuid().as_bytes()], |row| {
            let before = Version::new(streams::number(row, 2)?);
            let change = match row.get(1)? {
                DELETE => StreamChange::Delete,
                TOMBSTONE => StreamChange::Tombstone,
                TRUNCATE => StreamChange::Truncate { before },
                ARCHIVE => StreamChange::Archive { before },
                other => return Err(corrupt(format!("there is no change {other} of streams"))),
            };
            Ok(ChangeStream::new(&stream_id(row, 0)?, change).id(id))
        })
        .optional()
}

impl WriteTx {
    /// Changes the stream when the expectation holds; the rules are those of
    /// [`StreamState::changed`].
    pub(crate) fn change(
        &mut self,
        asked: &ChangeStream,
        clock: &dyn Clock,
    ) -> Result<StreamState, Stop> {
        let stream = &asked.stream;
        let (key, found) = streams::state(&self.connection, stream)?;
        if let Some(done) = done_change(&self.connection, asked.id)? {
            asked.check_repeats(&done).map_err(Refused)?;
            return Ok(found);
        }
        if !asked.expected.allows_writing(&found) {
            let violation = Violation::Stream {
                index: 0,
                stream: stream.clone(),
                expected: asked.expected,
                found,
            };
            return Err(Stop::Refused(AppendError::Conflict(vec![violation])));
        }
        let code = code_of(asked.change).map_err(Refused)?;
        let recorded = self.now(clock)?;
        let head = Position::new(self.tail.head);
        let after = found
            .changed(stream, asked.change, head, streams::moment(recorded)?)
            .map_err(Refused)?;
        let key = match key {
            Some(key) => key,
            None => {
                let mut statements = StreamStatements::of(&self.connection);
                self.stream_cache.keyed(&mut statements, stream)?.0
            }
        };
        self.connection
            .prepare_cached(sql::INSERT_STREAM_CHANGE)?
            .execute((asked.id.as_uuid().as_bytes(), key, code.0, code.1))?;
        if let Some(replica) = &mut self.replica {
            replica.wrote_change(asked, streams::moment(recorded)?);
        }
        if after == found {
            return Ok(after);
        }
        streams::save(&self.connection, key, &after, found.deletions.len())?;
        if after.archived_before > found.archived_before {
            self.archive(key, after.archived_before)?;
        }
        self.tail.recorded = recorded;
        self.stream_cache.forget(stream);
        Ok(after)
    }

    /// Removes what events before a version held, and what was kept of it: tags, snapshots and the
    /// causes of dead letters. The events' rows stay, so that no id and no position is free again.
    fn archive(&mut self, stream: i64, before: Version) -> Result<(), rusqlite::Error> {
        let range = (stream, before.get().cast_signed());
        // What is removed for good is also overwritten where it filled pages of its own.
        self.connection.pragma_update(None, "secure_delete", true)?;
        let tagged: Vec<(i64, String)> = self
            .connection
            .prepare_cached(sql::ARCHIVED_TAGS)?
            .query_map(range, |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let mut removed = BTreeSet::new();
        for (position, tags) in &tagged {
            for tag in tags.split('\n') {
                if let Some(tag) = tag_key(&self.connection, tag)? {
                    self.connection
                        .prepare_cached(sql::DELETE_EVENT_TAG)?
                        .execute((tag, position))?;
                    removed.insert(tag);
                }
            }
        }
        // The name of a tag may be what was to be forgotten.
        for tag in removed {
            self.connection
                .prepare_cached(sql::DELETE_UNUSED_TAG)?
                .execute([tag])?;
        }
        self.stream_cache.forget_tags();
        self.connection
            .prepare_cached(sql::DELETE_SNAPSHOTS)?
            .execute([stream])?;
        self.connection
            .prepare_cached(sql::FORGET_CAUSES)?
            .execute((range.0, range.1, DeadLetter::ARCHIVED))?;
        self.connection
            .prepare_cached(sql::ARCHIVE)?
            .execute(range)?;
        self.connection.pragma_update(None, "secure_delete", "fast")
    }
}

/// The code of a change, and its version.
fn code_of(change: StreamChange) -> Result<(i64, i64), Invalid> {
    Ok(match change {
        StreamChange::Delete => (DELETE, 0),
        StreamChange::Tombstone => (TOMBSTONE, 0),
        StreamChange::Truncate { before } => (TRUNCATE, before.get().cast_signed()),
        StreamChange::Archive { before } => (ARCHIVE, before.get().cast_signed()),
        other => {
            return Err(Invalid::new(format!(
                "streams cannot be changed by {other:?} here"
            )));
        }
    })
}
