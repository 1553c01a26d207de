//! The topics of event stores are not for others: one record more, and the store does not open.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use annals_core::StoreError;
use rdkafka::Message as _;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::client::{Config, Context};
use crate::error::{failed, invalid, is_denied, unavailable};
use crate::kafka::ANSWER;

/// Headers of the records of a store.
pub(crate) const PLACE: &str = "a";
pub(crate) const TYPE: &str = "type";
pub(crate) const CODEC: &str = "codec";
pub(crate) const CONTROL: &str = "ctl";

/// Values of the header of what has no position.
pub(crate) const CHANGE: &[u8] = b"change";
pub(crate) const NOTE: &[u8] = b"owner";

/// Refuses a topic that a store keeps its events in: each partition begins with who owned it first,
/// or with an event, and keeps that for ever. Blocks.
pub(crate) fn refuse(config: &Config, topic: &str, partitions: u32) -> Result<(), StoreError> {
    let doing = || format!("the first records of topic `{topic}` cannot be read");
    let error = |error| failed(doing(), error);
    let consumer: BaseConsumer<Context> =
        BaseConsumer::from_config_and_context(&config.reader(), Context::default())
            .map_err(error)?;
    let mut list = TopicPartitionList::new();
    let mut reading = BTreeSet::new();
    for partition in 0..partitions.cast_signed() {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .map_err(error)?;
        reading.insert(partition);
    }
    consumer.assign(&list).map_err(error)?;
    let mut heard = Instant::now();
    while !reading.is_empty() {
        match consumer.poll(Duration::from_millis(50)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let partition = message.partition();
                if reading.remove(&partition) && is_of_store(&message) {
                    return Err(invalid(format!(
                        "topic `{topic}` is an event store: partition {partition} begins with a \
                         record of one, and a record of somebody else there would make it \
                         unreadable. Nothing was written; name another topic"
                    )));
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => _ = reading.remove(&partition),
            Some(Err(problem)) if heard.elapsed() > ANSWER || is_denied(&problem) => {
                return Err(error(problem));
            }
            None if heard.elapsed() > ANSWER => return Err(unavailable(doing())),
            Some(Err(_)) | None => {}
        }
    }
    Ok(())
}

fn is_of_store(message: &BorrowedMessage<'_>) -> bool {
    let Some(headers) = message.headers() else {
        return false;
    };
    let has = |name: &str| headers.iter().any(|header| header.key == name);
    let is_note = headers.iter().any(|header| {
        header.key == CONTROL
            && matches!(header.value, Some(value) if [CHANGE, NOTE].contains(&value))
    });
    is_note || [PLACE, TYPE, CODEC].into_iter().all(has)
}
