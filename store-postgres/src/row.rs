//! Rows become events: columns are read where they lie, names come from a cache, and the payloads of a page share buffers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::{EventId, PAGE_BYTES_MAX, Place, Position, RecordedEvent, StreamId, Tag, Version};
use bytes::BytesMut;
use chrono::{DateTime, Utc};
use hashlink::LruCache;
use sqlx::postgres::PgRow;
use sqlx::{Error, Row, ValueRef};
use uuid::Uuid;

use crate::database::Database;
use crate::error::corrupt;
use crate::known::PARTITION;
use crate::statements as sql;

/// Streams that a reader knows by name: some megabytes.
const STREAMS: usize = 32_768;
/// Payloads share buffers of about this size: large enough to be cheap, small enough that keeping one event keeps little else.
const BUFFER_BYTES: usize = 64 << 10;

/// The columns of an event, as statements that read events name them behind those of their own.
pub(crate) const COLUMNS: &str =
    "position, stream, version, kind, append_index, occurred_at, recorded_at, id, tags, metadata, payload";

/// The bytes of a column; none when it is null. Answers come in the binary format.
pub(crate) fn bytes(row: &PgRow, column: usize) -> Result<Option<&[u8]>, Error> {
    let value = row.try_get_raw(column)?;
    if value.is_null() {
        return Ok(None);
    }
    value.as_bytes().map(Some).map_err(Error::Decode)
}

/// A number of eight bytes; an error when it is null.
pub(crate) fn int8(row: &PgRow, column: usize) -> Result<i64, Error> {
    optional_int8(row, column)?.ok_or_else(|| corrupt(format!("nothing in column {column}")))
}

/// A number of eight bytes, or null.
pub(crate) fn optional_int8(row: &PgRow, column: usize) -> Result<Option<i64>, Error> {
    let Some(bytes) = bytes(row, column)? else { return Ok(None) };
    let bytes = bytes.try_into().map_err(|_| corrupt(format!("column {column} is no bigint")))?;
    Ok(Some(i64::from_be_bytes(bytes)))
}

/// A number of four bytes.
fn int4(row: &PgRow, column: usize) -> Result<i32, Error> {
    let bytes = bytes(row, column)?.unwrap_or_default();
    bytes.try_into().map(i32::from_be_bytes).map_err(|_| corrupt(format!("column {column} is no integer")))
}

/// A text that is not null.
pub(crate) fn text(row: &PgRow, column: usize) -> Result<&str, Error> {
    std::str::from_utf8(bytes(row, column)?.unwrap_or_default())
        .map_err(|_| corrupt(format!("column {column} is not UTF-8")))
}

/// An id or a digest.
pub(crate) fn sixteen(row: &PgRow, column: usize) -> Result<[u8; 16], Error> {
    let bytes = bytes(row, column)?.unwrap_or_default();
    bytes.try_into().map_err(|_| corrupt(format!("column {column} is no uuid")))
}

/// A count or a place, which is never negative.
pub(crate) fn number(row: &PgRow, column: usize) -> Result<u64, Error> {
    u64::try_from(int8(row, column)?).map_err(|_| corrupt(format!("a negative number in column {column}")))
}

/// The name of a stream.
pub(crate) fn stream_id(row: &PgRow, column: usize) -> Result<StreamId, Error> {
    StreamId::any(text(row, column)?).map_err(|error| corrupt(error.to_string()))
}

/// A stored time.
pub(crate) fn moment(micros: i64) -> Result<DateTime<Utc>, Error> {
    DateTime::from_timestamp_micros(micros).ok_or_else(|| corrupt(format!("{micros} is no moment")))
}

/// Type, schema version and codec of a kind.
#[derive(Clone, Debug)]
struct Kind {
    event_type: Arc<str>,
    schema_version: u32,
    codec: Arc<str>,
}

/// The names behind keys, as one reader at a time knows them. A key's name never changes, so nothing in here is ever wrong.
#[derive(Debug)]
pub(crate) struct Names {
    streams: LruCache<i64, StreamId>,
    kinds: HashMap<i32, Kind>,
}

/// What readers know, each with a set of its own so that none waits for another.
#[derive(Debug, Default)]
pub(crate) struct AllNames {
    idle: Mutex<Vec<Names>>,
}

impl AllNames {
    fn take(&self) -> Names {
        let known = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        known.unwrap_or_else(|| Names { streams: LruCache::new(STREAMS), kinds: HashMap::new() })
    }

    fn give_back(&self, names: Names) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(names);
    }
}

/// The events of rows that have the columns of [`COLUMNS`] from column `first` on; rows without an event are left out.
///
/// Ends with the event that fills a page, and before one whose payload was left out, whatever follows.
pub(crate) async fn events(database: &Database, rows: &[PgRow], first: usize) -> Result<Vec<RecordedEvent>, Error> {
    let mut names = database.names.take();
    let learnt = names.learn(database, rows, first).await;
    let events = match learnt {
        Ok(()) => names.decode(rows, first),
        Err(error) => Err(error),
    };
    database.names.give_back(names);
    events
}

impl Names {
    /// Looks up the names that the rows need and that are not known yet.
    async fn learn(&mut self, database: &Database, rows: &[PgRow], first: usize) -> Result<(), Error> {
        let mut unknown = Vec::new();
        let mut unknown_kind = false;
        let mut last = None;
        for row in rows {
            let Some(stream) = optional_int8(row, first + 1)? else { continue };
            if last != Some(stream) && self.streams.get(&stream).is_none() {
                unknown.push(stream);
            }
            last = Some(stream);
            unknown_kind |= !self.kinds.contains_key(&int4(row, first + 3)?);
        }
        if unknown_kind {
            for row in sqlx::query(database.text(sql::KINDS)).fetch_all(&database.pool).await? {
                let schema_version = u32::try_from(number(&row, 2)?).map_err(|_| corrupt("a version of a shape"))?;
                let kind = Kind { event_type: text(&row, 1)?.into(), schema_version, codec: text(&row, 3)?.into() };
                self.kinds.insert(int4(&row, 0)?, kind);
            }
        }
        if !unknown.is_empty() {
            unknown.sort_unstable();
            unknown.dedup();
            let found = sqlx::query(database.text(sql::STREAM_NAMES)).bind(&unknown).fetch_all(&database.pool).await?;
            for row in found {
                self.streams.insert(int8(&row, 0)?, stream_id(&row, 1)?);
            }
        }
        Ok(())
    }

    fn decode(&mut self, rows: &[PgRow], first: usize) -> Result<Vec<RecordedEvent>, Error> {
        let mut events = Vec::with_capacity(rows.len());
        let mut payloads = BytesMut::with_capacity(rows.len().saturating_mul(128).min(BUFFER_BYTES));
        let mut size = 0;
        // Each page has its own copies of these names, because counting references to one name from the thread that reads and from
        // those that use what was read costs more than all the rest.
        let mut kinds: Vec<(i32, Kind)> = Vec::new();
        for row in rows {
            let Some(position) = optional_int8(row, first)? else { continue };
            let Some(payload) = bytes(row, first + 10)?.filter(|_| size < PAGE_BYTES_MAX) else { break };
            let stream = int8(row, first + 1)?;
            let stream = self.streams.get(&stream).ok_or_else(|| corrupt(format!("stream {stream} has no name")))?;
            let place = Place {
                stream: stream.clone(),
                version: Version::new(number(row, first + 2)?),
                partition: PARTITION,
                position: Position::new(position.cast_unsigned()),
                append_index: int4(row, first + 4)?.cast_unsigned(),
                recorded_at: moment(int8(row, first + 6)?)?,
            };
            let key = int4(row, first + 3)?;
            let at = match kinds.iter().position(|(of, _)| *of == key) {
                Some(at) => at,
                None => {
                    let kind = self.kinds.get(&key).ok_or_else(|| corrupt(format!("kind {key} has no name")))?;
                    let (event_type, codec) = (Arc::from(&*kind.event_type), Arc::from(&*kind.codec));
                    kinds.push((key, Kind { event_type, schema_version: kind.schema_version, codec }));
                    kinds.len() - 1
                }
            };
            let kind = &kinds[at].1;
            size += payload.len();
            payloads.extend_from_slice(payload);
            // Put in place at once: it is large, and most have neither tags nor metadata.
            events.push(RecordedEvent::new(
                EventId::from_uuid(Uuid::from_bytes(sixteen(row, first + 7)?)),
                place,
                Arc::clone(&kind.event_type),
                kind.schema_version,
                Arc::clone(&kind.codec),
                payloads.split().freeze(),
                moment(int8(row, first + 5)?)?,
            ));
            let (tags, metadata) = (bytes(row, first + 8)?, bytes(row, first + 9)?);
            let Some(event) = events.last_mut().filter(|_| tags.is_some() || metadata.is_some()) else { continue };
            if tags.is_some() {
                event.tags = tags_of(text(row, first + 8)?)?;
            }
            if let Some(metadata) = metadata {
                event.metadata = serde_json::from_slice(metadata)
                    .map_err(|error| corrupt(format!("metadata that is not understood: {error}")))?;
            }
        }
        Ok(events)
    }
}

/// The tags of a column, one a line.
pub(crate) fn tags_of(column: &str) -> Result<Vec<Tag>, Error> {
    column
        .split('\n')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|error: annals_core::Invalid| corrupt(error.to_string()))
}
