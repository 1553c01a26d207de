//! The loop that keeps the tables of a generation up to date: read, hand over, commit, and again.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use annals_core::{
    Checkpoint, CustomTables, Event, Filter, Generation, History, Partition, Position, ReadLog,
    ViewCommit,
};
use tokio::sync::watch;

use super::batch::{Batch, Came, Part, Stuck, ended};
use super::hook::Subject;
use super::{SqlProjection, Tables};
use crate::options::Options;
use crate::skips::Skips;
use crate::supervisor::{GenerationWorkers, WorkerContext};
use crate::worker::{
    HeldLease, Progress, SlotClaim, SlotState, Taken, WorkError, chain, event_at, same_log, seen,
};

/// Events in one transaction: where it is open, others wait, and an event may take some statements.
const STEP_EVENTS: usize = 1_000;

/// Works on the tables of one generation.
pub(super) struct TableWorker<P: SqlProjection> {
    pub(super) context: WorkerContext,
    pub(super) following: GenerationWorkers,
    pub(super) subject: Subject<P>,
    pub(super) generation: Generation,
    pub(super) progress: Progress,
}

/// A partition, where the tables stand in it, and how often the event behind that was tried.
struct PartitionReader {
    partition: Partition,
    position: Position,
    attempts: u32,
}

/// What waits for a person.
#[derive(Default)]
struct Aside {
    keys: Arc<HashSet<String>>,
    events: usize,
}

impl<P: SqlProjection> TableWorker<P> {
    /// Works until it is told to stop, beginning anew after failures that may pass.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut anew = self.following.anew();
        let mut wait = self.context.options.back_off;
        while !*stop.borrow() {
            let settled = self.progress.settled();
            let ended = match self.hold_and_work(&mut stop, &mut anew).await {
                None => break,
                Some(WorkError::Anew) => continue,
                Some(ended) => ended,
            };
            let most = Options::BACK_OFF_MAX;
            wait = if self.progress.settled() == settled {
                (wait * 2).min(most)
            } else {
                self.context.options.back_off
            };
            let pause = match ended {
                WorkError::Stopped(reason) => {
                    tracing::error!(projection = P::NAME, reason, "the projection stopped");
                    self.progress.failed(SlotState::Stopped { reason });
                    // What stopped it may be mended from another process, which nobody here is told
                    // of.
                    most
                }
                error => {
                    let reason = chain(&error);
                    tracing::warn!(projection = P::NAME, reason, "the projection begins anew");
                    self.progress.failed(SlotState::Waiting { reason });
                    wait
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = anew.changed() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
    }

    /// Works under the lease until something ends it; nothing when it was told to stop.
    async fn hold_and_work(
        &self,
        stop: &mut watch::Receiver<bool>,
        anew: &mut watch::Receiver<u64>,
    ) -> Option<WorkError> {
        let post = self.post();
        let knows = *anew.borrow();
        let over = async {
            tokio::select! {
                _ = anew.changed() => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        };
        let look = || {
            seen(
                &**self.context.db.store(),
                &post,
                filter::<P>(),
                &self.progress,
            )
        };
        let held = match HeldLease::acquire(&post, &self.progress, look, over).await {
            Ok(Some(held)) => held,
            Ok(None) => return (!*stop.borrow()).then_some(WorkError::Anew),
            Err(error) => return Some(error),
        };
        self.progress.held_by(Some(post.owner), knows);
        let ended = tokio::select! {
            Err(error) = self.work(&held) => Some(error),
            _ = anew.changed() => Some(WorkError::Anew),
            () = held.lost() => Some(WorkError::Anew),
            _ = stop.wait_for(|stop| *stop) => None,
        };
        self.progress.held_by(None, knows);
        held.release().await;
        ended
    }

    pub(super) fn post(&self) -> SlotClaim<'_> {
        let views = &self.context.views;
        let generation = &self.generation;
        let owner = &*self.context.owner;
        let lease = self.context.options.lease;
        let clock = &**self.context.db.clock();
        SlotClaim {
            views,
            generation,
            slot: 0,
            owner,
            lease,
            clock,
            share: None,
        }
    }

    async fn work(&self, held: &HeldLease) -> Result<Infallible, WorkError> {
        let mut readers = self.begin(held).await?;
        let skips = Skips::of(self.context.views.skip_decisions(P::NAME).await?);
        let mut aside = self.aside().await?;
        let mut hint = self.context.db.store().hint();
        loop {
            hint.reset();
            let mut moved = false;
            for reader in &mut readers {
                let before = reader.position;
                let stuck = self.step(held, reader, &skips, &mut aside).await?;
                moved |= reader.position > before || stuck.is_some();
                if let Some(stuck) = stuck {
                    self.try_later(reader, stuck).await?;
                }
            }
            if !moved {
                self.progress.state(SlotState::Live);
                hint.wait(self.context.options.poll).await;
            }
        }
    }

    /// Where the tables stand. They are made first, when nobody did so yet.
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
                .subject
                .store
                .commit_with(step, self.subject.create(generation))
                .await;
            made.map_err(ended)?;
        }
        let mut readers = Vec::new();
        for partition in (0..self.context.db.store().partitions()).map(Partition) {
            let checkpoint = checkpoints
                .iter()
                .find(|of| of.partition == partition)
                .cloned();
            let checkpoint = checkpoint.unwrap_or_else(|| Checkpoint::start(0, partition));
            same_log(&**self.context.db.store(), &self.generation, &checkpoint).await?;
            self.progress.reached(partition, checkpoint.position);
            readers.push(PartitionReader {
                partition,
                position: checkpoint.position,
                attempts: 0,
            });
        }
        Ok(readers)
    }

    /// What was set aside.
    async fn aside(&self) -> Result<Aside, WorkError> {
        let mut keys = HashSet::new();
        let mut events = 0;
        let mut after: Option<(String, Partition, Position)> = None;
        loop {
            let place = after
                .as_ref()
                .map(|(key, partition, position)| (key.as_str(), *partition, *position));
            let page = self
                .context
                .views
                .dead_letters(self.generation.id, place, annals_core::PAGE_EVENTS)
                .await?;
            let Some(last) = page.last() else { break };
            after = Some((last.key.clone(), last.partition, last.position));
            events += page.len();
            keys.extend(page.into_iter().map(|dead_letters| dead_letters.key));
        }
        self.progress.dead_letter_keys(keys.len() as u64);
        Ok(Aside {
            keys: Arc::new(keys),
            events,
        })
    }

    pub(super) async fn checkpoint(&self, partition: Partition) -> Result<Checkpoint, WorkError> {
        let checkpoints = self.context.views.checkpoints(self.generation.id).await?;
        let found = checkpoints.into_iter().find(|of| of.partition == partition);
        Ok(found.unwrap_or_else(|| Checkpoint::start(0, partition)))
    }

    /// Takes a partition further, up to the first event that makes no sense.
    async fn step(
        &self,
        held: &HeldLease,
        reader: &mut PartitionReader,
        skips: &Skips,
        aside: &mut Aside,
    ) -> Result<Option<Stuck>, WorkError> {
        let log = self.context.db.store();
        let limit = self.context.options.batch_events_max.min(STEP_EVENTS);
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
            if skips.is_whole(&record) {
                continue;
            }
            let position = record.position;
            let keys = skips.keys(&record).cloned();
            match Part::of(record) {
                // One that was left out for its key is left out again.
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
        let step = ViewCommit::new(self.generation.id, held.lease(), reader.position, to);
        let events = parts.len() as u64;
        let came = Arc::new(Mutex::new(Came::default()));
        let work = Batch::<P> {
            project: Arc::clone(&self.subject.project),
            tables: Tables::of(self.generation.id),
            partition: reader.partition,
            parts,
            tried: (reader.attempts, self.context.options.attempts),
            dead_letters: Arc::clone(&aside.keys),
            room: self
                .context
                .options
                .dead_letters_max
                .saturating_sub(aside.events),
            now: self.context.db.clock().now(),
            came: Arc::clone(&came),
        };
        let begun = Instant::now();
        self.subject
            .store
            .commit_with(step, Box::new(work))
            .await
            .map_err(ended)?;
        let Came {
            stuck,
            dead_letters,
        } = std::mem::take(&mut *came.lock().unwrap_or_else(PoisonError::into_inner));
        if !dead_letters.is_empty() {
            aside.events += dead_letters.len();
            Arc::make_mut(&mut aside.keys).extend(dead_letters);
            self.progress.dead_letter_keys(aside.keys.len() as u64);
        }
        let stuck = stuck.or(unreadable);
        let reached = stuck
            .as_ref()
            .map_or(up_to, |stuck: &Stuck| stuck.position.minus(1));
        if reached > reader.position {
            reader.position = reached;
            reader.attempts = 0;
            let taken = Taken {
                events,
                rows: 0,
                took: begun.elapsed(),
                oldest: None,
            };
            self.progress.settled_to(reader.partition, reached, taken);
            self.following
                .tell(&self.generation, reader.partition, reached, None);
        }
        Ok(stuck)
    }

    /// Waits before an event is tried again, or stops at it when it was tried often enough.
    async fn try_later(&self, reader: &mut PartitionReader, stuck: Stuck) -> Result<(), WorkError> {
        reader.attempts += 1;
        let options = &self.context.options;
        if reader.attempts < options.attempts {
            let wait = options
                .retry_after
                .saturating_mul(1 << (reader.attempts - 1).min(16));
            tokio::time::sleep(wait.min(Options::RETRY_AFTER_MAX)).await;
            return Ok(());
        }
        let name = P::NAME;
        let position = stuck.position;
        let reason = stuck.reason;
        Err(WorkError::Stopped(format!(
            "the event at position {position} of partition {} makes no sense to `{name}`: \
             {reason}. Nothing behind it is taken in, because nobody \
             knows what the tables would miss. Mend the projection or its tables, or leave the \
             event out with `skip_event`",
            reader.partition
        )))
    }
}

/// What the log is read through.
fn filter<P: SqlProjection>() -> Filter {
    Filter::default().types(P::Event::shapes().iter().map(|shape| shape.event_type))
}

/// What a generation of these tables is made of.
pub(super) fn spec_of<P: SqlProjection>(context: &WorkerContext) -> annals_core::GenerationSpec {
    let store = context.db.store();
    let mut spec = annals_core::GenerationSpec::new(P::NAME, P::VERSION, store.id());
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
