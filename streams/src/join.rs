//! Joins: two streams within bounds or in one window, a stream with a table, two tables.

use crate::{
    Kept, StateError,
    state::{Codec, holds},
};
use serde::{Deserialize, Serialize};

pub(crate) mod as_of;
pub(crate) mod foreign_key;
pub(crate) mod interval;
pub(crate) mod table;
pub(crate) mod window;

/// An item of one of two inputs.
///
/// ```
/// use annals_streams::Side;
///
/// let click: Side<(), (&str, u64)> = Side::Right(("ad-7", 3));
/// assert!(matches!(click, Side::Right(_)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Side<L, R> {
    /// Of the left input.
    Left(L),
    /// Of the right input.
    Right(R),
}

impl<J, K, L: Kept, R: Kept> Side<(J, L), (K, R)> {
    /// Whether the value under its key can be saved.
    pub(crate) fn check_value<C: Codec>(&self) -> Result<(), StateError> {
        match self {
            Side::Left((_, left)) => holds::<C, _>(left),
            Side::Right((_, right)) => holds::<C, _>(right),
        }
    }
}

/// Which rows come out without a partner.
///
/// ```
/// use annals_streams::JoinType;
///
/// assert!(JoinType::Outer.keeps_left());
/// assert!(!JoinType::Left.keeps_right());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JoinType {
    /// None.
    #[default]
    Inner,
    /// Those of the left.
    Left,
    /// Those of both sides.
    Outer,
}

impl JoinType {
    /// Whether a left row without a partner comes out.
    ///
    /// ```
    /// # use annals_streams::JoinType;
    /// assert!(JoinType::Left.keeps_left());
    /// ```
    pub fn keeps_left(self) -> bool {
        self != JoinType::Inner
    }

    /// Whether a right row without a partner comes out.
    ///
    /// ```
    /// # use annals_streams::JoinType;
    /// assert!(!JoinType::Inner.keeps_right());
    /// ```
    pub fn keeps_right(self) -> bool {
        self == JoinType::Outer
    }
}

/// What makes a row of a pair; at least one side is there.
pub(crate) type RowOf<L, R, O> = Box<dyn Fn(Option<&L>, Option<&R>) -> O + Send + Sync>;
