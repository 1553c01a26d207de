//! One poll for a process: heads, generations, checkpoints and leases are read once, for everything
//! in it that waits.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use annals_core::{
    Failure, Generation, GenerationId, GenerationState, Partition, Position, Store, StoreError,
    contained_async,
};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::error::chain;
use crate::location::ViewLocation;

/// How often an idle process polls, unless it is asked for more.
const IDLE: Duration = Duration::from_millis(250);

/// The pause between two polls while something is waited for.
const PAUSE: Duration = Duration::from_millis(20);

/// Polls of the heads alone that come between two of everything, in an idle process.
const HEADS_ALONE: u64 = 1;

/// What a poll found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Seen {
    /// The number of the poll; they count from 1.
    pub number: u64,
    // The number of the poll that read the states.
    pub(crate) states_number: u64,
    // Why the last poll failed.
    failed: Option<(Failure, String)>,
    heads: BTreeMap<Partition, Position>,
    // Whose heads could not be read: those that are known are of an earlier poll.
    unread: Arc<BTreeSet<Partition>>,
    /// Why partitions of the log are not read on.
    pub(crate) stalled: Arc<BTreeMap<Partition, String>>,
    states: Arc<Vec<GenerationState>>,
}

/// The poll of a process. Cheap to clone; it ends when the last clone is dropped.
#[derive(Clone)]
pub struct Poll {
    shared: Arc<Shared>,
}

struct Shared {
    log: Arc<dyn Store>,
    views: ViewLocation,
    names: Mutex<BTreeSet<String>>,
    seen: watch::Sender<Arc<Seen>>,
    begun: AtomicU64,
    wake: Arc<Notify>,
    waiting: AtomicUsize,
    every: Mutex<Duration>,
    is_running: AtomicBool,
}

/// As long as this is held, the poll follows changes closely.
#[must_use]
#[derive(Debug)]
pub struct Waiting(Poll);

impl Seen {
    /// How far a partition of the log goes, or went when that was read last.
    pub fn head(&self, partition: Partition) -> Position {
        self.heads.get(&partition).copied().unwrap_or_default()
    }

    /// Whether this poll read how far a partition goes.
    pub(crate) fn has_head(&self, partition: Partition) -> bool {
        !self.unread.contains(&partition)
    }

    /// The generations of a view that are not dropped, oldest first.
    pub fn generations<'a>(&'a self, view: &str) -> impl Iterator<Item = &'a Generation> {
        let states = self.states.iter().map(|state| &state.generation);
        states.filter(move |generation| generation.spec.view == view)
    }

    /// What is known of a generation; nothing when it is dropped.
    pub fn state(&self, generation: GenerationId) -> Option<&GenerationState> {
        self.states.iter().find(|of| of.generation.id == generation)
    }
}

impl Poll {
    /// Of this log and these views.
    pub fn new(log: &Arc<dyn Store>, views: &ViewLocation) -> Poll {
        let shared = Shared {
            log: Arc::clone(log),
            views: views.clone(),
            names: Mutex::default(),
            seen: watch::Sender::default(),
            begun: AtomicU64::new(0),
            wake: Arc::default(),
            waiting: AtomicUsize::new(0),
            every: Mutex::new(IDLE),
            is_running: AtomicBool::new(false),
        };
        Poll {
            shared: Arc::new(shared),
        }
    }

    /// Also of the generations of this view, at least so often.
    pub fn follow(&self, view: &str, every: Duration) {
        let mut names = lock(&self.shared.names);
        names.insert(view.to_owned());
        let mut shortest = lock(&self.shared.every);
        *shortest = every.max(PAUSE).min(*shortest);
        if !self.shared.is_running.swap(true, Ordering::Relaxed) {
            let wake = Arc::clone(&self.shared.wake);
            tokio::spawn(run(Arc::downgrade(&self.shared), wake));
        }
    }

    /// Everything, as it is after this call began; of a partition whose head cannot be read, while
    /// those of others can, the head that is known.
    ///
    /// # Errors
    ///
    /// Those of a store that cannot answer.
    pub async fn now(&self) -> Result<Arc<Seen>, StoreError> {
        let next = self.shared.begun.load(Ordering::Acquire) + 1;
        let _waiting = self.waiting();
        let mut seen = self.shared.seen.subscribe();
        let found = seen.wait_for(|seen| seen.states_number >= next).await;
        let Ok(seen) = found.map(|seen| Arc::clone(&seen)) else {
            // The poll lives as long as this handle.
            return std::future::pending().await;
        };
        match &seen.failed {
            None => Ok(seen),
            Some((failure, text)) => Err(StoreError::new(*failure, text.clone())),
        }
    }

    /// What was found last; changes with each poll.
    pub fn seen(&self) -> watch::Receiver<Arc<Seen>> {
        self.shared.seen.subscribe()
    }

    /// Returns when a partition of the log goes on after this position.
    pub async fn head_after(&self, positions: &[(Partition, Position)]) {
        let moved = |seen: &Arc<Seen>| {
            positions
                .iter()
                .any(|(partition, position)| seen.head(*partition) > *position)
        };
        if self.seen().wait_for(moved).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether changes are followed closely.
    #[cfg(test)]
    pub(crate) fn is_waited_for(&self) -> bool {
        self.shared.waiting.load(Ordering::Relaxed) > 0
    }

    /// Follows changes closely as long as the answer is held.
    pub fn waiting(&self) -> Waiting {
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        self.shared.wake.notify_one();
        Waiting(self.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.shared.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

impl fmt::Debug for Poll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poll")
            .field("names", &self.shared.names)
            .finish_non_exhaustive()
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(shared: Weak<Shared>, wake: Arc<Notify>) {
    let mut failed = false;
    loop {
        let Some(of) = shared.upgrade() else { return };
        let begun = Instant::now();
        let polled = contained_async(of.poll()).await;
        // Everything in the process waits for it, so not even a panic ends it.
        let polled =
            polled.unwrap_or_else(|panic| Err(StoreError::new(Failure::Unavailable, panic)));
        match polled {
            Ok(()) => failed = false,
            Err(error) => {
                if !std::mem::replace(&mut failed, true) {
                    tracing::warn!(%error, "the stores cannot be polled");
                }
                of.failed(&error);
            }
        }
        let every = *lock(&of.every);
        let is_waited_for = of.waiting.load(Ordering::Relaxed) > 0;
        drop(of);
        tokio::time::sleep_until(begun + PAUSE).await;
        if !is_waited_for {
            let _ = tokio::time::timeout_at(begun + every, wake.notified()).await;
        }
    }
}

impl Shared {
    async fn poll(&self) -> Result<(), StoreError> {
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let before = Arc::clone(&self.seen.borrow());
        let mut seen = Seen {
            number,
            failed: None,
            ..(*before).clone()
        };
        seen.stalled = Arc::new(self.heads(&mut seen).await?);
        let is_waited_for = self.waiting.load(Ordering::Relaxed) > 0;
        if is_waited_for || number > before.states_number + HEADS_ALONE {
            let names: Vec<String> = lock(&self.names).iter().cloned().collect();
            seen.states = Arc::new(self.views.states(&names).await?);
            seen.states_number = number;
        }
        self.seen.send_replace(Arc::new(seen));
        Ok(())
    }

    /// Reads the heads, and why partitions are not read on. One that does not answer holds no other
    /// back; where none does, it is the log that does not.
    async fn heads(&self, seen: &mut Seen) -> Result<BTreeMap<Partition, String>, StoreError> {
        let mut stalled = BTreeMap::new();
        let mut unread = BTreeMap::new();
        let mut first_error = None;
        let partitions = self.log.partitions();
        for partition in (0..partitions).map(Partition) {
            match self.log.head(partition).await {
                Ok(head) => {
                    seen.heads.insert(partition, head.visible);
                }
                Err(error) => {
                    let why = format!("its head cannot be read: {}", chain(&error));
                    unread.insert(partition, why);
                    first_error = first_error.or(Some(error));
                }
            }
            stalled.extend(self.log.stalled(partition).map(|why| (partition, why)));
        }
        if unread.len() == partitions as usize
            && let Some(error) = first_error
        {
            return Err(error);
        }
        for (partition, why) in &unread {
            if seen.has_head(*partition) {
                tracing::warn!(partition = partition.0, why, "a partition is not polled");
            }
            stalled.entry(*partition).or_insert_with(|| why.clone());
        }
        seen.unread = Arc::new(unread.into_keys().collect());
        Ok(stalled)
    }

    fn failed(&self, error: &StoreError) {
        let before = Arc::clone(&self.seen.borrow());
        let number = self.begun.load(Ordering::Acquire);
        self.seen.send_replace(Arc::new(Seen {
            number,
            states_number: number,
            failed: Some((error.failure(), chain(error))),
            ..(*before).clone()
        }));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use annals_core::MemoryStore;
    use annals_core::conformance::faulty::{Call, FaultyStore, StoreFault};

    use super::*;

    /// A store that panics when it is asked for its head the first time.
    #[derive(Debug, Default)]
    struct PanicsAtTheHead(AtomicBool);

    #[async_trait::async_trait]
    impl StoreFault for PanicsAtTheHead {
        async fn before(&self, call: Call) -> Result<(), StoreError> {
            let is_first = call == Call::Head && !self.0.swap(true, Ordering::Relaxed);
            assert!(!is_first, "no head today");
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_poll_goes_on_after_a_panic_of_a_store() {
        let memory = Arc::new(MemoryStore::new());
        let views = ViewLocation::Own(Arc::clone(&memory) as _);
        let log: Arc<dyn Store> = FaultyStore::new(memory, PanicsAtTheHead::default());
        let poll = Poll::new(&log, &views);
        poll.follow("balances", IDLE);
        let long = Duration::from_secs(60);
        let failed = tokio::time::timeout(long, poll.now()).await.unwrap();
        let error = failed.unwrap_err().to_string();
        assert!(error.contains("no head today"), "{error}");
        let seen = tokio::time::timeout(long, poll.now()).await.unwrap();
        assert_eq!(seen.unwrap().head(Partition(0)), Position::START);
    }
}
