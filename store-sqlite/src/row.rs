//! Rows become events. Names are kept per connection, and the payloads of a page share one buffer.

use std::sync::Arc;

use annals_core::{EventId, Place, Position, RecordedEvent, StreamId, StreamState, Tag, Version};
use bytes::BytesMut;
use chrono::{DateTime, Utc};
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, Row};
use uuid::Uuid;

use crate::error::corrupt;
use crate::known::{PARTITION, stream_id};
use crate::statements as sql;
use crate::stream_cache::prepared;
use crate::streams::{DeletionCache, moment, number};

/// The kind of an archived event is this or less: its kind, negated.
pub(crate) const REMOVED: i64 = 0;
/// Where statements that read events have the position and the kind.
pub(crate) const POSITION: usize = 0;
pub(crate) const KIND: usize = 3;

/// How many stream names a connection caches: a power of two; some megabytes.
const STREAMS: usize = 1 << 15;
const KINDS: usize = 1 << 10;
/// Payloads share buffers of about this size: large enough to be cheap, small enough that keeping
/// one event keeps little else.
const BUFFER_BYTES: usize = 64 << 10;

/// Events that room is made for before they are read: a page of a replay. More come rarely, and
/// then it grows.
const RESERVE_EVENTS_MAX: usize = 2_048;

/// Type, schema version and codec of a kind.
#[derive(Clone, Debug)]
struct Kind {
    event_type: Arc<str>,
    schema_version: u32,
    codec: Arc<str>,
    /// The page that shares these names. Each has its own, because counting references to one name
    /// from the thread that reads and from those that use what was read costs more than all the
    /// rest.
    page: u64,
}

/// The names of keys. In one log a key's name never changes, and a connection reads one log.
///
/// Each key has one slot, which it shares with those that are `STREAMS` away: as good as a cache
/// that tracks use, and cheaper.
#[derive(Debug, Default)]
pub(crate) struct Names {
    streams: Vec<Option<(i64, StreamId)>>,
    kinds: Vec<Option<(i64, Kind)>>,
    deletions: DeletionCache,
    pages: u64,
}

impl Names {
    /// A stream's key, when it has one, and its state.
    pub(crate) fn state(
        &mut self,
        connection: &Connection,
        stream: &StreamId,
    ) -> Result<(Option<i64>, StreamState), rusqlite::Error> {
        self.deletions.state(connection, stream)
    }

    /// The name of a stream; `by_key` is prepared for the first that is not cached.
    fn stream<'a>(
        &mut self,
        connection: &'a Connection,
        by_key: &mut Option<CachedStatement<'a>>,
        key: i64,
    ) -> Result<StreamId, rusqlite::Error> {
        let slot = slot_of(&mut self.streams, key, STREAMS);
        match slot {
            Some((of, name)) if *of == key => Ok(name.clone()),
            _ => {
                let by_key = prepared(by_key, connection, sql::STREAM_NAME)?;
                let name = by_key.query_row([key], |row| stream_id(row, 0))?;
                *slot = Some((key, name.clone()));
                Ok(name)
            }
        }
    }

    fn kind(&mut self, connection: &Connection, key: i64) -> Result<&Kind, rusqlite::Error> {
        let slot = slot_of(&mut self.kinds, key, KINDS);
        if !matches!(slot, Some((of, _)) if *of == key) {
            let found = connection
                .prepare_cached(sql::KIND_NAME)?
                .query_row([key], |row| {
                    Ok(Kind {
                        event_type: row.get_ref(0)?.as_str()?.into(),
                        schema_version: row.get(1)?,
                        codec: row.get_ref(2)?.as_str()?.into(),
                        page: self.pages,
                    })
                })?;
            *slot = Some((key, found));
        }
        let (_, kind) = slot.as_mut().ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        if kind.page != self.pages {
            kind.event_type = Arc::from(&*kind.event_type);
            kind.codec = Arc::from(&*kind.codec);
            kind.page = self.pages;
        }
        Ok(kind)
    }
}

fn slot_of<T>(slots: &mut Vec<Option<(i64, T)>>, key: i64, count: usize) -> &mut Option<(i64, T)> {
    // Keys ascend from 1, so the table grows no further than there are names.
    let index = key.cast_unsigned() as usize & (count - 1);
    if index >= slots.len() {
        let length = (index + 1).next_power_of_two().min(count);
        slots.resize_with(length, || None);
    }
    &mut slots[index]
}

/// A stored time and the moment that it is: computing a date from microseconds costs more than
/// comparing two numbers.
#[derive(Debug)]
struct Moment {
    micros: i64,
    moment: DateTime<Utc>,
}

impl Moment {
    const EPOCH: Moment = Moment {
        micros: 0,
        moment: DateTime::UNIX_EPOCH,
    };

    fn at(&mut self, micros: i64) -> Result<DateTime<Utc>, rusqlite::Error> {
        if self.micros != micros {
            *self = Moment {
                micros,
                moment: moment(micros)?,
            };
        }
        Ok(self.moment)
    }
}

/// The events of one page while it is read.
pub(crate) struct Page<'a> {
    connection: &'a Connection,
    names: &'a mut Names,
    /// Looks streams up that are not cached. Kept for the page: where there are more streams than
    /// are cached it runs for each event, and taking it from its cache costs as much as that.
    stream_by_key: Option<CachedStatement<'a>>,
    events: Vec<RecordedEvent>,
    payloads: BytesMut,
    bytes: usize,
    /// The times of the event before: those of one append share them.
    occurred: Moment,
    recorded: Moment,
}

impl<'a> Page<'a> {
    /// A page of about so many events.
    pub(crate) fn new(connection: &'a Connection, names: &'a mut Names, events: usize) -> Page<'a> {
        names.pages += 1;
        let payloads = BytesMut::with_capacity(events.saturating_mul(256).min(BUFFER_BYTES));
        let events = Vec::with_capacity(events.min(RESERVE_EVENTS_MAX));
        Page {
            connection,
            names,
            stream_by_key: None,
            events,
            payloads,
            bytes: 0,
            occurred: Moment::EPOCH,
            recorded: Moment::EPOCH,
        }
    }

    pub(crate) fn is_full(&self, limit: usize) -> bool {
        self.events.len() >= limit || self.bytes >= annals_core::PAGE_BYTES_MAX
    }

    pub(crate) fn last(&self) -> Option<&RecordedEvent> {
        self.events.last()
    }

    /// Takes the last event out again: it is not one that was asked for.
    pub(crate) fn pop(&mut self) {
        if let Some(event) = self.events.pop() {
            self.bytes -= event.payload.len();
        }
    }

    /// Adds the event of a row with the columns of `sql/event.sql`.
    pub(crate) fn push(&mut self, row: &Row<'_>) -> Result<(), rusqlite::Error> {
        let by_key = &mut self.stream_by_key;
        let place = Place {
            stream: self.names.stream(self.connection, by_key, row.get(1)?)?,
            version: Version::new(number(row, 2)?),
            partition: PARTITION,
            position: Position::new(number(row, POSITION)?),
            append_index: row.get(4)?,
            recorded_at: self.recorded.at(row.get(6)?)?,
        };
        let id = Uuid::from_slice(row.get_ref(7)?.as_blob()?)
            .map_err(|_| corrupt("an id that is not 16 bytes long"))?;
        let payload = row.get_ref(10)?.as_blob()?;
        self.bytes += payload.len();
        self.payloads.extend_from_slice(payload);
        let kind = self.names.kind(self.connection, row.get(KIND)?)?;
        // Put in place at once: it is large, and most have neither tags nor metadata.
        self.events.push(RecordedEvent::new(
            EventId::from_uuid(id),
            place,
            Arc::clone(&kind.event_type),
            kind.schema_version,
            Arc::clone(&kind.codec),
            self.payloads.split().freeze(),
            self.occurred.at(row.get(5)?)?,
        ));
        let tags = row.get_ref(8)?;
        let metadata = row.get_ref(9)?;
        if (tags, metadata) == (ValueRef::Null, ValueRef::Null) {
            return Ok(());
        }
        let event = self
            .events
            .last_mut()
            .ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        if let ValueRef::Text(text) = tags {
            let text = std::str::from_utf8(text).map_err(|_| corrupt("tags that are not UTF-8"))?;
            let tags = text
                .split('\n')
                .map(str::parse::<Tag>)
                .collect::<Result<_, _>>();
            event.tags = tags.map_err(|error| corrupt(error.to_string()))?;
        }
        if let ValueRef::Text(text) = metadata {
            event.metadata = serde_json::from_slice(text)
                .map_err(|error| corrupt(format!("metadata that is not JSON: {error}")))?;
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Vec<RecordedEvent> {
        self.events
    }
}
