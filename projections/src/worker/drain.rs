//! The queue of a key: its dead letters are folded in their order, as far as it goes.

use std::sync::Arc;

use annals_core::{Checkpoint, DeadLetter, Generation, Lease, Partition, Position};
use annals_runner::{
    BoxFuture, DeadLetters, Drain, DrainResult, GenerationWorkers, HeldLease, Note, Skips, Slot,
    SlotClaim, WorkError, chain, queue, records_at,
};

use super::FoldView;
use super::stored::stored_row;
use crate::context::ViewContext;
use crate::fold::{DrainedKey, Waiting, drained};
use crate::view::{Handlers, Poison, View};

/// Events of a queue that are settled in one transaction.
const CHUNK_EVENTS: usize = 1_000;

/// Drains queues of dead letters for operators, under a lease of its own.
pub(crate) struct DrainView<V: View> {
    context: ViewContext,
    workers: GenerationWorkers,
    handlers: Arc<Handlers<V>>,
}

impl<V: View> DrainView<V> {
    fn new(context: ViewContext, workers: GenerationWorkers) -> DrainView<V> {
        DrainView {
            context,
            workers,
            handlers: Arc::new(V::handlers()),
        }
    }

    /// The dead letters of a view, drained by this.
    pub(crate) fn dead_letters(context: &ViewContext, workers: &GenerationWorkers) -> DeadLetters {
        let drain = DrainView::<V>::new(context.clone(), workers.clone());
        DeadLetters::new(context, workers, Arc::new(drain))
    }
}

impl<V: View> Drain for DrainView<V> {
    fn drain(
        &self,
        generation: Generation,
        slot: u16,
        keys: Vec<String>,
    ) -> BoxFuture<'_, Result<DrainResult, WorkError>> {
        Box::pin(async move {
            let claim = SlotClaim::of_operator(&self.context, &generation, slot);
            let slot = Slot::of_operator(&self.context, &generation, slot, &self.workers);
            let handlers = Arc::clone(&self.handlers);
            let pages = Arc::default();
            let work = FoldView::new(slot, handlers, pages, self.context.options.clone());
            let held = HeldLease::steal(&claim).await?;
            let drained = work.drain_all(&held, &keys).await;
            held.release().await;
            drained
        })
    }
}

impl<V: View> FoldView<V> {
    async fn drain_all(&self, held: &HeldLease, keys: &[String]) -> Result<DrainResult, WorkError> {
        self.restore(held).await?;
        let skips = Skips::of(self.context.views.skip_decisions(V::NAME).await?);
        let mut all = DrainResult::default();
        for key in keys {
            let one = self.drain(held.lease(), key, &skips).await?;
            all.settled += one.settled;
            all.still = all.still.or(one.still);
        }
        Ok(all)
    }

    /// Settles the queue of a key as far as it goes, under the lease of its slot.
    pub(super) async fn drain(
        &self,
        lease: Lease,
        key: &str,
        skips: &Skips,
    ) -> Result<DrainResult, WorkError> {
        let mut drained = DrainResult::default();
        for partition in (0..self.context.log().partitions()).map(Partition) {
            loop {
                let queue = queue(
                    &*self.context.views,
                    self.generation.id,
                    key,
                    partition,
                    CHUNK_EVENTS,
                )
                .await?;
                if queue.is_empty() {
                    break;
                }
                let whole = queue.len() < CHUNK_EVENTS;
                let settled = self
                    .settle_chunk(lease.clone(), key, partition, queue, skips)
                    .await?;
                drained.settled += settled.settled;
                if settled.still.is_some() {
                    drained.still = settled.still;
                    return Ok(drained);
                }
                if whole {
                    break;
                }
            }
        }
        Ok(drained)
    }

    async fn settle_chunk(
        &self,
        lease: Lease,
        key: &str,
        partition: Partition,
        queue: Vec<DeadLetter>,
        skips: &Skips,
    ) -> Result<DrainResult, WorkError> {
        let at = self.checkpoint(partition).await?;
        let waiting = self.prepared(key, partition, queue, skips).await?;
        let (stored, version) = stored_row(&self.slot, V::NAME, key).await?;
        let drained = drained::<V>(key, stored, version, waiting)?;
        commit_drained(&self.slot, lease, at, drained).await
    }

    /// What each event of a queue does to the row, or why it still fails.
    async fn prepared(
        &self,
        key: &str,
        partition: Partition,
        queue: Vec<DeadLetter>,
        skips: &Skips,
    ) -> Result<Vec<Waiting<V>>, WorkError> {
        let mut waiting = Vec::with_capacity(queue.len());
        let positions: Vec<Position> = queue.iter().map(|letter| letter.position).collect();
        let mut records = records_at(&**self.context.log(), partition, &positions)
            .await?
            .into_iter()
            .peekable();
        for letter in queue {
            let steps = match records.next_if(|record| record.position == letter.position) {
                None if skips.for_dead_letter(&letter) => Ok(Vec::new()),
                None => Err(Poison::new(
                    "the event is not in the log any more; skip it, or rebuild the view",
                )),
                Some(record) => match self.prepare(skips, record) {
                    Ok(mut steps) => {
                        steps.retain(|step| step.keys.iter().any(|of| of == key));
                        Ok(steps)
                    }
                    Err(error) => Err(Poison::new(chain(&error))),
                },
            };
            waiting.push(Waiting { letter, steps });
        }
        Ok(waiting)
    }
}

/// Boxed here, so that it is compiled once and not for each view.
fn commit_drained(
    of: &Slot,
    lease: Lease,
    at: Checkpoint,
    drained: DrainedKey,
) -> BoxFuture<'_, Result<DrainResult, WorkError>> {
    Box::pin(async move {
        let DrainedKey {
            changes,
            settled_letters,
            still,
        } = drained;
        let mut to = at.clone();
        if !settled_letters.is_empty() {
            // Watchers in other processes see nothing of this but the checkpoint.
            to.state = Note::of(&at)?.drained().to_state();
        }
        let mut commit = of.view_commit(lease, at.position, to);
        let drained = DrainResult {
            settled: settled_letters.len() as u64,
            still,
        };
        commit.rows = changes.rows;
        commit.versions = changes.versions;
        commit.touched = changes.touched;
        commit.advances = changes.advances;
        commit.settled_letters = settled_letters;
        commit.dead_letters = drained.still.iter().cloned().collect();
        let rows = commit.rows.clone();
        of.context.views.commit_view(commit).await?;
        of.workers
            .publish_step(of.generation.id, at.partition, at.position, Some(rows));
        Ok(drained)
    })
}
