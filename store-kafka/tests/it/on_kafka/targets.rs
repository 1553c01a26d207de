//! Topics that are not to be written to.

use std::sync::Arc;

use annals_core::{Annals, Failure, MemoryStore};
use annals_kafka::{Relay, TopicSpec};

use super::relays::append;
use crate::broker::{fresh, kafka};

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
