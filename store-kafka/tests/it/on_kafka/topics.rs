//! Topics are made, compared, written to and removed.

use annals_core::{Failure, Partition};
use annals_kafka::{Kafka, NewRecord, TopicSpec, murmur2_partition};

use crate::broker::{fresh, kafka, send, topic};

#[tokio::test]
async fn a_topic_is_made_once_and_compared_afterwards() {
    let kafka = kafka().await;
    let name = fresh("made");
    let spec = TopicSpec::named(&name).partitions(3).compacted();
    kafka.ensure([spec.clone()]).await.unwrap();
    kafka.ensure([spec]).await.unwrap();
    assert_eq!(kafka.partitions_of(&name).await.unwrap(), 3);
    let other = TopicSpec::named(&name).partitions(4).keep_for_ever();
    let error = kafka.ensure([other]).await.unwrap_err();
    assert_eq!(error.failure(), Failure::Invalid);
    let said = error.to_string();
    for part in [
        "3 partitions (4 wanted)",
        "`cleanup.policy=compact` (delete wanted)",
    ] {
        assert!(said.contains(part), "{said}");
    }
    kafka.ensure([TopicSpec::existing(&name)]).await.unwrap();
}

#[tokio::test]
async fn a_required_topic_that_is_missing_is_an_error() {
    let kafka = kafka().await;
    let name = fresh("missing");
    let error = kafka
        .ensure([TopicSpec::existing(&name)])
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), format!("there is no topic `{name}`"));
    assert_eq!(error.failure(), Failure::Invalid);
}

#[tokio::test]
async fn a_name_that_no_topic_has_comes_with_the_rule() {
    let kafka = kafka().await;
    let made = kafka.ensure([TopicSpec::named("my topic")]).await;
    let read = kafka.log(annals_kafka::Topic::named("my topic")).await;
    for error in [made.unwrap_err(), read.unwrap_err()] {
        assert_eq!(error.failure(), Failure::Invalid);
        let said = error.to_string();
        assert!(
            said.starts_with("`my topic` is no name of a topic: up to 249"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_record_is_acknowledged_with_its_partition_and_offset() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "sent", 5).await;
    let publisher = kafka.publisher().unwrap();
    for (key, offset) in [("ada", 0), ("ada", 1)] {
        let sent = publisher.send(NewRecord::to(&topic).key(key).value("1"));
        let partition = Partition(murmur2_partition(key.as_bytes(), 5));
        assert_eq!(sent.await.unwrap(), (partition, offset));
    }
}

#[tokio::test]
async fn a_too_large_record_fails_and_the_next_is_sent() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "large", 1).await;
    let publisher = kafka.publisher().unwrap();
    let large = NewRecord::to(&topic).value(vec![0; 32 << 20]);
    let error = publisher.send(large).await.unwrap_err();
    assert_eq!(error.failure(), Failure::Invalid);
    send(&kafka, &topic, &[("a", "1")]).await;
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_named() {
    let error = Kafka::connect("kafka://127.0.0.1:1").await.unwrap_err();
    assert_eq!(error.failure(), Failure::Unavailable);
    let said = error.to_string();
    assert!(
        said.starts_with("no broker of kafka://127.0.0.1:1 has answered for 10 s"),
        "{said}"
    );
}
