//! The queue of a key: its dead letters are handed over in their order, as far as it goes.

use std::sync::{Arc, Mutex, PoisonError};

use annals_core::{
    CustomTables, DeadLetter, Generation, InTransaction, Partition, Position, StoreError,
    ViewCommit,
};
use annals_runner::{
    BoxFuture, Drain, DrainResult, GenerationWorkers, HeldLease, Skips, Slot, SlotClaim, WorkError,
    chain, queue, records_at,
};
use async_trait::async_trait;

use super::batch::{Part, ended, take};
use super::hook::Tabled;
use super::worker::FillTables;
use super::{ConnectionOf, SqlProjection, Tables};
use crate::context::ViewContext;

/// Events of a queue that are settled in one transaction.
const CHUNK_EVENTS: usize = 1_000;

/// Drains queues of dead letters for operators, under a lease of its own.
pub(super) struct DrainTables<P: SqlProjection> {
    pub(super) context: ViewContext,
    pub(super) workers: GenerationWorkers,
    pub(super) tables: Tabled<P>,
}

impl<P: SqlProjection> Drain for DrainTables<P> {
    fn drain(
        &self,
        generation: Generation,
        slot: u16,
        keys: Vec<String>,
    ) -> BoxFuture<'_, Result<DrainResult, WorkError>> {
        Box::pin(async move {
            let claim = SlotClaim::of_operator(&self.context, &generation, slot);
            let slot = Slot::of_operator(&self.context, &generation, slot, &self.workers);
            let options = self.context.options.clone();
            let worker = FillTables::new(slot, self.tables.clone(), options);
            let held = HeldLease::steal(&claim).await?;
            let drained = worker.drain_all(&held, &keys).await;
            held.release().await;
            drained
        })
    }
}

impl<P: SqlProjection> FillTables<P> {
    pub(super) async fn drain_all(
        &self,
        held: &HeldLease,
        keys: &[String],
    ) -> Result<DrainResult, WorkError> {
        let skips = Skips::of(self.context.views.skip_decisions(P::NAME).await?);
        let mut all = DrainResult::default();
        for key in keys {
            self.drain_key(held, key, &skips, &mut all).await?;
        }
        Ok(all)
    }

    async fn drain_key(
        &self,
        held: &HeldLease,
        key: &str,
        skips: &Skips,
        all: &mut DrainResult,
    ) -> Result<(), WorkError> {
        for partition in (0..self.context.log().partitions()).map(Partition) {
            loop {
                let waiting = queue(
                    &*self.context.views,
                    self.generation.id,
                    key,
                    partition,
                    CHUNK_EVENTS,
                )
                .await?;
                if waiting.is_empty() {
                    break;
                }
                let (settled, still) = self
                    .settle_some(held, key, partition, waiting, skips)
                    .await?;
                all.settled += settled;
                if still.is_some() {
                    all.still = all.still.take().or(still);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn settle_some(
        &self,
        held: &HeldLease,
        key: &str,
        partition: Partition,
        queue: Vec<DeadLetter>,
        skips: &Skips,
    ) -> Result<(u64, Option<DeadLetter>), WorkError> {
        let at = self.checkpoint(partition).await?;
        let positions: Vec<Position> = queue.iter().map(|letter| letter.position).collect();
        let mut records = records_at(&**self.context.log(), partition, &positions)
            .await?
            .into_iter()
            .peekable();
        let mut waiting = Vec::with_capacity(queue.len());
        for letter in queue {
            let record = records.next_if(|record| record.position == letter.position);
            let part = match record {
                None if skips.for_dead_letter(&letter) => Ok(None),
                None => Err("the event is not in the log any more; skip it".into()),
                Some(record) if skips.for_key(&record, key) => Ok(None),
                Some(record) => Part::of(record).map(Some).map_err(|error| chain(&error)),
            };
            waiting.push((letter, part));
        }
        let outcome = Arc::new(Mutex::new((0, None)));
        let project = Arc::clone(&self.tables.project);
        let tables = Tables::of(self.generation.id);
        let work = DrainQueue::<P> {
            project,
            tables,
            waiting,
            outcome: Arc::clone(&outcome),
        };
        let step = self.view_commit(held.lease(), at.position, at);
        self.tables
            .store
            .commit_with(step, Box::new(work))
            .await
            .map_err(ended)?;
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((outcome.0, outcome.1.take()))
    }
}

/// An event of a queue; nothing when it is skipped, a reason when it cannot be read.
type Waiting<P> = (
    DeadLetter,
    Result<Option<Part<<P as SqlProjection>::Event>>, String>,
);

/// The queue of a key, handed over inside a transaction.
struct DrainQueue<P: SqlProjection> {
    project: Arc<P>,
    tables: Tables,
    waiting: Vec<Waiting<P>>,
    /// How many were settled, and the one on which the key waits now.
    outcome: Arc<Mutex<(u64, Option<DeadLetter>)>>,
}

#[async_trait]
impl<P: SqlProjection> InTransaction<ConnectionOf<P>, ViewCommit> for DrainQueue<P> {
    async fn run(
        &mut self,
        connection: &mut ConnectionOf<P>,
        step: &mut ViewCommit,
    ) -> Result<(), StoreError> {
        let mut settled = 0;
        let mut still = None;
        for (letter, part) in &self.waiting {
            P::Store::mark(connection).await?;
            let taken = match part {
                Ok(Some(part)) => take(&*self.project, connection, &self.tables, part).await,
                Ok(None) => Ok(()),
                Err(reason) => Err(reason.clone()),
            };
            match taken {
                Ok(()) => P::Store::keep(connection).await?,
                Err(reason) => {
                    P::Store::undo(connection).await?;
                    let reason = Some(DeadLetter::recorded(reason));
                    let attempts = letter.attempts + 1;
                    still = Some(DeadLetter {
                        reason,
                        attempts,
                        ..letter.clone()
                    });
                    break;
                }
            }
            step.settled_letters
                .push((letter.key.clone(), letter.position));
            settled += 1;
        }
        step.dead_letters.extend(still.clone());
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = (settled, still);
        Ok(())
    }
}
