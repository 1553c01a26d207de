//! The one predicate: everything that is open has a `last`, the largest event time it can still
//! take, and whether it is closed or late follows from that and from the watermark.
//!
//! | what | its `last` |
//! |---|---|
//! | tumbling or hopping window | `end - 1` |
//! | sliding window | `end` |
//! | session | last event + gap |
//! | left row of a join | its time + `after` |
//! | right row of a join | its time + `before` |
//! | row that waits for a table, or for its turn | its time |

use crate::{Key, Span, Time, hash::Map};
use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
};

/// Whether nothing on time can reach it any more.
///
/// ```
/// use annals_streams::{Time, due};
///
/// let last = Time::from_micros(59);
/// assert!(!due::is_closed(Time::from_micros(58), last));
/// assert!(due::is_closed(Time::from_micros(59), last));
/// ```
pub fn is_closed(watermark: Time, last: Time) -> bool {
    watermark >= last
}

/// Whether it takes nothing more, not even within the lateness that is allowed.
///
/// ```
/// use annals_streams::{Span, Time, due};
///
/// let last = Time::from_micros(59);
/// assert!(!due::is_late(Time::from_micros(68), last, Span::from_micros(10)));
/// assert!(due::is_late(Time::from_micros(69), last, Span::from_micros(10)));
/// ```
pub fn is_late(watermark: Time, last: Time, lateness: Span) -> bool {
    is_closed(watermark, last + lateness)
}

/// What has to be looked at, and when. Entries may be stale: the taker of one looks again.
pub(crate) struct DueIndex<K>(BinaryHeap<Reverse<(Time, K)>>);

impl<K: Ord> DueIndex<K> {
    pub(crate) fn new() -> Self {
        Self(BinaryHeap::new())
    }

    pub(crate) fn insert(&mut self, due: Time, key: K) {
        self.0.push(Reverse((due, key)));
    }

    /// The earliest moment at which something is due; [`Time::MAX`] when nothing is.
    pub(crate) fn next(&self) -> Time {
        self.0.peek().map_or(Time::MAX, |entry| entry.0.0)
    }

    pub(crate) fn pop(&mut self, watermark: Time) -> Option<(Time, K)> {
        if self.0.peek()?.0.0 > watermark {
            return None;
        }
        self.0.pop().map(|entry| entry.0)
    }
}

impl<K: Key> DueIndex<K> {
    /// Has a key looked at when `next` comes, if that is earlier than what it is armed for.
    pub(crate) fn arm(&mut self, armed: &mut Option<Time>, next: Option<Time>, key: &K) {
        if let Some(next) = next
            && armed.is_none_or(|armed| next < armed)
        {
            *armed = Some(next);
            self.insert(next, key.clone());
        }
    }

    /// Takes the keys that are due, and disarms them. An entry for another moment than that for
    /// which its key is armed is stale.
    pub(crate) fn take_armed<V>(
        &mut self,
        watermark: Time,
        keys: &mut Map<K, V>,
        armed_of: impl Fn(&mut V) -> &mut Option<Time>,
    ) -> BTreeSet<K> {
        let mut due = BTreeSet::new();
        while let Some((at, key)) = self.pop(watermark) {
            if let Some(armed) = keys.get_mut(&key).map(&armed_of)
                && *armed == Some(at)
            {
                *armed = None;
                due.insert(key);
            }
        }
        due
    }
}
