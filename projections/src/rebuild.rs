//! Rebuilding a view beside the one that serves: begun by command, watched, called off, rolled
//! back.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{
    Checkpoint, CommitError, Generation, GenerationId, GenerationSpec, History, Moment, Partition,
    Phase, Position, StoreError, ViewCommit,
};

use annals_runner::{
    Coordination, GenerationWorkers, HeldLease, Note, Restoring, SlotClaim, Subject, WorkError,
    WorkerContext, event_at, is_ours, serving,
};

use crate::fold::between_runs;

/// What can be done with the generations of a view.
///
/// ```
/// # use annals_projections::ReadModels as _;
/// # use annals_projections::{Program, RebuildError, View};
/// # async fn example<Balance: View>(db: Program) -> Result<(), RebuildError> {
/// let building = db.rebuild::<Balance>().begin().await?;
/// building.finished(|progress| println!("{progress}")).await?;
/// # Ok(())
/// # }
/// ```
pub struct Rebuild<V> {
    context: WorkerContext,
    workers: GenerationWorkers,
    view: &'static str,
    spec: GenerationSpec,
    subject: Arc<dyn Subject>,
    of: PhantomData<fn() -> V>,
}

/// Why a view is not rebuilt, or not rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// It is being built already, by this program or another one.
    #[error("view `{0}` is being built already")]
    AlreadyBuilding(&'static str),
    /// The build was called off: its generation was dropped.
    #[error("the build of view `{0}` was called off")]
    CalledOff(&'static str),
    /// There are no earlier rows to begin with.
    #[error(
        "view `{view}` cannot be reset to position {to}: {reason}. Build it from the log with \
         `begin`, which gives the same rows"
    )]
    CannotReset {
        /// The view.
        view: &'static str,
        /// Where it would begin.
        to: Position,
        /// Why not.
        reason: String,
    },
    /// There is no generation to go back to.
    #[error("view `{0}` has no generation to go back to")]
    NothingKept(&'static str),
    /// The build needs an operator before it goes on.
    #[error("view `{view}` cannot be built: {reason}")]
    Stopped {
        /// The view.
        view: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// The generations cannot be changed.
    #[error(transparent)]
    Refused(#[from] CommitError),
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl<V> Rebuild<V> {
    pub(crate) fn of(
        context: &WorkerContext,
        workers: &GenerationWorkers,
        view: &'static str,
        subject: Arc<dyn Subject>,
    ) -> Rebuild<V> {
        Rebuild {
            context: context.clone(),
            workers: workers.clone(),
            view,
            spec: workers.spec().clone(),
            subject,
            of: PhantomData,
        }
    }

    /// Begins a new generation of this version. The workers of all programs that have this view
    /// build it together, slot by slot; it goes on after a crash, and is switched to as soon as it
    /// is complete.
    ///
    /// # Errors
    ///
    /// [`RebuildError::AlreadyBuilding`] when one is being built.
    pub async fn begin(&self) -> Result<Building, RebuildError> {
        self.begin_at(Position::START).await
    }

    /// Begins a new generation with the rows as they were at a moment, and folds what came after it
    /// once more: a rebuild that need not read the whole log, for instance after a fold was mended
    /// that went wrong from some moment on. All else is as with [`begin`](Rebuild::begin): readers
    /// see the one before until the new one is complete, a crash only interrupts it, and what
    /// operators skipped stays skipped.
    ///
    /// A position after the head means the head. It begins at most 1,023 positions before the
    /// moment, where the view keeps what all rows were ([`Building::begins_at`] says where); from
    /// there on its past can be asked about. What was a dead letter at that moment is one again.
    /// What is checked before the switch is checked from that position on: the rows at it are taken
    /// as they were. After a crash in the middle of this call some slots may begin at the start of
    /// the log instead, which gives the same rows as long as the fold gives what it gave.
    ///
    /// # Errors
    ///
    /// [`RebuildError::CannotReset`] for a view that keeps no history, or not from so early on,
    /// that is inline, or that has not come so far; else as [`begin`](Rebuild::begin).
    ///
    /// ```
    /// # use annals_projections::ReadModels as _;
    /// # use annals_projections::{Program, RebuildError, View};
    /// # async fn example<Balance: View>(db: Program) -> Result<(), RebuildError> {
    /// let building = db.rebuild::<Balance>().reset_to("2026-03-31T00:00:00Z").await?;
    /// println!("folds again what came after position {}", building.begins_at());
    /// building.finished(|progress| println!("{progress}")).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reset_to(&self, moment: impl Into<Moment>) -> Result<Building, RebuildError> {
        let moment = moment
            .into()
            .resolve(&**self.context.db.store(), Partition(0))
            .await?;
        self.begin_at(between_runs(moment)).await
    }

    async fn begin_at(&self, start: Position) -> Result<Building, RebuildError> {
        let coordination = Coordination::take(&self.context, self.view).await?;
        let begun = async {
            let generations = self.context.views.generations(self.view).await?;
            if generations
                .iter()
                .any(|of| of.phase == Phase::Building && is_ours(of, &self.spec))
            {
                return Err(RebuildError::AlreadyBuilding(self.view));
            }
            if start == Position::START {
                return Ok(self
                    .context
                    .views
                    .begin_generation(self.spec.clone())
                    .await?);
            }
            let serves = generations
                .iter()
                .find(|of| of.phase == Phase::Live && is_ours(of, &self.spec));
            let earlier = self.can_begin_with(serves, start).await?;
            let generation = self
                .context
                .views
                .begin_generation(self.spec.clone())
                .await?;
            self.context
                .views
                .forget_history(generation.id, start)
                .await?;
            for slot in 0..self.spec.slots {
                self.note_start(&generation, slot, earlier, start).await?;
            }
            Ok(generation)
        };
        let begun = begun.await;
        coordination.release().await;
        self.workers.poll_now();
        Ok(Building {
            begins_at: start,
            ..self.building(begun?)
        })
    }

    /// The generation whose rows a new one can begin with at `start`.
    async fn can_begin_with(
        &self,
        serves: Option<&Generation>,
        start: Position,
    ) -> Result<GenerationId, RebuildError> {
        let cannot = |reason: String| {
            Err(RebuildError::CannotReset {
                view: self.view,
                to: start,
                reason,
            })
        };
        if self.spec.history == History::None {
            return cannot("it keeps no history, so its rows of then are unknown".into());
        }
        if self.spec.inline {
            return cannot(
                "it is inline, and where its rows stood in their streams is not kept".into(),
            );
        }
        let Some(serves) = serves else {
            return cannot("no generation of this version serves yet".into());
        };
        let since = serves.history_since;
        if start < since {
            return cannot(format!(
                "what its rows were before position {since} was forgotten"
            ));
        }
        if self.spec.history == History::Bitemporal && since > Position::START {
            return cannot(format!(
                "rows that were removed before position {since} are forgotten, and with them what \
                 had happened to them"
            ));
        }
        let reached = self.context.views.checkpoints(serves.id).await?;
        let level = (0..serves.spec.slots)
            .map(|slot| {
                reached
                    .iter()
                    .find(|of| of.slot == slot)
                    .map_or(Position::START, |of| of.position)
            })
            .min()
            .unwrap_or_default();
        if level < start {
            return cannot(format!("it has come to position {level} only"));
        }
        Ok(serves.id)
    }

    /// Notes where a slot begins, and with which rows. A slot in which somebody works already
    /// begins with none, at the start of the log: the rows are the same in the end.
    async fn note_start(
        &self,
        generation: &Generation,
        slot: u16,
        earlier: GenerationId,
        start: Position,
    ) -> Result<(), RebuildError> {
        let views = &self.context.views;
        let claim = SlotClaim::of_operator(&self.context, generation, slot);
        let held = HeldLease::steal(&claim)
            .await
            .map_err(WorkError::into_store)?;
        let noted = async {
            let checkpoints = views.checkpoints(generation.id).await?;
            if checkpoints.iter().any(|of| of.slot == slot) {
                return Ok(());
            }
            let event = event_at(&**self.context.log(), Partition(0), start).await?;
            let state = Note::Restoring(Restoring::from(earlier)).to_state();
            let to = Checkpoint {
                slot,
                partition: Partition(0),
                position: start,
                event,
                state,
            };
            let commit = ViewCommit::new(generation.id, held.lease(), Position::START, to);
            Ok(views.commit_view(commit).await?)
        };
        let noted = noted.await;
        held.release().await;
        noted
    }

    /// The build that is under way, if one is.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn under_way(&self) -> Result<Option<Building>, RebuildError> {
        let generations = self.context.views.generations(self.view).await?;
        let building = generations
            .into_iter()
            .find(|of| of.phase == Phase::Building && is_ours(of, &self.spec));
        Ok(building.map(|generation| self.building(generation)))
    }

    /// Goes back to the newest generation that served before. It was followed meanwhile, so nothing
    /// is lost, and what served until now is kept in turn.
    ///
    /// # Errors
    ///
    /// [`RebuildError::NothingKept`] when there is none of this version.
    pub async fn roll_back(&self) -> Result<(), RebuildError> {
        let coordination = Coordination::take(&self.context, self.view).await?;
        let back = async {
            match self.kept().await?.last() {
                Some(kept) => Ok(self.subject.switch_to(kept.id).await?),
                None => Err(RebuildError::NothingKept(self.view)),
            }
        };
        let back = back.await;
        coordination.release().await;
        self.workers.poll_now();
        back
    }

    /// Drops the generations of this version that served before. Going back to them is not possible
    /// any more.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn drop_kept(&self) -> Result<(), RebuildError> {
        for kept in self.kept().await? {
            self.subject.drop_generation(kept.id).await?;
        }
        self.workers.poll_now();
        Ok(())
    }

    /// Drops the generations of this view that this program does not follow: those of older
    /// versions, of other event types, and what other builds of the same version left. Programs
    /// that still read them are left without rows.
    ///
    /// # Errors
    ///
    /// [`RebuildError::Refused`] when no generation of this program serves yet.
    pub async fn drop_others(&self) -> Result<(), RebuildError> {
        let all = self.context.views.generations(self.view).await?;
        // What readers of this program see becomes the live one, if another program's is.
        if let Some(serving) = serving(&all, &self.spec).filter(|of| of.phase != Phase::Live) {
            self.subject.switch_to(serving.id).await?;
        }
        for other in all.iter().filter(|of| !is_ours(of, &self.spec)) {
            self.subject.drop_generation(other.id).await?;
        }
        self.workers.poll_now();
        Ok(())
    }

    async fn kept(&self) -> Result<Vec<Generation>, RebuildError> {
        let all = self.context.views.generations(self.view).await?;
        let serving = serving(&all, &self.spec).map(|of| of.id);
        let kept = all
            .into_iter()
            .filter(|of| of.phase == Phase::Kept && is_ours(of, &self.spec))
            .filter(|of| Some(of.id) != serving)
            .collect();
        Ok(kept)
    }

    fn building(&self, generation: Generation) -> Building {
        let context = self.context.clone();
        let workers = self.workers.clone();
        let subject = Arc::clone(&self.subject);
        let begins_at = Position::START;
        let begun = Instant::now();
        Building {
            view: self.view,
            context,
            workers,
            generation,
            subject,
            begins_at,
            begun,
        }
    }
}

impl<V> fmt::Debug for Rebuild<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rebuild")
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}

/// A generation that is being built. Dropping this stops nothing.
pub struct Building {
    view: &'static str,
    context: WorkerContext,
    workers: GenerationWorkers,
    generation: Generation,
    subject: Arc<dyn Subject>,
    begins_at: Position,
    begun: Instant,
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
    /// Events of the log that were looked through; the slowest slot counts.
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

    /// After which position it folds the log: the start, but for a [reset](Rebuild::reset_to) that
    /// this value was given for.
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
        for partition in (0..self.context.db.store().partitions()).map(annals_core::Partition) {
            total += self.context.db.store().head(partition).await?.visible.get();
        }
        let done = (0..self.generation.spec.slots)
            .map(|slot| {
                checkpoints
                    .iter()
                    .filter(|of| of.slot == slot)
                    .map(|of| of.position.get())
                    .sum()
            })
            .min()
            .unwrap_or_default();
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

    /// Returns when readers see it, telling how far it has come now and then.
    ///
    /// # Errors
    ///
    /// [`RebuildError::Stopped`] when it cannot become complete, or differs from a replay; the one
    /// before serves on. [`RebuildError::CalledOff`] when somebody called it off.
    pub async fn finished(
        self,
        mut tell: impl FnMut(BuildProgress) + Send,
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
            tell(self.progress().await?);
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
