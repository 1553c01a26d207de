//! Topics as logs.

mod cursor;
mod gaps;
mod key;
mod log;
mod mapping;
mod page;
mod side;
mod topic;

pub use log::TopicLog;
pub use topic::{Partitioner, TimeUnit, Topic};
