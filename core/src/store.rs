//! What a backend owes: the traits of a store, in bytes, and nothing about what an event means.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use crate::append::{Append, AppendError, Appended, Limits, Placed};
use crate::error::StoreError;
use crate::event::EventId;
use crate::inline::InlineViews;
use crate::position::{Head, Incarnation, LogId, Partition, Position};
use crate::read::{LogPage, ReadLog, ReadQuery, ReadStream, StreamPage};
use crate::snapshot::{FoldId, Snapshot};
use crate::stream::{StreamId, Version};
use crate::stream_state::{ChangeStream, StreamState};
use crate::view_store::ViewStore;

/// A place where events are recorded, in order, for good.
///
/// Every store keeps these promises; the contract suite (feature `conformance`) holds the test of
/// each.
///
/// - **All or nothing.** An append writes all of its events or none.
/// - **No surprise.** An append whose [`Expected`](crate::Expected) no longer holds writes nothing
///   and says what it found.
/// - **Durable on return.** When an append returns `Ok`, its events survive a power cut.
/// - **Once.** Repeating an append with the same ids changes nothing and returns what the first one
///   returned, for every expectation, for ever, across restarts. The ids decide before the
///   expectation does.
/// - **Cancel at will.** Dropping a future loses nothing acknowledged; what was dropped may still
///   happen, and asking again with the same ids tells.
///
/// Payloads are bytes here. Types, schemas and upcasting live one floor up, in
/// [`Event`](crate::Event).
#[async_trait]
pub trait EventStore: fmt::Debug + Send + Sync + 'static {
    /// Records the events at the ends of their streams when everything that is expected holds,
    /// also of streams that get no event. All of it or nothing.
    ///
    /// # Errors
    ///
    /// [`AppendError::Conflict`] when something is not what the caller thought, with every
    /// violation: read, decide again. [`AppendError::Unknown`] when the answer was lost: append
    /// again with the same ids. [`AppendError::Invalid`] for what can never be appended, and for
    /// what this store [cannot do](Store).
    async fn append(&self, append: Append) -> Result<Appended, AppendError>;

    /// As [`EventStore::append`], of an append that the caller keeps, to ask again with the same
    /// ids when the answer is lost. A store that can shares it; others are given a copy.
    ///
    /// # Errors
    ///
    /// As [`EventStore::append`].
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use annals_core::{Append, AppendError, Appended, EventStore};
    ///
    /// # type Answer = Result<Appended, AppendError>;
    /// # async fn example(store: &dyn EventStore, append: Append) -> Answer {
    /// let append = Arc::new(append);
    /// match store.append_shared(&append).await {
    ///     Err(AppendError::Unknown(_)) => store.append_shared(&append).await,
    ///     answer => answer,
    /// }
    /// # }
    /// ```
    async fn append_shared(&self, append: &Arc<Append>) -> Result<Appended, AppendError> {
        self.append(Append::clone(append)).await
    }

    /// A page of one stream. A stream that does not exist is empty.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn read_stream(&self, read: ReadStream) -> Result<StreamPage, StoreError>;

    /// What became of these ids in `partition`: for each its place, or nothing when it is unknown
    /// there.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn find(
        &self,
        partition: Partition,
        ids: &[EventId],
    ) -> Result<Vec<Option<Found>>, StoreError>;

    /// What the stream is.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn stream_state(&self, stream: &StreamId) -> Result<StreamState, StoreError>;

    /// Deletes, tombstones, truncates or archives a stream, when what is expected of it holds as
    /// it would for an append. Answers with what the stream is then.
    ///
    /// A change has an id, as an event has: the same one again changes nothing, whatever is
    /// expected, and answers with what the stream is now.
    ///
    /// # Errors
    ///
    /// As [`EventStore::append`]; [`AppendError::Invalid`] when the change names a version that the
    /// stream does not have, [`AppendError::IdClash`] when the id belongs to another change.
    async fn change_stream(&self, change: ChangeStream) -> Result<StreamState, AppendError>;

    /// How much one append may hold.
    fn limits(&self) -> Limits {
        Limits::default()
    }
}

/// A known id.
///
/// ```
/// # fn example(found: &annals_core::Found) {
/// println!("one of {} events appended from {} on", found.append_events, found.append_first);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Found {
    /// Where the event is (or was, when it was removed for good).
    pub placed: Placed,
    /// The position of the first event of its append.
    pub append_first: Position,
    /// How many events its append had.
    pub append_events: u32,
}

/// The log of a store: every event, in partitions, each with an order of its own.
///
/// - **Dense.** Positions in a partition are 1, 2, 3 … in commit order.
/// - **Nothing appears late.** At or before a position that some reader has seen no event will
///   appear later. What readers see goes up to [`Log::head`], and everything that reads, waits or
///   rebuilds uses that one head.
#[async_trait]
pub trait Log: fmt::Debug + Send + Sync + 'static {
    /// Which log this is.
    fn id(&self) -> LogId;

    /// Which of its incarnations this process sees. It changes when the store notices that the log
    /// was restored, swapped or failed over to one that lacks events: a reader that remembers
    /// anything of the log compares this first.
    fn incarnation(&self) -> Incarnation {
        Incarnation::first(self.id())
    }

    /// How many partitions it has; they are numbered from 0.
    fn partitions(&self) -> u32;

    /// The number of partitions that it may have had when its followers began, although it has
    /// more now: somebody accepted that keys have moved. Where this is nothing, or more than a
    /// follower began with, the follower stops.
    fn grown_from(&self) -> Option<u32> {
        None
    }

    /// The partition of a stream.
    fn partition_of(&self, stream: &StreamId) -> Partition {
        Partition::of(stream.as_str(), self.partitions())
    }

    /// A page of a partition.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](crate::Failure) when there is no such partition.
    async fn read(&self, read: ReadLog) -> Result<LogPage, StoreError>;

    /// How far a partition goes.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](crate::Failure) when there is no such partition.
    async fn head(&self, partition: Partition) -> Result<Head, StoreError>;

    /// The last position of `partition` that was recorded at or before `moment`.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](crate::Failure) when there is no such partition.
    async fn position_at(
        &self,
        partition: Partition,
        moment: DateTime<Utc>,
    ) -> Result<Position, StoreError> {
        // Recorded times never go backwards with the position, so a binary search finds it in some
        // thirty small reads.
        let mut known = Position::START;
        let mut above = self.head(partition).await?.visible.next();
        while known.next() < above {
            let middle = Position::new((known.get() + above.get()) / 2);
            let mut read = ReadLog::after(middle.minus(1))
                .up_to(above.minus(1))
                .partition(partition)
                .limit(1);
            let first = loop {
                let page = self.read(read.clone()).await?;
                if page.end || !page.events.is_empty() {
                    break page.events.into_iter().next();
                }
                // Events were removed here, and the store gave up looking for the next one.
                read.after = page.scanned;
            };
            match first {
                Some(event) if event.recorded_at <= moment => known = event.position,
                _ => above = middle,
            }
        }
        Ok(known)
    }

    /// Where a partition begins: what was at or before this position cannot be read any more.
    ///
    /// Logs that keep everything begin at [`Position::START`].
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](crate::Failure) when there is no such partition.
    async fn begins_after(&self, _partition: Partition) -> Result<Position, StoreError> {
        Ok(Position::START)
    }

    /// Signals that some head may have moved.
    fn hint(&self) -> Hint;

    /// The partitions that are assigned to this process, for example by a consumer group; nothing
    /// where a process works on whichever it can get.
    ///
    /// It is a hint and protects nothing: leases and checkpoints do.
    fn assignment(&self) -> Option<watch::Receiver<Assignment>> {
        None
    }

    /// Why a partition is not read on in this process just now, while what was read of it before is
    /// still answered. Its head does not advance then, so that nothing lags; followers show this in
    /// their status.
    fn stalled(&self, _partition: Partition) -> Option<String> {
        None
    }
}

/// The partitions of a log that were assigned to this process, for example by a consumer group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assignment {
    /// The partitions.
    pub partitions: BTreeSet<Partition>,
    /// Counts the changes of the assignment that this process saw.
    pub generation: u64,
}

impl Assignment {
    /// These partitions, after so many changes.
    ///
    /// ```
    /// use annals_core::{Assignment, Partition};
    ///
    /// let all = Assignment::new([Partition(0), Partition(1)], 1);
    /// assert_eq!(all.partitions.len(), 2);
    /// ```
    pub fn new(partitions: impl IntoIterator<Item = Partition>, generation: u64) -> Assignment {
        Assignment {
            partitions: partitions.into_iter().collect(),
            generation,
        }
    }
}

/// A wake-up that may come too often or not at all: a waiting reader also polls after a while.
///
/// ```
/// # async fn example(mut hint: annals_core::Hint) {
/// hint.wait(std::time::Duration::from_millis(100)).await;
/// // … and now look.
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Hint {
    moved: watch::Receiver<u64>,
}

impl Hint {
    /// A hint that comes whenever the sender changes.
    pub fn new(moved: watch::Receiver<u64>) -> Hint {
        Hint { moved }
    }

    /// Forgets what came until now, so that the next [`wait`](Hint::wait) ends only for something
    /// newer.
    pub fn reset(&mut self) {
        self.moved.mark_unchanged();
    }

    /// Returns at the next hint (at once, when one came since the last wait), or after `at_most`.
    pub async fn wait(&mut self, at_most: Duration) {
        let moved = async {
            if self.moved.changed().await.is_err() {
                // The store is gone and will say nothing more.
                std::future::pending::<()>().await;
            }
        };
        let _ = tokio::time::timeout(at_most, moved).await;
    }
}

/// A store that can decide over any query: a dynamic consistency boundary (dcb.events).
///
/// It has one partition, and its [`append`](EventStore::append) takes
/// [conditions](crate::Append::condition).
#[async_trait]
pub trait TaggedStore: fmt::Debug + Send + Sync + 'static {
    /// A page of what the query matches. Its head belongs to the same moment as its events, so it
    /// can guard a decision.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](crate::Failure) for a query without items.
    async fn read_query(&self, read: ReadQuery) -> Result<LogPage, StoreError>;
}

/// A place for snapshots, beside the log.
#[async_trait]
pub trait SnapshotStore: fmt::Debug + Send + Sync + 'static {
    /// Keeps the snapshot; one of the same stream, fold and version is replaced.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), StoreError>;

    /// The newest snapshot of the stream by this fold, in this fold's version, at or below
    /// `at_most`.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn newest_snapshot(
        &self,
        stream: &StreamId,
        fold: &FoldId,
        at_most: Version,
    ) -> Result<Option<Snapshot>, StoreError>;

    /// Forgets the snapshot at this version, if there is one.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn delete_snapshot(
        &self,
        stream: &StreamId,
        fold: &FoldId,
        version: Version,
    ) -> Result<(), StoreError>;
}

/// A backend: a store, its log, and what more it can do.
///
/// What it can do is asked once, when a program starts, and answered for good.
///
/// ```
/// use annals_core::{MemoryStore, Store};
///
/// assert!(MemoryStore::new().atomic());
/// assert!(!MemoryStore::with_partitions(3).atomic());
/// ```
pub trait Store: EventStore + Log {
    /// Whether one append may name several streams.
    fn atomic(&self) -> bool {
        false
    }

    /// Decisions over queries.
    fn tagged(&self) -> Option<&dyn TaggedStore> {
        None
    }

    /// Snapshots.
    fn snapshots(&self) -> Option<&dyn SnapshotStore> {
        None
    }

    /// Read models beside the log.
    fn views(&self) -> Option<&dyn ViewStore> {
        None
    }

    /// Read models whose rows are written with appends.
    fn inline_views(&self) -> Option<&dyn InlineViews> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::TimeDelta;

    use super::*;

    use crate::clock::{Clock, ManualClock};
    use crate::event::NewEvent;
    use crate::memory::MemoryStore;
    use crate::stream_state::StreamChange;

    /// A log that looks at one position a page.
    #[derive(Debug)]
    struct StepByStep(MemoryStore);

    #[async_trait]
    impl Log for StepByStep {
        fn id(&self) -> LogId {
            self.0.id()
        }

        fn partitions(&self) -> u32 {
            self.0.partitions()
        }

        async fn read(&self, mut read: ReadLog) -> Result<LogPage, StoreError> {
            let end = read.up_to;
            read.up_to = end.min(read.after.next());
            let page = self.0.read(read.clone()).await?;
            Ok(LogPage {
                end: page.end && read.up_to == end,
                ..page
            })
        }

        async fn head(&self, partition: Partition) -> Result<Head, StoreError> {
            self.0.head(partition).await
        }

        fn hint(&self) -> Hint {
            self.0.hint()
        }
    }

    #[tokio::test]
    async fn a_moment_is_found_after_removed_events() {
        let clock = Arc::new(ManualClock::default());
        let store = MemoryStore::with_clock(Arc::<ManualClock>::clone(&clock));
        let stream = StreamId::new("a-1").unwrap();
        for _ in 0..9 {
            clock.advance(TimeDelta::seconds(1));
            store
                .append(Append::new(stream.clone(), [NewEvent::json("a", "1")]))
                .await
                .unwrap();
        }
        let before = Version::new(8);
        store
            .change_stream(ChangeStream::new(&stream, StreamChange::Archive { before }))
            .await
            .unwrap();
        let moment = clock.now() - TimeDelta::seconds(1);
        let found = StepByStep(store)
            .position_at(Partition(0), moment)
            .await
            .unwrap();
        assert_eq!(found, Position::new(8));
    }
}
