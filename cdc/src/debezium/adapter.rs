//! From envelopes to records, with what an envelope does not say about its table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::envelope::{
    DebeziumMessage, Envelope, MalformedEnvelope, Members, Schema, Source, unwrapped,
};
use super::fold::{Half, Halves};
use super::types::{self, ColumnType, Semantic};
use crate::columns::Columns;
use crate::ingest::{EqualRecord, EqualRecords};
use crate::lsn::Lsn;
use crate::payload::Because;
use crate::record::{At, BeforeImage, Body, LogicalMessage, Record, RowOp, RowRecord, Truncate};
use crate::schema::TableName;

const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// Makes records of what Debezium writes.
///
/// ```
/// use annals_cdc::debezium::{Adapter, DebeziumMessage};
///
/// let value = r#"{"op":"c","before":null,"after":{"id":1},
///                 "source":{"schema":"public","table":"t","lsn":7}}"#;
/// let message = DebeziumMessage::new("srv.public.t", Some(r#"{"id":1}"#), Some(value))?;
/// let records = Adapter::default().take(&message)?;
/// assert_eq!(records.len(), 1);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Adapter {
    full: BTreeSet<TableName>,
    all_full: bool,
    unavailable: String,
    columns: BTreeMap<TableName, Vec<ColumnType>>,
    halves: Halves,
    /// Of each partition: its last record, when others may be equal to it.
    equal: EqualRecords,
}

impl Default for Adapter {
    fn default() -> Adapter {
        Adapter {
            full: BTreeSet::new(),
            all_full: false,
            unavailable: UNAVAILABLE.to_owned(),
            columns: BTreeMap::new(),
            halves: Halves::default(),
            equal: EqualRecords::default(),
        }
    }
}

/// The parts of a message that its records are made of.
struct Parts<'a> {
    table: TableName,
    key: Columns,
    schema: Option<&'a Schema>,
}

impl Adapter {
    /// This table has `replica identity full`: the old rows of its changes are whole.
    #[must_use]
    pub fn identity_full(mut self, table: &str) -> Adapter {
        self.full.insert(TableName::parse(table));
        self
    }

    /// All tables have `replica identity full`.
    #[must_use]
    pub fn identity_full_everywhere(mut self) -> Adapter {
        self.all_full = true;
        self
    }

    /// The text that the connector writes for a value that did not change and is not known:
    /// `__debezium_unavailable_value` unless said otherwise.
    #[must_use]
    pub fn unavailable(mut self, placeholder: &str) -> Adapter {
        placeholder.clone_into(&mut self.unavailable);
        self
    }

    /// What values of these columns mean, where envelopes come without a schema.
    #[must_use]
    pub fn columns(
        mut self,
        table: &str,
        columns: impl IntoIterator<Item = ColumnType>,
    ) -> Adapter {
        let of_table = self.columns.entry(TableName::parse(table)).or_default();
        of_table.extend(columns);
        self
    }

    /// The records of a message: none of a tombstone or a heartbeat, and none yet of the first half
    /// of a changed key.
    ///
    /// # Errors
    ///
    /// [`MalformedEnvelope`] for a message that is none of Debezium's.
    pub fn take(&mut self, message: &DebeziumMessage) -> Result<Vec<Record>, MalformedEnvelope> {
        self.take_at(message, None)
    }

    /// The same of a message that operators name so.
    pub(super) fn take_at(
        &mut self,
        message: &DebeziumMessage,
        named: Option<(u32, u64)>,
    ) -> Result<Vec<Record>, MalformedEnvelope> {
        let read = self.read(message, named);
        read.map_err(|what| MalformedEnvelope {
            topic: message.topic.clone(),
            what,
        })
    }

    /// What waits for the other half of a changed key, when none is to come.
    pub fn flush(&mut self) -> Vec<Record> {
        self.halves.flush()
    }

    /// Goes on after these records.
    pub(super) fn resume(&mut self, equal: EqualRecords) {
        self.halves = Halves::default();
        self.equal = equal;
    }

    /// The last record of each partition, when others may be equal to it.
    pub(super) fn equal(&self) -> &EqualRecords {
        &self.equal
    }

    fn read(
        &mut self,
        message: &DebeziumMessage,
        named: Option<(u32, u64)>,
    ) -> Result<Vec<Record>, String> {
        let Some(value) = message.value.as_deref() else {
            return Ok(Vec::new());
        };
        let wrapped = unwrapped(value)?;
        if wrapped.payload == "null" {
            return Ok(Vec::new());
        }
        let envelope: Envelope =
            serde_json::from_str(wrapped.payload).map_err(|error| error.to_string())?;
        let Some(op) = envelope.op.as_deref() else {
            let is_heartbeat = envelope.ts_ms.is_some() && envelope.after.is_none();
            if is_heartbeat || envelope.status.is_some() || envelope.ddl.is_some() {
                return Ok(Vec::new());
            }
            return Err("it has no `op`: it is no envelope of Debezium".into());
        };
        let source = envelope.source.as_ref().ok_or("it has no `source`")?;
        let record = |body, at, repeat_key| Record {
            body,
            at,
            origin: None,
            repeat_key: Some(repeat_key),
        };
        let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_u64);
        let at = At {
            lsn: Lsn::new(number(&source.lsn).unwrap_or_default()),
            ordinal: 0,
            xid: number(&source.tx_id),
            time: types::source_time(source.ts_us, source.ts_ms),
            message: named,
        };
        if op == "m" {
            let content = envelope.message.as_ref().ok_or("it has no `message`")?;
            let body = Body::Message(LogicalMessage {
                prefix: content.prefix.clone(),
                content: types::bytes(&content.content)?,
                transactional: source.tx_id.is_some(),
            });
            let repeat_key = self.repeat_key(source, op, message, None);
            return Ok(self.halves.whole(record(body, at, repeat_key)));
        }
        let parts = Parts {
            table: table(source)?,
            key: self.key(message, &table(source)?)?,
            schema: wrapped.schema.as_ref(),
        };
        let body = match op {
            "t" => {
                let body = Body::Truncate(Truncate {
                    tables: vec![parts.table],
                    cascade: None,
                    restart_identity: None,
                });
                let repeat_key = self.repeat_key(source, op, message, None);
                return Ok(self.halves.whole(record(body, at, repeat_key)));
            }
            "r" => self.row(RowOp::Read, &envelope, source, parts)?,
            "c" => self.row(RowOp::Insert, &envelope, source, parts)?,
            "u" => self.row(RowOp::Update, &envelope, source, parts)?,
            "d" => self.row(RowOp::Delete, &envelope, source, parts)?,
            other => return Err(format!("its `op` is `{other}`")),
        };
        let other = |name: &str| -> Result<Option<Columns>, String> {
            let header = message.headers.get(name);
            let header = header.map(|json| self.key_of(json, &body.table));
            header.transpose()
        };
        let half = match body.op {
            RowOp::Delete => other("__debezium.newkey")?.map(Half::Old),
            RowOp::Insert => other("__debezium.oldkey")?.map(Half::New),
            _ => None,
        };
        let keys = match &half {
            Some(Half::Old(to)) => Some((&body.key, to)),
            Some(Half::New(from)) => Some((from, &body.key)),
            None => None,
        };
        let repeat_key = self.repeat_key(source, op, message, keys);
        let record = record(Body::Row(body), at, repeat_key);
        Ok(self.halves.take(record, half))
    }

    /// What is the same when the connector writes a change again, and of no other change. Both
    /// halves of a changed key have one, as the update has that they become together.
    fn repeat_key(
        &mut self,
        source: &Source,
        op: &str,
        message: &DebeziumMessage,
        keys: Option<(&Columns, &Columns)>,
    ) -> Arc<str> {
        let name = source.name.as_deref().unwrap_or_default();
        let position = source.position();
        let topic = &message.topic;
        let what = match (keys, message.key.as_deref()) {
            (Some((from, to)), _) => format!("{from:?} to {to:?}"),
            (None, Some(key)) => format!("{} {op}", key.get()),
            // Rows without a key are in any partition.
            (None, None) => format!("in {} {op}", message.partition),
        };
        let repeat_key = format!("{name} {position} {topic} {what}");
        let has_key = message.key.is_some();
        let is_exact = match op {
            "m" | "t" => true,
            "r" => has_key,
            _ => source.is_of_one_row() || has_key && source.is_of_one_change(),
        };
        if is_exact {
            self.equal.remove(&message.partition);
            return repeat_key.into();
        }
        let of = format!("{repeat_key} {op} {:?} {:?}", source.ts_us, source.ts_ms);
        let last = self.equal.entry(message.partition).or_default();
        if last.of != of {
            *last = EqualRecord { of, count: 0 };
        }
        last.count += 1;
        format!("{repeat_key} {}", last.count).into()
    }

    fn row(
        &self,
        op: RowOp,
        envelope: &Envelope,
        source: &Source,
        parts: Parts<'_>,
    ) -> Result<RowRecord, String> {
        let is_full = self.all_full || self.full.contains(&parts.table);
        let of = |part: &str| parts.schema.and_then(|schema| schema.field(part));
        let before = match &envelope.before {
            None => BeforeImage::None,
            Some(members) => {
                let (columns, _) = self.values(&parts.table, members, of("before"))?;
                if is_full {
                    BeforeImage::Full(columns)
                } else {
                    // Everything else is filler.
                    let key = parts.key.iter().map(|(name, _)| Arc::clone(name));
                    BeforeImage::Key(columns.only(&key.collect::<Vec<_>>()))
                }
            }
        };
        let (after, unchanged) = match &envelope.after {
            None if op == RowOp::Delete => (None, Vec::new()),
            None => return Err("it has no `after`".into()),
            Some(members) => {
                let (after, unchanged) = self.values(&parts.table, members, of("after"))?;
                (Some(after), unchanged)
            }
        };
        let snapshot = match &source.snapshot {
            Some(Value::String(word)) if word != "false" => Some(word.as_str().into()),
            Some(Value::Bool(true)) => Some("true".into()),
            _ => None,
        };
        let mut row = RowRecord {
            op,
            table: parts.table,
            key: parts.key,
            before,
            after,
            unchanged,
            schema: None,
            because: Because::Deleted,
            snapshot,
        };
        if let (BeforeImage::Full(old), Some(after)) = (&row.before, &mut row.after) {
            // A whole old row has what did not change.
            let known = |name: &Arc<str>| old.get(name).is_some();
            for name in row.unchanged.iter().filter(|name| known(name)) {
                after.set(name, old.get(name).flatten().map(str::to_owned));
            }
            row.unchanged.retain(|name| !known(name));
        }
        Ok(row)
    }

    fn key(&self, message: &DebeziumMessage, table: &TableName) -> Result<Columns, String> {
        match message.key.as_deref() {
            None => Ok(Columns::default()),
            Some(key) => self.key_of(key, table),
        }
    }

    fn key_of(&self, json: &RawValue, table: &TableName) -> Result<Columns, String> {
        // Headers may hold JSON in a text.
        if json.get().starts_with('"') {
            let inner = types::string(json.get())?;
            let inner: Box<RawValue> =
                serde_json::from_str(&inner).map_err(|error| format!("its key: {error}"))?;
            return self.key_of(&inner, table);
        }
        let wrapped = unwrapped(json)?;
        let members: Members =
            serde_json::from_str(wrapped.payload).map_err(|error| format!("its key: {error}"))?;
        Ok(self.values(table, &members, wrapped.schema.as_ref())?.0)
    }

    /// Texts of values, and the names of those that are not known.
    fn values(
        &self,
        table: &TableName,
        members: &Members,
        schema: Option<&Schema>,
    ) -> Result<(Columns, Vec<Arc<str>>), String> {
        let mut columns = Columns::default();
        let mut unchanged = Vec::new();
        for (name, value) in &members.0 {
            let semantic = self.semantic(table, name, schema);
            let name: Arc<str> = name.as_str().into();
            if self.is_unavailable(value, semantic) {
                unchanged.push(name);
                continue;
            }
            let text = types::text(value, semantic)
                .map_err(|what| format!("column `{name}` of `{table}`: {what}"))?;
            columns.push(name, text);
        }
        Ok((columns, unchanged))
    }

    fn semantic(&self, table: &TableName, column: &str, schema: Option<&Schema>) -> Semantic {
        let said = self.columns.get(table).into_iter().flatten();
        let said = said.rev().find(|(name, _)| &**name == column);
        let by_schema = || schema.and_then(|schema| schema.field(column));
        match (said, by_schema()) {
            (Some((_, semantic)), _) => *semantic,
            (None, Some(field)) => field.semantic(),
            (None, None) => Semantic::Plain,
        }
    }

    /// Whether a value is the placeholder, in one of its forms.
    fn is_unavailable(&self, value: &RawValue, semantic: Semantic) -> bool {
        let json = value.get();
        if json.starts_with('[') {
            let list: Result<Vec<String>, _> = serde_json::from_str(json);
            return list.is_ok_and(|list| matches!(&*list, [only] if *only == self.unavailable));
        }
        if !json.starts_with('"') {
            return false;
        }
        let Ok(text) = types::string(json) else {
            return false;
        };
        let in_base64 =
            || types::bytes(&text).is_ok_and(|bytes| bytes == self.unavailable.as_bytes());
        text == self.unavailable || semantic != Semantic::Text && in_base64()
    }
}

fn table(source: &Source) -> Result<TableName, String> {
    let schema = source.schema.as_deref().or(source.db.as_deref());
    let name = source.table.as_deref().or(source.collection.as_deref());
    match (schema, name) {
        (Some(schema), Some(name)) => Ok(TableName::new(schema, name)),
        _ => Err("its `source` names no table".into()),
    }
}
