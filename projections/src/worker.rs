//! The one loop that keeps a slot of a generation up to date: read, fold, commit, and again.
//!
//! Rows, history, what is set aside and the checkpoint change in one transaction, under the epoch
//! of the slot's lease. So the effect is exactly once, whatever dies when: a worker that was paused
//! for too long is refused, and the next one goes on at the checkpoint.

mod drain;
mod held;
mod progress;
mod quota;
mod restore;
mod session;

use std::sync::Arc;

use annals_core::{
    Checkpoint, CommitError, EventId, Failure, Filter, Generation, Partition, Phase, Position,
    ReadLog, RecordedEvent, RowChange, Store, StoreError, Version, VersionedRow,
};
use tokio::sync::watch;

pub(crate) use drain::{DrainResult, queue};
pub(crate) use held::{HeldLease, SlotClaim};
pub(crate) use progress::Progress;
pub use progress::{Activity, LastError, SlotState};
pub(crate) use progress::{SlotProgress, Taken};
pub(crate) use quota::{Membership, Quota};
pub(crate) use restore::Restoring;

use self::session::LeaseSession;
use crate::location::ViewLocation;
use crate::options::Options;
use crate::rows::Unwritable;
use crate::skips::Skips;
use crate::step::{Handlers, Step, StepError};
use crate::supervisor::GenerationWorkers;
use crate::view::View;

/// Why a worker does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    /// Somebody else works on the slot, or the store did not answer: begin anew.
    #[error(transparent)]
    Again(#[from] CommitError),
    /// What it knows may not hold any more: begin anew, at once.
    #[error("operator have decided something")]
    Anew,
    /// A person must look.
    #[error("{0}")]
    Stopped(String),
}

impl From<StoreError> for WorkError {
    fn from(error: StoreError) -> WorkError {
        match error.failure() {
            Failure::Unavailable | Failure::Full => WorkError::Again(CommitError::Store(error)),
            _ => WorkError::Stopped(chain(&error)),
        }
    }
}

impl WorkError {
    /// For those who cannot begin anew.
    pub(crate) fn into_store(self) -> StoreError {
        match self {
            WorkError::Again(CommitError::Store(error)) => error,
            WorkError::Stopped(reason) => StoreError::new(Failure::Invalid, reason),
            error => StoreError::new(Failure::Unavailable, chain(&error)),
        }
    }
}

impl From<Unwritable> for WorkError {
    fn from(error: Unwritable) -> WorkError {
        WorkError::Stopped(chain(&error))
    }
}

impl From<StepError> for WorkError {
    fn from(error: StepError) -> WorkError {
        WorkError::Stopped(chain(&error))
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        said = format!("{said}: {cause}");
        source = cause.source();
    }
    said
}

/// What a worker works on and with.
pub(crate) struct Work<V: View> {
    pub(crate) log: Arc<dyn Store>,
    pub(crate) views: ViewLocation,
    pub(crate) clock: Arc<dyn annals_core::Clock>,
    pub(crate) generation: Generation,
    pub(crate) slot: u16,
    pub(crate) owner: String,
    pub(crate) handlers: Arc<Handlers<V>>,
    pub(crate) options: Options,
    pub(crate) progress: Progress,
    pub(crate) following: GenerationWorkers,
    /// Where slots are shared by processes: the part of this one.
    pub(crate) share: Option<Quota>,
}

impl<V: View> Work<V> {
    /// Works until it is told to stop. Begins anew after a failure that may pass, and stops by
    /// itself when a person must look.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut wait = self.options.back_off;
        let mut anew = self.following.anew();
        let mut said = None;
        while !*stop.borrow() {
            let settled = self.progress.settled();
            let Some(ended) = self.hold_and_work(&mut stop, &mut anew).await else {
                break;
            };
            match ended {
                WorkError::Stopped(reason) => {
                    if said.as_ref() != Some(&reason) {
                        tracing::error!(
                            view = V::NAME,
                            slot = self.slot,
                            reason,
                            "the projection stopped"
                        );
                    }
                    self.progress.failed(SlotState::Stopped {
                        reason: reason.clone(),
                    });
                    said = Some(reason);
                    // What stopped it may be mended from another process, which nobody here is told
                    // of.
                    tokio::select! {
                        () = tokio::time::sleep(Options::BACK_OFF_MAX) => {}
                        _ = anew.changed() => {}
                        _ = stop.wait_for(|stop| *stop) => break,
                    }
                    continue;
                }
                WorkError::Anew => continue,
                WorkError::Again(error) => {
                    let error = chain(&error);
                    tracing::warn!(
                        view = V::NAME,
                        slot = self.slot,
                        error,
                        "the projection begins anew"
                    );
                    self.progress.failed(SlotState::Waiting { reason: error });
                }
            }
            // Something was settled in between: the trouble is a new one.
            wait = if self.progress.settled() == settled {
                (wait * 2).min(Options::BACK_OFF_MAX)
            } else {
                self.options.back_off
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
    }

    /// Works under the lease of the slot until something ends it; nothing when it was told to stop.
    /// What was begun is dropped then: it is done as a whole or not at all.
    async fn hold_and_work(
        &self,
        stop: &mut watch::Receiver<bool>,
        anew: &mut watch::Receiver<u64>,
    ) -> Option<WorkError> {
        let post = self.post();
        let knows = *anew.borrow();
        let over = async {
            tokio::select! {
                // Somebody had the slot for a moment and gave it back.
                _ = anew.changed() => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        };
        let held = match HeldLease::acquire(&post, &self.progress, || self.look(), over).await {
            Ok(Some(held)) => held,
            Ok(None) => return (!*stop.borrow()).then_some(WorkError::Anew),
            Err(error) => return Some(error),
        };
        self.progress.held_by(Some(&self.owner), knows);
        let ended = tokio::select! {
            error = self.work(&held) => Some(error),
            _ = anew.changed() => Some(WorkError::Anew),
            () = held.lost() => Some(WorkError::Again(self.fenced("the lease was lost"))),
            () = held.is_surplus() => Some(WorkError::Anew),
            _ = stop.wait_for(|stop| *stop) => None,
        };
        if matches!(ended, Some(WorkError::Again(CommitError::Fenced { .. }))) {
            self.progress.meter().leases_lost.increment(1);
        }
        self.progress.held_by(None, knows);
        held.release().await;
        ended
    }

    /// How far the slot has come on which somebody else works.
    async fn look(&self) -> Result<(), WorkError> {
        seen(
            &*self.log,
            &self.post(),
            self.handlers.filter(),
            &self.progress,
        )
        .await
    }

    /// What a stored event does in this view, without what operator left out.
    fn prepare(&self, skips: &Skips, record: RecordedEvent) -> Result<Vec<Step<V>>, StepError> {
        let steps = skips.prepare(&self.handlers, record)?;
        if self.generation.spec.inline {
            steps
                .iter()
                .try_for_each(|step| self.handlers.check_own_stream(step))?;
        }
        Ok(steps)
    }

    /// Rows of an inline view and where they stand, one for each of these keys.
    async fn standing(&self, keys: &[String]) -> Result<Vec<VersionedRow>, WorkError> {
        let inline = self.log.inline_views().ok_or_else(|| {
            WorkError::Stopped(format!(
                "view `{}` is inline, and the store of this log keeps no inline views",
                V::NAME
            ))
        })?;
        let mut found = inline
            .read_versioned(self.generation.id, keys)
            .await?
            .into_iter()
            .peekable();
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        let row = |key: String| {
            let nothing = |key| VersionedRow {
                key,
                value: None,
                at: Version::NONE,
            };
            found
                .next_if(|row| row.key == key)
                .unwrap_or_else(|| nothing(key))
        };
        Ok(keys.into_iter().map(row).collect())
    }

    /// Tells those who watch.
    fn tell(&self, partition: Partition, position: Position, rows: Option<Vec<RowChange>>) {
        self.following
            .tell(&self.generation, partition, position, rows);
    }

    /// Whether it is on its way to the head for the first time, and nobody reads what it folds.
    fn is_building(&self) -> bool {
        self.generation.phase == Phase::Building && !self.progress.was_live()
    }

    fn post(&self) -> SlotClaim<'_> {
        let views = &self.views;
        let generation = &self.generation;
        let owner = &self.owner;
        let slot = self.slot;
        let share = self.share.as_ref();
        SlotClaim {
            views,
            generation,
            slot,
            owner,
            lease: self.options.lease,
            clock: &*self.clock,
            share,
        }
    }

    fn fenced(&self, found: &str) -> CommitError {
        CommitError::Fenced {
            generation: self.generation.id,
            slot: self.slot,
            found: found.into(),
        }
    }

    /// Follows the log until something is wrong.
    async fn work(&self, held: &HeldLease) -> WorkError {
        let mut session = match LeaseSession::begin(self, held).await {
            Ok(session) => session,
            Err(error) => return error,
        };
        let mut hint = self.log.hint();
        loop {
            hint.reset();
            if let Err(error) = session.look_after().await {
                return error;
            }
            let mut more = false;
            for index in 0..session.readers.len() {
                match session.step(index).await {
                    Ok(stepped) => more |= stepped,
                    Err(error) => return error,
                }
            }
            if more {
                continue;
            }
            // What comes meanwhile goes into one batch: folded as it comes, all but the first of it
            // would wait for two commits.
            if let Err(error) = session.settle().await {
                return error;
            }
            self.progress.state(SlotState::Live);
            hint.wait(self.options.poll).await;
        }
    }
}

/// Takes in how far a slot has come on which somebody else works.
pub(crate) async fn seen(
    log: &dyn Store,
    post: &SlotClaim<'_>,
    filter: Filter,
    progress: &Progress,
) -> Result<(), WorkError> {
    let checkpoints = post.views.checkpoints(post.generation.id).await?;
    for partition in (0..log.partitions()).map(Partition) {
        let found = checkpoints
            .iter()
            .find(|of| (of.slot, of.partition) == (post.slot, partition));
        let reached = found.map_or(Position::START, settled_to);
        let page = log
            .read(
                ReadLog::after(reached)
                    .partition(partition)
                    .filter(filter.clone())
                    .limit(1),
            )
            .await?;
        progress.oldest(
            partition,
            page.events.first().map(|record| record.recorded_at),
        );
        progress.reached(partition, reached);
        progress.head(partition, page.head.visible, None);
    }
    Ok(())
}

/// Up to where everything is settled: where the checkpoint stands, or below it, where what was
/// settled is done once more.
pub(crate) fn settled_to(checkpoint: &Checkpoint) -> Position {
    #[derive(serde::Deserialize)]
    struct State {
        low: Option<Position>,
    }
    let state = serde_json::from_slice::<State>(&checkpoint.state).ok();
    state
        .and_then(|state| state.low)
        .map_or(checkpoint.position, |low| low.min(checkpoint.position))
}

/// The event at a position, if it is there.
pub(crate) async fn event_at(
    log: &dyn Store,
    partition: Partition,
    position: Position,
) -> Result<Option<EventId>, StoreError> {
    if position == Position::START {
        return Ok(None);
    }
    let read = ReadLog::after(position.minus(1))
        .up_to(position)
        .partition(partition)
        .limit(1);
    Ok(log.read(read).await?.events.first().map(|event| event.id))
}

/// Whether the log is the one that the checkpoint speaks of: a restored, swapped or rewound one is
/// noticed here.
pub(crate) async fn same_log(
    log: &dyn Store,
    generation: &Generation,
    checkpoint: &Checkpoint,
) -> Result<(), WorkError> {
    let view = &generation.spec.view;
    let spec = &generation.spec;
    let stop = |what: String| {
        Err(WorkError::Stopped(format!(
            "{what}; nothing was changed. If this is the log that is meant to be read, rebuild the \
             view `{view}`; if not, open the right one"
        )))
    };
    if spec.log != log.id() {
        return stop(format!(
            "generation {} was folded from the log {}, this is {}",
            generation.id,
            spec.log,
            log.id()
        ));
    }
    let partition = checkpoint.partition;
    let position = checkpoint.position;
    let head = log.head(partition).await?.visible;
    if head < position {
        return stop(format!(
            "the log ends at {head} and the view has seen {position}: the log was restored or \
             rewound"
        ));
    }
    let found = event_at(log, partition, position).await?;
    if checkpoint.event.is_some() && found.is_some() && found != checkpoint.event {
        return stop(format!(
            "the event at {position} is not the one that the view has seen there: the log was \
             restored and went on"
        ));
    }
    Ok(())
}
