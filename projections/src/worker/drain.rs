//! The queue of a key: events that were set aside are folded in their order, as far as it goes.

use annals_core::{
    Checkpoint, DeadLetter, GenerationId, Lease, Partition, Position, ReadRows, RowsBy, Version,
    ViewCommit,
};
use bytes::Bytes;

use super::{HeldLease, Work, WorkError};
use crate::location::ViewLocation;
use crate::log::records_at;
use crate::rows::{DrainedKey, Waiting, drained};
use crate::skips::Skips;
use crate::view::{Poison, View};

/// Events of a queue that are settled in one transaction.
const CHUNK_EVENTS: usize = 1_000;

/// What came of a queue.
#[derive(Debug, Default)]
pub(crate) struct DrainResult {
    /// Events that were folded or left out.
    pub(crate) settled: u64,
    /// The event on which the key waits now.
    pub(crate) still: Option<DeadLetter>,
}

/// The first events of the queue of a key in a partition.
pub(crate) async fn queue(
    views: &ViewLocation,
    generation: GenerationId,
    key: &str,
    partition: Partition,
) -> Result<Vec<DeadLetter>, WorkError> {
    let behind = Some((key, partition, Position::START));
    let mut queue = views.dead_letters(generation, behind, CHUNK_EVENTS).await?;
    queue.retain(|dead_letters| dead_letters.key == key && dead_letters.partition == partition);
    Ok(queue)
}

impl<V: View> Work<V> {
    /// Takes the slot, from whoever has it, and settles the queues of these keys. The one before is
    /// refused when it commits, and begins anew behind this.
    pub(crate) async fn settle(&self, keys: &[String]) -> Result<DrainResult, WorkError> {
        let held = HeldLease::steal(&self.post()).await?;
        let settled = self.settle_under(&held, keys).await;
        held.release().await;
        settled
    }

    async fn settle_under(
        &self,
        held: &HeldLease,
        keys: &[String],
    ) -> Result<DrainResult, WorkError> {
        self.restore(held).await?;
        let skips = Skips::of(self.views.skip_decisions(V::NAME).await?);
        let mut all = DrainResult::default();
        for key in keys {
            let one = self.empty(held.lease(), key, &skips).await?;
            all.settled += one.settled;
            all.still = all.still.or(one.still);
        }
        Ok(all)
    }

    /// Settles the queue of a key as far as it goes, under the lease of its slot.
    pub(super) async fn empty(
        &self,
        lease: Lease,
        key: &str,
        skips: &Skips,
    ) -> Result<DrainResult, WorkError> {
        let mut emptied = DrainResult::default();
        for partition in (0..self.log.partitions()).map(Partition) {
            loop {
                let queue = queue(&self.views, self.generation.id, key, partition).await?;
                if queue.is_empty() {
                    break;
                }
                let whole = queue.len() < CHUNK_EVENTS;
                let settled = self
                    .settle_chunk(lease.clone(), key, partition, queue, skips)
                    .await?;
                emptied.settled += settled.settled;
                if settled.still.is_some() {
                    emptied.still = settled.still;
                    return Ok(emptied);
                }
                if whole {
                    break;
                }
            }
        }
        Ok(emptied)
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
        let (stored, stands) = self.row(key).await?;
        let DrainedKey {
            changes,
            unpark,
            still,
        } = drained::<V>(key, stored, stands, waiting)?;
        let mut commit = ViewCommit::new(self.generation.id, lease, at.position, at.clone());
        let emptied = DrainResult {
            settled: unpark.len() as u64,
            still,
        };
        commit.rows = changes.rows;
        commit.versions = changes.versions;
        commit.touched = changes.touched;
        commit.stands = changes.stands;
        commit.unpark = unpark;
        commit.park = emptied.still.iter().cloned().collect();
        let rows = commit.rows.clone();
        self.views.commit_view(commit).await?;
        self.tell(at.partition, at.position, Some(rows));
        Ok(emptied)
    }

    /// A row as it is, and where it stands when the view is inline.
    async fn row(&self, key: &str) -> Result<(Option<Bytes>, Option<Version>), WorkError> {
        if self.generation.spec.inline {
            let row = self.standing(&[key.to_owned()]).await?.pop();
            return Ok(row.map_or((None, Some(Version::NONE)), |row| (row.value, Some(row.at))));
        }
        let read = ReadRows::of(self.generation.id, RowsBy::Keys(vec![key.into()])).limit(1);
        Ok((
            self.views
                .read_rows(read)
                .await?
                .rows
                .into_iter()
                .next()
                .map(|row| row.value),
            None,
        ))
    }

    pub(super) async fn checkpoint(&self, partition: Partition) -> Result<Checkpoint, WorkError> {
        let checkpoints = self.views.checkpoints(self.generation.id).await?;
        let found = checkpoints
            .into_iter()
            .find(|of| of.slot == self.slot && of.partition == partition);
        Ok(found.unwrap_or_else(|| Checkpoint::start(self.slot, partition)))
    }

    /// What each event of a queue does to the row, or why it still makes no sense.
    async fn prepared(
        &self,
        key: &str,
        partition: Partition,
        queue: Vec<DeadLetter>,
        skips: &Skips,
    ) -> Result<Vec<Waiting<V>>, WorkError> {
        let mut waiting = Vec::with_capacity(queue.len());
        let positions: Vec<Position> = queue
            .iter()
            .map(|dead_letters| dead_letters.position)
            .collect();
        let mut records = records_at(&*self.log, partition, &positions)
            .await?
            .into_iter()
            .peekable();
        for dead_letters in queue {
            let steps = match records.next_if(|record| record.position == dead_letters.position) {
                None => Err(Poison::new(
                    "the event is not in the log any more; skip it, or rebuild the view",
                )),
                Some(record) => match self.prepare(skips, record) {
                    Ok(mut steps) => {
                        steps.retain(|step| step.keys.iter().any(|of| of == key));
                        Ok(steps)
                    }
                    Err(error) => Err(Poison::new(super::chain(&error))),
                },
            };
            waiting.push(Waiting {
                dead_letters,
                steps,
            });
        }
        Ok(waiting)
    }
}
