//! The generations of a view: begun, switched to, dropped, and how far their slots are.

use async_trait::async_trait;

use crate::error::StoreError;
use crate::generation::{Generation, GenerationId, GenerationSpec, Phase};
use crate::lease::{LeaseState, Leases};
use crate::position::Partition;
use crate::view_commit::{Checkpoint, CommitError};

/// A generation, how far its slots have come, and who holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct GenerationState {
    /// The generation.
    pub generation: Generation,
    /// The checkpoints of its slots.
    pub checkpoints: Vec<Checkpoint>,
    /// The leases that are about it.
    pub leases: Vec<LeaseState>,
}

impl GenerationState {
    /// The checkpoint of a slot in a partition; nothing before its first step.
    pub fn checkpoint(&self, slot: u16, partition: Partition) -> Option<&Checkpoint> {
        let is_it = |of: &&Checkpoint| (of.slot, of.partition) == (slot, partition);
        self.checkpoints.iter().find(is_it)
    }
}

/// Generations of views and their checkpoints: a part of a [`ViewStore`](crate::ViewStore).
///
/// Readers see a generation only after it was switched to. Who reads one that is dropped
/// meanwhile gets [`CommitError::Gone`], never an empty answer.
#[async_trait]
pub trait GenerationStore: Leases {
    /// Begins a generation: empty, building, at the start of the log.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](crate::Failure) for a specification that [no store may
    /// begin](GenerationSpec::check).
    async fn begin_generation(&self, spec: GenerationSpec) -> Result<Generation, StoreError>;

    /// The generations of a view, oldest first.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn generations(&self, view: &str) -> Result<Vec<Generation>, StoreError>;

    /// The generation that readers of this version of a view see; nothing while there is none.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn live_generation(
        &self,
        view: &str,
        version: u32,
    ) -> Result<Option<Generation>, StoreError> {
        let serves = |generation: &Generation| {
            generation.phase == Phase::Live && generation.spec.version == version
        };
        Ok(self.generations(view).await?.into_iter().find(serves))
    }

    /// The names of the views that have a generation, in order.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn view_names(&self) -> Result<Vec<String>, StoreError>;

    /// Makes a generation the one that readers of its version see; the one before is kept. Both at
    /// once. Going back is switching to one that was kept.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`] when it was dropped.
    async fn switch_to(&self, generation: GenerationId) -> Result<(), CommitError>;

    /// Drops a generation and everything in it, also the leases on its slots. Dropping one that is
    /// gone changes nothing. Skip decisions are about the view, and stay.
    ///
    /// # Errors
    ///
    /// [`CommitError::Invalid`] for [the one on which readers depend](Generation::check_drop).
    async fn drop_generation(&self, generation: GenerationId) -> Result<(), CommitError>;

    /// The checkpoints of the slots of a generation, in the order of slot and partition; slots that
    /// never committed have none.
    ///
    /// # Errors
    ///
    /// [`CommitError::Gone`]
    async fn checkpoints(&self, generation: GenerationId) -> Result<Vec<Checkpoint>, CommitError>;

    /// The generations of these views that are not dropped, each with how far it has come and who
    /// holds its slots: what a process polls, in one call.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    async fn states(&self, views: &[String]) -> Result<Vec<GenerationState>, StoreError> {
        let mut states = Vec::new();
        for view in views {
            for generation in self.generations(view).await? {
                let checkpoints = match self.checkpoints(generation.id).await {
                    Ok(checkpoints) => checkpoints,
                    Err(CommitError::Store(error)) => return Err(error),
                    // Dropped meanwhile.
                    Err(_) => continue,
                };
                let mut leases = self.leases(&generation.lease_prefix()).await?;
                leases.retain(|of| generation.is_about_it(&of.lease.name));
                states.push(GenerationState {
                    generation,
                    checkpoints,
                    leases,
                });
            }
        }
        Ok(states)
    }
}
