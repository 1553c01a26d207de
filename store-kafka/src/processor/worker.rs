//! The loop of a processor, on its own thread: poll, process, send, commit, and again.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use annals_core::{Backoff, Failure, Partition, StoreError};
use annals_runner::BatchLimit;
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::member::Member;
use super::out::{Failed, Kind, Out, dead_letter, size};
use super::passed::Passed;
use super::send::send;
use super::{Processor, bytes_max_in};
use crate::client::step::{Step, reached};
use crate::client::transaction::{
    self, Broken, Deliveries, Producer, Requests, drain, with_requests,
};
use crate::client::{Config, TRANSACTION_TIMEOUT_MS, headers_of};
use crate::error::{failed, invalid, is_denied, is_out_of_range, is_unknown_topic};
use crate::kafka::Kafka;
use crate::read::retention_in;
use crate::topic::{NewRecord, Record, ensure};

/// Records of one transaction at most, and how long one is collected.
const BATCH_RECORDS_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 4 << 20;
const COLLECT: Duration = Duration::from_millis(20);

/// The most that a client sends without `message.max.bytes`: results are held to it.
const MESSAGE_BYTES_MAX: usize = 1_000_000;

/// How large a record of a topic is at most, by the default of brokers.
const RECORD_BYTES_MAX: usize = 1_048_588;

/// The most that the client sends: a letter is as large as a record that was read, and a topic may
/// take larger ones than a client sends by default.
const SENT_BYTES_MAX: usize = 100 << 20;

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);

/// Waits before a record is tried again.
const RETRIES: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(6_400));

/// How long a batch waits for tries altogether: a record that would wait longer is first in the
/// next one.
const RETRIES_MAX: Duration = Duration::from_millis(TRANSACTION_TIMEOUT_MS / 3);

/// Waits between tries to begin again.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// A record that was read, in its own bytes.
struct Read {
    partition: i32,
    offset: i64,
    time_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<bytes::Bytes>)>,
}

/// How often a topic may be unknown one after another until it is gone: a broker that has just
/// started may not have heard of it.
const UNKNOWN_MAX: u32 = 5;

/// The topic that is read, and what matters of its settings.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) topic: String,
    /// The setting that removes records, for an error text.
    pub(super) retention: Option<String>,
    /// How large its records are at most.
    pub(super) record_bytes_max: usize,
    /// How large a dead letter is at most.
    letter_bytes_max: usize,
}

impl Source {
    /// What is not known is as brokers have it by default.
    pub(super) async fn of(kafka: &Kafka, topic: &str) -> Source {
        let settings = ensure::settings(kafka, topic).await.unwrap_or_default();
        Source {
            topic: topic.to_owned(),
            retention: retention_in(&settings),
            record_bytes_max: bytes_max_in(&settings).unwrap_or(RECORD_BYTES_MAX),
            letter_bytes_max: RECORD_BYTES_MAX,
        }
    }

    /// With dead letters of this size at most, where that is known.
    pub(super) fn with_letters_of(mut self, bytes: Option<usize>) -> Source {
        self.letter_bytes_max = bytes.unwrap_or(RECORD_BYTES_MAX).min(SENT_BYTES_MAX);
        self
    }
}

/// Why a batch was not committed.
pub(super) enum Ended {
    /// The clients are made again, and reading begins where the group was.
    Again(StoreError),
    /// The same, a few times.
    Unknown(StoreError),
    /// Needs an operator.
    Stopped(StoreError),
}

/// Works until it is stopped.
pub(super) fn run(
    processor: &Processor,
    source: &Source,
    config: &Config,
    stop: &AtomicBool,
) -> Result<(), StoreError> {
    let mut backoff = BACKOFF;
    let mut unknown = 0;
    let limit = BatchLimit::default();
    while !stop.load(Ordering::Acquire) {
        let mut progressed = false;
        let error = match work(processor, source, config, &limit, stop, &mut progressed) {
            Ok(()) => break,
            Err(Ended::Stopped(error)) => return Err(error),
            Err(Ended::Unknown(error)) if unknown == UNKNOWN_MAX && !progressed => {
                return Err(error);
            }
            Err(Ended::Unknown(error)) => {
                unknown += 1;
                error
            }
            Err(Ended::Again(error)) => error,
        };
        tracing::warn!(processor = processor.name, %error, "the processor begins again");
        if progressed {
            backoff.reset();
            unknown = 0;
        }
        let until = Instant::now() + backoff.next_wait();
        while Instant::now() < until && !stop.load(Ordering::Acquire) {
            std::thread::park_timeout(POLL);
        }
    }
    Ok(())
}

/// From the making of the clients to what ends them.
fn work(
    processor: &Processor,
    source: &Source,
    config: &Config,
    limit: &BatchLimit,
    stop: &AtomicBool,
    progressed: &mut bool,
) -> Result<(), Ended> {
    let name = &processor.name;
    let topic = source.topic.as_str();
    let ended = |error: KafkaError| {
        let is_unknown = is_unknown_topic(&error);
        let error = failed(format!("processor `{name}` does not work"), error);
        match error.failure() {
            _ if is_unknown => Ended::Unknown(error),
            Failure::Invalid => Ended::Stopped(error),
            _ => Ended::Again(error),
        }
    };
    let producer = if processor.transactional {
        // One id for each process: the group's generation fences a process that lost a partition.
        let id = match &processor.instance {
            Some(instance) => format!("annals.processor.{name}.{instance}"),
            None => format!("annals.processor.{name}.{}", annals_core::EventId::random()),
        };
        let producer = open_producer(config.transactional(&id)).map_err(ended)?;
        transaction::fence(&producer).map_err(ended)?;
        producer
    } else {
        open_producer(config.publisher()).map_err(ended)?
    };
    let producer = Arc::new(producer);
    let largest = config
        .publisher()
        .get("message.max.bytes")
        .and_then(|size| size.parse().ok());
    let largest = largest.unwrap_or(MESSAGE_BYTES_MAX);
    let mut member = config.member(name, processor.instance.as_deref());
    // What was removed is noticed, and not passed over.
    member.set("auto.offset.reset", "error");
    let context = Member::new(name, source, &processor.gaps);
    let consumer: BaseConsumer<Member> =
        BaseConsumer::from_config_and_context(&member, context).map_err(ended)?;
    consumer.subscribe(&[topic]).map_err(ended)?;
    let mut passed = Passed::default();
    // What was read and is to be processed first.
    let mut left = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let batch = collect(&consumer, limit, &mut passed.at_end, take(&mut left));
        if let Some(end) = consumer.context().take_end() {
            return Err(end);
        }
        let mut batch = batch.map_err(ended)?;
        if batch.is_empty() {
            passed.pass_markers(&consumer, topic);
            continue;
        }
        let (made, processed) =
            process(processor, source, &batch, largest, RETRIES_MAX).map_err(Ended::Stopped)?;
        left = batch.split_off(processed);
        let offsets = next_offsets(&batch);
        let committed = commit(processor, topic, &producer, &consumer, &made, &offsets);
        match &committed {
            Ok(()) => limit.committed(),
            // It may have been too large for the time that a transaction has.
            Err(_) => limit.failed(),
        }
        committed?;
        *progressed = true;
        passed.committed.extend(&offsets);
        if let Some(told) = &processor.on_commit {
            let offsets: Vec<(Partition, i64)> = offsets
                .iter()
                .map(|(partition, offset)| (Partition(*partition as u32), *offset))
                .collect();
            told(&offsets);
        }
    }
    Ok(())
}

/// A producer of results and letters.
pub(crate) fn open_producer(mut config: ClientConfig) -> KafkaResult<Producer> {
    config.set("message.max.bytes", SENT_BYTES_MAX.to_string());
    Producer::from_config_and_context(&config, Deliveries::default())
}

/// What is left and what is there, up to the bounds of a batch, without what is not this member's
/// any more when it returns.
///
/// A poll may serve a rebalance. The member that has a partition then begins where the group is:
/// what was read of it before would be committed twice, for the offsets of a batch are sent with
/// the generation of that moment, and the broker does not ask whose partitions they are.
fn collect(
    consumer: &BaseConsumer<Member>,
    limit: &BatchLimit,
    at_end: &mut BTreeSet<i32>,
    left: Vec<Read>,
) -> Result<Vec<Read>, KafkaError> {
    let mut batch = left;
    let mut bytes: usize = batch.iter().map(Read::bytes).sum();
    let mut polled_once = false;
    let mut began = Instant::now();
    let records_max = limit.of(BATCH_RECORDS_MAX);
    let bytes_max = limit.of(BATCH_BYTES_MAX);
    // Once at least: a member that does not poll is removed from its group.
    while !polled_once || batch.len() < records_max && bytes < bytes_max {
        polled_once = true;
        let wait = if batch.is_empty() {
            POLL
        } else {
            Duration::ZERO
        };
        let polled = consumer.poll(wait);
        // Before what came with it: that was read since.
        let revoked = consumer.context().take_revoked();
        if !revoked.is_empty() {
            batch.retain(|read: &Read| !revoked.contains(&read.partition));
            at_end.retain(|partition| !revoked.contains(partition));
        }
        match polled {
            Some(Ok(message)) => {
                if batch.is_empty() {
                    reached(Step::AfterRead);
                    began = Instant::now();
                }
                let read = Read {
                    partition: message.partition(),
                    offset: message.offset(),
                    time_ms: message.timestamp().to_millis().unwrap_or(0),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: headers_of(&message),
                };
                bytes += read.bytes();
                batch.push(read);
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => _ = at_end.insert(partition),
            // Looking at its offsets again tells what is missing.
            Some(Err(error)) if is_out_of_range(&error) => return Err(error),
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::UnknownTopicOrPartition) => {
                    return Err(error);
                }
                // The client mends it, or goes on complaining.
                _ => tracing::debug!(%error, "a read failed"),
            },
            None if batch.is_empty() => break,
            None if began.elapsed() > COLLECT => break,
            None => std::thread::yield_now(),
        }
    }
    Ok(batch)
}

fn next_offsets(batch: &[Read]) -> BTreeMap<i32, i64> {
    batch
        .iter()
        .map(|read| (read.partition, read.offset + 1))
        .collect()
}

/// What becomes of a batch, dead letters included, and how many of its records that is: one at
/// least, and not those from where tries would wait too long.
fn process(
    processor: &Processor,
    source: &Source,
    batch: &[Read],
    largest: usize,
    retries_max: Duration,
) -> Result<(Vec<NewRecord>, usize), StoreError> {
    let name = &processor.name;
    let topic = &source.topic;
    let mut made = Vec::new();
    let began = Instant::now();
    for (processed, read) in batch.iter().enumerate() {
        let record = read.record();
        let mut attempts = 0;
        let outcome = loop {
            attempts += 1;
            let outcome = try_once(processor, &record).and_then(|out| sendable(out, largest));
            let again = matches!(&outcome, Err(failed) if failed.kind == Kind::Refused);
            let wait = RETRIES.wait_after(attempts);
            if !again || attempts >= processor.attempts {
                break outcome;
            }
            if began.elapsed() + wait > retries_max {
                if processed > 0 {
                    // The tries of those before it are not taken from its own.
                    return Ok((made, processed));
                }
                break outcome;
            }
            std::thread::park_timeout(wait);
        };
        match outcome {
            Ok(out) => made.extend(out.records),
            Err(failed) => {
                let Some(dead) = &processor.dead_letters else {
                    return Err(invalid(format!(
                        "processor `{name}` cannot process the record at offset {} of partition \
                         {} of topic `{topic}` ({}: {}); nothing of its batch was written. Name a \
                         topic with `dead_letters`, or mend the function",
                        read.offset,
                        read.partition,
                        failed.kind.name(),
                        failed.cause
                    )));
                };
                let letter = dead_letter(
                    (dead, source.letter_bytes_max),
                    topic,
                    name,
                    &record,
                    &failed,
                    attempts,
                );
                made.push(letter);
            }
        }
    }
    Ok((made, batch.len()))
}

fn try_once(processor: &Processor, record: &Record<'_>) -> Result<Out, Failed> {
    let mut out = Out::default();
    let each = processor
        .each
        .as_ref()
        .expect("`run` has checked that there is a function");
    match catch_unwind(AssertUnwindSafe(|| each(record, &mut out))) {
        Ok(result) => result.map(|()| out),
        Err(panic) => {
            let text = annals_core::panic_text(&*panic).to_owned();
            Err(Failed::of(Kind::Panicked, text))
        }
    }
}

/// Refuses what the client would refuse to send: it is the record's failure, not the batch's.
fn sendable(out: Out, largest: usize) -> Result<Out, Failed> {
    match out.records.iter().find(|record| size(record) > largest) {
        Some(record) => Err(Failed::of(
            Kind::TooLarge,
            format!(
                "a record of {} bytes for topic `{}`, at most {largest} are sent",
                size(record),
                record.topic
            ),
        )),
        None => Ok(out),
    }
}

impl Read {
    fn record(&self) -> Record<'_> {
        Record {
            partition: self.partition as u32,
            offset: self.offset,
            time_ms: self.time_ms,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
        }
    }

    /// What counts towards the bound of a batch: all that it keeps in memory.
    fn bytes(&self) -> usize {
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| {
            let value = value.as_ref().map_or(0, bytes::Bytes::len);
            size_of::<(String, Option<bytes::Bytes>)>() + name.len() + value
        });
        let bytes = |of: &Option<Vec<u8>>| of.as_ref().map_or(0, Vec::len);
        size_of::<Read>() + bytes(&self.key) + bytes(&self.value) + headers.sum::<usize>()
    }
}

/// Writes what was made, and the offsets with it.
fn commit(
    processor: &Processor,
    topic: &str,
    producer: &Arc<Producer>,
    consumer: &BaseConsumer<Member>,
    made: &[NewRecord],
    offsets: &BTreeMap<i32, i64>,
) -> Result<(), Ended> {
    let name = &processor.name;
    let mut list = TopicPartitionList::new();
    let added = offsets.iter().try_for_each(|(partition, offset)| {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
    });
    let transact = |requests: Requests| -> Result<(), Broken> {
        added.clone()?;
        if processor.transactional {
            producer.begin_transaction()?;
        }
        for record in made {
            send(producer, record)?;
            requests.queued(producer)?;
        }
        drain(producer)?;
        if !processor.transactional {
            consumer.commit(&list, CommitMode::Sync)?;
            return Ok(());
        }
        transaction::send_offsets(producer, consumer, list.clone())?;
        transaction::commit(producer)
    };
    let doing = format!("processor `{name}` did not finish a batch");
    let transacted = match processor.transactional {
        true => with_requests(producer, made.len(), transact),
        false => transact(Requests::Shared),
    };
    let broken = match transacted {
        Ok(()) => return Ok(()),
        Err(broken) => broken,
    };
    if processor.transactional {
        // Clients are made again: what was read since the last commit is read again.
        let _ = transaction::abort(producer);
    }
    Err(match broken {
        Broken::Refused(why) => Ended::Stopped(invalid(format!("processor `{name}`: {why}"))),
        Broken::Slow => Ended::Again(StoreError::new(Failure::Unavailable, doing)),
        Broken::Client(error) if is_denied(&error) => Ended::Stopped(failed(doing, error)),
        Broken::Client(error) => Ended::Again(failed(doing, error)),
        Broken::Store(error) => Ended::Again(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::TopicSpec;

    #[test]
    fn keys_and_headers_count_towards_a_batch() {
        let read = |key: usize, value: usize, header: usize| {
            let read = Read {
                partition: 0,
                offset: 7,
                time_ms: 5,
                key: Some(vec![b'k'; key]),
                value: Some(vec![b'v'; value]),
                headers: vec![("trace".to_owned(), Some(vec![b'h'; header].into()))],
            };
            read.bytes()
        };
        let empty = read(0, 0, 0);
        assert!(empty > "trace".len());
        for (key, value, header) in [(1_000, 0, 0), (0, 1_000, 0), (0, 0, 1_000)] {
            assert_eq!(read(key, value, header), empty + 1_000);
        }
    }

    #[test]
    fn tries_of_one_record_take_none_from_the_next() {
        let processor = Processor::named("p")
            .dead_letters(TopicSpec::named("dead"))
            .each_bytes(|_, _| Err::<(), &str>("no"));
        let source = Source {
            topic: "in".to_owned(),
            retention: None,
            record_bytes_max: RECORD_BYTES_MAX,
            letter_bytes_max: RECORD_BYTES_MAX,
        };
        let read = |offset| Read {
            partition: 0,
            offset,
            time_ms: 5,
            key: None,
            value: Some(b"7".to_vec()),
            headers: Vec::new(),
        };
        let batch = [read(7), read(8), read(9)];
        let processed = |batch: &[Read]| {
            let largest = MESSAGE_BYTES_MAX;
            let (made, processed) =
                process(&processor, &source, batch, largest, Duration::ZERO).unwrap();
            (made.len(), processed)
        };
        assert_eq!(
            processed(&batch),
            (1, 1),
            "the others come in the next batch"
        );
        assert_eq!(processed(&batch[1..]), (1, 1));
        assert_eq!(processed(&batch[2..]), (1, 1));
    }
}
