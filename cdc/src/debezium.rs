//! What Debezium writes: JSON envelopes, bare or with a schema, become records. Pure.

mod adapter;
mod envelope;
mod fold;
mod types;

pub use adapter::Adapter;
pub use envelope::{DebeziumMessage, MalformedEnvelope};
pub use types::{ColumnType, Semantic};
