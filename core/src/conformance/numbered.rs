//! Appends that are known by a number, for tests that kill a process and count: what is stored can
//! be checked against what was acknowledged, because everything in an append follows from who made
//! it and when.

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use crate::append::{Append, Expected};
use crate::event::{EventId, NewEvent, RecordedEvent};
use crate::position::Position;
use crate::read::ReadLog;
use crate::store::Log;
use crate::stream::{StreamId, Version};

/// The append number `n`, from 0, of a task in a run (a process that lived once).
///
/// A task makes its appends one after another, and none before the one before it was acknowledged.
///
/// ```
/// use annals_core::conformance::numbered::Numbered;
///
/// let third = Numbered { run: 7, task: 1, n: 2 };
/// assert_eq!(third.append().events.len() as u64, third.events());
/// assert_eq!(third.append().events[0].1.id, third.id(0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_structs)]
pub struct Numbered {
    /// Which life of which process; no two are alike.
    pub run: u64,
    /// The task, of at most 65,536.
    pub task: u64,
    /// Which of its appends.
    pub n: u64,
}

/// Of four appends two have one event, one has several, and one has two over two streams.
const EVENTS: [u64; 4] = [1, 1, 7, 2];

/// What is in a task's first stream before each of the four, and after them.
const BEFORE: [u64; 5] = [0, 1, 2, 9, 10];

impl Numbered {
    /// How many events it has.
    pub fn events(self) -> u64 {
        EVENTS[(self.n % 4) as usize]
    }

    /// The id of its event at `index`.
    pub fn id(self, index: u64) -> EventId {
        let number = u128::from(self.run) << 80
            | u128::from(self.task) << 64
            | u128::from(self.n) << 16
            | u128::from(index);
        // The shape of a UUIDv7.
        EventId::from_uuid(Uuid::from_u128(number << 16 | 0x7000_8000_0000_0000_0000))
    }

    /// The append: always the same, expecting exactly what the task's earlier appends made.
    pub fn append(self) -> Append {
        let whole = self.n / 4;
        let part = (self.n % 4) as usize;
        let mut append =
            Append::default().requiring(self.stream(0), at(whole * BEFORE[4] + BEFORE[part]));
        if part == 3 {
            append = append.requiring(self.stream(1), at(whole));
        }
        for index in 0..self.events() {
            let payload = format!("{} {} {} {index}", self.run, self.task, self.n);
            let event = NewEvent::json("numbered.made", payload.into_bytes()).id(self.id(index));
            append = append.event(self.stream(if part == 3 { index } else { 0 }), event);
        }
        append
    }

    /// Whose event it is, and its index in its append.
    ///
    /// # Panics
    ///
    /// When it is not one of these, or has another's content.
    pub fn of(event: &RecordedEvent) -> (Numbered, u64) {
        let text = std::str::from_utf8(&event.payload).unwrap();
        let numbers: Vec<u64> = text
            .split(' ')
            .map(|number| number.parse().unwrap())
            .collect();
        let [run, task, n, index] = numbers[..] else {
            panic!("a torn payload: {text}")
        };
        let numbered = Numbered { run, task, n };
        assert_eq!(
            event.id,
            numbered.id(index),
            "an event with another's content"
        );
        (numbered, index)
    }

    fn stream(self, index: u64) -> StreamId {
        StreamId::new(format!("run-{}-{}-{index}", self.run, self.task)).unwrap()
    }
}

fn at(version: u64) -> Expected {
    Expected::Version(Version::new(version))
}

/// All that a log of one partition holds.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use annals_core::conformance::numbered::whole_log;
///
/// assert!(whole_log(&annals_core::MemoryStore::new()).await.is_empty());
/// # });
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
///
/// When it cannot be read.
pub async fn whole_log(log: &(impl Log + ?Sized)) -> Vec<RecordedEvent> {
    let mut all = Vec::new();
    let mut after = Position::START;
    loop {
        let page = log.read(ReadLog::after(after)).await.unwrap();
        after = page.scanned;
        all.extend(page.events);
        if page.end {
            return all;
        }
    }
}

/// The appends that a log holds, which holds nothing else.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use std::collections::HashSet;
///
/// use annals_core::conformance::numbered::{Numbered, check, whole_log};
/// use annals_core::{EventStore, MemoryStore};
///
/// let (store, first) = (MemoryStore::new(), Numbered { run: 1, task: 0, n: 0 });
/// store.append(first.append()).await?;
/// let there = check(&whole_log(&store).await, &HashSet::from([first]));
/// assert_eq!(there, HashSet::from([first]));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
///
/// When something that was acknowledged is not there, or is there in part or twice; when positions
/// or versions have a hole, or recorded times go backwards.
pub fn check(log: &[RecordedEvent], acknowledged: &HashSet<Numbered>) -> HashSet<Numbered> {
    let mut found: BTreeMap<Numbered, Vec<u64>> = BTreeMap::new();
    let mut ids = HashSet::new();
    let mut versions = BTreeMap::<&StreamId, u64>::new();
    let mut recorded_at = None;
    for (place, event) in (1..).zip(log) {
        assert_eq!(event.position.get(), place, "positions have a hole");
        assert!(ids.insert(event.id), "{} is there twice", event.id);
        let version = versions.entry(&event.stream).or_default();
        *version += 1;
        assert_eq!(
            event.version.get(),
            *version,
            "versions of {} have a hole",
            event.stream
        );
        assert!(
            recorded_at <= Some(event.recorded_at),
            "recorded times go backwards"
        );
        recorded_at = Some(event.recorded_at);
        let (numbered, index) = Numbered::of(event);
        assert_eq!(u64::from(event.append_index), index);
        found.entry(numbered).or_default().push(index);
    }
    for (numbered, indexes) in &found {
        assert_eq!(
            *indexes,
            (0..numbered.events()).collect::<Vec<_>>(),
            "{numbered:?} is torn"
        );
    }
    let found: HashSet<Numbered> = found.into_keys().collect();
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    found
}
