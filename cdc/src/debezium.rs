//! What Debezium writes: JSON envelopes, bare or with a schema, become records.

mod adapter;
mod envelope;
mod fold;
mod lines;
mod source;
mod types;

pub use adapter::Adapter;
pub use envelope::{DebeziumMessage, MalformedEnvelope};
pub use source::Debezium;
pub use types::{ColumnType, Semantic};
