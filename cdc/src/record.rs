//! What a source says, whatever it is: a change of a row, a table that was emptied, a message, an
//! event.

use std::sync::Arc;

use annals_core::RecordedEvent;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::columns::Columns;
use crate::lsn::Lsn;
use crate::payload::Because;
use crate::schema::{TableName, TableSchema};

/// One thing that a source says, and where it was said.
///
/// ```
/// # fn example(record: &annals_cdc::Record) {
/// println!("{:?} at {}", record.body, record.at.lsn);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct Record {
    /// What it is.
    pub body: Body,
    /// Where it was said.
    pub at: At,
    /// The replication origin of its transaction, if it has one.
    pub origin: Option<Arc<str>>,
    /// What is the same when the source says it again, where a source repeats itself.
    pub repeat_key: Option<Arc<str>>,
}

/// The kinds of things that a source says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Body {
    /// A row was read, inserted, updated or deleted.
    Row(RowRecord),
    /// A row goes on under another key, and what it is now is another record.
    Moved(MovedRecord),
    /// Tables were emptied by one statement.
    Truncate(Truncate),
    /// A message that belongs to no table.
    Message(LogicalMessage),
    /// An event of another log, as it was.
    Event(Box<RecordedEvent>),
}

/// Where a record comes from.
///
/// Row LSNs go backwards between transactions, and several rows may share one: the order of records
/// is that of (`lsn`, `ordinal`), where `lsn` is that of the commit.
///
/// ```
/// let start = annals_cdc::At::default();
/// assert_eq!((start.ordinal, start.xid), (0, None));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct At {
    /// Where its transaction was committed. From Debezium: what the envelope says.
    pub lsn: Lsn,
    /// Its number in the transaction, from 0.
    pub ordinal: u64,
    /// The transaction, if there is one.
    pub xid: Option<u64>,
    /// The moment of the commit; nothing for what belongs to no transaction.
    pub time: Option<DateTime<Utc>>,
    /// Of a message of a log or a file: its partition, and its position there. Operators name it by
    /// them, and it is a transaction of its own.
    pub message: Option<(u32, u64)>,
}

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)]
pub enum RowOp {
    /// It was read in a snapshot: it may be known already.
    Read,
    /// It is new.
    Insert,
    /// It has other values, perhaps another key.
    Update,
    /// It is gone.
    Delete,
}

/// What is known of the row before a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum BeforeImage {
    /// Nothing.
    #[default]
    None,
    /// Its key.
    Key(Columns),
    /// All of it.
    Full(Columns),
}

impl BeforeImage {
    /// The columns that are known.
    pub fn columns(&self) -> Option<&Columns> {
        match self {
            BeforeImage::None => None,
            BeforeImage::Key(columns) | BeforeImage::Full(columns) => Some(columns),
        }
    }

    /// How much is known, in one word: `none`, `key` or `full`.
    ///
    /// ```
    /// assert_eq!(annals_cdc::BeforeImage::None.kind(), "none");
    /// ```
    pub const fn kind(&self) -> &'static str {
        match self {
            BeforeImage::None => "none",
            BeforeImage::Key(_) => "key",
            BeforeImage::Full(_) => "full",
        }
    }
}

/// A change of one row.
///
/// ```
/// # fn example(row: &annals_cdc::RowRecord) {
/// println!("{} {:?}", row.table, row.key);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::exhaustive_structs)]
pub struct RowRecord {
    /// What happened.
    pub op: RowOp,
    /// To a row of this table.
    pub table: TableName,
    /// The key of the row after the change; of a deleted one the key that it had. Empty when the
    /// table has none.
    pub key: Columns,
    /// What is known of the row before.
    pub before: BeforeImage,
    /// The row after the change, without unchanged columns that were not sent.
    pub after: Option<Columns>,
    /// Columns that did not change and were not sent: neither null nor a value.
    pub unchanged: Vec<Arc<str>>,
    /// What the source says of the table; nothing when it says nothing.
    pub schema: Option<Arc<TableSchema>>,
    /// Why a row is gone that no statement deleted one by one.
    pub because: Because,
    /// Which part of a snapshot brought it, in the source's word.
    pub snapshot: Option<Arc<str>>,
}

impl RowRecord {
    /// The key that the row had before, when it has another one now.
    pub fn moved_from(&self) -> Option<Columns> {
        if self.op != RowOp::Update || self.key.is_empty() {
            return None;
        }
        let before = self.before.columns()?;
        let is_same = |(name, value): (&Arc<str>, _)| before.get(name) == Some(value);
        if self.key.iter().all(is_same) {
            return None;
        }
        let names: Vec<_> = self.key.iter().map(|(name, _)| Arc::clone(name)).collect();
        let old = before.only(&names);
        (old.len() == self.key.len() && old != self.key).then_some(old)
    }
}

/// A row that goes on under another key, from a source that sends the two halves apart.
///
/// ```
/// # fn example(moved: &annals_cdc::MovedRecord) {
/// println!("{:?} is now {:?}", moved.key, moved.to);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct MovedRecord {
    /// The table.
    pub table: TableName,
    /// The key that the row had.
    pub key: Columns,
    /// The key that it has now.
    pub to: Columns,
}

/// Tables that were emptied by one statement.
///
/// ```
/// # fn example(truncate: &annals_cdc::Truncate) {
/// println!("{} tables", truncate.tables.len());
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Truncate {
    /// The tables.
    pub tables: Vec<TableName>,
    /// Whether tables that refer to them were included; unknown from Debezium.
    pub cascade: Option<bool>,
    /// Whether their sequences began again; unknown from Debezium.
    pub restart_identity: Option<bool>,
}

/// A message of `pg_logical_emit_message`.
///
/// ```
/// # fn example(message: &annals_cdc::LogicalMessage) {
/// println!("{}: {} bytes", message.prefix, message.content.len());
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)]
pub struct LogicalMessage {
    /// Who it is for.
    pub prefix: String,
    /// Its bytes.
    pub content: Vec<u8>,
    /// Whether it belongs to a transaction.
    pub transactional: bool,
}
