//! Workloads that run against any store, so that two rows of a report differ only in the store, and
//! the same work by hand with a bare driver, to set beside them.
//!
//! Everything is made from fixed seeds; only event ids differ from run to run.

pub mod account;
pub mod alert;
pub mod append;
pub mod baseline_sqlite;
pub mod baseline_sqlx;
pub mod cdc;
pub mod checkout;
pub mod command;
pub mod idle;
pub mod latency;
pub mod live;
pub mod load;
pub mod machine;
pub mod past;
pub mod rate;
pub mod replay;
pub mod seed;
pub mod server;
pub mod view;

/// What a workload returns; any error ends the run.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
