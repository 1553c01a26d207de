//! The keys that a topic has: those whose last record has a value.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use annals_core::StoreError;
use rdkafka::Message as _;
use rdkafka::topic_partition_list::Offset;

use crate::client::{ClientThread, Config, TopicScan};
use crate::kafka::Kafka;

/// Reads the topic once. Memory holds its keys.
pub(super) async fn keys_of(kafka: &Kafka, topic: &str) -> Result<BTreeSet<String>, StoreError> {
    let partitions = kafka.partitions_of(topic).await?;
    let config = kafka.config().clone();
    let thread = ClientThread::start(format!("kafka-keys-{topic}"), || ())?;
    let topic = topic.to_owned();
    thread
        .call(move |()| read(&config, &topic, partitions))
        .await?
}

fn read(config: &Config, topic: &str, partitions: u32) -> Result<BTreeSet<String>, StoreError> {
    let failing = format!("the keys of topic `{topic}` cannot be read");
    let from: Vec<_> = (0..partitions.cast_signed())
        .map(|partition| (partition, Offset::Beginning))
        .collect();
    let mut keys = BTreeSet::new();
    TopicScan::at(topic, &config.reader(), failing)?.records(&from, |message| {
        // What has no key of a row was not written by a state topic.
        if let Some(key) = message.key().and_then(|key| str::from_utf8(key).ok()) {
            match message.payload() {
                Some(_) => _ = keys.insert(key.to_owned()),
                None => _ = keys.remove(key),
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(keys)
}
