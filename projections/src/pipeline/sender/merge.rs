//! The outboxes of all slots of a generation as one sequence, in the order of causes.

use std::collections::{BTreeMap, VecDeque};

use annals_core::{Generation, GenerationId, Partition, Position, ViewStore};
use annals_runner::{BatchLimit, WorkError};
use bytes::Bytes;

use crate::pipeline::outbox::{Entry, before_partition, partition_of, read_value};

/// Events that are delivered together.
const BATCH_EVENTS: usize = 1_000;
const BATCH_BYTES: usize = 4 << 20;
/// What is read of all outboxes together, and of one at least.
const READ_BYTES: usize = 4 << 20;
const READ_BYTES_LEAST: usize = 64 << 10;

/// The outboxes of a generation.
#[derive(Debug, Default)]
pub(super) struct Outboxes {
    generation: Option<GenerationId>,
    slots: u16,
    readers: BTreeMap<(Partition, u16), OutboxReader>,
}

/// One outbox, and up to where it was read.
#[derive(Debug)]
struct OutboxReader {
    after: Bytes,
    ahead: VecDeque<Entry>,
    at_end: bool,
}

/// Events that follow one another.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    /// Whether nothing follows them up to the position that was asked for.
    pub(super) is_last: bool,
}

impl Outboxes {
    pub(super) fn are_of(&self, generation: GenerationId) -> bool {
        self.generation == Some(generation)
    }

    /// Reads those of this generation from now on.
    pub(super) fn turn_to(&mut self, served: &Generation, partitions: usize) {
        if self.are_of(served.id) {
            return;
        }
        self.generation = Some(served.id);
        self.slots = served.spec.slots;
        self.readers.clear();
        for partition in (0..partitions as u32).map(Partition) {
            let reads = |slot: &u16| served.spec.reads(*slot, partition);
            for slot in (0..self.slots).filter(reads) {
                let reader = OutboxReader {
                    after: before_partition(partition),
                    ahead: VecDeque::new(),
                    at_end: false,
                };
                self.readers.insert((partition, slot), reader);
            }
        }
    }

    /// Slots have committed since an end was seen.
    pub(super) fn look_again(&mut self) {
        self.readers.values_mut().for_each(|of| of.at_end = false);
    }

    /// Who keeps events from being sent that are there already.
    pub(super) fn held_up(&self) -> Option<String> {
        let ((_, slot), first) = self
            .readers
            .iter()
            .filter_map(|(of, reader)| Some((of, reader.ahead.front()?)))
            .min_by(|(_, one), (_, other)| one.order.cmp(&other.order))?;
        let at = first.order.position;
        Some(format!(
            "slot {slot} has emitted events because of {at}, and another slot has not come so far"
        ))
    }

    /// The next events that were caused after a position and at or before another.
    pub(super) async fn next(
        &mut self,
        views: &dyn ViewStore,
        partition: Partition,
        (after, up_to): (Position, Position),
        limit: &BatchLimit,
    ) -> Result<Batch, WorkError> {
        let events_max = limit.of(BATCH_EVENTS);
        let bytes_max = limit.of(BATCH_BYTES);
        let mut entries = Vec::new();
        let mut bytes = 0;
        while entries.len() < events_max && bytes < bytes_max {
            self.fill(views, partition, after).await?;
            let of_partition = (partition, 0)..=(partition, u16::MAX);
            let fronts = self.readers.range_mut(of_partition);
            let fronts = fronts.filter(|(_, of)| {
                let front = of.ahead.front();
                front.is_some_and(|front| front.order.position <= up_to.get())
            });
            let first = fronts.min_by(|(_, one), (_, other)| {
                let order = |of: &OutboxReader| of.ahead.front().map(|front| front.order.clone());
                order(one).cmp(&order(other))
            });
            let Some(entry) = first.and_then(|(_, of)| of.ahead.pop_front()) else {
                return Ok(Batch {
                    entries,
                    is_last: true,
                });
            };
            bytes += entry.size_bytes();
            entries.push(entry);
        }
        Ok(Batch {
            entries,
            is_last: false,
        })
    }

    /// Reads on where nothing is ahead.
    async fn fill(
        &mut self,
        views: &dyn ViewStore,
        partition: Partition,
        after: Position,
    ) -> Result<(), WorkError> {
        let Some(generation) = self.generation else {
            return Ok(());
        };
        let each = READ_BYTES_LEAST.max(READ_BYTES / usize::from(self.slots.max(1)));
        let of_partition = (partition, 0)..=(partition, u16::MAX);
        for ((_, slot), reader) in self.readers.range_mut(of_partition) {
            while reader.ahead.is_empty() && !reader.at_end {
                let page = views.read_state(generation, *slot, Some(&reader.after), each);
                let page = page.await?;
                reader.at_end = page.is_empty();
                for (key, value) in page {
                    if partition_of(&key) != Some(partition) {
                        reader.at_end = true;
                        break;
                    }
                    let entries = read_value(&value).ok_or_else(|| unreadable(&key))?;
                    reader.after = key;
                    let new = entries.into_iter();
                    reader
                        .ahead
                        .extend(new.filter(|of| of.order.position > after.get()));
                }
            }
        }
        Ok(())
    }
}

fn unreadable(key: &[u8]) -> WorkError {
    WorkError::Stopped(format!(
        "the outbox of the pipeline cannot be read at `{}`; start the newest program that wrote it",
        key.escape_ascii()
    ))
}
