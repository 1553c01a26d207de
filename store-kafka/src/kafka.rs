//! A connection: its settings, and one client that looks after topics.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Annals, Partition, StoreError};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::client::{ClientThread, Config, Context};
use crate::dead_letters::DeadLetters;
use crate::error::{failed, invalid, unavailable};
use crate::read::{Topic, TopicLog};
use crate::topic::{Publisher, TopicSpec, ensure};
use crate::url::Url;

/// How long a broker may take for its first answer.
const CONNECT: Duration = Duration::from_secs(10);

/// How long any other answer may take.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

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
}

/// What looks after topics, on its own thread.
pub(crate) struct Admin {
    client: AdminClient<Context>,
    committed: BaseConsumer<Context>,
    uncommitted: BaseConsumer<Context>,
    runtime: tokio::runtime::Runtime,
}

impl Admin {
    fn open(config: &Config, context: &Context) -> Result<Admin, StoreError> {
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
    /// Connects to the brokers of `kafka://[USER:PASSWORD@]HOST[:PORT][,HOST…]`, with
    /// `?tls=true`, `&sasl=scram-sha-512`, `&ca=FILE` and `&client_id=NAME` where they are needed.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](annals_core::Failure) for a URL that says nothing useful;
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
        let config = Config::new(&Url::parse(url)?, settings)?;
        let context = Context::default();
        let opened = Admin::open(&config, &context)?;
        let admin = ClientThread::start("kafka-admin", move || opened)?;
        let found = admin.call(|admin| admin.client.inner().fetch_cluster_id(CONNECT));
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
        let topics: Vec<TopicSpec> = topics.into_iter().collect();
        self.admin(move |admin| {
            admin
                .runtime
                .block_on(ensure::ensure(&admin.client, &topics))
        })
        .await?
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
        let name = name.to_owned();
        self.admin(move |admin| {
            let options = AdminOptions::new().operation_timeout(Some(ANSWER));
            let doing = format!("topic `{name}` was not removed");
            let deleting = admin.client.delete_topics(&[&name], &options);
            let results = admin.runtime.block_on(deleting);
            let results = results.map_err(|error| failed(doing.clone(), error))?;
            for result in results {
                if let Err((_, code)) = result {
                    return Err(failed(doing, rdkafka::error::KafkaError::AdminOp(code)));
                }
            }
            Ok(())
        })
        .await?
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
        let topic = topic.to_owned();
        self.admin(move |admin| {
            let doing = format!("records of topic `{topic}` were not removed");
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&topic, partition.0 as i32, Offset::Offset(before))
                .map_err(|error| failed(doing.clone(), error))?;
            let options = AdminOptions::new().operation_timeout(Some(ANSWER));
            let deleting = admin.client.delete_records(&list, &options);
            let removed = admin.runtime.block_on(deleting);
            removed.map(|_| ()).map_err(|error| failed(doing, error))
        })
        .await?
    }

    /// Adds partitions to a topic. Keys move: order per key is lost before the change.
    ///
    /// # Errors
    ///
    /// When the brokers refuse.
    pub async fn grow_topic(&self, name: &str, partitions: u32) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.admin(move |admin| {
            let doing = format!("topic `{name}` was not given {partitions} partitions");
            let new = rdkafka::admin::NewPartitions::new(&name, partitions as usize);
            let growing = admin.client.create_partitions([&new], &AdminOptions::new());
            let results = admin.runtime.block_on(growing);
            let results = results.map_err(|error| failed(doing.clone(), error))?;
            for result in results {
                if let Err((_, code)) = result {
                    return Err(failed(doing, rdkafka::error::KafkaError::AdminOp(code)));
                }
            }
            Ok(())
        })
        .await?
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](annals_core::Failure) when there is no such topic.
    pub async fn partitions_of(&self, topic: &str) -> Result<u32, StoreError> {
        let name = topic.to_owned();
        let found = self
            .admin(move |admin| ensure::shape_of(&admin.client, &name))
            .await??;
        found
            .map(|shape| shape.partitions)
            .ok_or_else(|| invalid(format!("there is no topic `{topic}`")))
    }

    /// All settings of a topic.
    pub(crate) async fn settings_of(
        &self,
        topic: &str,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let name = topic.to_owned();
        self.admin(move |admin| {
            admin
                .runtime
                .block_on(ensure::settings(&admin.client, &name))
        })
        .await?
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
        let found: KafkaResult<(i64, i64)> = self
            .admin(move |admin| by(admin).fetch_watermarks(&name, partition.0 as i32, ANSWER))
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
        let doing = format!("no offset was found for a time in topic `{topic}`");
        let found: KafkaResult<Option<i64>> = self
            .admin(move |admin| {
                let mut list = TopicPartitionList::new();
                list.add_partition_offset(&name, partition.0 as i32, Offset::Offset(time_ms))?;
                let found = admin.committed.offsets_for_times(list, ANSWER)?;
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
        found.map_err(|error| failed(doing, error))
    }

    /// The id of the cluster.
    pub fn cluster(&self) -> &str {
        &self.shared.cluster
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    async fn admin<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Admin) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        self.shared.admin.call(work).await
    }
}
