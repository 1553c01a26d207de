//! Making topics, or comparing those that are there with what is wanted.

use std::time::Duration;

use annals_core::StoreError;
use rdkafka::admin::{AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::name::{NAME_BYTES_MAX, check_name};
use super::spec::TopicSpec;
use crate::error::{code_of, failed, invalid, is_unknown_topic};
use crate::kafka::{Admin, Kafka};

/// How long the brokers may take until a topic is as wanted.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A partition as metadata shows it.
pub(crate) struct Shape {
    pub(crate) partitions: u32,
    pub(crate) replicas: u16,
    has_leaders: bool,
}

/// Makes what is missing, waits until each partition has a leader, and compares the rest.
pub(crate) async fn ensure(kafka: &Kafka, topic: &TopicSpec) -> Result<(), StoreError> {
    let name = &topic.name;
    if let Some(shape) = shape_of(kafka, name).await? {
        return compare(kafka, topic, &shape).await;
    }
    if topic.must_exist {
        return Err(invalid(format!("there is no topic `{name}`")));
    }
    let wanted = topic.clone();
    let made = kafka
        .ask(TIMEOUT, move |admin, within| create(admin, &wanted, within))
        .await?;
    made.map_err(|error| not_made(topic, error))?;
    kafka.note_seen(name);
    let wanted = topic.clone();
    let led = kafka
        .ask(TIMEOUT, move |admin, within| {
            let shape = look(admin, &wanted.name, within)?;
            let code = match shape {
                Some(shape) if shape.has_leaders => return Ok(()),
                Some(_) => RDKafkaErrorCode::LeaderNotAvailable,
                None => RDKafkaErrorCode::UnknownTopicOrPartition,
            };
            Err(KafkaError::MetadataFetch(code))
        })
        .await?;
    led.map_err(|error| {
        let doing = format!("topic `{name}` was made, and not all of its partitions have a leader");
        failed(doing, error)
    })
}

/// A topic that cannot be made as it is wanted, with what was asked for.
fn not_made(topic: &TopicSpec, error: KafkaError) -> StoreError {
    let name = &topic.name;
    let partitions = topic
        .partitions
        .map(|count| format!("`partitions={count}`"));
    let replicas = topic.replicas.map(|count| format!("`replicas={count}`"));
    let asked: Vec<String> = partitions.into_iter().chain(replicas.clone()).collect();
    let is_too_few = code_of(&error) == Some(RDKafkaErrorCode::InvalidReplicationFactor);
    if let Some(replicas) = replicas.filter(|_| is_too_few) {
        return invalid(format!(
            "topic `{name}` was not made: {replicas} needs as many brokers, and fewer run; start \
             the others, or ask for fewer replicas"
        ))
        .because(error);
    }
    match asked.is_empty() {
        true => failed(format!("topic `{name}` was not made"), error),
        false => {
            let asked = asked.join(" and ");
            failed(format!("topic `{name}` was not made with {asked}"), error)
        }
    }
}

fn create(admin: &mut Admin, topic: &TopicSpec, within: Duration) -> KafkaResult<()> {
    // -1 is the broker's default.
    let partitions = topic.partitions.map_or(-1, |count| count as i32);
    let replicas = topic.replicas.map_or(-1, i32::from);
    let mut new = NewTopic::new(&topic.name, partitions, TopicReplication::Fixed(replicas));
    for (key, value) in &topic.settings {
        new = new.set(key, value);
    }
    let options = AdminOptions::new()
        .operation_timeout(Some(within))
        .request_timeout(Some(within));
    let creating = admin.client.create_topics([&new], &options);
    for result in admin.runtime.block_on(creating)? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(KafkaError::AdminOp(code)),
        }
    }
    Ok(())
}

/// What is there; nothing when there is no such topic.
///
/// One that was there before is asked for again: a broker may not have heard of it yet.
pub(crate) async fn shape_of(kafka: &Kafka, name: &str) -> Result<Option<Shape>, StoreError> {
    check_name(name, NAME_BYTES_MAX)?;
    let topic = name.to_owned();
    let was_there = kafka.has_seen(name);
    let found = kafka
        .ask(TIMEOUT, move |admin, within| {
            match look(admin, &topic, within)? {
                None if was_there => Err(KafkaError::MetadataFetch(
                    RDKafkaErrorCode::UnknownTopicOrPartition,
                )),
                found => Ok(found),
            }
        })
        .await?;
    match found {
        Ok(Some(shape)) => {
            kafka.note_seen(name);
            Ok(Some(shape))
        }
        Ok(None) => Ok(None),
        Err(error) if is_unknown_topic(&error) => {
            kafka.forget(name);
            Ok(None)
        }
        Err(error) => Err(failed(
            format!("topic `{name}` was not found out about"),
            error,
        )),
    }
}

fn look(admin: &mut Admin, name: &str, within: Duration) -> KafkaResult<Option<Shape>> {
    let metadata = admin.client.inner().fetch_metadata(Some(name), within)?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return Ok(None);
    };
    let partitions = topic.partitions();
    if let Some(code) = topic.error().filter(|_| partitions.is_empty()) {
        let error = KafkaError::MetadataFetch(code.into());
        return match is_unknown_topic(&error) {
            true => Ok(None),
            false => Err(error),
        };
    }
    Ok(Some(Shape {
        partitions: partitions.len() as u32,
        replicas: partitions
            .first()
            .map_or(0, |first| first.replicas().len() as u16),
        has_leaders: !partitions.is_empty()
            && partitions.iter().all(|partition| partition.leader() >= 0),
    }))
}

async fn compare(kafka: &Kafka, topic: &TopicSpec, shape: &Shape) -> Result<(), StoreError> {
    let name = &topic.name;
    let mut differs = Vec::new();
    if let Some(wanted) = topic.partitions
        && wanted != shape.partitions
    {
        differs.push(format!("{} partitions ({wanted} wanted)", shape.partitions));
    }
    if let Some(wanted) = topic.replicas
        && wanted != shape.replicas
    {
        differs.push(format!("{} replicas ({wanted} wanted)", shape.replicas));
    }
    if !topic.settings.is_empty() {
        let found = settings(kafka, name).await?;
        for (key, wanted) in &topic.settings {
            let value = found.iter().find(|(known, _)| known == key);
            let value = value.map_or("", |(_, value)| value.as_str());
            if value != wanted {
                differs.push(format!("`{key}={value}` ({wanted} wanted)"));
            }
        }
    }
    if differs.is_empty() {
        return Ok(());
    }
    Err(invalid(format!(
        "topic `{name}` is not as wanted: {}. Nothing was changed. Take it as it is with \
         `TopicSpec::existing`, or name another",
        differs.join(", ")
    )))
}

/// All settings of a topic.
pub(crate) async fn settings(
    kafka: &Kafka,
    name: &str,
) -> Result<Vec<(String, String)>, StoreError> {
    let topic = name.to_owned();
    let found = kafka
        .ask(TIMEOUT, move |admin, within| {
            let settings = described(admin, &ResourceSpecifier::Topic(&topic), within)?;
            // The broker that was asked has not heard of the topic yet.
            if settings.is_empty() {
                let code = RDKafkaErrorCode::UnknownTopicOrPartition;
                return Err(KafkaError::MetadataFetch(code));
            }
            Ok(settings)
        })
        .await?;
    found.map_err(|error| {
        let doing = format!("the settings of topic `{name}` were not found out");
        failed(doing, error)
    })
}

/// A setting of each broker, with the broker's number; nothing of those that do not know it.
#[cfg(feature = "store")]
pub(crate) async fn of_brokers(
    kafka: &Kafka,
    setting: &'static str,
) -> KafkaAnswer<Vec<(i32, String)>> {
    kafka
        .ask(TIMEOUT, move |admin, within| {
            let metadata = admin.client.inner().fetch_metadata(None, within)?;
            let mut found = Vec::new();
            for broker in metadata.brokers() {
                let settings = described(admin, &ResourceSpecifier::Broker(broker.id()), within)?;
                let mut settings = settings.into_iter();
                let value = settings.find(|(name, _)| name == setting);
                found.extend(value.map(|(_, value)| (broker.id(), value)));
            }
            Ok(found)
        })
        .await
}

/// What the brokers said, or why they were not asked.
#[cfg(feature = "store")]
type KafkaAnswer<T> = Result<KafkaResult<T>, StoreError>;

fn described(
    admin: &mut Admin,
    of: &ResourceSpecifier<'_>,
    within: Duration,
) -> KafkaResult<Vec<(String, String)>> {
    let options = AdminOptions::new().request_timeout(Some(within));
    let describing = admin.client.describe_configs([of], &options);
    let mut settings = Vec::new();
    for result in admin.runtime.block_on(describing)? {
        let entries = result.map_err(KafkaError::AdminOp)?.entries.into_iter();
        settings.extend(entries.filter_map(|entry| Some((entry.name, entry.value?))));
    }
    Ok(settings)
}
