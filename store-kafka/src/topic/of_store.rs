//! The topics of event stores are not for others: one record more, and the store does not open.

use std::ops::ControlFlow;

use annals_core::StoreError;
use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::topic_partition_list::Offset;

use crate::client::{Config, TopicScan};
use crate::error::invalid;

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
    let failing = format!("the first records of topic `{topic}` cannot be read");
    let from: Vec<_> = (0..partitions.cast_signed())
        .map(|partition| (partition, Offset::Beginning))
        .collect();
    let mut found = None;
    TopicScan::at(topic, &config.reader(), failing)?.records(&from, |first| {
        if is_of_store(first) {
            found = Some(first.partition());
        }
        ControlFlow::Break(())
    })?;
    match found {
        None => Ok(()),
        Some(partition) => Err(invalid(format!(
            "topic `{topic}` is an event store: partition {partition} begins with a record of \
             one, and a record of another program there would make it unreadable. Nothing was \
             written; name another topic"
        ))),
    }
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
