//! Deleting, tombstoning, truncating and archiving a stream, inside the open write transaction.

use std::sync::Arc;

use annals_core::{
    AppendError, Clock, Expected, Position, StreamChange, StreamId, StreamState, Version, Violation,
};

use crate::statements as sql;
use crate::stream_cache::tag_key;
use crate::streams;
use crate::write_tx::{Refused, Stop, WriteTx};

/// What is to be done to a stream.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) stream: StreamId,
    pub(crate) expected: Expected,
    pub(crate) change: StreamChange,
    pub(crate) clock: Arc<dyn Clock>,
}

impl WriteTx {
    /// Changes the stream when the expectation holds; the rules are those of
    /// [`StreamState::changed`].
    pub(crate) fn change(&mut self, wanted: &Change) -> Result<StreamState, Stop> {
        let Change {
            stream,
            expected,
            change,
            clock,
        } = wanted;
        let (key, found) = streams::state(&self.connection, stream)?;
        if !expected.allows_writing(&found) {
            let violation = Violation::Stream {
                index: 0,
                stream: stream.clone(),
                expected: *expected,
                found,
            };
            return Err(Stop::Refused(AppendError::Conflict(vec![violation])));
        }
        let recorded = self.recorded.max(clock.now().timestamp_micros());
        let head = Position::new(self.head);
        let after = found
            .changed(stream, *change, head, streams::moment(recorded)?)
            .map_err(Refused)?;
        if after == found {
            return Ok(after);
        }
        let key = match key {
            Some(key) => key,
            None => self.dictionary.stream_key(&self.connection, stream)?,
        };
        streams::save(&self.connection, key, &after, found.deletions.len())?;
        if after.archived_before > found.archived_before {
            self.archive(key, after.archived_before)?;
        }
        self.recorded = recorded;
        self.dictionary.forget(stream);
        Ok(after)
    }

    /// Removes what events held below `before`. Their rows stay, so that no id and no position is
    /// ever free again.
    fn archive(&self, stream: i64, before: Version) -> Result<(), rusqlite::Error> {
        let range = (stream, before.get().cast_signed());
        // What is removed for good is also overwritten where it filled pages of its own.
        self.connection.pragma_update(None, "secure_delete", true)?;
        let tagged: Vec<(i64, String)> = self
            .connection
            .prepare_cached(sql::ARCHIVED_TAGS)?
            .query_map(range, |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (position, tags) in tagged {
            for tag in tags.split('\n') {
                if let Some(tag) = tag_key(&self.connection, tag)? {
                    self.connection
                        .prepare_cached(sql::DELETE_EVENT_TAG)?
                        .execute((tag, position))?;
                }
            }
        }
        self.connection
            .prepare_cached(sql::ARCHIVE)?
            .execute(range)?;
        self.connection.pragma_update(None, "secure_delete", "fast")
    }
}
