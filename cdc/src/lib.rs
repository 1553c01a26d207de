//! Change data capture: the changes of somebody else's tables become events of a log, exactly once
//! and in the order in which they were committed, so that views, reactors and processes follow
//! them like any others.
//!
//! Programs use it through the facade, the crate `annals`, with the feature `cdc`.

mod columns;
pub mod debezium;
mod key;
mod lsn;
mod payload;
pub mod pgoutput;
mod record;
mod schema;

pub use columns::Columns;
pub use key::{escaped, row_stream, table_stream};
pub use lsn::{Lsn, MalformedLsn};
pub use payload::{
    Because, EventBody, MalformedChange, MovedPayload, RowPayload, TruncatePayload, body_of,
};
pub use record::{
    At, BeforeImage, Body, LogicalMessage, MovedRecord, Record, RowOp, RowRecord, Truncate,
};
pub use schema::{Column, Identity, TableName, TableSchema, type_name};
