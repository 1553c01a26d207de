//! The stages of a slot at work: records in, rows and changed state out. No store and no clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Checkpoint, Metadata, Partition, Position, RecordedEvent};
use annals_runner::{Note, Skips, WorkError, contained};
use annals_streams::{Changes, Page, Place, Time};
use bytes::Bytes;

use super::clock_event;
use super::clocks::Clocks;
use super::dead::{self, Dead};
use super::graph::{Draft, Making};
use super::journal::{Journal, Writes};
use super::outbox::{self, Entry};
use super::output::{Collected, take};
use super::panics::{Panics, Spoiled};
use super::source::{OpenSource, Read, micros};

/// A row with the place of its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutRow {
    pub(crate) position: Position,
    pub(crate) recorded_at: DateTime<Utc>,
    /// Whether its past is kept.
    pub(crate) keeps: bool,
    pub(crate) key: String,
    pub(crate) value: Option<Bytes>,
}

/// A record that stops the pipeline.
#[derive(Debug)]
pub(crate) struct Stuck {
    pub(crate) position: Position,
    pub(crate) recorded_at: DateTime<Utc>,
    pub(crate) reason: String,
}

/// How far records went.
#[derive(Debug)]
pub(crate) enum Taken {
    /// All of them are in.
    Whole,
    /// Those before this one are in.
    Stuck(Stuck),
    /// A stage panicked over this item: the machine has to [go back](Machine::go_back).
    Spoiled(Spoiled),
}

/// The stages of a slot.
pub(crate) struct Machine {
    sources: Vec<Box<dyn OpenSource>>,
    by_type: HashMap<&'static str, Arc<[usize]>>,
    clocks: Clocks,
    collected: Arc<Mutex<Collected>>,
    panics: Panics,
    /// The kinds of the stages, by number.
    kinds: Arc<[String]>,
    journal: Journal,
    /// The clocks when the state was saved last, and what was missed by then.
    saved: (Clocks, u64),
    /// Whether this slot writes the dead letters that all slots see.
    writes_dead: bool,
    /// Whether events leave it, and those that were not taken out yet.
    appends: bool,
    emitted: Vec<Entry>,
}

impl Machine {
    pub(crate) fn new(draft: &Draft, slot: u16, slots: u16, partitions: u32) -> Machine {
        let mut making = Making::new(slot, slots);
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
        let by_type = by_type.collect();
        let sources = draft.sources.iter();
        let kinds = draft.plan.stages().iter().map(|of| of.kind().to_owned());
        Machine {
            sources: sources.map(|source| source.open(&mut making)).collect(),
            by_type,
            clocks: Clocks::new(partitions),
            collected: making.collected,
            panics: making.panics,
            kinds: kinds.collect(),
            journal: Journal::new(),
            saved: (Clocks::new(partitions), 0),
            writes_dead: slot == 0,
            appends: !draft.appends.is_empty(),
            emitted: Vec::new(),
        }
    }

    /// Throws away everything since the state was saved last, and goes on from there with new
    /// stages, without this item.
    pub(crate) fn go_back(&mut self, fresh: Machine, without: Spoiled) -> Result<(), WorkError> {
        let left_out = self.panics.left_out();
        if left_out.contains(&without) {
            return Err(WorkError::Stopped(format!(
                "{without}, also without the item over which it panicked before; its closures are \
                 no functions of their items. Mend them and raise the version"
            )));
        }
        let journal = std::mem::replace(&mut self.journal, Journal::new());
        let saved = self.saved.clone();
        *self = Machine { journal, ..fresh };
        for spoiled in left_out.into_iter().chain([without]) {
            self.panics.leave_out(spoiled);
        }
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
            for source in &mut self.sources {
                let load = source
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
        for index in 0..self.sources.len() {
            let watermark = self.watermark(index);
            self.sources[index].then().resume(watermark);
        }
        Ok(())
    }

    fn watermark(&self, source: usize) -> Time {
        self.clocks.watermark(source, self.sources[source].clock())
    }

    /// The watermark that holds the others, and the partition that holds it.
    pub(crate) fn least_watermark(&self) -> (Time, Option<u32>) {
        let least = (0..self.sources.len()).min_by_key(|index| self.watermark(*index));
        least.map_or((Time::MIN, None), |index| {
            let clock = self.sources[index].clock();
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
    pub(crate) fn save(&mut self) -> Result<Writes, WorkError> {
        let mut changes = Changes::new();
        for source in &mut self.sources {
            source
                .then()
                .save(&mut changes)
                .map_err(|error| unwritable(&error))?;
        }
        self.saved = (self.clocks.clone(), self.missed());
        Ok(self.journal.write(&changes))
    }

    /// Sends records of one partition through all stages: up to the first that stops the pipeline.
    pub(crate) fn take(
        &mut self,
        partition: Partition,
        records: Vec<RecordedEvent>,
        skips: &Skips,
        rows: &mut Vec<OutRow>,
    ) -> Result<Taken, WorkError> {
        let first = records.first().map(|record| record.position);
        let last = records.last().map(|record| record.position);
        let taken = contained(|| self.take_in(partition, records, skips, rows));
        taken.unwrap_or_else(|panic| {
            if let Some(spoiled) = self.panics.take_spoiled() {
                return Ok(Taken::Spoiled(spoiled));
            }
            let places = match (first, last) {
                (Some(first), Some(last)) => format!("{first} to {last}"),
                _ => "the end".into(),
            };
            Err(WorkError::Stopped(format!(
                "{panic}, while time went on at positions {places} of partition {partition}. \
                 Nothing of them was written; mend the stage and raise the version"
            )))
        })
    }

    fn take_in(
        &mut self,
        partition: Partition,
        records: Vec<RecordedEvent>,
        skips: &Skips,
        rows: &mut Vec<OutRow>,
    ) -> Result<Taken, WorkError> {
        let mut at = Vec::with_capacity(records.len());
        let mut clocks: Vec<Vec<Time>> = (0..self.sources.len())
            .map(|_| Vec::with_capacity(records.len()))
            .collect();
        let mut stuck = None;
        let mut metadata = Vec::new();
        for record in records {
            let kept = dead::Record::of(&record);
            if self.appends {
                metadata.push(Metadata::caused_by(&record));
            }
            if skips.for_all_keys(&record) {
                self.skip(partition, &kept);
            } else {
                match self.read_record(partition, at.len(), record, &kept) {
                    Ok(None) => {}
                    Ok(Some(dead)) if self.writes_dead => rows.push(dead.row()),
                    Ok(Some(_)) => {}
                    Err(reason) => {
                        stuck = Some(Stuck {
                            position: kept.position,
                            recorded_at: kept.recorded_at,
                            reason,
                        });
                        break;
                    }
                }
            }
            at.push(kept);
            for (index, clock) in clocks.iter_mut().enumerate() {
                let source = self.sources[index].clock();
                clock.push(self.clocks.watermark(index, source));
            }
        }
        for (source, clock) in self.sources.iter_mut().zip(clocks) {
            let places = at.iter().map(|record| Place {
                partition: partition.0,
                position: record.position.get(),
                index: 0,
            });
            source.send(&Page::new(places.zip(clock)));
        }
        let (emitted, events) = take(&self.collected).map_err(WorkError::Stopped)?;
        let (events, dead) = outbox::entries(events, &at, &metadata);
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
            })
        }));
        rows.extend(self.panics.take_lacking().iter().filter_map(|lacking| {
            let kind = self.kinds.get(usize::from(lacking.stage))?;
            Some(at.get(lacking.cause)?.lacking(kind, lacking).row())
        }));
        Ok(stuck.map_or(Taken::Whole, Taken::Stuck))
    }

    /// Takes one record in; else why it stops the pipeline.
    fn read_record(
        &mut self,
        partition: Partition,
        cause: usize,
        record: RecordedEvent,
        kept: &dead::Record,
    ) -> Result<Option<Dead>, String> {
        if &*record.event_type == clock_event::TYPE {
            let to = clock_event::read(&record)?;
            self.clocks.advance_to(partition.0, to);
            return Ok(None);
        }
        let Some(readers) = self.by_type.get(&*record.event_type).map(Arc::clone) else {
            return Ok(None);
        };
        let Some((last, others)) = readers.split_last() else {
            return Ok(None);
        };
        let mut dead = None;
        for index in others {
            let read = self.sources[*index].read(cause, record.clone());
            dead = self.settle(partition, *index, read, kept)?.or(dead);
        }
        // The last one has the record to itself.
        let read = self.sources[*last].read(cause, record);
        Ok(self.settle(partition, *last, read, kept)?.or(dead))
    }

    /// A record that an operator skipped: time goes on all the same.
    fn skip(&mut self, partition: Partition, of: &dead::Record) {
        let readers = self.by_type.get(of.event_type()).map(Arc::clone);
        for source in readers.iter().flat_map(|readers| readers.iter()) {
            self.observe_unread(partition, *source, of);
        }
    }

    fn observe_unread(&mut self, partition: Partition, source: usize, of: &dead::Record) {
        let reader = &self.sources[source];
        let recorded = micros(of.recorded_at);
        if let Some(time) = reader.time_unread(of.occurred, recorded) {
            let own = reader.clock().1.then_some(source);
            self.clocks.observe(partition.0, own, time);
        }
    }

    fn settle(
        &mut self,
        partition: Partition,
        source: usize,
        read: Read,
        of: &dead::Record,
    ) -> Result<Option<Dead>, String> {
        let own = self.sources[source].clock().1.then_some(source);
        match read {
            Read::At(time) => {
                self.clocks.observe(partition.0, own, time);
                Ok(None)
            }
            Read::Nothing => Ok(None),
            Read::Ahead(time) => Ok(Some(of.ahead(time))),
            Read::Unreadable { reason, goes_on } if goes_on => {
                self.observe_unread(partition, source, of);
                Ok(Some(of.dead(reason)))
            }
            Read::Unreadable { reason, .. } => Err(reason),
        }
    }
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
