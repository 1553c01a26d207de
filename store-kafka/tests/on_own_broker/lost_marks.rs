//! What relays do when the topic of their marks has lost some, or will: all outlets share it, so
//! nothing else can run meanwhile.

use std::sync::Arc;

use annals_core::{
    Annals, Append, EventStore as _, Failure, Log as _, MemoryStore, NewEvent, Partition, Position,
    ReadLog, StreamId,
};
use annals_kafka::{Kafka, Relay, Topic, TopicSpec};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use super::TURN;
use crate::broker::{fresh, kafka, url};

const PROGRESS: &str = "annals.progress";

/// A log of three events, and a relay that publishes it.
struct Published {
    name: &'static str,
    kafka: Kafka,
    db: Annals,
}

impl Published {
    async fn new(name: &str) -> Published {
        let store = Arc::new(MemoryStore::new());
        let events = [1, 2, 3].map(|_| NewEvent::json("a.b", "{}"));
        let append = Append::new(StreamId::new("account-a").unwrap(), events);
        store.append(append).await.unwrap();
        let published = Published {
            name: fresh(name).leak(),
            kafka: kafka().await,
            db: Annals::on(store),
        };
        assert_eq!(published.catch_up().await.unwrap(), 3);
        published
    }

    async fn catch_up(&self) -> Result<u64, annals_core::StoreError> {
        let topic = TopicSpec::named(self.name).partitions(2);
        let relay = Relay::named(self.name).to(&self.kafka, topic);
        relay.catch_up(&self.db).await
    }

    /// How many records are in its topic.
    async fn count(&self) -> usize {
        let topic = Topic::named(self.name).cloud_events();
        let log = self.kafka.log(topic).await.unwrap();
        let mut count = 0;
        for partition in (0..log.partitions()).map(Partition) {
            let read = ReadLog::after(Position::START).partition(partition);
            count += log.read(read).await.unwrap().events.len();
        }
        count
    }
}

/// Sets what the topic of marks does with old records, as the error says.
async fn set_cleanup(policy: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", url().trim_start_matches("kafka://"))
        .create()
        .unwrap();
    let of = AlterConfig::new(ResourceSpecifier::Topic(PROGRESS)).set("cleanup.policy", policy);
    let altered = admin.alter_configs([&of], &AdminOptions::new()).await;
    assert!(altered.unwrap().iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_would_lose_marks_is_refused() {
    let _turn = TURN.lock().await;
    let published = Published::new("will-lose").await;
    for policy in ["delete", "compact,delete"] {
        set_cleanup(policy).await;
        let refused = published.catch_up().await;
        set_cleanup("compact").await;
        let error = refused.unwrap_err();
        assert_eq!(error.failure(), Failure::Invalid);
        let said = error.to_string();
        let found = format!("loses marks (`cleanup.policy={policy}`, `compact` wanted)");
        assert!(said.contains(&found), "{said}");
        assert!(
            said.contains("--add-config cleanup.policy=compact"),
            "{said}"
        );
    }
    assert_eq!(published.catch_up().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_whose_mark_is_lost_publishes_nothing_twice() {
    let _turn = TURN.lock().await;
    let published = Published::new("lost").await;
    published.kafka.delete_topic(PROGRESS).await.unwrap();
    let error = published.catch_up().await.unwrap_err();
    assert_eq!(error.failure(), Failure::Invalid);
    let said = error.to_string();
    assert!(said.contains("there is no mark that says so"), "{said}");
    assert_eq!(published.count().await, 3);
    // The way out that it names.
    published.kafka.delete_topic(published.name).await.unwrap();
    assert_eq!(published.catch_up().await.unwrap(), 3);
    assert_eq!(published.count().await, 3);
}
