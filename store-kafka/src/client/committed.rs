//! The offsets that a group has committed.

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::{ANSWER, Retry};

/// The offsets of the consumer's group; a partition without an answer is a failure of all. Blocks.
pub(crate) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    list: &TopicPartitionList,
) -> KafkaResult<TopicPartitionList> {
    Retry::within(ANSWER).block(|within| {
        let found = consumer.committed_offsets(list.clone(), within)?;
        found.elements().iter().try_for_each(|of| of.error())?;
        Ok(found)
    })
}
