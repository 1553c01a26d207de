//! Annals on PostgreSQL 15 or newer.
//!
//! [`PostgresStore`] keeps every promise of [`annals_core::Store`], with one partition: one total order, dense and in commit order,
//! for every program that has the schema open. Appends of one process are committed in groups by one task, and are on the server's
//! disk when they are answered.
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
//! All tables are in one schema, `annals` unless the [`Options`] say otherwise. With `psql`, `select * from annals.readable_events`
//! shows the log, and `annals.readable_streams` the streams.

mod batch;
mod copied;
mod database;
mod error;
mod events;
mod job;
mod judge;
mod known;
mod lease;
mod options;
mod page;
mod places;
#[cfg(test)]
mod plans;
mod recent;
mod request;
mod row;
mod schema;
mod search;
mod section;
mod settings;
mod snapshot;
mod staged;
mod statements;
mod store;
mod streams;
mod views;
mod watcher;
mod writer;

pub use options::Options;
pub use sqlx;
pub use staged::Staged;
pub use store::PostgresStore;
