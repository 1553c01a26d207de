//! Decisions of operators about the dead letters of a reactor: its worker takes them up.

use annals_core::Generation;
use annals_runner::{
    BoxFuture, Drain, DrainResult, GenerationWorkers, HeldLease, Skips, Slot, SlotClaim, WorkError,
    WorkerContext,
};

use super::dead_letters::mark;

/// Marks dead letters for the worker of another process.
pub(super) struct DrainReactor {
    pub(super) context: WorkerContext,
    pub(super) workers: GenerationWorkers,
}

impl Drain for DrainReactor {
    fn drain(
        &self,
        generation: Generation,
        slot: u16,
        keys: Vec<String>,
    ) -> BoxFuture<'_, Result<DrainResult, WorkError>> {
        Box::pin(async move {
            let claim = SlotClaim::of_operator(&self.context, &generation, slot);
            let slot = Slot::of_operator(&self.context, &generation, slot, &self.workers);
            let stored_name = self.workers.stored_name();
            let skips = Skips::of(self.context.views.skip_decisions(stored_name).await?);
            let held = HeldLease::steal(&claim).await?;
            let marked = mark(&slot, &held, &keys, &skips).await;
            held.release().await;
            marked
        })
    }
}
