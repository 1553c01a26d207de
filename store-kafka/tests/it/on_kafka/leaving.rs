//! A program that ends is no member of its group any more.

use std::process::Command;
use std::time::Duration;

use annals_kafka::{Topic, left_groups};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::broker::{TIMEOUT, kafka, topic, url};

/// What is started as a program of its own, and what it is told.
const JOINS: &str = "on_kafka::leaving::joins_and_ends_when_it_is_asked_to";
const TOPIC: &str = "ANNALS_KAFKA_JOINS";

#[tokio::test]
#[ignore = "it is the program that another test starts"]
async fn joins_and_ends_when_it_is_asked_to() {
    let topic = std::env::var(TOPIC).unwrap();
    let log = kafka().await.log(Topic::named(&topic).group(&topic)).await;
    let log = log.unwrap();
    let mut assigned = log.group().unwrap().assignment();
    let joined = assigned.wait_for(|assignment| assignment.partitions.len() == 2);
    tokio::time::timeout(TIMEOUT, joined)
        .await
        .unwrap()
        .unwrap();
    assert!(!left_groups(Duration::ZERO).await);
    drop(log);
    assert!(left_groups(TIMEOUT).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ends_leaves_its_group() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "left", 2).await;
    let mut program = Command::new(std::env::current_exe().unwrap());
    program
        .args(["--exact", JOINS, "--ignored"])
        .env(TOPIC, &topic);
    let ended = tokio::task::spawn_blocking(move || program.output().unwrap());
    let ended = ended.await.unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(
        ended.status.success() && said.contains("1 passed"),
        "{said}"
    );
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", url().trim_start_matches("kafka://"))
        .create()
        .unwrap();
    let groups = consumer.fetch_group_list(Some(&topic), TIMEOUT).unwrap();
    let members = groups.groups().iter().map(|group| group.members().len());
    assert_eq!(members.sum::<usize>(), 0);
}
