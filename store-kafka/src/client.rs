//! Clients of librdkafka, each on a thread of its own: creating, polling and dropping them may
//! block.

mod committed;
mod config;
mod context;
pub(crate) mod decided;
mod early_end;
mod headers;
mod retry;
pub(crate) mod step;
mod thread;
mod topic_scan;
pub(crate) mod transaction;

pub(crate) use committed::committed;
#[cfg(feature = "store")]
pub(crate) use config::STORE_RECORD_BYTES_MAX;
pub(crate) use config::{Config, TRANSACTION_TIMEOUT_MS};
pub(crate) use context::Context;
pub(crate) use early_end::{EarlyEnd, position};
pub(crate) use headers::{headers, headers_of};
pub(crate) use retry::{PROPAGATION, Retry};
pub(crate) use thread::ClientThread;
pub(crate) use topic_scan::TopicScan;

/// How long one answer of a broker may take, after the first.
pub(crate) const ANSWER: std::time::Duration = std::time::Duration::from_secs(10);
