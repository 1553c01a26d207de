//! Reads of a few records at a known place, beside those who follow: events at a checkpoint, parked
//! events that are tried again, pages backwards.

use std::time::{Duration, Instant};

use annals_core::{Partition, Position, RecordedEvent, StoreError};
use rdkafka::Message as _;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::mapping::{Mapper, offset_after, position_of};
use super::page::Collecting;
use crate::client::{Config, Context, EarlyEnd, Retry, position};
use crate::error::{failed, is_out_of_range, unavailable};
use crate::kafka::ANSWER;

/// One consumer that seeks. It lives on its own thread.
pub(crate) struct SideReader {
    consumer: BaseConsumer<Context>,
    context: Context,
    topic: String,
    mapper: Mapper,
}

impl SideReader {
    pub(crate) fn open(
        config: &Config,
        topic: &str,
        mapper: Mapper,
    ) -> Result<SideReader, StoreError> {
        let context = Context::default();
        let mut settings = config.reader();
        // It reads little and elsewhere each time.
        settings.set("queued.min.messages", "100");
        let consumer = BaseConsumer::from_config_and_context(&settings, context.clone())
            .map_err(|error| failed(format!("topic `{topic}` cannot be read"), error))?;
        Ok(SideReader {
            consumer,
            context,
            topic: topic.to_owned(),
            mapper,
        })
    }

    /// The events after one position, up to and with another, where the partition does not end
    /// before. Less than all of them when there are more than fit into a page, or when they were
    /// removed just now; the position up to which it looked comes with them.
    pub(crate) fn read(
        &mut self,
        partition: Partition,
        after: Position,
        up_to: Position,
    ) -> Result<(Vec<RecordedEvent>, Position), StoreError> {
        let doing = || {
            format!(
                "partition {partition} of topic `{}` cannot be read",
                self.topic
            )
        };
        let no_answer = || {
            unavailable(format!(
                "{}: no answer for {} s{}",
                doing(),
                ANSWER.as_secs(),
                self.context.last_error()
            ))
        };
        let begin_at = |offset: i64| {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&self.topic, partition.0 as i32, Offset::Offset(offset))
                .and_then(|()| self.consumer.assign(&list))
        };
        let mut from = offset_after(after);
        begin_at(from).map_err(|error| failed(doing(), error))?;
        let began = Instant::now();
        let mut early = EarlyEnd::default();
        let mut collecting = Collecting::default();
        let mut scanned = after;
        while scanned < up_to && !collecting.is_full() {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let position = position_of(message.offset());
                    // What comes next tells that the rest of the range is empty.
                    scanned = position.min(up_to);
                    if position <= up_to {
                        collecting.push(&message);
                    }
                }
                // A leader that lags ends before `up_to`, and aborted records may lie there.
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    let index = partition.0 as i32;
                    let told = position(&self.consumer, &self.topic, index);
                    let end = || {
                        let bounds = Retry::within(ANSWER).block(|within| {
                            self.consumer.fetch_watermarks(&self.topic, index, within)
                        });
                        bounds.map(|(_, end)| end)
                    };
                    let is_read = early.has_read(told, &mut from, offset_after(up_to), end);
                    if is_read.map_err(|error| failed(doing(), error))? {
                        scanned = up_to;
                    } else if began.elapsed() > ANSWER {
                        return Err(no_answer());
                    } else {
                        scanned = scanned.max(Position::new(from.max(0) as u64));
                        begin_at(from).map_err(|error| failed(doing(), error))?;
                    }
                }
                // All of it was removed.
                Some(Err(error)) if is_out_of_range(&error) => break,
                Some(Err(error)) if began.elapsed() > ANSWER => {
                    return Err(failed(doing(), error));
                }
                Some(Err(_)) => {}
                None if began.elapsed() > ANSWER => return Err(no_answer()),
                None => {}
            }
        }
        let _ = self.consumer.unassign();
        let page = collecting.page(after, scanned, &mut self.mapper);
        Ok((page.events, scanned))
    }
}
