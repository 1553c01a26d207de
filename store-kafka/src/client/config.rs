//! The settings of each kind of client: those that keep promises are fixed, the rest is the user's.

use std::fmt;

use annals_core::StoreError;
use rdkafka::ClientConfig;

use crate::error::invalid;
use crate::url::Url;

/// Settings that carry a promise: they follow from what a client is for.
const FIXED: [&str; 8] = [
    "acks",
    "auto.offset.reset",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "isolation.level",
    "transactional.id",
];

/// How long a transaction may take until the broker aborts it.
pub(crate) const TRANSACTION_TIMEOUT_MS: u64 = 10_000;

/// Bytes of one record of a store, with its headers.
#[cfg(feature = "store")]
pub(crate) const STORE_RECORD_BYTES_MAX: u64 = 4 << 20;

/// What all clients of a connection share.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) shown: String,
    settings: Vec<(String, String)>,
}

/// Without the settings, which hold the password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Config {
    pub(crate) fn new(
        url: &Url,
        more: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, StoreError> {
        let mut settings = url.settings();
        for (key, value) in more {
            if FIXED.contains(&key.as_str()) {
                return Err(invalid(format!(
                    "`{key}` follows from what a client is used for and cannot be set"
                )));
            }
            settings.push((key, value));
        }
        Ok(Config {
            shown: url.shown(),
            settings,
        })
    }

    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("topic.metadata.refresh.interval.ms", "60000");
        for (key, value) in &self.settings {
            config.set(key, value);
        }
        config
    }

    /// For metadata and the making of topics.
    pub(crate) fn admin(&self) -> ClientConfig {
        self.base()
    }

    /// For reading what was committed, at offsets that are given.
    pub(crate) fn reader(&self) -> ClientConfig {
        self.consumer("read_committed")
    }

    /// For seeing where a partition ends, open transactions included.
    pub(crate) fn uncommitted_reader(&self) -> ClientConfig {
        self.consumer("read_uncommitted")
    }

    fn consumer(&self, isolation: &str) -> ClientConfig {
        let mut config = self.base();
        config
            // Assigning partitions takes a name, and nothing is ever committed under this one.
            .set("group.id", "annals.reader")
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("check.crcs", "true")
            .set("queued.max.messages.kbytes", "4096")
            // What one answer brings is in memory at once, unpacked: JSON may be 30 times as large.
            .set("fetch.message.max.bytes", "262144")
            .set("queued.min.messages", "10000")
            // How long a full queue is left alone: the default is a second.
            .set("fetch.queue.backoff.ms", "10")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "100");
        config
    }

    /// For a member of a group.
    pub(crate) fn member(&self, group: &str, instance: Option<&str>) -> ClientConfig {
        let mut config = self.consumer("read_committed");
        config
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("partition.assignment.strategy", "cooperative-sticky");
        if let Some(instance) = instance {
            config.set("group.instance.id", instance);
        }
        config
    }

    /// For records that are sent one by one.
    pub(crate) fn publisher(&self) -> ClientConfig {
        let mut config = self.base();
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("partitioner", "murmur2_random");
        config
    }

    /// For the partitions of a store.
    #[cfg(feature = "store")]
    pub(crate) fn store_writer(&self, id: &str) -> ClientConfig {
        let mut config = self.transactional(id);
        config.set("message.max.bytes", STORE_RECORD_BYTES_MAX.to_string());
        config
    }

    /// For batches that are taken as a whole.
    pub(crate) fn transactional(&self, id: &str) -> ClientConfig {
        let mut config = self.publisher();
        let timeout = TRANSACTION_TIMEOUT_MS.to_string();
        config
            .set("linger.ms", "0")
            .set("transactional.id", id)
            .set("transaction.timeout.ms", &timeout)
            .set("message.timeout.ms", &timeout);
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_keeps_a_promise_cannot_be_changed() {
        let url = Url::parse("kafka://a").unwrap();
        let set = |key: &str| Config::new(&url, [(key.to_owned(), "x".to_owned())]);
        assert!(
            set("acks")
                .unwrap_err()
                .to_string()
                .starts_with("`acks` follows")
        );
        let config = set("statistics.interval.ms").unwrap();
        assert_eq!(config.reader().get("statistics.interval.ms"), Some("x"));
    }
}
