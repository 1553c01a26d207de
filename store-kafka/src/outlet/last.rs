//! The last records of a topic: they say who published there when the marks do not.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Outgoing, StoreError};
use bytes::Bytes;
use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::Offset;

use crate::client::{Config, TopicScan, headers_of};
use crate::cloud_events;

/// Offsets of each partition that are looked at; every second one may be a marker.
const OFFSETS: i64 = 20;

/// The last ones of each partition, as readers of committed records see them. Blocks.
pub(super) fn records(
    config: &Config,
    topic: &Arc<str>,
    partitions: u32,
) -> Result<Vec<Outgoing>, StoreError> {
    let failing = format!("the last records of topic `{topic}` cannot be read");
    let scan = TopicScan::at(topic, &config.reader(), failing)?;
    let mut from = Vec::new();
    for partition in 0..partitions.cast_signed() {
        let bounds = scan.bounds(partition);
        let (low, high) = bounds.map_err(|error| scan.failed(error))?;
        if low < high {
            from.push((partition, Offset::Offset(low.max(high - OFFSETS))));
        }
    }
    let mut found = Vec::new();
    scan.records(&from, |message| {
        found.push(outgoing(message, topic));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

pub(super) fn outgoing(message: &BorrowedMessage<'_>, topic: &Arc<str>) -> Outgoing {
    let headers = headers_of(message).into_iter();
    let headers: Vec<(Cow<'static, str>, Bytes)> = headers
        .map(|(name, value)| (Cow::Owned(name), value.unwrap_or_default()))
        .collect();
    let time = message.timestamp().to_millis();
    Outgoing {
        to: Arc::clone(topic),
        key: Bytes::copy_from_slice(message.key().unwrap_or_default()),
        payload: message.payload().map(Bytes::copy_from_slice),
        occurred_at: cloud_events::time_in(headers.iter().map(|(name, value)| (&**name, &**value)))
            .or_else(|| time.and_then(DateTime::<Utc>::from_timestamp_millis))
            .unwrap_or_default(),
        headers,
    }
}
