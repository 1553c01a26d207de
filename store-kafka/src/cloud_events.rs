//! CloudEvents 1.0 in binary mode: attributes are headers, the payload is the value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr;

use annals_core::chrono::{DateTime, SecondsFormat, Utc};
use annals_core::{
    EventId, LogId, Metadata, Outgoing, Position, RecordedEvent, StreamId, Tag, Version,
};
use bytes::Bytes;

use crate::topic::Record;

/// Free metadata and tags: their names may hold what an attribute's name may not.
const METADATA: &str = "annals-metadata";
const TAGS: &str = "annals-tags";

/// The headers of an event that leaves the log.
pub(crate) fn encode(event: &RecordedEvent, log: LogId) -> Vec<(Cow<'static, str>, Bytes)> {
    let mut headers: Vec<(Cow<'static, str>, Bytes)> = Vec::with_capacity(20);
    let mut add = |name: &'static str, value: String| {
        headers.push((Cow::Borrowed(name), Bytes::from(value)));
    };
    add("ce_specversion", "1.0".to_owned());
    add("ce_id", event.id.to_string());
    add("ce_source", source(log));
    add("ce_type", event.event_type.to_string());
    add(TIME, time(event.occurred_at));
    add("ce_subject", event.stream.to_string());
    add("ce_partitionkey", event.stream.to_string());
    add("ce_sequence", event.position.to_string());
    add("ce_recordedtime", time(event.recorded_at));
    add("ce_streamversion", event.version.to_string());
    add("ce_schemaversion", event.schema_version.to_string());
    add("ce_appendindex", event.append_index.to_string());
    add("content-type", content_type(&event.codec));
    let metadata = &event.metadata;
    if let Some(id) = metadata.correlation {
        add("ce_correlationid", id.to_string());
    }
    if let Some(id) = metadata.causation {
        add("ce_causationid", id.to_string());
    }
    if let Some(actor) = &metadata.actor {
        add("ce_actor", actor.to_string());
    }
    if let Some(tenant) = &metadata.tenant {
        add("ce_tenant", tenant.to_string());
    }
    if !metadata.keys.is_empty() {
        add(METADATA, serde_json::json!(metadata.keys).to_string());
    }
    if !event.tags.is_empty() {
        let tags: Vec<&str> = event.tags.iter().map(Tag::as_str).collect();
        add(TAGS, serde_json::json!(tags).to_string());
    }
    headers
}

/// The header that says when something happened.
const TIME: &str = "ce_time";

/// Says when it happened, unless its headers do.
pub(crate) fn say_time(record: &mut Outgoing) {
    if record.headers.iter().all(|(name, _)| name != TIME) {
        let said = Bytes::from(time(record.occurred_at));
        record.headers.push((Cow::Borrowed(TIME), said));
    }
}

/// When it happened, as the headers of a record say, a CloudEvent or not.
pub(crate) fn time_in<'a>(
    headers: impl DoubleEndedIterator<Item = (&'a str, &'a [u8])>,
) -> Option<DateTime<Utc>> {
    let (_, said) = headers.rev().find(|(name, _)| *name == TIME)?;
    moment(std::str::from_utf8(said).ok())
}

/// What is said of where an event comes from.
fn source(log: LogId) -> String {
    format!("/annals/{log}")
}

/// The id and the position of an event of this log; nothing for what came from elsewhere.
pub(crate) fn place_in(
    headers: &[(Cow<'static, str>, Bytes)],
    log: LogId,
) -> Option<(EventId, Position)> {
    let text = |name: &str| {
        let found = headers.iter().find(|(known, _)| known == name);
        std::str::from_utf8(&found?.1).ok()
    };
    text("ce_source").filter(|from| *from == source(log))?;
    let id = EventId::from_str(text("ce_id")?).ok()?;
    Some((id, Position::new(number(text("ce_sequence"))?)))
}

/// What the headers of a record say of its event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CloudEvent {
    /// Nothing when its id is not one of ours.
    pub(crate) id: Option<EventId>,
    pub(crate) event_type: String,
    /// Nothing when the subject is no name of a stream.
    pub(crate) stream: Option<StreamId>,
    pub(crate) version: Version,
    pub(crate) schema_version: u32,
    pub(crate) append_index: u32,
    pub(crate) codec: String,
    pub(crate) occurred_at: Option<DateTime<Utc>>,
    pub(crate) recorded_at: Option<DateTime<Utc>>,
    pub(crate) metadata: Metadata,
    pub(crate) tags: Vec<Tag>,
}

/// Reads them; nothing when the record is no CloudEvent in binary mode.
pub(crate) fn decode(record: &Record<'_>) -> Option<CloudEvent> {
    let text = |name: &str| std::str::from_utf8(record.header(name)?).ok();
    text("ce_specversion").filter(|version| version.starts_with("1."))?;
    let event_type = text("ce_type")?.to_owned();
    let id = text("ce_id")?;
    let known = EventId::from_str(id).ok();
    let mut metadata = Metadata::default();
    let id_in = |name: &str| EventId::from_str(text(name)?).ok();
    metadata.correlation = id_in("ce_correlationid").map(|id| *id.as_uuid());
    metadata.causation = id_in("ce_causationid");
    metadata.actor = text("ce_actor").map(Into::into);
    metadata.tenant = text("ce_tenant").map(Into::into);
    if let Some(keys) = text(METADATA) {
        metadata.keys = serde_json::from_str::<BTreeMap<String, String>>(keys).unwrap_or_default();
    }
    if known.is_none() {
        metadata.keys.insert("ce.id".to_owned(), id.to_owned());
    }
    let tags = text(TAGS)
        .and_then(|tags| serde_json::from_str::<Vec<String>>(tags).ok())
        .unwrap_or_default();
    Some(CloudEvent {
        id: known,
        event_type,
        stream: text("ce_subject").and_then(|name| StreamId::any(name).ok()),
        version: number(text("ce_streamversion")).map_or(Version::NONE, Version::new),
        schema_version: number(text("ce_schemaversion")).unwrap_or(1),
        append_index: number(text("ce_appendindex")).unwrap_or(0),
        codec: text("content-type").map_or_else(|| "json".to_owned(), codec),
        occurred_at: moment(text(TIME)),
        recorded_at: moment(text("ce_recordedtime")),
        metadata,
        tags: tags.iter().filter_map(|tag| tag.parse().ok()).collect(),
    })
}

/// Nothing where it is none, or larger than what it counts can be.
fn number<N: FromStr>(text: Option<&str>) -> Option<N> {
    text?.parse().ok()
}

fn moment(text: Option<&str>) -> Option<DateTime<Utc>> {
    let moment = DateTime::parse_from_rfc3339(text?).ok()?;
    Some(annals_core::to_microseconds(moment.to_utc()))
}

fn time(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Media types that name a codec begin with this.
const OF_ANNALS: &str = "application/vnd.annals.";

/// The name of a codec with `%XX` for what would end a media type, or is none of its characters.
fn escaped(codec: &str) -> String {
    codec.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
        escaped
    })
}

/// As it was before; what was never escaped stays as it is.
fn unescaped(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let is_escape = |two: &&[u8]| *first == b'%' && two.iter().all(u8::is_ascii_hexdigit);
        let digits = after.get(..2).filter(is_escape);
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| name.to_owned())
}

/// A codec as a media type, and back.
fn content_type(codec: &str) -> String {
    match codec {
        "json" => "application/json".to_owned(),
        other => format!("{OF_ANNALS}{}", escaped(other)),
    }
}

fn codec(content_type: &str) -> String {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    match media.strip_prefix(OF_ANNALS) {
        Some(codec) => unescaped(codec),
        None if media == "application/json" || media.ends_with("+json") => "json".to_owned(),
        None => media.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_codec_comes_back_from_its_media_type() {
        for name in [
            "json",
            "x;y",
            "trail ",
            " lead",
            "50%",
            "a/b",
            "é",
            "msgpack-v2",
            "%41",
        ] {
            assert_eq!(codec(&content_type(name)), name);
        }
        // As it was written before names were escaped.
        for name in ["50%", "50%+4"] {
            assert_eq!(codec(&format!("{OF_ANNALS}{name}")), name);
        }
    }

    fn record(headers: &[(String, Option<Bytes>)]) -> Record<'_> {
        Record {
            partition: 0,
            offset: 0,
            time_ms: 0,
            key: None,
            value: None,
            headers,
        }
    }

    fn headers(pairs: &[(&str, &str)]) -> Vec<(String, Option<Bytes>)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Some(Bytes::from((*value).to_owned()))))
            .collect()
    }

    #[test]
    fn the_example_of_the_specification_is_read() {
        let headers = headers(&[
            ("ce_specversion", "1.0"),
            ("ce_type", "com.example.someevent"),
            ("ce_source", "/mycontext/subcontext"),
            ("ce_id", "1234-1234-1234"),
            ("ce_time", "2018-04-05T03:56:24Z"),
            ("content-type", "application/avro"),
        ]);
        let event = decode(&record(&headers)).unwrap();
        assert_eq!(event.event_type, "com.example.someevent");
        assert_eq!(event.id, None);
        assert_eq!(event.metadata.keys["ce.id"], "1234-1234-1234");
        assert_eq!(event.codec, "application/avro");
        assert_eq!(event.occurred_at.unwrap().timestamp(), 1_522_900_584);
    }

    proptest! {
        #[test]
        fn an_event_comes_back_as_it_left(
            stream in "[a-z]{1,9}-[^\\p{C}]{1,30}",
            codec in "[a-z]{1,8}",
            micros in 0_i64..4_000_000_000_000_000,
            numbers in (1_u64..1 << 40, 0_u64..1 << 40, 0_u32..99, 1_u32..9),
            ids in (any::<u128>(), any::<u128>(), any::<bool>()),
            actor in proptest::option::of("[^\\p{C}]{1,20}"),
            keys in proptest::collection::btree_map(".{0,9}", ".{0,20}", 0..4),
            tags in proptest::collection::btree_set("[a-z]{1,4}:[a-z0-9]{1,6}", 0..4),
        ) {
            let (position, version, append_index, schema) = numbers;
            let moment = DateTime::from_timestamp_micros(micros).unwrap();
            let place = annals_core::Place {
                stream: StreamId::any(stream).unwrap(),
                version: Version::new(version),
                partition: annals_core::Partition(0),
                position: annals_core::Position::new(position),
                append_index,
                recorded_at: moment,
            };
            let id = EventId::from_uuid(uuid::Uuid::from_u128(ids.0));
            let payload = Bytes::from_static(b"{}");
            let mut event = RecordedEvent::new(
                id,
                place,
                "a.b".into(),
                schema,
                codec.as_str().into(),
                payload,
                moment,
            );
            event.tags = tags.iter().map(|tag| tag.parse().unwrap()).collect();
            event.metadata.keys = keys;
            event.metadata.actor = actor.map(Into::into);
            if ids.2 {
                event.metadata.correlation = Some(uuid::Uuid::from_u128(ids.1));
                event.metadata.causation = Some(EventId::from_uuid(uuid::Uuid::from_u128(!ids.1)));
                event.metadata.tenant = Some("t".into());
            }
            let headers: Vec<(String, Option<Bytes>)> = encode(&event, LogId::random())
                .into_iter()
                .map(|(name, value)| (name.into_owned(), Some(value)))
                .collect();
            let read = decode(&record(&headers)).unwrap();
            let expected = CloudEvent {
                id: Some(event.id),
                event_type: event.event_type.to_string(),
                stream: Some(event.stream.clone()),
                version: event.version,
                schema_version: event.schema_version,
                append_index: event.append_index,
                codec: event.codec.to_string(),
                occurred_at: Some(event.occurred_at),
                recorded_at: Some(event.recorded_at),
                metadata: event.metadata.clone(),
                tags: event.tags.clone(),
            };
            prop_assert_eq!(read, expected);
        }
    }

    #[test]
    fn a_number_that_is_too_large_is_not_cut_off() {
        let headers = headers(&[
            ("ce_specversion", "1.0"),
            ("ce_type", "a"),
            ("ce_id", "1"),
            ("ce_schemaversion", "4294967298"),
            ("ce_appendindex", "4294967303"),
        ]);
        let event = decode(&record(&headers)).unwrap();
        assert_eq!((event.schema_version, event.append_index), (1, 0));
    }

    #[test]
    fn what_is_no_cloud_event_is_nothing() {
        for pairs in [
            &[("ce_type", "a"), ("ce_id", "1")][..],
            &[("ce_specversion", "0.3"), ("ce_type", "a"), ("ce_id", "1")],
            &[("ce_specversion", "1.0"), ("ce_type", "a")],
            &[],
        ] {
            assert_eq!(decode(&record(&headers(pairs))), None);
        }
    }
}
