//! Events that were removed from the log for good before a follower had read them.

use annals_core::Removed;

use crate::error::WorkError;

/// Stops a follower that has not read what was removed: which follower, which positions, and what
/// can be done.
///
/// ```
/// use annals_core::{Position, Removed, StreamId};
/// use annals_runner::not_read_before_removal;
///
/// let removed = Removed {
///     first: Position::new(3),
///     last: Position::new(3),
///     stream: StreamId::new("account-1")?,
/// };
/// let stopped = not_read_before_removal("view `balances`", &removed, "rebuild it");
/// assert_eq!(
///     stopped.to_string(),
///     "view `balances` has not read position 3 of `account-1`, and that was archived: rebuild it"
/// );
/// # Ok::<_, annals_core::Invalid>(())
/// ```
pub fn not_read_before_removal(follower: &str, removed: &Removed, ways: &str) -> WorkError {
    WorkError::Stopped(format!(
        "{follower} has not read position {removed}, and that was archived: {ways}"
    ))
}
