//! A worker from the taking of a lease to its loss: what it has at hand, and how it goes from batch
//! to batch.
//!
//! While one batch is being committed the next one is read and folded; it is handed over only once
//! the one before was taken. When that was refused, everything at hand is thrown away with it.

use std::time::Instant;

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::{
    Checkpoint, CommitError, Failure, History, Partition, Phase, Position, StoreError, Version,
    VersionedRow,
};
use annals_runner::{
    Activity, CommittedStep, DrainResult, HeldLease, Skips, SlotState, WorkError, event_at,
    same_log, skip_call,
};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::FoldView;
use super::batch::{Batch, Committing};
use super::dead_letters::SlotDeadLetters;
use super::page::ViewPage;
use super::reader::PartitionReader;
use crate::fold::{Changes, Checks, RowError, Rows};
use crate::keyed::KeyedRows;
use crate::verify::reached;
use crate::view::View;
use crate::view::step::Step;

/// Keys looked up at once.
const LOOKUP_KEYS: usize = 5_000;

/// From the taking of a lease to its loss.
pub(super) struct LeaseSession<'a, V: View> {
    work: &'a FoldView<V>,
    held: &'a HeldLease,
    pub(super) readers: Vec<PartitionReader<V>>,
    rows: Rows<V>,
    /// The batch that is being committed, at most one. Its rows are at hand as they will be.
    committing: JoinSet<Result<Committing, CommitError>>,
    dead_letters: SlotDeadLetters,
    /// When the past is forgotten next.
    forget_at: DateTime<Utc>,
    skips: Skips,
}

impl<'a, V: View> LeaseSession<'a, V> {
    pub(super) async fn begin(
        work: &'a FoldView<V>,
        held: &'a HeldLease,
    ) -> Result<LeaseSession<'a, V>, WorkError> {
        work.restore(held).await?;
        work.pages.forget();
        let mut readers = Vec::new();
        let mut is_new = true;
        let checkpoints = work.context.views.checkpoints(work.generation.id).await?;
        for partition in (0..work.context.log().partitions()).map(Partition) {
            let found = checkpoints.iter().find(|checkpoint| {
                checkpoint.slot == work.number && checkpoint.partition == partition
            });
            is_new &= found.is_none();
            let start = Checkpoint::start(work.number, partition);
            let checkpoint = found.unwrap_or(&start);
            same_log(&**work.context.log(), &work.generation, checkpoint).await?;
            work.progress.reached(partition, checkpoint.position);
            // Another process may have changed rows since this one worked here last.
            work.publish(partition, checkpoint.position, None);
            readers.push(PartitionReader::at(checkpoint));
        }
        let inline = work.generation.spec.inline;
        let session = LeaseSession {
            work,
            held,
            readers,
            rows: Rows::keeping(work.options.rows_kept_max)
                .inline(inline)
                .all(is_new && !inline),
            committing: JoinSet::new(),
            dead_letters: SlotDeadLetters::read(work).await?,
            forget_at: work.context.clock().now(),
            skips: Skips::of(work.context.views.skip_decisions(V::NAME).await?),
        };
        session.show_dead_letters();
        Ok(session)
    }

    /// Takes one partition a batch further. `false`: that was all there is, and the last of it may
    /// still be on its way.
    pub(super) async fn step(&mut self, index: usize) -> Result<bool, WorkError> {
        let work = self.work;
        let begun = self.readers[index].position;
        let checks = work.checks(self.readers[index].partition, begun);
        let mut batch = Batch::begin(begun, work.is_building(), checks, self.rows.batch());
        let at_end = loop {
            let reader = &mut self.readers[index];
            work.progress.turns_to(Activity::Reading);
            let page = reader.next_page(work).await?;
            let from = reader.position;
            reader.oldest = reader.oldest.or_else(|| page.oldest_after(from));
            work.progress
                .head(reader.partition, page.head.visible, reader.oldest);
            let removed = page.removed.iter().filter(|of| of.last > from);
            let removed: Vec<_> = removed.cloned().collect();
            if !removed.is_empty() {
                let store = &**work.context.log();
                let is_building = work.phase() == Phase::Building;
                work.handlers
                    .check_page(store, &work.options, &removed, is_building)
                    .await?;
            }
            let more = !page.end;
            if reader.position >= page.scanned && page.is_empty_after(from) {
                break true;
            }
            reader.passed(&page);
            if more {
                reader.read_ahead(work).await;
            }
            self.take(index, (&page, from), &mut batch).await?;
            if !more || batch.is_full(work) {
                break !more;
            }
            work.progress.state(SlotState::CatchingUp);
        };
        let moved = self.readers[index].position > begun;
        let stuck = batch.stuck.take();
        if moved {
            let reader = &self.readers[index];
            let span = tracing::debug_span!(
                "batch",
                projection = V::NAME,
                generation = work.generation.id.0,
                slot = work.number,
                partition = reader.partition.0,
                from = begun.get(),
                to = reader.position.get(),
                events = batch.events
            );
            self.commit(index, batch).instrument(span).await?;
        }
        if let Some(stuck) = &stuck {
            self.readers[index].oldest = Some(stuck.recorded_at);
        }
        match stuck {
            Some(stuck) => {
                self.settle().await?;
                Err(WorkError::Stopped(self.stuck(index, &stuck.reason)))
            }
            None => Ok(!at_end),
        }
    }

    /// Folds a page of the log onto the rows. Of an event whose key is unknown, and of later
    /// ones, nothing is taken.
    async fn take(
        &mut self,
        index: usize,
        (page, from): (&ViewPage<V>, Position),
        batch: &mut Batch,
    ) -> Result<(), WorkError> {
        let work = self.work;
        let inline = self.work.generation.spec.inline;
        work.progress.turns_to(Activity::Handling);
        let taken = page.take(work.number, from, &self.skips);
        batch.bytes += taken.bytes;
        if let Some(stuck) = taken.stuck {
            // What comes before it is settled all the same.
            self.readers[index].stop_before(stuck.position);
            batch.stuck = Some(stuck);
        }
        let steps = taken.steps;
        batch.events += steps.len();
        if inline {
            // Appends write rows too. What is read after the log and after all that was handed over
            // has the events up to there, or is moved on only by appends that have them.
            self.settle().await?;
            self.rows.forget_all();
        }
        self.fetch(&steps).await?;
        let folded = self.rows.fold(
            &mut batch.changes,
            &steps,
            &mut self.dead_letters.keys,
            work.context.clock().now(),
            batch.checks,
        );
        folded.map_err(|error| self.fold_carefully(index, batch.checks, error))?;
        if inline && work.workers.is_watched(steps.len()) {
            batch.watched = Some(self.rows.changes_of(&steps));
        }
        Ok(())
    }

    fn fold_carefully(&self, index: usize, checks: Checks, error: RowError) -> WorkError {
        let reader = &self.readers[index];
        self.work
            .fold_carefully(reader.partition, reader.position, checks, error)
    }

    /// Why an event that cannot be given to a key stops the projection, and what to do.
    fn stuck(&self, index: usize, reason: &str) -> String {
        let reader = &self.readers[index];
        let view = V::NAME;
        let at = reader.position.next();
        let partitions = self.work.context.log().partitions();
        let call = skip_call(partitions);
        let partition = if partitions > 1 {
            format!(" of partition {}", reader.partition)
        } else {
            String::new()
        };
        format!(
            "{reason}; the rows it changes are unknown, so no later event is folded. Repair the \
             code that reads it, or skip the event at {at}{partition} of view `{view}` with \
             `{call}`"
        )
    }

    /// Hands a batch over when the one before was taken.
    async fn commit(&mut self, index: usize, batch: Batch) -> Result<(), WorkError> {
        let work = self.work;
        let inline = self.work.generation.spec.inline;
        batch
            .changes
            .read_back::<V>()
            .map_err(|error| self.fold_carefully(index, batch.checks, error))?;
        work.progress.turns_to(Activity::Committing);
        let reader = &mut self.readers[index];
        let partition = reader.partition;
        let up_to = reader.position;
        if reader.event.is_none() {
            reader.event = event_at(&**work.context.log(), partition, up_to).await?;
        }
        let to = Checkpoint {
            slot: work.number,
            partition,
            position: up_to,
            event: reader.event,
            state: bytes::Bytes::new(),
        };
        reader.oldest = None;
        self.settle().await?;
        let Batch {
            begun,
            events,
            changes,
            watched,
            ..
        } = batch;
        let Changes {
            rows,
            versions,
            touched,
            dead_letters,
            advances,
            ..
        } = changes;
        self.dead_letters.check_room(work, dead_letters.len())?;
        let mut commit = work.view_commit(self.held.lease(), begun, to);
        let watched = watched
            .or_else(|| (!inline && work.workers.is_watched(rows.len())).then(|| rows.clone()));
        let taken = CommittedStep {
            events: events as u64,
            rows: rows.len(),
            ..CommittedStep::default()
        };
        let committing = Committing {
            partition,
            up_to,
            taken,
            rows: watched,
            dead_letters: dead_letters.clone(),
        };
        commit.rows = rows;
        commit.versions = versions;
        commit.touched = touched;
        commit.dead_letters = dead_letters;
        commit.advances = advances;
        let views = work.context.views.clone();
        let span = tracing::debug_span!(
            "commit",
            projection = V::NAME,
            slot = work.number,
            partition = partition.0,
            from = begun.get(),
            to = up_to.get()
        );
        let committed = async move {
            let begun = Instant::now();
            views.commit_view(commit).await?;
            let taken = CommittedStep {
                took: begun.elapsed(),
                ..committing.taken
            };
            Ok(Committing {
                taken,
                ..committing
            })
        };
        self.committing.spawn(committed.instrument(span));
        self.rows.trim();
        let (rows, bytes) = self.rows.at_hand();
        work.progress.at_hand(rows, bytes);
        Ok(())
    }

    /// Waits until the batch on its way was taken, if there is one.
    pub(super) async fn settle(&mut self) -> Result<(), WorkError> {
        let work = self.work;
        let Some(ended) = self.committing.join_next().await else {
            return Ok(());
        };
        let Committing {
            partition,
            up_to,
            taken,
            rows,
            dead_letters,
        } = ended.map_err(|error| {
            StoreError::new(Failure::Unavailable, "a commit was broken off").because(error)
        })??;
        let now = work.context.clock().now();
        self.dead_letters.add(&dead_letters, &work.options, now);
        work.publish(partition, up_to, rows);
        let oldest = self
            .readers
            .iter()
            .find(|reader| reader.partition == partition)
            .and_then(|reader| reader.oldest);
        // First, so that readers who wait for this step know of them.
        self.show_dead_letters();
        work.progress
            .settled_to(partition, up_to, CommittedStep { oldest, ..taken });
        Ok(())
    }

    /// What is done now and then.
    pub(super) async fn do_chores(&mut self) -> Result<(), WorkError> {
        self.retry_due().await?;
        self.forget_old().await
    }

    /// Forgets the past that is older than is kept. One slot does so for all.
    async fn forget_old(&mut self) -> Result<(), WorkError> {
        let work = self.work;
        let now = self.work.context.clock().now();
        let Some(age) = work
            .options
            .history_for
            .filter(|_| V::HISTORY != History::None && work.number == 0)
        else {
            return Ok(());
        };
        let (Ok(age), true) = (TimeDelta::from_std(age), now >= self.forget_at) else {
            return Ok(());
        };
        self.forget_at = now + (age / 16).clamp(TimeDelta::seconds(1), TimeDelta::hours(1));
        let partition = self.readers[0].partition;
        let Some(oldest) = now.checked_sub_signed(age) else {
            return Ok(());
        };
        self.settle().await?;
        let generation = &work.generation;
        let checkpoints = work.context.views.checkpoints(generation.id).await?;
        let slots = 0..generation.spec.slots;
        // A slot that lags still keeps versions after where it is.
        let slowest = slots
            .map(|slot| reached(&checkpoints, slot, partition))
            .min();
        let since = work
            .context
            .log()
            .position_at(partition, oldest)
            .await?
            .min(slowest.unwrap_or_default());
        if since > Position::START {
            work.context
                .views
                .forget_history(generation.id, since)
                .await?;
        }
        Ok(())
    }

    /// Tries the keys again whose time has come.
    async fn retry_due(&mut self) -> Result<(), WorkError> {
        let due = self.dead_letters.due(self.work.context.clock().now());
        if due.is_empty() {
            return Ok(());
        }
        self.settle().await?;
        for key in due {
            self.drain(&key).await?;
        }
        Ok(())
    }

    /// Settles the queue of a key as far as it goes.
    async fn drain(&mut self, key: &str) -> Result<DrainResult, WorkError> {
        let work = self.work;
        self.rows.forget(key);
        let drained = work.drain(self.held.lease(), key, &self.skips).await?;
        let now = work.context.clock().now();
        self.dead_letters.drained(key, &drained, &work.options, now);
        self.show_dead_letters();
        Ok(drained)
    }

    fn show_dead_letters(&self) {
        let keys = self.dead_letters.keys.len() as u64;
        self.work.progress.dead_letter_keys(keys);
    }

    /// Drains the queues of keys for an operator.
    pub(super) async fn take_up(&mut self, keys: &[String]) -> Result<DrainResult, WorkError> {
        let work = self.work;
        self.settle().await?;
        self.skips = Skips::of(work.context.views.skip_decisions(V::NAME).await?);
        let mut all = DrainResult::default();
        for key in keys {
            let drained = self.drain(key).await?;
            all.settled += drained.settled;
            all.still = all.still.or(drained.still);
        }
        Ok(all)
    }

    /// Brings the rows to hand that a batch needs.
    async fn fetch(&mut self, steps: &[Step<V>]) -> Result<(), WorkError> {
        let missing = self.rows.missing(steps);
        if self.rows.are_all() {
            return Ok(missing
                .into_iter()
                .try_for_each(|key| self.rows.learn(key, None))?);
        }
        for keys in missing.chunks(LOOKUP_KEYS) {
            if self.work.generation.spec.inline {
                for VersionedRow { key, value, at } in self.work.versioned(keys).await? {
                    self.rows.learn_lenient(key, value, at);
                }
                continue;
            }
            let views = &*self.work.context.views;
            let mut found = KeyedRows::read(views, self.work.generation.id, keys).await?;
            for key in keys {
                let stored = found.rows.remove(key);
                self.rows.learn_lenient(key.clone(), stored, Version::NONE);
            }
        }
        Ok(())
    }
}
