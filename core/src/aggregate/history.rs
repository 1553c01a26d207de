//! The events of one aggregate for display: in pages, from either end, and never stopped by one
//! that cannot be read.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use super::{Aggregate, AggregateRef, LoadError};
use crate::event::RecordedEvent;
use crate::read::ReadStream;
use crate::stream::Version;
use crate::stream_state::StreamState;
use crate::typed::{DecodeError, Stored, decode};

/// A page of an aggregate's events about to be read: the oldest first, everything that a deletion
/// or truncation hides included.
///
/// ```
/// # use annals_core::{Aggregate, AggregateRef, LoadError};
/// # async fn example<A: Aggregate>(account: AggregateRef<A>) -> Result<(), LoadError> {
/// for entry in account.history().newest_first().limit(20).await?.entries {
///     println!("{} {}", entry.record.version, entry.record.event_type);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing happens until it is awaited"]
pub struct LoadHistory<'a, A> {
    of: &'a AggregateRef<A>,
    from: Version,
    to: Version,
    limit: usize,
    backward: bool,
}

/// A page of history.
#[derive(Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct HistoryPage<E> {
    /// The events, in the order that was asked for.
    pub entries: Vec<HistoryEntry<E>>,
    /// Where to go on, when there is more: `from` (or `to`, newest first) of the next page.
    pub next: Option<Version>,
    /// What the stream is.
    pub state: StreamState,
}

/// One event of a history: its record, and what it reads as.
#[derive(Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct HistoryEntry<E> {
    /// The record, always.
    pub record: RecordedEvent,
    /// The event (none or several, when an upcaster says so), or why it cannot be read.
    pub events: Result<Vec<E>, DecodeError>,
}

impl<'a, A: Aggregate> LoadHistory<'a, A> {
    pub(super) fn new(of: &'a AggregateRef<A>) -> LoadHistory<'a, A> {
        LoadHistory {
            of,
            from: Version::FIRST,
            to: Version::MAX,
            limit: crate::PAGE_EVENTS,
            backward: false,
        }
    }

    /// From this version on.
    pub fn from(mut self, version: impl Into<Version>) -> LoadHistory<'a, A> {
        self.from = version.into();
        self
    }

    /// Up to this version.
    pub fn to(mut self, version: impl Into<Version>) -> LoadHistory<'a, A> {
        self.to = version.into();
        self
    }

    /// At most so many events (at least one).
    pub fn limit(mut self, events: usize) -> LoadHistory<'a, A> {
        self.limit = events.max(1);
        self
    }

    /// The newest first.
    pub fn newest_first(mut self) -> LoadHistory<'a, A> {
        self.backward = true;
        self
    }

    async fn read(self) -> Result<HistoryPage<A::Event>, LoadError> {
        let mut read = ReadStream::of(self.of.stream()?.clone())
            .from(self.from)
            .to(self.to)
            .limit(self.limit)
            .everything();
        if self.backward {
            read = read.backward();
        }
        let page = self.of.db().store().read_stream(read).await?;
        let entries = page.events.into_iter().map(|record| {
            let events = decode::<A::Event>(Stored::from(&record))
                .map(|decoded| decoded.into_iter().collect());
            HistoryEntry { record, events }
        });
        Ok(HistoryPage {
            entries: entries.collect(),
            next: page.next,
            state: page.state,
        })
    }
}

impl<'a, A: Aggregate> IntoFuture for LoadHistory<'a, A> {
    type Output = Result<HistoryPage<A::Event>, LoadError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.read())
    }
}

impl<A> fmt::Debug for LoadHistory<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadHistory")
            .field("of", self.of)
            .field("from", &self.from)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}
