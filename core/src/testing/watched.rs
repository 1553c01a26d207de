//! A store in memory that notes which events were read from it: what a decision looked at.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::append::{Append, AppendError, Appended, Limits};
use crate::error::StoreError;
use crate::event::{EventId, RecordedEvent};
use crate::memory::MemoryStore;
use crate::position::{Head, Incarnation, LogId, Partition, Position};
use crate::read::{LogPage, ReadLog, ReadQuery, ReadStream, StreamPage};
use crate::store::{EventStore, Found, Hint, Log, Store, TaggedStore};
use crate::stream::StreamId;
use crate::stream_state::{ChangeStream, StreamState};

/// Offers no place for snapshots: a decision on one would not read the events below it.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    store: MemoryStore,
    watching: Arc<AtomicBool>,
    read: Arc<Mutex<BTreeSet<Position>>>,
}

impl Watched {
    pub(super) fn new(store: MemoryStore) -> Watched {
        Watched {
            store,
            watching: Arc::default(),
            read: Arc::default(),
        }
    }

    /// The result of a future that is ready at once. What is read meanwhile is noted.
    pub(super) fn watch<F: Future>(&self, future: F) -> F::Output {
        self.watching.store(true, Ordering::SeqCst);
        let output = at_once(future);
        self.watching.store(false, Ordering::SeqCst);
        output
    }

    /// The positions of the events that were read while reads were watched.
    pub(super) fn positions_read(&self) -> BTreeSet<Position> {
        self.read
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The events after `position`.
    pub(super) fn log_after(&self, position: Position) -> Result<Vec<RecordedEvent>, StoreError> {
        let mut events = Vec::new();
        let mut read = ReadLog::after(position);
        loop {
            let page = at_once(self.store.read(read.clone()))?;
            events.extend(page.events);
            if page.end {
                return Ok(events);
            }
            read.after = page.scanned;
        }
    }

    fn note(&self, events: &[RecordedEvent]) {
        if !self.watching.load(Ordering::SeqCst) {
            return;
        }
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.extend(events.iter().map(|event| event.position));
    }
}

/// The result of a future that is ready at once: it asks nothing but the memory store, and
/// only one task uses that.
///
/// # Panics
///
/// When it waits all the same.
pub(super) fn at_once<F: Future>(future: F) -> F::Output {
    // Inside a runtime, a task that did much has to yield. Here nothing else waits.
    let future = pin!(tokio::task::unconstrained(future));
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a store in memory that one task uses does not wait"),
    }
}

#[async_trait]
impl EventStore for Watched {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.store.append(append).await
    }

    async fn read_stream(&self, read: ReadStream) -> Result<StreamPage, StoreError> {
        let page = self.store.read_stream(read).await?;
        self.note(&page.events);
        Ok(page)
    }

    async fn find(
        &self,
        partition: Partition,
        ids: &[EventId],
    ) -> Result<Vec<Option<Found>>, StoreError> {
        self.store.find(partition, ids).await
    }

    async fn stream_state(&self, stream: &StreamId) -> Result<StreamState, StoreError> {
        self.store.stream_state(stream).await
    }

    async fn change_stream(&self, change: ChangeStream) -> Result<StreamState, AppendError> {
        self.store.change_stream(change).await
    }

    fn limits(&self) -> Limits {
        self.store.limits()
    }
}

#[async_trait]
impl Log for Watched {
    fn id(&self) -> LogId {
        self.store.id()
    }

    fn partitions(&self) -> u32 {
        self.store.partitions()
    }

    async fn read(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        self.store.read(read).await
    }

    async fn head(&self, partition: Partition) -> Result<Head, StoreError> {
        self.store.head(partition).await
    }

    async fn position_at(
        &self,
        partition: Partition,
        moment: DateTime<Utc>,
    ) -> Result<Position, StoreError> {
        self.store.position_at(partition, moment).await
    }

    fn hint(&self) -> Hint {
        self.store.hint()
    }

    fn incarnation(&self) -> Incarnation {
        self.store.incarnation()
    }
}

#[async_trait]
impl TaggedStore for Watched {
    async fn read_query(&self, read: ReadQuery) -> Result<LogPage, StoreError> {
        let page = self.store.read_query(read).await?;
        self.note(&page.events);
        Ok(page)
    }
}

impl Store for Watched {
    fn atomic(&self) -> bool {
        true
    }

    fn tagged(&self) -> Option<&dyn TaggedStore> {
        Some(self)
    }
}
