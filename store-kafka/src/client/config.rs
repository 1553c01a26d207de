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

/// Whether a client speaks TLS and SASL.
const PROTOCOL: &str = "security.protocol";

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
        check_password(url, &settings)?;
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

/// Refuses SASL PLAIN, which sends the password itself, without TLS unless somebody has said that
/// there is none.
fn check_password(url: &Url, settings: &[(String, String)]) -> Result<(), StoreError> {
    // Of several the last one counts.
    let last = |name: &str| {
        let mut latest = settings.iter().rev();
        let found = latest.find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    let is_plain = |name: &str| last(name).eq_ignore_ascii_case("plain");
    // Two names of one setting.
    let sends_password = is_plain("sasl.mechanisms") || is_plain("sasl.mechanism");
    let is_open = last(PROTOCOL).eq_ignore_ascii_case("sasl_plaintext");
    // The first one follows from the URL.
    let is_said = url.tls.is_some() || settings.iter().filter(|of| of.0 == PROTOCOL).count() > 1;
    if sends_password && is_open && !is_said {
        return Err(invalid(
            "SASL with `plain` sends the password in clear text to brokers without TLS: add \
             `tls=true` to the Kafka URL, or use `sasl=scram-sha-512`; on a network that is \
             private, say `tls=false`",
        ));
    }
    Ok(())
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

    #[test]
    fn a_password_is_sent_in_clear_text_only_when_said() {
        let connects = |url: &str, more: &[(&str, &str)]| {
            let more = more.iter();
            let more = more.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            Config::new(&Url::parse(url).unwrap(), more)
        };
        let refused = |url: &str, more: &[(&str, &str)]| {
            let error = connects(url, more).unwrap_err();
            assert_eq!(error.failure(), annals_core::Failure::Invalid);
            let error = error.to_string();
            assert!(error.contains("in clear text"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        };
        refused("kafka://me:secret@a?sasl=plain", &[]);
        refused("kafka://me:secret@a", &[("sasl.mechanism", "PLAIN")]);
        refused("kafka://me:secret@a", &[("sasl.mechanisms", "plain")]);
        let taken = |url: &str, more: &[(&str, &str)]| {
            assert!(connects(url, more).is_ok(), "{url} {more:?}");
        };
        taken("kafka://me:secret@a?sasl=plain&tls=true", &[]);
        taken("kafka://me:secret@a?sasl=plain&tls=false", &[]);
        for protocol in ["SASL_SSL", "SASL_PLAINTEXT"] {
            let said = ("security.protocol", protocol);
            taken("kafka://me:secret@a?sasl=plain", &[said]);
        }
        taken("kafka://me:secret@a?sasl=scram-sha-512", &[]);
        taken("kafka://me:secret@a", &[]);
    }
}
