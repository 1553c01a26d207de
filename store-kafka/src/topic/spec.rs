//! What a topic should be like.

use std::time::Duration;

/// A topic to be made, or demanded as it is.
///
/// ```
/// use std::time::Duration;
///
/// use annals_kafka::TopicSpec;
///
/// let clicks = TopicSpec::named("clicks").partitions(6).keep_for(Duration::from_secs(604_800));
/// let balances = TopicSpec::named("balances").partitions(12).replicas(3).compacted();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    pub(crate) name: String,
    pub(crate) partitions: Option<u32>,
    pub(crate) replicas: Option<u16>,
    /// Settings of the topic, in the order in which they were said.
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) must_exist: bool,
}

impl TopicSpec {
    /// A topic with the broker's defaults.
    pub fn named(name: impl Into<String>) -> TopicSpec {
        TopicSpec {
            name: name.into(),
            partitions: None,
            replicas: None,
            settings: Vec::new(),
            must_exist: false,
        }
    }

    /// A topic that is there, taken as it is.
    pub fn existing(name: impl Into<String>) -> TopicSpec {
        TopicSpec {
            must_exist: true,
            ..TopicSpec::named(name)
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// With so many partitions.
    #[must_use]
    pub fn partitions(mut self, count: u32) -> TopicSpec {
        self.partitions = Some(count);
        self
    }

    /// With so many replicas of each partition. Of three or more, most must have a record before
    /// it is acknowledged.
    #[must_use]
    pub fn replicas(mut self, count: u16) -> TopicSpec {
        self.replicas = Some(count);
        if count > 2 {
            return self.setting("min.insync.replicas", (count / 2 + 1).to_string());
        }
        self
    }

    /// Keeps the last record of each key, and forgets keys whose last record has no value.
    #[must_use]
    pub fn compacted(self) -> TopicSpec {
        self.setting("cleanup.policy", "compact")
    }

    /// Removes records that are older than this.
    #[must_use]
    pub fn keep_for(self, age: Duration) -> TopicSpec {
        self.setting("cleanup.policy", "delete")
            .setting("retention.ms", age.as_millis().to_string())
    }

    /// Removes nothing.
    #[must_use]
    pub fn keep_for_ever(self) -> TopicSpec {
        self.setting("cleanup.policy", "delete")
            .setting("retention.ms", "-1")
            .setting("retention.bytes", "-1")
    }

    /// With any setting that a topic has; the last one of a name counts.
    #[must_use]
    pub fn setting(mut self, key: impl Into<String>, value: impl Into<String>) -> TopicSpec {
        let key = key.into();
        self.settings.retain(|(known, _)| *known != key);
        self.settings.push((key, value.into()));
        self
    }
}
