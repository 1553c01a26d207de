//! What is supervised: a view, tables, a reactor, the process managers of a kind.

use annals_core::{CommitError, Generation, GenerationId};
use tokio::sync::watch;

use crate::error::WorkError;
use crate::location::BoxFuture;
use crate::worker::Slot;

/// What a check of a new generation found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Verified {
    /// It is what a replay gives, as far as it was compared.
    Equal,
    /// It cannot be compared: it is switched to, and its status says why nothing was checked.
    NotPossible {
        /// Why not.
        why: String,
    },
    /// It is not.
    Differs {
        /// Which row, and in what.
        what: String,
    },
}

/// What is built in generations, and how.
pub trait Subject: Send + Sync + 'static {
    /// Works on a slot until it is stopped: [`run`](crate::worker::run) with its work.
    fn run(&self, slot: Slot, stop: watch::Receiver<bool>) -> BoxFuture<'static, ()>;

    /// Whether a generation is complete only after its first step, also on an empty log.
    fn begins_with_a_step(&self) -> bool {
        false
    }

    /// Compares a generation that has come to the head with the log.
    fn verify<'a>(
        &'a self,
        generation: &'a Generation,
    ) -> BoxFuture<'a, Result<Verified, WorkError>> {
        let _ = generation;
        Box::pin(async { Ok(Verified::Equal) })
    }

    /// Makes a generation the one that readers see.
    fn switch_to(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>>;

    /// Drops a generation and what belongs to it.
    fn drop_generation(&self, generation: GenerationId) -> BoxFuture<'_, Result<(), CommitError>>;
}
