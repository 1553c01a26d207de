//! What is still known of events that were removed for good, and what a page of the log says of
//! them: a reader can distinguish an emptied position from one that never had an event for it.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::event::RecordedEvent;
use crate::position::Position;
use crate::query::{Filter, Query};
use crate::read::{Direction, LogPage};
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
        self.is_one_of(&filter.types)
            && filter.matches_stream(&self.stream)
            && filter.occurred_in(self.occurred_at)
            && filter.recorded_in(self.recorded_at)
    }

    /// Whether the query may have matched it. Its tags are gone, so they exclude nothing.
    pub fn might_match_query(&self, query: &Query) -> bool {
        query.items().iter().any(|item| {
            self.is_one_of(&item.types)
                && (item.streams.is_empty() || item.streams.contains(&self.stream))
        })
    }

    fn is_one_of(&self, types: &[String]) -> bool {
        let Some(own) = &self.event_type else {
            return true;
        };
        types.is_empty() || types.iter().any(|name| **name == **own)
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
    pub fn gaps(
        &self,
        direction: Direction,
        after: Position,
        up_to: Position,
    ) -> Option<(Position, Position)> {
        let (first, last) = match direction {
            Direction::Forward => (after.next(), self.scanned),
            Direction::Backward => (self.scanned, up_to.min(self.head.visible)),
        };
        let looked_through = (last.get() + 1).saturating_sub(first.get());
        (looked_through > self.events.len() as u64).then_some((first, last))
    }

    /// Names what was removed in the range that the page looked through.
    ///
    /// `found` has the removed events of that range in the page's direction, at most one more than
    /// [`PAGE_REMOVED_MAX`]: then the page ends before that one. They may be read after the page:
    /// what was removed stays so, and what is in the page is not named.
    #[must_use]
    pub fn with_removed(
        mut self,
        direction: Direction,
        mut found: Vec<RemovedEvent>,
        might_match: impl Fn(&RemovedEvent) -> bool,
    ) -> LogPage {
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
        for event in found.into_iter().filter(might_match) {
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
