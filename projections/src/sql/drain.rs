//! The queue of a key: events that were set aside are handed over in their order, as far as it goes.

use std::sync::{Arc, Mutex, PoisonError};

use annals_core::{OwnTables, Parked, Partition, Position, StoreError, TableWork, ViewCommit};
use async_trait::async_trait;

use super::batch::{Part, ended, take};
use super::worker::TableWorker;
use super::{ConnectionOf, SqlProject, Tables};
use crate::left_out::LeftOut;
use crate::log::records_at;
use crate::worker::{Emptied, Held, WorkError, chain, queue};

impl<P: SqlProject> TableWorker<P> {
    /// Takes the slot, from whoever has it, and settles the queues of these keys. The one before is refused when it commits, and
    /// begins anew behind this.
    pub(super) async fn settle(&self, keys: &[String]) -> Result<Emptied, WorkError> {
        let left_out = LeftOut::of(self.site.views.verdicts(P::NAME).await?);
        let held = Held::take_over(&self.post()).await?;
        let mut all = Emptied::default();
        let mut settled = Ok(());
        for key in keys {
            settled = self.empty(&held, key, &left_out, &mut all).await;
            if settled.is_err() {
                break;
            }
        }
        held.release().await;
        settled.map(|()| all)
    }

    async fn empty(
        &self,
        held: &Held,
        key: &str,
        left_out: &LeftOut,
        all: &mut Emptied,
    ) -> Result<(), WorkError> {
        for partition in (0..self.site.db.store().partitions()).map(Partition) {
            loop {
                let waiting = queue(&self.site.views, self.generation.id, key, partition).await?;
                if waiting.is_empty() {
                    break;
                }
                let (settled, still) = self
                    .settle_some(held, key, partition, waiting, left_out)
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
        held: &Held,
        key: &str,
        partition: Partition,
        queue: Vec<Parked>,
        left_out: &LeftOut,
    ) -> Result<(u64, Option<Parked>), WorkError> {
        let at = self.checkpoint(partition).await?;
        let positions: Vec<Position> = queue.iter().map(|parked| parked.position).collect();
        let mut records = records_at(&**self.site.db.store(), partition, &positions)
            .await?
            .into_iter()
            .peekable();
        let mut waiting = Vec::with_capacity(queue.len());
        for parked in queue {
            let record = records.next_if(|record| record.position == parked.position);
            let part = match record {
                None => Err("the event is not in the log any more; skip it".into()),
                Some(record) if left_out.is_left(&record, key) => Ok(None),
                Some(record) => Part::of(record).map(Some).map_err(|error| chain(&error)),
            };
            waiting.push((parked, part));
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
    Parked,
    Result<Option<Part<<P as SqlProject>::Event>>, String>,
);

/// The queue of a key, handed over inside a transaction.
struct Drain<P: SqlProject> {
    project: Arc<P>,
    tables: Tables,
    waiting: Vec<Waiting<P>>,
    /// How many were settled, and the one on which the key waits now.
    came: Arc<Mutex<(u64, Option<Parked>)>>,
}

#[async_trait]
impl<P: SqlProject> TableWork<ConnectionOf<P>, ViewCommit> for Drain<P> {
    async fn run(
        &mut self,
        connection: &mut ConnectionOf<P>,
        step: &mut ViewCommit,
    ) -> Result<(), StoreError> {
        let mut settled = 0;
        let mut still = None;
        for (parked, part) in &self.waiting {
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
                    let attempts = parked.attempts + 1;
                    still = Some(Parked {
                        cause,
                        attempts,
                        ..parked.clone()
                    });
                    break;
                }
            }
            step.unpark.push((parked.key.clone(), parked.position));
            settled += 1;
        }
        step.park.extend(still.clone());
        *self.came.lock().unwrap_or_else(PoisonError::into_inner) = (settled, still);
        Ok(())
    }
}
