//! Appending: what is asked, what must be true for it, and what came of it.

mod appended;
mod condition;
mod error;
mod expected;
mod limits;
mod request;

pub use appended::{Appended, Placed};
pub use condition::Condition;
pub use error::{AppendError, IdClash, Violation};
pub use expected::Expected;
pub use limits::Limits;
pub use request::Append;
