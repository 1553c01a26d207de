//! The rows that a worker has at hand, and the fold of events onto them. Pure: what is missing is
//! fetched before, what has changed is written after.

mod batch;
mod cache;
mod changes;
mod history;
mod queue;
mod refold;
mod row;

pub(crate) use batch::Checks;
pub(crate) use cache::Rows;
pub(crate) use changes::Changes;
pub(crate) use history::{between_intervals, interval_end};
pub(crate) use queue::{DrainedKey, Waiting, drained};
pub(crate) use refold::{Refolded, RowVersionBefore, Versions, folded, versions};
pub(crate) use row::{RowError, decoded, encode, first_difference, read_back};
