//! The stages of a slot at work: records in, rows and changed state out. No store and no clock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Checkpoint, Partition, Position};
use annals_runner::{HotKey, Note, Skips, WorkError, contained};
use annals_streams::{Changes, Page, Place, Span, Time};
use bytes::Bytes;

use super::clocks::Clocks;
use super::dead::{self, Dead};
use super::divide::OpenKeying;
use super::graph::{Draft, Making};
use super::hot::HotKeys;
use super::journal::{Journal, Writes};
use super::outbox::{self, Entry};
use super::output::{Collected, take};
use super::panics::{Omitted, Panics, Redo};
use super::prepared::{BySource, PreparedPage, Stops, WhatWasRead};
use super::share::{KeptCauses, Share};
use super::source::Read;

/// A row with the place of its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutRow {
    pub(crate) position: Position,
    pub(crate) recorded_at: DateTime<Utc>,
    /// Whether its past is kept.
    pub(crate) keeps: bool,
    pub(crate) key: String,
    pub(crate) value: Option<Bytes>,
    /// Its entries in the indexes of its view.
    pub(crate) indexed: Vec<String>,
}

/// A record that stops the pipeline.
#[derive(Debug)]
pub(crate) struct Stuck {
    pub(crate) position: Position,
    pub(crate) recorded_at: DateTime<Utc>,
    pub(crate) why: Stops,
}

/// How far records went.
#[derive(Debug)]
pub(crate) enum Taken {
    /// All of them are in.
    Whole,
    /// Those before this one are in.
    Stuck(Stuck),
    /// None, because of this: the machine has to [go back](Machine::go_back).
    Redo(Redo),
}

/// What became of state that was to be saved.
#[derive(Debug)]
pub(crate) enum Saving {
    /// What is written of it since the last time.
    Writes(Writes),
    /// Some of it cannot be saved: the machine has to [go back](Machine::go_back).
    Redo(Redo),
}

/// The stages of a slot.
pub(crate) struct Machine {
    /// Of each source, how late its records may be, and whether it keeps its own time.
    sources: Vec<(Span, bool)>,
    keyings: Vec<KeyingInSlot>,
    clocks: Clocks,
    collected: Arc<Mutex<Collected>>,
    panics: Panics,
    /// The kinds of the stages, by number.
    kinds: Arc<[String]>,
    journal: Journal,
    /// The clocks when the state was saved last, and what was missed by then.
    saved: (Clocks, u64),
    /// Which of the rows of a page are its own.
    bucket: u16,
    /// Whether this slot tells of what all slots see: dead letters, and events of streams without a
    /// key.
    tells_of_all: bool,
    /// Events that were not taken out yet.
    emitted: Vec<Entry>,
    hot: HotKeys,
}

/// The stages after a place where a stream is divided by key.
struct KeyingInSlot {
    /// The sources that lead there.
    sources: Arc<[usize]>,
    open: Box<dyn OpenKeying>,
}

impl Machine {
    pub(crate) fn new(draft: &Draft, share: Share) -> Machine {
        let (slot, slots) = share.bucket();
        let mut making = Making::new(slot, slots);
        let keyings = draft.keyings.iter().map(|keying| KeyingInSlot {
            sources: keying.sources(),
            open: keying.open(&mut making),
        });
        let keyings = keyings.collect();
        let kinds = draft.plan.stages().iter().map(|of| of.kind().to_owned());
        Machine {
            sources: draft.sources.iter().map(|source| source.clock()).collect(),
            keyings,
            clocks: share.clocks(),
            collected: making.collected,
            panics: making.panics,
            kinds: kinds.collect(),
            journal: Journal::new(),
            saved: (share.clocks(), 0),
            bucket: slot,
            tells_of_all: slot == 0,
            emitted: Vec::new(),
            hot: HotKeys::default(),
        }
    }

    /// Throws away everything since the state was saved last, and goes on from there with new
    /// stages, in another way.
    pub(crate) fn go_back(&mut self, fresh: Machine, redo: Redo) -> Result<(), WorkError> {
        let skipped = self.panics.skipped();
        let saves_each = self.panics.saves_each() || matches!(redo, Redo::SavingEach);
        let without = match redo {
            Redo::Without(without) => Some(without),
            Redo::SavingEach => None,
        };
        if let Some(without) = without.as_ref().filter(|of| skipped.contains(of)) {
            return Err(WorkError::Stopped(format!(
                "{without}, also without the item over which it did before; its closures are no \
                 functions of their items. Mend them and raise the version"
            )));
        }
        let journal = std::mem::replace(&mut self.journal, Journal::new());
        let saved = self.saved.clone();
        let hot = std::mem::take(&mut self.hot);
        *self = Machine {
            journal,
            hot,
            ..fresh
        };
        for spoiled in skipped.into_iter().chain(without) {
            self.panics.skip(spoiled);
        }
        self.panics.save_each(saves_each);
        self.clocks = saved.0.clone();
        self.lock().missed = saved.1;
        self.saved = saved;
        self.load()
    }

    /// Everything in a partition up to here is on its way into the store.
    pub(crate) fn passed(&self, partition: Partition, up_to: Position) {
        self.panics.forget(partition.0, up_to);
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an entry of the store back.
    pub(crate) fn read(&mut self, key: &[u8], value: &[u8]) -> Result<(), WorkError> {
        self.journal.read(key, value)
    }

    /// All entries are back: goes on from these checkpoints.
    pub(crate) fn resume<'a>(
        &mut self,
        checkpoints: impl Iterator<Item = &'a Checkpoint>,
    ) -> Result<(), WorkError> {
        for checkpoint in checkpoints {
            let note = Note::of(checkpoint)?;
            self.clocks.restore(checkpoint.partition.0, &note);
        }
        self.saved.0 = self.clocks.clone();
        self.load()
    }

    /// Takes the state from the journal into the stages.
    fn load(&mut self) -> Result<(), WorkError> {
        for (address, value) in self.journal.entries() {
            let mut taken = false;
            for keying in &mut self.keyings {
                let load =
                    keying
                        .open
                        .then()
                        .load(address.stage, &address.key, &address.place, value);
                taken = load.map_err(|error| unreadable(&error))?;
                if taken {
                    break;
                }
            }
            if !taken {
                return Err(unreadable(&format_args!(
                    "there is no stage {}",
                    address.stage
                )));
            }
        }
        for keying in &mut self.keyings {
            let watermark = self.clocks.least(&keying.sources, &self.sources);
            keying.open.then().resume(watermark);
        }
        Ok(())
    }

    fn watermark(&self, source: usize) -> Time {
        self.clocks.watermark(source, self.sources[source])
    }

    /// The watermark that holds the others, and the partition that holds it.
    pub(crate) fn least_watermark(&self) -> (Time, Option<u32>) {
        let least = (0..self.sources.len()).min_by_key(|index| self.watermark(*index));
        least.map_or((Time::MIN, None), |index| {
            let clock = self.sources[index];
            (self.watermark(index), self.clocks.held_by(index, clock))
        })
    }

    /// Bytes of state.
    pub(crate) fn state_bytes(&self) -> usize {
        self.journal.bytes()
    }

    /// Windows, sessions and what else is open.
    pub(crate) fn open(&self) -> usize {
        self.journal.len()
    }

    /// The keys that came most often lately.
    pub(crate) fn hot_keys(&mut self) -> Vec<HotKey> {
        self.hot.told()
    }

    /// What came too late since the slot began here.
    pub(crate) fn missed(&self) -> u64 {
        self.lock().missed
    }

    /// How many events it has emitted that were not taken out yet.
    pub(crate) fn emitted(&self) -> usize {
        self.emitted.len()
    }

    /// Takes out the events that it has emitted, in their order.
    pub(crate) fn take_emitted(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.emitted)
    }

    /// What a checkpoint keeps of a partition.
    pub(crate) fn note(&self, partition: Partition) -> Note {
        self.clocks.note(partition.0)
    }

    /// What is written of the state since the last time.
    pub(crate) fn save(&mut self) -> Result<Saving, WorkError> {
        let mut changes = Changes::new();
        let keyings = &mut self.keyings;
        let saved = contained(|| {
            let mut all = keyings.iter_mut();
            all.try_for_each(|keying| keying.open.then().save(&mut changes))
        });
        let why = match saved {
            Ok(Ok(())) => {
                self.saved = (self.clocks.clone(), self.missed());
                return Ok(Saving::Writes(self.journal.write(&changes)));
            }
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic,
        };
        if self.panics.saves_each() {
            return Err(unwritable(&why));
        }
        Ok(Saving::Redo(Redo::SavingEach))
    }

    /// What could not be saved was found: from now on state is saved once for a commit again.
    pub(crate) fn saves_at_once(&self) {
        self.panics.save_each(false);
    }

    /// Sends what of a page comes after a position through all stages: up to the first record that
    /// stops the pipeline.
    pub(crate) fn take(
        &mut self,
        page: &PreparedPage,
        after: Position,
        skips: &Skips,
        rows: &mut Vec<OutRow>,
    ) -> Result<Taken, WorkError> {
        let taken = contained(|| self.take_in(page, after, skips, rows));
        taken.unwrap_or_else(|panic| {
            if let Some(redo) = self.panics.take_redo() {
                return Ok(Taken::Redo(redo));
            }
            Err(broken(page, after, &panic))
        })
    }

    fn take_in(
        &mut self,
        page: &PreparedPage,
        after: Position,
        skips: &Skips,
        rows: &mut Vec<OutRow>,
    ) -> Result<Taken, WorkError> {
        if let Some(panic) = page.failed() {
            return Err(broken(page, after, panic));
        }
        let partition = page.partition;
        let (records, reads) = page.records();
        let first = page.first_after(after);
        let mut without = Vec::new();
        let mut stuck = None;
        let mut clocks: Vec<Vec<Time>> = self.keyings.iter().map(|_| Vec::new()).collect();
        let all = records.iter().zip(reads).enumerate().skip(first);
        for (cause, (record, (read, _))) in all {
            if skips.for_all_keys_at((partition, record.position), record.id) {
                without.push(cause);
                self.observe_unread(partition, read.sources());
            } else {
                if let Some(why) = read.stops() {
                    stuck = Some(Stuck {
                        position: record.position,
                        recorded_at: record.recorded_at,
                        why,
                    });
                    break;
                }
                let dead = self.observe(partition, record, read);
                rows.extend(dead.filter(|_| self.tells_of_all).map(Dead::row));
            }
            for (clock, keying) in clocks.iter_mut().zip(&self.keyings) {
                clock.push(self.clocks.least(&keying.sources, &self.sources));
            }
        }
        let end = match &stuck {
            Some(stuck) => page.first_after(stuck.position.minus(1)),
            None => records.len(),
        };
        let kept = KeptCauses {
            first,
            end,
            without,
        };
        let at = &records[first..end];
        let divided = page.take_rows(self.bucket);
        let keyings = self.keyings.iter_mut().zip(clocks).zip(divided);
        for ((keying, clock), mut of_slot) in keyings {
            if let Some(rows) = &mut of_slot {
                if kept.skips(records.len()) {
                    rows.keep(&|cause| kept.cause(cause));
                }
                self.hot.count(&**rows);
            }
            let places = at.iter().map(|record| Place {
                partition: partition.0,
                position: record.position.get(),
                index: 0,
            });
            let page = Page::new(places.zip(clock));
            keying.open.send(&page, of_slot);
        }
        let (emitted, mut events) = take(&self.collected);
        let mut lacking = self.panics.take_lacking();
        if self.tells_of_all {
            let seen = page.take_seen_by_all();
            let of_all = seen.events.into_iter();
            events.extend(of_all.filter_map(|event| kept.event(event)));
            let of_all = seen.lacking.into_iter();
            lacking.extend(of_all.filter_map(|lacking| {
                let cause = kept.cause(lacking.cause)?;
                Some(Omitted { cause, ..lacking })
            }));
        }
        let metadata = page.metadata().get(first..end).unwrap_or_default();
        let (events, dead) = outbox::entries(events, at, metadata);
        self.emitted.extend(events);
        rows.extend(dead.into_iter().map(Dead::row));
        rows.extend(emitted.into_iter().filter_map(|row| {
            let record = at.get(row.cause)?;
            Some(OutRow {
                position: record.position,
                recorded_at: record.recorded_at,
                keeps: row.keeps,
                key: row.key,
                value: row.value,
                indexed: row.indexed,
            })
        }));
        rows.extend(lacking.iter().filter_map(|lacking| {
            let kind = self.kinds.get(usize::from(lacking.stage))?;
            Some(at.get(lacking.cause)?.lacking(kind, lacking).row())
        }));
        Ok(stuck.map_or(Taken::Whole, Taken::Stuck))
    }

    /// Takes in at what time a record happened; what of it becomes a dead letter.
    fn observe(
        &mut self,
        partition: Partition,
        record: &dead::Record,
        read: &WhatWasRead,
    ) -> Option<Dead> {
        if let WhatWasRead::Clock(to) = read {
            self.clocks.advance_to(partition.0, *to);
        }
        let mut dead = None;
        for of in read.sources() {
            match &of.read {
                Read::At(time) => {
                    let own = self.own(of.source);
                    self.clocks.observe(partition.0, own, *time);
                }
                Read::Nothing => {}
                Read::Ahead(time) => dead = Some(record.ahead(*time)),
                Read::Unreadable { reason, .. } => {
                    self.observe_unread(partition, [of]);
                    dead = Some(record.dead(reason.clone()));
                }
            }
        }
        dead
    }

    /// A record that is not read: time goes on all the same.
    fn observe_unread<'a>(
        &mut self,
        partition: Partition,
        sources: impl IntoIterator<Item = &'a BySource>,
    ) {
        for of in sources {
            if let Some(time) = of.unread {
                let own = self.own(of.source);
                self.clocks.observe(partition.0, own, time);
            }
        }
    }

    /// The source, if it keeps its own time.
    fn own(&self, source: usize) -> Option<usize> {
        let keeps_own = self.sources.get(source).is_some_and(|(_, own)| *own);
        keeps_own.then_some(source)
    }
}

fn broken(page: &PreparedPage, after: Position, panic: &str) -> WorkError {
    let (records, _) = page.records();
    let mut taken = records[page.first_after(after)..].iter();
    let first = taken.next();
    let places = match (first, taken.next_back().or(first)) {
        (Some(first), Some(last)) => format!("{} to {}", first.position, last.position),
        _ => "the end".into(),
    };
    let partition = page.partition;
    WorkError::Stopped(format!(
        "{panic}, while time went on at positions {places} of partition {partition}. Nothing of \
         them was written; mend the stage and raise the version"
    ))
}

fn unreadable(why: &dyn std::fmt::Display) -> WorkError {
    WorkError::Stopped(format!(
        "the state of the pipeline cannot be read: {why}; raise its version, and it is built again"
    ))
}

fn unwritable(why: &dyn std::fmt::Display) -> WorkError {
    WorkError::Stopped(format!(
        "the state of the pipeline cannot be written: {why}; mend the type and raise the version"
    ))
}
