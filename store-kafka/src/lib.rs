//! Apache Kafka for Annals: topics become logs that read models follow, and logs become topics.
//!
//! - [`Kafka::read`] makes a topic that anybody writes a log. Views over it are exact: their rows
//!   and their position change in one transaction of the view store, so nothing is counted twice,
//!   whatever dies when. The group only says who should work; it never decides.
//! - [`Relay`] publishes a log through a [`KafkaOutlet`]: each batch in one transaction with a
//!   record of how far the log was taken: published exactly once, for readers that read what was
//!   committed (`isolation.level=read_committed`, the default of librdkafka but not of Java).
//! - [`StateTopic`] publishes the rows of a view as a compacted topic, with tombstones.
//! - [`Processor`] reads a topic and writes what a function makes of each record, in Kafka
//!   transactions; [`DeadLetters`] are what it could not process.
//! - `KafkaStore` (feature `store`) is an event store in a topic, for teams that must keep Kafka as
//!   the one durable place.
//! - [`Publisher`], [`TopicSpec`] and [`NewRecord`] are for everything that is no event.
//!
//! Clients run on threads of their own, fed by bounded channels. No type of `rdkafka` appears in
//! this crate's interface.

mod client;
mod cloud_events;
mod dead_letters;
mod error;
mod group;
mod kafka;
mod murmur2;
mod outlet;
mod processor;
mod read;
mod relay;
mod state_topic;
#[cfg(feature = "store")]
pub mod store;
mod topic;
mod url;

/// The steps of outlets, stores and processors, for tests that end or hold the process at one.
#[cfg(feature = "testing")]
pub mod testing {
    pub use crate::client::step::{Step, at_steps};
}

pub use dead_letters::DeadLetters;
pub use group::{Group, GroupOffset, left_groups};
pub use kafka::Kafka;
pub use murmur2::murmur2_partition;
pub use outlet::KafkaOutlet;
pub use processor::{Out, Processor};
pub use read::{Partitioner, TimeUnit, Topic, TopicLog};
pub use relay::Relay;
pub use state_topic::StateTopic;
#[cfg(feature = "store")]
pub use store::KafkaStore;
pub use topic::{NewRecord, Publisher, Record, Sent, TopicSpec};
