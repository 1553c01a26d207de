//! The outbox: rows, or messages without a table, that an application writes in its own transaction
//! become the events that they hold.

use annals_core::{EventId, Invalid, NewEvent, StreamId};
use bytes::Bytes;
use chrono::{DateTime, NaiveDateTime, Utc};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::column::FromColumn as _;
use crate::columns::Columns;
use crate::ingest::{EventMaker, Placed};
use crate::record::{Body, Record, RowOp};
use crate::schema::{Column, TableName, TableSchema};
use crate::translate::Translator;

/// The prefix of messages that are events: `pg_logical_emit_message(true, 'annals', …)`.
const PREFIX: &str = "annals";

/// An outbox table, by default with the columns of Debezium's outbox router. Each row that is
/// inserted becomes the event that it holds; deletions are house-keeping and no events.
///
/// Messages with the prefix `annals` become events too, without a table and with nothing to clean
/// up: `{"stream":"order-7","type":"order.placed","payload":{…}}`.
///
/// ```
/// use annals_cdc::Outbox;
///
/// let outbox = Outbox::table("public.outbox").payload("body");
/// # let _ = outbox;
/// ```
#[derive(Clone, Debug)]
#[must_use = "it does nothing before an ingest has it"]
pub struct Outbox {
    /// Nothing, of messages alone.
    table: Option<TableName>,
    id: String,
    aggregate_type: String,
    aggregate_id: String,
    event_type: String,
    payload: String,
    timestamp: Option<String>,
    tracing: Option<String>,
    /// Of several, one takes the messages.
    pub(crate) takes_messages: bool,
}

impl Outbox {
    /// The outbox in this table, which the source has to take in.
    pub fn table(table: &str) -> Outbox {
        Outbox {
            table: Some(TableName::parse(table)),
            ..Outbox::messages()
        }
    }

    /// An outbox of messages, without a table.
    ///
    /// ```
    /// use annals_cdc::{Ingest, Outbox};
    ///
    /// let shop = Ingest::named("shop").outbox(Outbox::messages());
    /// # let _ = shop;
    /// ```
    pub fn messages() -> Outbox {
        Outbox {
            table: None,
            id: "id".into(),
            aggregate_type: "aggregatetype".into(),
            aggregate_id: "aggregateid".into(),
            event_type: "type".into(),
            payload: "payload".into(),
            timestamp: None,
            tracing: None,
            takes_messages: true,
        }
    }

    /// The column with the id of the event: `id` unless said otherwise.
    pub fn id(mut self, column: &str) -> Outbox {
        column.clone_into(&mut self.id);
        self
    }

    /// The column with the category of the stream: `aggregatetype` unless said otherwise.
    pub fn aggregate_type(mut self, column: &str) -> Outbox {
        column.clone_into(&mut self.aggregate_type);
        self
    }

    /// The column with the id of the stream: `aggregateid` unless said otherwise.
    pub fn aggregate_id(mut self, column: &str) -> Outbox {
        column.clone_into(&mut self.aggregate_id);
        self
    }

    /// The column with the type of the event: `type` unless said otherwise.
    pub fn event_type(mut self, column: &str) -> Outbox {
        column.clone_into(&mut self.event_type);
        self
    }

    /// The column with the time at which the event happened; without one it is that of the commit.
    pub fn timestamp(mut self, column: &str) -> Outbox {
        self.timestamp = Some(column.to_owned());
        self
    }

    /// The column with what a tracer needs, which becomes the metadata key `tracing`.
    pub fn tracing(mut self, column: &str) -> Outbox {
        self.tracing = Some(column.to_owned());
        self
    }

    /// The column with the content of the event: `payload` unless said otherwise. JSON, also in a
    /// text, is taken as it is, a `bytea` as its bytes. A text that is no JSON stops the ingest,
    /// which names its row.
    pub fn payload(mut self, column: &str) -> Outbox {
        column.clone_into(&mut self.payload);
        self
    }

    fn text<'a>(&self, row: &'a Columns, column: &str) -> Result<&'a str, Invalid> {
        row.get(column).flatten().ok_or_else(|| {
            Invalid::new(format!(
                "a row of the outbox `{}` has no `{column}`: name its columns with `Outbox`",
                self.name()
            ))
        })
    }

    fn row(
        &self,
        maker: &EventMaker,
        record: &Record,
        schema: Option<&TableSchema>,
        row: &Columns,
    ) -> Result<Placed, Invalid> {
        let category = self.text(row, &self.aggregate_type)?;
        let stream = StreamId::of(category, self.text(row, &self.aggregate_id)?)?;
        let id = id_of(maker, record, self.text(row, &self.id)?);
        let event_type = self.text(row, &self.event_type)?.to_owned();
        let text = self.text(row, &self.payload)?;
        let is_payload = |column: &&Column| *column.name == *self.payload;
        let payload = schema.and_then(|schema| schema.columns.iter().find(is_payload));
        let is_bytes = match payload {
            // The second is of a domain.
            Some(column) => matches!(&*column.type_name, "bytea" | "pg_catalog.bytea"),
            // Debezium says nothing of the type, and no JSON begins so.
            None => text.starts_with("\\x"),
        };
        let event = if is_bytes {
            let bytes = Bytes::from_column(Some(text)).map_err(|error| self.unfit(&error))?;
            NewEvent::new(event_type, "bytes", bytes)
        } else {
            // Its readers could do nothing with anything else.
            serde_json::from_str::<&RawValue>(text).map_err(|error| {
                self.unfit(&format!(
                    "its `{}` is no JSON ({error}): write JSON, or make the column a `bytea`",
                    self.payload
                ))
            })?;
            NewEvent::json(event_type, text.to_owned())
        };
        let mut event = maker.with_metadata(event.id(id), record);
        if let Some(column) = &self.timestamp {
            event.occurred_at = self.moment(self.text(row, column)?)?;
        }
        if let Some(column) = &self.tracing
            && let Some(tracing) = row.get(column).flatten()
        {
            event.metadata = event.metadata.key("tracing", tracing);
        }
        Ok((stream, event))
    }

    /// A `timestamptz`, a `timestamp` in UTC, or milliseconds since 1970 as Debezium writes them.
    fn moment(&self, text: &str) -> Result<DateTime<Utc>, Invalid> {
        if let Ok(millis) = text.parse() {
            let moment = DateTime::from_timestamp_millis(millis);
            return moment.ok_or_else(|| self.unfit(&format!("`{text}` is no moment")));
        }
        let local = |_| NaiveDateTime::from_column(Some(text)).map(|local| local.and_utc());
        let moment = DateTime::<Utc>::from_column(Some(text)).or_else(local);
        moment.map_err(|error| self.unfit(&error))
    }

    fn unfit(&self, what: &str) -> Invalid {
        Invalid::new(format!("a row of the outbox `{}`: {what}", self.name()))
    }

    fn name(&self) -> String {
        self.table
            .as_ref()
            .map(TableName::to_string)
            .unwrap_or_default()
    }

    fn is_in(&self, table: &TableName) -> bool {
        self.table.as_ref() == Some(table)
    }
}

/// Their id; derived from it where it is none that names one event for good.
fn id_of(maker: &EventMaker, record: &Record, text: &str) -> EventId {
    match Uuid::try_parse(text) {
        // Any UUID of version 8 would count as derived from a request.
        Ok(id) if id.get_version_num() != 8 => EventId::from_uuid(id),
        _ => maker.id(record, &format!("outbox {text}")),
    }
}

#[derive(Deserialize)]
struct Emitted {
    stream: String,
    #[serde(rename = "type")]
    event_type: String,
    payload: Box<RawValue>,
    #[serde(default)]
    id: Option<String>,
}

impl Translator for Outbox {
    fn translate(
        &self,
        maker: &EventMaker,
        record: &Record,
        _known: Option<&Columns>,
    ) -> Result<Option<Vec<Placed>>, Invalid> {
        match &record.body {
            Body::Row(row) if self.is_in(&row.table) => match (row.op, &row.after) {
                (RowOp::Insert | RowOp::Read, Some(after)) => {
                    let schema = row.schema.as_deref();
                    Ok(Some(vec![self.row(maker, record, schema, after)?]))
                }
                _ => Ok(None),
            },
            Body::Message(message) if self.takes_messages && message.prefix == PREFIX => {
                let emitted: Emitted =
                    serde_json::from_slice(&message.content).map_err(|error| {
                        Invalid::new(format!(
                            "a message `{PREFIX}` holds no event: {error}; it reads \
                         {{\"stream\":…,\"type\":…,\"payload\":…}}"
                        ))
                    })?;
                let id = match &emitted.id {
                    Some(id) => id_of(maker, record, id),
                    None => maker.id(record, "emitted"),
                };
                let payload = emitted.payload.get().to_owned();
                let event = NewEvent::json(emitted.event_type, payload).id(id);
                let stream = StreamId::new(emitted.stream)?;
                Ok(Some(vec![(stream, maker.with_metadata(event, record))]))
            }
            _ => Ok(None),
        }
    }

    fn reads(&self) -> Option<(&'static str, TableName)> {
        Some(("outbox", self.table.clone()?))
    }

    fn keeps_ids(&self) -> bool {
        self.table.is_some()
    }

    fn replaces(&self, record: &Record) -> bool {
        match &record.body {
            Body::Row(row) => self.is_in(&row.table),
            Body::Message(message) => message.prefix == PREFIX,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_without_a_schema_are_no_json() {
        let message = crate::record::LogicalMessage {
            prefix: String::new(),
            content: Vec::new(),
            transactional: true,
        };
        let record = Record {
            body: Body::Message(message),
            at: crate::record::At::default(),
            origin: None,
            repeat_key: None,
        };
        let made = |payload: &str| {
            let row = Columns::default()
                .with("id", Some("7"))
                .with("aggregatetype", Some("order"))
                .with("aggregateid", Some("7"))
                .with("type", Some("order.placed"))
                .with("payload", Some(payload));
            let outbox = Outbox::table("outbox");
            let maker = EventMaker::new("debezium", "");
            let (_, event) = outbox.row(&maker, &record, None, &row).unwrap();
            (event.codec.to_string(), event.payload.to_vec())
        };
        assert_eq!(made("\\x6869"), ("bytes".to_owned(), b"hi".to_vec()));
        assert_eq!(made("\"hi\""), ("json".to_owned(), b"\"hi\"".to_vec()));
    }
}
