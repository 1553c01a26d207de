//! Dead letters of processors: looking at them, and sending them back to where they came from.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::StoreError;
use annals_core::chrono::DateTime;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::client::transaction::{self, Broken, Producer, Requests, drain, with_requests};
use crate::client::{
    ClientThread, Config, Context, EarlyEnd, Retry, TopicScan, committed, headers_of, position,
};
use crate::error::{failed, invalid, is_out_of_range, is_unknown_topic, unavailable};
use crate::kafka::{ANSWER, Kafka};
use crate::processor::{ERROR, OMITTED, REPLAYED, TOPIC, open_producer, said_of, send, size};
use crate::topic::{NewRecord, Record};

/// Letters of one transaction at most.
const BATCH: usize = 500;

/// Bytes of the records of one transaction, after which it is given no more letters.
const BATCH_BYTES: usize = 4 << 20;

/// A topic of dead letters.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    kafka: Kafka,
    topic: String,
}

impl DeadLetters {
    pub(crate) fn of(kafka: &Kafka, topic: &str) -> DeadLetters {
        DeadLetters {
            kafka: kafka.clone(),
            topic: topic.to_owned(),
        }
    }

    /// Sends every letter that was there when it began, and was not sent back yet, to the topic it
    /// came from, with its bytes and headers as they were and `annals.replayed` counted up. The
    /// letters and the offsets up to which they were read are in one transaction: each is sent back
    /// once. The record of a letter that was too large for its topic is read from its own topic,
    /// partition and offset.
    ///
    /// Letters that come while it runs are for the next replay, so that it ends also where a record
    /// that was sent back is at once a dead letter again.
    ///
    /// Letters that their topic removed before they were sent back are passed over, with a warning
    /// that names their offsets: give it a retention that is longer than letters may wait.
    ///
    /// Returns how many were sent back.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](annals_core::Failure) when there is no such topic, for a record that is
    /// no dead letter, and for a letter without its value whose record was removed, or where
    /// another one is in its place.
    pub async fn replay(&self) -> Result<u64, StoreError> {
        self.replay_where(|_| true).await
    }

    /// Sends back the letters for which the function says yes, of those that were there when it
    /// began. The others are passed over: a later replay does not see them again.
    ///
    /// # Errors
    ///
    /// As [`DeadLetters::replay`].
    pub async fn replay_where(
        &self,
        chosen: impl Fn(&Record<'_>) -> bool + Send + 'static,
    ) -> Result<u64, StoreError> {
        let partitions = self.kafka.partitions_of(&self.topic).await?;
        let config = self.kafka.config().clone();
        let topic = self.topic.clone();
        let thread = ClientThread::start(format!("kafka-replay-{topic}"), || ())?;
        thread
            .call(move |()| replay(&config, &topic, partitions, &chosen))
            .await?
    }
}

/// How far a partition of letters was read.
struct Part {
    /// What the group had of it.
    committed: i64,
    /// Where reading began, or began once more.
    from: i64,
    /// Where it ended before it was read.
    end: i64,
    early: EarlyEnd,
    is_read: bool,
}

fn replay(
    config: &Config,
    topic: &str,
    partitions: u32,
    chosen: &dyn Fn(&Record<'_>) -> bool,
) -> Result<u64, StoreError> {
    let name = format!("annals.replay.{topic}");
    let doing = || format!("the dead letters of topic `{topic}` were not sent back");
    let error = |error| failed(doing(), error);
    let producer = Arc::new(open_producer(config.transactional(&name)).map_err(error)?);
    // A replay by another process is fenced, and offsets are read after that.
    transaction::fence(&producer).map_err(error)?;
    let mut member = config.member(&name, None);
    // What was removed is looked for before, and not passed over.
    member.set("auto.offset.reset", "error");
    let consumer: BaseConsumer<Context> =
        BaseConsumer::from_config_and_context(&member, Context::default()).map_err(error)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, partitions.saturating_sub(1) as i32);
    let committed = committed(&consumer, &list).map_err(error)?;
    let bounds = |partition: i32| {
        Retry::within(ANSWER).block(|within| consumer.fetch_watermarks(topic, partition, within))
    };
    let mut starts = TopicPartitionList::new();
    let mut parts = BTreeMap::new();
    for element in committed.elements() {
        let partition = element.partition();
        let next = match element.offset() {
            Offset::Offset(offset) if offset >= 0 => offset,
            _ => 0,
        };
        let (low, end) = bounds(partition).map_err(error)?;
        if next < low {
            tracing::warn!(
                topic,
                partition,
                from = next,
                up_to = low - 1,
                "dead letters that were removed before they were sent back are passed over"
            );
        }
        // After its end there was another topic of this name.
        let start = if next > end { low } else { next.max(low) };
        starts
            .add_partition_offset(topic, partition, Offset::Offset(start))
            .map_err(error)?;
        let part = Part {
            committed: next,
            from: start,
            end,
            early: EarlyEnd::default(),
            is_read: false,
        };
        parts.insert(partition, part);
    }
    consumer.assign(&starts).map_err(error)?;
    let mut open = parts.values().filter(|part| part.end > 0).count();
    let mut sent = 0;
    let mut batch = Vec::new();
    let mut bytes = 0;
    let mut offsets = BTreeMap::new();
    let mut heard = Instant::now();
    while open > 0 {
        let read_to_end = match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let headers = headers_of(&message);
                let record = Record {
                    partition: message.partition() as u32,
                    offset: message.offset(),
                    time_ms: message.timestamp().to_millis().unwrap_or(0),
                    key: message.key(),
                    value: message.payload(),
                    headers: &headers,
                };
                let end = parts.get(&message.partition()).map_or(0, |part| part.end);
                if message.offset() < end {
                    offsets.insert(message.partition(), message.offset() + 1);
                    if chosen(&record) {
                        let record = sent_back(config, topic, &record)?;
                        bytes += size(&record);
                        batch.push(record);
                    }
                }
                (message.offset() + 1 >= end).then_some(message.partition())
            }
            // A leader that lags tells an earlier one than was asked for.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                let Some(part) = parts.get_mut(&partition) else {
                    continue;
                };
                let told = position(&consumer, topic, partition);
                let end = || bounds(partition).map(|(_, end)| end);
                let is_read = part.early.has_read(told, &mut part.from, part.end, end);
                if is_read.map_err(error)? {
                    Some(partition)
                } else if heard.elapsed() > ANSWER {
                    return Err(unavailable(doing()));
                } else {
                    let again = Offset::Offset(part.from);
                    let seek = consumer.seek(topic, partition, again, ANSWER);
                    seek.map_err(error)?;
                    None
                }
            }
            Some(Err(problem)) if is_out_of_range(&problem) => return Err(error(problem)),
            Some(Err(problem)) if heard.elapsed() > ANSWER => return Err(error(problem)),
            None if heard.elapsed() > ANSWER => return Err(unavailable(doing())),
            Some(Err(_)) | None => None,
        };
        let part = read_to_end.and_then(|partition| Some((partition, parts.get_mut(&partition)?)));
        if let Some((partition, part)) = part.filter(|(_, part)| !part.is_read) {
            part.is_read = true;
            open -= usize::from(part.end > 0);
            // Past the markers of the letters' transactions: they are removed like letters, and are
            // not missed.
            if part.end != part.committed {
                offsets.insert(partition, part.end);
            }
        }
        let is_full = batch.len() >= BATCH || bytes >= BATCH_BYTES;
        if is_full || open == 0 && !offsets.is_empty() {
            let transacted = with_requests(&producer, batch.len(), |requests| {
                transact(&producer, &consumer, topic, &batch, &offsets, requests)
            });
            transacted.map_err(|broken| match broken {
                Broken::Refused(why) => invalid(format!("{}: {why}", doing())),
                Broken::Slow => unavailable(doing()),
                Broken::Client(problem) => error(problem),
                Broken::Store(problem) => problem,
            })?;
            sent += batch.len() as u64;
            batch.clear();
            bytes = 0;
            offsets.clear();
            heard = Instant::now();
        }
    }
    Ok(sent)
}

fn transact(
    producer: &Arc<Producer>,
    consumer: &BaseConsumer<Context>,
    topic: &str,
    batch: &[NewRecord],
    offsets: &BTreeMap<i32, i64>,
    requests: Requests,
) -> Result<(), Broken> {
    producer.begin_transaction()?;
    for record in batch {
        send(producer, record)?;
        requests.queued(producer)?;
    }
    drain(producer)?;
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    transaction::send_offsets(producer, consumer, list)?;
    transaction::commit(producer)
}

/// A letter as it was before it was one. A record that was omitted from it is read again.
fn sent_back(config: &Config, topic: &str, letter: &Record<'_>) -> Result<NewRecord, StoreError> {
    let (at, of) = (letter.offset(), letter.partition());
    let is_none = || {
        invalid(format!(
            "the record at offset {at} of partition {of} of topic `{topic}` does not say where it \
             came from: it is no dead letter"
        ))
    };
    let (before, said) = said_of(letter).ok_or_else(is_none)?;
    let text = |name: &str| std::str::from_utf8(said.header(&format!("{ERROR}{name}"))?).ok();
    let source = text(TOPIC).ok_or_else(is_none)?;
    let mut record = NewRecord::to(source);
    record.key = letter.key().map(bytes::Bytes::copy_from_slice);
    record.value = letter.value().map(bytes::Bytes::copy_from_slice);
    record.headers = not_replayed(before.headers.iter().cloned());
    if let Some(bytes) = text(OMITTED) {
        let offset = text("offset").and_then(|offset| offset.parse().ok());
        let partition = text("partition").and_then(|partition| partition.parse().ok());
        let found = match (partition, offset) {
            (Some(partition), Some(offset)) => {
                let origin = Origin {
                    partition,
                    offset,
                    time_ms: text("time").and_then(|time| time.parse().ok()),
                    key: letter.key(),
                };
                record_at(config, source, &origin)?
            }
            _ => None,
        };
        record = found.ok_or_else(|| {
            invalid(format!(
                "the dead letter at offset {at} of partition {of} of topic `{topic}` is without \
                 {bytes} bytes of its record, which is not at offset {} of partition {} of topic \
                 `{source}` any more: it cannot be sent back. Pass over it with `replay_where`",
                text("offset").unwrap_or("?"),
                text("partition").unwrap_or("?")
            ))
        })?;
    }
    let time = text("time").and_then(|time| time.parse().ok());
    record.time = time.and_then(DateTime::from_timestamp_millis);
    let times = letter.header(REPLAYED);
    let times = times.and_then(|times| std::str::from_utf8(times).ok());
    let times = times.and_then(|times| times.parse::<u64>().ok());
    Ok(record.header(REPLAYED, (times.unwrap_or(0) + 1).to_string()))
}

/// Headers without the count of how often a record was sent back.
fn not_replayed(
    headers: impl IntoIterator<Item = (String, Option<bytes::Bytes>)>,
) -> Vec<(Cow<'static, str>, Option<bytes::Bytes>)> {
    let headers = headers.into_iter();
    headers
        .filter(|(name, _)| name != REPLAYED)
        .map(|(name, value)| (Cow::Owned(name), value))
        .collect()
}

/// Where the record of a letter was, and what the letter knows of it: where the topic was
/// recreated, another record is at that place.
struct Origin<'a> {
    partition: i32,
    offset: i64,
    time_ms: Option<i64>,
    /// Nothing where the record had none, or where it is omitted too.
    key: Option<&'a [u8]>,
}

impl Origin<'_> {
    fn is_of(&self, message: &BorrowedMessage<'_>) -> bool {
        let time_ms = message.timestamp().to_millis().unwrap_or(0);
        message.offset() == self.offset
            && self.time_ms.is_none_or(|known| known == time_ms)
            && self.key.is_none_or(|known| message.key() == Some(known))
    }
}

/// The record of a letter; nothing when it is not there any more. Blocks.
fn record_at(
    config: &Config,
    topic: &str,
    origin: &Origin<'_>,
) -> Result<Option<NewRecord>, StoreError> {
    let (partition, offset) = (origin.partition, origin.offset);
    let failing = format!("the record of a dead letter in topic `{topic}` cannot be read");
    let scan = TopicScan::at(topic, &config.reader(), failing)?;
    let (low, high) = match scan.bounds(partition) {
        Ok(bounds) => bounds,
        Err(error) if is_unknown_topic(&error) => return Ok(None),
        Err(error) => return Err(scan.failed(error)),
    };
    let mut found = None;
    if (low..high).contains(&offset) {
        scan.records(&[(partition, Offset::Offset(offset))], |message| {
            if origin.is_of(message) {
                let mut record = NewRecord::to(topic);
                record.key = message.key().map(bytes::Bytes::copy_from_slice);
                record.value = message.payload().map(bytes::Bytes::copy_from_slice);
                record.headers = not_replayed(headers_of(message));
                found = Some(record);
            }
            ControlFlow::Break(())
        })?;
    }
    Ok(found)
}
