//! The faults: a lost answer, a call that fails, one that waits, a hint that never comes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{Call, StoreFault};
use crate::error::{Failure, StoreError};
use crate::store::Hint;

/// The connection drops after the commit and before the answer: the writer cannot know whether it
/// won.
///
/// ```
/// use annals_core::conformance::faulty::AnswerLost;
///
/// let fault = AnswerLost::next(2);
/// fault.lose_next(1);
/// assert_eq!(fault.left(), 3);
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
impl StoreFault for AnswerLost {
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
/// let fault = FailsOnce::at([Call::ReadStream]);
/// fault.fail_next(Call::Append);
/// fault.fail_next(Call::Append);
/// assert_eq!(fault.left(), 3);
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
impl StoreFault for FailsOnce {
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

/// Some calls wait at a gate until the test opens it. The gate is closed at first.
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
/// store.fault().waiting(1).await;
/// assert!(!asking.is_finished());
/// store.fault().open();
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
    /// These calls wait at the gate before anything happens.
    pub fn before(calls: impl IntoIterator<Item = Call>) -> Slow {
        Slow::gate(calls, false)
    }

    /// These calls are done at once; their answers wait at the gate.
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

    /// Returns when at least so many calls wait at the gate.
    pub async fn waiting(&self, calls: usize) {
        let enough = |waiting: &usize| *waiting >= calls;
        self.waiting
            .subscribe()
            .wait_for(enough)
            .await
            .expect("the gate is here as long as `self`");
    }

    async fn wait(&self, call: Call) {
        if !self.calls.contains(&call) {
            return;
        }
        let _here = Waiting::at(&self.waiting);
        self.open
            .subscribe()
            .wait_for(|open| *open)
            .await
            .expect("the gate is here as long as `self`");
    }
}

/// A call at the gate; also one that is dropped there leaves it.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl Waiting<'_> {
    fn at(waiting: &watch::Sender<usize>) -> Waiting<'_> {
        waiting.send_modify(|count| *count += 1);
        Waiting(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[async_trait]
impl StoreFault for Slow {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        if !self.holds_answers {
            self.wait(call).await;
        }
        Ok(())
    }

    async fn after(&self, call: Call) -> Result<(), StoreError> {
        if self.holds_answers {
            self.wait(call).await;
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

impl StoreFault for HintLost {
    fn hint(&self, _: Hint) -> Hint {
        Hint::new(watch::channel(0).1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::append::{Append, AppendError};
    use crate::conformance::faulty::FaultyStore;
    use crate::event::NewEvent;
    use crate::memory::MemoryStore;
    use crate::position::Partition;
    use crate::query::Query;
    use crate::store::{EventStore, Log, Store};
    use crate::stream::StreamId;

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
        assert_eq!((head(&*store).await, store.fault().left()), (0, 0));
        assert!(store.append(append()).await.is_ok());
    }

    #[tokio::test]
    async fn a_slow_call_waits_before_or_after_it_is_done() {
        for (fault, done) in [
            (Slow::before([Call::Append]), 0),
            (Slow::after([Call::Append]), 1),
        ] {
            let store = FaultyStore::new(memory(), fault);
            let slow = Arc::clone(&store);
            let appending = tokio::spawn(async move { slow.append(append()).await });
            store.fault().waiting(1).await;
            assert_eq!(head(&*store).await, done);
            store.fault().open();
            assert!(appending.await.unwrap().is_ok());
            assert_eq!(head(&*store).await, 1);
        }
    }

    #[tokio::test]
    async fn who_is_dropped_at_the_gate_is_gone() {
        let store = FaultyStore::new(memory(), Slow::before([Call::Append]));
        let slow = Arc::clone(&store);
        let appending = tokio::spawn(async move { slow.append(append()).await });
        store.fault().waiting(1).await;
        appending.abort();
        assert!(appending.await.unwrap_err().is_cancelled());
        assert_eq!(*store.fault().waiting.borrow(), 0);
        store.fault().open();
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
