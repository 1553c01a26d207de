//! An entry of the outbox: an event to append or a record to publish, its order, and its bytes.

use annals_core::chrono::{DateTime, Utc};
use annals_core::{EventId, Metadata, NewEvent, Outgoing, StreamId};
use bytes::Bytes;
use uuid::Uuid;

use crate::pipeline::dead::{Dead, Record};
use crate::pipeline::output::{EmittedEvent, Leaving};
use crate::pipeline::wire::{Reader, Writer};

const APPEND: u8 = 0;
const PUBLISH: u8 = 1;

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
    pub(super) fn write(&self, to: &mut Writer) {
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

    pub(super) fn read(from: &mut Reader<'_>) -> Option<Entry> {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use annals_core::{Partition, Position, RecordedEvent};
    use annals_streams::Time;

    use super::*;

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
                partition: Partition(0),
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
