//! A transactional producer: records are queued, delivered and committed together.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use annals_core::{Failure, StoreError, with_causes};
use rdkafka::ClientContext;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Headers};
use rdkafka::producer::{
    BaseProducer, BaseRecord, NoCustomPartitioner, Producer as _, ProducerContext, PurgeConfig,
};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::{Context, Retry, TRANSACTION_TIMEOUT_MS};
use crate::error::{failed, invalid, is_refusal, unavailable};

/// How long a fence may take: the broker first ends what the earlier owner left open.
const FENCE: Duration = Duration::from_secs(30);

/// How long each step of a transaction may take. After that the broker has ended it by itself.
///
/// Without a timeout of their own, commit and abort wait until a coordinator answers: librdkafka
/// does not limit them to what is left of the transaction's.
const LIMIT: Duration = Duration::from_millis(TRANSACTION_TIMEOUT_MS);

/// How much longer than its timeout a call may take until it is given up.
const OVERDUE: Duration = Duration::from_secs(2);

/// How long a poll of the deliveries waits. The commit would wait in slices of 100 ms for what is
/// left to deliver.
const DRAIN: Duration = Duration::from_micros(500);

/// What became of records that were sent.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    context: Context,
    failure: Mutex<Option<Undelivered>>,
    /// The highest offset that was delivered: of use to those who write to one partition.
    last_offset: AtomicI64,
    /// The first one since it was forgotten, of use to them too.
    first_offset: AtomicI64,
    ends: Mutex<Ends>,
}

/// A record that was not delivered.
#[derive(Debug)]
struct Undelivered {
    error: KafkaError,
    topic: String,
    /// What it is, and how large.
    what: String,
}

impl Undelivered {
    fn of(error: &KafkaError, message: &BorrowedMessage<'_>) -> Undelivered {
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        let mut ids = headers.filter(|header| header.key == "ce_id");
        let id = ids.find_map(|header| header.value);
        Undelivered {
            error: error.clone(),
            topic: message.topic().to_owned(),
            what: record_text(id, message.key(), message.payload_len()),
        }
    }

    /// Why no later try delivers it; nothing when one may.
    fn refused(&self) -> Option<String> {
        let (what, topic) = (&self.what, &self.topic);
        let code = self.error.rdkafka_error_code()?;
        match code {
            RDKafkaErrorCode::MessageSizeTooLarge => Some(format!(
                "{what} is larger than topic `{topic}` takes (`max.message.bytes`)"
            )),
            _ if is_refusal(code) => Some(format!("topic `{topic}` refuses {what}: {code}")),
            _ => None,
        }
    }
}

/// What an error text says of a record: its event, its key and how large its value is.
pub(crate) fn record_text(id: Option<&[u8]>, key: Option<&[u8]>, bytes: usize) -> String {
    let id = id.map(String::from_utf8_lossy);
    let id = id.map(|id| format!(" of event `{id}`")).unwrap_or_default();
    match key.map(String::from_utf8_lossy) {
        Some(key) => format!("the record{id} with the key `{key}` and {bytes} bytes"),
        None => format!("the record{id} without a key and {bytes} bytes"),
    }
}

/// The last offset that was delivered in each partition.
#[derive(Debug, Default)]
struct Ends {
    offsets: HashMap<String, BTreeMap<i32, i64>>,
    /// A topic in which an offset came again: it was recreated.
    recreated: Option<String>,
}

impl Ends {
    fn delivered(&mut self, topic: &str, partition: i32, offset: i64) {
        // What was written by an earlier try may come back without its offset.
        if offset < 0 {
            return;
        }
        let Some(partitions) = self.offsets.get_mut(topic) else {
            let first = BTreeMap::from([(partition, offset)]);
            self.offsets.insert(topic.to_owned(), first);
            return;
        };
        let last = partitions.insert(partition, offset);
        if last.is_some_and(|last| offset <= last) {
            self.recreated = Some(topic.to_owned());
        }
    }
}

impl Deliveries {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last offset that a record was delivered at in a partition.
    pub(crate) fn end_of(&self, topic: &str, partition: u32) -> Option<i64> {
        let ends = self.ends();
        let partitions = ends.offsets.get(topic)?;
        partitions.get(&partition.cast_signed()).copied()
    }

    /// A topic that was recreated after the producer was made: offsets in it came again.
    pub(crate) fn recreated(&self) -> Option<String> {
        self.ends().recreated.clone()
    }
}

#[cfg(feature = "store")]
impl Deliveries {
    /// The highest offset that a record was delivered at.
    pub(crate) fn last_offset(&self) -> i64 {
        self.last_offset.load(Ordering::Acquire)
    }

    /// The lowest offset since this was asked last; nothing when none was delivered.
    pub(crate) fn take_first_offset(&self) -> Option<i64> {
        match self.first_offset.swap(0, Ordering::AcqRel) {
            0 => None,
            after => Some(after - 1),
        }
    }
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Ok(message) = result {
            self.last_offset
                .fetch_max(message.offset(), Ordering::AcqRel);
            // Callbacks come one after another, in the order of a partition.
            let after = message.offset() + 1;
            let _ =
                self.first_offset
                    .compare_exchange(0, after, Ordering::AcqRel, Ordering::Acquire);
            let (topic, partition) = (message.topic(), message.partition());
            self.ends().delivered(topic, partition, message.offset());
        }
        if let Err((error, message)) = result {
            // Purged by this crate, to abort: the report may come when the next one has begun.
            let purged = [
                RDKafkaErrorCode::PurgeQueue,
                RDKafkaErrorCode::PurgeInflight,
            ];
            if error
                .rdkafka_error_code()
                .is_some_and(|code| purged.contains(&code))
            {
                return;
            }
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            // Of what fails together, the record that can never be sent is the reason.
            let is_final = |error: &KafkaError| error.rdkafka_error_code().is_some_and(is_refusal);
            let is_known = |known: &Undelivered| is_final(&known.error);
            if failure.is_none() || is_final(error) && !failure.as_ref().is_some_and(is_known) {
                *failure = Some(Undelivered::of(error, message));
            }
        }
    }
}

pub(crate) type Producer = BaseProducer<Deliveries, NoCustomPartitioner>;

/// Why a transaction did not come to its end.
pub(crate) enum Broken {
    /// The batch can never be taken as it is.
    Refused(String),
    /// Deliveries took longer than a transaction may.
    Slow,
    Client(KafkaError),
    /// Something else that it needs did not answer.
    Store(StoreError),
}

impl Broken {
    /// What is said of it, with what was being done.
    pub(crate) fn error(self, doing: impl fmt::Display) -> StoreError {
        match self {
            Broken::Refused(why) => invalid(format!("{doing}: {why}")),
            Broken::Slow => unavailable(format!(
                "{doing}: not everything was delivered in {} s",
                TRANSACTION_TIMEOUT_MS / 1_000
            )),
            Broken::Client(error) => failed(doing.to_string(), error),
            Broken::Store(error) => error,
        }
    }
}

impl From<StoreError> for Broken {
    /// What needs an operator is said as it is.
    fn from(error: StoreError) -> Broken {
        match error.failure() {
            Failure::Invalid => Broken::Refused(with_causes(&error).to_string()),
            _ => Broken::Store(error),
        }
    }
}

impl From<KafkaError> for Broken {
    fn from(error: KafkaError) -> Broken {
        Broken::Client(error)
    }
}

/// How records go to the brokers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Requests {
    /// As many in a request as the client likes.
    Shared,
    OfOneRecord,
}

impl Requests {
    /// After each record that was queued.
    pub(crate) fn queued(self, producer: &Producer) -> Result<(), Broken> {
        match self {
            Requests::Shared => Ok(()),
            Requests::OfOneRecord => drain(producer),
        }
    }
}

/// Does a transaction of so many records, and once more in requests of one record where it was
/// refused: brokers refuse a request as a whole, also where its records are too large for a topic
/// only together.
pub(crate) fn with_requests(
    producer: &Producer,
    records: usize,
    mut transact: impl FnMut(Requests) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let done = transact(Requests::Shared);
    if records < 2 || !matches!(done, Err(Broken::Refused(_))) {
        return done;
    }
    abort(producer)?;
    match transact(Requests::OfOneRecord) {
        // The sequence numbers of what was refused are missing to the brokers. The client learns
        // that from their answer to the next record, and takes a new epoch when it aborts.
        Err(Broken::Client(_)) => {
            abort(producer)?;
            transact(Requests::OfOneRecord)
        }
        done => done,
    }
}

/// Fences the earlier owner of the transactional id.
pub(crate) fn fence(producer: &Producer) -> KafkaResult<()> {
    Retry::within(FENCE).block(|within| producer.init_transactions(within))
}

/// Puts how far a group has come into the transaction. The group's generation is asked for each
/// time: who lost a partition is refused.
///
/// The client waits for ever for a coordinator of the group that went away, whatever its timeout
/// (confluentinc/librdkafka issues 5456 and 5511). So a thread of its own asks: when that does not
/// end, it keeps the producer, and the caller makes another one.
pub(crate) fn send_offsets<C: ConsumerContext>(
    producer: &Arc<Producer>,
    consumer: &BaseConsumer<C>,
    offsets: TopicPartitionList,
) -> Result<(), Broken> {
    let lost = |why: &str| Broken::Store(unavailable(format!("offsets were not committed: {why}")));
    let Some(group) = consumer.group_metadata() else {
        return Err(lost("the client is no member of a group"));
    };
    // A member that the group has removed has no id, and after some errors no generation either:
    // the broker would take its offsets as those of a program that is in no group.
    if consumer.assignment_lost() {
        return Err(lost("the group has removed this member"));
    }
    let (told, answer) = mpsc::channel();
    let asked = Arc::clone(producer);
    std::thread::Builder::new()
        .name("kafka-offsets".to_owned())
        .spawn(move || {
            let answer = asked.send_offsets_to_transaction(&offsets, &group, LIMIT);
            // When it took too long, no one waits for it any more.
            let _ = told.send(answer);
        })
        .map_err(|error| unavailable("no thread for the offsets of a group").because(error))?;
    match answer.recv_timeout(LIMIT + OVERDUE) {
        Ok(answer) => answer.map_err(Broken::Client),
        Err(_) => Err(Broken::Slow),
    }
}

/// Puts a record into the queue, and waits while that is full.
pub(crate) fn queue(
    producer: &Producer,
    mut record: BaseRecord<'_, [u8], [u8]>,
) -> Result<(), Broken> {
    let began = Instant::now();
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), full)) => {
                if began.elapsed() > LIMIT {
                    return Err(Broken::Slow);
                }
                record = full;
                producer.poll(DRAIN);
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// Waits until everything was delivered.
pub(crate) fn drain(producer: &Producer) -> Result<(), Broken> {
    let began = Instant::now();
    while producer.in_flight_count() > 0 {
        if began.elapsed() > LIMIT {
            return Err(Broken::Slow);
        }
        producer.poll(DRAIN);
    }
    let deliveries = producer.context();
    let failure = deliveries
        .failure
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    failure.map_or(Ok(()), |failure| match failure.refused() {
        Some(why) => Err(Broken::Refused(why)),
        None => Err(failure.error.into()),
    })
}

/// Takes back what was sent. Unsent records would hold up the abort until its timeout. After a
/// failure the producer is used no more.
pub(crate) fn abort(producer: &Producer) -> Result<(), KafkaError> {
    producer.purge(PurgeConfig::default().queue().inflight());
    // What the purge reports is expected.
    let _ = drain(producer);
    abort_sent(producer)
}

/// Takes back what was drained.
pub(crate) fn abort_sent(producer: &Producer) -> Result<(), KafkaError> {
    producer.abort_transaction(LIMIT)
}

/// Commits what was drained.
pub(crate) fn commit(producer: &Producer) -> Result<(), Broken> {
    producer.commit_transaction(LIMIT).map_err(Broken::from)
}
