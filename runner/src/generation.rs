//! The generations of one view, reactor or process manager that this program follows, with their
//! workers: for readers that ask and wait, for operators, and for the status.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    Generation, GenerationId, GenerationSpec, Incarnation, Partition, Phase, Position, RowChange,
    Token,
};
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;

use crate::error::WorkError;
use crate::kind::Kind;
use crate::poll::Seen;
use crate::progress::{Progress, SlotProgress, SlotState};
use crate::status::Status;
use crate::tasks::{DrainResult, TaskSender, Tasks};

/// Steps that a watcher may lag.
const WATCH_STEPS: usize = 64;

/// Rows of one step that watchers get; of a larger one they only learn that it was taken.
const WATCH_ROWS: usize = 1_000;

/// Whether this program folds a generation as it was meant: slots may differ, what is folded may
/// not. A program that names no event types goes on whatever they were at the beginning, as
/// reactors do. Readers, followers, roll-backs and switches all ask this.
pub fn is_ours(generation: &Generation, spec: &GenerationSpec) -> bool {
    let of = &generation.spec;
    if !spec.handles.is_empty() {
        return of.declares_as(spec);
    }
    let mut of = of.clone();
    of.handles.clear();
    of.declares_as(spec)
}

/// The generation that readers of this program see: the live one of those that it follows. While
/// another program, which folds the same version in another way, has made its own the live one, it
/// is the newest that served before: it is followed here, so it is complete and goes on.
pub fn serving<'a>(
    generations: impl IntoIterator<Item = &'a Generation>,
    spec: &GenerationSpec,
) -> Option<&'a Generation> {
    let serves = |of: &&Generation| of.phase != Phase::Building && is_ours(of, spec);
    let served = generations.into_iter().filter(serves);
    served.max_by_key(|of| of.phase == Phase::Live)
}

/// The generations that this process works on, for those who ask and wait. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GenerationWorkers {
    kind: Kind,
    spec: Arc<GenerationSpec>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    followed: Mutex<BTreeMap<GenerationId, RunningGeneration>>,
    // Counts up whenever a generation comes, goes, or changes its phase.
    changed: watch::Sender<u64>,
    poll: Notify,
    // Counts up whenever an operator decided something that workers must know.
    decisions: watch::Sender<u64>,
    steps: broadcast::Sender<PublishedStep>,
    ended: watch::Sender<bool>,
    // Where the workers of this process take up decisions about their slots.
    tasks: Mutex<HashMap<(GenerationId, u16), TaskSender>>,
    // Decisions that are made without a worker of this process, one at a time.
    deciding: tokio::sync::Mutex<()>,
}

/// A committed step of a worker, for those who watch.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct PublishedStep {
    /// The generation.
    pub generation: GenerationId,
    /// The partition.
    pub partition: Partition,
    /// Up to where the slot came.
    pub position: Position,
    /// The rows that changed; nothing when they were too many.
    pub rows: Option<Arc<[RowChange]>>,
}

/// A generation with its workers in this process.
#[derive(Debug)]
#[non_exhaustive]
pub struct RunningGeneration {
    /// The generation, as it was read last.
    pub generation: Generation,
    /// Its slots, in order.
    pub slots: Vec<watch::Receiver<SlotProgress>>,
    /// Why it could not be switched to.
    pub refused: Option<String>,
    /// Why it was switched to without having been compared with the log.
    pub unverified: Option<String>,
    /// Why partitions of the log are not read on, when that was last looked at.
    stalled: Arc<BTreeMap<Partition, String>>,
    progress: Vec<Progress>,
    stop: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
}

impl GenerationWorkers {
    /// Of no generation yet.
    pub fn new(kind: Kind, spec: GenerationSpec) -> GenerationWorkers {
        let shared = Shared {
            followed: Mutex::default(),
            changed: watch::Sender::default(),
            poll: Notify::new(),
            decisions: watch::Sender::default(),
            steps: broadcast::Sender::new(WATCH_STEPS),
            ended: watch::Sender::default(),
            tasks: Mutex::default(),
            deciding: tokio::sync::Mutex::default(),
        };
        GenerationWorkers {
            kind,
            spec: Arc::new(spec),
            shared: Arc::new(shared),
        }
    }

    /// What follows the log here.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The name under which its generations are stored.
    pub fn stored_name(&self) -> &str {
        &self.spec.view
    }

    /// The name that users gave.
    pub fn name(&self) -> &str {
        self.kind.display_name(&self.spec.view)
    }

    /// What a generation must be made of for this program to follow it.
    pub fn spec(&self) -> &GenerationSpec {
        &self.spec
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GenerationId, RunningGeneration>> {
        self.shared
            .followed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a generation, if this process works on it.
    pub fn of<T>(
        &self,
        generation: GenerationId,
        look: impl FnOnce(&RunningGeneration) -> T,
    ) -> Option<T> {
        self.lock().get(&generation).map(look)
    }

    /// What is known of every generation, oldest first.
    pub fn each<T>(&self, look: impl FnMut(&RunningGeneration) -> T) -> Vec<T> {
        self.lock().values().map(look).collect()
    }

    /// The generation that readers see, as far as this process knows.
    pub fn serving(&self) -> Option<Generation> {
        let generations = self.each(|of| of.generation.clone());
        serving(&generations, &self.spec).cloned()
    }

    /// One entry for each generation.
    pub fn status(&self, now: DateTime<Utc>) -> Vec<Status> {
        self.each(|of| {
            let slots = of.slots.iter().map(|slot| of.shown(slot)).collect();
            let status = Status::new(self.kind, &of.generation, of.refused.clone(), slots, now);
            status.unverified(of.unverified.clone())
        })
    }

    /// Changes when generations come, go, or change their phase.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// An operator decided something: workers start again with it.
    pub fn decided(&self) {
        self.shared.decisions.send_modify(|count| *count += 1);
    }

    /// Changes when an operator decided something.
    pub(crate) fn decisions(&self) -> watch::Receiver<u64> {
        self.shared.decisions.subscribe()
    }

    /// The decisions for the worker that has taken the lease of a slot.
    pub(crate) fn tasks_of(&self, generation: GenerationId, slot: u16) -> Tasks {
        let (sender, tasks) = Tasks::channel();
        let mut all = self
            .shared
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.insert((generation, slot), sender);
        tasks
    }

    /// Asks the worker of this process that holds a slot; nothing when there is none.
    pub(crate) async fn ask(
        &self,
        generation: GenerationId,
        slot: u16,
        keys: Vec<String>,
    ) -> Option<Result<DrainResult, WorkError>> {
        let sender = {
            let all = self
                .shared
                .tasks
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            all.get(&(generation, slot)).cloned()
        };
        sender?.ask(keys).await
    }

    /// Waits until no other decision of this process is being made without a worker.
    pub(crate) async fn deciding(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.shared.deciding.lock().await
    }

    /// The steps of the workers of this process, from now on.
    pub fn steps(&self) -> broadcast::Receiver<PublishedStep> {
        self.shared.steps.subscribe()
    }

    /// Whether this process has stopped to follow the view.
    pub fn ended(&self) -> watch::Receiver<bool> {
        self.shared.ended.subscribe()
    }

    /// Whether steps are watched row by row, and this one is small enough.
    pub fn is_watched(&self, rows: usize) -> bool {
        rows <= WATCH_ROWS && self.shared.steps.receiver_count() > 0
    }

    /// Publishes a step to watchers; without rows they read again.
    pub fn publish_step(
        &self,
        generation: GenerationId,
        partition: Partition,
        position: Position,
        rows: Option<Vec<RowChange>>,
    ) {
        if self.shared.steps.receiver_count() > 0 {
            let rows = rows
                .filter(|rows| self.is_watched(rows.len()))
                .map(Into::into);
            // It is no error when the last watcher has gone meanwhile.
            let _ = self.shared.steps.send(PublishedStep {
                generation,
                partition,
                position,
                rows,
            });
        }
    }

    /// The supervisor polls now instead of later.
    pub fn poll_now(&self) {
        self.shared.poll.notify_one();
    }

    /// Returns when the supervisor is to poll at once.
    pub(crate) async fn wait_to_poll(&self) {
        self.shared.poll.notified().await;
    }

    /// Follows these generations and no others: new ones are begun, those that are gone are ended.
    pub(crate) async fn follow_only(
        &self,
        ours: &[Generation],
        mut begin: impl FnMut(&Generation) -> RunningGeneration,
    ) {
        let gone: Vec<_> = {
            let mut followed = self.lock();
            let gone = followed
                .keys()
                .filter(|id| !ours.iter().any(|of| of.id == **id))
                .copied()
                .collect::<Vec<_>>();
            gone.into_iter()
                .filter_map(|id| followed.remove(&id))
                .collect()
        };
        let mut changed = !gone.is_empty();
        for followed in gone {
            followed.end().await;
        }
        for generation in ours {
            let mut followed = self.lock();
            match followed.get_mut(&generation.id) {
                Some(of) => {
                    changed |= of.generation.phase != generation.phase;
                    if of.generation.phase == Phase::Building && generation.phase != Phase::Building
                    {
                        of.progress.iter().for_each(Progress::built);
                    }
                    of.generation = generation.clone();
                    of.notice_dead_workers();
                }
                None => {
                    followed.insert(generation.id, begin(generation));
                    changed = true;
                }
            }
        }
        if changed {
            self.changed();
        }
    }

    /// Why a generation was not switched to, or that nothing is wrong with it.
    pub(crate) fn refused(&self, generation: GenerationId, refused: Option<String>) {
        if let Some(of) = self.lock().get_mut(&generation) {
            of.refused = refused;
        }
        self.changed();
    }

    /// Why a generation could not be compared with the log, or that it was.
    pub(crate) fn unverified(&self, generation: GenerationId, why: Option<String>) {
        if let Some(of) = self.lock().get_mut(&generation) {
            of.unverified = why;
        }
    }

    /// Records by how much every slot lags, also where a worker does not move.
    pub(crate) fn publish(&self, seen: &Seen) {
        let partitions = (0..self.spec.partitions).map(Partition);
        let heads: Vec<_> = partitions.map(|of| (of, seen.head(of))).collect();
        for followed in self.lock().values_mut() {
            followed.stalled = Arc::clone(&seen.stalled);
            for progress in &followed.progress {
                heads
                    .iter()
                    .for_each(|(partition, head)| progress.head_at_least(*partition, *head));
                progress.publish();
            }
            if followed.generation.phase == Phase::Building {
                followed.progress.iter().for_each(Progress::publish_build);
            }
        }
    }

    /// Ends all workers. The status shows their generations on.
    pub(crate) async fn end_all(&self) {
        let workers: Vec<_> = {
            let mut followed = self.lock();
            followed
                .values_mut()
                .flat_map(|of| {
                    let _ = of.stop.send(true);
                    of.workers.drain(..)
                })
                .collect()
        };
        join(workers).await;
        self.shared.ended.send_replace(true);
    }

    fn changed(&self) {
        self.shared.changed.send_modify(|count| *count += 1);
    }

    /// Why a generation needs an operator, and in which slot. What operators have decided since may
    /// have repaired it, so that is nothing as long as its worker has not seen it.
    pub fn stopped(&self, generation: GenerationId) -> Option<(Option<u16>, String)> {
        let decided = *self.shared.decisions.borrow();
        self.of(generation, |followed| {
            let mut slots = (0..).zip(&followed.slots);
            let stopped = slots.find_map(|(slot, progress)| match &*progress.borrow() {
                SlotProgress {
                    state: SlotState::Stopped { reason },
                    decisions_seen,
                    ..
                } if *decisions_seen >= decided => Some((Some(slot), reason.clone())),
                _ => None,
            });
            stopped.or_else(|| followed.refused.clone().map(|refused| (None, refused)))
        })
        .flatten()
    }

    /// Whether workers of this process have every slot of a generation in this incarnation of the
    /// log, as far as is known here.
    pub(crate) fn works_on_all(&self, generation: GenerationId, incarnation: Incarnation) -> bool {
        let all = self.of(generation, |followed| {
            followed
                .slots
                .iter()
                .all(|slot| slot.borrow().works_in(incarnation))
        });
        all.unwrap_or(false)
    }

    /// Returns when the workers of this process have settled everything up to a token, in every
    /// slot; never when there are none.
    pub(crate) async fn reached(&self, generation: GenerationId, token: &Token) {
        let Some(slots) = self.of(generation, |followed| followed.slots.clone()) else {
            return std::future::pending().await;
        };
        for mut slot in slots {
            if slot
                .wait_for(|progress| progress.has_reached(token))
                .await
                .is_err()
            {
                return std::future::pending().await;
            }
        }
    }
}

impl RunningGeneration {
    pub(crate) fn new(
        generation: Generation,
        progress: Vec<Progress>,
        stop: watch::Sender<bool>,
        workers: Vec<JoinHandle<()>>,
    ) -> RunningGeneration {
        let slots = progress.iter().map(Progress::watch).collect();
        RunningGeneration {
            generation,
            slots,
            refused: None,
            unverified: None,
            stalled: Arc::default(),
            progress,
            stop,
            workers,
        }
    }

    /// How far a slot has come, for the status.
    fn shown(&self, slot: &watch::Receiver<SlotProgress>) -> SlotProgress {
        let mut progress = slot.borrow().clone();
        progress.stalls(&self.stalled);
        progress
    }

    /// Events of the log that the slowest slot has seen.
    pub(crate) fn events_done(&self) -> u64 {
        let reached = |slot: &watch::Receiver<SlotProgress>| {
            slot.borrow().reached.values().map(|at| at.get()).sum()
        };
        let each = self.slots.iter().map(reached);
        match self.generation.spec.is_by_partition() {
            true => each.sum(),
            false => each.min().unwrap_or_default(),
        }
    }

    /// Events of the log when its end was read last.
    pub(crate) fn events_total(&self) -> u64 {
        let head = |slot: &watch::Receiver<SlotProgress>| {
            slot.borrow().head.values().map(|at| at.get()).sum()
        };
        let each = self.slots.iter().map(head);
        match self.generation.spec.is_by_partition() {
            true => each.sum(),
            false => each.max().unwrap_or_default(),
        }
    }

    pub(crate) fn was_live(&self, slot: u16) -> bool {
        self.slots
            .get(usize::from(slot))
            .is_some_and(|slot| slot.borrow().was_live)
    }

    /// A worker ends only when it is stopped. One that ended by itself is shown as stopped.
    fn notice_dead_workers(&self) {
        if *self.stop.borrow() || !self.workers.iter().any(JoinHandle::is_finished) {
            return;
        }
        for progress in &self.progress {
            let reason = "a worker of this program ended by itself; restart the program".to_owned();
            progress.failed(SlotState::Stopped { reason });
        }
    }

    /// Stops the workers between two steps, and waits for them.
    async fn end(mut self) {
        let _ = self.stop.send(true);
        join(std::mem::take(&mut self.workers)).await;
    }
}

async fn join(workers: Vec<JoinHandle<()>>) {
    for worker in workers {
        if let Err(error) = worker.await {
            tracing::error!(%error, "a worker ended with an error");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for followed in self
            .followed
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
        {
            let _ = followed.stop.send(true);
        }
    }
}
