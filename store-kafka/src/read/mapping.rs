//! From a record to an event.

use std::collections::HashMap;
use std::sync::Arc;

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::{
    EventId, LogId, Metadata, Partition, Place, Position, RecordedEvent, StreamId, Version,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use uuid::Uuid;

use super::key::{stream_of_key, stream_of_record};
use super::topic::TimeUnit;
use crate::cloud_events;
use crate::topic::Record;

/// Names that are kept at once, so that records of one key share one.
const STREAMS_KEPT: usize = 16_384;

/// The type of a record of which nothing else is known.
const RECORD: &str = "kafka.record";
const TOMBSTONE: &str = "kafka.tombstone";

type TypeOf = dyn Fn(&Record<'_>) -> Option<String> + Send + Sync;
type TimeOf = dyn Fn(&Record<'_>) -> Option<i64> + Send + Sync;

/// What type a record is.
#[derive(Clone)]
pub(crate) enum TypeRule {
    Every(Arc<str>),
    Header(String),
    Field(String),
    By(Arc<TypeOf>),
    CloudEvents,
}

/// When it happened.
#[derive(Clone)]
pub(crate) enum TimeRule {
    Record,
    Field(String, TimeUnit),
    By(Arc<TimeOf>),
}

/// How the records of a topic become events.
#[derive(Clone)]
pub(crate) struct Mapping {
    pub(crate) category: String,
    pub(crate) codec: Arc<str>,
    pub(crate) types: TypeRule,
    pub(crate) tombstones: Arc<str>,
    pub(crate) time: TimeRule,
    /// The type of values that are no JSON, where they are to be told apart.
    pub(crate) not_json: Option<Arc<str>>,
}

impl Mapping {
    pub(crate) fn new(category: String) -> Mapping {
        Mapping {
            category,
            codec: "json".into(),
            types: TypeRule::Every(RECORD.into()),
            tombstones: TOMBSTONE.into(),
            time: TimeRule::Record,
            not_json: None,
        }
    }
}

/// Maps the records of one partition, and remembers the names that it met.
pub(crate) struct Mapper {
    log: LogId,
    topic: Arc<str>,
    mapping: Mapping,
    streams: HashMap<Bytes, (StreamId, bool)>,
    types: HashMap<String, Arc<str>>,
}

/// A record in the bytes of a page.
pub(crate) struct RawRecord {
    pub(crate) partition: u32,
    pub(crate) offset: i64,
    pub(crate) time_ms: i64,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(String, Option<Bytes>)>,
}

impl Mapper {
    pub(crate) fn new(log: LogId, topic: &str, mapping: Mapping) -> Mapper {
        Mapper {
            log,
            topic: topic.into(),
            mapping,
            streams: HashMap::new(),
            types: HashMap::new(),
        }
    }

    /// The event of a record. Every record has one: what cannot be understood is found out where it
    /// is decoded, and delays only its own key.
    pub(crate) fn event(&mut self, raw: RawRecord) -> RecordedEvent {
        let mut event = self.mapped(raw);
        event.topic = Some(Arc::clone(&self.topic));
        event
    }

    fn mapped(&mut self, raw: RawRecord) -> RecordedEvent {
        let record = Record {
            partition: raw.partition,
            offset: raw.offset,
            time_ms: raw.time_ms,
            key: raw.key.as_deref(),
            value: raw.value.as_deref(),
            headers: &raw.headers,
        };
        if let TypeRule::CloudEvents = self.mapping.types
            && let Some(found) = cloud_events::decode(&record)
        {
            return self.cloud_event(raw, found);
        }
        let occurred_at = self.occurred_at(&record);
        let event_type = self.event_type(&record);
        let (stream, plain) = self.stream(&raw);
        let metadata = metadata(&raw, plain);
        let place = self.place(&raw, stream, Version::NONE, 0, from_millis(raw.time_ms));
        let codec = Arc::clone(&self.mapping.codec);
        let payload = raw.value.unwrap_or(Bytes::from_static(b"null"));
        let id = self.id(raw.time_ms, raw.partition, raw.offset);
        let mut event = RecordedEvent::new(id, place, event_type, 1, codec, payload, occurred_at);
        event.metadata = metadata;
        event
    }

    fn cloud_event(&mut self, raw: RawRecord, found: cloud_events::CloudEvent) -> RecordedEvent {
        let recorded = from_millis(raw.time_ms);
        let stream = match found.stream {
            Some(stream) => stream,
            None => self.stream(&raw).0,
        };
        let id = found
            .id
            .unwrap_or_else(|| self.id(raw.time_ms, raw.partition, raw.offset));
        let place = self.place(
            &raw,
            stream,
            found.version,
            found.append_index,
            found.recorded_at.unwrap_or(recorded),
        );
        let event_type = self.shared(&found.event_type);
        let codec = self.shared(&found.codec);
        let payload = raw.value.unwrap_or(Bytes::from_static(b"null"));
        let occurred_at = found.occurred_at.unwrap_or(recorded);
        let schema = found.schema_version;
        let mut event =
            RecordedEvent::new(id, place, event_type, schema, codec, payload, occurred_at);
        event.metadata = found.metadata;
        event.tags = found.tags;
        event
    }

    fn place(
        &self,
        raw: &RawRecord,
        stream: StreamId,
        version: Version,
        append_index: u32,
        recorded_at: DateTime<Utc>,
    ) -> Place {
        Place {
            stream,
            version,
            partition: Partition(raw.partition),
            position: position_of(raw.offset),
            append_index,
            recorded_at,
        }
    }

    fn event_type(&mut self, record: &Record<'_>) -> Arc<str> {
        let Some(value) = record.value else {
            return Arc::clone(&self.mapping.tombstones);
        };
        if let Some(event_type) = &self.mapping.not_json
            && serde_json::from_slice::<serde::de::IgnoredAny>(value).is_err()
        {
            return Arc::clone(event_type);
        }
        let found = match &self.mapping.types {
            TypeRule::Every(event_type) => return Arc::clone(event_type),
            TypeRule::CloudEvents => None,
            TypeRule::Header(name) => record
                .header(name)
                .and_then(|value| std::str::from_utf8(value).ok())
                .map(str::to_owned),
            TypeRule::Field(pointer) => {
                field(record, pointer).and_then(|value| value.as_str().map(str::to_owned))
            }
            TypeRule::By(rule) => rule(record),
        };
        match found {
            Some(name) => self.shared(&name),
            None => self.shared(RECORD),
        }
    }

    fn occurred_at(&self, record: &Record<'_>) -> DateTime<Utc> {
        let found = match &self.mapping.time {
            TimeRule::Record => {
                let headers = record.headers.iter();
                cloud_events::time_in(
                    headers
                        .map(|(name, value)| (name.as_str(), value.as_deref().unwrap_or_default())),
                )
            }
            TimeRule::By(rule) => rule(record).map(from_millis),
            TimeRule::Field(pointer, unit) => {
                field(record, pointer).and_then(|value| moment(&value, *unit))
            }
        };
        found.unwrap_or_else(|| from_millis(record.time_ms))
    }

    /// The stream of a record, and whether the key can be read from it.
    fn stream(&mut self, raw: &RawRecord) -> (StreamId, bool) {
        let category = &self.mapping.category;
        let Some(key) = &raw.key else {
            return (stream_of_record(category, raw.partition, raw.offset), true);
        };
        if let Some(known) = self.streams.get(key) {
            return known.clone();
        }
        if self.streams.len() >= STREAMS_KEPT {
            self.streams.clear();
        }
        let found = stream_of_key(category, key);
        // The page's bytes are not kept for the sake of a name.
        self.streams
            .insert(Bytes::copy_from_slice(key), found.clone());
        found
    }

    /// One text for all events of a type or codec.
    fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.types.get(name) {
            return Arc::clone(known);
        }
        if self.types.len() >= STREAMS_KEPT {
            self.types.clear();
        }
        let shared: Arc<str> = name.into();
        self.types.insert(name.to_owned(), Arc::clone(&shared));
        shared
    }

    /// Packed and not hashed: 48 bits of time, 20 of the log's id, 10 of the partition, 44 of the
    /// offset. A topic that was deleted and made again has other times at the same offsets.
    fn id(&self, time_ms: i64, partition: u32, offset: i64) -> EventId {
        let log = self.log.as_uuid().as_u128() >> 32;
        let mut bits = u128::from(time_ms.max(0) as u64 & 0xffff_ffff_ffff) << 80;
        // Four bits of the version and two of the variant are between these.
        let rest = (log & 0xf_ffff) << 54
            | u128::from(partition & 0x3ff) << 44
            | u128::from(offset.max(0) as u64 & 0xfff_ffff_ffff);
        bits |= (rest >> 62) << 64;
        bits |= rest & 0x3fff_ffff_ffff_ffff;
        EventId::from_uuid(Uuid::new_v8(bits.to_be_bytes()))
    }
}

/// The position of an offset: positions begin at 1, offsets at 0.
pub(crate) fn position_of(offset: i64) -> Position {
    Position::new(offset.max(-1).wrapping_add(1) as u64)
}

/// The offset that is read next after a position.
pub(crate) fn offset_after(position: Position) -> i64 {
    position.get() as i64
}

fn from_millis(millis: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(millis).unwrap_or(DateTime::UNIX_EPOCH)
}

fn field(record: &Record<'_>, pointer: &str) -> Option<serde_json::Value> {
    let value: serde_json::Value = serde_json::from_slice(record.value?).ok()?;
    value.pointer(pointer).cloned()
}

fn moment(value: &serde_json::Value, unit: TimeUnit) -> Option<DateTime<Utc>> {
    if let Some(text) = value.as_str() {
        return DateTime::parse_from_rfc3339(text)
            .ok()
            .map(|moment| annals_core::to_microseconds(moment.to_utc()));
    }
    let number = value.as_i64()?;
    let since = match unit {
        TimeUnit::Seconds => TimeDelta::try_seconds(number)?,
        TimeUnit::Millis => TimeDelta::try_milliseconds(number)?,
        TimeUnit::Micros => TimeDelta::microseconds(number),
    };
    DateTime::UNIX_EPOCH.checked_add_signed(since)
}

/// Headers, and a key that the stream's name does not show.
fn metadata(raw: &RawRecord, plain: bool) -> Metadata {
    let mut metadata = Metadata::default();
    for (name, value) in &raw.headers {
        let value = value.as_deref().unwrap_or_default();
        let text = match std::str::from_utf8(value) {
            Ok(text) => text.to_owned(),
            Err(_) => STANDARD.encode(value),
        };
        metadata.keys.insert(format!("kafka.header.{name}"), text);
    }
    if let (Some(key), false) = (&raw.key, plain) {
        match std::str::from_utf8(key) {
            Ok(text) => metadata
                .keys
                .insert("kafka.key".to_owned(), text.to_owned()),
            Err(_) => metadata
                .keys
                .insert("kafka.key64".to_owned(), STANDARD.encode(key)),
        };
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapper(change: impl FnOnce(&mut Mapping)) -> Mapper {
        let mut mapping = Mapping::new("orders".to_owned());
        change(&mut mapping);
        let log = LogId::from_uuid(Uuid::from_u128(7 << 40));
        Mapper::new(log, "orders", mapping)
    }

    fn raw(key: Option<&'static str>, value: Option<&'static str>) -> RawRecord {
        RawRecord {
            partition: 3,
            offset: 41,
            time_ms: 1_700_000_000_000,
            key: key.map(|key| Bytes::from_static(key.as_bytes())),
            value: value.map(|value| Bytes::from_static(value.as_bytes())),
            headers: Vec::new(),
        }
    }

    #[test]
    fn a_record_of_which_nothing_is_said_is_an_event() {
        let event = mapper(|_| ()).event(raw(Some("ada"), Some("not json")));
        assert_eq!(&*event.event_type, "kafka.record");
        assert_eq!(event.stream.as_str(), "orders-ada");
        assert_eq!((event.partition, event.position.get()), (Partition(3), 42));
        assert_eq!(&event.payload[..], b"not json");
        assert_eq!(event.recorded_at.timestamp(), 1_700_000_000);
        assert_eq!(event.metadata, Metadata::default());
    }

    #[test]
    fn a_tombstone_has_its_own_type() {
        let mut mapper = mapper(|mapping| mapping.tombstones = "orders.removed".into());
        let event = mapper.event(raw(Some("ada"), None));
        assert_eq!(
            (&*event.event_type, &event.payload[..]),
            ("orders.removed", &b"null"[..])
        );
    }

    #[test]
    fn a_record_without_a_key_has_its_own_stream() {
        let event = mapper(|_| ()).event(raw(None, Some("1")));
        assert_eq!(event.stream.as_str(), "orders-~3.41");
    }

    #[test]
    fn type_and_time_can_come_from_fields() {
        let mut mapper = mapper(|mapping| {
            mapping.types = TypeRule::Field("/kind".to_owned());
            mapping.time = TimeRule::Field("/at".to_owned(), TimeUnit::Seconds);
        });
        let event = mapper.event(raw(Some("a"), Some(r#"{"kind":"placed","at":5}"#)));
        assert_eq!(
            (&*event.event_type, event.occurred_at.timestamp()),
            ("placed", 5)
        );
        let event = mapper.event(raw(Some("a"), Some(r#"{"at":"2020-01-01T00:00:00Z"}"#)));
        assert_eq!(&*event.event_type, "kafka.record");
        assert_eq!(event.occurred_at.timestamp(), 1_577_836_800);
        let event = mapper.event(raw(Some("a"), Some("broken")));
        assert_eq!(event.occurred_at, event.recorded_at);
    }

    #[test]
    fn what_is_no_json_can_be_told_apart() {
        let mut mapper = mapper(|mapping| {
            mapping.types = TypeRule::Every("orders.placed".into());
            mapping.not_json = Some("orders.broken".into());
        });
        for (value, event_type) in [("{}", "orders.placed"), ("{", "orders.broken")] {
            let event = mapper.event(raw(Some("a"), Some(value)));
            assert_eq!(
                (&*event.event_type, &event.payload[..]),
                (event_type, value.as_bytes())
            );
        }
    }

    #[test]
    fn headers_and_unreadable_keys_are_kept_as_metadata() {
        let mut record = raw(None, Some("1"));
        record.key = Some(Bytes::from_static(b"\xff"));
        record.headers = vec![
            ("trace".to_owned(), Some(Bytes::from_static(b"7"))),
            ("raw".to_owned(), Some(Bytes::from_static(b"\xfe"))),
            ("none".to_owned(), None),
        ];
        let keys = mapper(|_| ()).event(record).metadata.keys;
        for (name, value) in [
            ("kafka.header.trace", "7"),
            ("kafka.header.raw", "/g=="),
            ("kafka.header.none", ""),
            ("kafka.key64", "/w=="),
        ] {
            assert_eq!(keys[name], value);
        }
    }

    #[test]
    fn ids_ascend_and_differ_by_all_that_they_pack() {
        let mapper = mapper(|_| ());
        let other = Mapper::new(
            LogId::from_uuid(Uuid::from_u128(8 << 40)),
            "t",
            Mapping::new("t".into()),
        );
        let base = mapper.id(1_700_000_000_000, 3, 41);
        assert!(base.is_derived());
        for id in [
            mapper.id(1_700_000_000_001, 3, 41),
            mapper.id(1_700_000_000_000, 4, 41),
            mapper.id(1_700_000_000_000, 3, 42),
        ] {
            assert!(id > base, "{id} after {base}");
        }
        assert_ne!(other.id(1_700_000_000_000, 3, 41), base);
    }
}
