//! How entries of a log are written as records: an event is a record, an append is a run of them,
//! and what has no position says so in a header.

use std::fmt;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    ChangeStream, Digest, EventId, Metadata, NewEvent, Position, StreamChange, StreamId, Tag,
    Version, to_microseconds,
};
use annals_sqlite::{ReplicaAppend, ReplicaEntry};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::topic::of_store::{CHANGE, CODEC, CONTROL, NOTE, PLACE, TYPE};

/// The first byte of the header of an event.
const FORMAT: u8 = 1;

/// Bytes of the header of an event.
const HEADER_BYTES: usize = 1 + 4 + 4 + 8 + 8 + 4 + 8 + 8 + 16 + 16;

/// Names of headers that only events have beside those that tell a store's topic.
const TAGS: &str = "tags";
const METADATA: &str = "meta";

/// A record as it is sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) key: Bytes,
    pub(super) payload: Bytes,
    pub(super) headers: Vec<(&'static str, Bytes)>,
}

/// A record as it was read.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    pub(super) key: Bytes,
    pub(super) payload: Bytes,
    pub(super) headers: Vec<(String, Bytes)>,
}

impl Incoming {
    /// How much memory it takes, about.
    pub(super) fn bytes(&self) -> usize {
        /// What a record and a header take without what they hold.
        const RECORD: usize = 128;
        const HEADER: usize = 64;
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| HEADER + name.len() + value.len());
        RECORD + self.key.len() + self.payload.len() + headers.sum::<usize>()
    }
}

/// What one record says.
#[derive(Debug)]
pub(super) enum Parsed {
    Event(Box<ParsedEvent>),
    Whole(ReplicaEntry),
}

/// One event of an append.
#[derive(Debug)]
pub(super) struct ParsedEvent {
    pub(super) index: u32,
    pub(super) count: u32,
    pub(super) stream: StreamId,
    pub(super) version: Version,
    pub(super) position: Position,
    pub(super) recorded_at: DateTime<Utc>,
    pub(super) event: NewEvent,
}

/// Why a record is not one of a store.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Foreign(String);

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn foreign(why: impl Into<String>) -> Foreign {
    Foreign(why.into())
}

/// The records of an entry, in order.
pub(super) fn write(entry: &ReplicaEntry) -> Result<Vec<Outgoing>, Foreign> {
    match entry {
        ReplicaEntry::Append(append) => Ok(write_append(append)),
        ReplicaEntry::Change {
            change,
            recorded_at,
        } => {
            let text = serde_json::to_vec(&Change::of(change, *recorded_at)?);
            Ok(vec![Outgoing {
                key: Bytes::copy_from_slice(change.stream.as_str().as_bytes()),
                payload: text.map_err(|error| foreign(error.to_string()))?.into(),
                headers: vec![(CONTROL, Bytes::from_static(CHANGE))],
            }])
        }
        ReplicaEntry::Note(note) => Ok(vec![Outgoing {
            key: Bytes::new(),
            payload: Bytes::copy_from_slice(note.as_bytes()),
            headers: vec![(CONTROL, Bytes::from_static(NOTE))],
        }]),
        other => Err(foreign(format!("{other:?} cannot be written"))),
    }
}

fn write_append(append: &ReplicaAppend) -> Vec<Outgoing> {
    let count = append.events.len() as u32;
    let key = Bytes::copy_from_slice(append.stream.as_str().as_bytes());
    let numbered = (0_u32..).zip(&append.events);
    let record = |(index, event): (u32, &NewEvent)| {
        let mut place = Vec::with_capacity(HEADER_BYTES);
        place.push(FORMAT);
        place.extend(index.to_be_bytes());
        place.extend(count.to_be_bytes());
        place.extend((append.position.get() + u64::from(index)).to_be_bytes());
        place.extend((append.version.get() + u64::from(index)).to_be_bytes());
        place.extend(event.schema_version.to_be_bytes());
        let occurred = to_microseconds(event.occurred_at).timestamp_micros();
        place.extend(occurred.to_be_bytes());
        place.extend(append.recorded_at.timestamp_micros().to_be_bytes());
        place.extend(event.id.as_uuid().as_bytes());
        place.extend(event.digest().0);
        let mut headers = vec![
            (PLACE, Bytes::from(place)),
            (TYPE, Bytes::copy_from_slice(event.event_type.as_bytes())),
            (CODEC, Bytes::copy_from_slice(event.codec.as_bytes())),
        ];
        if !event.tags.is_empty() {
            let tags = event.sorted_tags();
            let names: Vec<&str> = tags.iter().map(Tag::as_str).collect();
            // No tag holds a control character.
            headers.push((TAGS, names.join("\n").into()));
        }
        if event.metadata != Metadata::default() {
            let text = serde_json::to_vec(&event.metadata);
            let text = text.expect("ids, texts and a map of texts are JSON");
            headers.push((METADATA, text.into()));
        }
        Outgoing {
            key: key.clone(),
            payload: event.payload.clone(),
            headers,
        }
    };
    numbered.map(record).collect()
}

/// Reads one record.
pub(super) fn read(record: Incoming) -> Result<Parsed, Foreign> {
    let header = |name: &str| {
        let mut headers = record.headers.iter();
        let found = headers.find(|(key, _)| key == name);
        found.map(|(_, value)| value)
    };
    match header(CONTROL).map(|value| &value[..]) {
        Some(CHANGE) => {
            let change: Change = serde_json::from_slice(&record.payload)
                .map_err(|error| foreign(format!("a change that is not JSON: {error}")))?;
            return change.entry(stream_of(&record.key)?).map(Parsed::Whole);
        }
        Some(NOTE) => {
            let note = text(&record.payload, "owner")?;
            return Ok(Parsed::Whole(ReplicaEntry::Note(note.to_owned())));
        }
        Some(other) => {
            let other = String::from_utf8_lossy(other).into_owned();
            return Err(foreign(format!("a `ctl` of `{other}`, by a newer Annals?")));
        }
        None => {}
    }
    let Some(place) = header(PLACE) else {
        return Err(foreign("no header `a`"));
    };
    let place = Place::read(place)?;
    let event_type = header(TYPE).ok_or_else(|| foreign("no header `type`"))?;
    let codec = header(CODEC).ok_or_else(|| foreign("no header `codec`"))?;
    let event_type = text(event_type, TYPE)?.to_owned();
    let codec = text(codec, CODEC)?.to_owned();
    let mut event = NewEvent::new(event_type, codec, record.payload.clone())
        .id(place.id)
        .schema_version(place.schema_version)
        .own_digest(place.digest);
    event.occurred_at = place.occurred_at;
    if let Some(tags) = header(TAGS) {
        let tags = text(tags, TAGS)?.split('\n').map(str::parse::<Tag>);
        event.tags = tags
            .collect::<Result<_, _>>()
            .map_err(|error| foreign(error.to_string()))?;
    }
    if let Some(metadata) = header(METADATA) {
        event.metadata = serde_json::from_slice(metadata)
            .map_err(|error| foreign(format!("metadata that is not JSON: {error}")))?;
    }
    Ok(Parsed::Event(Box::new(ParsedEvent {
        index: place.index,
        count: place.count,
        stream: stream_of(&record.key)?,
        version: place.version,
        position: place.position,
        recorded_at: place.recorded_at,
        event,
    })))
}

fn stream_of(key: &[u8]) -> Result<StreamId, Foreign> {
    let name = text(key, "key")?;
    StreamId::any(name).map_err(|error| foreign(error.to_string()))
}

fn text<'a>(bytes: &'a [u8], what: &str) -> Result<&'a str, Foreign> {
    std::str::from_utf8(bytes).map_err(|_| foreign(format!("`{what}` is not UTF-8")))
}

/// The binary header of an event.
struct Place {
    index: u32,
    count: u32,
    position: Position,
    version: Version,
    schema_version: u32,
    occurred_at: DateTime<Utc>,
    recorded_at: DateTime<Utc>,
    id: EventId,
    digest: Digest,
}

impl Place {
    fn read(bytes: &[u8]) -> Result<Place, Foreign> {
        if bytes.first() != Some(&FORMAT) || bytes.len() != HEADER_BYTES {
            return Err(foreign(
                "a header `a` of another format, by a newer Annals?",
            ));
        }
        let mut rest = &bytes[1..];
        Ok(Place {
            index: u32::from_be_bytes(take(&mut rest)?),
            count: u32::from_be_bytes(take(&mut rest)?),
            position: Position::new(u64::from_be_bytes(take(&mut rest)?)),
            version: Version::new(u64::from_be_bytes(take(&mut rest)?)),
            schema_version: u32::from_be_bytes(take(&mut rest)?),
            occurred_at: moment(i64::from_be_bytes(take(&mut rest)?))?,
            recorded_at: moment(i64::from_be_bytes(take(&mut rest)?))?,
            id: EventId::from_uuid(Uuid::from_bytes(take(&mut rest)?)),
            digest: Digest(take(&mut rest)?),
        })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Foreign> {
    let (taken, left) = rest
        .split_first_chunk()
        .ok_or_else(|| foreign("a header `a` that is too short"))?;
    *rest = left;
    Ok(*taken)
}

fn moment(micros: i64) -> Result<DateTime<Utc>, Foreign> {
    DateTime::from_timestamp_micros(micros)
        .ok_or_else(|| foreign(format!("{micros} is no time in microseconds")))
}

/// A change of a stream, as JSON.
#[derive(Serialize, Deserialize)]
struct Change {
    id: Uuid,
    change: String,
    before: u64,
    recorded: i64,
}

impl Change {
    fn of(change: &ChangeStream, recorded_at: DateTime<Utc>) -> Result<Change, Foreign> {
        let (name, before) = match change.change {
            StreamChange::Delete => ("delete", Version::NONE),
            StreamChange::Tombstone => ("tombstone", Version::NONE),
            StreamChange::Truncate { before } => ("truncate", before),
            StreamChange::Archive { before } => ("archive", before),
            other => return Err(foreign(format!("{other:?} cannot be written"))),
        };
        Ok(Change {
            id: *change.id.as_uuid(),
            change: name.to_owned(),
            before: before.get(),
            recorded: recorded_at.timestamp_micros(),
        })
    }

    fn entry(self, stream: StreamId) -> Result<ReplicaEntry, Foreign> {
        let before = Version::new(self.before);
        let change = match self.change.as_str() {
            "delete" => StreamChange::Delete,
            "tombstone" => StreamChange::Tombstone,
            "truncate" => StreamChange::Truncate { before },
            "archive" => StreamChange::Archive { before },
            other => return Err(foreign(format!("a change `{other}`, by a newer Annals?"))),
        };
        Ok(ReplicaEntry::Change {
            change: ChangeStream::new(&stream, change).id(EventId::from_uuid(self.id)),
            recorded_at: moment(self.recorded)?,
        })
    }
}

/// Puts the events of an append together again.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    open: Option<ReplicaAppend>,
}

impl Assembler {
    /// Takes the next record; answers with an entry when one is whole.
    pub(super) fn push(&mut self, parsed: Parsed) -> Result<Option<ReplicaEntry>, Foreign> {
        let event = match (parsed, &self.open) {
            (Parsed::Whole(entry), None) => return Ok(Some(entry)),
            (Parsed::Whole(_), Some(_)) => return Err(foreign("it is inside of an append")),
            (Parsed::Event(event), _) => *event,
        };
        let ParsedEvent {
            index,
            count,
            stream,
            version,
            position,
            recorded_at,
            event,
        } = event;
        let mut append = match self.open.take() {
            None if index == 0 => ReplicaAppend {
                stream,
                version,
                position,
                recorded_at,
                events: Vec::with_capacity((count as usize).min(1_024)),
            },
            Some(open)
                if open.events.len() as u64 == u64::from(index)
                    && open.stream == stream
                    && position == open.position.plus(u64::from(index)) =>
            {
                open
            }
            _ => return Err(foreign("it is not the next event of its append")),
        };
        append.events.push(event);
        if index + 1 < count {
            self.open = Some(append);
            return Ok(None);
        }
        Ok(Some(ReplicaEntry::Append(append)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn incoming(record: Outgoing) -> Incoming {
        let headers = record.headers.into_iter();
        Incoming {
            key: record.key,
            payload: record.payload,
            headers: headers
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        }
    }

    #[test]
    fn a_record_takes_memory_for_all_that_it_holds() {
        let mut record = Incoming::default();
        let mut before = record.bytes();
        let mut grows = |record: &Incoming, by: usize| {
            assert!(record.bytes() >= before + by);
            before = record.bytes();
        };
        record.key = vec![0; 1_000].into();
        grows(&record, 1_000);
        record.payload = vec![0; 1_000].into();
        grows(&record, 1_000);
        record.headers = vec![("x".repeat(500), vec![0; 500].into())];
        grows(&record, 1_000);
    }

    fn again(entry: &ReplicaEntry) -> ReplicaEntry {
        let mut assembler = Assembler::default();
        let records = write(entry).unwrap();
        let entries = records.into_iter().filter_map(|record| {
            let parsed = read(incoming(record)).unwrap();
            assembler.push(parsed).unwrap()
        });
        let mut entries: Vec<ReplicaEntry> = entries.collect();
        assert_eq!(entries.len(), 1);
        entries.remove(0)
    }

    prop_compose! {
        fn an_event()(
            id: u128,
            payload in prop::collection::vec(any::<u8>(), 0..40),
            schema_version in 1_u32..9,
            micros in -1_000_000_000_i64..1_000_000_000,
            tags in prop::collection::vec("[a-z]{1,5}:[a-z é]{1,5}", 0..3),
            actor in prop::option::of("[a-zé]{0,8}"),
        ) -> NewEvent {
            let mut event = NewEvent::new("thing.happened", "json", payload)
                .id(EventId::from_uuid(Uuid::from_u128(id)))
                .schema_version(schema_version)
                .at(DateTime::from_timestamp_micros(micros).unwrap());
            event.tags = tags.iter().filter_map(|tag| tag.parse().ok()).collect();
            event.tags.sort();
            event.tags.dedup();
            event.metadata.actor = actor.map(Into::into);
            let digest = event.digest();
            event.own_digest(digest)
        }
    }

    proptest! {
        #[test]
        fn an_append_is_read_as_it_was_written(
            events in prop::collection::vec(an_event(), 1..5),
            version in 1_u64..100,
            position in 1_u64..100,
        ) {
            let entry = ReplicaEntry::Append(ReplicaAppend {
                stream: StreamId::new("account-é").unwrap(),
                version: Version::new(version),
                position: Position::new(position),
                recorded_at: DateTime::from_timestamp_micros(5).unwrap(),
                events,
            });
            prop_assert_eq!(again(&entry), entry);
        }
    }

    #[test]
    fn what_has_no_position_is_read_as_it_was_written() {
        let stream = StreamId::new("account-7").unwrap();
        let before = Version::new(3);
        for change in [
            StreamChange::Delete,
            StreamChange::Tombstone,
            StreamChange::Truncate { before },
            StreamChange::Archive { before },
        ] {
            let entry = ReplicaEntry::Change {
                change: ChangeStream::new(&stream, change),
                recorded_at: DateTime::from_timestamp_micros(7).unwrap(),
            };
            assert_eq!(again(&entry), entry);
        }
        let note = ReplicaEntry::Note("é".into());
        assert_eq!(again(&note), note);
    }

    #[test]
    fn what_a_store_did_not_write_is_foreign() {
        let event = NewEvent::json("a", "1");
        let two = ReplicaEntry::Append(ReplicaAppend {
            stream: StreamId::new("a-1").unwrap(),
            version: Version::new(1),
            position: Position::new(1),
            recorded_at: DateTime::UNIX_EPOCH,
            events: vec![event.clone(), event],
        });
        let mut records: Vec<Incoming> = write(&two).unwrap().into_iter().map(incoming).collect();
        let second = read(records.pop().unwrap()).unwrap();
        let first = || {
            let records = write(&two).unwrap().into_iter();
            read(records.map(incoming).next().unwrap()).unwrap()
        };
        assert!(Assembler::default().push(second).is_err());
        let mut assembler = Assembler::default();
        assert_eq!(assembler.push(first()), Ok(None));
        assert!(assembler.push(first()).is_err(), "the append goes on at 1");
        let mut assembler = Assembler::default();
        assert_eq!(assembler.push(first()), Ok(None));
        let note = Parsed::Whole(ReplicaEntry::Note("a".into()));
        assert!(assembler.push(note).is_err(), "an append is one run");
        for headers in [
            vec![],
            vec![("ctl".to_owned(), Bytes::from_static(b"later"))],
            vec![("a".to_owned(), Bytes::from_static(&[2; HEADER_BYTES]))],
            vec![("a".to_owned(), Bytes::from_static(&[1; 9]))],
        ] {
            let record = Incoming {
                headers,
                ..Incoming::default()
            };
            assert!(read(record).is_err());
        }
    }
}
