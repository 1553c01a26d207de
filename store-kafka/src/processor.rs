//! Consume, transform, produce: offsets, results and dead letters in one transaction.

mod member;
mod out;
mod passed;
mod send;
mod worker;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annals_core::{Partition, StoreError};
use serde::de::DeserializeOwned;

pub use out::Out;

use crate::error::{invalid, unavailable};
use crate::kafka::Kafka;
use crate::read::{Gaps, position_of};
use crate::topic::{Record, TopicSpec, ensure, of_store};
pub(crate) use out::{ERROR, OMITTED, REPLAYED, TOPIC, said_of, size};
use out::{Failed, Kind};
pub(crate) use send::send;
pub(crate) use worker::open_producer;

/// Tries of a record until it becomes a dead letter.
const ATTEMPTS: u32 = 3;

/// The setting of a topic that says how large a record may be.
const MAX_BYTES: &str = "max.message.bytes";

/// What a letter has more than its record, at most.
const LETTER_BYTES: usize = 16 << 10;

type Each = dyn Fn(&Record<'_>, &mut Out) -> Result<(), Failed> + Send + Sync;
type OnCommit = dyn Fn(&[(Partition, i64)]) + Send + Sync;

/// Reads a topic in a consumer group and writes what a function makes of each record.
///
/// What it writes, the offsets of what it has read and the dead letters are in one transaction: for
/// readers of committed records each record has its effect exactly once, also after a crash and a
/// rebalance. It keeps no state; what needs some is a view or a pipeline.
///
/// ```no_run
/// use annals_kafka::{Kafka, Processor, TopicSpec};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Deserialize)]
/// struct Paid { user: String, cents: i64 }
/// #[derive(Serialize)]
/// struct Alert { cents: i64 }
///
/// # async fn example(kafka: Kafka) -> Result<(), annals_core::StoreError> {
/// Processor::named("screening")
///     .reads("transactions")
///     .writes(TopicSpec::named("fraud-alerts"))
///     .dead_letters(TopicSpec::named("transactions.dead"))
///     .each(|paid: Paid, out| {
///         if paid.cents > 100_000 {
///             out.send("fraud-alerts", &paid.user, &Alert { cents: paid.cents })?;
///         }
///         Ok::<_, annals_core::Invalid>(())
///     })
///     .run(&kafka, std::future::pending())
///     .await
/// # }
/// ```
#[must_use = "nothing is processed before it runs"]
pub struct Processor {
    pub(crate) name: String,
    pub(crate) reads: Option<String>,
    pub(crate) topics: Vec<TopicSpec>,
    pub(crate) dead_letters: Option<String>,
    pub(crate) each: Option<Arc<Each>>,
    pub(crate) attempts: u32,
    pub(crate) transactional: bool,
    pub(crate) instance: Option<String>,
    pub(crate) on_commit: Option<Arc<OnCommit>>,
    pub(crate) gaps: Gaps,
}

impl fmt::Debug for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processor")
            .field("name", &self.name)
            .field("reads", &self.reads)
            .field("dead_letters", &self.dead_letters)
            .finish_non_exhaustive()
    }
}

impl Processor {
    /// The processor of this name: the name of its consumer group.
    pub fn named(name: impl Into<String>) -> Processor {
        Processor {
            name: name.into(),
            reads: None,
            topics: Vec::new(),
            dead_letters: None,
            each: None,
            attempts: ATTEMPTS,
            transactional: true,
            instance: None,
            on_commit: None,
            gaps: Gaps::default(),
        }
    }

    /// The topic that it reads.
    pub fn reads(mut self, topic: impl Into<String>) -> Processor {
        self.reads = Some(topic.into());
        self
    }

    /// A topic that it writes to, which is made when it is missing.
    pub fn writes(mut self, topic: TopicSpec) -> Processor {
        self.topics.push(topic);
        self
    }

    /// Where records go that cannot be processed. Without it such a record stops the processor.
    ///
    /// When it is missing it is made, for letters somewhat larger than the records of the topic
    /// that is read (`max.message.bytes`). A letter that is larger than its topic takes has no
    /// value, and the header `annals.error.omitted_bytes` says how much is omitted; a replay reads
    /// the record again.
    pub fn dead_letters(mut self, topic: TopicSpec) -> Processor {
        self.dead_letters = Some(topic.name().to_owned());
        self.topics.push(topic);
        self
    }

    /// What becomes of each record whose value is this type as JSON. A tombstone has no value and
    /// is passed over.
    pub fn each<T, E>(
        self,
        process: impl Fn(T, &mut Out) -> Result<(), E> + Send + Sync + 'static,
    ) -> Processor
    where
        T: DeserializeOwned,
        E: fmt::Display,
    {
        self.each_record(move |record, out| {
            let Some(value) = record.value() else {
                return Ok(());
            };
            let value = serde_json::from_slice(value)
                .map_err(|error| Failed::of(Kind::Undecodable, error.to_string()))?;
            process(value, out).map_err(|error| Failed::of(Kind::Refused, error.to_string()))
        })
    }

    /// What becomes of each record, in bytes.
    pub fn each_bytes<E: fmt::Display>(
        self,
        process: impl Fn(&Record<'_>, &mut Out) -> Result<(), E> + Send + Sync + 'static,
    ) -> Processor {
        self.each_record(move |record, out| {
            process(record, out).map_err(|error| Failed::of(Kind::Refused, error.to_string()))
        })
    }

    fn each_record(
        mut self,
        process: impl Fn(&Record<'_>, &mut Out) -> Result<(), Failed> + Send + Sync + 'static,
    ) -> Processor {
        self.each = Some(Arc::new(process));
        self
    }

    /// So many tries of a record that is refused, with a growing wait in between, before it becomes
    /// a dead letter: 3 unless said otherwise. The waits for one record take 3 s at most, so beyond
    /// 7 there are no more tries. What cannot be decoded is not tried again.
    pub fn attempts(mut self, attempts: u32) -> Processor {
        self.attempts = attempts.max(1);
        self
    }

    /// A name for this process that it has again after a restart: when it is back within the
    /// group's session timeout, no partition moves.
    pub fn instance(mut self, instance: impl Into<String>) -> Processor {
        self.instance = Some(instance.into());
        self
    }

    /// Continues after records that were removed before it had read them: those of `partition` up
    /// to and with the offset `up_to`. The reason is logged whenever the gap is passed.
    ///
    /// The error that stops the processor names both numbers.
    ///
    /// ```
    /// use annals_core::Partition;
    /// use annals_kafka::Processor;
    ///
    /// let screening = Processor::named("screening")
    ///     .reads("transactions")
    ///     .accept_gap(Partition(2), 87, "the outage of May");
    /// ```
    pub fn accept_gap(
        mut self,
        partition: Partition,
        up_to: i64,
        reason: impl Into<String>,
    ) -> Processor {
        self.gaps
            .accept(partition, position_of(up_to), reason.into());
        self
    }

    /// Without transactions: results are acknowledged, then the offsets are committed. A crash in
    /// between repeats results; a batch takes a few milliseconds less.
    pub fn at_least_once(mut self) -> Processor {
        self.transactional = false;
        self
    }

    /// Is called after each commit with the offsets that are read next.
    pub fn on_commit(
        mut self,
        told: impl Fn(&[(Partition, i64)]) + Send + Sync + 'static,
    ) -> Processor {
        self.on_commit = Some(Arc::new(told));
        self
    }

    /// Processes until `until` ends; the batch that is under way then is finished or taken back.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](annals_core::Failure) for what needs an operator: a topic that is not
    /// as wanted, a record that cannot be processed where no topic for dead letters was named,
    /// records that were removed before they were read.
    pub async fn run(
        self,
        kafka: &Kafka,
        until: impl Future<Output = ()> + Send,
    ) -> Result<(), StoreError> {
        let name = self.name.clone();
        let Some(reads) = self.reads.clone() else {
            return Err(invalid(format!(
                "processor `{name}` reads no topic: say `reads`"
            )));
        };
        if self.each.is_none() {
            return Err(invalid(format!(
                "processor `{name}` does nothing: say `each`"
            )));
        }
        let source = worker::Source::of(kafka, &reads).await;
        for topic in &self.topics {
            let topic = self.as_made(kafka, topic, &source).await?;
            kafka.ensure([topic]).await?;
        }
        let letters_max = match &self.dead_letters {
            Some(topic) => bytes_max_in(&ensure::settings(kafka, topic).await.unwrap_or_default()),
            None => None,
        };
        let source = source.with_letters_of(letters_max);
        let mut written = Vec::new();
        for topic in &self.topics {
            let partitions = kafka.partitions_of(topic.name()).await?;
            written.push((topic.name().to_owned(), partitions));
        }
        // It must be there: a group that reads a topic that is made later would wait in silence.
        kafka.partitions_of(&reads).await?;
        let stop = Arc::new(AtomicBool::new(false));
        // Also when this future is dropped.
        let _stops = StopsOnDrop(Arc::clone(&stop));
        let (ended, end) = tokio::sync::oneshot::channel();
        let config = kafka.config().clone();
        std::thread::Builder::new()
            .name(format!("kafka-processor-{name}"))
            .spawn(move || {
                let refused = written
                    .iter()
                    .try_for_each(|(topic, count)| of_store::refuse(&config, topic, *count));
                let result = refused.and_then(|()| worker::run(&self, &source, &config, &stop));
                // The caller may have been dropped.
                let _ = ended.send(result);
            })
            .map_err(|error| unavailable("no thread for a processor").because(error))?;
        let mut end = std::pin::pin!(end);
        let lost = |_| unavailable(format!("the thread of processor `{name}` ended"));
        tokio::select! {
            result = &mut end => result.map_err(lost)?,
            () = until => {
                _stops.0.store(true, Ordering::Release);
                end.await.map_err(lost)?
            }
        }
    }
}

impl Processor {
    /// A topic with what it is made with: one for dead letters takes larger records than the one
    /// that is read.
    async fn as_made(
        &self,
        kafka: &Kafka,
        topic: &TopicSpec,
        source: &worker::Source,
    ) -> Result<TopicSpec, StoreError> {
        let is_said = topic.settings.iter().any(|(key, _)| key == MAX_BYTES);
        let has_letters = self.dead_letters.as_deref() == Some(topic.name());
        if is_said || !has_letters || ensure::shape_of(kafka, topic.name()).await?.is_some() {
            return Ok(topic.clone());
        }
        let bytes = source.record_bytes_max + LETTER_BYTES;
        Ok(topic.clone().setting(MAX_BYTES, bytes.to_string()))
    }
}

/// How large a record of a topic with these settings may be, where they say so.
fn bytes_max_in(settings: &[(String, String)]) -> Option<usize> {
    let found = settings.iter().find(|(key, _)| key == MAX_BYTES);
    found?.1.parse().ok()
}

struct StopsOnDrop(Arc<AtomicBool>);

impl Drop for StopsOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
