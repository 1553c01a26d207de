//! Annals on PostgreSQL 15 or newer.
//!
//! [`PostgresStore`] keeps every promise of [`annals_core::Store`], with one partition: one total
//! order, dense and in commit order, for every program that has the schema open. Appends of one
//! process are committed in groups by one task, and are on the server's disk when they are
//! answered.
//!
//! ```no_run
//! use annals_postgres::PostgresStore;
//!
//! # async fn example() -> Result<(), annals_core::StoreError> {
//! let store = PostgresStore::connect("postgres://app@localhost/bank").await?;
//! # Ok(())
//! # }
//! ```
//!
//! All tables are in one schema, `annals` unless the [`Options`] say otherwise. With `psql`,
//! `select * from annals.readable_events` shows the log, and `annals.readable_streams` the streams.

mod append_in;
mod append_session;
mod batch;
mod copied;
mod database;
mod durable;
mod error;
mod events;
mod incarnation;
mod job;
mod known;
mod known_log;
mod lease;
mod options;
mod page;
#[cfg(test)]
mod plans;
mod query_plan;
mod recent;
mod recheck;
mod request;
mod resolve;
mod row;
mod scan;
mod schema;
mod settings;
mod snapshot;
mod staged;
mod statements;
mod store;
mod stream_cache;
mod stream_changes;
mod streams;
mod views;
mod watcher;
mod writer;

pub use append_in::Staged;
pub use options::Options;
pub use sqlx;
pub use store::PostgresStore;
