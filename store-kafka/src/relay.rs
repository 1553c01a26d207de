//! Publishing the log of a store to topics, exactly once and in order per key.

mod part;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use annals_core::{
    Annals, Backoff, Event, EventId, Failure, Filter, LogId, Outgoing, Outlet, OutletError,
    OutletMark, Partition, Position, ReadLog, RecordedEvent, Store, StoreError,
};
use bytes::Bytes;

use crate::cloud_events;
use crate::error::invalid;
use crate::kafka::Kafka;
use crate::outlet::KafkaOutlet;
use crate::topic::TopicSpec;

/// Bounds of a batch: at the latency of a transaction larger ones gain little.
const BATCH_EVENTS_MAX: usize = 5_000;
const BATCH_BYTES_MAX: usize = 4 << 20;

/// How long it waits at the end of the log until it looks again without having been told.
const POLL: Duration = Duration::from_secs(1);

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
        }
    }

    /// So many events in a transaction at most: 5,000 unless said otherwise.
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
        let Some(kafka) = &self.kafka else {
            return Err(invalid(
                self.said("it publishes nowhere: say `to` or `to_topics`"),
            ));
        };
        kafka.ensure(self.topics.clone()).await?;
        let mut outlet = KafkaOutlet::named(kafka, self.name)?;
        self.follow(db.store().as_ref(), &mut outlet, until).await
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
        let mut until = std::pin::pin!(until);
        let mut backoff = BACKOFF;
        loop {
            let published = tokio::select! {
                biased;
                () = &mut until => return Ok(()),
                published = self.publish(log, outlet, &mut backoff) => published,
            };
            let error = match published {
                OutletError::Undecided(error) => {
                    tracing::info!(relay = self.name, %error, "deciding a transaction by reading");
                    error
                }
                OutletError::Refused(why) => return Err(invalid(self.said(&why))),
                OutletError::Store(error) if error.failure() == Failure::Unavailable => error,
                OutletError::Store(error) => return Err(error),
                error => return Err(invalid(self.said(&error.to_string()))),
            };
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

    /// Opens the outlet and publishes until something is wrong.
    async fn publish(
        &self,
        log: &dyn Store,
        outlet: &mut dyn Outlet,
        backoff: &mut Backoff,
    ) -> OutletError {
        match self.try_publish(log, outlet, backoff).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn try_publish(
        &self,
        log: &dyn Store,
        outlet: &mut dyn Outlet,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, OutletError> {
        let marks = outlet.open().await?;
        let mut places: Vec<Position> = Vec::new();
        for partition in (0..log.partitions()).map(Partition) {
            let mark = marks.iter().find(|mark| mark.partition == partition);
            if let Some(mark) = mark {
                self.check_log(log, mark).await?;
            }
            places.push(mark.map_or(Position::START, |mark| mark.position));
        }
        let mut hint = log.hint();
        loop {
            hint.reset();
            let mut more = false;
            for (partition, place) in places.iter_mut().enumerate() {
                let partition = Partition(partition as u32);
                let batch = self.next_batch(log, partition, *place).await?;
                if batch.up_to == *place {
                    continue;
                }
                more |= !batch.at_end;
                // A mark alone says how far a log was read that has nothing to publish; it is
                // written only now and then, with the next events or when much was passed.
                let passed = batch.up_to.get() - place.get();
                if batch.events.is_empty() && passed < BATCH_EVENTS_MAX as u64 {
                    continue;
                }
                let outgoing = self.outgoing(&batch.events, log.id())?;
                let mark = OutletMark {
                    log: log.id(),
                    partition,
                    position: batch.up_to,
                    event: batch.event,
                    note: Bytes::new(),
                };
                outlet.take(outgoing, mark).await?;
                *place = batch.up_to;
                backoff.reset();
            }
            if !more {
                hint.wait(POLL).await;
            }
        }
    }

    /// Stops when the log is not the one that was published so far.
    async fn check_log(&self, log: &dyn Store, mark: &OutletMark) -> Result<(), OutletError> {
        let stop = |what: String| {
            Err(OutletError::Refused(format!(
                "{what}; nothing was published. If this is the log that is meant, publish it under \
                 another name of the relay, to other topics"
            )))
        };
        if mark.log != log.id() {
            return stop(format!(
                "it has published the log {} so far, this is {}",
                mark.log,
                log.id()
            ));
        }
        let head = log.head(mark.partition).await?.visible;
        if head < mark.position {
            return stop(format!(
                "the log ends at {head} and was published up to {}: it was restored or rewound",
                mark.position
            ));
        }
        let Some(event) = mark.event else {
            return Ok(());
        };
        let read = ReadLog::after(mark.position.minus(1))
            .up_to(mark.position)
            .partition(mark.partition)
            .limit(1);
        let found = log.read(read).await?.events.first().map(|event| event.id);
        if found.is_some_and(|found| found != event) {
            return stop(format!(
                "the event at {} is not the one that was published: the log was restored",
                mark.position
            ));
        }
        Ok(())
    }

    /// What comes after a place, up to what survives a crash of the store.
    async fn next_batch(
        &self,
        log: &dyn Store,
        partition: Partition,
        after: Position,
    ) -> Result<Batch, StoreError> {
        let mut batch = Batch {
            events: Vec::new(),
            up_to: after,
            event: None,
            at_end: true,
        };
        let durable = log.head(partition).await?.durable;
        let mut bytes = 0;
        while batch.up_to < durable {
            let left = self.batch_events_max - batch.events.len();
            let read = ReadLog::after(batch.up_to)
                .up_to(durable)
                .partition(partition)
                .filter(Filter::default().types(self.types.iter().cloned()))
                .limit(left.min(annals_core::PAGE_EVENTS));
            let page = log.read(read).await?;
            if page.scanned <= batch.up_to {
                break;
            }
            batch.up_to = page.scanned.min(durable);
            let last = page
                .events
                .last()
                .filter(|last| last.position == batch.up_to);
            batch.event = last.map(|last| last.id);
            bytes += page
                .events
                .iter()
                .map(|event| event.payload.len())
                .sum::<usize>();
            batch.events.extend(page.events);
            if batch.events.len() >= self.batch_events_max || bytes >= BATCH_BYTES_MAX {
                batch.at_end = batch.up_to >= durable;
                break;
            }
            if page.end {
                break;
            }
        }
        Ok(batch)
    }

    /// What is sent for a batch.
    fn outgoing(&self, events: &[RecordedEvent], log: LogId) -> Result<Vec<Outgoing>, OutletError> {
        let mut topics: HashMap<String, Arc<str>> = HashMap::new();
        let mut keys: HashMap<&str, String> = HashMap::new();
        let mut outgoing = Vec::with_capacity(events.len());
        for event in events {
            let Some(topic) = (self.route)(event) else {
                continue;
            };
            let key = (self.key)(event);
            let known = keys
                .entry(event.stream.as_str())
                .or_insert_with(|| key.clone());
            if *known != key {
                return Err(OutletError::Refused(format!(
                    "stream `{}` has the keys `{known}` and `{key}`: its order would be lost",
                    event.stream
                )));
            }
            let shared = topics
                .entry(topic)
                .or_insert_with_key(|topic| topic.as_str().into());
            outgoing.push(Outgoing {
                to: Arc::clone(shared),
                key: Bytes::from(key),
                payload: Some(event.payload.clone()),
                headers: cloud_events::encode(event, log),
                occurred_at: event.occurred_at,
            });
        }
        Ok(outgoing)
    }
}

/// Events that are published together.
struct Batch {
    events: Vec<RecordedEvent>,
    up_to: Position,
    /// The event at `up_to`, when it is among these.
    event: Option<EventId>,
    at_end: bool,
}
