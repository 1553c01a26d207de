//! Records become events: their streams, types, ids and metadata. Pure.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use annals_core::{EventId, Invalid, Metadata, NewEvent, StreamId};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::Placed;
use super::payload_buffer::PayloadBuffer;
use crate::columns::Columns;
use crate::key::{category, escaped, row_stream_in, table_stream};
use crate::lsn::Lsn;
use crate::payload::{MovedPayload, RowPayloadOf, TruncatePayload};
use crate::record::{At, LogicalMessage, Record, RowOp, RowRecord};
use crate::schema::{TableName, TableSchema};

/// Makes the events of records of one source.
///
/// ```
/// use annals_cdc::{EventMaker, TableName};
///
/// let maker = EventMaker::new("postgres 7", "");
/// let orders = TableName::new("public", "orders");
/// assert_eq!(maker.event_type(&orders, "inserted"), "public.orders.inserted");
/// ```
#[derive(Clone, Debug)]
pub struct EventMaker {
    source: Arc<str>,
    prefix: String,
    /// What an event is made of: a new one would ask for an id and for the time, to be replaced.
    blank: NewEvent,
    known: Known,
}

/// What was made before, and serves the next row: names of tables, what the last transaction has in
/// common, and the buffer of its payloads.
#[derive(Default)]
struct Known(Mutex<LastMade>);

/// Where a transaction is, its number, and when it was committed.
type Transaction = (Lsn, Option<u64>, Option<DateTime<Utc>>);

#[derive(Default)]
struct LastMade {
    tables: Vec<Arc<TableNames>>,
    correlation: Option<(Transaction, Uuid)>,
    payloads: PayloadBuffer,
}

/// Names of a table, as they are stored.
struct TableNames {
    table: TableName,
    category: String,
    /// In the order of [`OPS`].
    types: [String; 4],
}

/// In the order in which they are declared.
const OPS: [RowOp; 4] = [RowOp::Read, RowOp::Insert, RowOp::Update, RowOp::Delete];

/// So many tables are known by their names at most: then it begins again.
const TABLES_MAX: usize = 64;

impl Known {
    fn with<T>(&self, look: impl FnOnce(&mut LastMade) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Clone for Known {
    fn clone(&self) -> Known {
        // It is made again where it is missing.
        Known::default()
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known")
    }
}

const fn what(op: RowOp) -> &'static str {
    match op {
        RowOp::Read => "read",
        RowOp::Insert => "inserted",
        RowOp::Update => "updated",
        RowOp::Delete => "deleted",
    }
}

impl EventMaker {
    /// Of this source, with this prefix of streams and types.
    pub fn new(source: impl Into<Arc<str>>, prefix: &str) -> EventMaker {
        EventMaker {
            source: source.into(),
            prefix: prefix.to_owned(),
            blank: NewEvent::json("", ""),
            known: Known::default(),
        }
    }

    fn names(&self, table: &TableName) -> Arc<TableNames> {
        self.known.with(|last| {
            if let Some(found) = last.tables.iter().find(|of| of.table == *table) {
                return Arc::clone(found);
            }
            let names = Arc::new(TableNames {
                table: table.clone(),
                category: category(&self.prefix, table),
                types: OPS.map(|op| self.event_type(table, what(op))),
            });
            if last.tables.len() >= TABLES_MAX {
                last.tables.clear();
            }
            last.tables.push(Arc::clone(&names));
            names
        })
    }

    /// What it was made for.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// The stored name of an event of a table.
    pub fn event_type(&self, table: &TableName, what: &str) -> String {
        if self.prefix.is_empty() {
            format!("{}.{what}", table.stored())
        } else {
            format!("{}.{}.{what}", escaped(&self.prefix), table.stored())
        }
    }

    /// The stream of a table.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when its name is too long.
    pub fn table_stream(&self, table: &TableName) -> Result<StreamId, Invalid> {
        table_stream(&self.prefix, table)
    }

    /// The stream of a row.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the name of the table is too long.
    pub fn row_stream(&self, table: &TableName, key: &Columns) -> Result<StreamId, Invalid> {
        row_stream_in(&self.names(table).category, key)
    }

    /// The events of a change of a row, and values that are carried over from the stream of its
    /// old key.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the name of the table is too long.
    pub fn row(
        &self,
        record: &Record,
        row: &RowRecord,
        schema: u32,
        carried: Option<Columns>,
    ) -> Result<Vec<Placed>, Invalid> {
        let names = self.names(&row.table);
        let stream = row_stream_in(&names.category, &row.key)?;
        let payload = self.json_of(&RowPayloadOf::new(row, schema, carried.as_ref()))?;
        // Deletions of a truncate share the ordinal of the truncate.
        let event_type = names.types[row.op as usize].clone();
        let moved_from = row.moved_from();
        let of_id = match (&moved_from, &record.repeat_key) {
            // Said again, it may be in halves.
            (Some(_), Some(_)) => RowOp::Insert,
            _ => row.op,
        };
        let id = self.id_of(record, &[what(of_id), " ", stream.as_str()]);
        let mut events = Vec::with_capacity(1);
        if let Some(old) = moved_from {
            events.push(self.moved(record, &row.table, &old, &row.key)?);
        }
        let mut event = self.blank.clone().id(id);
        event.event_type = event_type.into();
        event.payload = payload;
        events.push((stream, self.with_metadata(event, record)));
        Ok(events)
    }

    /// The event of a row that goes on under another key.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the name of the table is too long.
    pub fn moved(
        &self,
        record: &Record,
        table: &TableName,
        key: &Columns,
        to: &Columns,
    ) -> Result<Placed, Invalid> {
        let stream = self.row_stream(table, key)?;
        let payload = self.json_of(&MovedPayload {
            key: key.clone(),
            to: to.clone(),
        })?;
        let event = NewEvent::json(self.event_type(table, "moved"), payload)
            .id(self.id_of(record, &["moved ", stream.as_str()]));
        Ok((stream, self.with_metadata(event, record)))
    }

    /// The event of a table that was emptied.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the name of the table is too long.
    pub fn truncated(
        &self,
        record: &Record,
        table: &TableName,
        payload: TruncatePayload,
    ) -> Result<Placed, Invalid> {
        let stream = self.table_stream(table)?;
        let event = NewEvent::json(self.event_type(table, "truncated"), self.json_of(&payload)?)
            .id(self.id(record, &format!("truncated {stream}")));
        Ok((stream, self.with_metadata(event, record)))
    }

    /// The event of a table that looks otherwise from here on.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the name of the table is too long.
    pub fn schema(
        &self,
        record: &Record,
        schema: &TableSchema,
        number: u32,
    ) -> Result<Placed, Invalid> {
        let stream = self.table_stream(&schema.table)?;
        let payload = self.json_of(&json!({
            "number": number,
            "identity": schema.identity,
            "columns": schema.columns,
        }))?;
        let event = NewEvent::json(self.event_type(&schema.table, "schema"), payload)
            .id(self.id(record, &format!("schema {stream} {number}")));
        Ok((stream, self.with_metadata(event, record)))
    }

    /// The event of a message, byte for byte.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for a prefix that is too long for a stream.
    pub fn message(&self, record: &Record, message: &LogicalMessage) -> Result<Placed, Invalid> {
        let prefix = escaped(&message.prefix);
        let stream = if prefix.is_empty() {
            StreamId::new("message")?
        } else {
            StreamId::of("message", &prefix)?
        };
        let event = NewEvent::new(
            format!("message.{prefix}"),
            "bytes",
            message.content.clone(),
        )
        .id(self.id(record, "message"));
        Ok((stream, self.with_metadata(event, record)))
    }

    /// The id of an event of a record: the same whenever the record is taken in. In the order of
    /// the commits, and nearly in that of the records of a large transaction, so that it goes in
    /// at the end of an index.
    pub fn id(&self, record: &Record, what: &str) -> EventId {
        self.id_of(record, &[what])
    }

    /// The same of a text in pieces.
    fn id_of(&self, record: &Record, what: &[&str]) -> EventId {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(self.source.as_bytes());
        match &record.repeat_key {
            Some(key) => part(key.as_bytes()),
            None => {
                part(&record.at.lsn.get().to_be_bytes());
                part(&record.at.ordinal.to_be_bytes());
            }
        }
        let length: usize = what.iter().map(|piece| piece.len()).sum();
        hash.update((length as u64).to_be_bytes());
        what.iter().for_each(|piece| hash.update(piece.as_bytes()));
        // What a source repeats may come in another order.
        let block = match &record.repeat_key {
            Some(_) => None,
            None => Some(record.at.ordinal / BLOCK_RECORDS),
        };
        EventId::from_uuid(derived(record.at.time, block, &hash.finalize()))
    }

    fn json_of(&self, value: &impl serde::Serialize) -> Result<Bytes, Invalid> {
        let written = self.known.with(|last| last.payloads.json(value));
        written.map_err(|error| Invalid::new(format!("a change cannot be written: {error}")))
    }

    /// What all events of a transaction have in common.
    fn correlation(&self, at: At) -> Uuid {
        let transaction = (at.lsn, at.xid, at.time);
        self.known.with(|last| match last.correlation {
            Some((of, correlation)) if of == transaction => correlation,
            _ => {
                let mut hash = Sha256::new();
                hash.update(self.source.as_bytes());
                hash.update(at.lsn.get().to_be_bytes());
                hash.update(at.xid.unwrap_or_default().to_be_bytes());
                let correlation = derived(at.time, None, &hash.finalize());
                last.correlation = Some((transaction, correlation));
                correlation
            }
        })
    }

    pub(crate) fn with_metadata(&self, event: NewEvent, record: &Record) -> NewEvent {
        let mut metadata = Metadata::default()
            .correlation(self.correlation(record.at))
            .key("cdc.commit", record.at.lsn.to_string())
            .key("cdc.ordinal", record.at.ordinal.to_string());
        if let Some(xid) = record.at.xid {
            metadata = metadata.key("cdc.xid", xid.to_string());
        }
        if let Some(origin) = &record.origin {
            metadata = metadata.key("cdc.origin", &**origin);
        }
        let event = event.metadata(metadata);
        match record.at.time {
            Some(time) => event.at(time),
            None => event,
        }
    }
}

/// So many records of a transaction have ids in one part of an index. All of them have the same
/// time, and the hashes of a million would change every page of the index with each append.
const BLOCK_RECORDS: u64 = 4_096;

/// 48 bits of time, then 12 bits of the number of the block, where there is one, then a hash.
fn derived(time: Option<DateTime<Utc>>, block: Option<u64>, hash: &[u8]) -> Uuid {
    let millis = time.map_or(0, |time| time.timestamp_millis().max(0));
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    bytes[6..].copy_from_slice(&hash[..10]);
    if let Some(block) = block {
        // The highest four bits are the version. Beyond the last block it begins again.
        bytes[6..8].copy_from_slice(&((block % 4_096) as u16).to_be_bytes());
    }
    Uuid::new_v8(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;
    use crate::record::Body;

    fn record(ordinal: u64, repeat_key: Option<&str>) -> Record {
        let message = LogicalMessage {
            prefix: String::new(),
            content: Vec::new(),
            transactional: true,
        };
        Record {
            body: Body::Message(message),
            at: At {
                lsn: Lsn::new(7),
                ordinal,
                xid: Some(1),
                time: Some(DateTime::UNIX_EPOCH),
                message: None,
            },
            origin: None,
            repeat_key: repeat_key.map(Into::into),
        }
    }

    #[test]
    fn ids_of_a_large_transaction_follow_its_blocks() {
        let maker = EventMaker::new("postgres 7", "");
        let blocks = (0..4_096).map(|block| {
            let mut ids = [0, 1, BLOCK_RECORDS - 1]
                .map(|record_in| record(block * BLOCK_RECORDS + record_in, None))
                .map(|record| *maker.id(&record, "inserted public.t-1").as_uuid());
            ids.sort();
            ids
        });
        let ids: Vec<Uuid> = blocks.flatten().collect();
        assert!(ids.is_sorted_by(|one, other| one < other));
        assert!(ids.iter().all(|id| id.get_version_num() == 8));
    }

    #[test]
    fn the_id_of_a_repeatable_request_follows_its_key() {
        let maker = EventMaker::new("postgres 7", "");
        let id = |ordinal, key| maker.id(&record(ordinal, Some(key)), "read public.t-1");
        assert_eq!(id(0, "one"), id(1_000_000, "one"));
        assert_ne!(id(0, "one"), id(0, "other"));
    }
}
