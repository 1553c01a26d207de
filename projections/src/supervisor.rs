//! Follows every generation of a view that this program can fold: the live one, the one that is
//! being built, and those that served before. Whichever process sees first that a generation has
//! come to the head checks it and switches to it, so a build survives the process that began it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annals_core::{
    Acquired, Annals, Generation, GenerationId, GenerationSpec, Lease, Partition, Phase, Position,
    RowChange, StoreError, Token,
};
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::lifecycle::Lifecycle;
use crate::location::ViewLocation;
use crate::options::Options;
use crate::owner;
use crate::status::Kind;
use crate::step::Handlers;
use crate::verify::{self, Verified};
use crate::view::View;
use crate::worker::{Membership, Progress, Quota, SlotProgress, SlotState, Work, WorkError, chain};

/// How often it looks whether generations came or went, when nothing tells it.
const LOOK: Duration = Duration::from_millis(500);

/// What every projection of a program works with.
#[derive(Clone, Debug)]
pub(crate) struct WorkerContext {
    pub(crate) db: Annals,
    pub(crate) views: ViewLocation,
    pub(crate) owner: String,
    pub(crate) options: Options,
    pub(crate) lifecycle: Lifecycle,
}

impl WorkerContext {
    pub(crate) fn new(
        db: &Annals,
        views: &ViewLocation,
        owner: &str,
        lifecycle: Lifecycle,
    ) -> WorkerContext {
        WorkerContext {
            db: db.clone(),
            views: views.clone(),
            owner: owner.into(),
            options: Options::default(),
            lifecycle,
        }
    }
}

/// The generations that this process works on, for those who ask and wait.
#[derive(Clone, Debug)]
pub(crate) struct GenerationWorkers {
    view: &'static str,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    followed: Mutex<BTreeMap<GenerationId, RunningGeneration>>,
    // Counts up whenever a generation comes, goes, or changes its phase.
    changed: watch::Sender<u64>,
    look: Notify,
    // Counts up whenever operator decided something that workers must know.
    anew: watch::Sender<u64>,
    committed: broadcast::Sender<Committed>,
    ended: watch::Sender<bool>,
}

/// A step of a worker, for those who watch.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    pub(crate) generation: GenerationId,
    pub(crate) partition: Partition,
    pub(crate) position: Position,
    /// What became of the rows that changed; nothing when they were too many to be told.
    pub(crate) rows: Option<Arc<[RowChange]>>,
}

/// Steps that a watcher may be behind.
const WATCH_STEPS: usize = 64;

/// Rows of one step that are told to watchers; of a larger one they are told to look again.
const WATCH_ROWS: usize = 1_000;

/// A generation with its workers in this process.
#[derive(Debug)]
pub(crate) struct RunningGeneration {
    pub(crate) generation: Generation,
    pub(crate) slots: Vec<watch::Receiver<SlotProgress>>,
    progress: Vec<Progress>,
    /// Why it could not be switched to.
    pub(crate) refused: Option<String>,
    stop: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
}

impl GenerationWorkers {
    pub(crate) fn new(view: &'static str) -> GenerationWorkers {
        let shared = Shared {
            followed: Mutex::default(),
            changed: watch::Sender::default(),
            look: Notify::new(),
            anew: watch::Sender::default(),
            committed: broadcast::Sender::new(WATCH_STEPS),
            ended: watch::Sender::default(),
        };
        GenerationWorkers {
            view,
            shared: Arc::new(shared),
        }
    }

    pub(crate) fn view(&self) -> &'static str {
        self.view
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GenerationId, RunningGeneration>> {
        self.shared
            .followed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a generation, if this process works on it.
    pub(crate) fn of<T>(
        &self,
        generation: GenerationId,
        look: impl FnOnce(&RunningGeneration) -> T,
    ) -> Option<T> {
        self.lock().get(&generation).map(look)
    }

    /// What is known of every generation, oldest first.
    pub(crate) fn each<T>(&self, look: impl FnMut(&RunningGeneration) -> T) -> Vec<T> {
        self.lock().values().map(look).collect()
    }

    /// Tells of generations that come, go, or change their phase.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Tells the workers that what they know may not hold any more.
    pub(crate) fn begin_anew(&self) {
        self.shared.anew.send_modify(|count| *count += 1);
    }

    /// When to begin anew.
    pub(crate) fn anew(&self) -> watch::Receiver<u64> {
        self.shared.anew.subscribe()
    }

    /// The steps of the workers of this process, from now on.
    pub(crate) fn committed(&self) -> broadcast::Receiver<Committed> {
        self.shared.committed.subscribe()
    }

    /// Whether this process has stopped to follow the view.
    pub(crate) fn ended(&self) -> watch::Receiver<bool> {
        self.shared.ended.subscribe()
    }

    /// Whether somebody would be told of a step that changes so many rows, row by row.
    pub(crate) fn wants(&self, rows: usize) -> bool {
        rows <= WATCH_ROWS && self.shared.committed.receiver_count() > 0
    }

    /// Tells those who watch of a step; without rows they look again.
    pub(crate) fn tell(
        &self,
        generation: &Generation,
        partition: Partition,
        position: Position,
        rows: Option<Vec<RowChange>>,
    ) {
        if self.shared.committed.receiver_count() > 0 {
            let rows = rows.filter(|rows| self.wants(rows.len())).map(Into::into);
            // Nobody listening any more is no trouble.
            let _ = self.shared.committed.send(Committed {
                generation: generation.id,
                partition,
                position,
                rows,
            });
        }
    }

    /// Looks now instead of later.
    pub(crate) fn look(&self) {
        self.shared.look.notify_one();
    }

    /// Returns when it is to be looked at, at the latest after so long.
    pub(crate) async fn wait_to_look(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.shared.look.notified()).await;
    }

    /// Follows these generations and no others: what is new is begun, what is gone is ended.
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

    /// Why a generation was not switched to, or that nothing stands against it.
    pub(crate) fn refused(&self, generation: GenerationId, refused: Option<String>) {
        if let Some(of) = self.lock().get_mut(&generation) {
            of.refused = refused;
        }
        self.changed();
    }

    /// Tells how far behind every slot is, also where a worker stands still.
    pub(crate) async fn publish(&self, context: &WorkerContext) -> Result<(), StoreError> {
        let mut heads = Vec::new();
        for partition in (0..context.db.store().partitions()).map(Partition) {
            heads.push((partition, context.db.store().head(partition).await?.visible));
        }
        for followed in self.lock().values() {
            for progress in &followed.progress {
                heads
                    .iter()
                    .for_each(|(partition, head)| progress.head(*partition, *head, None));
                progress.publish();
            }
            if followed.generation.phase == Phase::Building {
                followed.progress.iter().for_each(Progress::publish_build);
            }
        }
        Ok(())
    }

    /// Ends all workers, and says so.
    pub(crate) async fn end_all(&self) {
        let followed = std::mem::take(&mut *self.lock());
        for (_, followed) in followed {
            followed.end().await;
        }
        self.shared.ended.send_replace(true);
    }

    fn changed(&self) {
        self.shared.changed.send_modify(|count| *count += 1);
    }

    /// Why a generation does not go on until a person has looked, and in which slot. What operator
    /// have decided since may have mended it, so that is nothing as long as its worker has not seen
    /// it.
    pub(crate) fn stopped(&self, generation: GenerationId) -> Option<(Option<u16>, String)> {
        let decided = *self.shared.anew.borrow();
        self.of(generation, |followed| {
            let mut slots = (0..).zip(&followed.slots);
            let stopped = slots.find_map(|(slot, progress)| match &*progress.borrow() {
                SlotProgress {
                    state: SlotState::Stopped { reason },
                    knows,
                    ..
                } if *knows >= decided => Some((Some(slot), reason.clone())),
                _ => None,
            });
            stopped.or_else(|| followed.refused.clone().map(|refused| (None, refused)))
        })
        .flatten()
    }

    /// Whether workers of this process have every slot of a generation, as far as is known here.
    pub(crate) fn works_on_all(&self, generation: GenerationId) -> bool {
        let all = self.of(generation, |followed| {
            followed
                .slots
                .iter()
                .all(|slot| slot.borrow().owner.is_some())
        });
        all.unwrap_or(false)
    }

    /// Returns when the workers of this process have taken every slot of a generation so far; never
    /// when there are none.
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
    /// Events of the log that the slowest slot has seen.
    pub(crate) fn reached(&self) -> u64 {
        let reached = |slot: &watch::Receiver<SlotProgress>| {
            slot.borrow().reached.values().map(|at| at.get()).sum()
        };
        self.slots.iter().map(reached).min().unwrap_or_default()
    }

    /// How far the log went when it was last read.
    pub(crate) fn head(&self) -> u64 {
        let head = |slot: &watch::Receiver<SlotProgress>| {
            slot.borrow().head.values().map(|at| at.get()).sum()
        };
        self.slots.iter().map(head).max().unwrap_or_default()
    }
}

/// What a generation of this view must be made of for this program to fold it.
pub(crate) fn spec_of<V: View>(context: &WorkerContext) -> GenerationSpec {
    let mut spec = GenerationSpec::new(V::NAME, V::VERSION, context.db.store().id());
    spec.handles = V::handlers().types();
    spec.partitions = context.db.store().partitions();
    spec.slots = context.options.slots;
    spec.history = V::HISTORY;
    spec.inline = context.lifecycle == Lifecycle::Inline;
    spec.indexes = V::INDEXES.iter().map(|name| (*name).into()).collect();
    spec
}

/// Whether this program folds a generation as it was meant: slots may differ, what is folded may
/// not.
pub(crate) fn is_ours(generation: &Generation, spec: &GenerationSpec) -> bool {
    let of = &generation.spec;
    let kept = |of: &GenerationSpec| (of.version, of.history, of.inline);
    (kept(of), &of.handles, &of.indexes) == (kept(spec), &spec.handles, &spec.indexes)
}

/// One process at a time begins, checks and switches generations of a view.
pub(crate) async fn gate(context: &WorkerContext, view: &str) -> Result<Lease, StoreError> {
    loop {
        match gate_if_free(context, view).await? {
            Some(lease) => return Ok(lease),
            None => tokio::time::sleep(context.options.poll).await,
        }
    }
}

async fn gate_if_free(context: &WorkerContext, view: &str) -> Result<Option<Lease>, StoreError> {
    match context
        .views
        .acquire_lease(
            &format!("{view}/gate"),
            &context.owner,
            context.options.lease,
        )
        .await?
    {
        Acquired::Granted(lease) => Ok(Some(lease)),
        Acquired::Held(other) => {
            if owner::has_ended(&other.lease.owner) {
                context.views.release_lease(&other.lease).await?;
            }
            Ok(None)
        }
    }
}

/// Looks after one view until it is told to stop.
pub(crate) struct Supervisor<V: View> {
    pub(crate) context: WorkerContext,
    pub(crate) following: GenerationWorkers,
    pub(crate) handlers: Arc<Handlers<V>>,
}

impl<V: View> Supervisor<V> {
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let spec = spec_of::<V>(&self.context);
        while !*stop.borrow() {
            // Not raced with `stop`: a gate that is dropped while it is held would stay shut until
            // its lease ends.
            if let Err(error) = self.look(&spec, &stop).await {
                tracing::warn!(
                    view = V::NAME,
                    error = chain(&error),
                    "the generations of a view cannot be looked at"
                );
            }
            let at_most = if self
                .following
                .each(|of| of.generation.phase == Phase::Building)
                .contains(&true)
            {
                LOOK / 10
            } else {
                LOOK
            };
            tokio::select! {
                () = self.following.shared.look.notified() => {}
                () = tokio::time::sleep(at_most) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        self.following.end_all().await;
    }

    async fn look(
        &self,
        spec: &GenerationSpec,
        stop: &watch::Receiver<bool>,
    ) -> Result<(), StoreError> {
        let generations = self.context.views.generations(V::NAME).await?;
        let ours: Vec<_> = generations
            .into_iter()
            .filter(|generation| is_ours(generation, spec))
            .collect();
        self.following
            .follow_only(&ours, |generation| self.follow(generation))
            .await;
        self.following.publish(&self.context).await?;
        for generation in ours
            .iter()
            .filter(|generation| generation.phase == Phase::Building)
        {
            if is_at_head(&self.context, &self.following, generation).await?
                && self.following.of(generation.id, |of| of.refused.is_none()) == Some(true)
            {
                self.switch(generation, stop.clone()).await?;
            }
        }
        Ok(())
    }

    fn follow(&self, generation: &Generation) -> RunningGeneration {
        let (stop, stopped) = watch::channel(false);
        let mut all = Vec::new();
        let mut workers = Vec::new();
        let share = (generation.spec.slots > 1).then(Quota::unknown);
        if let Some(share) = share.clone() {
            let views = self.context.views.clone();
            let owner = self.context.owner.clone();
            let lease = self.context.options.lease;
            let membership = Membership {
                views,
                generation: generation.clone(),
                owner,
                lease,
                share,
            };
            workers.push(tokio::spawn(membership.run(stopped.clone())));
        }
        for slot in 0..generation.spec.slots {
            let progress = Progress::of(Kind::View, generation, slot, self.context.db.clock());
            all.push(progress.clone());
            let work = Work::<V> {
                log: Arc::clone(self.context.db.store()),
                views: self.context.views.clone(),
                clock: Arc::clone(self.context.db.clock()),
                generation: generation.clone(),
                slot,
                owner: self.context.owner.clone(),
                handlers: Arc::clone(&self.handlers),
                options: self.context.options.clone(),
                progress,
                following: self.following.clone(),
                share: share.clone(),
            };
            workers.push(tokio::spawn(work.run(stopped.clone())));
        }
        RunningGeneration::new(generation.clone(), all, stop, workers)
    }

    /// Checks a generation that has come to the head, and makes it the live one.
    async fn switch(
        &self,
        generation: &Generation,
        stop: watch::Receiver<bool>,
    ) -> Result<(), StoreError> {
        let to = self
            .following
            .of(generation.id, RunningGeneration::reached)
            .unwrap_or_default();
        let span = tracing::info_span!(
            "rebuild",
            projection = V::NAME,
            generation = generation.id.0,
            from = 0,
            to
        );
        self.check_and_switch(generation, stop)
            .instrument(span)
            .await
    }

    async fn check_and_switch(
        &self,
        generation: &Generation,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), StoreError> {
        // Whoever has it is at the same; what came of that is seen at the next look.
        let Some(gate) = gate_if_free(&self.context, V::NAME).await? else {
            return Ok(());
        };
        let generations = self.context.views.generations(V::NAME).await?;
        let building = generations
            .iter()
            .find(|of| of.id == generation.id && of.phase == Phase::Building);
        let mut refused = None;
        if let Some(generation) = building {
            let verified = tokio::select! {
                verified = verify::sampled::<V>(&self.context, generation) => verified,
                _ = stop.wait_for(|stop| *stop) => Err(WorkError::Anew),
            };
            match verified {
                Ok(Verified::Equal) => match self.context.views.switch_to(generation.id).await {
                    Ok(()) => tracing::info!(
                        view = V::NAME,
                        generation = generation.id.0,
                        "a new generation serves"
                    ),
                    Err(error) => {
                        tracing::warn!(
                            view = V::NAME,
                            error = chain(&error),
                            "cannot switch to a new generation"
                        );
                    }
                },
                Ok(Verified::Differs { key, .. }) => {
                    refused = Some(format!(
                        "the row `{key}` differs from a replay of its events: the fold of view \
                         `{}` does not give the same rows for the same events. \
                         Nothing was switched; mend the fold, raise its version, and build it \
                         again",
                        V::NAME
                    ));
                }
                Err(WorkError::Stopped(reason)) => refused = Some(reason),
                Err(WorkError::Anew) => {}
                Err(WorkError::Again(error)) => {
                    tracing::warn!(
                        view = V::NAME,
                        error = chain(&error),
                        "cannot check a new generation"
                    );
                }
            }
        }
        self.context.views.release_lease(&gate).await?;
        self.following.refused(generation.id, refused);
        self.following.look();
        Ok(())
    }
}

/// Whether every slot stands at the head, or as near to it as the live one does.
pub(crate) async fn is_at_head(
    context: &WorkerContext,
    following: &GenerationWorkers,
    generation: &Generation,
) -> Result<bool, StoreError> {
    let Ok(checkpoints) = context.views.checkpoints(generation.id).await else {
        return Ok(false);
    };
    for partition in (0..context.db.store().partitions()).map(Partition) {
        let head = context.db.store().head(partition).await?.visible;
        // What came since the last look is folded in a moment; waiting for it would be waiting for
        // ever on a busy log.
        let near = Position::new(head.get().saturating_sub(NEAR_EVENTS));
        for slot in 0..generation.spec.slots {
            let mut of = checkpoints
                .iter()
                .filter(|of| (of.slot, of.partition) == (slot, partition));
            // A slot whose rows are still being put back stands nowhere yet.
            let reached = of
                .next()
                .filter(|of| of.state.is_empty())
                .map_or(Position::START, |of| of.position);
            let caught_up = following
                .of(generation.id, |of| of.was_live(slot))
                .unwrap_or(false);
            if reached < head && !(caught_up && reached >= near) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Events behind the head that do not keep a generation from being switched to, once it has been at
/// the head.
const NEAR_EVENTS: u64 = 10_000;

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
            progress,
            refused: None,
            stop,
            workers,
        }
    }

    fn was_live(&self, slot: u16) -> bool {
        self.slots
            .get(usize::from(slot))
            .is_some_and(|slot| slot.borrow().was_live)
    }

    /// Stops the workers between two steps, and waits for them.
    async fn end(self) {
        let _ = self.stop.send(true);
        for worker in self.workers {
            if let Err(error) = worker.await {
                tracing::error!(%error, "a worker did not end well");
            }
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
