//! Events on their way out of a slot: written in the commit of the fold that caused them,
//! removed after they were sent.
//!
//! Keys: `0x02`, partition (4), position of the first cause (8), part (2), big endian. A value is
//! what one commit emitted, cut at a bound: a format, the last cause, how many, and the events in
//! their order.

mod entry;

use std::collections::{BTreeMap, VecDeque};

use annals_core::{Partition, Position};
use bytes::Bytes;

pub(crate) use entry::{Entry, Order, entries};

use super::journal::Writes;
use super::wire::{Reader, Writer};

/// How keys of the outbox begin.
pub(crate) const OUTBOX: u8 = 2;
const FORMAT: u8 = 1;
/// What a value has at most before it is cut.
const PART_BYTES: usize = 256 << 10;

/// How far events were sent: by partition the last cause of which all were.
pub(crate) type SentTo = BTreeMap<Partition, Position>;

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
    use annals_core::chrono::DateTime;
    use annals_core::{EventId, NewEvent, Outgoing, StreamId};
    use uuid::Uuid;

    use super::*;
    use crate::pipeline::output::Leaving;

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
            payload: position.is_multiple_of(2).then(|| "7".into()),
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
}
