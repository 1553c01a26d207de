//! A scan over records of one topic, from known offsets to its end or until enough was seen.

use std::collections::BTreeMap;
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

use super::{ANSWER, Context, EarlyEnd, Retry, position};
use crate::error::{failed, is_denied, unavailable};

/// Reads records of a topic with a consumer of its own, in a thread that may block.
pub(crate) struct TopicScan<'a> {
    consumer: BaseConsumer<Context>,
    topic: &'a str,
    /// What is said when it fails.
    failing: String,
}

/// A partition that is read.
struct Reading {
    from: Offset,
    early: EarlyEnd,
    /// Where it ended when an end was told first.
    end: Option<i64>,
}

impl Reading {
    fn from(from: Offset) -> Reading {
        Reading {
            from,
            early: EarlyEnd::default(),
            end: None,
        }
    }
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

    /// How many partitions it has; none when there is no such topic.
    pub(super) fn partitions(&self) -> Result<usize, KafkaError> {
        let metadata = Retry::within(ANSWER)
            .block(|within| self.consumer.fetch_metadata(Some(self.topic), within))?;
        let topic = metadata.topics().first();
        Ok(topic.map_or(0, |topic| topic.partitions().len()))
    }

    /// The error of an answer.
    pub(crate) fn failed(&self, error: KafkaError) -> StoreError {
        failed(self.failing.clone(), error)
    }

    /// Whether a partition was read to its end, when one was told. A leader that lags tells one
    /// before it: then it is read from there once more.
    fn is_read(&self, partition: i32, of: &mut Reading) -> Result<bool, KafkaError> {
        let end = || Ok::<_, KafkaError>(self.bounds(partition)?.1);
        let told = position(&self.consumer, self.topic, partition);
        let to = match of.end {
            Some(end) => end,
            None => *of.end.insert(end()?),
        };
        let from = match of.from {
            Offset::Offset(offset) => offset,
            _ => 0,
        };
        let mut reached = from;
        let is_read = of.early.has_read(told, &mut reached, to, end)?;
        if reached > from {
            of.from = Offset::Offset(reached);
        }
        if !is_read {
            self.consumer.seek(self.topic, partition, of.from, ANSWER)?;
        }
        Ok(is_read)
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
        let mut reading: BTreeMap<i32, Reading> = from
            .iter()
            .map(|(partition, from)| (*partition, Reading::from(*from)))
            .collect();
        let mut heard = Instant::now();
        while !reading.is_empty() {
            match self.consumer.poll(Duration::from_millis(50)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let partition = message.partition();
                    if reading.contains_key(&partition) && each(&message).is_break() {
                        reading.remove(&partition);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    let Some(of) = reading.get_mut(&partition) else {
                        continue;
                    };
                    let is_read = self.is_read(partition, of);
                    if is_read.map_err(|error| self.failed(error))? {
                        reading.remove(&partition);
                    } else if heard.elapsed() > ANSWER {
                        return Err(unavailable(self.failing.clone()));
                    }
                }
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
