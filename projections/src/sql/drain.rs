//! The queue of a key: events that were set aside are handed over in their order, as far as it
//! goes.

use std::sync::{Arc, Mutex, PoisonError};

use annals_core::{
    CustomTables, DeadLetter, InTransaction, Partition, Position, StoreError, ViewCommit,
};
use async_trait::async_trait;

use super::batch::{Part, ended, take};
use super::worker::TableWorker;
use super::{ConnectionOf, SqlProjection, Tables};
use crate::log::records_at;
use crate::skips::Skips;
use crate::worker::{DrainResult, HeldLease, WorkError, chain, queue};

impl<P: SqlProjection> TableWorker<P> {
    /// Takes the slot, from whoever has it, and settles the queues of these keys. The one before is
    /// refused when it commits, and begins anew behind this.
    pub(super) async fn settle(&self, keys: &[String]) -> Result<DrainResult, WorkError> {
        let skips = Skips::of(self.context.views.skip_decisions(P::NAME).await?);
        let held = HeldLease::steal(&self.post()).await?;
        let mut all = DrainResult::default();
        let mut settled = Ok(());
        for key in keys {
            settled = self.empty(&held, key, &skips, &mut all).await;
            if settled.is_err() {
                break;
            }
        }
        held.release().await;
        settled.map(|()| all)
    }

    async fn empty(
        &self,
        held: &HeldLease,
        key: &str,
        skips: &Skips,
        all: &mut DrainResult,
    ) -> Result<(), WorkError> {
        for partition in (0..self.context.db.store().partitions()).map(Partition) {
            loop {
                let waiting =
                    queue(&self.context.views, self.generation.id, key, partition).await?;
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
        let positions: Vec<Position> = queue
            .iter()
            .map(|dead_letters| dead_letters.position)
            .collect();
        let mut records = records_at(&**self.context.db.store(), partition, &positions)
            .await?
            .into_iter()
            .peekable();
        let mut waiting = Vec::with_capacity(queue.len());
        for dead_letters in queue {
            let record = records.next_if(|record| record.position == dead_letters.position);
            let part = match record {
                None => Err("the event is not in the log any more; skip it".into()),
                Some(record) if skips.is_left(&record, key) => Ok(None),
                Some(record) => Part::of(record).map(Some).map_err(|error| chain(&error)),
            };
            waiting.push((dead_letters, part));
        }
        let came = Arc::new(Mutex::new((0, None)));
        let project = Arc::clone(&self.subject.project);
        let tables = Tables::of(self.generation.id);
        let work = Drain::<P> {
            project,
            tables,
            waiting,
            came: Arc::clone(&came),
        };
        let step = ViewCommit::new(self.generation.id, held.lease(), at.position, at);
        self.subject
            .store
            .commit_with(step, Box::new(work))
            .await
            .map_err(ended)?;
        let mut came = came.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((came.0, came.1.take()))
    }
}

/// An event of a queue; nothing when it is left out, a reason when it cannot be read.
type Waiting<P> = (
    DeadLetter,
    Result<Option<Part<<P as SqlProjection>::Event>>, String>,
);

/// The queue of a key, handed over inside a transaction.
struct Drain<P: SqlProjection> {
    project: Arc<P>,
    tables: Tables,
    waiting: Vec<Waiting<P>>,
    /// How many were settled, and the one on which the key waits now.
    came: Arc<Mutex<(u64, Option<DeadLetter>)>>,
}

#[async_trait]
impl<P: SqlProjection> InTransaction<ConnectionOf<P>, ViewCommit> for Drain<P> {
    async fn run(
        &mut self,
        connection: &mut ConnectionOf<P>,
        step: &mut ViewCommit,
    ) -> Result<(), StoreError> {
        let mut settled = 0;
        let mut still = None;
        for (dead_letters, part) in &self.waiting {
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
                    let cause = Some(reason);
                    let attempts = dead_letters.attempts + 1;
                    still = Some(DeadLetter {
                        cause,
                        attempts,
                        ..dead_letters.clone()
                    });
                    break;
                }
            }
            step.unpark
                .push((dead_letters.key.clone(), dead_letters.position));
            settled += 1;
        }
        step.park.extend(still.clone());
        *self.came.lock().unwrap_or_else(PoisonError::into_inner) = (settled, still);
        Ok(())
    }
}
