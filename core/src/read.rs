//! Reading in pages: what is asked of a stream, of the log, of a query, and what comes back.

use crate::event::RecordedEvent;
use crate::position::{Head, Partition, Position};
use crate::query::{Filter, Query};
use crate::removed::Removed;
use crate::stream::{StreamId, Version};
use crate::stream_state::StreamState;

/// The way in which a range is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)]
pub enum Direction {
    /// Oldest first.
    #[default]
    Forward,
    /// Newest first.
    Backward,
}

/// What of a stream is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)]
pub enum Shown {
    /// What deletions and truncation left.
    #[default]
    Visible,
    /// Also what they hide: for folds and reads of the past.
    Everything,
}

/// Events asked for at once by default.
pub const PAGE_EVENTS: usize = 1_000;

/// Bytes of payload after which a store ends a page before its limit, so that memory stays bounded.
/// The first event is always given.
pub const PAGE_BYTES_MAX: usize = 4 << 20;

/// A range of one stream, both ends included.
///
/// ```
/// use annals_core::{ReadStream, StreamId, Version};
///
/// let read = ReadStream::of(StreamId::new("account-1")?)
///     .from(Version::new(3))
///     .limit(10)
///     .backward();
/// assert_eq!(read.to, Version::MAX);
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadStream {
    /// The stream.
    pub stream: StreamId,
    /// The lowest version wanted.
    pub from: Version,
    /// The highest version wanted.
    pub to: Version,
    /// At most so many events; a store may give fewer and say where to go on. A page of none gets
    /// nowhere.
    pub limit: usize,
    /// Which end comes first.
    pub direction: Direction,
    /// Whether hidden events are shown.
    pub shown: Shown,
}

impl ReadStream {
    /// The whole visible stream, oldest first.
    pub const fn of(stream: StreamId) -> ReadStream {
        ReadStream {
            stream,
            from: Version::FIRST,
            to: Version::MAX,
            limit: PAGE_EVENTS,
            direction: Direction::Forward,
            shown: Shown::Visible,
        }
    }

    /// From this version on.
    #[must_use]
    pub fn from(mut self, version: Version) -> ReadStream {
        self.from = version;
        self
    }

    /// Up to this version.
    #[must_use]
    pub fn to(mut self, version: Version) -> ReadStream {
        self.to = version;
        self
    }

    /// At most so many events (at least one).
    #[must_use]
    pub fn limit(mut self, events: usize) -> ReadStream {
        self.limit = events.max(1);
        self
    }

    /// Newest first.
    #[must_use]
    pub fn backward(mut self) -> ReadStream {
        self.direction = Direction::Backward;
        self
    }

    /// Also what deletions and truncation hide.
    #[must_use]
    pub fn everything(mut self) -> ReadStream {
        self.shown = Shown::Everything;
        self
    }

    /// The rest of the range after a page that ended before it: what to ask next.
    #[must_use]
    pub fn resume(mut self, next: Version) -> ReadStream {
        match self.direction {
            Direction::Forward => self.from = next,
            Direction::Backward => self.to = next,
        }
        self
    }
}

/// A page of one stream. Everything in it belongs to one moment.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct StreamPage {
    /// The events, in the order that was asked for.
    pub events: Vec<RecordedEvent>,
    /// Where to go on when the range may hold more: [`ReadStream::resume`].
    pub next: Option<Version>,
    /// What the stream was.
    pub state: StreamState,
    /// How far the stream's partition went.
    pub head: Position,
}

/// A range of one partition of the log: after `after`, up to and with `up_to`.
///
/// ```
/// use annals_core::{Filter, Position, ReadLog};
///
/// let read = ReadLog::after(Position::new(41))
///     .filter(Filter::default().category("account"))
///     .limit(100);
/// assert_eq!(read.limit, 100);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadLog {
    /// The partition.
    pub partition: Partition,
    /// Events after this position.
    pub after: Position,
    /// Events up to this position.
    pub up_to: Position,
    /// At most so many events that match; a store may give fewer and says up to where it scanned.
    /// A page of none gets nowhere.
    pub limit: usize,
    /// Which end comes first.
    pub direction: Direction,
    /// Which events.
    pub filter: Filter,
}

impl ReadLog {
    /// Everything after `position` in the first partition, oldest first.
    pub fn after(position: Position) -> ReadLog {
        ReadLog {
            partition: Partition(0),
            after: position,
            up_to: Position::MAX,
            limit: PAGE_EVENTS,
            direction: Direction::Forward,
            filter: Filter::default(),
        }
    }

    /// Of this partition.
    #[must_use]
    pub fn partition(mut self, partition: Partition) -> ReadLog {
        self.partition = partition;
        self
    }

    /// Up to and with this position.
    #[must_use]
    pub fn up_to(mut self, position: Position) -> ReadLog {
        self.up_to = position;
        self
    }

    /// At most so many events (at least one).
    #[must_use]
    pub fn limit(mut self, events: usize) -> ReadLog {
        self.limit = events.max(1);
        self
    }

    /// Newest first.
    #[must_use]
    pub fn backward(mut self) -> ReadLog {
        self.direction = Direction::Backward;
        self
    }

    /// Only what the filter lets through.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> ReadLog {
        self.filter = filter;
        self
    }
}

/// A page of the log or of a query. Everything in it, the head too, belongs to one moment.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct LogPage {
    /// The events that match, in the order that was asked for.
    pub events: Vec<RecordedEvent>,
    /// Where events were removed for good that may have matched, lowest first. Pages of a query
    /// name none: a decision is made on what is left.
    pub removed: Vec<Removed>,
    /// How far the range was looked through. Forward: nothing that matches lies between `after`
    /// and here but what is in the page; go on with `after` set to it. Backward: the lowest
    /// position looked at; go on with `up_to` just below it.
    pub scanned: Position,
    /// Whether the whole range up to the head was looked through.
    pub end: bool,
    /// How far the partition went.
    pub head: Head,
}

/// A range of what a query matches.
///
/// ```
/// use annals_core::{Query, ReadQuery};
///
/// let read = ReadQuery::of(Query::all()).limit(3);
/// assert_eq!(read.limit, 3);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadQuery {
    /// Which events.
    pub query: Query,
    /// Events after this position.
    pub after: Position,
    /// Events up to this position.
    pub up_to: Position,
    /// At most so many events; a store may give fewer and says up to where it scanned. A page of
    /// none gets nowhere.
    pub limit: usize,
    /// Which end comes first.
    pub direction: Direction,
}

impl ReadQuery {
    /// Everything that matches, oldest first.
    pub const fn of(query: Query) -> ReadQuery {
        ReadQuery {
            query,
            after: Position::START,
            up_to: Position::MAX,
            limit: PAGE_EVENTS,
            direction: Direction::Forward,
        }
    }

    /// After this position.
    #[must_use]
    pub fn after(mut self, position: Position) -> ReadQuery {
        self.after = position;
        self
    }

    /// Up to and with this position.
    #[must_use]
    pub fn up_to(mut self, position: Position) -> ReadQuery {
        self.up_to = position;
        self
    }

    /// At most so many events (at least one).
    #[must_use]
    pub fn limit(mut self, events: usize) -> ReadQuery {
        self.limit = events.max(1);
        self
    }

    /// Newest first.
    #[must_use]
    pub fn backward(mut self) -> ReadQuery {
        self.direction = Direction::Backward;
        self
    }
}
