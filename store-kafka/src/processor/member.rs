//! A member of the group of a processor: where it begins in each partition that it is given.
//!
//! The client alone would begin at the earliest record when that of the group was removed, and say
//! nothing. So offsets are looked at before anything is fetched.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use annals_core::Partition;
use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::worker::{Ended, Source};
use crate::client::{Context, Retry, committed};
use crate::error::{failed, invalid};
use crate::kafka::ANSWER;
use crate::read::{Gaps, position_of};

/// What the consumer of a processor calls back.
pub(super) struct Member {
    context: Context,
    processor: String,
    source: Source,
    gaps: Gaps,
    ended: Mutex<Option<Ended>>,
    /// Partitions that were revoked since they were taken.
    revoked: Mutex<BTreeSet<i32>>,
}

impl Member {
    pub(super) fn new(processor: &str, source: &Source, gaps: &Gaps) -> Member {
        Member {
            context: Context::default(),
            processor: processor.to_owned(),
            source: source.clone(),
            gaps: gaps.clone(),
            ended: Mutex::default(),
            revoked: Mutex::default(),
        }
    }

    /// The partitions that were revoked since this was asked last: what was read of them is
    /// another member's, also when they are assigned to this one again.
    pub(super) fn take_revoked(&self) -> BTreeSet<i32> {
        let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *revoked)
    }

    /// Why it cannot begin in what it was given.
    pub(super) fn take_end(&self) -> Option<Ended> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.take()
    }

    /// Where it begins in each of these partitions.
    fn starts(
        &self,
        consumer: &BaseConsumer<Member>,
        list: &TopicPartitionList,
    ) -> Result<TopicPartitionList, Ended> {
        let doing = || {
            let processor = &self.processor;
            format!("processor `{processor}` did not find out where it begins")
        };
        let again = |error| Ended::Again(failed(doing(), error));
        let committed = committed(consumer, list).map_err(again)?;
        let mut starts = TopicPartitionList::new();
        for of in committed.elements() {
            let start = match of.offset() {
                Offset::Offset(offset) if offset >= 0 => {
                    let bounds = Retry::within(ANSWER).block(|within| {
                        consumer.fetch_watermarks(of.topic(), of.partition(), within)
                    });
                    let bounds = bounds.map_err(again)?;
                    Offset::Offset(self.start(of.partition(), offset, bounds)?)
                }
                // Nothing of it was processed.
                _ => Offset::Beginning,
            };
            starts
                .add_partition_offset(of.topic(), of.partition(), start)
                .map_err(again)?;
        }
        Ok(starts)
    }

    /// Where it begins in a partition that holds records from `low` to before `high`.
    fn start(&self, partition: i32, offset: i64, (low, high): (i64, i64)) -> Result<i64, Ended> {
        let name = &self.processor;
        let Source {
            topic, retention, ..
        } = &self.source;
        if offset > high {
            return Err(Ended::Unknown(invalid(format!(
                "processor `{name}` has come to offset {offset} of partition {partition} of topic \
                 `{topic}`, which ends at {high}: it was deleted and recreated, or has lost its \
                 end. Process what it holds now under another name of the processor, or move the \
                 offsets of group `{name}`"
            ))));
        }
        if offset >= low {
            return Ok(offset);
        }
        let of = Partition(partition.cast_unsigned());
        let last = low - 1;
        let Some(reason) = self.gaps.reason(of, position_of(last)) else {
            let retention = retention.as_ref();
            let retention = retention.map(|of| format!(" ({of})")).unwrap_or_default();
            return Err(Ended::Stopped(invalid(format!(
                "offsets {offset} to {last} of partition {partition} of topic `{topic}` were \
                 removed before processor `{name}` read them{retention}; \
                 `Processor::accept_gap(Partition({partition}), {last}, reason)` continues after \
                 them"
            ))));
        };
        tracing::warn!(
            processor = name,
            topic,
            partition,
            from = offset,
            up_to = last,
            reason,
            "records that were removed before they were read are passed over"
        );
        Ok(low)
    }

    fn assign(
        &self,
        consumer: &BaseConsumer<Member>,
        list: &TopicPartitionList,
    ) -> KafkaResult<()> {
        match self.starts(consumer, list) {
            Ok(starts) => consumer.incremental_assign(&starts),
            Err(end) => {
                let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
                *ended = Some(end);
                // The group waits for an answer; nothing of it is fetched.
                consumer.incremental_assign(list)?;
                consumer.pause(list)
            }
        }
    }
}

impl ClientContext for Member {
    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ConsumerContext for Member {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Member>,
        event: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let moved = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            _ => {
                let partitions = list.elements();
                let partitions = partitions.iter().map(|of| of.partition());
                let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
                revoked.extend(partitions);
                drop(revoked);
                consumer.incremental_unassign(list)
            }
        };
        if let Err(error) = moved {
            tracing::warn!(%error, "a rebalance was not followed");
        }
    }
}
