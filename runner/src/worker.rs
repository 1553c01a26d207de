//! The one loop that holds a slot, works under its lease, releases it, and backs off.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{
    Checkpoint, Filter, Generation, Hint, History, Incarnation, Lease, Partition, Phase, Position,
    ReadLog, ViewCommit,
};
use tokio::sync::watch;

use crate::checkpoint::{settled_to, way_out};
use crate::claim::SlotClaim;
use crate::context::WorkerContext;
use crate::error::{WorkError, chain};
use crate::generation::GenerationWorkers;
use crate::lease::HeldLease;
use crate::location::BoxFuture;
use crate::progress::{Progress, SlotState};
use crate::quota::Quota;
use crate::tasks::Tasks;
use annals_core::{Backoff, contained_async};

#[cfg(test)]
mod tests;

/// The longest wait between two attempts. A worker that stopped polls so often whether another
/// process has repaired what stopped it.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// A slot of a generation, and what its worker works with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Slot {
    /// The log, the view store and the name of this program.
    pub context: WorkerContext,
    /// The generation, as it was when the worker was begun.
    pub generation: Generation,
    /// The number of the slot.
    pub number: u16,
    /// Where the worker writes how far it has come.
    pub progress: Progress,
    /// All generations that are followed beside it.
    pub workers: GenerationWorkers,
    quota: Option<Quota>,
}

/// Work that is done under the lease of a slot.
pub trait Work: Send + Sync + 'static {
    /// The slot.
    fn slot(&self) -> &Slot;

    /// The events of the log that concern it.
    fn filter(&self) -> Filter;

    /// Stops where the log has partitions with which it cannot go on. Default: other ones than its
    /// generation was begun with, unless they are more and that is
    /// [accepted](annals_core::Log::grown_from).
    ///
    /// # Errors
    ///
    /// [`WorkError::Stopped`], with what helps.
    fn check_partitions(&self) -> Result<(), WorkError> {
        let slot = self.slot();
        slot.check_partitions_of(&slot.generation, true)
    }

    /// Whether [`work`](Work::work) ends by itself when it is stopped. Default: no, it is
    /// dropped; what it had begun is done as a whole or not at all.
    fn ends_itself(&self) -> bool {
        false
    }

    /// Follows the log until something is wrong or it is stopped. It continues from the
    /// checkpoint, commits under this lease, and takes up the decisions of operators between two
    /// steps.
    fn work(
        &self,
        held: &HeldLease,
        tasks: Tasks,
        stop: watch::Receiver<bool>,
    ) -> impl Future<Output = Result<(), WorkError>> + Send;
}

/// Work whose type is forgotten: the loop is compiled once, and not for each view.
trait ErasedWork: Send + Sync {
    fn slot(&self) -> &Slot;

    fn filter(&self) -> Filter;

    fn check_partitions(&self) -> Result<(), WorkError>;

    fn ends_itself(&self) -> bool;

    fn work<'a>(
        &'a self,
        held: &'a HeldLease,
        tasks: Tasks,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'a, Result<(), WorkError>>;
}

impl<W: Work> ErasedWork for W {
    fn slot(&self) -> &Slot {
        Work::slot(self)
    }

    fn filter(&self) -> Filter {
        Work::filter(self)
    }

    fn check_partitions(&self) -> Result<(), WorkError> {
        Work::check_partitions(self)
    }

    fn ends_itself(&self) -> bool {
        Work::ends_itself(self)
    }

    fn work<'a>(
        &'a self,
        held: &'a HeldLease,
        tasks: Tasks,
        stop: watch::Receiver<bool>,
    ) -> BoxFuture<'a, Result<(), WorkError>> {
        Box::pin(Work::work(self, held, tasks, stop))
    }
}

impl Slot {
    /// A slot of a generation whose keys are shared by this program and others.
    pub(crate) fn new(
        context: WorkerContext,
        generation: Generation,
        number: u16,
        workers: GenerationWorkers,
        quota: Option<Quota>,
    ) -> Slot {
        let progress = Progress::of(workers.kind(), &generation, number, context.clock());
        Slot {
            context,
            generation,
            number,
            progress,
            workers,
            quota,
        }
    }

    /// The same slot for a decision of an operator: its progress is not followed.
    pub fn of_operator(
        context: &WorkerContext,
        generation: &Generation,
        number: u16,
        workers: &GenerationWorkers,
    ) -> Slot {
        Slot::new(
            context.clone(),
            generation.clone(),
            number,
            workers.clone(),
            None,
        )
    }

    /// The claim of the worker of this program.
    pub fn claim(&self) -> SlotClaim {
        SlotClaim::of(&self.context, &self.generation, self.number).within(self.quota.as_ref())
    }

    /// What the generation is for by now.
    pub fn phase(&self) -> Phase {
        self.workers
            .of(self.generation.id, |of| of.generation.phase)
            .unwrap_or(self.generation.phase)
    }

    /// Where it continues in a partition.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn checkpoint(&self, partition: Partition) -> Result<Checkpoint, WorkError> {
        let checkpoints = self.context.views.checkpoints(self.generation.id).await?;
        let found = checkpoints
            .into_iter()
            .find(|of| of.slot == self.number && of.partition == partition);
        Ok(found.unwrap_or_else(|| Checkpoint::start(self.number, partition)))
    }

    /// A step of this slot that changes nothing but its checkpoint yet.
    pub fn view_commit(&self, lease: Lease, from: Position, to: Checkpoint) -> ViewCommit {
        let mut commit = ViewCommit::new(self.generation.id, lease, from, to);
        let partitions = self.context.log().partitions();
        commit.partitions = (partitions > self.generation.spec.partitions).then_some(partitions);
        commit
    }

    /// Waits for a hint of the log, or until a poll finds that it goes on after these positions.
    pub async fn wait_for_events(&self, hint: &mut Hint, after: &[(Partition, Position)]) {
        tokio::select! {
            () = hint.wait(Duration::MAX) => {}
            () = self.context.poll.head_after(after) => {}
        }
    }

    /// Returns when a poll finds that the log was restored, swapped or failed over to one that
    /// lacks events: what was read before may not be there any more.
    async fn another_incarnation(&self, than: Incarnation) {
        let mut polls = self.context.poll.seen();
        while self.context.log().incarnation() == than {
            if polls.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops where the log has other partitions than a generation was begun with: what a key did
    /// before may be in another partition than what it does now. `may_grow`: it can go on where
    /// that is [accepted](annals_core::Log::grown_from).
    ///
    /// # Errors
    ///
    /// [`WorkError::Stopped`], with what helps.
    pub fn check_partitions_of(
        &self,
        generation: &Generation,
        may_grow: bool,
    ) -> Result<(), WorkError> {
        let log = self.context.log();
        let (id, spec) = (generation.id, &generation.spec);
        let (had, has) = (spec.partitions, log.partitions());
        let view = &spec.view;
        if has == had {
            return Ok(());
        }
        let begun = format!(
            "generation {id} of `{view}` was begun when its log had {had} partition{}, it has \
             {has} now",
            if had == 1 { "" } else { "s" }
        );
        if has < had {
            return Err(WorkError::Stopped(format!(
                "{begun}: start the program again, which opens the log as it is by then; if it has \
                 {has} then too, it was made again. {}",
                way_out(view)
            )));
        }
        if spec.is_by_partition() {
            return Err(WorkError::Stopped(format!(
                "{begun}, and keys have moved, which have one partition each here: declare a new \
                 version without `by_partition`, or follow a topic that was written with {has} \
                 partitions"
            )));
        }
        if !may_grow || spec.history != History::None || spec.inline {
            return Err(WorkError::Stopped(format!(
                "{begun}, and keys have moved: rebuild it, or declare a new version"
            )));
        }
        if log.grown_from().is_some_and(|from| from <= had) {
            return Ok(());
        }
        // What holds no rows has no rebuild.
        let or_rebuild = match view.starts_with('$') {
            true => "",
            false => ", or rebuild it",
        };
        Err(WorkError::Stopped(format!(
            "{begun}, and keys have moved, so that what a key did may be read out of order: if the \
             order does not matter here, go on with \
             `Topic::accept_more_partitions({had}, {has})`{or_rebuild}; if it matters, follow a \
             topic that was written with {has} partitions"
        )))
    }

    /// Takes in how far a slot has come on which another process works.
    async fn look(&self, filter: Filter) -> Result<(), WorkError> {
        let seen = Arc::clone(&self.context.poll.seen().borrow());
        let Some(state) = seen.state(self.generation.id) else {
            return Ok(());
        };
        let log = self.context.log();
        let read = |of: &Partition| self.generation.spec.reads(self.number, *of);
        for partition in (0..log.partitions()).map(Partition).filter(read) {
            let found = state.checkpoint(self.number, partition);
            let reached = found.map_or(Position::START, settled_to);
            let head = seen.head(partition);
            let mut oldest = None;
            if reached < head {
                let read = ReadLog::after(reached)
                    .partition(partition)
                    .filter(filter.clone())
                    .limit(1);
                let page = log.read(read).await?;
                oldest = page.events.first().map(|record| record.recorded_at);
            }
            self.progress.oldest(partition, oldest);
            self.progress.reached(partition, reached);
            self.progress.head(partition, head.max(reached), None);
        }
        Ok(())
    }
}

/// Works until it is stopped. Starts again after a failure, and polls now and then whether what
/// needed an operator was repaired.
pub async fn run<W: Work>(work: W, stop: watch::Receiver<bool>) {
    run_erased(&work, stop).await;
}

/// Boxed here: the code of a future that a generic caller polls is generated in the caller's crate.
fn run_erased(work: &dyn ErasedWork, stop: watch::Receiver<bool>) -> BoxFuture<'_, ()> {
    Box::pin(hold_again(work, stop))
}

async fn hold_again(work: &dyn ErasedWork, mut stop: watch::Receiver<bool>) {
    let slot = work.slot();
    let name = slot.progress.name();
    let number = slot.number;
    let mut decisions = slot.workers.decisions();
    let mut backoff = Backoff::new(slot.context.timing.back_off, BACK_OFF_MAX);
    let mut logged = None;
    while !*stop.borrow() {
        let settled = slot.progress.settled();
        let Some(ended) = hold_and_work(work, &mut stop, &mut decisions).await else {
            break;
        };
        if slot.progress.settled() != settled {
            // Something was settled in between: the failure is a new one.
            backoff.reset();
        }
        let wait = match ended {
            WorkError::Restart => continue,
            WorkError::Stopped(reason) => {
                if logged.as_ref() != Some(&reason) {
                    tracing::error!(projection = name, slot = number, reason, "a worker stopped");
                    logged = Some(reason.clone());
                }
                slot.progress.failed(SlotState::Stopped { reason });
                BACK_OFF_MAX
            }
            error => {
                let reason = chain(&error);
                tracing::warn!(
                    projection = name,
                    slot = number,
                    reason,
                    "a worker backs off"
                );
                slot.progress.failed(SlotState::Waiting { reason });
                backoff.next_wait()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = decisions.changed() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
}

/// Works under the lease of the slot until something ends it; nothing when it was stopped.
async fn hold_and_work(
    work: &dyn ErasedWork,
    stop: &mut watch::Receiver<bool>,
    decisions: &mut watch::Receiver<u64>,
) -> Option<WorkError> {
    let slot = work.slot();
    let claim = slot.claim();
    let decisions_seen = *decisions.borrow_and_update();
    let over = async {
        tokio::select! {
            // An operator had the slot for a moment and released it.
            _ = decisions.changed() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    };
    let look = || slot.look(work.filter());
    let held = match HeldLease::acquire(&claim, &slot.progress, look, over).await {
        Ok(Some(held)) => held,
        Ok(None) => return (!*stop.borrow()).then_some(WorkError::Restart),
        Err(error) => return Some(error),
    };
    // Before anything of the log is read: what is read after a change belongs to no older one.
    let incarnation = slot.context.log().incarnation();
    slot.progress.follows(incarnation);
    slot.progress.held_by(Some(claim.owner()), decisions_seen);
    let tasks = slot.workers.tasks_of(slot.generation.id, slot.number);
    let ended = match work.check_partitions() {
        Ok(()) => {
            let read = (tasks, incarnation);
            under_lease(work, &claim, &held, read, stop, decisions).await
        }
        Err(error) => Some(error),
    };
    if ended.as_ref().is_some_and(WorkError::is_fenced) {
        slot.progress.lease_lost();
    }
    slot.progress.held_by(None, decisions_seen);
    held.release().await;
    ended
}

/// Works until something ends it; nothing when it was stopped.
async fn under_lease(
    work: &dyn ErasedWork,
    claim: &SlotClaim,
    held: &HeldLease,
    (tasks, incarnation): (Tasks, Incarnation),
    stop: &mut watch::Receiver<bool>,
    decisions: &mut watch::Receiver<u64>,
) -> Option<WorkError> {
    let slot = work.slot();
    let (end, ending) = watch::channel(false);
    let mut working = pin!(contained_async(work.work(held, tasks, ending)));
    // Work that ends by itself is asked to, and what it had begun is not broken off.
    let mut ends_with = None;
    loop {
        let reason = tokio::select! {
            ended = &mut working => {
                return match ended {
                    Ok(Ok(())) => ends_with.unwrap_or(None),
                    Ok(Err(error)) => Some(error),
                    Err(panic) => Some(WorkError::Stopped(panic)),
                };
            }
            () = held.lost() => return Some(claim.fenced("the lease was lost")),
            _ = decisions.changed(), if ends_with.is_none() => Some(WorkError::Restart),
            () = slot.another_incarnation(incarnation), if ends_with.is_none() => {
                Some(WorkError::Restart)
            }
            () = held.is_surplus(), if ends_with.is_none() => Some(WorkError::Restart),
            _ = stop.wait_for(|stop| *stop), if !matches!(ends_with, Some(None)) => None,
        };
        if !work.ends_itself() {
            return reason;
        }
        end.send_replace(true);
        ends_with = Some(reason);
    }
}
