//! Rebuilding a view beside the one that serves: begun by command, watched, called off, rolled
//! back.

mod building;
mod error;
mod reset;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{
    Checkpoint, CommitError, Generation, GenerationSpec, History, Moment, Partition, Phase,
    Position,
};
use annals_runner::{
    Coordination, GenerationWorkers, Subject, WorkerContext, is_ours, serving, settled_to,
};

pub use building::{BuildProgress, Building};
pub use error::RebuildError;

use crate::fold::between_intervals;

/// How long a generation that is kept may make no progress before it is not waited for any more.
const NO_PROGRESS: Duration = Duration::from_secs(30);

/// The pause between two looks at how far it has come.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// What took longer than this to come as far as the one that serves is asked to come further.
const FRESH: Duration = Duration::from_millis(500);

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
    takes_what_is_left: bool,
    of: PhantomData<fn() -> V>,
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
            takes_what_is_left: false,
            of: PhantomData,
        }
    }

    /// Builds also from a log that has forgotten its beginning, such as a topic with retention: the
    /// new rows are those of the events that are left.
    ///
    /// ```
    /// # use annals_projections::ReadModels as _;
    /// # use annals_projections::{Program, RebuildError, View};
    /// # async fn example<Sales: View>(db: Program) -> Result<(), RebuildError> {
    /// let building = match db.rebuild::<Sales>().begin().await {
    ///     Err(RebuildError::Shorter { .. }) => {
    ///         db.rebuild::<Sales>().from_what_is_left().begin().await?
    ///     }
    ///     begun => begun?,
    /// };
    /// # drop(building);
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_what_is_left(mut self) -> Rebuild<V> {
        self.takes_what_is_left = true;
        self
    }

    /// Begins a new generation of this version. The workers of all programs that have this view
    /// build it together, slot by slot; it goes on after a crash, and is switched to as soon as it
    /// is complete. The generation that served until then is kept for a
    /// [roll-back](Rebuild::roll_back); those that were kept before it are dropped.
    ///
    /// # Errors
    ///
    /// [`RebuildError::AlreadyBuilding`] when one is being built, [`RebuildError::Shorter`] when
    /// the log has forgotten its beginning and the generation that serves may have seen it.
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
        self.begin_at(between_intervals(moment)).await
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
                self.refuse_less(&generations).await?;
                return Ok(self
                    .context
                    .views
                    .begin_generation(self.spec.clone())
                    .await?);
            }
            let serves = serving(&generations, &self.spec);
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

    /// A generation of less than what serves is begun by choice alone.
    async fn refuse_less(&self, generations: &[Generation]) -> Result<(), RebuildError> {
        let serves = serving(generations, &self.spec);
        let Some(serves) = serves.filter(|_| !self.takes_what_is_left) else {
            return Ok(());
        };
        let read = self.context.views.checkpoints(serves.id).await?;
        let mut partitions = Vec::new();
        for partition in (0..self.spec.partitions).map(Partition) {
            let forgotten = self.context.log().begins_after(partition).await?;
            let was_read =
                |of: &Checkpoint| of.partition == partition && of.position > Position::START;
            if forgotten > Position::START && read.iter().any(was_read) {
                partitions.push((partition, forgotten));
            }
        }
        match partitions.is_empty() {
            true => Ok(()),
            false => Err(RebuildError::Shorter {
                view: self.view,
                partitions,
            }),
        }
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
    /// is lost, and what served until now is kept in turn. Readers see nothing that is older: where
    /// it lags the one that serves, this waits until it is as far.
    ///
    /// # Errors
    ///
    /// [`RebuildError::NothingKept`] when there is none of this version; [`RebuildError::Lags`]
    /// when it does not come as far as the one that serves: nothing was switched then.
    pub async fn roll_back(&self) -> Result<(), RebuildError> {
        // That may take long, and programs that start wait for who coordinates.
        let kept = self.newest_kept().await?;
        self.catches_up(&kept).await?;
        let coordination = Coordination::take(&self.context, self.view).await?;
        let back = async {
            let kept = self.newest_kept().await?;
            self.catches_up(&kept).await?;
            Ok(self.subject.switch_to(kept.id).await?)
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

    /// Forgets what the rows were before a moment, in every generation of the view: the one that
    /// serves, those that are kept or being built, and those of other versions. Questions about
    /// earlier moments are [`ViewError::BeforeHistory`](crate::ViewError::BeforeHistory) from then
    /// on; the store clears what is forgotten in the background. What a row was at the moment
    /// itself stays, so name one at which the rows hold no more what is to be forgotten. A
    /// generation that has not come so far forgets up to where it is.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    ///
    /// ```
    /// # use annals_projections::ReadModels as _;
    /// # use annals_projections::{Program, RebuildError, View};
    /// # async fn example<Balance: View>(
    /// #     db: Program, archived: annals_core::Committed,
    /// # ) -> Result<(), RebuildError> {
    /// if let Some(summary) = archived.events().last() {
    ///     db.rebuild::<Balance>().forget_history(summary.position).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn forget_history(&self, before: impl Into<Moment>) -> Result<(), RebuildError> {
        let partition = Partition(0);
        let log = self.context.db.store();
        let before = before.into().resolve(&**log, partition).await?;
        let head = log.head(partition).await?.visible;
        let views = &self.context.views;
        for state in views.states(&[self.view.to_owned()]).await? {
            let spec = &state.generation.spec;
            if spec.history == History::None {
                continue;
            }
            let reached = |slot| state.checkpoint(slot, partition).map(|of| of.position);
            let slots = (0..spec.slots).filter(|slot| spec.reads(*slot, partition));
            let reached = slots.map(|slot| reached(slot).unwrap_or_default());
            let since = match spec.inline {
                true => head,
                false => reached.min().unwrap_or_default(),
            };
            let since = since.min(before);
            if since > Position::START {
                match views.forget_history(state.generation.id, since).await {
                    Ok(()) | Err(CommitError::Gone(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Waits until a generation that is kept is as far as the one that serves was a moment ago.
    async fn catches_up(&self, kept: &Generation) -> Result<(), RebuildError> {
        let mut wanted = self.seen_by_readers().await?;
        let mut asked = Instant::now();
        let mut fresh = FRESH;
        let mut changes = self.workers.changes();
        let mut last: Vec<(u16, Partition, Position)> = Vec::new();
        let mut moved = Instant::now();
        loop {
            let checkpoints = self.context.views.checkpoints(kept.id).await?;
            let at = |slot: u16, partition: Partition| {
                let mut of_slot = checkpoints.iter();
                let found = of_slot.find(|of| (of.slot, of.partition) == (slot, partition));
                found.map_or(Position::START, settled_to)
            };
            let is_there = wanted.iter().all(|(partition, position)| {
                let mut slots = (0..kept.spec.slots).filter(|of| kept.spec.reads(*of, *partition));
                slots.all(|slot| at(slot, *partition) >= *position)
            });
            if is_there && asked.elapsed() <= fresh {
                return Ok(());
            }
            if is_there {
                // The one that serves went on meanwhile. Each time it may have for longer, so that
                // this ends on a busy log.
                asked = Instant::now();
                wanted = self.seen_by_readers().await?;
                fresh *= 2;
                continue;
            }
            let now: Vec<_> = checkpoints
                .iter()
                .map(|of| (of.slot, of.partition, settled_to(of)))
                .collect();
            if now != last {
                last = now;
                moved = Instant::now();
            }
            let lags = |reason: String| RebuildError::Lags {
                view: self.view,
                reason,
            };
            if let Some((_, reason)) = self.workers.stopped(kept.id) {
                return Err(lags(reason));
            }
            if *self.workers.ended().borrow() {
                return Err(lags("the program was stopped".into()));
            }
            if moved.elapsed() >= NO_PROGRESS {
                return Err(lags(format!("it has made no progress for {NO_PROGRESS:?}")));
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, changes.changed()).await;
        }
    }

    /// How far the rows are that readers may have seen, in each partition.
    async fn seen_by_readers(&self) -> Result<Vec<(Partition, Position)>, RebuildError> {
        let all = self.context.views.generations(self.view).await?;
        let Some(serves) = serving(&all, &self.spec) else {
            return Ok(Vec::new());
        };
        let read = self.context.views.checkpoints(serves.id).await?;
        let mut seen = Vec::new();
        for partition in (0..serves.spec.partitions).map(Partition) {
            let of_partition = read.iter().filter(|of| of.partition == partition);
            let mut position = of_partition.map(settled_to).max().unwrap_or_default();
            // Appends write the rows of an inline view, whatever its worker has read.
            if serves.spec.inline {
                position = self.context.log().head(partition).await?.visible;
            }
            seen.push((partition, position));
        }
        Ok(seen)
    }

    async fn newest_kept(&self) -> Result<Generation, RebuildError> {
        let newest = self.kept().await?.pop();
        newest.ok_or(RebuildError::NothingKept(self.view))
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
