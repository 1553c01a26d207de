//! Deleting, tombstoning, truncating and archiving a stream, inside the open write transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use annals_core::{
    AppendError, Clock, Expected, Position, StreamChange, StreamId, StreamState, Version, Violation,
};

use crate::statements as sql;
use crate::stream_cache::tag_key;
use crate::streams;
use crate::write_tx::{Refused, Stop, WriteTx};

/// A change of a stream that is no append.
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
        let recorded = self.now(&**clock)?;
        let head = Position::new(self.tail.head);
        let after = found
            .changed(stream, *change, head, streams::moment(recorded)?)
            .map_err(Refused)?;
        if after == found {
            return Ok(after);
        }
        let key = match key {
            Some(key) => key,
            None => self.stream_cache.stream_key(&self.connection, stream)?,
        };
        streams::save(&self.connection, key, &after, found.deletions.len())?;
        if after.archived_before > found.archived_before {
            self.archive(key, after.archived_before)?;
        }
        self.tail.recorded = recorded;
        self.stream_cache.forget(stream);
        Ok(after)
    }

    /// Removes what events before a version held, and what was kept of it: tags and snapshots. The
    /// events' rows stay, so that no id and no position is free again.
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
            .prepare_cached(sql::ARCHIVE)?
            .execute(range)?;
        self.connection.pragma_update(None, "secure_delete", "fast")
    }
}
