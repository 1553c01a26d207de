//! Generations in memory.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::built::Built;
use crate::error::StoreError;
use crate::memory::MemoryStore;
use crate::position::Position;
use crate::{
    Checkpoint, CommitError, Generation, GenerationId, GenerationSpec, GenerationStore, History,
    Phase,
};

#[async_trait]
impl GenerationStore for MemoryStore {
    async fn begin_generation(&self, spec: GenerationSpec) -> Result<Generation, StoreError> {
        spec.check()?;
        let begun_at = self.clock.now();
        let mut views = self.read_models();
        views.last_generation += 1;
        let id = GenerationId(views.last_generation);
        let since = if spec.history == History::None {
            Position::MAX
        } else {
            Position::START
        };
        let generation = Generation::new(id, spec, Phase::Building, begun_at, since);
        views.generations.insert(id, Built::new(generation.clone()));
        Ok(generation)
    }

    async fn generations(&self, view: &str) -> Result<Vec<Generation>, StoreError> {
        let views = self.read_models();
        let of_view = views
            .generations
            .values()
            .filter(|built| built.generation.spec.view == view);
        Ok(of_view.map(|built| built.generation.clone()).collect())
    }

    async fn view_names(&self) -> Result<Vec<String>, StoreError> {
        let views = self.read_models();
        let names: BTreeSet<&String> = views
            .generations
            .values()
            .map(|built| &built.generation.spec.view)
            .collect();
        Ok(names.into_iter().cloned().collect())
    }

    async fn switch_to(&self, generation: GenerationId) -> Result<(), CommitError> {
        let mut views = self.read_models();
        let GenerationSpec { view, version, .. } = views.built(generation)?.generation.spec.clone();
        for built in views
            .generations
            .values_mut()
            .map(|built| &mut built.generation)
        {
            if built.id == generation {
                built.phase = Phase::Live;
            } else if built.phase == Phase::Live
                && built.spec.view == view
                && built.spec.version == version
            {
                built.phase = Phase::Kept;
            }
        }
        Ok(())
    }

    async fn drop_generation(&self, generation: GenerationId) -> Result<(), CommitError> {
        let mut views = self.read_models();
        let Ok(Built {
            generation: dropped,
            ..
        }) = views.built(generation)
        else {
            return Ok(());
        };
        let all = views.generations.values().map(|built| &built.generation);
        dropped.check_drop(all.filter(|other| other.spec.view == dropped.spec.view))?;
        let leases: Vec<String> = dropped.lease_names().collect();
        for lease in leases {
            views.leases.remove(&lease);
        }
        views.generations.remove(&generation);
        Ok(())
    }

    async fn checkpoints(&self, generation: GenerationId) -> Result<Vec<Checkpoint>, CommitError> {
        Ok(self
            .read_models()
            .built(generation)?
            .checkpoints
            .values()
            .cloned()
            .collect())
    }
}
