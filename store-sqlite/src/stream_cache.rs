//! What the writer knows of names: streams with their versions, kinds, categories and tags, each
//! with its key.
//!
//! What is cached is true inside the open write transaction, and is forgotten when another process
//! has written or a transaction was rolled back.

use std::fmt::Write as _;

use annals_core::{NewEvent, Status, StreamId, StreamState, Tag, Version};
use hashlink::LruCache;
use rusqlite::{CachedStatement, Connection, OptionalExtension};

use crate::statements as sql;
use crate::streams::{self, StreamRow};

/// Streams that are cached: some 5 MB, also when each of them is new, as in a large transaction of
/// a captured table.
const STREAMS: usize = 32_768;
/// Kinds, categories and tags that are cached, of each.
const NAMES: usize = 16_384;
/// Categories that have kinds of their own; events of all others share those of category 0, and
/// readers compare their stream names.
pub(crate) const CATEGORIES_MAX: i64 = 256;

/// A stream's key, version and status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamEntry {
    /// None until it is first written to.
    pub(crate) key: Option<i64>,
    pub(crate) version: u64,
    pub(crate) status: Status,
    /// The append that changed it last, for undoing it.
    pub(crate) append: u64,
}

impl StreamEntry {
    fn of(row: Option<StreamRow>) -> StreamEntry {
        StreamEntry {
            key: row.map(|row| row.key),
            version: row.map_or(0, |row| row.version),
            status: row.map_or(Status::Absent, |row| row.status()),
            append: 0,
        }
    }

    /// What an expectation is checked against.
    pub(crate) fn state(&self) -> StreamState {
        let mut state = StreamState::absent();
        state.status = self.status;
        state.version = Version::new(self.version);
        state
    }
}

/// The statements that look streams up and give them keys, each kept from its first use on: taking
/// one from its cache costs as much as running it, and an append may name thousands of streams.
pub(crate) struct StreamStatements<'a> {
    connection: &'a Connection,
    select: Option<CachedStatement<'a>>,
    insert: Option<CachedStatement<'a>>,
}

impl<'a> StreamStatements<'a> {
    pub(crate) fn of(connection: &'a Connection) -> StreamStatements<'a> {
        StreamStatements {
            connection,
            select: None,
            insert: None,
        }
    }

    fn row(&mut self, stream: &StreamId) -> Result<Option<StreamRow>, rusqlite::Error> {
        let select = prepared(&mut self.select, self.connection, sql::STREAM)?;
        streams::row_by(select, stream)
    }

    fn insert(&mut self, stream: &StreamId) -> Result<i64, rusqlite::Error> {
        let insert = prepared(&mut self.insert, self.connection, sql::INSERT_STREAM)?;
        insert.insert([stream.as_str()])
    }
}

/// A statement that is kept from its first use on.
pub(crate) fn prepared<'s, 'a>(
    statement: &'s mut Option<CachedStatement<'a>>,
    connection: &'a Connection,
    text: &str,
) -> Result<&'s mut CachedStatement<'a>, rusqlite::Error> {
    if statement.is_none() {
        *statement = Some(connection.prepare_cached(text)?);
    }
    statement
        .as_mut()
        .ok_or(rusqlite::Error::QueryReturnedNoRows)
}

#[derive(Debug)]
pub(crate) struct StreamCache {
    streams: LruCache<StreamId, StreamEntry>,
    kinds: LruCache<String, i64>,
    categories: LruCache<String, i64>,
    tags: LruCache<Tag, i64>,
    // Reused for every event, so that a lookup allocates nothing.
    wanted: String,
    /// Whether a name was added since this was last set to false.
    pub(crate) added: bool,
}

impl StreamCache {
    pub(crate) fn new() -> StreamCache {
        StreamCache {
            streams: LruCache::new(STREAMS),
            kinds: LruCache::new(NAMES),
            categories: LruCache::new(NAMES),
            tags: LruCache::new(NAMES),
            wanted: String::new(),
            added: false,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.streams.clear();
        self.kinds.clear();
        self.categories.clear();
        self.tags.clear();
    }

    /// The stream's entry, also when it is absent.
    pub(crate) fn stream(
        &mut self,
        statements: &mut StreamStatements<'_>,
        stream: &StreamId,
    ) -> Result<&mut StreamEntry, rusqlite::Error> {
        self.learn(statements, stream)?;
        self.streams
            .get_mut(stream)
            .ok_or(rusqlite::Error::QueryReturnedNoRows)
    }

    fn learn(
        &mut self,
        statements: &mut StreamStatements<'_>,
        stream: &StreamId,
    ) -> Result<(), rusqlite::Error> {
        if !self.streams.contains_key(stream) {
            let entry = StreamEntry::of(statements.row(stream)?);
            self.streams.insert(stream.clone(), entry);
        }
        Ok(())
    }

    /// The stream's key, and its entry; it is given a key when it has none.
    pub(crate) fn keyed(
        &mut self,
        statements: &mut StreamStatements<'_>,
        stream: &StreamId,
    ) -> Result<(i64, &mut StreamEntry), rusqlite::Error> {
        self.learn(statements, stream)?;
        let entry = self
            .streams
            .get_mut(stream)
            .ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let key = match entry.key {
            Some(key) => key,
            None => {
                self.added = true;
                *entry.key.insert(statements.insert(stream)?)
            }
        };
        Ok((key, entry))
    }

    /// Puts back the entries of before an append that was refused, in the order in which they were
    /// touched.
    pub(crate) fn undo(&mut self, touched: Vec<(StreamId, StreamEntry)>) {
        // Names that the append had added were rolled back.
        if std::mem::take(&mut self.added) {
            self.clear();
            return;
        }
        for (stream, entry) in touched.into_iter().rev() {
            self.streams.insert(stream, entry);
        }
    }

    /// The stream changed in another way than by an append.
    pub(crate) fn forget(&mut self, stream: &StreamId) {
        self.streams.remove(stream);
    }

    /// Tags were removed.
    pub(crate) fn forget_tags(&mut self) {
        self.tags.clear();
    }

    /// The key of the event's category, type, schema version and codec.
    pub(crate) fn kind(
        &mut self,
        connection: &Connection,
        stream: &StreamId,
        event: &NewEvent,
    ) -> Result<i64, rusqlite::Error> {
        // No name holds a control character.
        self.wanted.clear();
        let category = stream.category();
        let version = event.schema_version;
        let codec = &event.codec;
        let _ = write!(
            self.wanted,
            "{category}\n{}\n{version}\n{codec}",
            event.event_type
        );
        if let Some(key) = self.kinds.get(self.wanted.as_str()) {
            return Ok(*key);
        }
        let category = self.category(connection, category)?;
        let row = (&*event.event_type, version, &**codec, category);
        let found = connection
            .prepare_cached(sql::KIND)?
            .query_row(row, |row| row.get(0))
            .optional()?;
        let key = match found {
            Some(key) => key,
            None => {
                self.added = true;
                connection.prepare_cached(sql::INSERT_KIND)?.insert(row)?
            }
        };
        self.kinds.insert(self.wanted.clone(), key);
        Ok(key)
    }

    fn category(&mut self, connection: &Connection, name: &str) -> Result<i64, rusqlite::Error> {
        if let Some(key) = self.categories.get(name) {
            return Ok(*key);
        }
        let key = match category_key(connection, name)? {
            Some(key) => key,
            None => {
                self.added = true;
                let added = connection
                    .prepare_cached(sql::INSERT_CATEGORY)?
                    .execute((name, CATEGORIES_MAX))?;
                if added == 0 {
                    0
                } else {
                    connection.last_insert_rowid()
                }
            }
        };
        self.categories.insert(name.into(), key);
        Ok(key)
    }

    /// The tag's key; it is given one when it has none.
    pub(crate) fn tag(
        &mut self,
        connection: &Connection,
        tag: &Tag,
    ) -> Result<i64, rusqlite::Error> {
        if let Some(key) = self.tags.get(tag) {
            return Ok(*key);
        }
        let key = match tag_key(connection, tag.as_str())? {
            Some(key) => key,
            None => {
                self.added = true;
                connection
                    .prepare_cached(sql::INSERT_TAG)?
                    .insert([tag.as_str()])?
            }
        };
        self.tags.insert(tag.clone(), key);
        Ok(key)
    }
}

/// The key of a tag that some event has had.
pub(crate) fn tag_key(connection: &Connection, tag: &str) -> Result<Option<i64>, rusqlite::Error> {
    connection
        .prepare_cached(sql::TAG)?
        .query_row([tag], |row| row.get(0))
        .optional()
}

/// The key of a category that has kinds of its own.
pub(crate) fn category_key(
    connection: &Connection,
    name: &str,
) -> Result<Option<i64>, rusqlite::Error> {
    connection
        .prepare_cached(sql::CATEGORY)?
        .query_row([name], |row| row.get(0))
        .optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stream_is_given_one_key_by_statements_that_are_kept() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(include_str!("sql/schema/001_tables.sql"))
            .unwrap();
        let mut statements = StreamStatements::of(&connection);
        let streams = ["a-1", "a-2", "a-1"].map(|name| StreamId::new(name).unwrap());
        let mut keys = |cache: &mut StreamCache| -> Vec<i64> {
            streams
                .iter()
                .map(|stream| cache.keyed(&mut statements, stream).unwrap().0)
                .collect()
        };
        let mut cache = StreamCache::new();
        let given = keys(&mut cache);
        assert_eq!(given[0], given[2]);
        assert_ne!(given[0], given[1]);
        assert!(cache.added);
        cache.clear();
        assert_eq!(keys(&mut cache), given);
    }
}
