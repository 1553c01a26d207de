//! What must not have happened for an append to happen: the guard of a decision over a query.

use crate::position::Position;
use crate::query::Query;

/// No event that matches the query may come after `after` (anywhere, when there is none).
///
/// ```
/// use annals_core::{Condition, Position, Query};
///
/// let ada = Query::tagged(["user:ada".parse()?]);
/// let condition = Condition::none_matches(ada).after(Position::new(7));
/// assert_eq!(condition.after, Some(Position::new(7)));
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Condition {
    /// What must not have happened.
    pub query: Query,
    /// Since when.
    pub after: Option<Position>,
}

impl Condition {
    /// No event that matches `query` exists.
    pub const fn none_matches(query: Query) -> Condition {
        Condition { query, after: None }
    }

    /// … after `position`.
    #[must_use]
    pub fn after(mut self, position: Position) -> Condition {
        self.after = Some(position);
        self
    }
}
