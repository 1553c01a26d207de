//! A stretch of a partition, read once and shared by all who follow it.

use std::ops::Range;

use annals_core::{Position, RecordedEvent};
use bytes::{Bytes, BytesMut};
use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};

use super::mapping::{Mapper, RawRecord, position_of};

/// Bounds of a page.
pub(crate) const PAGE_RECORDS_MAX: usize = 8_192;
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Events between two positions, unfiltered.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) after: Position,
    /// How far it looked: records end before this position when the rest are markers.
    pub(crate) scanned: Position,
    pub(crate) events: Vec<RecordedEvent>,
}

/// Records that are being collected: their bytes are copied once, into one allocation.
#[derive(Default)]
pub(crate) struct Collecting {
    arena: BytesMut,
    records: Vec<Ranges>,
}

struct Ranges {
    partition: u32,
    offset: i64,
    time_ms: i64,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Vec<(String, Option<Range<usize>>)>,
}

impl Collecting {
    pub(crate) fn push(&mut self, message: &BorrowedMessage<'_>) {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|header| {
                    let value = header.value.map(|value| copy(&mut self.arena, value));
                    (header.key.to_owned(), value)
                })
                .collect()
        });
        let record = Ranges {
            partition: message.partition() as u32,
            offset: message.offset(),
            time_ms: message.timestamp().to_millis().unwrap_or(0),
            key: message.key().map(|key| copy(&mut self.arena, key)),
            value: message.payload().map(|value| copy(&mut self.arena, value)),
            headers,
        };
        self.records.push(record);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.records.len() >= PAGE_RECORDS_MAX || self.arena.len() >= PAGE_BYTES_MAX
    }

    /// The position of the last record.
    pub(crate) fn last(&self) -> Option<Position> {
        self.records.last().map(|record| position_of(record.offset))
    }

    /// The page of what was collected.
    pub(crate) fn page(self, after: Position, scanned: Position, mapper: &mut Mapper) -> Page {
        let arena = self.arena.freeze();
        let slice = |range: Range<usize>| arena.slice(range);
        let event = |record: Ranges| {
            mapper.event(RawRecord {
                partition: record.partition,
                offset: record.offset,
                time_ms: record.time_ms,
                key: record.key.map(slice),
                value: record.value.map(slice),
                headers: record
                    .headers
                    .into_iter()
                    .map(|(name, value): (String, Option<Range<usize>>)| {
                        (name, value.map(slice) as Option<Bytes>)
                    })
                    .collect(),
            })
        };
        Page {
            after,
            scanned,
            events: self.records.into_iter().map(event).collect(),
        }
    }
}

fn copy(arena: &mut BytesMut, bytes: &[u8]) -> Range<usize> {
    let start = arena.len();
    arena.extend_from_slice(bytes);
    start..arena.len()
}
