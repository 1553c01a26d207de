//! Change data capture: the changes of another application's tables become events of a log, exactly
//! once and in the order in which they were committed, so that views, reactors and processes follow
//! them like any others.
//!
//! Programs use it through the facade, the crate `annals`, with the feature `cdc`.

mod change;
mod column;
mod columns;
pub mod debezium;
mod ingest;
mod key;
mod log_reader;
mod lsn;
mod outbox;
mod payload;
pub mod pgoutput;
#[cfg(feature = "streams")]
mod pipeline;
mod postgres;
mod record;
mod records;
mod row;
mod schema;
mod table;
mod taken;
mod transactions;
mod translate;

pub use change::{Before, Change, RawChange, TableEvent};
pub use column::{Array, FromColumn, Interval, Json, Moment, Multirange, Numeric, Range, Toasted};
pub use columns::Columns;
pub use ingest::{
    Chunk, EventMaker, Ingest, IngestHandle, IngestState, IngestStatus, Ingests, Mark, Partial,
    ReadAgain, Resume, SnapshotMark, Snapshotting, Source, SourceError, SourceFailure,
    SourceStatus, last_mark, mark_stream,
};
pub use key::{escaped, row_stream, table_stream};
pub use lsn::{Lsn, MalformedLsn};
pub use outbox::Outbox;
pub use payload::{
    Because, EventBody, MalformedChange, MovedPayload, RowPayload, TruncatePayload, body_of,
};
#[cfg(feature = "streams")]
pub use pipeline::CapturedTables;
pub use postgres::Postgres;
pub use record::{
    At, BeforeImage, Body, LogicalMessage, MovedRecord, Record, RowOp, RowRecord, Truncate,
};
pub use records::Records;
pub use row::{ColumnError, ReceivedRow, TableRow};
pub use schema::{Column, Identity, TableName, TableSchema, type_name};
pub use table::{TableHistory, TableOf};
pub use transactions::Transactions;

/// What derived code names.
#[doc(hidden)]
pub mod derive {
    pub use annals_core::Shape;

    pub use crate::column::{composite_fields, composite_text};
}
