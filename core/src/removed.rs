//! What is still known of events that were removed for good, and what a page of the log says of
//! them: a reader can distinguish an emptied position from one that never had an event for it.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::event::RecordedEvent;
use crate::position::Position;
use crate::query::Filter;
use crate::read::{Direction, LogPage, ReadLog};
use crate::stream::StreamId;

/// Removed events that one page names at most; it ends where more of them follow.
pub const PAGE_REMOVED_MAX: usize = 4_096;

/// What a store keeps of an event that was removed for good: no content, no metadata, no tags.
///
/// ```
/// use annals_core::{Filter, Position, RemovedEvent, StreamId, Tag};
/// use chrono::DateTime;
///
/// let removed = RemovedEvent {
///     position: Position::new(7),
///     stream: StreamId::new("account-1")?,
///     event_type: Some("account.opened".into()),
///     occurred_at: DateTime::UNIX_EPOCH,
///     recorded_at: DateTime::UNIX_EPOCH,
/// };
/// let tag = Tag::new("owner", "ada")?;
/// assert!(removed.might_match(&Filter::default().category("account").tag(tag)));
/// assert!(!removed.might_match(&Filter::default().types(["account.closed"])));
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct RemovedEvent {
    /// Where it was.
    pub position: Position,
    /// Its stream.
    pub stream: StreamId,
    /// Its type; nothing when that is not known any more.
    pub event_type: Option<Arc<str>>,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
}

impl RemovedEvent {
    /// What is kept of `event` when it is removed.
    pub fn of(event: &RecordedEvent) -> RemovedEvent {
        RemovedEvent {
            position: event.position,
            stream: event.stream.clone(),
            event_type: Some(Arc::clone(&event.event_type)),
            occurred_at: event.occurred_at,
            recorded_at: event.recorded_at,
        }
    }

    /// Whether the filter may have let it through. Its tags are gone, so they exclude nothing.
    pub fn might_match(&self, filter: &Filter) -> bool {
        let is_named = |own: &Arc<str>| filter.types.iter().any(|name| **name == **own);
        (filter.types.is_empty() || self.event_type.as_ref().is_none_or(is_named))
            && filter.matches_stream(&self.stream)
            && filter.occurred_in(self.occurred_at)
            && filter.recorded_in(self.recorded_at)
    }
}

/// Consecutive positions of one stream whose events were removed for good.
///
/// ```
/// use annals_core::{Position, Removed, StreamId};
///
/// let removed = Removed {
///     first: Position::new(3),
///     last: Position::new(5),
///     stream: StreamId::new("account-1")?,
/// };
/// assert_eq!(removed.to_string(), "3 to 5 of `account-1`");
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Removed {
    /// The first of them.
    pub first: Position,
    /// The last of them.
    pub last: Position,
    /// The stream.
    pub stream: StreamId,
}

impl std::fmt::Display for Removed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.first < self.last {
            write!(f, "{} to {} of `{}`", self.first, self.last, self.stream)
        } else {
            write!(f, "{} of `{}`", self.first, self.stream)
        }
    }
}

impl LogPage {
    /// The positions among which removed events must be looked for, both included; nothing when
    /// the page has an event at each position that it looked through.
    pub fn gaps(&self, read: &ReadLog) -> Option<(Position, Position)> {
        let (first, last) = match read.direction {
            Direction::Forward => (read.after.next(), self.scanned),
            Direction::Backward => (self.scanned, read.up_to.min(self.head.visible)),
        };
        let looked_through = (last.get() + 1).saturating_sub(first.get());
        (looked_through > self.events.len() as u64).then_some((first, last))
    }

    /// Names what was removed in the range that the page looked through, and may have matched.
    ///
    /// `found` has the removed events of that range in the page's direction, at most one more than
    /// [`PAGE_REMOVED_MAX`]: then the page ends before that one. They may be read after the page:
    /// what was removed stays so, and what is in the page is not named.
    #[must_use]
    pub fn with_removed(mut self, read: &ReadLog, mut found: Vec<RemovedEvent>) -> LogPage {
        let direction = read.direction;
        if found.len() > PAGE_REMOVED_MAX {
            found.truncate(PAGE_REMOVED_MAX);
            let cut = found[PAGE_REMOVED_MAX - 1].position;
            self.events.retain(|event| match direction {
                Direction::Forward => event.position <= cut,
                Direction::Backward => event.position >= cut,
            });
            self.scanned = cut;
            self.end = false;
        }
        if direction == Direction::Backward {
            found.reverse();
        }
        for event in found {
            if !event.might_match(&read.filter) {
                continue;
            }
            let at = event.position;
            let shown = match direction {
                Direction::Forward => self
                    .events
                    .binary_search_by_key(&at, |event| event.position),
                Direction::Backward => {
                    let order = |event: &RecordedEvent| at.cmp(&event.position);
                    self.events.binary_search_by(order)
                }
            };
            if shown.is_ok() {
                continue;
            }
            match self.removed.last_mut() {
                Some(before) if before.last.next() == at && before.stream == event.stream => {
                    before.last = at;
                }
                _ => self.removed.push(Removed {
                    first: at,
                    last: at,
                    stream: event.stream,
                }),
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Head;

    const HEAD: u64 = PAGE_REMOVED_MAX as u64 + 9;

    fn removed(position: u64) -> RemovedEvent {
        RemovedEvent {
            position: Position::new(position),
            stream: "account-1".parse().unwrap(),
            event_type: None,
            occurred_at: DateTime::UNIX_EPOCH,
            recorded_at: DateTime::UNIX_EPOCH,
        }
    }

    /// A page that looked through a log in which everything was removed.
    fn page(read: &ReadLog) -> LogPage {
        LogPage {
            events: Vec::new(),
            removed: Vec::new(),
            scanned: match read.direction {
                Direction::Forward => Position::new(HEAD),
                Direction::Backward => Position::new(1),
            },
            end: true,
            head: Head::at(Position::new(HEAD)),
        }
    }

    fn check(read: ReadLog, found: Vec<u64>, runs: &[(u64, u64)], scanned: u64, end: bool) {
        let found = found.into_iter().map(removed).collect();
        let page = page(&read).with_removed(&read, found);
        let named = |removed: &Removed| (removed.first.get(), removed.last.get());
        assert_eq!(page.removed.iter().map(named).collect::<Vec<_>>(), runs);
        assert_eq!((page.scanned.get(), page.end), (scanned, end));
    }

    #[test]
    fn a_full_page_ends_before_the_next_removed_event() {
        let most = PAGE_REMOVED_MAX as u64;
        let forward = ReadLog::after(Position::START);
        check(
            forward.clone(),
            (1..=most).collect(),
            &[(1, most)],
            HEAD,
            true,
        );
        check(forward, (1..=most + 1).collect(), &[(1, most)], most, false);
        let backward = ReadLog::after(Position::START).backward();
        let descending = |last: u64| (last..=HEAD).rev().collect();
        check(backward.clone(), descending(10), &[(10, HEAD)], 1, true);
        check(backward, descending(9), &[(10, HEAD)], 10, false);
    }

    #[test]
    fn a_page_with_every_position_has_no_gaps() {
        let read = ReadLog::after(Position::new(3));
        let page = |scanned| LogPage {
            scanned: Position::new(scanned),
            ..page(&read)
        };
        assert_eq!(page(3).gaps(&read), None);
        let gaps = (Position::new(4), Position::new(5));
        assert_eq!(page(5).gaps(&read), Some(gaps));
    }
}
