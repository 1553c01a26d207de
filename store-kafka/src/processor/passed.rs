//! What a processor has read and committed, and what at the ends of partitions is no record.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::member::Member;

/// How far partitions were read.
#[derive(Default)]
pub(super) struct Passed {
    /// What the group has for each partition.
    pub(super) committed: BTreeMap<i32, i64>,
    /// Partitions that were read to their end.
    pub(super) at_end: BTreeSet<i32>,
}

impl Passed {
    /// Commits offsets past what is no record, at the ends of partitions: markers of transactions
    /// are removed like records, and are not missed.
    pub(super) fn pass_markers(&mut self, consumer: &BaseConsumer<Member>, topic: &str) {
        let at_end = std::mem::take(&mut self.at_end);
        let Ok(reached) = consumer.position() else {
            return;
        };
        for partition in at_end {
            let found = reached.find_partition(topic, partition);
            let Some(Offset::Offset(offset)) = found.map(|of| of.offset()) else {
                continue;
            };
            if self.committed.get(&partition) == Some(&offset) {
                continue;
            }
            let mut list = TopicPartitionList::new();
            let added = list.add_partition_offset(topic, partition, Offset::Offset(offset));
            // Before the next batch: later it could take back what that commits.
            match added.and_then(|()| consumer.commit(&list, CommitMode::Sync)) {
                Ok(()) => _ = self.committed.insert(partition, offset),
                Err(error) => tracing::debug!(%error, partition, "an offset was not committed"),
            }
        }
    }
}
