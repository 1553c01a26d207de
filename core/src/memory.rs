//! An event store in memory.
//!
//! It has two readers. Tests use it because it is fast and forgets everything. Authors of backends
//! read it first: it is the shortest code that keeps every promise of [`Store`], with nothing
//! clever in it. When a backend and this file disagree, one of them has a bug, and the contract
//! suite should say which.

mod partition;
mod snapshots;
mod views;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use self::partition::{PartitionLog, Range};
use crate::append::{Append, AppendError, Appended, Limits, Placed};
use crate::clock::{Clock, SystemClock, time_of};
use crate::deduplicate::{Duplicate, deduplicate};
use crate::error::{Failure, StoreError};
use crate::event::EventId;
use crate::inline::InlineViews;
use crate::position::{Head, Incarnation, LogId, Partition, Position};
use crate::read::{
    Direction, LogPage, PAGE_BYTES_MAX, ReadLog, ReadQuery, ReadStream, Shown, StreamPage,
};
use crate::snapshot::Snapshot;
use crate::store::{EventStore, Found, Hint, Log, SnapshotStore, Store, TaggedStore};
use crate::stream::{StreamId, Version};
use crate::stream_state::{ChangeStream, StreamState};
use crate::view_store::ViewStore;

/// A store that forgets everything when the last handle to it is gone.
///
/// With one partition it can do everything that a SQL store can. With several it is a log without a
/// total order, as Kafka is: no append over several streams, no decisions over queries. It is also
/// a place for read models, of its own log or of another.
///
/// ```
/// use annals_core::{Append, EventStore, MemoryStore, NewEvent, StreamId};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = MemoryStore::new();
/// let noted = NewEvent::json("noted", b"{}".as_slice());
/// let appended = store.append(Append::new(StreamId::new("note-1")?, [noted])).await?;
/// assert_eq!(appended.last().version.get(), 1);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct Shared {
    id: LogId,
    limits: Limits,
    partitions: Vec<Mutex<PartitionLog>>,
    snapshots: Mutex<BTreeMap<(StreamId, String, u32, Version), Snapshot>>,
    views: Mutex<views::Views>,
    moved: watch::Sender<u64>,
    rewound: AtomicU64,
}

impl MemoryStore {
    /// An empty store with one partition.
    pub fn new() -> MemoryStore {
        MemoryStore::with_partitions(1)
    }

    /// An empty store with `count` partitions (at least one).
    pub fn with_partitions(count: u32) -> MemoryStore {
        let partitions = (0..count.max(1)).map(|_| Mutex::default()).collect();
        let (moved, _) = watch::channel(0);
        let shared = Shared {
            id: LogId::random(),
            limits: Limits::default(),
            partitions,
            snapshots: Mutex::default(),
            views: Mutex::default(),
            moved,
            rewound: AtomicU64::new(0),
        };
        MemoryStore {
            shared: Arc::new(shared),
            clock: Arc::new(SystemClock),
        }
    }

    /// An empty store with one partition, whose recorded times come from `clock`.
    pub fn with_clock(clock: Arc<dyn Clock>) -> MemoryStore {
        MemoryStore::new().on_clock(clock)
    }

    /// The same store with the same events; what this handle appends is recorded at the times that
    /// `clock` tells, and what it asks of leases is decided by it.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use annals_core::{Log, ManualClock, MemoryStore};
    ///
    /// let store = MemoryStore::with_partitions(3);
    /// let held = store.clone().on_clock(Arc::new(ManualClock::default()));
    /// assert_eq!(held.id(), store.id());
    /// ```
    #[must_use]
    pub fn on_clock(mut self, clock: Arc<dyn Clock>) -> MemoryStore {
        self.clock = clock;
        self
    }

    /// Loses what was committed after `position` in the first partition, as a restore or a
    /// fail-over to a server that lacks it would: for tests. The log goes on in a new
    /// [incarnation](Log::incarnation).
    ///
    /// ```
    /// use annals_core::{Log, MemoryStore, Position};
    ///
    /// let store = MemoryStore::new();
    /// let before = store.incarnation();
    /// store.rewind(Position::START);
    /// assert_ne!(store.incarnation(), before);
    /// ```
    pub fn rewind(&self, position: Position) {
        let mut log = self.shared.partitions[0]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        log.rewind(position);
        self.shared.rewound.fetch_add(1, Ordering::SeqCst);
    }

    fn partition(&self, partition: Partition) -> Result<MutexGuard<'_, PartitionLog>, StoreError> {
        let index = partition.0 as usize;
        let log = self.shared.partitions.get(index).ok_or_else(|| {
            StoreError::new(
                Failure::Invalid,
                format!(
                    "there is no partition {partition}, the log has {}",
                    self.partitions()
                ),
            )
        })?;
        Ok(log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn append_to(&self, partition: Partition, append: &Append) -> Result<Appended, AppendError> {
        let mut log = self.partition(partition)?;
        let known: Vec<_> = append
            .events
            .iter()
            .map(|(_, event)| log.ids.get(&event.id).cloned())
            .collect();
        let places = match deduplicate(&append.events, &known)? {
            Duplicate::Repeated => Some(
                known
                    .into_iter()
                    .flatten()
                    .map(|known| known.found.placed)
                    .collect(),
            ),
            Duplicate::RequestDone { first, events } => Some(log.places(first, events)),
            Duplicate::New => None,
        };
        if let Some(places) = places {
            return Ok(Appended::new(self.shared.id, places, true));
        }
        append.check_incarnation(self.incarnation())?;
        let violations = log.violations(append);
        if !violations.is_empty() {
            return Err(AppendError::Conflict(violations));
        }
        let now = time_of(&*self.clock)?;
        // Held together, so that no reader sees events without their rows.
        let mut views = self.read_models();
        views.check_prepared(append)?;
        let places = log.record(partition, append, now);
        views.take_prepared(append, &places, log.last_recorded);
        drop((views, log));
        self.shared.moved.send_modify(|count| *count += 1);
        Ok(Appended::new(self.shared.id, places, false))
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        append.check(&self.shared.limits)?;
        let partition = if self.partitions() == 1 {
            Partition(0)
        } else {
            self.partition_of(append.check_one_stream()?)
        };
        self.append_to(partition, &append)
    }

    async fn read_stream(&self, read: ReadStream) -> Result<StreamPage, StoreError> {
        let log = self.partition(self.partition_of(&read.stream))?;
        let state = log.state(&read.stream);
        let head = log.head();
        let shown_from = match read.shown {
            Shown::Visible => state.first_visible(),
            Shown::Everything => state.archived_before,
        };
        let versions =
            read.from.max(shown_from).max(Version::FIRST).get()..=read.to.min(state.version).get();
        let step: Box<dyn Iterator<Item = u64>> = match read.direction {
            Direction::Forward => Box::new(versions),
            Direction::Backward => Box::new(versions.rev()),
        };
        let mut events = Vec::new();
        let mut bytes = 0;
        for version in step {
            if events.len() >= read.limit || bytes >= PAGE_BYTES_MAX {
                return Ok(StreamPage {
                    events,
                    next: Some(Version::new(version)),
                    state,
                    head,
                });
            }
            let position = log.streams[&read.stream].positions[version as usize - 1];
            if let Some(event) = &log.events[position.get() as usize - 1] {
                bytes += event.payload.len();
                events.push(event.clone());
            }
        }
        Ok(StreamPage {
            events,
            next: None,
            state,
            head,
        })
    }

    async fn find(
        &self,
        partition: Partition,
        ids: &[EventId],
    ) -> Result<Vec<Option<Found>>, StoreError> {
        let log = self.partition(partition)?;
        Ok(ids
            .iter()
            .map(|id| log.ids.get(id).map(|known| known.found.clone()))
            .collect())
    }

    async fn stream_state(&self, stream: &StreamId) -> Result<StreamState, StoreError> {
        Ok(self.partition(self.partition_of(stream))?.state(stream))
    }

    async fn change_stream(&self, change: ChangeStream) -> Result<StreamState, AppendError> {
        let stream = change.stream.clone();
        let mut log = self.partition(self.partition_of(&stream))?;
        let before = log.state(&stream).archived_before;
        let after = log.change(change, time_of(&*self.clock)?)?;
        if after.archived_before > before {
            // What was removed is in them too.
            self.shared
                .snapshots
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|(of, ..), _| *of != stream);
            let is_removed = |event: &EventId| {
                log.ids.get(event).is_some_and(|known| {
                    let Placed {
                        stream: of,
                        version,
                        ..
                    } = &known.found.placed;
                    *of == stream && *version < after.archived_before
                })
            };
            self.read_models().forget_causes(is_removed);
        }
        Ok(after)
    }

    fn limits(&self) -> Limits {
        self.shared.limits
    }
}

#[async_trait]
impl Log for MemoryStore {
    fn id(&self) -> LogId {
        self.shared.id
    }

    fn incarnation(&self) -> Incarnation {
        let rewound = self.shared.rewound.load(Ordering::SeqCst);
        (0..rewound).fold(Incarnation::first(self.shared.id), |before, _| {
            before.next(self.shared.id)
        })
    }

    fn partitions(&self) -> u32 {
        self.shared.partitions.len() as u32
    }

    async fn read(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        read.filter.check()?;
        let range = Range {
            after: read.after,
            up_to: read.up_to,
            limit: read.limit,
            direction: read.direction,
        };
        let log = self.partition(read.partition)?;
        let page = log.page(&range, |event| read.filter.matches(event));
        Ok(log.with_removed(page, &read))
    }

    async fn head(&self, partition: Partition) -> Result<Head, StoreError> {
        Ok(Head::at(self.partition(partition)?.head()))
    }

    async fn position_at(
        &self,
        partition: Partition,
        moment: DateTime<Utc>,
    ) -> Result<Position, StoreError> {
        Ok(self.partition(partition)?.position_at(moment))
    }

    fn hint(&self) -> Hint {
        Hint::new(self.shared.moved.subscribe())
    }
}

#[async_trait]
impl TaggedStore for MemoryStore {
    async fn read_query(&self, read: ReadQuery) -> Result<LogPage, StoreError> {
        read.query.check()?;
        let range = Range {
            after: read.after,
            up_to: read.up_to,
            limit: read.limit,
            direction: read.direction,
        };
        Ok(self
            .partition(Partition(0))?
            .page(&range, |event| read.query.matches(event)))
    }
}

impl Store for MemoryStore {
    fn atomic(&self) -> bool {
        self.partitions() == 1
    }

    fn tagged(&self) -> Option<&dyn TaggedStore> {
        (self.partitions() == 1).then_some(self)
    }

    fn snapshots(&self) -> Option<&dyn SnapshotStore> {
        Some(self)
    }

    fn views(&self) -> Option<&dyn ViewStore> {
        Some(self)
    }

    fn inline_views(&self) -> Option<&dyn InlineViews> {
        Some(self)
    }
}
