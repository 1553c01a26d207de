//! The topic of a store: how it is made, and what is demanded of one that is there.

use annals_core::{LogId, StoreError};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::options::{Options, Owns};
use crate::client::STORE_RECORD_BYTES_MAX;
use crate::error::invalid;
use crate::kafka::Kafka;
use crate::topic::{TopicSpec, ensure};

/// Makes the topic when it is missing, and says how many partitions it has.
pub(super) async fn open(kafka: &Kafka, options: &Options) -> Result<u32, StoreError> {
    let name = &options.name;
    let is_missing = ensure::shape_of(kafka, name).await?.is_none();
    if is_missing && options.owns == Owns::None {
        return Err(invalid(format!(
            "there is no topic `{name}`; a process that owns partitions of it makes it"
        )));
    }
    if is_missing {
        let mut spec = TopicSpec::named(name)
            .partitions(options.partitions)
            .keep_for_ever()
            .setting("unclean.leader.election.enable", "false")
            .setting("max.message.bytes", STORE_RECORD_BYTES_MAX.to_string());
        if let Some(replicas) = options.replicas {
            spec = spec
                .replicas(replicas)
                .setting("min.insync.replicas", (replicas / 2 + 1).to_string());
        }
        kafka.ensure([spec]).await?;
    }
    let Some(shape) = ensure::shape_of(kafka, name).await? else {
        return Err(invalid(format!("there is no topic `{name}`")));
    };
    let settings = ensure::settings(kafka, name).await?;
    check(name, shape.replicas, &settings, options.relaxed_durability)?;
    if options.owns != Owns::None {
        match ensure::of_brokers(kafka, VERIFIES).await? {
            Ok(found) => check_brokers(&found)?,
            // A user that may not read the settings of brokers has to know them.
            Err(error) => {
                tracing::debug!(%error, "`{VERIFIES}` of the brokers was not found out");
            }
        }
    }
    Ok(shape.partitions)
}

/// Whether a broker asks the coordinator before it takes a record of a transaction.
const VERIFIES: &str = "transaction.partition.verification.enable";

/// Refuses brokers that would take a late record of a writer that was fenced: no reader would ever
/// see it or get past it.
fn check_brokers(found: &[(i32, String)]) -> Result<(), StoreError> {
    match found.iter().find(|(_, value)| value == "false") {
        Some((broker, _)) => Err(invalid(format!(
            "broker {broker} takes records of transactions that are not open: set \
             `{VERIFIES}=true`"
        ))),
        None => Ok(()),
    }
}

/// Refuses a topic that would forget, or lose, what it acknowledged.
fn check(
    name: &str,
    replicas: u16,
    settings: &[(String, String)],
    is_relaxed: bool,
) -> Result<(), StoreError> {
    let setting = |key: &str| {
        let found = settings.iter().find(|(known, _)| known == key);
        found.map_or("", |(_, value)| value.as_str())
    };
    let number = |key: &str| setting(key).parse::<i64>().unwrap_or(0);
    if setting("cleanup.policy") != "delete" {
        return Err(invalid(format!(
            "topic `{name}` forgets records by their keys (`cleanup.policy={}`), an event store \
             keeps them for ever: set `cleanup.policy=delete`, `retention.ms=-1` and \
             `retention.bytes=-1`, or name another topic",
            setting("cleanup.policy")
        )));
    }
    if number("retention.ms") != -1 {
        let days = number("retention.ms") / 86_400_000;
        return Err(invalid(format!(
            "topic `{name}` keeps records for {days} days (`retention.ms={}`), an event store \
             keeps them for ever: set `retention.ms=-1` and `retention.bytes=-1`",
            setting("retention.ms")
        )));
    }
    if number("retention.bytes") != -1 {
        return Err(invalid(format!(
            "topic `{name}` keeps {} bytes a partition (`retention.bytes`), an event store keeps \
             everything: set `retention.bytes=-1`",
            setting("retention.bytes")
        )));
    }
    let bytes = number("max.message.bytes");
    if bytes < STORE_RECORD_BYTES_MAX.cast_signed() {
        return Err(invalid(format!(
            "topic `{name}` takes records of up to {bytes} bytes, an event may need \
             {STORE_RECORD_BYTES_MAX}: set `max.message.bytes={STORE_RECORD_BYTES_MAX}`"
        )));
    }
    if is_relaxed {
        return Ok(());
    }
    let wanted = i64::from(replicas / 2 + 1);
    let found = number("min.insync.replicas");
    if found < wanted {
        return Err(invalid(format!(
            "topic `{name}` may lose what it acknowledged: `min.insync.replicas={found}` of \
             {replicas} replicas; set it to {wanted}, or say `relaxed_durability`"
        )));
    }
    if setting("unclean.leader.election.enable") == "true" {
        return Err(invalid(format!(
            "topic `{name}` may lose what it acknowledged: set \
             `unclean.leader.election.enable=false`, or say `relaxed_durability`"
        )));
    }
    Ok(())
}

/// What makes a topic the log that it is.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) cluster: String,
    pub(super) name: String,
    pub(super) partitions: u32,
}

impl Identity {
    pub(super) fn log(&self) -> LogId {
        self.log_with(self.partitions)
    }

    /// The log that it was with another number of partitions.
    pub(super) fn log_with(&self, partitions: u32) -> LogId {
        log_id(&self.cluster, &self.name, partitions)
    }
}

/// The id of the log: another cluster, another name or another count of partitions is another log.
fn log_id(cluster: &str, topic: &str, partitions: u32) -> LogId {
    let mut hash = Sha256::new();
    for part in [b"store".as_slice(), cluster.as_bytes(), topic.as_bytes()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(partitions.to_be_bytes());
    let whole: [u8; 32] = hash.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&whole[..16]);
    LogId::from_uuid(Uuid::new_v8(half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_may_lose_records_is_refused() {
        let good = [
            ("cleanup.policy", "delete"),
            ("retention.ms", "-1"),
            ("retention.bytes", "-1"),
            ("max.message.bytes", "4194304"),
            ("min.insync.replicas", "2"),
            ("unclean.leader.election.enable", "false"),
        ];
        let with = |key: &str, value: &str| -> Vec<(String, String)> {
            let settings = good.iter().map(|(known, was)| {
                let value = if *known == key { value } else { was };
                ((*known).to_owned(), value.to_owned())
            });
            settings.collect()
        };
        assert!(check("bank", 3, &with("", ""), false).is_ok());
        for (key, value, said) in [
            ("cleanup.policy", "compact", "cleanup.policy=compact"),
            ("retention.ms", "604800000", "keeps records for 7 days"),
            ("retention.bytes", "9", "retention.bytes=-1"),
            ("max.message.bytes", "1048588", "max.message.bytes=4194304"),
            ("min.insync.replicas", "1", "min.insync.replicas=1"),
            ("unclean.leader.election.enable", "true", "unclean.leader"),
        ] {
            let error = check("bank", 3, &with(key, value), false).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
        let brokers = |value: &str| vec![(1, "true".to_owned()), (2, value.to_owned())];
        assert!(check_brokers(&brokers("true")).is_ok());
        let error = check_brokers(&brokers("false")).unwrap_err();
        assert!(error.to_string().starts_with("broker 2 takes"), "{error}");
        let weak = with("min.insync.replicas", "1");
        assert!(check("bank", 3, &weak, true).is_ok());
        assert!(check("bank", 1, &weak, false).is_ok());
    }
}
