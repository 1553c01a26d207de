//! Topics as logs.

mod cursor;
mod gaps;
mod key;
mod log;
mod mapping;
mod page;
mod side;
mod topic;

pub(crate) use gaps::{Gaps, retention_in};
pub use log::TopicLog;
pub(crate) use mapping::position_of;
pub use topic::{Partitioner, TimeUnit, Topic};
