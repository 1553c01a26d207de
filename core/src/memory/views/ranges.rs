//! Ranges of keys and entries, and the part of them after a page.

use std::ops::Bound;

use crate::read::Direction;

pub(super) type Range<T> = (Bound<T>, Bound<T>);

/// What of a range comes after `after`; `None` when nothing does.
pub(super) fn narrowed<T: Ord>(
    (mut from, mut to): Range<T>,
    after: Option<T>,
    direction: Direction,
) -> Option<Range<T>> {
    if let Some(after) = after {
        match (direction, &from, &to) {
            (Direction::Forward, Bound::Included(at) | Bound::Excluded(at), _) if after < *at => {}
            (Direction::Forward, ..) => from = Bound::Excluded(after),
            (Direction::Backward, _, Bound::Included(at) | Bound::Excluded(at)) if after > *at => {}
            (Direction::Backward, ..) => to = Bound::Excluded(after),
        }
    }
    let holds_something = match (&from, &to) {
        (Bound::Included(from), Bound::Included(to)) => from <= to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from < to,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
    };
    holds_something.then_some((from, to))
}

/// A range of entries as a range of entries and keys.
pub(super) fn of_entries(from: &Bound<String>, to: &Bound<String>) -> Range<(String, String)> {
    let before = |entry: &String| (entry.clone(), String::new());
    // The least text after another one is that one and a zero.
    let just_after = |entry: &String| (format!("{entry}\0"), String::new());
    let from = match from {
        Bound::Included(entry) => Bound::Included(before(entry)),
        Bound::Excluded(entry) => Bound::Included(just_after(entry)),
        Bound::Unbounded => Bound::Unbounded,
    };
    let to = match to {
        Bound::Included(entry) => Bound::Excluded(just_after(entry)),
        Bound::Excluded(entry) => Bound::Excluded(before(entry)),
        Bound::Unbounded => Bound::Unbounded,
    };
    (from, to)
}

/// In the order that is asked for.
pub(super) fn turned<'a, T>(
    places: impl DoubleEndedIterator<Item = T> + 'a,
    direction: Direction,
) -> Box<dyn Iterator<Item = T> + 'a> {
    match direction {
        Direction::Forward => Box::new(places),
        Direction::Backward => Box::new(places.rev()),
    }
}

/// Everything after `after`; everything when it is `None`.
pub(super) fn after_key<T: ?Sized>(after: Option<&T>) -> Range<&T> {
    (
        after.map_or(Bound::Unbounded, Bound::Excluded),
        Bound::Unbounded,
    )
}
