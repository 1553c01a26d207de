//! The keys that a topic has: those whose last record has a value.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use annals_core::StoreError;
use rdkafka::Message as _;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::client::{ClientThread, Config, Context};
use crate::error::{failed, unavailable};
use crate::kafka::{ANSWER, Kafka};

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
    let doing = || format!("the keys of topic `{topic}` cannot be read");
    let error = |error| failed(doing(), error);
    let consumer: BaseConsumer<Context> =
        BaseConsumer::from_config_and_context(&config.reader(), Context::default())
            .map_err(error)?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions as i32 {
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .map_err(error)?;
    }
    consumer.assign(&list).map_err(error)?;
    let mut keys = BTreeSet::new();
    let mut ended = BTreeSet::new();
    let mut heard = Instant::now();
    while ended.len() < partitions as usize {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                // What has no key of a row was not written by a state topic.
                let Some(key) = message.key().and_then(|key| str::from_utf8(key).ok()) else {
                    continue;
                };
                match message.payload() {
                    Some(_) => _ = keys.insert(key.to_owned()),
                    None => _ = keys.remove(key),
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => _ = ended.insert(partition),
            Some(Err(problem)) if heard.elapsed() > ANSWER => return Err(error(problem)),
            None if heard.elapsed() > ANSWER => return Err(unavailable(doing())),
            Some(Err(_)) | None => {}
        }
    }
    Ok(keys)
}
