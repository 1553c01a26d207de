//! Making topics, or comparing those that are there with what is wanted.

use std::time::{Duration, Instant};

use annals_core::StoreError;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;

use super::spec::TopicSpec;
use crate::client::Context;
use crate::error::{failed, invalid, unavailable};

/// How long the brokers may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// A partition as metadata shows it.
pub(crate) struct Shape {
    pub(crate) partitions: u32,
    replicas: u16,
    has_leaders: bool,
}

/// Makes what is missing, waits until each partition has a leader, and compares the rest.
pub(crate) async fn ensure(
    admin: &AdminClient<Context>,
    topics: &[TopicSpec],
) -> Result<(), StoreError> {
    for topic in topics {
        let name = &topic.name;
        if let Some(shape) = shape_of(admin, name)? {
            compare(admin, topic, &shape).await?;
            continue;
        }
        if topic.must_exist {
            return Err(invalid(format!("there is no topic `{name}`")));
        }
        create(admin, topic).await?;
        let began = Instant::now();
        while !shape_of(admin, name)?.is_some_and(|shape| shape.has_leaders) {
            if began.elapsed() > TIMEOUT {
                return Err(unavailable(format!(
                    "topic `{name}` was made, and not all of its partitions have a leader"
                )));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

async fn create(admin: &AdminClient<Context>, topic: &TopicSpec) -> Result<(), StoreError> {
    let name = &topic.name;
    // -1 is the broker's default.
    let partitions = topic.partitions.map_or(-1, |count| count as i32);
    let replicas = topic.replicas.map_or(-1, i32::from);
    let mut new = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
    for (key, value) in &topic.settings {
        new = new.set(key, value);
    }
    let options = AdminOptions::new()
        .operation_timeout(Some(TIMEOUT))
        .request_timeout(Some(TIMEOUT));
    let doing = format!("topic `{name}` was not made");
    let results = admin
        .create_topics([&new], &options)
        .await
        .map_err(|error| failed(doing.clone(), error))?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => {
                return Err(failed(doing, rdkafka::error::KafkaError::AdminOp(code)));
            }
        }
    }
    Ok(())
}

/// What is there; nothing when there is no such topic.
pub(crate) fn shape_of(
    admin: &AdminClient<Context>,
    name: &str,
) -> Result<Option<Shape>, StoreError> {
    let metadata = admin
        .inner()
        .fetch_metadata(Some(name), TIMEOUT)
        .map_err(|error| failed(format!("topic `{name}` was not found out about"), error))?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return Ok(None);
    };
    let partitions = topic.partitions();
    if topic.error().is_some() && partitions.is_empty() {
        return Ok(None);
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

async fn compare(
    admin: &AdminClient<Context>,
    topic: &TopicSpec,
    shape: &Shape,
) -> Result<(), StoreError> {
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
        let found = settings(admin, name).await?;
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
    admin: &AdminClient<Context>,
    name: &str,
) -> Result<Vec<(String, String)>, StoreError> {
    let doing = || format!("the settings of topic `{name}` were not found out");
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let results = admin
        .describe_configs([&ResourceSpecifier::Topic(name)], &options)
        .await
        .map_err(|error| failed(doing(), error))?;
    let mut settings = Vec::new();
    for result in results {
        let resource =
            result.map_err(|code| failed(doing(), rdkafka::error::KafkaError::AdminOp(code)))?;
        let entries = resource.entries.into_iter();
        settings.extend(entries.filter_map(|entry| Some((entry.name, entry.value?))));
    }
    Ok(settings)
}
