//! A connection: its settings, and one client that looks after topics.

mod admin;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_core::{Annals, Partition, StoreError};
use rdkafka::admin::{AdminOptions, NewPartitions};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::client::{ClientThread, Config, Context};
use crate::dead_letters::DeadLetters;
use crate::error::{failed, invalid, unavailable};
use crate::read::{Topic, TopicLog};
use crate::topic::{Publisher, TopicSpec, ensure};
use crate::url::Url;
pub(crate) use admin::Admin;

pub(crate) use crate::client::ANSWER;

/// How long a broker may take for its first answer.
const CONNECT: Duration = Duration::from_secs(10);

/// Brokers that answered. Cheap to clone.
///
/// ```no_run
/// use annals_kafka::{Kafka, NewRecord, TopicSpec};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let kafka = Kafka::connect("kafka://127.0.0.1:9092").await?;
/// kafka.ensure([TopicSpec::named("clicks").partitions(6)]).await?;
/// let click = NewRecord::to("clicks").key("ada").value(r#"{"page":"/"}"#);
/// let (partition, offset) = kafka.publisher()?.send(click).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Kafka {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    cluster: String,
    admin: ClientThread<Admin>,
    /// Topics that were there: a broker that does not know one of them has not heard of it yet.
    seen: Mutex<BTreeSet<String>>,
}

impl Kafka {
    /// Connects to the brokers of `kafka://[USER:PASSWORD@]HOST[:PORT][,HOST…]`, with
    /// `?tls=true`, `&sasl=scram-sha-512`, `&ca=FILE` and `&client_id=NAME` where they are needed.
    ///
    /// `sasl=plain` sends the password itself: without TLS it is refused, unless the URL says
    /// `tls=false`.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](annals_core::Failure) for a URL that says nothing useful, or would send
    /// a password in clear text;
    /// [`Failure::Unavailable`](annals_core::Failure) when no broker answers for ten seconds.
    pub async fn connect(url: &str) -> Result<Kafka, StoreError> {
        Kafka::connect_with(url, []).await
    }

    /// Connects with settings of librdkafka beside those of the URL. Settings that carry a promise,
    /// such as `acks` and `isolation.level`, are refused.
    ///
    /// # Errors
    ///
    /// As [`Kafka::connect`].
    pub async fn connect_with<'a>(
        url: &str,
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Kafka, StoreError> {
        let settings = settings
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let url = Url::parse(url)?;
        if let Some((key, _)) = url.of_store().next() {
            return Err(invalid(format!(
                "`{key}` belongs to the URL of a store, and this is a connection: \
                 `kafka://HOST:PORT`"
            )));
        }
        let config = Config::new(&url, settings)?;
        let context = Context::default();
        let opened = Admin::open(&config, &context)?;
        let admin = ClientThread::start("kafka-admin", move || opened)?;
        let found = admin.call(|admin| admin.cluster_id(CONNECT));
        let Some(cluster) = found.await? else {
            return Err(unavailable(format!(
                "no broker of {} has answered for {} s{}",
                config.shown,
                CONNECT.as_secs(),
                context.last_error()
            )));
        };
        Ok(Kafka {
            shared: Arc::new(Shared {
                config,
                cluster,
                admin,
                seen: Mutex::default(),
            }),
        })
    }

    /// Follows a topic: views, reactors and processes read it as they read the log of a store.
    ///
    /// # Errors
    ///
    /// As [`Kafka::log`].
    pub async fn read(&self, topic: Topic) -> Result<Annals, StoreError> {
        Ok(Annals::following(Arc::new(self.log(topic).await?)))
    }

    /// The log of a topic.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](annals_core::Failure) when there is no such topic.
    pub async fn log(&self, topic: Topic) -> Result<TopicLog, StoreError> {
        TopicLog::open(self, topic).await
    }

    /// Makes the topics that are missing and compares the others with what is wanted.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](annals_core::Failure) for a topic that is not as wanted, with every
    /// difference. Nothing that is there is changed.
    pub async fn ensure(
        &self,
        topics: impl IntoIterator<Item = TopicSpec>,
    ) -> Result<(), StoreError> {
        for topic in topics {
            ensure::ensure(self, &topic).await?;
        }
        Ok(())
    }

    /// A publisher with a queue of its own.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](annals_core::Failure) for settings that librdkafka refuses.
    pub fn publisher(&self) -> Result<Publisher, StoreError> {
        Publisher::open(self.config())
    }

    /// The dead letters that processors wrote to a topic.
    pub fn dead_letters(&self, topic: &str) -> DeadLetters {
        DeadLetters::of(self, topic)
    }

    /// Removes a topic and everything in it.
    ///
    /// # Errors
    ///
    /// When there is no such topic, or the brokers refuse.
    pub async fn delete_topic(&self, name: &str) -> Result<(), StoreError> {
        let topic = name.to_owned();
        let removed = self
            .ask(ANSWER, move |admin, within| {
                let options = AdminOptions::new().operation_timeout(Some(within));
                let deleting = admin.client.delete_topics(&[&topic], &options);
                all_done(admin.runtime.block_on(deleting)?)
            })
            .await?;
        removed.map_err(|error| failed(format!("topic `{name}` was not removed"), error))?;
        self.forget(name);
        Ok(())
    }

    /// Removes the records of a partition before this offset, for good.
    ///
    /// # Errors
    ///
    /// When the brokers refuse.
    pub async fn delete_records(
        &self,
        topic: &str,
        partition: Partition,
        before: i64,
    ) -> Result<(), StoreError> {
        let name = topic.to_owned();
        let removed = self
            .ask(ANSWER, move |admin, within| {
                let mut list = TopicPartitionList::new();
                let offset = Offset::Offset(before);
                list.add_partition_offset(&name, partition.0 as i32, offset)?;
                let options = AdminOptions::new().operation_timeout(Some(within));
                let deleting = admin.client.delete_records(&list, &options);
                let removed = admin.runtime.block_on(deleting)?;
                removed.elements().iter().try_for_each(|of| of.error())
            })
            .await?;
        removed.map_err(|error| {
            failed(
                format!("records of topic `{topic}` were not removed"),
                error,
            )
        })
    }

    /// Adds partitions to a topic. Keys move: order per key is lost before the change.
    ///
    /// # Errors
    ///
    /// When the brokers refuse.
    pub async fn grow_topic(&self, name: &str, partitions: u32) -> Result<(), StoreError> {
        let topic = name.to_owned();
        let grown = self
            .ask(ANSWER, move |admin, within| {
                let new = NewPartitions::new(&topic, partitions as usize);
                let options = AdminOptions::new().operation_timeout(Some(within));
                let growing = admin.client.create_partitions([&new], &options);
                all_done(admin.runtime.block_on(growing)?)
            })
            .await?;
        grown.map_err(|error| {
            failed(
                format!("topic `{name}` was not given {partitions} partitions"),
                error,
            )
        })
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](annals_core::Failure) when there is no such topic.
    pub async fn partitions_of(&self, topic: &str) -> Result<u32, StoreError> {
        let found = ensure::shape_of(self, topic).await?;
        found
            .map(|shape| shape.partitions)
            .ok_or_else(|| invalid(format!("there is no topic `{topic}`")))
    }

    /// The id of the cluster.
    pub fn cluster(&self) -> &str {
        &self.shared.cluster
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }
}

/// The results of an operation on several things, as one.
fn all_done<T>(results: Vec<Result<T, (T, RDKafkaErrorCode)>>) -> KafkaResult<()> {
    let mut failures = results.into_iter().filter_map(Result::err);
    failures
        .next()
        .map_or(Ok(()), |(_, code)| Err(KafkaError::AdminOp(code)))
}
