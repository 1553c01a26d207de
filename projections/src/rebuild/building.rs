//! A build that is under way.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{CommitError, Generation, GenerationId, Partition, Phase, Position};
use annals_runner::{GenerationWorkers, Subject, WorkerContext};

use super::RebuildError;

/// A generation that is being built. Dropping this stops nothing.
pub struct Building {
    pub(super) view: &'static str,
    pub(super) context: WorkerContext,
    pub(super) workers: GenerationWorkers,
    pub(super) generation: Generation,
    pub(super) subject: Arc<dyn Subject>,
    pub(super) begins_at: Position,
    pub(super) begun: Instant,
}

impl fmt::Debug for Building {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Building")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// How far a build has come. Prints as one line.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BuildProgress {
    /// Events of the log that were read; the slowest slot counts.
    pub done: u64,
    /// Events that are in the log.
    pub total: u64,
    /// Events a second since this was asked for first.
    pub events_per_second: f64,
    /// How long the rest takes at that rate; nothing while there is no rate yet.
    pub rest: Option<Duration>,
}

impl Building {
    /// The generation's id.
    pub const fn generation(&self) -> GenerationId {
        self.generation.id
    }

    /// After which position it folds the log: the start, but for a
    /// [reset](crate::Rebuild::reset_to) that this value was given for.
    pub const fn begins_at(&self) -> Position {
        self.begins_at
    }

    /// How far it has come.
    ///
    /// # Errors
    ///
    /// [`RebuildError::CalledOff`] when its generation is gone.
    pub async fn progress(&self) -> Result<BuildProgress, RebuildError> {
        let checkpoints = match self.context.views.checkpoints(self.generation.id).await {
            Ok(checkpoints) => checkpoints,
            Err(CommitError::Gone(_)) => return Err(RebuildError::CalledOff(self.view)),
            Err(error) => return Err(error.into()),
        };
        let mut total = 0;
        for partition in (0..self.context.db.store().partitions()).map(Partition) {
            total += self.context.db.store().head(partition).await?.visible.get();
        }
        let spec = &self.generation.spec;
        let done = (0..spec.slots).map(|slot| {
            let of_slot = checkpoints.iter().filter(|of| of.slot == slot);
            of_slot.map(|of| of.position.get()).sum::<u64>()
        });
        let done: u64 = match spec.is_by_partition() {
            true => done.sum(),
            false => done.min().unwrap_or_default(),
        };
        let events_per_second = done as f64 / self.begun.elapsed().as_secs_f64().max(1e-6);
        let left = total.saturating_sub(done) as f64;
        let rest = (done > 0).then(|| Duration::from_secs_f64((left / events_per_second).min(1e9)));
        Ok(BuildProgress {
            done,
            total,
            events_per_second,
            rest,
        })
    }

    /// Returns when readers see it, reporting now and then how far it has come.
    ///
    /// # Errors
    ///
    /// [`RebuildError::Stopped`] when it cannot become complete, or differs from a replay; the one
    /// before serves on. [`RebuildError::CalledOff`] when it was called off.
    pub async fn finished(
        self,
        mut report: impl FnMut(BuildProgress) + Send,
    ) -> Result<(), RebuildError> {
        let mut changes = self.workers.changes();
        loop {
            let generations = self.context.views.generations(self.view).await?;
            match generations
                .iter()
                .find(|of| of.id == self.generation.id)
                .map(|of| of.phase)
            {
                Some(Phase::Building) => {}
                Some(_) => return Ok(()),
                None => return Err(RebuildError::CalledOff(self.view)),
            }
            if let Some(reason) = self
                .workers
                .stopped(self.generation.id)
                .map(|(_, reason)| reason)
            {
                return Err(RebuildError::Stopped {
                    view: self.view,
                    reason,
                });
            }
            if *self.workers.ended().borrow() {
                return Err(RebuildError::Stopped {
                    view: self.view,
                    reason: "the program was stopped; the build goes on when it is started again"
                        .into(),
                });
            }
            report(self.progress().await?);
            let _ = tokio::time::timeout(Duration::from_millis(100), changes.changed()).await;
        }
    }

    /// Calls it off: what was built is dropped, and the one before serves on.
    ///
    /// # Errors
    ///
    /// [`RebuildError::Refused`] when it is live already.
    pub async fn call_off(self) -> Result<(), RebuildError> {
        self.subject.drop_generation(self.generation.id).await?;
        self.workers.poll_now();
        Ok(())
    }
}

impl fmt::Display for BuildProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} events, {:.0} a second",
            self.done, self.total, self.events_per_second
        )?;
        match self.rest {
            Some(rest) => write!(f, ", {} s to go", rest.as_secs()),
            None => Ok(()),
        }
    }
}
