//! The topic of all marks: made when it is missing, and refused when it would lose marks.

use annals_core::{Failure, StoreError};

use super::mark;
use crate::error::invalid;
use crate::kafka::Kafka;
use crate::topic::{TopicSpec, ensure};

/// What decides about records that are old.
const CLEANUP: &str = "cleanup.policy";

/// How many partitions it has. It may be there with other settings than those that it is made
/// with, which are an operator's choice; but it must keep the last mark of each outlet for ever.
pub(super) async fn partitions(kafka: &Kafka) -> Result<u32, StoreError> {
    if ensure::shape_of(kafka, mark::TOPIC).await?.is_none() {
        let marks = TopicSpec::named(mark::TOPIC)
            .partitions(mark::PARTITIONS)
            .setting("segment.bytes", (16 << 20).to_string())
            .compacted();
        kafka.ensure([marks]).await?;
    }
    let partitions = kafka.partitions_of(mark::TOPIC).await?;
    let settings = ensure::settings(kafka, mark::TOPIC)
        .await
        .map_err(|error| match error.failure() {
            Failure::Invalid => invalid(format!(
                "whether topic `{}` keeps marks for ever cannot be seen: allow this user \
                 `DescribeConfigs` on it",
                mark::TOPIC
            ))
            .because(error),
            _ => error,
        })?;
    check(&settings)?;
    Ok(partitions)
}

/// Refuses a topic that removes marks by their age, or by what they take.
fn check(settings: &[(String, String)]) -> Result<(), StoreError> {
    let found = settings.iter().find(|(key, _)| key == CLEANUP);
    let found = found.map_or("", |(_, value)| value.as_str());
    if found == "compact" {
        return Ok(());
    }
    Err(invalid(format!(
        "topic `{topic}` loses marks (`{CLEANUP}={found}`, `compact` wanted), and what was \
         published would be published again: set it with `kafka-configs.sh --bootstrap-server … \
         --alter --entity-type topics --entity-name {topic} --add-config {CLEANUP}=compact`",
        topic = mark::TOPIC
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_only_kept_where_nothing_but_compaction_removes() {
        let with = |value: &str| check(&[(CLEANUP.to_owned(), value.to_owned())]);
        assert!(with("compact").is_ok());
        for value in ["delete", "compact,delete", "delete,compact", ""] {
            let said = with(value).unwrap_err().to_string();
            assert!(said.contains(&format!("`{CLEANUP}={value}`")), "{said}");
            assert!(
                said.contains(&format!("--add-config {CLEANUP}=compact")),
                "{said}"
            );
        }
    }
}
