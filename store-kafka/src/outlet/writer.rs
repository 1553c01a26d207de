//! The fenced writer: every transaction holds a batch and its mark.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{Outgoing, Outlet, OutletError, OutletMark, StoreError, with_causes};
use async_trait::async_trait;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};

use super::ends::LastSent;
use super::progress::Progress;
use super::{last, mark, progress, topic};
use crate::client::step::{Step, reached};
use crate::client::transaction::{
    self, Broken, Deliveries, Producer, Requests, drain, queue, record_text, with_requests,
};
use crate::client::{ClientThread, Config, Retry, decided, headers};
use crate::cloud_events;
use crate::error::{failed, invalid, is_denied, is_unknown_topic, unavailable};
use crate::kafka::{ANSWER, Kafka};
use crate::murmur2::murmur2_partition;
use crate::topic::of_store;

/// An [`Outlet`] whose batches are Kafka transactions.
///
/// What was published is exactly what lies at or before its last mark, **for readers that read what
/// was committed** (`isolation.level=read_committed`); others see the records of transactions that
/// were aborted. Order per key is kept: there is one writer at a time, and a key has one partition.
///
/// A record's time is the time of its publishing, which is what a topic's retention counts. When it
/// happened is in the header `ce_time`, which a [`Topic`](crate::Topic) takes for `occurred_at`.
///
/// A transaction takes some 5 ms with one replica and 50 ms with three, whatever its size: batches
/// make it fast.
#[derive(Debug)]
pub struct KafkaOutlet {
    name: String,
    kafka: Kafka,
    thread: ClientThread<Writer>,
    says_times: bool,
}

impl KafkaOutlet {
    /// The outlet of this name. Of two with one name, the one that was opened last publishes.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn named(kafka: &Kafka, name: impl Into<String>) -> Result<KafkaOutlet, StoreError> {
        let name = name.into();
        let writer = Writer {
            name: name.clone(),
            config: kafka.config().clone(),
            producer: None,
            partitions: HashMap::new(),
            marks_in: 0,
            ends: HashMap::new(),
            known_topics: Vec::new(),
            begins_again: false,
        };
        Ok(KafkaOutlet {
            thread: ClientThread::start(format!("kafka-outlet-{name}"), move || writer)?,
            kafka: kafka.clone(),
            name,
            says_times: true,
        })
    }

    /// Says of no record when it happened: for those that only say what is so now.
    pub(crate) fn without_times(mut self) -> KafkaOutlet {
        self.says_times = false;
        self
    }

    /// Looks at these topics when it is opened, and not only before it writes to them.
    pub(crate) async fn writes_to(self, topics: Vec<String>) -> Result<KafkaOutlet, StoreError> {
        let told = self.thread.call(|writer| writer.known_topics = topics);
        told.await?;
        Ok(self)
    }

    /// Forgets its marks for a topic that it did not write to, or that was recreated since: for
    /// callers that then send all they have.
    pub(crate) async fn begins_again(self) -> Result<KafkaOutlet, StoreError> {
        let told = self.thread.call(|writer| writer.begins_again = true);
        told.await?;
        Ok(self)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[async_trait]
impl Outlet for KafkaOutlet {
    async fn open(&mut self) -> Result<Vec<OutletMark>, OutletError> {
        let marks_in = topic::partitions(&self.kafka).await?;
        let opened = self.thread.call(move |writer| writer.open(marks_in));
        opened.await?
    }

    async fn take(
        &mut self,
        mut batch: Vec<Outgoing>,
        mark: OutletMark,
    ) -> Result<(), OutletError> {
        if self.says_times {
            batch.iter_mut().for_each(cloud_events::say_time);
        }
        let taken = self.thread.call(move |writer| writer.take(&batch, &mark));
        match taken.await {
            Ok(taken) => taken,
            // The thread may have ended after the commit.
            Err(error) => Err(OutletError::Undecided(error)),
        }
    }

    async fn last_in(&mut self, to: &str) -> Result<Vec<Outgoing>, OutletError> {
        let topic: Arc<str> = to.into();
        let partitions = self.kafka.partitions_of(to).await?;
        let found = self.thread.call(move |writer| {
            let config = &writer.config;
            last::records(config, &topic, partitions)
        });
        Ok(found.await??)
    }
}

/// Lives on the outlet's thread.
struct Writer {
    name: String,
    config: Config,
    /// Nothing until it was opened, and after anything that left the outcome open.
    producer: Option<Producer>,
    partitions: HashMap<Arc<str>, u32>,
    marks_in: u32,
    /// What was sent last to each topic.
    ends: HashMap<Arc<str>, LastSent>,
    /// Topics that are looked at when it is opened.
    known_topics: Vec<String>,
    /// Whether it begins again with a topic that was recreated.
    begins_again: bool,
}

impl Writer {
    /// Fences first and reads marks afterwards, never the other way round: an earlier owner could
    /// still commit in between.
    fn open(&mut self, marks_in: u32) -> Result<Vec<OutletMark>, OutletError> {
        self.producer = None;
        self.partitions.clear();
        self.marks_in = marks_in;
        let name = &self.name;
        let doing = || format!("outlet `{name}` was not opened");
        let config = self.config.transactional(&id(name));
        let producer = Producer::from_config_and_context(&config, Deliveries::default())
            .map_err(|error| failed(doing(), error))?;
        reached(Step::BeforeFence);
        transaction::fence(&producer).map_err(|error| failed(doing(), error))?;
        let partition = murmur2_partition(name.as_bytes(), marks_in);
        if decided::is_held_back(&self.config, mark::TOPIC, partition)? {
            settle(&self.config, &producer, name, partition)
                .map_err(|broken| broken.error(doing()))?;
        }
        let Progress { mut marks, ends } = progress::read(&self.config, name, partition)?;
        self.ends.clear();
        for end in ends {
            let is_gone = self.known_topics.contains(&end.topic) && !end.is_there(&self.config)?;
            if is_gone && !self.begins_again {
                return Err(OutletError::Destination(end.lost_text()));
            }
            if !is_gone {
                self.ends.insert(end.topic.as_str().into(), end);
            }
        }
        let mut topics = self.known_topics.iter();
        if self.begins_again && topics.any(|topic| !self.ends.contains_key(&**topic)) {
            // Another topic, one that was recreated, or one of which nothing is known.
            marks.clear();
        }
        self.producer = Some(producer);
        Ok(marks)
    }

    fn take(&mut self, batch: &[Outgoing], mark: &OutletMark) -> Result<(), OutletError> {
        let name = self.name.clone();
        // Taken out: after any failure it is dropped, and opening again decides what happened.
        let Some(producer) = self.producer.take() else {
            return Err(invalid(format!("outlet `{name}` is not open")).into());
        };
        let doing = || format!("outlet `{name}` did not finish a transaction");
        // Before anything is begun. It looks at topics, and not at what is sent.
        match self.look_at(&producer, batch) {
            Ok(()) => {}
            Err(Broken::Refused(why)) => {
                self.producer = Some(producer);
                return Err(OutletError::Destination(why));
            }
            Err(broken) => return Err(OutletError::Store(broken.error(doing()))),
        }
        let transacted = with_requests(&producer, batch.len(), |requests| {
            self.transact(&producer, batch, mark, requests)
        });
        match transacted {
            Ok(()) => {
                self.producer = Some(producer);
                Ok(())
            }
            Err(Broken::Refused(why)) => {
                transaction::abort(&producer)
                    .map_err(|error| OutletError::Undecided(failed(doing(), error)))?;
                let is_recreated = producer.context().recreated().is_some();
                self.producer = Some(producer);
                Err(match is_recreated {
                    true => OutletError::Destination(why),
                    false => OutletError::Refused(why),
                })
            }
            Err(Broken::Client(error)) if is_denied(&error) => {
                transaction::abort(&producer)
                    .map_err(|error| OutletError::Undecided(failed(doing(), error)))?;
                Err(OutletError::Store(failed(doing(), error)))
            }
            Err(broken) => Err(OutletError::Undecided(broken.error(doing()))),
        }
    }

    fn transact(
        &mut self,
        producer: &Producer,
        batch: &[Outgoing],
        mark: &OutletMark,
        requests: Requests,
    ) -> Result<(), Broken> {
        reached(Step::BeforeBegin);
        producer.begin_transaction()?;
        let mut last: HashMap<&Arc<str>, (u32, &Outgoing)> = HashMap::new();
        for outgoing in batch {
            let partitions = self.partitions.get(&outgoing.to).copied();
            let partition = murmur2_partition(&outgoing.key, partitions.unwrap_or(1));
            send(producer, outgoing, partition)?;
            requests.queued(producer)?;
            last.insert(&outgoing.to, (partition, outgoing));
        }
        if last.keys().any(|topic| !self.ends.contains_key(*topic)) {
            drain(producer)?;
            self.note_ends(producer, &last);
        }
        let marks_in = murmur2_partition(self.name.as_bytes(), self.marks_in).cast_signed();
        for end in last.keys().filter_map(|topic| self.ends.get(*topic)) {
            let (key, written) = (LastSent::key(&self.name, &end.topic), end.written());
            let record = BaseRecord::to(mark::TOPIC)
                .key(key.as_bytes())
                .payload(written.as_bytes())
                .partition(marks_in);
            queue(producer, record)?;
        }
        let written = mark::write(mark);
        let key = mark::key(&self.name, mark.partition);
        let record = BaseRecord::to(mark::TOPIC)
            .key(key.as_bytes())
            .payload(written.as_bytes())
            .partition(marks_in)
            .headers(OwnedHeaders::new().insert(Header {
                key: mark::NOTE,
                value: Some(&mark.note[..]),
            }));
        queue(producer, record)?;
        reached(Step::AfterSend);
        drain(producer)?;
        if let Some(topic) = producer.context().recreated() {
            let end = self.ends.get(&*topic).map(LastSent::lost_text);
            return Err(match end {
                _ if self.begins_again => {
                    Broken::Store(unavailable(format!("topic `{topic}` was recreated")))
                }
                Some(why) => Broken::Refused(why),
                None => Broken::Refused(format!("topic `{topic}` was recreated")),
            });
        }
        reached(Step::BeforeCommit);
        transaction::commit(producer)?;
        reached(Step::AfterCommit);
        self.note_ends(producer, &last);
        Ok(())
    }

    /// Keeps what was sent last to each topic, for the next batch.
    fn note_ends(&mut self, producer: &Producer, last: &HashMap<&Arc<str>, (u32, &Outgoing)>) {
        for (topic, (partition, record)) in last {
            if let Some(offset) = producer.context().end_of(topic, *partition) {
                let end = LastSent::of(record, *partition, offset);
                self.ends.insert(Arc::clone(topic), end);
            }
        }
    }

    /// Looks at topics before they are written to for the first time.
    fn look_at(&mut self, producer: &Producer, batch: &[Outgoing]) -> Result<(), Broken> {
        for outgoing in batch {
            let topic = &outgoing.to;
            if self.partitions.contains_key(topic) {
                continue;
            }
            let counted = Retry::within(ANSWER).block(|within| count(producer, topic, within));
            let count = counted.map_err(|error| match is_unknown_topic(&error) {
                true => Broken::Refused(format!("there is no topic `{topic}`")),
                false => Broken::Client(error),
            })?;
            of_store::refuse(&self.config, topic, count)?;
            let end = self.ends.get(topic);
            if let Some(end) = end.filter(|_| !self.known_topics.iter().any(|of| **of == **topic))
                && !end.is_there(&self.config)?
            {
                return Err(Broken::Refused(end.lost_text()));
            }
            self.partitions.insert(Arc::clone(topic), count);
        }
        Ok(())
    }
}

/// The transactional id of an outlet.
fn id(name: &str) -> String {
    format!("annals.outlet.{name}")
}

/// Ends the last transaction of an outlet that was aborted, and of which its partitions were not
/// told: the next batch would commit its records too. Another outlet may just be at work in the
/// progress partition; then this changes nothing.
fn settle(config: &Config, producer: &Producer, name: &str, marks_in: u32) -> Result<(), Broken> {
    let decisions = match decided::decisions(config, &id(name)) {
        Ok(decisions) => decisions,
        // What cannot be read up to its end says so.
        Err(error) => {
            let why = with_causes(&error).to_string();
            tracing::warn!(name, why, "an open transaction is not looked into");
            return Ok(());
        }
    };
    let last = decisions.last();
    let Some(aborted) = last.filter(|last| !last.is_committed && last.has(mark::TOPIC, marks_in))
    else {
        return Ok(());
    };
    producer.begin_transaction()?;
    for (topic, partition) in &aborted.partitions {
        queue(
            producer,
            BaseRecord::to(topic).partition(*partition).key(&[]),
        )?;
    }
    drain(producer)?;
    Ok(transaction::abort_sent(producer)?)
}

/// How many partitions a topic has, by one look.
fn count(producer: &Producer, topic: &str, within: Duration) -> KafkaResult<u32> {
    let metadata = producer.client().fetch_metadata(Some(topic), within)?;
    let mut topics = metadata.topics().iter();
    let found = topics.find(|found| found.name() == topic);
    match found.map(|found| (found.partitions().len(), found.error())) {
        Some((partitions @ 1.., _)) => Ok(partitions as u32),
        Some((_, Some(code))) => Err(KafkaError::MetadataFetch(code.into())),
        _ => Err(KafkaError::MetadataFetch(
            RDKafkaErrorCode::UnknownTopicOrPartition,
        )),
    }
}

fn send(producer: &Producer, outgoing: &Outgoing, partition: u32) -> Result<(), Broken> {
    let named = outgoing.headers.iter();
    let headers = headers(named.map(|(name, value)| (&**name, Some(&value[..]))));
    let mut record = BaseRecord::to(&outgoing.to)
        .key(&outgoing.key[..])
        .partition(partition as i32)
        .headers(headers);
    if let Some(payload) = &outgoing.payload {
        record = record.payload(&payload[..]);
    }
    queue(producer, record).map_err(|broken| match broken {
        Broken::Client(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)) => {
            let mut headers = outgoing.headers.iter();
            let id = headers.find(|(name, _)| name == "ce_id");
            let id = id.map(|(_, id)| &id[..]);
            let bytes = outgoing.payload.as_ref().map_or(0, |payload| payload.len());
            Broken::Refused(format!(
                "{} for topic `{}` is larger than a client may send (`message.max.bytes`)",
                record_text(id, Some(&outgoing.key), bytes),
                outgoing.to
            ))
        }
        broken => broken,
    })
}
