//! What is asked about topics: on one thread, and again while an answer may pass.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use annals_core::{Partition, StoreError};
use rdkafka::admin::AdminClient;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{ANSWER, Kafka};
use crate::client::{Config, Context, Retry};
use crate::error::{code_of, failed, unavailable};

/// How long one try may hold the thread, which others wait for too.
const TRY: Duration = Duration::from_secs(3);

/// How often a client that has no answer yet is asked what it complains about.
const COMPLAINTS: Duration = Duration::from_millis(500);

/// What looks after topics, on its own thread.
pub(crate) struct Admin {
    pub(crate) client: AdminClient<Context>,
    pub(crate) runtime: tokio::runtime::Runtime,
    committed: BaseConsumer<Context>,
    uncommitted: BaseConsumer<Context>,
}

impl Admin {
    pub(super) fn open(config: &Config, context: &Context) -> Result<Admin, StoreError> {
        let made = |error| failed("the client was not made", error);
        let reader =
            |config| BaseConsumer::from_config_and_context(config, context.clone()).map_err(made);
        Ok(Admin {
            client: AdminClient::from_config_and_context(&config.admin(), context.clone())
                .map_err(made)?,
            committed: reader(&config.reader())?,
            uncommitted: reader(&config.uncommitted_reader())?,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .map_err(|error| unavailable("no runtime for the client").because(error))?,
        })
    }

    /// The id of the cluster; nothing when no broker answers. Then the context knows what the
    /// client complained about: it says so only when it is polled.
    pub(super) fn cluster_id(&self, within: Duration) -> Option<String> {
        let began = Instant::now();
        loop {
            let found = self.committed.client().fetch_cluster_id(COMPLAINTS);
            while let Some(Err(error)) = self.committed.poll(Duration::ZERO) {
                tracing::debug!(%error, "no broker answers yet");
            }
            if found.is_some() || began.elapsed() >= within {
                return found;
            }
        }
    }
}

/// Asks a client about partitions of a topic. It may know the topic from before it was given more
/// partitions, and would for minutes: then it learns of them first.
fn asked<R>(
    reader: &BaseConsumer<Context>,
    topic: &str,
    within: Duration,
    ask: impl Fn() -> KafkaResult<R>,
) -> KafkaResult<R> {
    let answer = ask();
    let is_unknown =
        |error: &KafkaError| code_of(error) == Some(RDKafkaErrorCode::UnknownPartition);
    if answer.as_ref().is_err_and(is_unknown) {
        reader.fetch_metadata(Some(topic), within)?;
        return ask();
    }
    answer
}

/// The offsets that bound a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The first offset that can be read.
    pub(crate) low: i64,
    /// The offset after the last one.
    pub(crate) high: i64,
}

impl Kafka {
    /// Asks until the answer counts: what the protocol calls retriable is asked again. The work is
    /// told how long it may take; between two tries the thread serves others.
    ///
    /// # Errors
    ///
    /// When the thread is gone. What the brokers said last is inside.
    pub(crate) async fn ask<R: Send + 'static>(
        &self,
        limit: Duration,
        work: impl Fn(&mut Admin, Duration) -> KafkaResult<R> + Send + Sync + 'static,
    ) -> Result<KafkaResult<R>, StoreError> {
        let work = Arc::new(work);
        let mut retry = Retry::within(limit);
        loop {
            let work = Arc::clone(&work);
            let within = retry.left().min(TRY);
            let asked = self.shared.admin.call(move |admin| work(admin, within));
            let error = match asked.await? {
                Ok(answer) => return Ok(Ok(answer)),
                Err(error) => error,
            };
            let Some(wait) = retry.wait_after(&error) else {
                return Ok(Err(error));
            };
            tracing::debug!(%error, ?wait, "a question is asked again");
            tokio::time::sleep(wait).await;
        }
    }

    /// Whether the topic was there when this connection last looked.
    pub(crate) fn has_seen(&self, topic: &str) -> bool {
        let seen = self.shared.seen.lock();
        seen.unwrap_or_else(PoisonError::into_inner).contains(topic)
    }

    pub(crate) fn note_seen(&self, topic: &str) {
        let seen = self.shared.seen.lock();
        let mut seen = seen.unwrap_or_else(PoisonError::into_inner);
        if !seen.contains(topic) {
            seen.insert(topic.to_owned());
        }
    }

    pub(crate) fn forget(&self, topic: &str) {
        let seen = self.shared.seen.lock();
        seen.unwrap_or_else(PoisonError::into_inner).remove(topic);
    }

    /// Where a partition begins and where what was committed ends.
    pub(crate) async fn bounds(
        &self,
        topic: &str,
        partition: Partition,
    ) -> Result<Bounds, StoreError> {
        self.ask_bounds(topic, partition, |admin| &admin.committed)
            .await
    }

    /// Where a partition begins and ends, open transactions included.
    pub(crate) async fn uncommitted_bounds(
        &self,
        topic: &str,
        partition: Partition,
    ) -> Result<Bounds, StoreError> {
        self.ask_bounds(topic, partition, |admin| &admin.uncommitted)
            .await
    }

    async fn ask_bounds(
        &self,
        topic: &str,
        partition: Partition,
        by: fn(&Admin) -> &BaseConsumer<Context>,
    ) -> Result<Bounds, StoreError> {
        let name = topic.to_owned();
        let found = self
            .ask(ANSWER, move |admin, within| {
                let reader = by(admin);
                asked(reader, &name, within, || {
                    reader.fetch_watermarks(&name, partition.0 as i32, within)
                })
            })
            .await?;
        let (low, high) = found.map_err(|error| {
            failed(
                format!("partition {partition} of topic `{topic}` did not answer"),
                error,
            )
        })?;
        Ok(Bounds { low, high })
    }

    /// The first offset whose record is at or after this time; nothing when there is none.
    pub(crate) async fn offset_at(
        &self,
        topic: &str,
        partition: Partition,
        time_ms: i64,
    ) -> Result<Option<i64>, StoreError> {
        let name = topic.to_owned();
        let found = self
            .ask(ANSWER, move |admin, within| {
                let mut list = TopicPartitionList::new();
                let time = Offset::Offset(time_ms);
                list.add_partition_offset(&name, partition.0 as i32, time)?;
                let reader = &admin.committed;
                let found = asked(reader, &name, within, || {
                    reader.offsets_for_times(list.clone(), within)
                })?;
                let elements = found.elements();
                let Some(first) = elements.first() else {
                    return Ok(None);
                };
                first.error()?;
                Ok(match first.offset() {
                    Offset::Offset(offset) if offset >= 0 => Some(offset),
                    _ => None,
                })
            })
            .await?;
        found.map_err(|error| {
            let doing = format!("no offset was found for a time in topic `{topic}`");
            failed(doing, error)
        })
    }
}
