//! What was removed before it was read, topics that grow, topics that are made again.

use annals_core::{Failure, Log, Partition, Position, ReadLog};
use annals_kafka::{Topic, TopicLog};

use crate::broker::{kafka, send, topic};

const FIVE: [(&str, &str); 5] = [("a", "1"), ("a", "2"), ("a", "3"), ("a", "4"), ("a", "5")];

async fn positions(log: &TopicLog, after: u64) -> Vec<u64> {
    let page = log
        .read(ReadLog::after(Position::new(after)))
        .await
        .unwrap();
    page.events
        .iter()
        .map(|event| event.position.get())
        .collect()
}

#[tokio::test]
async fn records_removed_before_they_were_read_stop_a_reader() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "removed", 1).await;
    send(&kafka, &topic, &FIVE).await;
    kafka.delete_records(&topic, Partition(0), 3).await.unwrap();
    let log = kafka.log(Topic::named(&topic)).await.unwrap();
    assert_eq!(
        log.begins_after(Partition(0)).await.unwrap(),
        Position::new(3)
    );
    let error = log
        .read(ReadLog::after(Position::new(1)))
        .await
        .unwrap_err();
    assert_eq!(error.failure(), Failure::Invalid);
    let said = error.to_string();
    let range = format!("positions 2 to 3 of partition 0 of topic `{topic}` were removed");
    assert!(said.starts_with(&range), "{said}");
    let error = log.read(ReadLog::after(Position::START)).await.unwrap_err();
    assert!(error.to_string().contains("from_what_is_left"), "{error}");
    // What comes after the gap is read as ever.
    assert_eq!(positions(&log, 3).await, [4, 5]);
}

#[tokio::test]
async fn an_accepted_gap_is_passed_over() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "accepted", 1).await;
    send(&kafka, &topic, &FIVE).await;
    kafka.delete_records(&topic, Partition(0), 3).await.unwrap();
    let accepted = Topic::named(&topic).accept_gap(Partition(0), Position::new(3), "a test");
    let log = kafka.log(accepted).await.unwrap();
    assert_eq!(positions(&log, 1).await, [4, 5]);
    let left = kafka
        .log(Topic::named(&topic).from_what_is_left())
        .await
        .unwrap();
    assert_eq!(positions(&left, 0).await, [4, 5]);
    assert!(left.read(ReadLog::after(Position::new(1))).await.is_err());
}

#[tokio::test]
async fn a_log_can_begin_at_an_offset() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "offset", 1).await;
    send(&kafka, &topic, &FIVE).await;
    let begins = Topic::named(&topic).from_offsets([(Partition(0), 2)]);
    let log = kafka.log(begins).await.unwrap();
    assert_eq!(positions(&log, 0).await, [3, 4, 5]);
}

#[tokio::test]
async fn the_events_of_a_topic_made_again_have_other_ids() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "again", 1).await;
    send(&kafka, &topic, &FIVE).await;
    let log = kafka.log(Topic::named(&topic)).await.unwrap();
    let before = log
        .read(ReadLog::after(Position::START))
        .await
        .unwrap()
        .events;
    drop(log);
    kafka.delete_topic(&topic).await.unwrap();
    let spec = annals_kafka::TopicSpec::named(&topic).partitions(1);
    // The name is free a moment after the deletion was acknowledged.
    while kafka.partitions_of(&topic).await.is_ok() {
        tokio::task::yield_now().await;
    }
    kafka.ensure([spec]).await.unwrap();
    send(&kafka, &topic, &FIVE).await;
    let log = kafka.log(Topic::named(&topic)).await.unwrap();
    let after = log
        .read(ReadLog::after(Position::START))
        .await
        .unwrap()
        .events;
    assert_eq!(after.len(), before.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.position, after.position);
        assert_ne!(before.id, after.id);
    }
}

#[tokio::test]
async fn only_the_accepted_number_of_partitions_is_followed() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "grown", 2).await;
    kafka.grow_topic(&topic, 3).await.unwrap();
    // Brokers learn of it one after another.
    let opened = || kafka.log(Topic::named(&topic).accept_more_partitions(2, 3));
    while kafka.partitions_of(&topic).await.unwrap() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(opened().await.unwrap().partitions(), 3);
    for (had, has) in [(9, 3), (2, 4), (1, 2)] {
        let other = Topic::named(&topic).accept_more_partitions(had, has);
        let error = kafka.log(other).await.unwrap_err();
        assert_eq!(error.failure(), Failure::Invalid);
    }
}
