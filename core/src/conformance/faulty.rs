//! Stores that misbehave on purpose: any store, wrapped in one kind of trouble.
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

use std::fmt;
use std::future::Future;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use crate::append::{Append, AppendError, Appended, Limits};
use crate::error::{Failure, StoreError};
use crate::event::EventId;
use crate::inline::{InlineViews, VersionedRow};
use crate::lease::{Acquired, Lease, LeaseState, Leases};
use crate::position::{Head, Incarnation, LogId, Partition, Position};
use crate::read::{LogPage, ReadLog, ReadQuery, ReadStream, StreamPage};
use crate::snapshot::{FoldId, Snapshot};
use crate::store::{Assignment, EventStore, Found, Hint, Log, SnapshotStore, Store, TaggedStore};
use crate::stream::{StreamId, Version};
use crate::stream_state::{ChangeStream, StreamState};
use crate::{
    Checkpoint, CommitError, DeadLetter, Generation, GenerationId, GenerationSpec, GenerationState,
    PastRow, ReadRows, RowVersion, RowsPage, SkipDecision, ViewCommit, ViewStore,
};

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
    /// [`EventStore::append`]
    Append,
    /// [`EventStore::change_stream`]
    ChangeStream,
    /// [`EventStore::read_stream`]
    ReadStream,
    /// [`EventStore::find`]
    Find,
    /// [`EventStore::stream_state`]
    StreamState,
    /// [`Log::read`]
    ReadLog,
    /// [`Log::head`]
    Head,
    /// [`Log::position_at`]
    PositionAt,
    /// [`TaggedStore::read_query`]
    ReadQuery,
    /// [`SnapshotStore::save_snapshot`]
    SaveSnapshot,
    /// [`SnapshotStore::newest_snapshot`]
    NewestSnapshot,
    /// [`SnapshotStore::delete_snapshot`]
    DeleteSnapshot,
    /// [`ViewStore::commit_view`]
    CommitView,
    /// Everything of a [`ViewStore`] that only reads
    ReadView,
    /// Everything else of a [`ViewStore`]: generations are begun, switched to, dropped, forget;
    /// skip_decisions are kept
    ChangeView,
    /// [`Leases::renew_lease`]
    RenewLease,
    /// Everything else of [`Leases`]
    Lease,
}

/// One kind of trouble: what happens on the way to a store and back.
///
/// ```
/// use annals_core::conformance::faulty::{Call, Faulty};
/// use annals_core::{Failure, StoreError};
///
/// /// A store that only reads.
/// #[derive(Debug)]
/// struct NeverWrites;
///
/// #[async_trait::async_trait]
/// impl Faulty for NeverWrites {
///     async fn before(&self, call: Call) -> Result<(), StoreError> {
///         if call == Call::Append { Err(StoreError::new(Failure::ReadOnly, "a replica")) } else { Ok(()) }
///     }
/// }
/// ```
#[async_trait]
pub trait Faulty: fmt::Debug + Send + Sync + 'static {
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

    /// How the store takes a step of a worker: as it is, unless this makes something else of it.
    ///
    /// # Errors
    ///
    /// As of [`ViewStore::commit_view`].
    async fn commit_view(
        &self,
        views: &dyn ViewStore,
        step: ViewCommit,
    ) -> Result<(), CommitError> {
        views.commit_view(step).await
    }

    /// The hint that readers get instead of the store's.
    fn hint(&self, hint: Hint) -> Hint {
        hint
    }
}

/// A store in trouble. It has the traits of the store underneath.
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
    trouble: T,
}

impl<T: Faulty> FaultyStore<T> {
    /// `inner` with `trouble` on the way.
    pub fn new(inner: Arc<dyn Store>, trouble: T) -> Arc<FaultyStore<T>> {
        Arc::new(FaultyStore { inner, trouble })
    }

    /// The trouble, to make more or less of it.
    pub fn trouble(&self) -> &T {
        &self.trouble
    }

    async fn ask<A, E: From<StoreError>>(
        &self,
        call: Call,
        answer: impl Future<Output = Result<A, E>> + Send,
    ) -> Result<A, E> {
        self.trouble.before(call).await?;
        let answer = answer.await;
        self.trouble.after(call).await?;
        answer
    }

    async fn change<A>(
        &self,
        call: Call,
        outcome: impl Future<Output = Result<A, AppendError>> + Send,
    ) -> Result<A, AppendError> {
        self.trouble.before(call).await?;
        let outcome = outcome.await;
        self.trouble
            .after(call)
            .await
            .map_err(AppendError::Unknown)?;
        outcome
    }
}

#[async_trait]
impl<T: Faulty> EventStore for FaultyStore<T> {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.change(Call::Append, self.inner.append(append)).await
    }

    async fn read_stream(&self, read: ReadStream) -> Result<StreamPage, StoreError> {
        self.ask(Call::ReadStream, self.inner.read_stream(read))
            .await
    }

    async fn find(
        &self,
        partition: Partition,
        ids: &[EventId],
    ) -> Result<Vec<Option<Found>>, StoreError> {
        self.ask(Call::Find, self.inner.find(partition, ids)).await
    }

    async fn stream_state(&self, stream: &StreamId) -> Result<StreamState, StoreError> {
        self.ask(Call::StreamState, self.inner.stream_state(stream))
            .await
    }

    async fn change_stream(&self, change: ChangeStream) -> Result<StreamState, AppendError> {
        self.change(Call::ChangeStream, self.inner.change_stream(change))
            .await
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}

#[async_trait]
impl<T: Faulty> Log for FaultyStore<T> {
    fn id(&self) -> LogId {
        self.inner.id()
    }

    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }

    fn partition_of(&self, stream: &StreamId) -> Partition {
        self.inner.partition_of(stream)
    }

    async fn read(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        self.ask(Call::ReadLog, self.inner.read(read)).await
    }

    async fn head(&self, partition: Partition) -> Result<Head, StoreError> {
        self.ask(Call::Head, self.inner.head(partition)).await
    }

    async fn position_at(
        &self,
        partition: Partition,
        moment: DateTime<Utc>,
    ) -> Result<Position, StoreError> {
        self.ask(Call::PositionAt, self.inner.position_at(partition, moment))
            .await
    }

    async fn begins_after(&self, partition: Partition) -> Result<Position, StoreError> {
        self.inner.begins_after(partition).await
    }

    fn incarnation(&self) -> Incarnation {
        self.inner.incarnation()
    }

    fn hint(&self) -> Hint {
        self.trouble.hint(self.inner.hint())
    }

    fn assignment(&self) -> Option<watch::Receiver<Assignment>> {
        self.inner.assignment()
    }
}

/// These are only reached through [`Store`], which gives them when the store underneath has them.
const ASKED: &str = "the store underneath has the trait";

#[async_trait]
impl<T: Faulty> TaggedStore for FaultyStore<T> {
    async fn read_query(&self, read: ReadQuery) -> Result<LogPage, StoreError> {
        self.ask(
            Call::ReadQuery,
            self.inner.tagged().expect(ASKED).read_query(read),
        )
        .await
    }
}

#[async_trait]
impl<T: Faulty> SnapshotStore for FaultyStore<T> {
    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), StoreError> {
        self.ask(
            Call::SaveSnapshot,
            self.inner.snapshots().expect(ASKED).save_snapshot(snapshot),
        )
        .await
    }

    async fn newest_snapshot(
        &self,
        stream: &StreamId,
        fold: &FoldId,
        at_most: Version,
    ) -> Result<Option<Snapshot>, StoreError> {
        let answer = self
            .inner
            .snapshots()
            .expect(ASKED)
            .newest_snapshot(stream, fold, at_most);
        self.ask(Call::NewestSnapshot, answer).await
    }

    async fn delete_snapshot(
        &self,
        stream: &StreamId,
        fold: &FoldId,
        version: Version,
    ) -> Result<(), StoreError> {
        let answer = self
            .inner
            .snapshots()
            .expect(ASKED)
            .delete_snapshot(stream, fold, version);
        self.ask(Call::DeleteSnapshot, answer).await
    }
}

impl<T: Faulty> FaultyStore<T> {
    fn models(&self) -> &dyn ViewStore {
        self.inner.views().expect(ASKED)
    }
}

#[async_trait]
impl<T: Faulty> Leases for FaultyStore<T> {
    async fn acquire_lease(
        &self,
        name: &str,
        owner: &str,
        ttl: Duration,
    ) -> Result<Acquired, StoreError> {
        self.ask(Call::Lease, self.models().acquire_lease(name, owner, ttl))
            .await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        self.ask(Call::RenewLease, self.models().renew_lease(lease, ttl))
            .await
    }

    async fn renew_leases(&self, leases: &[Lease], ttl: Duration) -> Result<Vec<bool>, StoreError> {
        self.ask(Call::RenewLease, self.models().renew_leases(leases, ttl))
            .await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        self.ask(Call::Lease, self.models().release_lease(lease))
            .await
    }

    async fn leases(&self, prefix: &str) -> Result<Vec<LeaseState>, StoreError> {
        self.ask(Call::Lease, self.models().leases(prefix)).await
    }
}

#[async_trait]
impl<T: Faulty> ViewStore for FaultyStore<T> {
    async fn begin_generation(&self, spec: GenerationSpec) -> Result<Generation, StoreError> {
        self.ask(Call::ChangeView, self.models().begin_generation(spec))
            .await
    }

    async fn generations(&self, view: &str) -> Result<Vec<Generation>, StoreError> {
        self.ask(Call::ReadView, self.models().generations(view))
            .await
    }

    async fn live_generation(
        &self,
        view: &str,
        version: u32,
    ) -> Result<Option<Generation>, StoreError> {
        self.ask(Call::ReadView, self.models().live_generation(view, version))
            .await
    }

    async fn view_names(&self) -> Result<Vec<String>, StoreError> {
        self.ask(Call::ReadView, self.models().view_names()).await
    }

    async fn switch_to(&self, generation: GenerationId) -> Result<(), CommitError> {
        self.ask(Call::ChangeView, self.models().switch_to(generation))
            .await
    }

    async fn drop_generation(&self, generation: GenerationId) -> Result<(), CommitError> {
        self.ask(Call::ChangeView, self.models().drop_generation(generation))
            .await
    }

    async fn states(&self, views: &[String]) -> Result<Vec<GenerationState>, StoreError> {
        self.ask(Call::ReadView, self.models().states(views)).await
    }

    async fn checkpoints(&self, generation: GenerationId) -> Result<Vec<Checkpoint>, CommitError> {
        self.ask(Call::ReadView, self.models().checkpoints(generation))
            .await
    }

    async fn commit_view(&self, commit: ViewCommit) -> Result<(), CommitError> {
        self.ask(
            Call::CommitView,
            self.trouble.commit_view(self.models(), commit),
        )
        .await
    }

    async fn read_rows(&self, read: ReadRows) -> Result<RowsPage, CommitError> {
        self.ask(Call::ReadView, self.models().read_rows(read))
            .await
    }

    async fn read_past(
        &self,
        generation: GenerationId,
        keys: &[String],
        moment: Position,
    ) -> Result<Vec<PastRow>, CommitError> {
        self.ask(
            Call::ReadView,
            self.models().read_past(generation, keys, moment),
        )
        .await
    }

    async fn past_keys(
        &self,
        generation: GenerationId,
        range: (Bound<String>, Bound<String>),
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, CommitError> {
        self.ask(
            Call::ReadView,
            self.models().past_keys(generation, range, after, limit),
        )
        .await
    }

    async fn row_versions(
        &self,
        generation: GenerationId,
        key: &str,
        between: (Position, Position),
        limit: usize,
    ) -> Result<Vec<RowVersion>, CommitError> {
        self.ask(
            Call::ReadView,
            self.models().row_versions(generation, key, between, limit),
        )
        .await
    }

    async fn keys_changed_between(
        &self,
        generation: GenerationId,
        between: (Position, Position),
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, CommitError> {
        self.ask(
            Call::ReadView,
            self.models()
                .keys_changed_between(generation, between, after, limit),
        )
        .await
    }

    async fn touched(
        &self,
        generation: GenerationId,
        key: &str,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<Position>, CommitError> {
        self.ask(
            Call::ReadView,
            self.models().touched(generation, key, after, up_to, limit),
        )
        .await
    }

    async fn forget_history(
        &self,
        generation: GenerationId,
        since: Position,
    ) -> Result<(), CommitError> {
        self.ask(
            Call::ChangeView,
            self.models().forget_history(generation, since),
        )
        .await
    }

    async fn dead_letters(
        &self,
        generation: GenerationId,
        after: Option<(&str, Partition, Position)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, CommitError> {
        self.ask(
            Call::ReadView,
            self.models().dead_letters(generation, after, limit),
        )
        .await
    }

    async fn save_skip_decision(&self, skip_decision: SkipDecision) -> Result<(), StoreError> {
        self.ask(
            Call::ChangeView,
            self.models().save_skip_decision(skip_decision),
        )
        .await
    }

    async fn skip_decisions(&self, view: &str) -> Result<Vec<SkipDecision>, StoreError> {
        self.ask(Call::ReadView, self.models().skip_decisions(view))
            .await
    }
}

#[async_trait]
impl<T: Faulty> InlineViews for FaultyStore<T> {
    async fn read_versioned(
        &self,
        generation: GenerationId,
        keys: &[String],
    ) -> Result<Vec<VersionedRow>, CommitError> {
        let inline = self.inner.inline_views().expect(ASKED);
        self.ask(Call::ReadView, inline.read_versioned(generation, keys))
            .await
    }
}

impl<T: Faulty> Store for FaultyStore<T> {
    fn atomic(&self) -> bool {
        self.inner.atomic()
    }

    fn tagged(&self) -> Option<&dyn TaggedStore> {
        self.inner.tagged().map(|_| self as &dyn TaggedStore)
    }

    fn snapshots(&self) -> Option<&dyn SnapshotStore> {
        self.inner.snapshots().map(|_| self as &dyn SnapshotStore)
    }

    fn views(&self) -> Option<&dyn ViewStore> {
        self.inner.views().map(|_| self as &dyn ViewStore)
    }

    fn inline_views(&self) -> Option<&dyn InlineViews> {
        self.inner.inline_views().map(|_| self as &dyn InlineViews)
    }
}

/// The connection drops after the commit and before the answer: the writer cannot know whether it
/// won.
///
/// ```
/// use annals_core::conformance::faulty::AnswerLost;
///
/// let trouble = AnswerLost::next(2);
/// trouble.lose_next(1);
/// assert_eq!(trouble.left(), 3);
/// ```
#[derive(Debug)]
pub struct AnswerLost {
    left: AtomicUsize,
}

impl AnswerLost {
    /// The answers to the next `appends` are lost.
    pub const fn next(appends: usize) -> AnswerLost {
        AnswerLost {
            left: AtomicUsize::new(appends),
        }
    }

    /// The answers to so many appends more are lost.
    pub fn lose_next(&self, appends: usize) {
        self.left.fetch_add(appends, Ordering::SeqCst);
    }

    /// How many answers are still to be lost.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Faulty for AnswerLost {
    async fn after(&self, call: Call) -> Result<(), StoreError> {
        let lost = call == Call::Append
            && self
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                })
                .is_ok();
        if lost {
            Err(StoreError::new(
                Failure::Unavailable,
                "the connection was lost before the answer",
            ))
        } else {
            Ok(())
        }
    }
}

/// The store cannot be reached: each of some calls fails once, as [`Failure::Unavailable`], before
/// anything happens.
///
/// ```
/// use annals_core::conformance::faulty::{Call, FailsOnce};
///
/// let trouble = FailsOnce::at([Call::ReadStream]);
/// trouble.fail_next(Call::Append);
/// trouble.fail_next(Call::Append);
/// assert_eq!(trouble.left(), 3);
/// ```
#[derive(Debug)]
pub struct FailsOnce {
    left: Mutex<Vec<Call>>,
}

impl FailsOnce {
    /// The next call of each of these kinds fails; one that is named twice fails twice.
    pub fn at(calls: impl IntoIterator<Item = Call>) -> FailsOnce {
        FailsOnce {
            left: Mutex::new(calls.into_iter().collect()),
        }
    }

    /// One such call more fails.
    pub fn fail_next(&self, call: Call) {
        self.left
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(call);
    }

    /// How many calls are still to fail.
    pub fn left(&self) -> usize {
        self.left
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

#[async_trait]
impl Faulty for FailsOnce {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = left.iter().position(|fails| *fails == call) else {
            return Ok(());
        };
        left.swap_remove(index);
        Err(StoreError::new(
            Failure::Unavailable,
            "the store does not answer",
        ))
    }
}

/// Some calls stand at a gate until the test opens it. The gate is closed at first.
///
/// ```
/// use std::sync::Arc;
///
/// use annals_core::conformance::faulty::{Call, Slow, FaultyStore};
/// use annals_core::{Log, MemoryStore, Partition};
///
/// # tokio::runtime::Builder::new_multi_thread().build()?.block_on(async {
/// let store = FaultyStore::new(Arc::new(MemoryStore::new()), Slow::before([Call::Head]));
/// let asking = tokio::spawn({
///     let store = Arc::clone(&store);
///     async move { store.head(Partition(0)).await }
/// });
/// store.trouble().waiting(1).await;
/// assert!(!asking.is_finished());
/// store.trouble().open();
/// assert!(asking.await?.is_ok());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Slow {
    calls: Vec<Call>,
    holds_answers: bool,
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Slow {
    /// These calls stand at the gate before anything happens.
    pub fn before(calls: impl IntoIterator<Item = Call>) -> Slow {
        Slow::gate(calls, false)
    }

    /// These calls are done at once; their answers stand at the gate.
    pub fn after(calls: impl IntoIterator<Item = Call>) -> Slow {
        Slow::gate(calls, true)
    }

    fn gate(calls: impl IntoIterator<Item = Call>, holds_answers: bool) -> Slow {
        let open = watch::channel(false).0;
        let waiting = watch::channel(0).0;
        Slow {
            calls: calls.into_iter().collect(),
            holds_answers,
            open,
            waiting,
        }
    }

    /// Lets everything pass that waits, and what comes later.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Holds what comes from now on.
    pub fn close(&self) {
        self.open.send_replace(false);
    }

    /// Returns when at least so many calls stand at the gate.
    pub async fn waiting(&self, calls: usize) {
        let enough = |waiting: &usize| *waiting >= calls;
        self.waiting
            .subscribe()
            .wait_for(enough)
            .await
            .expect("the gate is here as long as `self`");
    }

    async fn stand(&self, call: Call) {
        if !self.calls.contains(&call) {
            return;
        }
        let _here = Standing::at(&self.waiting);
        self.open
            .subscribe()
            .wait_for(|open| *open)
            .await
            .expect("the gate is here as long as `self`");
    }
}

/// A call at the gate; also one that is dropped there leaves it.
struct Standing<'a>(&'a watch::Sender<usize>);

impl Standing<'_> {
    fn at(waiting: &watch::Sender<usize>) -> Standing<'_> {
        waiting.send_modify(|count| *count += 1);
        Standing(waiting)
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[async_trait]
impl Faulty for Slow {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        if !self.holds_answers {
            self.stand(call).await;
        }
        Ok(())
    }

    async fn after(&self, call: Call) -> Result<(), StoreError> {
        if self.holds_answers {
            self.stand(call).await;
        }
        Ok(())
    }
}

/// No hint ever comes: readers find what is new only when they look.
///
/// ```
/// use std::sync::Arc;
///
/// use annals_core::conformance::faulty::{HintLost, FaultyStore};
/// use annals_core::{Log, MemoryStore};
///
/// let store = FaultyStore::new(Arc::new(MemoryStore::new()), HintLost);
/// let mut never = store.hint();
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HintLost;

impl Faulty for HintLost {
    fn hint(&self, _: Hint) -> Hint {
        Hint::new(watch::channel(0).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::NewEvent;
    use crate::memory::MemoryStore;
    use crate::query::Query;

    fn append() -> Append {
        Append::new(
            StreamId::new("note-1").unwrap(),
            [NewEvent::json("noted", "1")],
        )
    }

    fn memory() -> Arc<dyn Store> {
        Arc::new(MemoryStore::new())
    }

    async fn head(store: &dyn Store) -> u64 {
        store.head(Partition(0)).await.unwrap().visible.get()
    }

    #[tokio::test]
    async fn an_append_whose_answer_is_lost_has_happened() {
        let store = FaultyStore::new(memory(), AnswerLost::next(3));
        assert!(matches!(
            store.append(append()).await,
            Err(AppendError::Unknown(_))
        ));
        let streams = || append();
        assert!(matches!(
            store.append(streams()).await,
            Err(AppendError::Unknown(_))
        ));
        let condition = crate::Condition::none_matches(Query::types(["never"]));
        assert!(matches!(
            store.append(streams().under(condition)).await,
            Err(AppendError::Unknown(_))
        ));
        assert_eq!(head(&*store).await, 3);
        assert!(store.append(append()).await.is_ok());
    }

    #[tokio::test]
    async fn a_call_that_fails_once_does_nothing_and_then_works() {
        let store = FaultyStore::new(memory(), FailsOnce::at([Call::Append, Call::Head]));
        let error = store.append(append()).await.unwrap_err();
        assert!(
            matches!(error, AppendError::Store(error) if error.failure() == Failure::Unavailable)
        );
        assert!(store.head(Partition(0)).await.is_err());
        assert_eq!((head(&*store).await, store.trouble().left()), (0, 0));
        assert!(store.append(append()).await.is_ok());
    }

    #[tokio::test]
    async fn a_slow_call_waits_before_or_after_it_is_done() {
        for (trouble, done) in [
            (Slow::before([Call::Append]), 0),
            (Slow::after([Call::Append]), 1),
        ] {
            let store = FaultyStore::new(memory(), trouble);
            let slow = Arc::clone(&store);
            let appending = tokio::spawn(async move { slow.append(append()).await });
            store.trouble().waiting(1).await;
            assert_eq!(head(&*store).await, done);
            store.trouble().open();
            assert!(appending.await.unwrap().is_ok());
            assert_eq!(head(&*store).await, 1);
        }
    }

    #[tokio::test]
    async fn who_is_dropped_at_the_gate_is_gone() {
        let store = FaultyStore::new(memory(), Slow::before([Call::Append]));
        let slow = Arc::clone(&store);
        let appending = tokio::spawn(async move { slow.append(append()).await });
        store.trouble().waiting(1).await;
        appending.abort();
        assert!(appending.await.unwrap_err().is_cancelled());
        assert_eq!(*store.trouble().waiting.borrow(), 0);
        store.trouble().open();
        assert_eq!(head(&*store).await, 0);
    }

    #[tokio::test]
    async fn a_lost_hint_never_comes() {
        let store = FaultyStore::new(memory(), HintLost);
        let mut hint = store.hint();
        store.append(append()).await.unwrap();
        let waiting = tokio::spawn(async move { hint.wait(std::time::Duration::MAX).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        waiting.abort();
    }
}
