//! A topic that is read: how a record becomes an event, and where reading begins.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Partition, Position};

use super::gaps::Gaps;
use super::key::category_of_topic;
use super::mapping::{Mapping, TimeRule, TypeRule};
use crate::murmur2::murmur2_partition;
use crate::topic::Record;

/// How the producers of a topic choose the partition of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Partitioner {
    /// As Java's clients do, and this crate.
    Murmur2,
    /// In some other way.
    Unknown,
}

/// The unit of a time that a payload has as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum TimeUnit {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
    /// Microseconds since 1970.
    Micros,
}

/// A topic to be read, and how its records become events.
///
/// Nothing but the name has to be said: a record is then an event of type `kafka.record`, a
/// tombstone one of type `kafka.tombstone`, with the value as payload. It happened when the header
/// `ce_time` says, which relays and pipelines write; without it, at the record's time.
///
/// ```
/// use annals_kafka::{TimeUnit, Topic};
///
/// let orders = Topic::named("orders")
///     .every_record_is("orders.placed")
///     .tombstones_are("orders.removed")
///     .time_in_field("/placed_at", TimeUnit::Millis)
///     .group("sales");
/// ```
#[derive(Clone)]
#[must_use]
pub struct Topic {
    pub(crate) name: String,
    pub(crate) mapping: Mapping,
    pub(crate) partitioner: Partitioner,
    pub(crate) group: Option<String>,
    pub(crate) instance: Option<String>,
    pub(crate) begins: Begins,
    pub(crate) gaps: Gaps,
    pub(crate) grown: Option<(u32, u32)>,
}

/// Where the log of a topic begins for everybody who reads it through this description.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Begins {
    /// At its first record, which must still be there.
    First,
    /// At the first record that is left when a view begins.
    WhatIsLeft,
    /// After these positions.
    After(BTreeMap<Partition, Position>),
    /// At the first record of this time.
    Time(DateTime<Utc>),
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic")
            .field("name", &self.name)
            .field("group", &self.group)
            .field("begins", &self.begins)
            .finish_non_exhaustive()
    }
}

impl Topic {
    /// The topic of this name, from its first record on.
    pub fn named(name: impl Into<String>) -> Topic {
        let name = name.into();
        Topic {
            mapping: Mapping::new(category_of_topic(&name)),
            name,
            partitioner: Partitioner::Murmur2,
            group: None,
            instance: None,
            begins: Begins::First,
            gaps: Gaps::default(),
            grown: None,
        }
    }

    /// Every record with a value is an event of this type.
    pub fn every_record_is(mut self, event_type: impl Into<Arc<str>>) -> Topic {
        self.mapping.types = TypeRule::Every(event_type.into());
        self
    }

    /// Every record without a value is an event of this type, with the payload `null`.
    pub fn tombstones_are(mut self, event_type: impl Into<Arc<str>>) -> Topic {
        self.mapping.tombstones = event_type.into();
        self
    }

    /// Every record whose value is no JSON is an event of this type, whatever else says its type. A
    /// view that does not handle it passes over them; without this, they stop it.
    pub fn not_json_is(mut self, event_type: impl Into<Arc<str>>) -> Topic {
        self.mapping.not_json = Some(event_type.into());
        self
    }

    /// This header holds the type. A record without it is of type `kafka.record`.
    pub fn type_in_header(mut self, name: impl Into<String>) -> Topic {
        self.mapping.types = TypeRule::Header(name.into());
        self
    }

    /// The type is the text at this place (a JSON pointer such as `/kind`) of a JSON value. A
    /// record that has none there is of type `kafka.record`.
    pub fn type_in_field(mut self, pointer: impl Into<String>) -> Topic {
        self.mapping.types = TypeRule::Field(pointer.into());
        self
    }

    /// The type is what the function says; where it says nothing, `kafka.record`.
    pub fn type_by(
        mut self,
        rule: impl Fn(&Record<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Topic {
        self.mapping.types = TypeRule::By(Arc::new(rule));
        self
    }

    /// Records are CloudEvents in binary mode, as a relay writes them: ids, streams, versions,
    /// times, metadata and tags come back as they left. A record that is none is of type
    /// `kafka.record`.
    pub fn cloud_events(mut self) -> Topic {
        self.mapping.types = TypeRule::CloudEvents;
        self
    }

    /// The first part of the streams' names, up to the `-`. It is the topic's name unless said
    /// otherwise.
    pub fn category(mut self, category: &str) -> Topic {
        self.mapping.category = category_of_topic(category);
        self
    }

    /// The codec of the values: `json` unless said otherwise.
    pub fn codec(mut self, codec: impl Into<Arc<str>>) -> Topic {
        self.mapping.codec = codec.into();
        self
    }

    /// When it happened is what the function says, in milliseconds since 1970; where it says
    /// nothing, the record's time.
    pub fn time_by(
        mut self,
        rule: impl Fn(&Record<'_>) -> Option<i64> + Send + Sync + 'static,
    ) -> Topic {
        self.mapping.time = TimeRule::By(Arc::new(rule));
        self
    }

    /// When it happened is the number, or the RFC 3339 text, at this place (a JSON pointer) of a
    /// JSON value; where there is none, the record's time.
    pub fn time_in_field(mut self, pointer: impl Into<String>, unit: TimeUnit) -> Topic {
        self.mapping.time = TimeRule::Field(pointer.into(), unit);
        self
    }

    /// How its producers choose the partition of a key.
    pub fn partitioned_by(mut self, partitioner: Partitioner) -> Topic {
        self.partitioner = partitioner;
        self
    }

    /// Joins this consumer group: other people's tools see who reads the topic, and the slots of
    /// views and pipelines are worked on by the processes that the group gives its partitions to,
    /// slot *n* by that of partition *n* (beginning again where there are fewer partitions). So the
    /// programs of a group have the same views, and one leaves it when its last handle is dropped.
    /// Leases and checkpoints decide; the offsets of the group decide nothing.
    pub fn group(mut self, group: impl Into<String>) -> Topic {
        self.group = Some(group.into());
        self
    }

    /// A name for this process that it has again after a restart: when it is back within the
    /// group's session timeout, no partition moves.
    pub fn instance(mut self, instance: impl Into<String>) -> Topic {
        self.instance = Some(instance.into());
        self
    }

    /// Begins at whatever is left of a topic that has forgotten its first records.
    ///
    /// Without this, a view that begins is stopped when records were removed before it read them.
    pub fn from_what_is_left(mut self) -> Topic {
        self.begins = Begins::WhatIsLeft;
        self
    }

    /// Begins at these offsets, one for each partition that does not begin at its first record.
    /// Rebuilds begin there too.
    pub fn from_offsets(mut self, offsets: impl IntoIterator<Item = (Partition, u64)>) -> Topic {
        let offsets = offsets.into_iter();
        let after = offsets.map(|(partition, offset)| (partition, Position::new(offset)));
        self.begins = Begins::After(after.collect());
        self
    }

    /// Begins at the first record of this time. Rebuilds begin there too.
    pub fn from_time(mut self, time: DateTime<Utc>) -> Topic {
        self.begins = Begins::Time(time);
        self
    }

    /// Continues after records that were removed before a view had read them: those of `partition`
    /// up to and with position `up_to`. The reason is logged whenever the gap is passed.
    ///
    /// The error that stops a view names both numbers.
    pub fn accept_gap(
        mut self,
        partition: Partition,
        up_to: Position,
        reason: impl Into<String>,
    ) -> Topic {
        self.gaps.accept(partition, up_to, reason.into());
        self
    }

    /// Reads on although the topic had only so many partitions when its views began, and has more
    /// now: exactly as many as are named, so that the next change is not accepted with this one.
    /// Keys have moved to other partitions, so what a key did before a change may be read after
    /// what it did later.
    ///
    /// Views, reactors and processes that began with `had` partitions or more go on; those that
    /// began with fewer stop, as without it. A pipeline stops whatever is accepted, because its
    /// clocks are those of the partitions that it began with.
    pub fn accept_more_partitions(mut self, had: u32, has: u32) -> Topic {
        self.grown = Some((had, has));
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The partition in which a key's records are, where that is known.
    pub(crate) fn partition_of_key(&self, key: &[u8], partitions: u32) -> Option<Partition> {
        match self.partitioner {
            Partitioner::Murmur2 => Some(Partition(murmur2_partition(key, partitions))),
            Partitioner::Unknown => None,
        }
    }
}
