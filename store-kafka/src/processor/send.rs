//! A record on its way into a transaction.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::BaseRecord;

use crate::client::transaction::{Broken, Producer, queue};
use crate::topic::NewRecord;

/// Puts a record into the queue.
pub(crate) fn send(producer: &Producer, record: &NewRecord) -> Result<(), Broken> {
    match queue(producer, record.fill(BaseRecord::to(&record.topic))) {
        Err(Broken::Client(KafkaError::MessageProduction(
            RDKafkaErrorCode::MessageSizeTooLarge,
        ))) => Err(Broken::Refused(format!(
            "a record of {} bytes for topic `{}` is larger than a client may send \
             (`message.max.bytes`)",
            record.value.as_ref().map_or(0, |value| value.len()),
            record.topic
        ))),
        sent => sent,
    }
}
