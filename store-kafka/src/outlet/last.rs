//! The last records of a topic: they say who published there when the marks do not.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Outgoing, StoreError};
use bytes::Bytes;
use rdkafka::Message as _;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::client::{Config, Context, Retry};
use crate::error::{failed, is_denied, unavailable};
use crate::kafka::ANSWER;

/// Offsets of each partition that are looked at; every second one may be a marker.
const OFFSETS: i64 = 20;

/// The last ones of each partition, as readers of committed records see them. Blocks.
pub(super) fn records(
    config: &Config,
    topic: &Arc<str>,
    partitions: u32,
) -> Result<Vec<Outgoing>, StoreError> {
    let doing = || format!("the last records of topic `{topic}` cannot be read");
    let error = |error| failed(doing(), error);
    let consumer: BaseConsumer<Context> =
        BaseConsumer::from_config_and_context(&config.reader(), Context::default())
            .map_err(error)?;
    let mut list = TopicPartitionList::new();
    let mut reading = BTreeSet::new();
    for partition in 0..partitions.cast_signed() {
        let (low, high) = Retry::within(ANSWER)
            .block(|within| consumer.fetch_watermarks(topic, partition, within))
            .map_err(error)?;
        if low < high {
            let from = Offset::Offset(low.max(high - OFFSETS));
            list.add_partition_offset(topic, partition, from)
                .map_err(error)?;
            reading.insert(partition);
        }
    }
    consumer.assign(&list).map_err(error)?;
    let mut found = Vec::new();
    let mut heard = Instant::now();
    while !reading.is_empty() {
        match consumer.poll(Duration::from_millis(50)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                found.push(outgoing(&message, topic));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => _ = reading.remove(&partition),
            Some(Err(problem)) if heard.elapsed() > ANSWER || is_denied(&problem) => {
                return Err(error(problem));
            }
            None if heard.elapsed() > ANSWER => return Err(unavailable(doing())),
            Some(Err(_)) | None => {}
        }
    }
    Ok(found)
}

pub(super) fn outgoing(message: &BorrowedMessage<'_>, topic: &Arc<str>) -> Outgoing {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let header = headers.iter();
        header
            .map(|header| {
                let value = header.value.unwrap_or_default();
                let name = Cow::Owned(header.key.to_owned());
                (name, Bytes::copy_from_slice(value))
            })
            .collect()
    });
    let time = message.timestamp().to_millis();
    Outgoing {
        to: Arc::clone(topic),
        key: Bytes::copy_from_slice(message.key().unwrap_or_default()),
        payload: message.payload().map(Bytes::copy_from_slice),
        headers,
        occurred_at: time
            .and_then(DateTime::<Utc>::from_timestamp_millis)
            .unwrap_or_default(),
    }
}
