//! A worker from the taking of a lease to its loss: what it has at hand, and how it goes from batch
//! to batch.
//!
//! While one batch is being committed the next one is read and folded; it is handed over only once
//! the one before was taken. When that was refused, everything at hand is thrown away with it.
//!
//! The session with the rows of a view is [`LeaseSession`]. What does not depend on the view is
//! here, and is compiled once: futures are boxed where they are made, because the code of a future
//! is generated with the code that polls it.

mod fold;

use std::time::Instant;

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::{
    Checkpoint, CommitError, Failure, History, Partition, Position, RowChange, StoreError,
};
use annals_runner::{
    Activity, BoxFuture, CommittedStep, HeldLease, Skips, Slot, WorkError, event_at, same_log,
    skip_call,
};
use tokio::task::JoinSet;
use tracing::{Instrument, Span};

pub(super) use self::fold::LeaseSession;
use super::batch::{Batch, Committing};
use super::dead_letters::SlotDeadLetters;
use super::reader::PartitionReader;
use crate::fold::Changes;
use crate::options::Options;
use crate::verify::reached;

/// What of a session does not depend on the view.
pub(super) struct SlotSession<'a> {
    of: &'a Slot,
    options: &'a Options,
    view: &'static str,
    history: History,
    held: &'a HeldLease,
    pub(super) readers: Vec<PartitionReader>,
    /// The batch that is being committed, at most one. Its rows are at hand as they will be.
    committing: JoinSet<Result<Committing, CommitError>>,
    dead_letters: SlotDeadLetters,
    /// When the past is forgotten next.
    forget_at: DateTime<Utc>,
    skips: Skips,
    /// Whether nothing was settled when it began.
    is_new: bool,
}

impl<'a> SlotSession<'a> {
    fn begin(
        of: &'a Slot,
        options: &'a Options,
        (view, history): (&'static str, History),
        held: &'a HeldLease,
    ) -> BoxFuture<'a, Result<SlotSession<'a>, WorkError>> {
        Box::pin(async move {
            let mut session = SlotSession {
                of,
                options,
                view,
                history,
                held,
                readers: Vec::new(),
                committing: JoinSet::new(),
                dead_letters: SlotDeadLetters::default(),
                forget_at: of.context.clock().now(),
                skips: Skips::default(),
                is_new: true,
            };
            session.find_checkpoints().await?;
            session.dead_letters = SlotDeadLetters::read(of, options).await?;
            session.skips = Skips::of(of.context.views.skip_decisions(view).await?);
            session.show_dead_letters();
            Ok(session)
        })
    }

    async fn find_checkpoints(&mut self) -> Result<(), WorkError> {
        let of = self.of;
        let checkpoints = of.context.views.checkpoints(of.generation.id).await?;
        for partition in (0..of.context.log().partitions()).map(Partition) {
            let found = checkpoints.iter().find(|checkpoint| {
                checkpoint.slot == of.number && checkpoint.partition == partition
            });
            self.is_new &= found.is_none();
            let start = Checkpoint::start(of.number, partition);
            let checkpoint = found.unwrap_or(&start);
            same_log(&**of.context.log(), &of.generation, checkpoint).await?;
            of.progress.reached(partition, checkpoint.position);
            // Another process may have changed rows since this one worked here last.
            self.publish(partition, checkpoint.position, None);
            self.readers.push(PartitionReader::at(checkpoint));
        }
        Ok(())
    }

    /// Up to where it has each partition.
    pub(super) fn positions(&self) -> Vec<(Partition, Position)> {
        let readers = self.readers.iter();
        readers.map(|of| (of.partition, of.position)).collect()
    }

    /// Publishes a step to watchers.
    fn publish(&self, partition: Partition, position: Position, rows: Option<Vec<RowChange>>) {
        let generation = self.of.generation.id;
        self.of
            .workers
            .publish_step(generation, partition, position, rows);
    }

    /// Why an event that cannot be given to a key stops the projection, and what to do.
    fn stuck(&self, index: usize, reason: &str) -> String {
        let reader = &self.readers[index];
        let view = self.view;
        let at = reader.position.next();
        let partitions = self.of.context.log().partitions();
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

    fn batch_span(&self, index: usize, batch: &Batch) -> Span {
        let reader = &self.readers[index];
        tracing::debug_span!(
            "batch",
            projection = self.view,
            generation = self.of.generation.id.0,
            slot = self.of.number,
            partition = reader.partition.0,
            from = batch.begun.get(),
            to = reader.position.get(),
            events = batch.events
        )
    }

    /// Hands a batch over when the one before was taken.
    fn hand_over(&mut self, index: usize, batch: Batch) -> BoxFuture<'_, Result<(), WorkError>> {
        Box::pin(async move {
            let of = self.of;
            let inline = of.generation.spec.inline;
            of.progress.turns_to(Activity::Committing);
            let reader = &mut self.readers[index];
            let partition = reader.partition;
            let up_to = reader.position;
            if reader.event.is_none() {
                reader.event = event_at(&**of.context.log(), partition, up_to).await?;
            }
            let to = Checkpoint {
                slot: of.number,
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
            let place = (self.view, of.number);
            let most = self.options.dead_letters_max;
            self.dead_letters
                .check_room(place, most, dead_letters.len())?;
            let mut commit = of.view_commit(self.held.lease(), begun, to);
            let watched = watched
                .or_else(|| (!inline && of.workers.is_watched(rows.len())).then(|| rows.clone()));
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
            let views = of.context.views.clone();
            let span = tracing::debug_span!(
                "commit",
                projection = self.view,
                slot = of.number,
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
            Ok(())
        })
    }

    /// Waits until the batch on its way was taken, if there is one.
    pub(super) fn settle(&mut self) -> BoxFuture<'_, Result<(), WorkError>> {
        Box::pin(async move {
            let of = self.of;
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
                StoreError::new(Failure::Unavailable, "a commit was aborted").because(error)
            })??;
            let now = of.context.clock().now();
            self.dead_letters.add(&dead_letters, self.options, now);
            self.publish(partition, up_to, rows);
            let mut readers = self.readers.iter();
            let reader = readers.find(|reader| reader.partition == partition);
            let oldest = reader.and_then(|reader| reader.oldest);
            // First, so that readers who wait for this step know of them.
            self.show_dead_letters();
            of.progress
                .settled_to(partition, up_to, CommittedStep { oldest, ..taken });
            Ok(())
        })
    }

    /// Forgets the past that is older than is kept. One slot does so for all.
    fn forget_old(&mut self) -> BoxFuture<'_, Result<(), WorkError>> {
        Box::pin(async move {
            let of = self.of;
            let now = of.context.clock().now();
            let is_mine = self.history != History::None && of.number == 0;
            let Some(age) = self.options.history_for.filter(|_| is_mine) else {
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
            let generation = &of.generation;
            let checkpoints = of.context.views.checkpoints(generation.id).await?;
            let slots = 0..generation.spec.slots;
            // A slot that lags still keeps versions after where it is.
            let slowest = slots
                .map(|slot| reached(&checkpoints, slot, partition))
                .min();
            let since = of
                .context
                .log()
                .position_at(partition, oldest)
                .await?
                .min(slowest.unwrap_or_default());
            if since > Position::START {
                of.context
                    .views
                    .forget_history(generation.id, since)
                    .await?;
            }
            Ok(())
        })
    }

    fn show_dead_letters(&self) {
        let keys = self.dead_letters.keys.len() as u64;
        self.of.progress.dead_letter_keys(keys);
    }
}
