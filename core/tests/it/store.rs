//! Handles as several processes have them, and stores to watch or to step in between.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use annals_core::conformance::faulty::{Call, FaultyStore, StoreFault};
use annals_core::{
    AggregateRef, Annals, Append, Event, ManualClock, MemoryStore, NewEvent, Partition, Position,
    ReadLog, Recorded, Retries, Store, StoreError, StreamId,
};
use async_trait::async_trait;

use crate::bank::Account;

/// As many handles over one store as there are names for: each is a process with a cache of its
/// own.
pub(crate) fn processes<const N: usize>() -> [Annals; N] {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    std::array::from_fn(|_| Annals::on(Arc::clone(&store)))
}

/// A handle whose store and commands go by one clock that a test holds.
pub(crate) fn at_a_held_clock() -> (Annals, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let store = MemoryStore::with_clock(Arc::clone(&clock) as _);
    (
        Annals::on(Arc::new(store)).with_clock(Arc::clone(&clock) as _),
        clock,
    )
}

/// A handle on `inner`'s store with fault on the way, and the fault.
pub(crate) fn faulty<T: StoreFault>(inner: &Annals, fault: T) -> (Annals, Arc<FaultyStore<T>>) {
    let store = FaultyStore::new(Arc::clone(inner.store()), fault);
    (Annals::on(Arc::clone(&store) as _), store)
}

pub(crate) fn alice(db: &Annals) -> AggregateRef<Account> {
    db.aggregate("alice")
}

/// `attempts` of them, at once.
pub(crate) fn impatient(attempts: u32) -> Retries {
    Retries {
        attempts_max: attempts,
        first_wait: Duration::ZERO,
        longest_wait: Duration::ZERO,
    }
}

pub(crate) async fn head(db: &Annals) -> u64 {
    db.store().head(Partition(0)).await.unwrap().visible.get()
}

/// Records events as they are, past every decision.
pub(crate) async fn given<E: Event>(
    db: &Annals,
    stream: &str,
    events: impl IntoIterator<Item = E>,
) {
    let stream = StreamId::new(stream).unwrap();
    let now = db.clock().now();
    let mut append = Append::default();
    append.events = events
        .into_iter()
        .map(|event| (stream.clone(), NewEvent::of(&event).unwrap().at(now)))
        .collect();
    if !append.events.is_empty() {
        db.store().append(append).await.unwrap();
    }
}

/// The events after a position, whatever stream they are in.
pub(crate) async fn since<E: Event>(db: &Annals, position: u64) -> Vec<E> {
    let page = db
        .store()
        .read(ReadLog::after(Position::new(position)))
        .await
        .unwrap();
    page.events
        .into_iter()
        .flat_map(|record| Recorded::decode(record).unwrap())
        .map(|event| event.event)
        .collect()
}

/// Counts what a store is asked for.
#[derive(Debug, Default)]
pub(crate) struct CallCounts(Mutex<HashMap<Call, usize>>);

impl CallCounts {
    pub(crate) fn calls(&self, call: Call) -> usize {
        self.0
            .lock()
            .unwrap()
            .get(&call)
            .copied()
            .unwrap_or_default()
    }
}

#[async_trait]
impl StoreFault for CallCounts {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        *self.0.lock().unwrap().entry(call).or_default() += 1;
        Ok(())
    }
}

/// A store that is never ready at the first look: a future over it can be dropped in many places.
#[derive(Debug)]
pub(crate) struct Hesitant;

#[async_trait]
impl StoreFault for Hesitant {
    async fn before(&self, _: Call) -> Result<(), StoreError> {
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn after(&self, _: Call) -> Result<(), StoreError> {
        tokio::task::yield_now().await;
        Ok(())
    }
}

/// Polls a future so many times and drops it; what it came to, if it came so far.
pub(crate) fn dropped_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(output) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return Some(output);
        }
    }
    None
}

type Happening = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Something happens just before a store is asked, so many times.
pub(crate) struct Meanwhile {
    call: Call,
    skip: AtomicUsize,
    times: AtomicUsize,
    happens: Box<dyn Fn() -> Happening + Send + Sync>,
}

impl Meanwhile {
    /// Before every such call.
    pub(crate) fn always<F>(
        call: Call,
        happens: impl Fn() -> F + Send + Sync + 'static,
    ) -> Meanwhile
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let skip = AtomicUsize::new(0);
        let times = AtomicUsize::new(usize::MAX);
        Meanwhile {
            call,
            skip,
            times,
            happens: Box::new(move || Box::pin(happens())),
        }
    }

    /// Before one such call.
    pub(crate) fn once<F>(call: Call, happens: impl Fn() -> F + Send + Sync + 'static) -> Meanwhile
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Meanwhile {
            times: AtomicUsize::new(1),
            ..Meanwhile::always(call, happens)
        }
    }

    /// … not before so many others.
    pub(crate) fn skipping(self, calls: usize) -> Meanwhile {
        self.skip.store(calls, Ordering::SeqCst);
        self
    }
}

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meanwhile")
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}

fn one_less(count: &AtomicUsize) -> bool {
    count
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| {
            count.checked_sub(1)
        })
        .is_ok()
}

#[async_trait]
impl StoreFault for Meanwhile {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        if call == self.call && !one_less(&self.skip) && one_less(&self.times) {
            (self.happens)().await;
        }
        Ok(())
    }
}

/// The error and what caused it, as a person reads it.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", told(source)),
        None => error.to_string(),
    }
}
