//! Rows become events. Names are kept per connection, and the payloads of a page share one buffer.

use std::sync::Arc;

use annals_core::{EventId, Place, Position, RecordedEvent, StreamId, Tag, Version};
use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use uuid::Uuid;

use crate::error::corrupt;
use crate::known::{PARTITION, stream_id};
use crate::request::decode_metadata;
use crate::statements as sql;
use crate::streams::{moment, number};

/// The kind of an event that was removed for good.
pub(crate) const REMOVED: i64 = 0;
/// Where statements that read events have the position and the kind.
pub(crate) const POSITION: usize = 0;
pub(crate) const KIND: usize = 3;

/// How many streams a connection knows by name: a power of two; some megabytes.
const STREAMS: usize = 1 << 15;
const KINDS: usize = 1 << 10;
/// The most that is set aside for payloads before they are read.
const RESERVE_BYTES_MAX: usize = 512 << 10;

/// Type, schema version and codec of a kind.
#[derive(Clone, Debug)]
struct Kind {
    event_type: Arc<str>,
    schema_version: u32,
    codec: Arc<str>,
}

/// The names behind keys. A key's name never changes, so nothing in here is ever wrong.
///
/// Each key has one place, which it shares with those that are `STREAMS` away: as good as a cache that keeps track, and cheaper.
#[derive(Debug, Default)]
pub(crate) struct Names {
    streams: Vec<Option<(i64, StreamId)>>,
    kinds: Vec<Option<(i64, Kind)>>,
    bytes_before: usize,
}

impl Names {
    fn stream(&mut self, connection: &Connection, key: i64) -> Result<StreamId, rusqlite::Error> {
        let place = place_of(&mut self.streams, key, STREAMS);
        match place {
            Some((of, name)) if *of == key => Ok(name.clone()),
            _ => {
                let name = connection.prepare_cached(sql::STREAM_NAME)?.query_row([key], |row| stream_id(row, 0))?;
                *place = Some((key, name.clone()));
                Ok(name)
            }
        }
    }

    fn kind(&mut self, connection: &Connection, key: i64) -> Result<&Kind, rusqlite::Error> {
        let place = place_of(&mut self.kinds, key, KINDS);
        if !matches!(place, Some((of, _)) if *of == key) {
            let found = connection.prepare_cached(sql::KIND_NAME)?.query_row([key], |row| {
                Ok(Kind {
                    event_type: row.get_ref(0)?.as_str()?.into(),
                    schema_version: row.get(1)?,
                    codec: row.get_ref(2)?.as_str()?.into(),
                })
            })?;
            *place = Some((key, found));
        }
        place.as_ref().map(|(_, kind)| kind).ok_or(rusqlite::Error::QueryReturnedNoRows)
    }
}

fn place_of<T>(places: &mut Vec<Option<(i64, T)>>, key: i64, count: usize) -> &mut Option<(i64, T)> {
    // Keys ascend from 1, so the table grows no further than there are names.
    let index = key.cast_unsigned() as usize & (count - 1);
    if index >= places.len() {
        let length = (index + 1).next_power_of_two().min(count);
        places.resize_with(length, || None);
    }
    &mut places[index]
}

/// The events of one page while it is read.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    connection: &'a Connection,
    names: &'a mut Names,
    events: Vec<RecordedEvent>,
    payloads: Vec<u8>,
    ends: Vec<usize>,
}

impl<'a> Page<'a> {
    pub(crate) fn new(connection: &'a Connection, names: &'a mut Names, events: usize) -> Page<'a> {
        let payloads = Vec::with_capacity(names.bytes_before.min(events.saturating_mul(512)).min(RESERVE_BYTES_MAX));
        let events = events.min(annals_core::PAGE_EVENTS);
        Page { connection, names, events: Vec::with_capacity(events), payloads, ends: Vec::with_capacity(events) }
    }

    pub(crate) fn is_full(&self, limit: usize) -> bool {
        self.events.len() >= limit || self.payloads.len() >= annals_core::PAGE_BYTES_MAX
    }

    pub(crate) fn last(&self) -> Option<&RecordedEvent> {
        self.events.last()
    }

    /// Takes the last event out again: it is not one that was asked for.
    pub(crate) fn pop(&mut self) {
        self.events.pop();
        self.ends.pop();
        self.payloads.truncate(self.ends.last().copied().unwrap_or(0));
    }

    /// Adds the event of a row with the columns of `sql/event.sql`.
    pub(crate) fn push(&mut self, row: &Row<'_>) -> Result<(), rusqlite::Error> {
        let place = Place {
            stream: self.names.stream(self.connection, row.get(1)?)?,
            version: Version::new(number(row, 2)?),
            partition: PARTITION,
            position: Position::new(number(row, POSITION)?),
            append_index: row.get(4)?,
            recorded_at: moment(row.get(6)?)?,
        };
        let occurred_at = moment(row.get(5)?)?;
        let kind = self.names.kind(self.connection, row.get(KIND)?)?;
        let mut event = RecordedEvent::new(
            EventId::from_uuid(uuid(row.get_ref(7)?)?),
            place,
            Arc::clone(&kind.event_type),
            kind.schema_version,
            Arc::clone(&kind.codec),
            Bytes::new(),
            occurred_at,
        );
        if let ValueRef::Text(text) = row.get_ref(11)? {
            event.metadata = decode_metadata(utf8(text)?)?;
        }
        event.metadata.correlation = some_uuid(row.get_ref(8)?)?;
        event.metadata.causation = some_uuid(row.get_ref(9)?)?.map(EventId::from_uuid);
        if let ValueRef::Text(text) = row.get_ref(10)? {
            let tags = utf8(text)?.split('\n').map(str::parse::<Tag>).collect::<Result<_, _>>();
            event.tags = tags.map_err(|error| corrupt(error.to_string()))?;
        }
        self.payloads.extend_from_slice(row.get_ref(12)?.as_blob()?);
        self.ends.push(self.payloads.len());
        self.events.push(event);
        Ok(())
    }

    /// The events, with their payloads.
    pub(crate) fn finish(mut self) -> Vec<RecordedEvent> {
        self.names.bytes_before = self.payloads.len() + self.payloads.len() / 8;
        let payloads = Bytes::from(self.payloads);
        let mut start = 0;
        for (event, end) in self.events.iter_mut().zip(self.ends) {
            event.payload = payloads.slice(start..end);
            start = end;
        }
        self.events
    }
}

fn uuid(value: ValueRef<'_>) -> Result<Uuid, rusqlite::Error> {
    Uuid::from_slice(value.as_blob()?).map_err(|_| corrupt("an id that is not 16 bytes long"))
}

fn some_uuid(value: ValueRef<'_>) -> Result<Option<Uuid>, rusqlite::Error> {
    match value {
        ValueRef::Null => Ok(None),
        value => uuid(value).map(Some),
    }
}

fn utf8(text: &[u8]) -> Result<&str, rusqlite::Error> {
    std::str::from_utf8(text).map_err(|_| corrupt("a text that is not UTF-8"))
}
