//! Building a view anew beside the one that serves: begun by command, watched, called off, gone back from.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{CommitError, Generation, GenerationId, GenerationSpec, Phase, StoreError};

use crate::place::Generations;
use crate::supervisor::{Following, Site, gate, is_ours};

/// What can be done with the generations of a view.
///
/// ```
/// # use annals_projections::{Program, RebuildError, View};
/// # async fn example<Balance: View>(db: Program) -> Result<(), RebuildError> {
/// let building = db.rebuild::<Balance>().begin().await?;
/// building.finished(|progress| println!("{progress}")).await?;
/// # Ok(())
/// # }
/// ```
pub struct Rebuild<V> {
    site: Site,
    following: Following,
    view: &'static str,
    spec: GenerationSpec,
    generations: Arc<dyn Generations>,
    of: PhantomData<fn() -> V>,
}

/// Why a view is not built anew, or not gone back from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// It is being built already; that is one generation, whoever began it.
    #[error("view `{0}` is being built already")]
    AlreadyBuilding(&'static str),
    /// The build was called off: its generation was dropped.
    #[error("the build of view `{0}` was called off")]
    CalledOff(&'static str),
    /// There is no generation to go back to.
    #[error("view `{0}` has no generation to go back to")]
    NothingKept(&'static str),
    /// The build does not go on until a person has looked.
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
        site: Site,
        following: Following,
        view: &'static str,
        spec: GenerationSpec,
        generations: Arc<dyn Generations>,
    ) -> Rebuild<V> {
        Rebuild { site, following, view, spec, generations, of: PhantomData }
    }

    /// Begins a new generation of this version. The workers of all programs that have this view build it together, slot by slot;
    /// it goes on after a crash, and is switched to as soon as it is complete.
    ///
    /// # Errors
    ///
    /// [`RebuildError::AlreadyBuilding`] when one is being built.
    pub async fn begin(&self) -> Result<Building, RebuildError> {
        let gate = gate(&self.site, self.view).await?;
        let begun = async {
            let generations = self.site.views.generations(self.view).await?;
            if generations.iter().any(|of| of.phase == Phase::Building && is_ours(of, &self.spec)) {
                return Err(RebuildError::AlreadyBuilding(self.view));
            }
            Ok(self.site.views.begin_generation(self.spec.clone()).await?)
        };
        let begun = begun.await;
        self.site.views.release_lease(&gate).await?;
        self.following.look();
        Ok(self.building(begun?))
    }

    /// The build that is under way, if one is.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn under_way(&self) -> Result<Option<Building>, RebuildError> {
        let generations = self.site.views.generations(self.view).await?;
        let building = generations.into_iter().find(|of| of.phase == Phase::Building && is_ours(of, &self.spec));
        Ok(building.map(|generation| self.building(generation)))
    }

    /// Goes back to the newest generation that served before. It was followed meanwhile, so nothing is lost, and what served until
    /// now is kept in turn.
    ///
    /// # Errors
    ///
    /// [`RebuildError::NothingKept`] when there is none of this version.
    pub async fn roll_back(&self) -> Result<(), RebuildError> {
        let gate = gate(&self.site, self.view).await?;
        let back = async {
            match self.kept().await?.last() {
                Some(kept) => Ok(self.generations.switch(kept.id).await?),
                None => Err(RebuildError::NothingKept(self.view)),
            }
        };
        let back = back.await;
        self.site.views.release_lease(&gate).await?;
        self.following.look();
        back
    }

    /// Drops the generations of this version that served before. Going back to them is not possible any more.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn drop_kept(&self) -> Result<(), RebuildError> {
        for kept in self.kept().await? {
            self.generations.remove(kept.id).await?;
        }
        self.following.look();
        Ok(())
    }

    async fn kept(&self) -> Result<Vec<Generation>, RebuildError> {
        let mut kept = self.site.views.generations(self.view).await?;
        kept.retain(|of| of.phase == Phase::Kept && of.spec.version == self.spec.version);
        Ok(kept)
    }

    fn building(&self, generation: Generation) -> Building {
        let (site, following) = (self.site.clone(), self.following.clone());
        let generations = Arc::clone(&self.generations);
        Building { view: self.view, site, following, generation, generations, begun: Instant::now() }
    }
}

impl<V> fmt::Debug for Rebuild<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rebuild").field("view", &self.view).finish_non_exhaustive()
    }
}

/// A generation that is being built. Dropping this stops nothing.
pub struct Building {
    view: &'static str,
    site: Site,
    following: Following,
    generation: Generation,
    generations: Arc<dyn Generations>,
    begun: Instant,
}

impl fmt::Debug for Building {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Building").field("generation", &self.generation).finish_non_exhaustive()
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

    /// How far it has come.
    ///
    /// # Errors
    ///
    /// [`RebuildError::CalledOff`] when its generation is gone.
    pub async fn progress(&self) -> Result<BuildProgress, RebuildError> {
        let checkpoints = match self.site.views.checkpoints(self.generation.id).await {
            Ok(checkpoints) => checkpoints,
            Err(CommitError::Gone(_)) => return Err(RebuildError::CalledOff(self.view)),
            Err(error) => return Err(error.into()),
        };
        let mut total = 0;
        for partition in (0..self.site.db.store().partitions()).map(annals_core::Partition) {
            total += self.site.db.store().head(partition).await?.visible.get();
        }
        let done = (0..self.generation.spec.slots)
            .map(|slot| checkpoints.iter().filter(|of| of.slot == slot).map(|of| of.position.get()).sum())
            .min()
            .unwrap_or_default();
        let events_per_second = done as f64 / self.begun.elapsed().as_secs_f64().max(1e-6);
        let left = total.saturating_sub(done) as f64;
        let rest = (done > 0).then(|| Duration::from_secs_f64((left / events_per_second).min(1e9)));
        Ok(BuildProgress { done, total, events_per_second, rest })
    }

    /// Returns when readers see it, telling how far it has come now and then.
    ///
    /// # Errors
    ///
    /// [`RebuildError::Stopped`] when it cannot become complete, or differs from a replay; the one before serves on.
    /// [`RebuildError::CalledOff`] when somebody called it off.
    pub async fn finished(self, mut tell: impl FnMut(BuildProgress) + Send) -> Result<(), RebuildError> {
        let mut changes = self.following.changes();
        loop {
            let generations = self.site.views.generations(self.view).await?;
            match generations.iter().find(|of| of.id == self.generation.id).map(|of| of.phase) {
                Some(Phase::Building) => {}
                Some(_) => return Ok(()),
                None => return Err(RebuildError::CalledOff(self.view)),
            }
            if let Some(reason) = self.following.stopped(self.generation.id).map(|(_, reason)| reason) {
                return Err(RebuildError::Stopped { view: self.view, reason });
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
        self.generations.remove(self.generation.id).await?;
        self.following.look();
        Ok(())
    }
}

impl fmt::Display for BuildProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} events, {:.0} a second", self.done, self.total, self.events_per_second)?;
        match self.rest {
            Some(rest) => write!(f, ", {} s to go", rest.as_secs()),
            None => Ok(()),
        }
    }
}
