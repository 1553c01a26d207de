//! Publishing the log of a store to topics, exactly once and in order per key.

mod batch;
mod part;
mod publish;
mod reports;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{
    Annals, Backoff, Event, Failure, Outlet, OutletError, Partition, RecordedEvent, Store,
    StoreError,
};
use annals_runner::BatchLimit;

use crate::error::invalid;
use crate::kafka::Kafka;
use crate::outlet::KafkaOutlet;
use crate::topic::TopicSpec;
pub(crate) use part::note_checkpoints;
use reports::CaughtUp;
pub(crate) use reports::Reports;

/// Bounds of a batch: at the latency of a transaction larger ones gain little.
const BATCH_EVENTS_MAX: usize = 5_000;

/// Waits between tries after a failure.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

type Route = dyn Fn(&RecordedEvent) -> Option<String> + Send + Sync;
type KeyOf = dyn Fn(&RecordedEvent) -> String + Send + Sync;

/// Publishes the events of a log as CloudEvents.
///
/// Exactly once for readers of committed records, whatever is killed when: each batch is in one
/// transaction with the position up to which the log was read. Events of one key keep their order.
///
/// ```no_run
/// use annals_core::Annals;
/// use annals_kafka::{Kafka, Relay, TopicSpec};
///
/// # async fn example(db: Annals, kafka: Kafka) -> Result<(), annals_core::StoreError> {
/// let topic = TopicSpec::named("bank-events").partitions(12);
/// Relay::named("bank").to(&kafka, topic).run(&db, std::future::pending()).await
/// # }
/// ```
#[must_use = "nothing is published before it runs"]
pub struct Relay {
    name: &'static str,
    kafka: Option<Kafka>,
    types: Vec<String>,
    route: Arc<Route>,
    key: Arc<KeyOf>,
    topics: Vec<TopicSpec>,
    batch_events_max: usize,
    /// Kept over failures: what was too large is not tried again as it was.
    batch_limit: BatchLimit,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("name", &self.name)
            .field("types", &self.types)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

impl Relay {
    /// The relay of this name. The name keeps its place: one with another name begins again.
    pub fn named(name: &'static str) -> Relay {
        Relay {
            name,
            kafka: None,
            types: Vec::new(),
            route: Arc::new(|_| None),
            key: Arc::new(|event| event.stream.to_string()),
            topics: Vec::new(),
            batch_events_max: BATCH_EVENTS_MAX,
            batch_limit: BatchLimit::default(),
        }
    }

    /// So many events in a transaction at most: 5,000 unless said otherwise. After a transaction
    /// that was not committed the next ones hold fewer for a while.
    pub fn batch_events_max(mut self, events: usize) -> Relay {
        self.batch_events_max = events.max(1);
        self
    }

    /// Only events of this type; said several times, of these types.
    pub fn only<E: Event>(mut self) -> Relay {
        let shapes = E::shapes().iter();
        self.types
            .extend(shapes.map(|shape| shape.event_type.to_owned()));
        self
    }

    /// All events into one topic, which is made when it is missing.
    pub fn to(mut self, kafka: &Kafka, topic: TopicSpec) -> Relay {
        self.kafka = Some(kafka.clone());
        let name = topic.name().to_owned();
        self.topics.push(topic);
        self.route = Arc::new(move |_| Some(name.clone()));
        self
    }

    /// Each event into the topic that the function names, or into none.
    pub fn to_topics(
        mut self,
        kafka: &Kafka,
        route: impl Fn(&RecordedEvent) -> Option<String> + Send + Sync + 'static,
    ) -> Relay {
        self.kafka = Some(kafka.clone());
        self.route = Arc::new(route);
        self
    }

    /// Makes or demands this topic before anything is published.
    pub fn ensures(mut self, topic: TopicSpec) -> Relay {
        self.topics.push(topic);
        self
    }

    /// Keys are the ids of the streams, without the category: to have the partitions of topics
    /// whose keys are such ids.
    pub fn keyed_by_id(self) -> Relay {
        self.keyed_by(|event| event.stream.id().to_owned())
    }

    /// Keys are what the function says. It must say the same for all events of a stream, or their
    /// order is lost; a batch in which it does not stops the relay.
    pub fn keyed_by(
        mut self,
        key: impl Fn(&RecordedEvent) -> String + Send + Sync + 'static,
    ) -> Relay {
        self.key = Arc::new(key);
        self
    }

    /// Follows the log and publishes until `until` ends; the transaction that is under way then is
    /// finished.
    ///
    /// A failure that may pass is tried again with back-off. Of two that run under one name, the
    /// one that began last publishes and the other one shuts it out in turn: give each a lease, or
    /// a name.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`] for what needs an operator: a topic that is not as wanted, a log that
    /// is not the one that was published so far, an event that cannot be sent.
    pub async fn run(
        &self,
        db: &Annals,
        until: impl Future<Output = ()> + Send,
    ) -> Result<(), StoreError> {
        let mut outlet = self.outlet().await?;
        self.follow(db.store().as_ref(), &mut outlet, until).await
    }

    /// Publishes what is in the log now, and ends. Returns how many records were sent.
    ///
    /// # Errors
    ///
    /// As [`run`](Relay::run).
    ///
    /// ```no_run
    /// # use annals_core::Annals;
    /// # use annals_kafka::{Kafka, Relay, TopicSpec};
    /// # async fn example(db: Annals, kafka: Kafka) -> Result<(), annals_core::StoreError> {
    /// let relay = Relay::named("bank").to(&kafka, TopicSpec::named("bank-events"));
    /// println!("{} records were sent", relay.catch_up(&db).await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn catch_up(&self, db: &Annals) -> Result<u64, StoreError> {
        let log = db.store().as_ref();
        let mut heads = Vec::new();
        for partition in (0..log.partitions()).map(Partition) {
            heads.push((partition, log.head(partition).await?.durable));
        }
        let mut outlet = self.outlet().await?;
        let caught_up = CaughtUp::with(heads);
        self.follow_reporting(log, &mut outlet, caught_up.wait(), &caught_up)
            .await?;
        Ok(caught_up.sent())
    }

    /// Where its batches go, and the topics that it needs.
    async fn outlet(&self) -> Result<KafkaOutlet, StoreError> {
        let Some(kafka) = &self.kafka else {
            return Err(invalid(
                self.said("it publishes nowhere: say `to` or `to_topics`"),
            ));
        };
        kafka.ensure(self.topics.clone()).await?;
        let topics = self.topics.iter().map(|topic| topic.name().to_owned());
        let outlet = KafkaOutlet::named(kafka, self.name)?;
        outlet.writes_to(topics.collect()).await
    }

    /// Publishes to any outlet: what [`run`](Relay::run) does once there is one.
    ///
    /// # Errors
    ///
    /// As [`run`](Relay::run).
    pub async fn follow(
        &self,
        log: &dyn Store,
        outlet: &mut dyn Outlet,
        until: impl Future<Output = ()> + Send,
    ) -> Result<(), StoreError> {
        self.follow_reporting(log, outlet, until, &()).await
    }

    async fn follow_reporting(
        &self,
        log: &dyn Store,
        outlet: &mut dyn Outlet,
        until: impl Future<Output = ()> + Send,
        reports: &dyn Reports,
    ) -> Result<(), StoreError> {
        let mut until = std::pin::pin!(until);
        let mut backoff = BACKOFF;
        loop {
            let published = tokio::select! {
                biased;
                () = &mut until => return Ok(()),
                published = self.publish(log, outlet, &mut backoff, reports) => published,
            };
            let error = self.failure(published);
            if error.failure() != Failure::Unavailable {
                return Err(error);
            }
            tracing::warn!(relay = self.name, %error, "the relay begins again");
            tokio::select! {
                () = &mut until => return Ok(()),
                () = tokio::time::sleep(backoff.next_wait()) => {}
            }
        }
    }

    fn said(&self, what: &str) -> String {
        format!("relay `{}`: {what}", self.name)
    }

    /// What ended publishing: unavailable when beginning again may mend it.
    fn failure(&self, ended: OutletError) -> StoreError {
        match ended {
            OutletError::Undecided(error) => {
                tracing::info!(relay = self.name, %error, "deciding a transaction by reading");
                StoreError::new(Failure::Unavailable, self.said(&error.to_string())).because(error)
            }
            OutletError::Refused(why) | OutletError::Destination(why) => invalid(self.said(&why)),
            OutletError::Store(error) => error,
            error => invalid(self.said(&error.to_string())),
        }
    }
}
