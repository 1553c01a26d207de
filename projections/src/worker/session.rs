//! A worker from the taking of a lease to its loss: what it has at hand, and how it goes from batch
//! to batch.
//!
//! While one batch is being committed the next one is read and folded; it is handed over only once
//! the one before was taken. When that was refused, everything at hand is thrown away with it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::{
    Checkpoint, CommitError, DeadLetter, EventId, Failure, History, LogPage, Partition, Position,
    ReadLog, ReadRows, RecordedEvent, RowChange, RowsBy, StoreError, Version, VersionedRow,
    ViewCommit,
};
use tokio::task::{JoinHandle, JoinSet};
use tracing::Instrument;

use annals_runner::{
    Activity, CommittedStep, DeadLetterPages, DrainResult, HeldLease, Skips, SlotState, WorkError,
    chain, event_at, same_log, slot_of,
};

use super::FoldView;
use crate::fold::{Changes, Checks, RowError, Rows, of_slot};
use crate::options::Options;
use crate::step::{Step, StepError};
use crate::view::View;

/// Keys looked up at once.
const LOOKUP_KEYS: usize = 5_000;

/// Events read at once, and folded before the next ones are: all that is in memory of a batch
/// besides what it changes.
const PAGE_EVENTS: usize = 2_048;

/// How long a batch goes on of what is not read yet: what is folded again at most, when the worker
/// dies.
const BUILD_BATCH: Duration = Duration::from_secs(1);

/// From the taking of a lease to its loss.
pub(super) struct LeaseSession<'a, V: View> {
    work: &'a FoldView<V>,
    held: &'a HeldLease,
    pub(super) readers: Vec<PartitionReader>,
    rows: Rows<V>,
    /// The batch that is being committed, at most one. Its rows are at hand as they will be.
    committing: JoinSet<Result<Committing, CommitError>>,
    dead_letters: HashSet<String>,
    dead_letter_events: usize,
    /// Keys that are tried again by themselves, and when.
    retries: BTreeMap<String, DateTime<Utc>>,
    /// When the past is forgotten next.
    forget_at: DateTime<Utc>,
    skips: Skips,
}

/// One partition, and up to where the slot has it.
pub(super) struct PartitionReader {
    partition: Partition,
    position: Position,
    event: Option<EventId>,
    ahead: Option<JoinHandle<Result<LogPage, StoreError>>>,
    /// When the oldest event was recorded that was read and is not on its way into the store.
    oldest: Option<DateTime<Utc>>,
}

/// A batch that is being folded.
struct Batch {
    begun: Position,
    since: Instant,
    /// Whether no reader sees what is built here.
    building: bool,
    checks: Checks,
    events: usize,
    bytes: usize,
    changes: Changes,
    /// An inline view's rows for watchers, if there are any.
    watched: Option<Vec<RowChange>>,
    /// An event that cannot be given to a key, and when it was recorded.
    stuck: Option<(StepError, DateTime<Utc>)>,
}

/// A batch on its way into the store, and what is published of it when it is there.
struct Committing {
    partition: Partition,
    up_to: Position,
    taken: CommittedStep,
    rows: Option<Vec<RowChange>>,
    park: Vec<DeadLetter>,
}

impl<'a, V: View> LeaseSession<'a, V> {
    pub(super) async fn begin(
        work: &'a FoldView<V>,
        held: &'a HeldLease,
    ) -> Result<LeaseSession<'a, V>, WorkError> {
        work.restore(held).await?;
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
            // Somebody else may have changed rows since this process worked here last.
            work.publish(partition, checkpoint.position, None);
            readers.push(PartitionReader {
                partition,
                position: checkpoint.position,
                event: checkpoint.event,
                ahead: None,
                oldest: None,
            });
        }
        let inline = work.generation.spec.inline;
        let mut session = LeaseSession {
            work,
            held,
            readers,
            rows: Rows::keeping(work.options.rows_kept_max)
                .inline(inline)
                .all(is_new && !inline),
            committing: JoinSet::new(),
            dead_letters: HashSet::new(),
            dead_letter_events: 0,
            retries: BTreeMap::new(),
            forget_at: work.context.clock().now(),
            skips: Skips::of(work.context.views.skip_decisions(V::NAME).await?),
        };
        session.read_dead_letters().await?;
        Ok(session)
    }

    /// Its dead letters.
    async fn read_dead_letters(&mut self) -> Result<(), WorkError> {
        let work = self.work;
        let slots = work.generation.spec.slots;
        let mut pages = DeadLetterPages::of(&*work.context.views, work.generation.id);
        loop {
            let page = pages.next().await?;
            if page.is_empty() {
                break;
            }
            for dead_letters in page
                .into_iter()
                .filter(|dead_letters| slot_of(&dead_letters.key, slots) == work.number)
            {
                self.dead_letter_events += 1;
                self.retry_later(&dead_letters);
                self.dead_letters.insert(dead_letters.key);
            }
        }
        work.progress
            .dead_letter_keys(self.dead_letters.len() as u64);
        Ok(())
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
            reader.oldest = reader
                .oldest
                .or_else(|| page.events.first().map(|record| record.recorded_at));
            work.progress
                .head(reader.partition, page.head.visible, reader.oldest);
            let more = !page.end;
            if reader.position >= page.scanned && page.events.is_empty() {
                break true;
            }
            reader.position = page.scanned;
            reader.event = match page.events.last() {
                Some(last) if last.position == page.scanned => Some(last.id),
                // The last one was filtered out; it is looked up before the commit.
                _ => None,
            };
            if more {
                reader.read_ahead(work);
            }
            self.take(index, page.events, &mut batch).await?;
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
        if let Some((_, recorded_at)) = &stuck {
            self.readers[index].oldest = Some(*recorded_at);
        }
        match stuck {
            Some((error, _)) => {
                self.settle().await?;
                Err(WorkError::Stopped(self.stuck(index, &error)))
            }
            None => Ok(!at_end),
        }
    }

    /// Folds a page of the log onto the rows. Of an event whose key is unknown, and of later
    /// ones, nothing is taken.
    async fn take(
        &mut self,
        index: usize,
        records: Vec<RecordedEvent>,
        batch: &mut Batch,
    ) -> Result<(), WorkError> {
        let work = self.work;
        let inline = self.work.generation.spec.inline;
        work.progress.turns_to(Activity::Handling);
        let mut steps = Vec::with_capacity(records.len());
        for record in records {
            batch.bytes += record.payload.len();
            let position = record.position;
            let recorded_at = record.recorded_at;
            match work.prepare(&self.skips, record) {
                Ok(prepared) => {
                    steps.extend(of_slot(prepared, work.number, work.generation.spec.slots))
                }
                Err(error) => {
                    // What comes before it is settled all the same.
                    let reader = &mut self.readers[index];
                    reader.position = position.minus(1);
                    reader.event = None;
                    reader.ahead = None;
                    batch.stuck = Some((error, recorded_at));
                    break;
                }
            }
        }
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
            &mut self.dead_letters,
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
    fn stuck(&self, index: usize, error: &StepError) -> String {
        let reader = &self.readers[index];
        let view = V::NAME;
        let at = reader.position.next();
        let partition = if self.readers.len() > 1 {
            format!(" of partition {}", reader.partition)
        } else {
            String::new()
        };
        format!(
            "{}; the rows it changes are unknown, so no later event is folded. Repair the code that reads \
             it, or skip the event at {at}{partition} of view `{view}` with `skip_event`",
            chain(error)
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
            park,
            advances,
            ..
        } = changes;
        self.room_for(park.len())?;
        let mut commit = ViewCommit::new(work.generation.id, self.held.lease(), begun, to);
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
            park: park.clone(),
        };
        commit.rows = rows;
        commit.versions = versions;
        commit.touched = touched;
        commit.park = park;
        commit.stands = advances;
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
            park,
        } = ended.map_err(|error| {
            StoreError::new(Failure::Unavailable, "a commit was broken off").because(error)
        })??;
        self.dead_letter_events += park.len();
        park.iter()
            .for_each(|dead_letters| self.retry_later(dead_letters));
        work.publish(partition, up_to, rows);
        let oldest = self
            .readers
            .iter()
            .find(|reader| reader.partition == partition)
            .and_then(|reader| reader.oldest);
        work.progress
            .settled_to(partition, up_to, CommittedStep { oldest, ..taken });
        work.progress
            .dead_letter_keys(self.dead_letters.len() as u64);
        Ok(())
    }

    /// Refuses more dead letters than can be looked after.
    fn room_for(&self, events: usize) -> Result<(), WorkError> {
        let letters = self.dead_letter_events + events;
        let most = self.work.options.dead_letters_max;
        if letters <= most {
            return Ok(());
        }
        let view = V::NAME;
        let slot = self.work.number;
        Err(WorkError::Stopped(format!(
            "slot {slot} of view `{view}` would have {letters} dead letters, at most {most} are allowed; \
             nothing was changed. Repair the fold and retry the keys, skip or discard their dead \
             letters, or raise `dead_letters_max`"
        )))
    }

    /// Notes when a key that waits is tried again by itself, if it is.
    fn retry_later(&mut self, dead_letters: &DeadLetter) {
        let options = &self.work.options;
        if dead_letters.cause.is_none() || dead_letters.attempts >= options.attempts {
            return;
        }
        let wait = options
            .retry_after
            .saturating_mul(1 << dead_letters.attempts.saturating_sub(1).min(16));
        let wait =
            TimeDelta::from_std(wait.min(Options::RETRY_AFTER_MAX)).unwrap_or(TimeDelta::hours(1));
        self.retries.insert(
            dead_letters.key.clone(),
            self.work.context.clock().now() + wait,
        );
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
        let since = work
            .context
            .log()
            .position_at(partition, oldest)
            .await?
            .min(self.readers[0].position);
        if since > Position::START {
            self.settle().await?;
            work.context
                .views
                .forget_history(work.generation.id, since)
                .await?;
        }
        Ok(())
    }

    /// Tries the keys again whose time has come.
    async fn retry_due(&mut self) -> Result<(), WorkError> {
        if self.retries.is_empty() {
            return Ok(());
        }
        let work = self.work;
        let now = self.work.context.clock().now();
        let due: Vec<String> = self
            .retries
            .iter()
            .filter(|(_, due)| **due <= now)
            .map(|(key, _)| key.clone())
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        self.settle().await?;
        for key in due {
            self.retries.remove(&key);
            self.rows.forget(&key);
            let drained = work.drain(self.held.lease(), &key, &self.skips).await?;
            self.dead_letter_events = self
                .dead_letter_events
                .saturating_sub(drained.settled as usize);
            match drained.still {
                Some(still) => self.retry_later(&still),
                None => _ = self.dead_letters.remove(&key),
            }
        }
        work.progress
            .dead_letter_keys(self.dead_letters.len() as u64);
        Ok(())
    }

    /// Drains the queues of keys for an operator.
    pub(super) async fn take_up(&mut self, keys: &[String]) -> Result<DrainResult, WorkError> {
        let work = self.work;
        self.settle().await?;
        self.skips = Skips::of(work.context.views.skip_decisions(V::NAME).await?);
        let mut all = DrainResult::default();
        for key in keys {
            self.retries.remove(key);
            self.rows.forget(key);
            let drained = work.drain(self.held.lease(), key, &self.skips).await?;
            self.dead_letter_events = self
                .dead_letter_events
                .saturating_sub(drained.settled as usize);
            match &drained.still {
                Some(still) => self.retry_later(still),
                None => _ = self.dead_letters.remove(key),
            }
            all.settled += drained.settled;
            all.still = all.still.or(drained.still);
        }
        work.progress
            .dead_letter_keys(self.dead_letters.len() as u64);
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
            let read = ReadRows::of(self.work.generation.id, RowsBy::Keys(keys.to_vec()))
                .limit(keys.len());
            let page = self.work.context.views.read_rows(read).await?;
            let mut found: HashMap<_, _> = page
                .rows
                .into_iter()
                .map(|row| (row.key, row.value))
                .collect();
            for key in keys {
                let stored = found.remove(key);
                self.rows.learn_lenient(key.clone(), stored, Version::NONE);
            }
        }
        Ok(())
    }
}

impl Batch {
    fn begin(begun: Position, building: bool, checks: Checks, changes: Changes) -> Batch {
        Batch {
            begun,
            since: Instant::now(),
            building,
            checks,
            events: 0,
            bytes: 0,
            changes,
            watched: None,
            stuck: None,
        }
    }

    /// Whether it is handed over as it is. Rows of an inline view are read again for each page.
    fn is_full<V: View>(&self, work: &FoldView<V>) -> bool {
        let options = &work.options;
        self.stuck.is_some()
            || work.generation.spec.inline
            || self.bytes >= options.batch_bytes_max
            || match self.building {
                false => self.events >= options.batch_events_max,
                // A row that changes again and again is written once; what is kept of its past is
                // not, and larger batches gain nothing.
                true => {
                    self.events >= options.build_events_max
                        || self.since.elapsed() >= BUILD_BATCH
                        || self.changes.rows.len()
                            >= options.rows_kept_max.max(options.batch_events_max)
                        || self.changes.past() >= options.batch_events_max
                }
            }
    }
}

impl PartitionReader {
    fn request<V: View>(&self, work: &FoldView<V>) -> ReadLog {
        let limit = work.options.batch_events_max.min(PAGE_EVENTS);
        ReadLog::after(self.position)
            .partition(self.partition)
            .filter(work.handlers.filter())
            .limit(limit)
    }

    fn read_ahead<V: View>(&mut self, work: &FoldView<V>) {
        let log = Arc::clone(work.context.log());
        let read = self.request(work);
        self.ahead = Some(tokio::spawn(async move { log.read(read).await }));
    }

    async fn next_page<V: View>(&mut self, work: &FoldView<V>) -> Result<LogPage, StoreError> {
        match self.ahead.take() {
            None => work.context.log().read(self.request(work)).await,
            Some(ahead) => ahead.await.unwrap_or_else(|error| {
                Err(
                    StoreError::new(Failure::Unavailable, "a read of the log was broken off")
                        .because(error),
                )
            }),
        }
    }
}
