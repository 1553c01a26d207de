//! A record on its way into a transaction.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use crate::client::transaction::{Broken, Producer, queue};
use crate::topic::NewRecord;

/// Puts a record into the queue.
pub(crate) fn send(producer: &Producer, record: &NewRecord) -> Result<(), Broken> {
    let mut base = BaseRecord::to(&record.topic);
    if let Some(key) = &record.key {
        base = base.key(&key[..]);
    }
    if let Some(value) = &record.value {
        base = base.payload(&value[..]);
    }
    if let Some(partition) = record.partition {
        base = base.partition(partition as i32);
    }
    if let Some(time) = record.time {
        base = base.timestamp(time.timestamp_millis());
    }
    if !record.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(record.headers.len());
        base = base.headers(
            record
                .headers
                .iter()
                .fold(headers, |headers, (name, value)| {
                    headers.insert(Header {
                        key: name,
                        value: value.as_deref(),
                    })
                }),
        );
    }
    match queue(producer, base) {
        Err(Broken::Client(KafkaError::MessageProduction(
            RDKafkaErrorCode::MessageSizeTooLarge,
        ))) => Err(Broken::Refused(format!(
            "a record for topic `{}` is larger than a client may send",
            record.topic
        ))),
        sent => sent,
    }
}
