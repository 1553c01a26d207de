//! Stores that misbehave on purpose: any store, wrapped in one fault.
//!
//! They are stores and not mocks: what is underneath commits, refuses and reads as ever, only the
//! way there and back is bad.
//!
//! ```
//! use std::sync::Arc;
//!
//! use annals_core::conformance::faulty::{AnswerLost, FaultyStore};
//! use annals_core::{Append, AppendError, EventStore, MemoryStore, NewEvent, StreamId};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let store = FaultyStore::new(Arc::new(MemoryStore::new()), AnswerLost::next(1));
//! let append = Append::new(StreamId::new("note-1")?, [NewEvent::json("noted", b"{}".as_slice())]);
//! assert!(matches!(store.append(append.clone()).await, Err(AppendError::Unknown(_))));
//! assert!(store.append(append).await?.was_repeated());
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod faults;
mod forward;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use self::faults::{AnswerLost, FailsOnce, HintLost, Slow};
use crate::append::{Append, AppendError, Appended};
use crate::error::StoreError;
use crate::generation::GenerationId;
use crate::position::Incarnation;
use crate::read::{LogPage, ReadLog};
use crate::store::{Hint, Store};
use crate::stream_state::{ChangeStream, StreamState};
use crate::view_commit::{CommitError, ViewCommit};
use crate::view_store::ViewStore;
use crate::{ReadRows, RowsPage};

/// What a store is asked for.
///
/// ```
/// use annals_core::conformance::faulty::Call;
///
/// assert_ne!(Call::Append, Call::ChangeStream);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// [`EventStore::append`](crate::EventStore::append)
    Append,
    /// [`EventStore::change_stream`](crate::EventStore::change_stream)
    ChangeStream,
    /// [`EventStore::read_stream`](crate::EventStore::read_stream)
    ReadStream,
    /// [`EventStore::find`](crate::EventStore::find)
    Find,
    /// [`EventStore::stream_state`](crate::EventStore::stream_state)
    StreamState,
    /// [`Log::read`](crate::Log::read)
    ReadLog,
    /// [`Log::head`](crate::Log::head)
    Head,
    /// [`Log::position_at`](crate::Log::position_at)
    PositionAt,
    /// [`Log::begins_after`](crate::Log::begins_after)
    BeginsAfter,
    /// [`TaggedStore::read_query`](crate::TaggedStore::read_query)
    ReadQuery,
    /// [`SnapshotStore::save_snapshot`](crate::SnapshotStore::save_snapshot)
    SaveSnapshot,
    /// [`SnapshotStore::newest_snapshot`](crate::SnapshotStore::newest_snapshot)
    NewestSnapshot,
    /// [`SnapshotStore::delete_snapshot`](crate::SnapshotStore::delete_snapshot)
    DeleteSnapshot,
    /// [`RowStore::commit_view`](crate::RowStore::commit_view)
    CommitView,
    /// Everything of a [`ViewStore`] that only reads
    ReadView,
    /// Everything else of a [`ViewStore`]: generations begun, switched to and dropped,
    /// history forgotten, skip decisions saved
    ChangeView,
    /// [`Leases::renew_lease`](crate::Leases::renew_lease)
    RenewLease,
    /// Everything else of [`Leases`](crate::Leases)
    Lease,
}

/// A fault: what happens on the way to a store and back.
///
/// ```
/// use annals_core::conformance::faulty::{Call, StoreFault};
/// use annals_core::{Failure, StoreError};
///
/// /// A store that only reads.
/// #[derive(Debug)]
/// struct NeverWrites;
///
/// #[async_trait::async_trait]
/// impl StoreFault for NeverWrites {
///     async fn before(&self, call: Call) -> Result<(), StoreError> {
///         match call {
///             Call::Append => Err(StoreError::new(Failure::ReadOnly, "a replica")),
///             _ => Ok(()),
///         }
///     }
/// }
/// ```
#[async_trait]
pub trait StoreFault: fmt::Debug + Send + Sync + 'static {
    /// Before the store is asked.
    ///
    /// # Errors
    ///
    /// Whatever the caller shall get; the store is not asked, nothing happens.
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        let _ = call;
        Ok(())
    }

    /// After the store has done what was asked.
    ///
    /// # Errors
    ///
    /// The answer is lost: who appended or changed a stream gets [`AppendError::Unknown`],
    /// everybody else gets the error.
    async fn after(&self, call: Call) -> Result<(), StoreError> {
        let _ = call;
        Ok(())
    }

    /// How the store appends: as it does, unless this makes something else of it.
    ///
    /// # Errors
    ///
    /// As of [`EventStore::append`](crate::EventStore::append).
    async fn append(&self, store: &dyn Store, append: Append) -> Result<Appended, AppendError> {
        store.append(append).await
    }

    /// How the store changes a stream: as it does, unless this makes something else of it.
    ///
    /// # Errors
    ///
    /// As of [`EventStore::change_stream`](crate::EventStore::change_stream).
    async fn change_stream(
        &self,
        store: &dyn Store,
        change: ChangeStream,
    ) -> Result<StreamState, AppendError> {
        store.change_stream(change).await
    }

    /// How the store reads a page of the log: as it is, unless this makes something else of it.
    ///
    /// # Errors
    ///
    /// As of [`Log::read`](crate::Log::read).
    async fn read_log(&self, store: &dyn Store, read: ReadLog) -> Result<LogPage, StoreError> {
        store.read(read).await
    }

    /// How the store takes a step of a worker: as it is, unless this makes something else of it.
    ///
    /// # Errors
    ///
    /// As of [`RowStore::commit_view`](crate::RowStore::commit_view).
    async fn commit_view(
        &self,
        views: &dyn ViewStore,
        step: ViewCommit,
    ) -> Result<(), CommitError> {
        views.commit_view(step).await
    }

    /// How the store reads rows: as it is, unless this makes something else of it.
    ///
    /// # Errors
    ///
    /// As of [`RowStore::read_rows`](crate::RowStore::read_rows).
    async fn read_rows(
        &self,
        views: &dyn ViewStore,
        read: ReadRows,
    ) -> Result<RowsPage, CommitError> {
        views.read_rows(read).await
    }

    /// How the store reads what a slot keeps: as it is, unless this makes something else of it.
    ///
    /// # Errors
    ///
    /// As of [`RowStore::read_state`](crate::RowStore::read_state).
    async fn read_state(
        &self,
        views: &dyn ViewStore,
        of: (GenerationId, u16),
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, CommitError> {
        views.read_state(of.0, of.1, after, bytes_max).await
    }

    /// The incarnation of the log that readers get instead of the store's.
    fn incarnation(&self, incarnation: Incarnation) -> Incarnation {
        incarnation
    }

    /// The hint that readers get instead of the store's.
    fn hint(&self, hint: Hint) -> Hint {
        hint
    }

    /// Why readers are told that a partition is not read on, instead of what the store tells.
    fn stalled(&self, stalled: Option<String>) -> Option<String> {
        stalled
    }
}

/// A store with a fault. It has the traits of the store underneath.
///
/// ```
/// use std::sync::Arc;
///
/// use annals_core::conformance::faulty::{HintLost, FaultyStore};
/// use annals_core::{MemoryStore, Store};
///
/// let store = FaultyStore::new(Arc::new(MemoryStore::with_partitions(3)), HintLost);
/// assert!(!store.atomic() && store.snapshots().is_some());
/// ```
#[derive(Debug)]
pub struct FaultyStore<T> {
    inner: Arc<dyn Store>,
    fault: T,
}

impl<T: StoreFault> FaultyStore<T> {
    /// `inner` with this fault.
    pub fn new(inner: Arc<dyn Store>, fault: T) -> Arc<FaultyStore<T>> {
        Arc::new(FaultyStore { inner, fault })
    }

    /// The fault, to change it.
    pub fn fault(&self) -> &T {
        &self.fault
    }

    async fn ask<A, E: From<StoreError>>(
        &self,
        call: Call,
        answer: impl Future<Output = Result<A, E>> + Send,
    ) -> Result<A, E> {
        self.fault.before(call).await?;
        let answer = answer.await;
        self.fault.after(call).await?;
        answer
    }

    async fn change<A>(
        &self,
        call: Call,
        outcome: impl Future<Output = Result<A, AppendError>> + Send,
    ) -> Result<A, AppendError> {
        self.fault.before(call).await?;
        let outcome = outcome.await;
        self.fault.after(call).await.map_err(AppendError::Unknown)?;
        outcome
    }
}
