//! Follows every generation that this program can fold: the live one, the one that is being built,
//! and those that served before. The first process that sees a generation at the head checks it and
//! switches to it, so a build survives the process that began it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{
    Generation, GenerationId, GenerationSpec, Partition, Phase, Position, StoreError,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument;

use crate::checkpoint::settled_to;
use crate::context::WorkerContext;
use crate::error::{WorkError, chain};
use crate::generation::{GenerationWorkers, RunningGeneration, is_ours, serving};
use crate::lease::Coordination;
use crate::poll::Seen;
use crate::progress::{SlotProgress, SlotState};
use crate::quota::Quota;
use crate::rebalance::Membership;
use crate::subject::{Subject, Verified};
use crate::worker::Slot;
use annals_core::{Backoff, contained_async};

#[cfg(test)]
mod tests;

/// Events before the head that do not keep a generation from being switched to, once it has been at
/// the head: waiting for them would be waiting for ever on a busy log.
const NEAR_EVENTS: u64 = 10_000;

/// Pauses between two attempts at a switch that was refused.
const REFUSED: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(3_600));

/// Pauses between two attempts at a check that a store could not answer.
const BUSY: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(60));

/// Supervises the generations of one view, reactor or process manager.
pub struct Supervisor {
    context: WorkerContext,
    workers: GenerationWorkers,
    subject: Arc<dyn Subject>,
    refused: HashMap<GenerationId, Refused>,
    /// How far slots were at the poll before.
    reached: HashMap<(GenerationId, u16, Partition), Position>,
}

/// A switch that did not happen.
struct Refused {
    /// The pauses of what happened last, as they begin.
    of: Backoff,
    backoff: Backoff,
    /// When it is tried again; nothing when that would be of no use.
    again: Option<Instant>,
}

impl Supervisor {
    /// Of this subject.
    pub fn new(
        context: WorkerContext,
        workers: GenerationWorkers,
        subject: Arc<dyn Subject>,
    ) -> Supervisor {
        Supervisor {
            context,
            workers,
            subject,
            refused: HashMap::new(),
            reached: HashMap::new(),
        }
    }

    /// Supervises until it is stopped.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let name = self.workers.name().to_owned();
        let poll = self.context.poll.clone();
        poll.follow(&self.workers.spec().view, self.context.timing.poll);
        let mut polls = poll.seen();
        let mut seen = None;
        // A build that is complete is switched to soon. One that waits for an operator is no reason
        // to poll closely.
        let mut building = None;
        while !*stop.borrow() {
            let polled = tokio::select! {
                polled = contained_async(async {
                    let seen = match seen.take() {
                        Some(seen) => seen,
                        None => poll.now().await?,
                    };
                    self.poll(&seen).await
                }) => polled,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match polled {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let error = chain(&error);
                    tracing::warn!(projection = name, error, "generations cannot be read");
                }
                Err(panic) => {
                    tracing::error!(projection = name, panic, "a supervisor panicked");
                }
            }
            let is_building = self.workers.each(is_on_its_way);
            building = match is_building.contains(&true) {
                true => building.or_else(|| Some(poll.waiting())),
                false => None,
            };
            polls.mark_unchanged();
            tokio::select! {
                () = self.workers.wait_to_poll() => {}
                _ = polls.changed() => seen = Some(Arc::clone(&polls.borrow())),
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        self.workers.end_all().await;
    }

    async fn poll(&mut self, seen: &Seen) -> Result<(), StoreError> {
        let spec = self.workers.spec().clone();
        let generations = seen.generations(&spec.view);
        let ours: Vec<_> = generations
            .filter(|generation| is_ours(generation, &spec))
            .cloned()
            .collect();
        let workers = self.workers.clone();
        workers
            .follow_only(&ours, |generation| self.follow(generation))
            .await;
        if self.has_gone_back(&ours, seen) {
            let projection = self.workers.name();
            tracing::warn!(
                projection,
                "the view store holds less than before: it failed over or was restored, and its \
                 workers start again"
            );
            self.workers.decided();
        }
        self.workers.publish(seen);
        self.refused
            .retain(|id, _| ours.iter().any(|of| of.id == *id));
        for generation in ours.iter().filter(|of| of.phase == Phase::Building) {
            if self.may_try(generation.id) && self.is_at_head(generation, seen) {
                self.switch(generation).await?;
            }
        }
        Ok(())
    }

    /// Whether the view store holds less than at the poll before. No step takes a checkpoint back,
    /// so what workers remember of the store is not so any more.
    fn has_gone_back(&mut self, ours: &[Generation], seen: &Seen) -> bool {
        let mut now = HashMap::new();
        for state in ours.iter().filter_map(|of| seen.state(of.id)) {
            for of in &state.checkpoints {
                now.insert((state.generation.id, of.slot, of.partition), of.position);
            }
        }
        let before = std::mem::take(&mut self.reached);
        let is_less = |at: &(GenerationId, u16, Partition), before: Position| {
            let is_there = ours.iter().any(|of| of.id == at.0);
            is_there && now.get(at).copied().unwrap_or_default() < before
        };
        let has_gone_back = before.iter().any(|(at, before)| is_less(at, *before));
        self.reached = now;
        has_gone_back
    }

    fn follow(&self, generation: &Generation) -> RunningGeneration {
        let (stop, stopped) = watch::channel(false);
        let mut progress = Vec::new();
        let mut tasks = Vec::new();
        let quota = (generation.spec.slots > 1).then(Quota::unknown);
        if let Some(quota) = quota.clone() {
            let membership = Membership {
                context: self.context.clone(),
                generation: generation.clone(),
                quota,
            };
            let counted = contained_async(membership.run(stopped.clone()));
            let view = generation.spec.view.clone();
            tasks.push(tokio::spawn(async move {
                if let Err(panic) = counted.await {
                    tracing::error!(view, panic, "the members are not counted any more");
                }
            }));
        }
        for number in 0..generation.spec.slots {
            let slot = Slot::new(
                self.context.clone(),
                generation.clone(),
                number,
                self.workers.clone(),
                quota.clone(),
            );
            progress.push(slot.progress.clone());
            let worker = watched(Arc::clone(&self.subject), slot, stopped.clone());
            tasks.push(tokio::spawn(worker));
        }
        RunningGeneration::new(generation.clone(), progress, stop, tasks)
    }

    /// Whether every slot is at the head, or as near to it as a live one is.
    fn is_at_head(&self, generation: &Generation, seen: &Seen) -> bool {
        let Some(state) = seen.state(generation.id) else {
            return false;
        };
        if state.checkpoints.is_empty() && self.subject.begins_with_a_step() {
            return false;
        }
        let partitions = self.context.log().partitions();
        // A program that opened the log before that was given more does not see all heads.
        if generation.spec.partitions > partitions {
            return false;
        }
        for partition in (0..partitions).map(Partition) {
            // More may be there than is known.
            if !seen.has_head(partition) {
                return false;
            }
            let head = seen.head(partition);
            let near = Position::new(head.get().saturating_sub(NEAR_EVENTS));
            let reads = |slot: &u16| generation.spec.reads(*slot, partition);
            for slot in (0..generation.spec.slots).filter(reads) {
                let reached = state.checkpoint(slot, partition);
                let reached = reached.map_or(Position::START, settled_to);
                let was_live = self
                    .workers
                    .of(generation.id, |of| of.was_live(slot))
                    .unwrap_or(false);
                if reached < head && !(was_live && reached >= near) {
                    return false;
                }
            }
        }
        true
    }

    /// A switch that was refused is tried again after a pause, or not at all.
    fn may_try(&self, generation: GenerationId) -> bool {
        self.refused
            .get(&generation)
            .is_none_or(|refused| refused.again.is_some_and(|again| Instant::now() >= again))
    }

    /// The next attempt comes after a pause, which gets longer while the same happens.
    fn pause(&mut self, generation: GenerationId, of: Backoff, try_again: bool) {
        let again = None;
        let first = || Refused {
            of,
            backoff: of,
            again,
        };
        let refused = self.refused.entry(generation).or_insert_with(first);
        if refused.of != of {
            *refused = first();
        }
        let wait = refused.backoff.next_wait();
        refused.again = try_again.then(|| Instant::now() + wait);
    }

    fn refuse(&mut self, generation: GenerationId, reason: String, try_again: bool) {
        self.pause(generation, REFUSED, try_again);
        let projection = self.workers.name();
        let id = generation.0;
        tracing::warn!(projection, generation = id, reason, "a switch was refused");
        self.workers.refused(generation, Some(reason));
    }

    /// Checks a generation that has come to the head, and makes it the live one.
    async fn switch(&mut self, generation: &Generation) -> Result<(), StoreError> {
        let to = self
            .workers
            .of(generation.id, RunningGeneration::events_done)
            .unwrap_or_default();
        let span = tracing::info_span!(
            "rebuild",
            projection = self.workers.name(),
            generation = generation.id.0,
            from = 0,
            to
        );
        // Another process that coordinates is at the same; what came of it is seen at the next
        // poll.
        let view = &generation.spec.view;
        let Some(coordination) = Coordination::try_take(&self.context, view).await? else {
            return Ok(());
        };
        let switched = self.check_and_switch(generation).instrument(span).await;
        coordination.release().await;
        match switched {
            Ok(()) => {
                self.refused.remove(&generation.id);
                self.workers.refused(generation.id, None);
            }
            Err(NotSwitched::Busy(error)) => {
                let projection = self.workers.name();
                tracing::warn!(projection, error, "a new generation cannot be checked");
                self.pause(generation.id, BUSY, true);
            }
            Err(NotSwitched::Refused { reason, try_again }) => {
                self.refuse(generation.id, reason, try_again);
            }
        }
        self.workers.poll_now();
        Ok(())
    }

    async fn check_and_switch(&self, generation: &Generation) -> Result<(), NotSwitched> {
        let view = &generation.spec.view;
        let generations = self.context.views.generations(view).await;
        let generations = generations.map_err(|error| NotSwitched::Busy(chain(&error)))?;
        let Some(generation) = generations
            .iter()
            .find(|of| of.id == generation.id && of.phase == Phase::Building)
        else {
            return Ok(());
        };
        let refused = |reason: String| NotSwitched::Refused {
            reason,
            try_again: true,
        };
        let verified = contained_async(self.subject.verify(generation)).await;
        match verified.map_err(refused)? {
            Ok(Verified::Equal) => self.workers.unverified(generation.id, None),
            Ok(Verified::NotPossible { why }) => {
                let projection = self.workers.name();
                let id = generation.id.0;
                tracing::warn!(
                    projection,
                    generation = id,
                    why,
                    "a generation was not verified"
                );
                self.workers.unverified(generation.id, Some(why));
            }
            Ok(Verified::Differs { what }) => {
                let name = self.workers.name();
                return Err(NotSwitched::Refused {
                    reason: format!(
                        "{what}: the fold of view `{name}` does not give the same rows for the \
                         same events. Nothing was switched; repair the fold, raise its version, \
                         and build it again"
                    ),
                    try_again: false,
                });
            }
            Err(WorkError::Stopped(reason)) => return Err(refused(reason)),
            Err(error) => return Err(NotSwitched::Busy(chain(&error))),
        }
        let switched = contained_async(self.subject.switch_to(generation.id)).await;
        match switched.map_err(refused)? {
            Ok(()) => {
                let projection = self.workers.name();
                let id = generation.id.0;
                tracing::info!(projection, generation = id, "a new generation serves");
                self.drop_older(&generations).await;
                Ok(())
            }
            Err(error) => match WorkError::from(error) {
                WorkError::Stopped(reason) => Err(refused(reason)),
                error => Err(NotSwitched::Busy(chain(&error))),
            },
        }
    }

    /// Drops what was kept before a switch, but for the generation that served until then: one is
    /// enough to go back to, and each takes room and work for as long as it is kept.
    async fn drop_older(&self, before: &[Generation]) {
        let spec = self.workers.spec();
        let served = serving(before, spec).map(|of| of.id);
        let is_older = |of: &&Generation| {
            of.phase == Phase::Kept && is_ours(of, spec) && Some(of.id) != served
        };
        for older in before.iter().filter(is_older) {
            let dropped = self.subject.drop_generation(older.id);
            let projection = self.workers.name();
            let id = older.id.0;
            match contained_async(dropped).await {
                Ok(Ok(())) => {
                    tracing::info!(
                        projection,
                        generation = id,
                        "an older generation is dropped"
                    );
                }
                Ok(Err(error)) => {
                    let error = chain(&error);
                    tracing::warn!(projection, generation = id, error, "it was not dropped");
                }
                Err(panic) => {
                    tracing::error!(projection, generation = id, panic, "it was not dropped");
                }
            }
        }
    }
}

/// Whether a generation is being built and goes on by itself: nothing waits for an operator.
fn is_on_its_way(of: &RunningGeneration) -> bool {
    let stopped = |slot: &watch::Receiver<SlotProgress>| {
        matches!(slot.borrow().state, SlotState::Stopped { .. })
    };
    of.generation.phase == Phase::Building && of.refused.is_none() && !of.slots.iter().any(stopped)
}

/// Works on a slot, and says so when that ends without having been asked to.
async fn watched(subject: Arc<dyn Subject>, slot: Slot, stop: watch::Receiver<bool>) {
    let progress = slot.progress.clone();
    let stopped = stop.clone();
    let ended = contained_async(async { subject.run(slot, stop).await }).await;
    let reason = match ended {
        Ok(()) if *stopped.borrow() => return,
        Ok(()) => "its worker has ended; start the program again".to_owned(),
        Err(panic) => panic,
    };
    let projection = progress.name();
    tracing::error!(projection, reason, "a worker has ended");
    progress.failed(SlotState::Stopped { reason });
}

/// Why a generation was not switched to.
enum NotSwitched {
    /// It may pass.
    Busy(String),
    /// It needs an operator.
    Refused { reason: String, try_again: bool },
}

/// Makes sure that there is a generation of this version and of this declaration: the live one, one
/// that is being built, the newest that served until a program that declares it otherwise had its
/// own, or a new one. A changed version, or another set of types, so begins to build when a program
/// starts. Nothing when the generation belongs to another log.
///
/// # Errors
///
/// Only those of a store that cannot answer.
pub async fn find_or_begin(
    context: &WorkerContext,
    spec: &GenerationSpec,
) -> Result<Option<Generation>, StoreError> {
    // One process at a time, so that two that start together build one generation.
    let coordination = Coordination::take(context, &spec.view).await?;
    let begun = async {
        let generations = context.views.generations(&spec.view).await?;
        let ours = generations.into_iter().filter(|of| is_ours(of, spec));
        // Programs that declare a version in two ways, and start in turn, need two generations.
        let kept_last = |of: &Generation| (of.phase == Phase::Kept).then_some(Reverse(of.id));
        match ours.min_by_key(kept_last) {
            Some(generation) => Ok(Some(generation).filter(|of| of.spec.log == spec.log)),
            None => Ok(Some(context.views.begin_generation(spec.clone()).await?)),
        }
    };
    let begun = begun.await;
    coordination.release().await;
    begun
}
