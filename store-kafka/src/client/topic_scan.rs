//! A scan over records of one topic, from known offsets to its end or until enough was seen.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use annals_core::StoreError;
use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{ANSWER, Context, Retry};
use crate::error::{failed, is_denied, unavailable};

/// Reads records of a topic with a consumer of its own, in a thread that may block.
pub(crate) struct TopicScan<'a> {
    consumer: BaseConsumer<Context>,
    topic: &'a str,
    /// What is said when it fails.
    failing: String,
}

impl<'a> TopicScan<'a> {
    /// With settings of a reader; `failing` says what it means when it fails.
    pub(crate) fn at(
        topic: &'a str,
        config: &ClientConfig,
        failing: String,
    ) -> Result<TopicScan<'a>, StoreError> {
        match BaseConsumer::from_config_and_context(config, Context::default()) {
            Ok(consumer) => Ok(TopicScan {
                consumer,
                topic,
                failing,
            }),
            Err(error) => Err(failed(failing, error)),
        }
    }

    /// The first offset of a partition, and that after its last one.
    pub(crate) fn bounds(&self, partition: i32) -> Result<(i64, i64), KafkaError> {
        Retry::within(ANSWER).block(|within| {
            self.consumer
                .fetch_watermarks(self.topic, partition, within)
        })
    }

    /// The error of an answer.
    pub(crate) fn failed(&self, error: KafkaError) -> StoreError {
        failed(self.failing.clone(), error)
    }

    /// Shows records from these places on, each partition up to its end or until it breaks off.
    pub(crate) fn records(
        &self,
        from: &[(i32, Offset)],
        mut each: impl FnMut(&BorrowedMessage<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in from {
            list.add_partition_offset(self.topic, *partition, *offset)
                .map_err(|error| self.failed(error))?;
        }
        self.consumer
            .assign(&list)
            .map_err(|error| self.failed(error))?;
        let mut reading: BTreeSet<i32> = from.iter().map(|(partition, _)| *partition).collect();
        let mut heard = Instant::now();
        while !reading.is_empty() {
            match self.consumer.poll(Duration::from_millis(50)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let partition = message.partition();
                    if reading.contains(&partition) && each(&message).is_break() {
                        reading.remove(&partition);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => _ = reading.remove(&partition),
                Some(Err(error)) if heard.elapsed() > ANSWER || is_denied(&error) => {
                    return Err(self.failed(error));
                }
                None if heard.elapsed() > ANSWER => {
                    return Err(unavailable(self.failing.clone()));
                }
                Some(Err(_)) | None => {}
            }
        }
        Ok(())
    }
}
