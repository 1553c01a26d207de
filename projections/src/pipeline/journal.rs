//! State on disk: what changed as one row for each commit, and bases that are written again in
//! turn, so that a commit is small, and what is read at the beginning is bounded.
//!
//! Keys: `0x00`, node: all entries of a virtual node. `0x01`, number (8, big endian), part (2): the
//! changes of a commit. Changes that every base has taken in are removed.

use std::collections::{BTreeMap, VecDeque};

use annals_core::Partition;
use annals_runner::{NODES, WorkError};
use annals_streams::{Address, Changes};
use bytes::Bytes;

use super::wire::{Reader, Writer};

const BASE: u8 = 0;
const CHANGES: u8 = 1;
/// What a value has at most, so that a store need not keep longer ones.
const PART_BYTES: usize = 256 << 10;

type Entries = BTreeMap<Address, Vec<u8>>;

/// All state of a slot, as bytes, and what of it is in the store.
#[derive(Debug)]
pub(crate) struct Journal {
    nodes: Vec<Node>,
    /// The commits whose changes are kept: number, parts, bytes.
    kept: VecDeque<(u64, u16, usize)>,
    next: u64,
    bytes: usize,
    entries: usize,
}

#[derive(Debug, Default)]
struct Node {
    entries: Entries,
    /// The commit that its base has taken in.
    based_on: u64,
    /// Parts of its base in the store.
    parts: u16,
    bytes: usize,
}

impl Node {
    /// Whether it has entries, here or in the store. Of one that has none, the changes that are
    /// kept end with the removal of what they set: it holds none of them back.
    fn needs_base(&self) -> bool {
        !self.entries.is_empty() || self.parts > 0
    }
}

/// What a commit changes in the store.
pub(crate) type Writes = Vec<(Bytes, Option<Bytes>)>;

fn node_of(key: &[u8]) -> usize {
    let key = String::from_utf8_lossy(key);
    Partition::of(&key, NODES as u32).0 as usize
}

fn base_key(node: usize, part: u16) -> Bytes {
    let mut key = vec![BASE, node as u8];
    key.extend(part.to_be_bytes());
    key.into()
}

fn changes_key(number: u64, part: u16) -> Bytes {
    let mut key = vec![CHANGES];
    key.extend(number.to_be_bytes());
    key.extend(part.to_be_bytes());
    key.into()
}

impl Journal {
    pub(crate) fn new() -> Journal {
        Journal {
            nodes: (0..NODES).map(|_| Node::default()).collect(),
            kept: VecDeque::new(),
            next: 1,
            bytes: 0,
            entries: 0,
        }
    }

    /// Bytes of state, keys included.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many entries of state there are.
    pub(crate) fn len(&self) -> usize {
        self.entries
    }

    /// Entries of state.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Address, &[u8])> {
        let all = self.nodes.iter().flat_map(|node| &node.entries);
        all.map(|(address, value)| (address, value.as_slice()))
    }

    /// What is written of these changes.
    pub(crate) fn write(&mut self, changes: &Changes) -> Writes {
        let mut writes = Vec::new();
        if changes.is_empty() {
            return writes;
        }
        let mut parts = Parts::based_on(None);
        for (address, value) in changes.iter() {
            self.apply(address.clone(), value);
            parts.entry(address, value);
        }
        let number = self.next;
        self.next += 1;
        let parts = parts.end();
        let written: usize = parts.iter().map(Bytes::len).sum();
        self.kept.push_back((number, parts.len() as u16, written));
        for (part, value) in (0..).zip(parts) {
            writes.push((changes_key(number, part), Some(value)));
        }
        self.write_bases(number, written, &mut writes);
        self.remove_old(&mut writes);
        writes
    }

    fn apply(&mut self, address: Address, value: Option<&[u8]>) {
        let node = &mut self.nodes[node_of(&address.key)];
        let head = address.key.len() + address.place.len();
        self.entries += usize::from(value.is_some());
        let before = match value {
            Some(value) => {
                node.bytes += head + value.len();
                self.bytes += head + value.len();
                node.entries.insert(address, value.to_vec())
            }
            None => node.entries.remove(&address),
        };
        if let Some(before) = before {
            self.entries -= 1;
            node.bytes -= head + before.len();
            self.bytes -= head + before.len();
        }
    }

    /// Bases in turn, the oldest first, until about twice as much was written of them as of
    /// changes, and at least one while more changes are kept than twice the state.
    fn write_bases(&mut self, number: u64, written: usize, writes: &mut Writes) {
        let journal: usize = self.kept.iter().map(|(_, _, bytes)| bytes).sum();
        let mut budget = 2 * written;
        let mut must = journal > 2 * self.bytes;
        // The turn follows from the bases, so that it continues after a slot begins again.
        let mut turns: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.nodes[*node].needs_base())
            .collect();
        turns.sort_by_key(|node| self.nodes[*node].based_on);
        for turn in turns {
            let node = &mut self.nodes[turn];
            if !must && node.bytes > budget {
                break;
            }
            budget = budget.saturating_sub(node.bytes);
            must &= node.bytes == 0;
            let mut parts = Parts::based_on(Some(number));
            for (address, value) in &node.entries {
                parts.entry(address, Some(value));
            }
            let parts = if node.entries.is_empty() {
                Vec::new()
            } else {
                parts.end()
            };
            for part in parts.len() as u16..node.parts {
                writes.push((base_key(turn, part), None));
            }
            node.parts = parts.len() as u16;
            node.based_on = number;
            for (part, value) in (0..).zip(parts) {
                writes.push((base_key(turn, part), Some(value)));
            }
        }
    }

    fn remove_old(&mut self, writes: &mut Writes) {
        let needed = self.nodes.iter().filter(|node| node.needs_base());
        let oldest = needed.map(|node| node.based_on).min().unwrap_or(u64::MAX);
        while let Some((number, parts, _)) = self.kept.front().copied() {
            if number > oldest {
                break;
            }
            self.kept.pop_front();
            for part in 0..parts {
                // What was written in this very commit is not there yet.
                let key = changes_key(number, part);
                match writes.iter().position(|(written, _)| *written == key) {
                    Some(at) => _ = writes.remove(at),
                    None => writes.push((key, None)),
                }
            }
        }
    }

    /// Takes an entry of the store back; they come in the order of their keys.
    ///
    /// Changes that a base has taken in already come again, up to the newest: the outcome is the
    /// same.
    pub(crate) fn read(&mut self, key: &[u8], value: &[u8]) -> Result<(), WorkError> {
        let bad = || {
            WorkError::Stopped(format!(
                "the state of the pipeline cannot be read at `{}`; rebuild it",
                key.escape_ascii()
            ))
        };
        let mut rest = Reader::of(value);
        match key {
            [BASE, node, first, second] => {
                let based_on = rest.u64().ok_or_else(bad)?;
                let part = u16::from_be_bytes([*first, *second]);
                let node = &mut self.nodes[usize::from(*node)];
                node.parts = node.parts.max(part + 1);
                node.based_on = based_on;
                self.next = self.next.max(node.based_on + 1);
            }
            [CHANGES, number @ .., _, _] => {
                let number = <[u8; 8]>::try_from(number).map_err(|_| bad())?;
                let number = u64::from_be_bytes(number);
                self.next = self.next.max(number + 1);
                match self.kept.back_mut().filter(|kept| kept.0 == number) {
                    Some(kept) => {
                        kept.1 += 1;
                        kept.2 += value.len();
                    }
                    None => self.kept.push_back((number, 1, value.len())),
                }
            }
            _ => return Err(bad()),
        }
        while !rest.is_at_end() {
            let (address, value) = entry(&mut rest).ok_or_else(bad)?;
            self.apply(address, value);
        }
        Ok(())
    }
}

/// Entries as values of a bounded size.
#[derive(Default)]
struct Parts {
    /// Each part begins with the commit that it has taken in.
    based_on: Option<u64>,
    parts: Vec<Bytes>,
    open: Writer,
}

impl Parts {
    fn based_on(number: Option<u64>) -> Parts {
        let mut parts = Parts {
            based_on: number,
            ..Parts::default()
        };
        parts.begin();
        parts
    }

    fn begin(&mut self) {
        if let Some(number) = self.based_on {
            self.open.u64(number);
        }
    }

    fn entry(&mut self, address: &Address, value: Option<&[u8]>) {
        if self.open.len() >= PART_BYTES {
            self.parts.push(std::mem::take(&mut self.open).into());
            self.begin();
        }
        let to = &mut self.open;
        to.u16(address.stage);
        to.bytes(&address.key);
        to.bytes(&address.place);
        to.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            to.bytes(value);
        }
    }

    fn end(mut self) -> Vec<Bytes> {
        self.parts.push(self.open.into());
        self.parts
    }
}

fn entry<'a>(from: &mut Reader<'a>) -> Option<(Address, Option<&'a [u8]>)> {
    let stage = from.u16()?;
    let key = from.bytes()?.to_vec();
    let place = from.bytes()?.to_vec();
    let value = if from.u8()? == 0 {
        None
    } else {
        Some(from.bytes()?)
    };
    Some((Address { stage, key, place }, value))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(key: u8) -> Address {
        Address {
            stage: u16::from(key % 3),
            key: vec![b'k', key],
            place: vec![key, 0],
        }
    }

    fn reopened(stored: &BTreeMap<Bytes, Bytes>) -> Journal {
        let mut journal = Journal::new();
        for (key, value) in stored {
            journal.read(key, value).unwrap();
        }
        journal
    }

    fn take_in(stored: &mut BTreeMap<Bytes, Bytes>, writes: Writes) -> usize {
        let mut written = 0;
        for (key, value) in writes {
            match value {
                Some(value) => {
                    written += value.len();
                    stored.insert(key, value);
                }
                None => _ = stored.remove(&key),
            }
        }
        written
    }

    proptest! {
        #[test]
        fn state_comes_back_however_often_it_is_reopened(
            commits in prop::collection::vec(
                prop::collection::vec((any::<u8>(), prop::option::of(0..400_usize)), 0..30), 0..60,
            ),
            reopens in any::<u64>(),
        ) {
            let mut stored = BTreeMap::new();
            let mut journal = Journal::new();
            let mut model = BTreeMap::new();
            for (number, commit) in commits.into_iter().enumerate() {
                let mut changes = Changes::new();
                for (key, length) in commit {
                    let value = length.map(|length| vec![key; length]);
                    changes.set(address(key), value.clone());
                    match value {
                        Some(value) => model.insert(address(key), value),
                        None => model.remove(&address(key)),
                    };
                }
                take_in(&mut stored, journal.write(&changes));
                if reopens >> (number % 64) & 1 == 1 {
                    journal = reopened(&stored);
                }
                let entries = journal.entries();
                let found: BTreeMap<_, _> =
                    entries.map(|(at, value)| (at.clone(), value.to_vec())).collect();
                prop_assert_eq!(&found, &model);
            }
            let again = reopened(&stored);
            prop_assert_eq!(again.entries().count(), model.len());
            prop_assert_eq!(again.len(), model.len());
        }
    }

    #[test]
    fn the_journal_is_bounded_by_the_state() {
        let mut stored = BTreeMap::new();
        let mut journal = Journal::new();
        let mut all = Changes::new();
        for key in 0..=255 {
            all.set(address(key), Some(vec![key; 100]));
        }
        take_in(&mut stored, journal.write(&all));
        let mut written = 0;
        let mut changed = 0;
        for round in 0..20_000_u32 {
            let mut one = Changes::new();
            one.set(address(round as u8), Some(vec![round as u8; 100]));
            written += take_in(&mut stored, journal.write(&one));
            changed += 100;
        }
        let kept: usize = stored.values().map(Bytes::len).sum();
        assert!(kept < 6 * journal.bytes(), "{kept} of {}", journal.bytes());
        assert!(written < 8 * changed, "{written} for {changed}");
    }

    #[test]
    fn the_journal_is_bounded_however_often_it_is_reopened() {
        let mut stored = BTreeMap::new();
        let mut all = Changes::new();
        for key in 0..=255 {
            all.set(address(key), Some(vec![key; 100]));
        }
        let mut journal = Journal::new();
        take_in(&mut stored, journal.write(&all));
        for round in 0..5_000_u32 {
            journal = reopened(&stored);
            let mut one = Changes::new();
            one.set(address(round as u8), Some(vec![round as u8; 100]));
            take_in(&mut stored, journal.write(&one));
        }
        let kept: usize = stored.values().map(Bytes::len).sum();
        assert!(kept < 6 * journal.bytes(), "{kept} of {}", journal.bytes());
    }

    #[test]
    fn spoiled_state_is_refused() {
        let mut journal = Journal::new();
        assert!(journal.read(&[7], b"").is_err());
        let key = changes_key(1, 0);
        assert!(journal.read(&key, &[0, 0, 0, 0, 0, 9, 1]).is_err());
    }
}
