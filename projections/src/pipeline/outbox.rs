//! Events on their way out of a slot: written in the commit of the fold that brought them forth,
//! removed after they were sent.
//!
//! Keys: `0x02`, partition (4), position of the first cause (8), part (2), big endian. A value is
//! what one commit emitted, cut at a bound: a format, the last cause, how many, and the events in
//! their order.

use std::collections::{BTreeMap, VecDeque};

use annals_core::chrono::{DateTime, Utc};
use annals_core::{EventId, Metadata, NewEvent, Outgoing, Partition, Position, StreamId};
use bytes::Bytes;
use uuid::Uuid;

use super::dead::{Dead, Record};
use super::journal::Writes;
use super::output::{EmittedEvent, Leaving};
use super::wire::{Reader, Writer};

/// How keys of the outbox begin.
pub(crate) const OUTBOX: u8 = 2;
const FORMAT: u8 = 1;
const APPEND: u8 = 0;
const PUBLISH: u8 = 1;
/// What a value has at most before it is cut.
const PART_BYTES: usize = 256 << 10;

/// How far events were sent: by partition the last cause of which all were.
pub(crate) type SentTo = BTreeMap<Partition, Position>;

/// Where an event comes among all that a pipeline emits, whatever slot emitted it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Order {
    /// The record that is the cause.
    pub(crate) position: u64,
    /// What closes because of a record comes before what is made of the record itself.
    pub(crate) is_record: bool,
    /// The stage that emits it.
    pub(crate) output: u16,
    /// Its event time, in microseconds.
    pub(crate) time: i64,
    /// The key, as rows have it.
    pub(crate) key: String,
    /// Which of those that have all that in common.
    pub(crate) index: u32,
}

/// An event that is to be sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) order: Order,
    pub(crate) what: Leaving,
}

/// What a page emitted because of these records, and what is said about what they cause, in its
/// order; what can never be appended becomes dead letters.
pub(crate) fn entries(
    emitted: Vec<EmittedEvent>,
    causes: &[Record],
    metadata: &[Metadata],
) -> (Vec<Entry>, Vec<Dead>) {
    let mut entries: Vec<Entry> = Vec::with_capacity(emitted.len());
    let mut dead = Vec::new();
    for of in emitted {
        let cause = (of.when / 2) as usize;
        let (Some(cause), Some(metadata)) = (causes.get(cause), metadata.get(cause)) else {
            continue;
        };
        let mut what = match of.what {
            Ok(what) => what,
            Err(reason) => {
                dead.push(cause.not_appended((of.output, &of.key), reason));
                continue;
            }
        };
        let moment = DateTime::<Utc>::from_timestamp_micros(of.time.micros());
        let moment = moment.unwrap_or(cause.recorded_at);
        match &mut what {
            Leaving::Append(_, event) => {
                event.occurred_at = moment;
                event.metadata = metadata.clone();
                event.id = EventId::from_uuid(Uuid::nil());
            }
            Leaving::Publish(_, record) => record.occurred_at = moment,
        }
        entries.push(Entry {
            order: Order {
                position: cause.position.get(),
                is_record: of.when % 2 == 1,
                output: of.output,
                time: of.time.micros(),
                key: of.key,
                index: 0,
            },
            what,
        });
    }
    entries.sort_by(|one, other| one.order.cmp(&other.order));
    let mut before = 0;
    for at in 1..entries.len() {
        let (first, rest) = entries.split_at_mut(at);
        let order = &mut rest[0].order;
        let is_same = first[at - 1 - before as usize].order == *order;
        before = if is_same { before + 1 } else { 0 };
        order.index = before;
    }
    (entries, dead)
}

impl Entry {
    fn write(&self, to: &mut Writer) {
        let Order {
            position,
            is_record,
            output,
            time,
            key,
            index,
        } = &self.order;
        to.u64(*position);
        to.u8(u8::from(*is_record));
        to.u16(*output);
        to.u64(time.cast_unsigned());
        to.bytes(key.as_bytes());
        to.u32(*index);
        match &self.what {
            Leaving::Append(stream, event) => {
                to.u8(APPEND);
                write_event(to, stream, event);
            }
            Leaving::Publish(outlet, record) => {
                to.u8(PUBLISH);
                to.u16(*outlet);
                write_record(to, record);
            }
        }
    }

    fn read(from: &mut Reader<'_>) -> Option<Entry> {
        let order = Order {
            position: from.u64()?,
            is_record: from.u8()? == 1,
            output: from.u16()?,
            time: from.u64()?.cast_signed(),
            key: from.text()?,
            index: from.u32()?,
        };
        let what = match from.u8()? {
            APPEND => {
                let (stream, event) = read_event(from)?;
                Leaving::Append(stream, event)
            }
            PUBLISH => Leaving::Publish(from.u16()?, read_record(from)?),
            _ => return None,
        };
        Some(Entry { order, what })
    }

    /// About how many bytes it takes.
    pub(crate) fn size_bytes(&self) -> usize {
        match &self.what {
            Leaving::Append(_, event) => event.size_bytes(),
            Leaving::Publish(_, record) => {
                let headers = record.headers.iter();
                let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
                headers + record.key.len() + record.payload.as_ref().map_or(0, Bytes::len)
            }
        }
    }
}

fn write_event(to: &mut Writer, stream: &StreamId, event: &NewEvent) {
    to.bytes(stream.as_str().as_bytes());
    to.bytes(event.event_type.as_bytes());
    to.u32(event.schema_version);
    to.bytes(event.codec.as_bytes());
    to.bytes(&event.payload);
    to.u16(event.tags.len() as u16);
    for tag in &event.tags {
        to.bytes(tag.as_str().as_bytes());
    }
    let metadata = serde_json::to_vec(&event.metadata);
    to.bytes(&metadata.expect("texts and ids can be written"));
    to.u64(event.occurred_at.timestamp_micros().cast_unsigned());
}

fn read_event(from: &mut Reader<'_>) -> Option<(StreamId, NewEvent)> {
    let stream = StreamId::new(from.text()?).ok()?;
    let event_type = from.text()?;
    let schema_version = from.u32()?;
    let codec = from.text()?;
    let payload = Bytes::copy_from_slice(from.bytes()?);
    let mut event = NewEvent::new(event_type, codec, payload);
    event.schema_version = schema_version;
    for _ in 0..from.u16()? {
        event.tags.push(from.text()?.parse().ok()?);
    }
    event.metadata = serde_json::from_slice(from.bytes()?).ok()?;
    event.occurred_at = DateTime::from_timestamp_micros(from.u64()?.cast_signed())?;
    event.id = EventId::from_uuid(Uuid::nil());
    Some((stream, event))
}

fn write_record(to: &mut Writer, record: &Outgoing) {
    to.bytes(record.to.as_bytes());
    to.bytes(&record.key);
    to.u8(u8::from(record.payload.is_some()));
    to.bytes(record.payload.as_deref().unwrap_or_default());
    to.u16(record.headers.len() as u16);
    for (name, value) in &record.headers {
        to.bytes(name.as_bytes());
        to.bytes(value);
    }
    to.u64(record.occurred_at.timestamp_micros().cast_unsigned());
}

fn read_record(from: &mut Reader<'_>) -> Option<Outgoing> {
    let to = from.text()?.into();
    let key = Bytes::copy_from_slice(from.bytes()?);
    let has_payload = from.u8()? == 1;
    let payload = Bytes::copy_from_slice(from.bytes()?);
    let mut headers = Vec::new();
    for _ in 0..from.u16()? {
        let name = from.text()?.into();
        headers.push((name, Bytes::copy_from_slice(from.bytes()?)));
    }
    Some(Outgoing {
        to,
        key,
        payload: has_payload.then_some(payload),
        headers,
        occurred_at: DateTime::from_timestamp_micros(from.u64()?.cast_signed())?,
    })
}

/// The key after which the outbox of a partition begins.
pub(crate) fn before_partition(partition: Partition) -> Bytes {
    let mut key = vec![OUTBOX];
    key.extend(partition.0.to_be_bytes());
    key.into()
}

/// The events of a value.
pub(crate) fn read_value(value: &[u8]) -> Option<Vec<Entry>> {
    let mut from = Reader::of(value);
    let (_, count) = head(&mut from)?;
    let entries = (0..count).map(|_| Entry::read(&mut from));
    entries
        .collect::<Option<Vec<_>>>()
        .filter(|_| from.is_at_end())
}

/// The last cause of a value, and how many events it has.
fn head(from: &mut Reader<'_>) -> Option<(Position, u32)> {
    let format = from.u8()?;
    let last = from.u64()?;
    let count = from.u32()?;
    (format == FORMAT).then_some((Position::new(last), count))
}

/// What a slot has emitted and not removed yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    parts: BTreeMap<Partition, VecDeque<Part>>,
    events: u64,
    bytes: usize,
    /// What was sent, until a commit removes it.
    removed: Vec<Bytes>,
}

#[derive(Debug)]
struct Part {
    key: Bytes,
    last: Position,
    events: u32,
    bytes: usize,
}

impl Outbox {
    /// How many events wait to be sent, and their bytes.
    pub(crate) fn waiting(&self) -> (u64, usize) {
        (self.events, self.bytes)
    }

    /// Takes an entry of the store back; whether it was one.
    pub(crate) fn read(&mut self, key: &Bytes, value: &[u8]) -> bool {
        let Some((partition, (last, events))) = partition_of(key).zip(head(&mut Reader::of(value)))
        else {
            return false;
        };
        let bytes = value.len();
        self.push(partition, key.clone(), (last, events), bytes);
        true
    }

    fn push(
        &mut self,
        partition: Partition,
        key: Bytes,
        (last, events): (Position, u32),
        bytes: usize,
    ) {
        self.events += u64::from(events);
        self.bytes += bytes;
        self.parts.entry(partition).or_default().push_back(Part {
            key,
            last,
            events,
            bytes,
        });
    }

    /// Forgets what was sent; the next commit removes it.
    pub(crate) fn sent_to(&mut self, sent: &SentTo) {
        for (partition, parts) in &mut self.parts {
            let Some(sent) = sent.get(partition) else {
                continue;
            };
            while let Some(part) = parts.pop_front_if(|part| part.last <= *sent) {
                self.events -= u64::from(part.events);
                self.bytes -= part.bytes;
                self.removed.push(part.key);
            }
        }
    }

    /// What a commit writes: what was emitted since the last one, which is in its order and not
    /// sent yet.
    pub(crate) fn write(&mut self, partition: Partition, emitted: Vec<Entry>) -> Writes {
        let removed = std::mem::take(&mut self.removed);
        let mut writes: Writes = removed.into_iter().map(|key| (key, None)).collect();
        let mut emitted = emitted.into_iter().peekable();
        let Some(first) = emitted.peek().map(|entry| entry.order.position) else {
            return writes;
        };
        let mut part = 0_u16;
        while emitted.peek().is_some() {
            let mut body = Writer::default();
            let mut events = 0_u32;
            let mut last = 0;
            while let Some(entry) = emitted.next_if(|_| body.len() < PART_BYTES) {
                entry.write(&mut body);
                last = entry.order.position;
                events += 1;
            }
            let mut value = Writer::default();
            value.u8(FORMAT);
            value.u64(last);
            value.u32(events);
            let value = value.followed_by(body);
            let key = key(partition, first, part);
            part += 1;
            self.push(
                partition,
                key.clone(),
                (Position::new(last), events),
                value.len(),
            );
            writes.push((key, Some(value)));
        }
        writes
    }
}

fn key(partition: Partition, first: u64, part: u16) -> Bytes {
    let mut key = before_partition(partition).to_vec();
    key.extend(first.to_be_bytes());
    key.extend(part.to_be_bytes());
    key.into()
}

/// The partition that a key of the outbox is about.
pub(crate) fn partition_of(key: &[u8]) -> Option<Partition> {
    let mut from = Reader::of(key);
    let is_ours = from.u8()? == OUTBOX && key.len() == 15;
    let partition = Partition(from.u32()?);
    is_ours.then_some(partition)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use annals_core::RecordedEvent;
    use annals_streams::Time;

    use super::*;

    const P0: Partition = Partition(0);

    fn entry(position: u64, key: &str, payload: usize) -> Entry {
        let event = NewEvent::json("alert.raised", vec![b'7'; payload])
            .tag("user:u1".parse().unwrap())
            .id(EventId::from_uuid(Uuid::nil()))
            .at(DateTime::from_timestamp_micros(-5).unwrap());
        Entry {
            order: Order {
                position,
                is_record: true,
                output: 3,
                time: -5,
                key: key.into(),
                index: 0,
            },
            what: Leaving::Append(StreamId::new("alert-1").unwrap(), event),
        }
    }

    fn record(position: u64) -> Entry {
        let record = Outgoing {
            to: "alerts".into(),
            key: "u1".into(),
            payload: (position % 2 == 0).then(|| "7".into()),
            headers: vec![("ce_type".into(), "alert".into())],
            occurred_at: DateTime::UNIX_EPOCH,
        };
        Entry {
            what: Leaving::Publish(3, record),
            ..entry(position, "u1", 0)
        }
    }

    #[test]
    fn events_come_back_as_they_were() {
        let both = |at| [entry(at, "u1", 20_000), record(at)];
        let all: Vec<_> = (1..50).flat_map(both).collect();
        let mut outbox = Outbox::default();
        let writes = outbox.write(P0, all.clone());
        assert!(writes.len() > 2, "cut at a bound");
        let mut again = Outbox::default();
        let mut found = Vec::new();
        for (key, value) in &writes {
            let value = value.as_deref().unwrap();
            assert!(again.read(key, value));
            found.extend(read_value(value).unwrap());
            assert_eq!(read_value(&value[..value.len() - 1]), None);
        }
        assert_eq!(found, all);
        assert_eq!(again.waiting(), outbox.waiting());
        assert_eq!(again.waiting().0, 98);
    }

    #[test]
    fn what_was_sent_is_removed_with_the_next_commit() {
        let mut outbox = Outbox::default();
        let first = outbox.write(P0, vec![entry(4, "a", 9), entry(6, "b", 9)]);
        outbox.sent_to(&SentTo::from([(P0, Position::new(5))]));
        assert_eq!(outbox.waiting().0, 2);
        outbox.sent_to(&SentTo::from([(P0, Position::new(6))]));
        assert_eq!(outbox.waiting(), (0, 0));
        let writes = outbox.write(P0, vec![]);
        assert_eq!(writes, [(first[0].0.clone(), None)]);
        assert!(outbox.write(P0, vec![]).is_empty());
    }

    #[test]
    fn events_of_one_cause_are_numbered_in_one_order() {
        let emitted = |time, key: &str, when| EmittedEvent {
            when,
            output: 1,
            time: Time::from_micros(time),
            key: key.into(),
            what: Ok(Leaving::Append(
                StreamId::new("alert-1").unwrap(),
                NewEvent::json("t", b"1".as_slice()),
            )),
        };
        let record = RecordedEvent::new(
            EventId::random(),
            annals_core::Place {
                stream: StreamId::new("order-1").unwrap(),
                version: annals_core::Version::new(1),
                partition: P0,
                position: Position::new(7),
                append_index: 0,
                recorded_at: DateTime::UNIX_EPOCH,
            },
            "order.placed".into(),
            1,
            "json".into(),
            Bytes::new(),
            DateTime::UNIX_EPOCH,
        );
        let causes = [Record::of(&record)];
        let metadata = [Metadata::caused_by(&record)];
        let all = vec![
            emitted(2, "b", 1),
            emitted(9, "a", 0),
            emitted(2, "a", 1),
            emitted(2, "b", 1),
            emitted(2, "b", 1),
        ];
        let (entries, dead) = entries(all, &causes, &metadata);
        let found: Vec<_> = entries
            .iter()
            .map(|of| (of.order.time, of.order.key.as_str(), of.order.index))
            .collect();
        assert_eq!(
            found,
            [
                (9, "a", 0),
                (2, "a", 0),
                (2, "b", 0),
                (2, "b", 1),
                (2, "b", 2)
            ]
        );
        assert!(dead.is_empty());
        let Leaving::Append(_, event) = &entries[0].what else {
            panic!("an event")
        };
        assert_eq!(event.metadata.causation, Some(record.id));
    }
}
