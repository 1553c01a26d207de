//! Topics that are not to be written to.

use std::sync::Arc;

use annals_core::{Annals, Failure, MemoryStore, StoreError};
use annals_kafka::{Kafka, Relay, TopicSpec};

use super::relays::{append, published, until_published};
use crate::broker::{TIMEOUT, fresh, kafka};

fn relay(kafka: &Kafka, name: &'static str, topic: &str) -> Relay {
    Relay::named(name).to(kafka, TopicSpec::named(topic).partitions(2))
}

fn says_recreated(ended: Result<(), StoreError>, topic: &str) {
    let error = ended.unwrap_err();
    assert_eq!(error.failure(), Failure::Invalid);
    let said = error.to_string();
    let expected = format!("topic `{topic}` is not the one that was published to");
    assert!(said.contains(&expected), "{said}");
}

#[tokio::test]
async fn a_recreated_topic_is_noticed_when_a_relay_begins() {
    let kafka = kafka().await;
    let name = fresh("recreated").leak() as &str;
    let store = Arc::new(MemoryStore::new());
    append(&*store, "account-a", 3).await;
    let db = Annals::on(Arc::<MemoryStore>::clone(&store));
    assert_eq!(relay(&kafka, name, name).catch_up(&db).await.unwrap(), 3);
    assert_eq!(relay(&kafka, name, name).catch_up(&db).await.unwrap(), 0);
    kafka.delete_topic(name).await.unwrap();
    // Also where another program has filled it again.
    for others in [0, 1, 20] {
        let spec = TopicSpec::named(name).partitions(2);
        kafka.ensure([spec]).await.unwrap();
        let records = vec![("account-a", "{}"); others];
        crate::broker::send(&kafka, name, &records).await;
        let ended = relay(&kafka, name, name).catch_up(&db).await;
        says_recreated(ended.map(drop), name);
    }
    // The way out that it names.
    let other = fresh("recreated").leak() as &str;
    assert_eq!(relay(&kafka, other, other).catch_up(&db).await.unwrap(), 3);
    assert_eq!(published(&kafka, other).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_is_noticed_while_a_relay_runs() {
    let kafka = kafka().await;
    let name = fresh("recreated").leak() as &str;
    let store = Arc::new(MemoryStore::new());
    append(&*store, "account-a", 3).await;
    let db = Annals::on(Arc::<MemoryStore>::clone(&store));
    let running = relay(&kafka, name, name);
    let runs = tokio::spawn(async move { running.run(&db, std::future::pending()).await });
    until_published(&kafka, name, 3).await;
    kafka.delete_topic(name).await.unwrap();
    let spec = TopicSpec::named(name).partitions(2);
    kafka.ensure([spec]).await.unwrap();
    append(&*store, "account-a", 1).await;
    let ended = tokio::time::timeout(TIMEOUT, runs).await.unwrap();
    says_recreated(ended.unwrap(), name);
    assert_eq!(published(&kafka, name).await.len(), 0);
}

#[cfg(feature = "store")]
mod of_stores {
    use std::convert::Infallible;

    use annals_core::{EventStore as _, NewEvent, StreamId};
    use annals_kafka::store::{Options, Owns};
    use annals_kafka::{KafkaStore, Processor};

    use super::*;
    use crate::broker::{topic, url};

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_published_into_the_topic_of_a_store() {
        let kafka = kafka().await;
        let name = fresh("store").leak() as &str;
        let folder = tempfile::tempdir().unwrap();
        let open = async |process: &str| {
            let options = Options::new(url(), name, folder.path().join(process))
                .partitions(3)
                .owns(Owns::All);
            KafkaStore::open_with(options).await
        };
        let store = open("first").await.unwrap();
        let event = NewEvent::json("a.b", "{}");
        let stream = StreamId::new("account-a").unwrap();
        let append_one = annals_core::Append::new(stream, [event]);
        store.append(append_one.clone()).await.unwrap();

        let log = Arc::new(MemoryStore::new());
        append(&*log, "account-a", 1).await;
        let relay = Relay::named(name).to(&kafka, TopicSpec::named(name).partitions(3));
        let relayed = relay.catch_up(&Annals::on(log)).await;
        let plain = topic(&kafka, "plain", 1).await;
        let processor = Processor::named(fresh("into-store"))
            .reads(&plain)
            .writes(TopicSpec::named(name))
            .each_bytes(|_, _| Ok::<_, Infallible>(()));
        let processed = processor.run(&kafka, std::future::pending()).await;
        for refused in [relayed.map(drop), processed] {
            let error = refused.unwrap_err();
            assert_eq!(error.failure(), Failure::Invalid);
            let said = error.to_string();
            let expected = format!("topic `{name}` is an event store: partition ");
            assert!(said.contains(&expected), "{said}");
        }
        // It holds what it held, and opens.
        store.append(append_one).await.unwrap();
        drop(store);
        open("second").await.unwrap();
    }
}
