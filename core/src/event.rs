//! Events as bytes: what a caller hands to a store, and what the store gives back.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, SubsecRound, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::clock::{Clock, SystemClock};
use crate::error::Invalid;
use crate::position::{Partition, Position};
use crate::stream::{StreamId, Version};
use crate::tag::Tag;

/// Names an event for ever; a repeated append is deduplicated by the ids of its events.
///
/// A UUIDv7, [derived](EventId::derived) from a request (a UUIDv8), or
/// [caused](EventId::caused_by) by another event. Any UUIDv8 is taken as derived.
///
/// ```
/// use annals_core::{EventId, StreamId};
///
/// let stream = StreamId::new("account-alice")?;
/// assert_eq!(EventId::derived(&stream, "req-42", 0), EventId::derived(&stream, "req-42", 0));
/// assert!(EventId::derived(&stream, "req-42", 0).is_derived());
/// assert!(!EventId::random().is_derived());
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(Uuid);

impl EventId {
    /// A new UUIDv7, later than those this process made before.
    pub fn random() -> EventId {
        EventId(Uuid::now_v7())
    }

    /// The id of the `index`-th event that the request `key` appends to `stream`: the same for
    /// every try.
    pub fn derived(stream: &StreamId, key: &str, index: u32) -> EventId {
        EventId(Uuid::new_v8(named(stream, key, index)))
    }

    /// The id of the `index`-th event that `cause` leads to in `stream`, whatever else is
    /// appended with it (a UUIDv5).
    ///
    /// Unlike the [derived](EventId::derived) ids of a request it identifies this one event: an
    /// append in which some of such ids are known is refused, and so is one with other content.
    ///
    /// ```
    /// use annals_core::{EventId, StreamId};
    ///
    /// let stream = StreamId::new("alert-alice")?;
    /// let id = EventId::caused_by(&stream, "fraud/0/17", 0);
    /// assert_eq!(id, EventId::caused_by(&stream, "fraud/0/17", 0));
    /// assert!(!id.is_derived());
    /// # Ok::<_, annals_core::Invalid>(())
    /// ```
    pub fn caused_by(stream: &StreamId, cause: &str, index: u32) -> EventId {
        let named = named(stream, cause, index);
        EventId(uuid::Builder::from_sha1_bytes(named).into_uuid())
    }

    /// An id that was kept elsewhere.
    pub const fn from_uuid(id: Uuid) -> EventId {
        EventId(id)
    }

    /// The id, to be kept.
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }

    /// Whether the id is that of a request: appending it again gives what the first one with that
    /// id got.
    pub fn is_derived(&self) -> bool {
        self.0.get_version_num() == 8
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for EventId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<EventId, Invalid> {
        let id = Uuid::try_parse(text)
            .map_err(|_| Invalid::new(format!("`{}` is not an event id", text.escape_debug())))?;
        Ok(EventId(id))
    }
}

/// What makes two appends with one id the same: the first half of a SHA-256 over type, schema
/// version, codec, payload and tags.
///
/// ```
/// use annals_core::NewEvent;
///
/// let event = NewEvent::json("noted", b"{}".as_slice());
/// assert_eq!(event.digest(), event.clone().digest());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 16]);

/// Who, why, and caused by what. Kept beside an event, not part of its content.
///
/// ```
/// use annals_core::Metadata;
///
/// let metadata = Metadata::default().actor("ada").tenant("north").key("ip", "::1");
/// assert_eq!(metadata.keys["ip"], "::1");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Metadata {
    /// What everything that followed from one cause has in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<Uuid>,
    /// The event that led to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation: Option<EventId>,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Arc<str>>,
    /// Whose data it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Arc<str>>,
    /// Anything else; together with the rest at most 64 KiB.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, String>,
}

impl Metadata {
    /// The metadata of what follows from `cause`: its correlation (or its id, when it began the
    /// conversation), itself as the causation, and its tenant.
    ///
    /// ```
    /// # use annals_core::{Metadata, RecordedEvent};
    /// # fn example(cause: &RecordedEvent) {
    /// assert_eq!(Metadata::caused_by(cause).causation, Some(cause.id));
    /// # }
    /// ```
    pub fn caused_by(cause: &RecordedEvent) -> Metadata {
        Metadata {
            correlation: Some(cause.metadata.correlation.unwrap_or(*cause.id.as_uuid())),
            causation: Some(cause.id),
            tenant: cause.metadata.tenant.clone(),
            ..Metadata::default()
        }
    }

    /// With a correlation id.
    #[must_use]
    pub fn correlation(mut self, id: Uuid) -> Metadata {
        self.correlation = Some(id);
        self
    }

    /// With the event that led to this one.
    #[must_use]
    pub fn causation(mut self, id: EventId) -> Metadata {
        self.causation = Some(id);
        self
    }

    /// With who asked.
    #[must_use]
    pub fn actor(mut self, actor: impl Into<Arc<str>>) -> Metadata {
        self.actor = Some(actor.into());
        self
    }

    /// With whose data it is.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<Arc<str>>) -> Metadata {
        self.tenant = Some(tenant.into());
        self
    }

    /// With a free key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>, value: impl Into<String>) -> Metadata {
        self.keys.insert(key.into(), value.into());
        self
    }

    /// This metadata, completed by `outer` where it says nothing.
    #[must_use]
    pub fn within(mut self, outer: &Metadata) -> Metadata {
        self.correlation = self.correlation.or(outer.correlation);
        self.causation = self.causation.or(outer.causation);
        self.actor = self.actor.or_else(|| outer.actor.clone());
        self.tenant = self.tenant.or_else(|| outer.tenant.clone());
        for (key, value) in &outer.keys {
            self.keys
                .entry(key.clone())
                .or_insert_with(|| value.clone());
        }
        self
    }

    /// About how many bytes it takes: the texts, and 16 for each id.
    pub(crate) fn size_bytes(&self) -> usize {
        let texts = self
            .actor
            .iter()
            .chain(&self.tenant)
            .map(|text| text.len())
            .sum::<usize>();
        let keys = self
            .keys
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum::<usize>();
        texts
            + keys
            + 16 * (usize::from(self.correlation.is_some()) + usize::from(self.causation.is_some()))
    }
}

/// An event that is to be appended.
///
/// ```
/// use annals_core::{NewEvent, Tag};
///
/// let payload = br#"{"cents":5}"#.as_slice();
/// let event = NewEvent::json("account.deposited", payload).tag(Tag::new("owner", "ada")?);
/// assert_eq!(event.schema_version, 1);
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NewEvent {
    /// Names it for ever.
    pub id: EventId,
    /// The name of its type, at most 255 bytes, such as `account.deposited`.
    pub event_type: Cow<'static, str>,
    /// The version of its type's shape, from 1.
    pub schema_version: u32,
    /// How the payload is written, such as `json`.
    pub codec: Cow<'static, str>,
    /// The content; stored and given back byte for byte.
    pub payload: Bytes,
    /// What decisions over several streams find it by.
    pub tags: Vec<Tag>,
    /// Who, why, and caused by what.
    pub metadata: Metadata,
    /// When it happened in the world, to the microsecond (event time).
    pub occurred_at: DateTime<Utc>,
    /// What replaces its content where the bytes change between honest retries.
    pub own_digest: Option<Digest>,
}

impl NewEvent {
    /// An event of a type, a codec and a payload, with a new id and schema version 1. It happened
    /// now by the system's clock, unless [`at`](NewEvent::at) names another time.
    ///
    /// ```
    /// use annals_core::{Clock, NewEvent, SystemClock, to_microseconds};
    ///
    /// let before = to_microseconds(SystemClock.now());
    /// let event = NewEvent::new("note.taken", "text", "milk");
    /// assert!(event.occurred_at >= before);
    /// ```
    pub fn new(
        event_type: impl Into<Cow<'static, str>>,
        codec: impl Into<Cow<'static, str>>,
        payload: impl Into<Bytes>,
    ) -> NewEvent {
        NewEvent {
            id: EventId::random(),
            event_type: event_type.into(),
            schema_version: 1,
            codec: codec.into(),
            payload: payload.into(),
            tags: Vec::new(),
            metadata: Metadata::default(),
            occurred_at: to_microseconds(SystemClock.now()),
            own_digest: None,
        }
    }

    /// An event whose payload is JSON text.
    pub fn json(event_type: impl Into<Cow<'static, str>>, payload: impl Into<Bytes>) -> NewEvent {
        NewEvent::new(event_type, "json", payload)
    }

    /// With this id.
    #[must_use]
    pub fn id(mut self, id: EventId) -> NewEvent {
        self.id = id;
        self
    }

    /// With this schema version.
    #[must_use]
    pub fn schema_version(mut self, version: u32) -> NewEvent {
        self.schema_version = version;
        self
    }

    /// With one tag more.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> NewEvent {
        self.tags.push(tag);
        self
    }

    /// With this metadata.
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> NewEvent {
        self.metadata = metadata;
        self
    }

    /// Happened at `moment`, cut to the microsecond.
    #[must_use]
    pub fn at(mut self, moment: DateTime<Utc>) -> NewEvent {
        self.occurred_at = to_microseconds(moment);
        self
    }

    /// With a digest of the caller's instead of one over the stored bytes: for payloads whose bytes
    /// change between honest retries (encryption with a nonce, maps without an order).
    #[must_use]
    pub fn own_digest(mut self, digest: Digest) -> NewEvent {
        self.own_digest = Some(digest);
        self
    }

    /// What its content is compared by when its id is known already. The order of the tags does not
    /// matter.
    pub fn digest(&self) -> Digest {
        if let Some(digest) = self.own_digest {
            return digest;
        }
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(self.event_type.as_bytes());
        part(&self.schema_version.to_be_bytes());
        part(self.codec.as_bytes());
        part(&self.payload);
        for tag in self.sorted_tags().iter() {
            part(tag.as_str().as_bytes());
        }
        Digest(first_half(hash))
    }

    /// The tags in order, each once: the way in which stores keep them.
    pub fn sorted_tags(&self) -> Cow<'_, [Tag]> {
        if self.tags.is_sorted_by(|a, b| a < b) {
            return Cow::Borrowed(&self.tags);
        }
        let mut tags = self.tags.clone();
        tags.sort();
        tags.dedup();
        Cow::Owned(tags)
    }

    /// The bytes that count towards the limits of an append: payload, names, tags and metadata.
    pub fn size_bytes(&self) -> usize {
        let names = [&*self.event_type, &*self.codec];
        size_bytes(&self.payload, names, &self.tags, &self.metadata)
    }
}

fn size_bytes(payload: &[u8], names: [&str; 2], tags: &[Tag], metadata: &Metadata) -> usize {
    let tags = tags.iter().map(|tag| tag.as_str().len());
    let names = names.into_iter().map(str::len);
    payload.len() + names.sum::<usize>() + tags.sum::<usize>() + metadata.size_bytes()
}

/// An event as the store has it: what was appended, where it is, and when it was recorded.
///
/// ```
/// # use annals_core::RecordedEvent;
/// # fn example(event: &RecordedEvent) {
/// println!("{} at {} in {}", event.event_type, event.position, event.stream);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RecordedEvent {
    /// Names it for ever.
    pub id: EventId,
    /// The stream that it belongs to.
    pub stream: StreamId,
    /// Its place in the stream, from 1.
    pub version: Version,
    /// The partition of the log that it is in.
    pub partition: Partition,
    /// Its place in the partition, from 1.
    pub position: Position,
    /// Its place in the append that brought it, from 0: a run 0, 1, 2 … at consecutive positions is
    /// one append.
    pub append_index: u32,
    /// The name of its type.
    pub event_type: Arc<str>,
    /// The version of its type's shape.
    pub schema_version: u32,
    /// How the payload is written.
    pub codec: Arc<str>,
    /// The content, byte for byte.
    pub payload: Bytes,
    /// Its tags, in order, each once.
    pub tags: Vec<Tag>,
    /// Who, why, and caused by what.
    pub metadata: Metadata,
    /// When it happened in the world (event time).
    pub occurred_at: DateTime<Utc>,
    /// When the store committed it; never goes backwards with the position.
    pub recorded_at: DateTime<Utc>,
    /// The topic that it is a record of, where the log is not a store's: its offset there is the
    /// position less one.
    pub topic: Option<Arc<str>>,
}

impl RecordedEvent {
    /// Where it is, as error texts name it: `position 42`, or the place in a topic.
    ///
    /// ```
    /// # fn example(event: &annals_core::RecordedEvent) {
    /// println!("the event at {} is not read", event.shown_place());
    /// # }
    /// ```
    pub fn shown_place(&self) -> String {
        match &self.topic {
            Some(topic) => format!(
                "offset {} of partition {} of topic `{topic}`",
                self.position.minus(1),
                self.partition
            ),
            None => format!("position {}", self.position),
        }
    }

    /// The bytes of its payload, names, tags and metadata, as
    /// [`NewEvent::size_bytes`](crate::NewEvent::size_bytes) counts them, and of its stream's name:
    /// by what several of them hold, what reads them bounds its memory.
    ///
    /// ```
    /// # fn example(event: &annals_core::RecordedEvent) {
    /// assert!(event.size_bytes() >= event.payload.len());
    /// # }
    /// ```
    pub fn size_bytes(&self) -> usize {
        let names = [&*self.event_type, &*self.codec];
        let size = size_bytes(&self.payload, names, &self.tags, &self.metadata);
        size + self.stream.as_str().len()
    }

    /// What a store reads back: an event at its place, without tags and metadata, which are set
    /// where it has some.
    ///
    /// Names are shared, so that a page of events of few types holds each name once.
    ///
    /// ```
    /// use annals_core::{EventId, Place, RecordedEvent};
    ///
    /// # fn example(place: Place) {
    /// let moment = place.recorded_at;
    /// let event = RecordedEvent::new(
    ///     EventId::random(),
    ///     place,
    ///     "noted".into(),
    ///     1,
    ///     "json".into(),
    ///     b"{}".as_slice().into(),
    ///     moment,
    /// );
    /// assert!(event.tags.is_empty());
    /// # }
    /// ```
    #[inline]
    pub fn new(
        id: EventId,
        place: Place,
        event_type: Arc<str>,
        schema_version: u32,
        codec: Arc<str>,
        payload: Bytes,
        occurred_at: DateTime<Utc>,
    ) -> RecordedEvent {
        RecordedEvent {
            id,
            stream: place.stream,
            version: place.version,
            partition: place.partition,
            position: place.position,
            append_index: place.append_index,
            event_type,
            schema_version,
            codec,
            payload,
            tags: Vec::new(),
            metadata: Metadata::default(),
            occurred_at,
            recorded_at: place.recorded_at,
            topic: None,
        }
    }
}

/// Where an event ends up, decided by the store.
///
/// ```
/// # use annals_core::{Place, NewEvent};
/// # fn example(event: NewEvent, place: Place) {
/// let recorded = event.recorded(place);
/// # }
/// ```
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Place {
    /// The stream.
    pub stream: StreamId,
    /// The place in the stream.
    pub version: Version,
    /// The partition of the log.
    pub partition: Partition,
    /// The place in the partition.
    pub position: Position,
    /// The place in the append.
    pub append_index: u32,
    /// The moment of the commit.
    pub recorded_at: DateTime<Utc>,
}

impl NewEvent {
    /// The event as it is recorded at `place`.
    pub fn recorded(&self, place: Place) -> RecordedEvent {
        let mut event = RecordedEvent::new(
            self.id,
            place,
            self.event_type.as_ref().into(),
            self.schema_version,
            self.codec.as_ref().into(),
            self.payload.clone(),
            to_microseconds(self.occurred_at),
        );
        event.tags = self.sorted_tags().into_owned();
        event.metadata = self.metadata.clone();
        event
    }
}

/// `moment` cut to the microsecond, also before 1970: the grain in which times are stored.
///
/// ```
/// use annals_core::{chrono::DateTime, to_microseconds};
///
/// let moment = DateTime::from_timestamp_nanos(-1);
/// assert_eq!(to_microseconds(moment).timestamp_micros(), -1);
/// ```
pub fn to_microseconds(moment: DateTime<Utc>) -> DateTime<Utc> {
    moment.trunc_subsecs(6)
}

fn named(stream: &StreamId, name: &str, index: u32) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in [
        stream.as_str().as_bytes(),
        name.as_bytes(),
        &index.to_be_bytes(),
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    first_half(hash)
}

fn first_half(hash: Sha256) -> [u8; 16] {
    let whole: [u8; 32] = hash.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&whole[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_covers_the_content_and_nothing_else() {
        let event = NewEvent::json("a", b"1".as_slice());
        let tag = |text: &str| text.parse::<Tag>().unwrap();
        let same = [
            event.clone().id(EventId::random()),
            event.clone().metadata(Metadata::default().actor("x")),
            event
                .clone()
                .at(DateTime::from_timestamp_micros(5).unwrap()),
        ];
        for other in same {
            assert_eq!(other.digest(), event.digest());
        }
        let other = [
            NewEvent::json("b", b"1".as_slice()),
            NewEvent::json("a", b"2".as_slice()),
            NewEvent::new("a", "cbor", b"1".as_slice()),
            event.clone().schema_version(2),
            event.clone().tag(tag("k:1")),
        ];
        for other in other {
            assert_ne!(other.digest(), event.digest());
        }
        let ab = event.clone().tag(tag("k:a")).tag(tag("k:b"));
        let ba = event
            .clone()
            .tag(tag("k:b"))
            .tag(tag("k:a"))
            .tag(tag("k:b"));
        assert_eq!(ab.digest(), ba.digest());
    }

    #[test]
    fn what_follows_keeps_the_correlation_and_names_its_cause() {
        let place = Place {
            stream: StreamId::new("a-1").unwrap(),
            version: Version::FIRST,
            partition: Partition(0),
            position: Position::new(1),
            append_index: 0,
            recorded_at: DateTime::UNIX_EPOCH,
        };
        let first = NewEvent::json("a", b"1".as_slice()).recorded(place.clone());
        let second = NewEvent::json("a", b"1".as_slice())
            .metadata(Metadata::caused_by(&first))
            .recorded(place);
        assert_eq!(second.metadata.correlation, Some(*first.id.as_uuid()));
        let third = Metadata::caused_by(&second);
        assert_eq!(
            (third.correlation, third.causation),
            (Some(*first.id.as_uuid()), Some(second.id))
        );
    }
}
