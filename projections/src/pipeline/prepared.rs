//! A page of the log as what the slots of a pipeline work on: decoded, sent through the stages
//! before the first key, and divided by key, once in a process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    EventId, Head, LogPage, Metadata, Partition, Position, RecordedEvent, Removed, StreamId,
};
use annals_runner::{SharedPage, contained};
use annals_streams::{Page, Place, Time};

use super::clock_event;
use super::dead::Record;
use super::divide::{DivideBy, DividedRows};
use super::graph::{Draft, Making};
use super::output::EmittedEvent;
use super::panics::Omitted;
use super::source::{OpenSource, Read, micros};

/// What is made of a page.
pub(crate) struct PreparedPage {
    pub(crate) partition: Partition,
    pub(crate) head: Head,
    pub(crate) scanned: Position,
    pub(crate) end: bool,
    pub(crate) removed: Vec<Removed>,
    /// The last event that was scanned, if it is of the pipeline.
    pub(crate) last: Option<EventId>,
    records: Vec<Record>,
    /// Of each record: what was read of it, and the bytes of its payload.
    reads: Vec<(WhatWasRead, usize)>,
    /// What is said about events that a record causes, where any leave the pipeline.
    metadata: Vec<Metadata>,
    rows: Mutex<RowsBySlot>,
    /// What all slots see, until the one that tells of it takes it.
    seen_by_all: Mutex<Option<SeenByAll>>,
    /// Why nothing of it can be used.
    failed: Option<String>,
}

/// The rows of each place where a stream is divided, until their slots take them.
struct RowsBySlot {
    rows: Vec<Vec<Option<Box<dyn DividedRows>>>>,
    /// By slot: whether it has taken its own.
    taken: Vec<bool>,
}

/// What was read of a record.
pub(crate) enum WhatWasRead {
    /// No source reads it.
    Nothing,
    /// That time has come so far.
    Clock(Time),
    /// It stops the pipeline.
    Stops(Stops),
    /// By each source that reads its type: the last one, and those before it.
    By(BySource, Vec<BySource>),
}

/// Why a record stops the pipeline.
#[derive(Clone, Debug)]
pub(crate) enum Stops {
    /// It cannot be read.
    Unreadable(String),
    /// It is in another partition than its key.
    Misplaced(String),
}

/// What a source made of a record.
pub(crate) struct BySource {
    pub(crate) source: usize,
    pub(crate) read: Read,
    /// Its time when it is not read.
    pub(crate) unread: Option<Time>,
}

/// What comes out of the stages that all slots see the same of.
#[derive(Default)]
pub(crate) struct SeenByAll {
    pub(crate) events: Vec<EmittedEvent>,
    pub(crate) lacking: Vec<Omitted>,
}

impl WhatWasRead {
    /// Each source that reads it.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &BySource> {
        let (last, others) = match self {
            WhatWasRead::By(last, others) => (Some(last), &others[..]),
            _ => (None, &[][..]),
        };
        others.iter().chain(last)
    }

    /// Why it stops the pipeline, if it does.
    pub(crate) fn stops(&self) -> Option<Stops> {
        if let WhatWasRead::Stops(why) = self {
            return Some(why.clone());
        }
        self.sources().find_map(|of| match &of.read {
            Read::Unreadable { reason, goes_on } if !goes_on => {
                Some(Stops::Unreadable(reason.clone()))
            }
            _ => None,
        })
    }
}

/// The stages before the keys, for one page.
pub(crate) struct Preparation {
    making: Making,
    reading: Reading,
}

impl Preparation {
    pub(crate) fn of(draft: &Draft, by: DivideBy) -> Preparation {
        let mut making = Making::before_keys(by);
        let reading = Reading::new(draft, &mut making);
        Preparation { making, reading }
    }

    /// What is made of a page of this partition.
    pub(crate) fn prepare(self, page: LogPage, partition: Partition) -> PreparedPage {
        let Preparation {
            making,
            mut reading,
        } = self;
        let slots = making.divide_by.slots();
        let last = page.events.last();
        let last = last.filter(|last| last.position == page.scanned);
        let last = last.map(|last| last.id);
        let prepared = contained(|| reading.read(page.events, partition));
        let (mut records, failed) = match prepared {
            Ok(records) => (records, None),
            Err(panic) => (ReadRecords::default(), Some(panic)),
        };
        let divided = {
            let mut divided = making
                .divided
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *divided)
        };
        for (cause, why) in divided.misplaced {
            if let Some((read, _)) = records.reads.get_mut(cause) {
                let stream = records.streams.get(cause);
                let stream = stream.map_or("", StreamId::as_str).escape_debug();
                let why = format!("it is in stream `{stream}`, and {why}");
                *read = WhatWasRead::Stops(Stops::Misplaced(why));
            }
        }
        let mut collected = making
            .collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let seen_by_all = SeenByAll {
            events: std::mem::take(&mut collected.events),
            lacking: making.panics.take_lacking(),
        };
        PreparedPage {
            partition,
            head: page.head,
            scanned: page.scanned,
            end: page.end,
            removed: page.removed,
            last,
            records: records.records,
            reads: records.reads,
            metadata: records.metadata,
            rows: Mutex::new(RowsBySlot {
                rows: divided.rows,
                taken: vec![false; usize::from(slots)],
            }),
            seen_by_all: Mutex::new(Some(seen_by_all)),
            failed,
        }
    }
}

impl PreparedPage {
    /// Its records, and what was read of each.
    pub(crate) fn records(&self) -> (&[Record], &[(WhatWasRead, usize)]) {
        (&self.records, &self.reads)
    }

    /// What is said about events that its records cause.
    pub(crate) fn metadata(&self) -> &[Metadata] {
        &self.metadata
    }

    /// The first record after a position.
    pub(crate) fn first_after(&self, after: Position) -> usize {
        self.records.partition_point(|of| of.position <= after)
    }

    /// When the first record after a position was recorded.
    pub(crate) fn oldest_after(&self, after: Position) -> Option<DateTime<Utc>> {
        let first = self.records.get(self.first_after(after));
        first.map(|record| record.recorded_at)
    }

    /// The records after a position, and the bytes of their payloads.
    pub(crate) fn size_after(&self, after: Position) -> (usize, usize) {
        let of = &self.reads[self.first_after(after)..];
        (of.len(), of.iter().map(|(_, bytes)| bytes).sum())
    }

    /// Why nothing of it can be used.
    pub(crate) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    fn rows(&self) -> MutexGuard<'_, RowsBySlot> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows of a slot at each place where a stream is divided. It takes them once.
    pub(crate) fn take_rows(&self, slot: u16) -> Vec<Option<Box<dyn DividedRows>>> {
        let slot = usize::from(slot);
        let mut all = self.rows();
        if let Some(taken) = all.taken.get_mut(slot) {
            *taken = true;
        }
        let of_slot = all.rows.iter_mut().map(|of| of.get_mut(slot)?.take());
        of_slot.collect()
    }

    /// What all slots see, which one of them takes.
    pub(crate) fn take_seen_by_all(&self) -> SeenByAll {
        let mut seen = self
            .seen_by_all
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seen.take().unwrap_or_default()
    }
}

impl SharedPage for PreparedPage {
    fn scanned(&self) -> Position {
        self.scanned
    }

    fn is_end(&self) -> bool {
        self.end
    }

    fn is_for(&self, slot: u16) -> bool {
        self.rows().taken.get(usize::from(slot)) == Some(&false)
    }
}

#[derive(Default)]
struct ReadRecords {
    records: Vec<Record>,
    reads: Vec<(WhatWasRead, usize)>,
    metadata: Vec<Metadata>,
    /// Where it matters in which partition they are.
    streams: Vec<StreamId>,
}

/// The sources of a pipeline, reading a page.
struct Reading {
    sources: Vec<Box<dyn OpenSource>>,
    by_type: HashMap<&'static str, Arc<[usize]>>,
    appends: bool,
    keeps_streams: bool,
}

impl Reading {
    fn new(draft: &Draft, making: &mut Making) -> Reading {
        let mut by_type: HashMap<_, Vec<usize>> = HashMap::new();
        for (index, source) in draft.sources.iter().enumerate() {
            for name in source.types() {
                by_type.entry(name).or_default().push(index);
            }
        }
        let by_type = by_type.into_iter().map(|(name, mut readers)| {
            readers.dedup();
            (name, readers.into())
        });
        Reading {
            by_type: by_type.collect(),
            keeps_streams: matches!(making.divide_by, DivideBy::Partition(..)),
            sources: draft.sources.iter().map(|of| of.open(making)).collect(),
            appends: !draft.appends.is_empty(),
        }
    }

    fn read(&mut self, events: Vec<RecordedEvent>, partition: Partition) -> ReadRecords {
        let mut all = ReadRecords::default();
        all.records.reserve(events.len());
        all.reads.reserve(events.len());
        for record in events {
            let cause = all.records.len();
            let bytes = record.payload.len();
            all.records.push(Record::of(&record));
            if self.appends {
                all.metadata.push(Metadata::caused_by(&record));
            }
            if self.keeps_streams {
                all.streams.push(record.stream.clone());
            }
            all.reads.push((self.read_one(cause, record), bytes));
        }
        // Nothing before a key goes by time: the slots tell it, each where it is.
        let places = all.records.iter().map(|record| Place {
            partition: partition.0,
            position: record.position.get(),
            index: 0,
        });
        let page = Page::new(places.map(|place| (place, Time::MIN)));
        for source in &mut self.sources {
            source.send(&page);
        }
        all
    }

    fn read_one(&mut self, cause: usize, record: RecordedEvent) -> WhatWasRead {
        if &*record.event_type == clock_event::TYPE {
            return match clock_event::read(&record) {
                Ok(to) => WhatWasRead::Clock(to),
                Err(reason) => WhatWasRead::Stops(Stops::Unreadable(reason)),
            };
        }
        let Some(readers) = self.by_type.get(&*record.event_type).map(Arc::clone) else {
            return WhatWasRead::Nothing;
        };
        let Some((last, others)) = readers.split_last() else {
            return WhatWasRead::Nothing;
        };
        let mut by = Vec::new();
        for source in others {
            by.push(self.by_source(*source, cause, record.clone()));
        }
        // The last one has the record to itself.
        WhatWasRead::By(self.by_source(*last, cause, record), by)
    }

    fn by_source(&mut self, source: usize, cause: usize, record: RecordedEvent) -> BySource {
        let occurred = micros(record.occurred_at);
        let recorded = micros(record.recorded_at);
        let of = &mut self.sources[source];
        BySource {
            source,
            read: of.read(cause, record),
            unread: of.time_unread(occurred, recorded),
        }
    }
}
