//! Read models in memory: every change is made under one lock, after everything that could refuse
//! it was checked.

mod built;
mod generations;
mod leases;
mod ranges;
mod rows;

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

use self::built::Built;
use self::leases::Kept;
use super::MemoryStore;
use crate::append::{Append, Placed};
use crate::error::Invalid;
use crate::lease::Lease;
use crate::position::{Partition, Position};
use crate::{CommitError, DeadLetter, EventId, GenerationId, SkipDecision, ViewCommit};

/// The read models of a store, and the leases of those who work on them.
#[derive(Debug, Default)]
pub(super) struct Views {
    generations: BTreeMap<GenerationId, Built>,
    // The last ones that were given; what is dropped does not give them back.
    last_generation: u64,
    last_epoch: u64,
    leases: BTreeMap<String, Kept>,
    skip_decisions: BTreeMap<(String, Partition, Position, Option<String>), SkipDecision>,
}

impl Views {
    fn built(&self, id: GenerationId) -> Result<&Built, CommitError> {
        self.generations.get(&id).ok_or(CommitError::Gone(id))
    }

    fn built_mut(&mut self, id: GenerationId) -> Result<&mut Built, CommitError> {
        self.generations.get_mut(&id).ok_or(CommitError::Gone(id))
    }

    /// The lease with this name, if it is still this one: of this epoch and not given back.
    fn current(&mut self, lease: &Lease) -> Option<&mut Kept> {
        self.leases
            .get_mut(&lease.name)
            .filter(|kept| kept.lease == *lease && !kept.given_back)
    }

    /// Refuses rows that can never be written with an append.
    pub(super) fn check_prepared(&self, append: &Append) -> Result<(), Invalid> {
        let mut known = append
            .rows
            .iter()
            .filter_map(|row| Some((row, self.built(row.generation).ok()?)));
        known.try_for_each(|(row, built)| row.check(&built.generation))
    }

    /// Writes the rows of an append that are at the version at which they were found.
    pub(super) fn take_prepared(
        &mut self,
        append: &Append,
        placed: &[Placed],
        recorded_at: DateTime<Utc>,
    ) {
        for row in &append.rows {
            let (Ok(built), Some(to)) = (
                self.built_mut(row.generation),
                append.version_after(&row.stream),
            ) else {
                continue;
            };
            if built.version_of(&row.key) == row.from {
                built.take_prepared(row, to, placed, recorded_at);
            }
        }
    }

    /// Forgets why events became dead letters that are removed now.
    pub(super) fn forget_causes(&mut self, is_removed: impl Fn(&EventId) -> bool) {
        let built = self.generations.values_mut();
        for letter in built.flat_map(|built| built.dead_letters.values_mut()) {
            if letter.reason.is_some() && is_removed(&letter.event) {
                letter.reason = Some(DeadLetter::ARCHIVED.into());
            }
        }
    }

    fn commit(&mut self, mut commit: ViewCommit) -> Result<(), CommitError> {
        let built = self.built(commit.generation)?;
        commit.check(&built.generation)?;
        let slot = commit.to.slot;
        let partition = commit.to.partition;
        let at = built
            .checkpoints
            .get(&(slot, partition))
            .map_or(Position::START, |checkpoint| checkpoint.position);
        let fenced = |found| CommitError::Fenced {
            generation: commit.generation,
            slot,
            found,
        };
        if self.current(&commit.lease).is_none() {
            let found = match self.leases.get(&commit.lease.name) {
                Some(Kept {
                    lease,
                    given_back: false,
                    ..
                }) => format!("`{}` has epoch {}", lease.owner, lease.epoch),
                _ => "the lease was given back".into(),
            };
            return Err(fenced(found));
        }
        if at != commit.from {
            return Err(fenced(format!(
                "its checkpoint is {at}, the step goes from {}",
                commit.from
            )));
        }
        // After the fence: a repeated step is answered as such, and not with the error that its
        // versions are there already.
        let built = self.built_mut(commit.generation)?;
        let known = built.known_already(&commit)?;
        commit.without_keys(&known);
        built.check_versions(&commit.versions)?;
        built.take(commit);
        Ok(())
    }
}

impl MemoryStore {
    pub(super) fn read_models(&self) -> MutexGuard<'_, Views> {
        self.shared
            .views
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
