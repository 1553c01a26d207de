//! The work of a reactor: read, call, commit, and again. The scheduler says what is called when.
//!
//! What is settled is written under the epoch of the lease; a call that was made and not written is
//! made again with the same idempotency key.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use annals_core::{
    Checkpoint, CommitError, DeadLetter, Filter, Metadata, PAGE_EVENTS, Partition, Position,
    ReadLog, RecordedEvent, RowChange, ViewCommit, with_metadata,
};
use annals_runner::{
    Backoff, CommittedStep, DeadLetterPages, DrainResult, HeldLease, Note, Progress, Skips, Slot,
    SlotState, Tasks, WindowNote, Work, WorkError, chain, contained_async, event_at, same_log,
    settled_to,
};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::Instrument;

use super::call::{Call, Handler};
use super::drain;
use super::scheduler::{Event, Job, Outcome, Scheduler};
use super::{ReactError, ReactorOptions};

/// Makes the calls of a reactor.
pub(crate) struct React {
    slot: Slot,
    handler: Arc<dyn Handler>,
    options: ReactorOptions,
}

impl Deref for React {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        &self.slot
    }
}

impl React {
    pub(crate) fn new(slot: Slot, handler: Arc<dyn Handler>, options: ReactorOptions) -> React {
        React {
            slot,
            handler,
            options,
        }
    }
}

impl Work for React {
    fn slot(&self) -> &Slot {
        &self.slot
    }

    fn filter(&self) -> Filter {
        self.handler.filter()
    }

    fn ends_itself(&self) -> bool {
        true
    }

    async fn work(
        &self,
        held: &HeldLease,
        tasks: Tasks,
        stop: watch::Receiver<bool>,
    ) -> Result<(), WorkError> {
        let session = ReactorSession::begin(self, held, tasks).await?;
        session.run(stop).await
    }
}

/// From the taking of the lease to its loss.
struct ReactorSession<'a> {
    work: &'a React,
    held: &'a HeldLease,
    tasks: Tasks,
    readers: Vec<PartitionReader>,
    scheduler: Scheduler<Call>,
    // Keys whose dead letters are tried again.
    retried: VecDeque<String>,
    skips: Skips,
    calls: JoinSet<CallOutcome>,
    // Since when the calls are being made.
    began: HashMap<String, Instant>,
}

/// One partition, and where its checkpoint is.
struct PartitionReader {
    partition: Partition,
    checkpoint: Position,
    end: bool,
    /// Why nothing more is read of it: an event whose key is unknown.
    stuck: Option<String>,
}

/// What a call is about.
enum About {
    Event(Job<Call>),
    DeadLetter(DeadLetter),
}

/// A call that has ended.
struct CallOutcome {
    about: About,
    attempts: u32,
    outcome: Result<Vec<RowChange>, String>,
}

impl<'a> ReactorSession<'a> {
    async fn begin(
        work: &'a React,
        held: &'a HeldLease,
        tasks: Tasks,
    ) -> Result<ReactorSession<'a>, WorkError> {
        let log = work.context.log();
        let mut readers = Vec::new();
        let mut begins = Vec::new();
        for partition in (0..log.partitions()).map(Partition) {
            let checkpoint = work.checkpoint(partition).await?;
            same_log(&**log, &work.generation, &checkpoint).await?;
            let low = settled_to(&checkpoint);
            work.progress.reached(partition, low);
            let settled = Note::of(&checkpoint)?.into_window().settled;
            begins.push((partition, low, settled));
            readers.push(PartitionReader {
                partition,
                checkpoint: checkpoint.position,
                end: false,
                stuck: None,
            });
        }
        let mut dead = HashSet::new();
        let mut retried = VecDeque::new();
        let mut pages = DeadLetterPages::of(&*work.context.views, work.generation.id);
        loop {
            let page = pages.next().await?;
            if page.is_empty() {
                break;
            }
            for letter in page {
                // A first dead letter without a cause is to be tried again.
                if dead.insert(letter.key.clone()) && letter.cause.is_none() {
                    retried.push_back(letter.key);
                }
            }
        }
        work.progress.dead_letter_keys(dead.len() as u64);
        Ok(ReactorSession {
            work,
            held,
            tasks,
            readers,
            scheduler: Scheduler::new(begins, dead),
            retried,
            skips: read_skips(work).await?,
            calls: JoinSet::new(),
            began: HashMap::new(),
        })
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), WorkError> {
        let work = self.work;
        let mut hint = work.context.log().hint();
        loop {
            hint.reset();
            work.handler.due(&work.slot).await?;
            let mut moved = self.take_up_tasks().await?;
            self.retry().await?;
            for index in 0..self.readers.len() {
                moved |= self.read(index).await?;
            }
            self.start().await?;
            self.commit().await?;
            while let Some(ended) = self.calls.try_join_next() {
                self.ended(ended).await?;
                moved = true;
            }
            if *stop.borrow() {
                return self.finish().await;
            }
            if moved {
                work.progress.state(SlotState::CatchingUp);
                tokio::task::yield_now().await;
                continue;
            }
            if self.scheduler.is_idle() && self.calls.is_empty() {
                if let Some(reason) = self.readers.iter_mut().find_map(|of| of.stuck.take()) {
                    return Err(WorkError::Stopped(reason));
                }
                if self.readers.iter().all(|reader| reader.end) {
                    work.progress.state(SlotState::Live);
                }
            }
            self.publish();
            let ended = tokio::select! {
                Some(ended) = self.calls.join_next() => Some(ended),
                task = self.tasks.next() => {
                    let drained = self.take_up(&task.keys).await;
                    task.answer(drained);
                    None
                }
                () = hint.wait(work.options.poll) => None,
                _ = stop.changed() => None,
            };
            if let Some(ended) = ended {
                self.ended(ended).await?;
            }
        }
    }

    /// Shows in the status what is being done.
    fn publish(&self) {
        let progress = &self.work.progress;
        let longest = self.began.values().min();
        progress.calls(longest.map(|began| (self.began.len(), *began)));
        progress.publish();
    }

    /// Waits for the calls that are being made, but not for ever: those that do not end are made
    /// again by the next worker.
    async fn finish(mut self) -> Result<(), WorkError> {
        let grace = tokio::time::sleep(self.work.options.grace);
        tokio::pin!(grace);
        loop {
            let ended = tokio::select! {
                ended = self.calls.join_next() => ended,
                () = &mut grace => None,
            };
            match ended {
                Some(ended) => self.ended(ended).await?,
                None => break,
            }
        }
        self.commit().await
    }

    /// Takes up what operators decided.
    async fn take_up_tasks(&mut self) -> Result<bool, WorkError> {
        let mut any = false;
        while let Some(task) = self.tasks.try_next() {
            let drained = self.take_up(&task.keys).await;
            task.answer(drained);
            any = true;
        }
        Ok(any)
    }

    /// The dead letters of these keys are tried again, without those that are skipped.
    async fn take_up(&mut self, keys: &[String]) -> Result<DrainResult, WorkError> {
        self.commit().await?;
        self.skips = read_skips(self.work).await?;
        let drained = drain::mark(&self.work.slot, self.held, keys, &self.skips).await?;
        for key in keys {
            if !self.retried.contains(key) && !self.began.contains_key(key) {
                self.retried.push_back(key.clone());
            }
        }
        Ok(drained)
    }

    /// Reads as much of a partition as there is room for. `false`: there was nothing new.
    async fn read(&mut self, index: usize) -> Result<bool, WorkError> {
        let work = self.work;
        let held = self.scheduler.held(index);
        let room = work.options.window_events_max.saturating_sub(held);
        if room == 0 || self.readers[index].stuck.is_some() {
            return Ok(false);
        }
        let partition = self.readers[index].partition;
        let from = self.scheduler.scanned(index);
        let read = ReadLog::after(from)
            .partition(partition)
            .filter(work.handler.filter())
            .limit(room.min(PAGE_EVENTS));
        let page = work.context.log().read(read).await?;
        let oldest = self.scheduler.oldest_after(index, Position::START);
        let first = page.events.first().map(|record| record.recorded_at);
        work.progress
            .head(partition, page.head.visible, oldest.or(first));
        self.readers[index].end = page.end;
        if page.scanned <= from && page.events.is_empty() {
            return Ok(false);
        }
        for record in page.events {
            let position = record.position;
            if let Err(reason) = self.take(index, record) {
                // What comes before it is settled all the same.
                self.readers[index].stuck = Some(reason);
                self.scheduler.scanned_to(index, position.minus(1));
                return Ok(true);
            }
        }
        self.scheduler.scanned_to(index, page.scanned);
        Ok(true)
    }

    /// Hands an event to the scheduler; why not, when its key is unknown.
    fn take(&mut self, index: usize, record: RecordedEvent) -> Result<(), String> {
        let work = self.work;
        let position = record.position;
        let event = Event {
            position,
            id: record.id,
            recorded_at: record.recorded_at,
            calls: if self.skips.for_all_keys(&record) {
                Vec::new()
            } else {
                let skips = &self.skips;
                let skipped = record.clone();
                let calls = work.handler.prepare(record).map_err(|error| {
                    format!(
                        "{}; its key is unknown, so nothing is called for later events. Repair \
                         the code that reads it, or skip the event at {position} with `skip_event`",
                        chain(&error)
                    )
                })?;
                let wanted = calls
                    .into_iter()
                    .filter(|call| !skips.for_key(&skipped, &call.key));
                wanted.map(|call| (call.key.clone(), call)).collect()
            },
        };
        self.scheduler
            .take(index, event, work.context.clock().now());
        Ok(())
    }

    /// Begins calls, as many as there is room for.
    async fn start(&mut self) -> Result<(), WorkError> {
        let options = &self.work.options;
        let room = options.calls_max.saturating_sub(self.calls.len());
        let starting = self.scheduler.start(room);
        if options.at_most_once && !starting.is_empty() {
            // Written before it is done: whatever dies from here on, it is not done again.
            for job in &starting {
                self.scheduler.settle(job.index, job.position, Vec::new());
            }
            self.commit().await?;
        }
        for job in starting {
            let call = job.call.clone();
            self.call(About::Event(job), call);
        }
        Ok(())
    }

    fn call(&mut self, about: About, call: Call) {
        self.began.insert(call.key.clone(), Instant::now());
        let options = self.work.options.clone();
        let progress = self.work.progress.clone();
        self.calls.spawn(make(options, progress, about, call));
    }

    async fn ended(&mut self, ended: Result<CallOutcome, JoinError>) -> Result<(), WorkError> {
        // What is done about an event is contained, so only the end of the runtime ends up here.
        let ended =
            ended.map_err(|error| WorkError::Stopped(format!("a call was aborted: {error}")))?;
        let CallOutcome {
            about,
            attempts,
            outcome,
        } = ended;
        let work = self.work;
        let (key, position) = match &about {
            About::Event(job) => (job.key.clone(), job.position),
            About::DeadLetter(letter) => (letter.key.clone(), letter.position),
        };
        self.began.remove(&key);
        if let Err(error) = &outcome {
            let reactor = work.progress.name();
            tracing::warn!(reactor, key, %position, attempts, error, "a call failed");
        }
        let job = match about {
            About::Event(job) => job,
            About::DeadLetter(letter) => return self.retried(letter, attempts, outcome).await,
        };
        if work.options.at_most_once {
            self.scheduler.ended_unrecorded(key);
            return Ok(());
        }
        let outcome = match outcome {
            Ok(rows) => Outcome::Done(rows),
            Err(cause) => Outcome::Failed { cause, attempts },
        };
        self.scheduler
            .ended(job, outcome, work.context.clock().now());
        self.show_dead_letters();
        Ok(())
    }

    fn show_dead_letters(&self) {
        let keys = self.scheduler.dead_keys() as u64;
        self.work.progress.dead_letter_keys(keys);
    }

    /// Writes what is settled. A partition in which nothing moved is left alone.
    async fn commit(&mut self) -> Result<(), WorkError> {
        let work = self.work;
        for (index, reader) in self.readers.iter_mut().enumerate() {
            let Some(settled) = self.scheduler.settled(index) else {
                continue;
            };
            let low = settled.low;
            // A checkpoint never goes back; what is done once more is noted in its state.
            let position = low.max(reader.checkpoint);
            let log = work.context.log();
            let to = Checkpoint {
                slot: work.number,
                partition: reader.partition,
                position,
                event: event_at(&**log, reader.partition, position).await?,
                state: Note::from(WindowNote::of(settled.above.clone(), low, position)).to_state(),
            };
            let mut commit =
                ViewCommit::new(work.generation.id, self.held.lease(), reader.checkpoint, to);
            commit.park.clone_from(&settled.park);
            commit.rows.clone_from(&settled.rows);
            let rows = commit.rows.len();
            let span = tracing::debug_span!(
                "commit",
                projection = work.workers.stored_name(),
                slot = work.number,
                partition = reader.partition.0,
                from = reader.checkpoint.get(),
                to = low.get()
            );
            let begun = Instant::now();
            work.context
                .views
                .commit_view(commit)
                .instrument(span)
                .await?;
            reader.checkpoint = position;
            let step = CommittedStep {
                events: self.scheduler.written(index, &settled),
                rows,
                took: begun.elapsed(),
                oldest: self.scheduler.oldest_after(index, low),
            };
            work.progress.settled_to(reader.partition, low, step);
        }
        Ok(())
    }

    /// Begins with the first dead letter of each key that is tried again.
    async fn retry(&mut self) -> Result<(), WorkError> {
        while self.calls.len() < self.work.options.calls_max {
            let Some(key) = self.retried.pop_front() else {
                break;
            };
            self.retry_next(key).await?;
        }
        Ok(())
    }

    /// Tries the next dead letter of a key. When none is left the key goes on as the others do.
    async fn retry_next(&mut self, key: String) -> Result<(), WorkError> {
        let work = self.work;
        // Dead letters that are still to be written are written first, where the checkpoint is there
        // already.
        self.commit().await?;
        while let Some(letter) = first_dead_letter(&work.slot, &key).await? {
            let read = ReadLog::after(letter.position.minus(1))
                .up_to(letter.position)
                .partition(letter.partition)
                .limit(1);
            let page = work.context.log().read(read).await?;
            let prepared = match page.events.into_iter().next() {
                Some(record) if !self.skips.for_key(&record, &key) => work.handler.prepare(record),
                _ => Ok(Vec::new()),
            };
            match prepared.map(|calls| calls.into_iter().find(|call| call.key == key)) {
                Ok(Some(call)) => {
                    self.call(About::DeadLetter(letter), call);
                    return Ok(());
                }
                // It was removed from the log, or skipped, or nothing is to be done about it.
                Ok(None) => self.remove(letter, Vec::new()).await?,
                Err(error) => return self.retried(letter, 1, Err(chain(&error))).await,
            }
        }
        self.scheduler.revive(&key);
        self.show_dead_letters();
        Ok(())
    }

    /// A dead letter was tried again.
    async fn retried(
        &mut self,
        letter: DeadLetter,
        attempts: u32,
        outcome: Result<Vec<RowChange>, String>,
    ) -> Result<(), WorkError> {
        match outcome {
            Ok(rows) => {
                self.retried.push_front(letter.key.clone());
                self.remove(letter, rows).await
            }
            Err(cause) => {
                let letter = DeadLetter {
                    cause: Some(cause),
                    attempts: letter.attempts + attempts,
                    ..letter
                };
                self.commit_unmoved(letter.partition, |commit| commit.park.push(letter))
                    .await
            }
        }
    }

    async fn remove(&mut self, letter: DeadLetter, rows: Vec<RowChange>) -> Result<(), WorkError> {
        self.commit_unmoved(letter.partition, |commit| {
            commit.unpark.push((letter.key, letter.position));
            commit.rows = rows;
        })
        .await
    }

    /// Writes something about dead letters, without a step.
    async fn commit_unmoved(
        &mut self,
        partition: Partition,
        change: impl FnOnce(&mut ViewCommit) + Send,
    ) -> Result<(), WorkError> {
        self.commit().await?;
        let commit = unmoved(&self.work.slot, self.held, partition, change).await?;
        Ok(self.work.context.views.commit_view(commit).await?)
    }
}

async fn read_skips(work: &React) -> Result<Skips, WorkError> {
    let stored_name = work.workers.stored_name();
    Ok(Skips::of(
        work.context.views.skip_decisions(stored_name).await?,
    ))
}

/// A commit that leaves the checkpoint of a partition where it is.
pub(super) async fn unmoved(
    slot: &Slot,
    held: &HeldLease,
    partition: Partition,
    change: impl FnOnce(&mut ViewCommit) + Send,
) -> Result<ViewCommit, WorkError> {
    let at = slot.checkpoint(partition).await?;
    let mut commit = ViewCommit::new(slot.generation.id, held.lease(), at.position, at);
    change(&mut commit);
    Ok(commit)
}

/// The first dead letter of a key.
pub(super) async fn first_dead_letter(
    slot: &Slot,
    key: &str,
) -> Result<Option<DeadLetter>, CommitError> {
    let page = DeadLetterPages::of(&*slot.context.views, slot.generation.id)
        .from(key, Partition(0))
        .limit(1)
        .next()
        .await?;
    Ok(page.into_iter().next().filter(|letter| letter.key == key))
}

/// Makes a call until it succeeds or there is no use in trying again.
async fn make(
    options: ReactorOptions,
    progress: Progress,
    about: About,
    call: Call,
) -> CallOutcome {
    let mut attempts = 0;
    let mut backoff = Backoff::new(options.back_off, ReactorOptions::BACK_OFF_MAX);
    let metadata = Metadata::caused_by(&call.record);
    let outcome = loop {
        attempts += 1;
        let record = &call.record;
        let begun = Instant::now();
        let span = tracing::debug_span!(
            "call",
            reactor = progress.name(),
            key = call.key,
            partition = record.partition.0,
            position = record.position.get(),
            attempt = attempts
        );
        let made = contained_async(async { (call.make)(attempts).await });
        let made = with_metadata(metadata.clone(), made).instrument(span);
        let made = tokio::time::timeout(options.call_timeout, made).await;
        progress.called(matches!(made, Ok(Ok(Ok(_)))), begun.elapsed());
        let cause = match made {
            Ok(Ok(Ok(rows))) => break Ok(rows),
            Ok(Ok(Err(ReactError::Permanent(cause))) | Err(cause)) => break Err(cause),
            Ok(Ok(Err(ReactError::Retry(cause)))) => cause,
            Err(_) => format!("the call took longer than {:?}", options.call_timeout),
        };
        if options.at_most_once || attempts >= options.attempts {
            break Err(cause);
        }
        tokio::time::sleep(backoff.next_wait()).await;
    };
    CallOutcome {
        about,
        attempts,
        outcome,
    }
}
