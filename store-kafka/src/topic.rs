//! Topics: what is made or demanded of one, and records that are sent to one.

pub(crate) mod ensure;
pub(crate) mod name;
pub(crate) mod of_store;
mod publisher;
mod record;
mod spec;

pub use publisher::{Publisher, Sent};
pub use record::{NewRecord, Record};
pub use spec::TopicSpec;
