//! The logical replication protocol of PostgreSQL, version 1: bytes become messages, messages
//! become records. Pure; a message that is not understood is an error and never skipped.

mod decoder;
mod message;
mod reader;

pub use decoder::{Decoder, PrimaryKeys, Undecoded};
pub(crate) use message::time;
pub use message::{Message, OldTuple, Relation, RelationColumn, TupleValue};
pub use reader::MalformedMessage;
