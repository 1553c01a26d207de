//! The loop that keeps the tables of a generation up to date: read, hand over, commit, and again.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use annals_core::{
    Checkpoint, CustomTables, Event, Filter, GenerationSpec, History, Partition, Position, ReadLog,
    ViewCommit,
};
use annals_runner::{
    CommittedStep, DeadLetterPages, HeldLease, Skips, Slot, SlotState, Tasks, Work, WorkError,
    WorkerContext, chain, event_at, not_read_before_removal, same_log, skip_call,
};
use tokio::sync::watch;

use super::batch::{Batch, Part, StepOutcome, Stuck, ended};
use super::hook::Tabled;
use super::{SqlProjection, Tables};
use crate::options::Options;

/// Events in one transaction: where it is open, others wait, and an event may take some statements.
const STEP_EVENTS: usize = 1_000;

/// Fills the tables of one generation.
pub(super) struct FillTables<P: SqlProjection> {
    slot: Slot,
    pub(super) tables: Tabled<P>,
    options: Options,
}

impl<P: SqlProjection> Deref for FillTables<P> {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        &self.slot
    }
}

impl<P: SqlProjection> Work for FillTables<P> {
    fn slot(&self) -> &Slot {
        &self.slot
    }

    fn filter(&self) -> Filter {
        filter::<P>()
    }

    async fn work(
        &self,
        held: &HeldLease,
        mut tasks: Tasks,
        _: watch::Receiver<bool>,
    ) -> Result<(), WorkError> {
        self.follow(held, &mut tasks).await
    }
}

/// A partition, up to where the tables have it, and how often the next event was tried.
struct PartitionReader {
    partition: Partition,
    position: Position,
    attempts: u32,
    /// When the next event is tried again, if it failed.
    again: Option<tokio::time::Instant>,
}

/// Its dead letters.
#[derive(Default)]
struct KeysWithLetters {
    keys: Arc<HashSet<String>>,
    events: usize,
}

impl<P: SqlProjection> FillTables<P> {
    pub(super) fn new(slot: Slot, tables: Tabled<P>, options: Options) -> FillTables<P> {
        FillTables {
            slot,
            tables,
            options,
        }
    }

    async fn follow(&self, held: &HeldLease, tasks: &mut Tasks) -> Result<(), WorkError> {
        let mut readers = self.begin(held).await?;
        let mut skips = self.skips().await?;
        let mut with_letters = self.with_letters().await?;
        let mut hint = self.context.log().hint();
        loop {
            hint.reset();
            while let Some(task) = tasks.try_next() {
                let drained = self.drain_all(held, &task.keys).await;
                task.answer(drained);
                skips = self.skips().await?;
                with_letters = self.with_letters().await?;
            }
            let mut moved = false;
            for reader in &mut readers {
                let now = tokio::time::Instant::now();
                if reader.again.is_some_and(|again| again > now) {
                    continue;
                }
                reader.again = None;
                let before = reader.position;
                let stuck = self.step(held, reader, &skips, &mut with_letters).await?;
                moved |= reader.position > before;
                if let Some(stuck) = stuck {
                    self.try_later(reader, stuck)?;
                }
            }
            if !moved {
                let again = readers.iter().filter_map(|of| of.again).min();
                if again.is_none() {
                    self.progress.state(SlotState::Live);
                }
                let read_on = readers.iter().filter(|of| of.again.is_none());
                let after: Vec<_> = read_on.map(|of| (of.partition, of.position)).collect();
                let until = again.unwrap_or_else(tokio::time::Instant::now);
                tokio::select! {
                    () = self.wait_for_events(&mut hint, &after) => {}
                    () = tokio::time::sleep_until(until), if again.is_some() => {}
                    task = tasks.next() => {
                        let drained = self.drain_all(held, &task.keys).await;
                        task.answer(drained);
                        skips = self.skips().await?;
                        with_letters = self.with_letters().await?;
                    }
                }
            }
        }
    }

    /// Where the tables continue. They are made first, if they are not there yet.
    async fn begin(&self, held: &HeldLease) -> Result<Vec<PartitionReader>, WorkError> {
        let generation = self.generation.id;
        let checkpoints = self.context.views.checkpoints(generation).await?;
        if checkpoints.is_empty() {
            let step = ViewCommit::new(
                generation,
                held.lease(),
                Position::START,
                Checkpoint::start(0, Partition(0)),
            );
            let made = self
                .tables
                .store
                .commit_with(step, self.tables.create(generation))
                .await;
            made.map_err(ended)?;
        }
        let mut readers = Vec::new();
        for partition in (0..self.context.log().partitions()).map(Partition) {
            let checkpoint = checkpoints
                .iter()
                .find(|of| of.partition == partition)
                .cloned();
            let checkpoint = checkpoint.unwrap_or_else(|| Checkpoint::start(0, partition));
            same_log(&**self.context.log(), &self.generation, &checkpoint).await?;
            self.progress.reached(partition, checkpoint.position);
            readers.push(PartitionReader {
                partition,
                position: checkpoint.position,
                attempts: 0,
                again: None,
            });
        }
        Ok(readers)
    }

    async fn skips(&self) -> Result<Skips, WorkError> {
        let decisions = self.context.views.skip_decisions(P::NAME).await?;
        Ok(Skips::of(decisions))
    }

    /// Its dead letters.
    async fn with_letters(&self) -> Result<KeysWithLetters, WorkError> {
        let mut keys = HashSet::new();
        let mut events = 0;
        let mut pages = DeadLetterPages::of(&*self.context.views, self.generation.id);
        loop {
            let page = pages.next().await?;
            if page.is_empty() {
                break;
            }
            events += page.len();
            keys.extend(page.into_iter().map(|letter| letter.key));
        }
        self.progress.dead_letter_keys(keys.len() as u64);
        Ok(KeysWithLetters {
            keys: Arc::new(keys),
            events,
        })
    }

    /// Takes a partition further, up to the first event that makes no sense.
    async fn step(
        &self,
        held: &HeldLease,
        reader: &mut PartitionReader,
        skips: &Skips,
        with_letters: &mut KeysWithLetters,
    ) -> Result<Option<Stuck>, WorkError> {
        let log = self.context.log();
        let limit = self.options.batch_events_max.min(STEP_EVENTS);
        let read = ReadLog::after(reader.position)
            .partition(reader.partition)
            .filter(filter::<P>())
            .limit(limit);
        let page = log.read(read).await?;
        self.progress.head(
            reader.partition,
            page.head.visible,
            page.events.first().map(|record| record.recorded_at),
        );
        if let (Some(removed), false) = (page.removed.first(), self.options.skips_archived) {
            let name = format!("`{}`", P::NAME);
            let ways = "do without with `Options::skip_archived`, or bring its tables up to \
                        date by hand and let it go on without";
            return Err(not_read_before_removal(&name, removed, ways));
        }
        if page.scanned <= reader.position && page.events.is_empty() {
            return Ok(None);
        }
        if !page.end {
            self.progress.state(SlotState::CatchingUp);
        }
        let last = page.events.last().map(|last| (last.position, last.id));
        let mut parts = Vec::with_capacity(page.events.len());
        let mut unreadable = None;
        for record in page.events {
            if skips.for_all_keys(&record) {
                continue;
            }
            let position = record.position;
            let keys = skips.keys(&record).cloned();
            match Part::of(record) {
                // One that was skipped for its key is skipped again.
                Ok(part) if keys.is_some_and(|keys| Batch::<P>::is_about(&part, &keys)) => {}
                Ok(part) => parts.push(part),
                Err(error) => {
                    unreadable = Some(Stuck {
                        position,
                        reason: chain(&error),
                    });
                    break;
                }
            }
        }
        let up_to = unreadable
            .as_ref()
            .map_or(page.scanned, |stuck| stuck.position.minus(1));
        let event = match last.filter(|(at, _)| *at == up_to) {
            Some((_, id)) => Some(id),
            None => event_at(&**log, reader.partition, up_to).await?,
        };
        let to = Checkpoint {
            position: up_to,
            event,
            ..Checkpoint::start(0, reader.partition)
        };
        let step = self.view_commit(held.lease(), reader.position, to);
        let events = parts.len() as u64;
        let outcome = Arc::new(Mutex::new(StepOutcome::default()));
        let work = Batch::<P> {
            project: Arc::clone(&self.tables.project),
            tables: Tables::of(self.generation.id),
            partition: reader.partition,
            parts,
            tried: (reader.attempts, self.options.attempts),
            dead_letters: Arc::clone(&with_letters.keys),
            room: self
                .options
                .dead_letters_max
                .saturating_sub(with_letters.events),
            now: self.context.clock().now(),
            outcome: Arc::clone(&outcome),
        };
        let begun = Instant::now();
        self.tables
            .store
            .commit_with(step, Box::new(work))
            .await
            .map_err(ended)?;
        let StepOutcome {
            stuck,
            dead_letters,
        } = std::mem::take(&mut *outcome.lock().unwrap_or_else(PoisonError::into_inner));
        if !dead_letters.is_empty() {
            with_letters.events += dead_letters.len();
            Arc::make_mut(&mut with_letters.keys).extend(dead_letters);
            self.progress
                .dead_letter_keys(with_letters.keys.len() as u64);
        }
        let stuck = stuck.or(unreadable);
        let reached = stuck
            .as_ref()
            .map_or(up_to, |stuck: &Stuck| stuck.position.minus(1));
        if reached > reader.position {
            reader.position = reached;
            reader.attempts = 0;
            let taken = CommittedStep {
                events,
                rows: 0,
                took: begun.elapsed(),
                oldest: None,
            };
            self.progress.settled_to(reader.partition, reached, taken);
            self.workers
                .publish_step(self.generation.id, reader.partition, reached, None);
        }
        Ok(stuck)
    }

    /// Has an event tried again after a pause, or stops at it when it was tried often enough.
    fn try_later(&self, reader: &mut PartitionReader, stuck: Stuck) -> Result<(), WorkError> {
        reader.attempts += 1;
        let options = &self.options;
        if reader.attempts < options.attempts {
            let pause = options.backoff().wait_after(reader.attempts);
            reader.again = Some(tokio::time::Instant::now() + pause);
            return Ok(());
        }
        let name = P::NAME;
        let position = stuck.position;
        let reason = stuck.reason;
        Err(WorkError::Stopped(format!(
            "the event at position {position} of partition {} cannot be handled by `{name}`: \
             {reason}. No later event is handled, because it is unknown what the tables would \
             miss. Repair the projection or its tables, or skip the event with `{}`",
            reader.partition,
            skip_call(self.context.log().partitions())
        )))
    }
}

/// What the log is read through.
fn filter<P: SqlProjection>() -> Filter {
    Filter::default().types(P::Event::shapes().iter().map(|shape| shape.event_type))
}

/// What a generation of these tables is made of.
pub(super) fn spec_of<P: SqlProjection>(context: &WorkerContext) -> GenerationSpec {
    let store = context.log();
    let mut spec = GenerationSpec::new(P::NAME, P::VERSION, store.id());
    spec.handles = P::Event::shapes()
        .iter()
        .map(|shape| shape.event_type.to_owned())
        .collect();
    spec.handles.sort_unstable();
    spec.handles.dedup();
    spec.partitions = store.partitions();
    spec.history = History::None;
    spec
}
