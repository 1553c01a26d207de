//! Sending records one by one: idempotent, acknowledged by all replicas in sync, at least once over
//! a crash of the sender.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_core::{Partition, StoreError};
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{
    BaseRecord, NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer,
};
use tokio::sync::oneshot;

use super::record::NewRecord;
use crate::client::{Config, Context};
use crate::error::{failed, unavailable};

/// How long a full queue is left alone before it is tried again.
const FULL: Duration = Duration::from_millis(2);

type Answer = Option<oneshot::Sender<Result<(i32, i64), KafkaError>>>;

/// Hands delivery reports to those who wait for one, and keeps the first failure of the others.
#[derive(Debug, Default)]
struct Deliveries {
    context: Context,
    /// With the topic of the record.
    first_failure: Mutex<Option<(String, KafkaError)>>,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Answer>;

    fn delivery(&self, result: &DeliveryResult<'_>, answer: Box<Answer>) {
        let outcome = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, message)) => Err((message.topic().to_owned(), error.clone())),
        };
        match (*answer, outcome) {
            // The caller may have been dropped.
            (Some(answer), outcome) => {
                drop(answer.send(outcome.map_err(|(_, error)| error)));
            }
            (None, Err(error)) => {
                let mut first = self
                    .first_failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(error);
            }
            (None, Ok(_)) => {}
        }
    }
}

/// Sends records. Cheap to clone; clones share one queue.
///
/// A record that was acknowledged survives the loss of any minority of replicas, where the topic
/// asks for that (`min.insync.replicas`). Within this publisher nothing is written twice and
/// records of a key keep their order. The queue is bounded by librdkafka
/// (`queue.buffering.max.messages`, `queue.buffering.max.kbytes`); when it is full, sending waits.
#[derive(Clone)]
pub struct Publisher {
    producer: Arc<Owned>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

/// Dropping a producer waits for its queue: that happens on a thread of its own.
struct Owned(Option<ThreadedProducer<Deliveries>>);

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(producer) = self.0.take() {
            let drops = std::thread::Builder::new().name("kafka-publisher-drop".into());
            // Without a thread it waits here.
            let _ = drops.spawn(move || drop(producer));
        }
    }
}

impl Publisher {
    pub(crate) fn open(config: &Config) -> Result<Publisher, StoreError> {
        let config = config.publisher();
        let producer = ThreadedProducer::from_config_and_context(&config, Deliveries::default())
            .map_err(|error| failed("the publisher was not made", error))?;
        Ok(Publisher {
            producer: Arc::new(Owned(Some(producer))),
        })
    }

    /// Sends the record; waiting for the answer gives its partition and offset.
    ///
    /// Nothing is sent before the answer is awaited.
    pub fn send(&self, record: NewRecord) -> Sent {
        Sent {
            publisher: self.clone(),
            record,
        }
    }

    /// Puts the record into the queue. Whether it arrived is said by the next
    /// [`flush`](Publisher::flush): for many records this is several times faster than waiting for
    /// each.
    ///
    /// # Errors
    ///
    /// When the record can never be sent.
    pub async fn queue(&self, record: &NewRecord) -> Result<(), StoreError> {
        self.enqueue(record, None).await
    }

    /// Waits until everything that was queued was acknowledged.
    ///
    /// # Errors
    ///
    /// The first failure since the last call.
    pub async fn flush(&self) -> Result<(), StoreError> {
        loop {
            if self.producer()?.in_flight_count() == 0 {
                break;
            }
            tokio::time::sleep(FULL).await;
        }
        let deliveries = self.producer()?.context();
        let first = deliveries
            .first_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match first {
            Some((topic, error)) => {
                let doing = format!("a record for topic `{topic}` was not delivered");
                Err(failed(doing, error))
            }
            None => Ok(()),
        }
    }

    fn producer(&self) -> Result<&ThreadedProducer<Deliveries, NoCustomPartitioner>, StoreError> {
        let owned = self.producer.0.as_ref();
        owned.ok_or_else(|| unavailable("the publisher is closed"))
    }

    async fn enqueue(&self, record: &NewRecord, answer: Answer) -> Result<(), StoreError> {
        let mut answer = Box::new(answer);
        loop {
            let base = BaseRecord::with_opaque_to(&record.topic, answer);
            match self.producer()?.send(record.fill(base)) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), full)) => {
                    answer = full.delivery_opaque;
                }
                Err((error, _)) => {
                    let doing = format!("a record for topic `{}` was not sent", record.topic);
                    return Err(failed(doing, error));
                }
            }
            tokio::time::sleep(FULL).await;
        }
    }
}

/// A record on its way: await it for its partition and offset.
#[must_use = "nothing is sent before it is awaited"]
#[derive(Debug)]
pub struct Sent {
    publisher: Publisher,
    record: NewRecord,
}

impl IntoFuture for Sent {
    type Output = Result<(Partition, i64), StoreError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.publisher.enqueue(&self.record, Some(answer)).await?;
            let doing = || {
                format!(
                    "a record for topic `{}` was not delivered",
                    self.record.topic
                )
            };
            match answered.await {
                Ok(Ok((partition, offset))) => Ok((Partition(partition as u32), offset)),
                Ok(Err(error)) => Err(failed(doing(), error)),
                Err(_) => Err(unavailable(format!("{}: the publisher closed", doing()))),
            }
        })
    }
}
