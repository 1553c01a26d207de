//! Decisions of operators about the dead letters of a reactor: its worker takes them up.

use annals_core::{DeadLetter, Generation, PAGE_EVENTS, Partition};
use annals_runner::{
    BoxFuture, Drain, DrainResult, GenerationWorkers, HeldLease, Skips, Slot, SlotClaim, WorkError,
    WorkerContext, queue, records_at,
};

use super::worker::{first_dead_letter, unmoved};

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

/// Marks the first dead letter of each key as one that is to be tried again, and removes those
/// before it that are skipped.
pub(super) async fn mark(
    slot: &Slot,
    held: &HeldLease,
    keys: &[String],
    skips: &Skips,
) -> Result<DrainResult, WorkError> {
    let mut all = DrainResult::default();
    for key in keys {
        all.settled += remove_skipped(slot, held, key, skips).await?;
        if let Some(first) = first_dead_letter(slot, key).await?
            && first.cause.is_some()
        {
            let again = DeadLetter {
                cause: None,
                ..first.clone()
            };
            let commit = unmoved(slot, held, first.partition, |commit| {
                commit.park.push(again);
            });
            slot.context.views.commit_view(commit.await?).await?;
        }
    }
    Ok(all)
}

/// Removes the first dead letters of a key that are skipped.
async fn remove_skipped(
    slot: &Slot,
    held: &HeldLease,
    key: &str,
    skips: &Skips,
) -> Result<u64, WorkError> {
    let log = slot.context.log();
    let views = &*slot.context.views;
    let mut removed = 0;
    for partition in (0..log.partitions()).map(Partition) {
        loop {
            let letters = queue(views, slot.generation.id, key, partition, PAGE_EVENTS).await?;
            let positions: Vec<_> = letters.iter().map(|of| of.position).collect();
            let records = records_at(&**log, partition, &positions).await?;
            let is_skipped = |letter: &&DeadLetter| {
                records
                    .binary_search_by_key(&letter.position, |record| record.position)
                    .is_ok_and(|at| skips.for_key(&records[at], key))
            };
            let skipped: Vec<_> = letters
                .iter()
                .take_while(is_skipped)
                .map(|of| (of.key.clone(), of.position))
                .collect();
            let count = skipped.len();
            if count > 0 {
                let commit = unmoved(slot, held, partition, |commit| commit.unpark = skipped);
                views.commit_view(commit.await?).await?;
                removed += count as u64;
            }
            if count < letters.len() {
                return Ok(removed);
            }
            if letters.len() < PAGE_EVENTS {
                break;
            }
        }
    }
    Ok(removed)
}
