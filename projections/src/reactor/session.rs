//! A reactor's worker from the taking of a lease to its loss: read, call, commit, and again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use annals_core::{Checkpoint, PAGE_EVENTS, Partition, Position, ReadLog, RecordedEvent};
use annals_runner::{
    CommittedStep, DeadLetterPages, HeldLease, Note, Skips, SlotState, Tasks, WindowNote,
    WorkError, chain, event_at, not_read_before_removal, same_log, settled_to, skip_call,
};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::Instrument;

use super::attempts::{About, CallOutcome, make};
use super::call::Call;
use super::retry::read_skips;
use super::scheduler::{Event, Outcome, Scheduler};
use super::worker::React;

/// From the taking of the lease to its loss.
pub(super) struct ReactorSession<'a> {
    pub(super) work: &'a React,
    pub(super) held: &'a HeldLease,
    tasks: Tasks,
    readers: Vec<PartitionReader>,
    pub(super) scheduler: Scheduler<Call>,
    // Keys whose dead letters are tried again.
    pub(super) retried: VecDeque<String>,
    pub(super) skips: Skips,
    pub(super) calls: JoinSet<CallOutcome>,
    // Since when the calls are being made.
    pub(super) began: HashMap<String, Instant>,
}

/// One partition, and where its checkpoint is.
struct PartitionReader {
    partition: Partition,
    checkpoint: Position,
    end: bool,
    /// Why nothing more is read of it: an event whose key is unknown, or one that was archived.
    stuck: Option<String>,
}

impl<'a> ReactorSession<'a> {
    pub(super) async fn begin(
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
                // A first dead letter without a reason is to be tried again.
                if dead.insert(letter.key.clone()) && letter.reason.is_none() {
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

    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), WorkError> {
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
            // What is written makes room for more to be read.
            moved |= self.commit().await?;
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
            let after = self.after();
            let ended = tokio::select! {
                Some(ended) = self.calls.join_next() => Some(ended),
                task = self.tasks.next() => {
                    let drained = self.take_up(&task.keys).await;
                    task.answer(drained);
                    None
                }
                () = work.wait_for_events(&mut hint, &after) => None,
                () = tokio::time::sleep(work.options.poll), if work.handler.is_timed() => None,
                _ = stop.changed() => None,
            };
            if let Some(ended) = ended {
                self.ended(ended).await?;
            }
        }
    }

    /// The partitions of which more can be read, each with the position after which it begins.
    fn after(&self) -> Vec<(Partition, Position)> {
        let readers = self.readers.iter().enumerate();
        let room = |index| self.scheduler.held(index) < self.work.options.window_events_max;
        readers
            .filter(|(index, of)| of.end && of.stuck.is_none() && room(*index))
            .map(|(index, of)| (of.partition, self.scheduler.scanned(index)))
            .collect()
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
        self.commit().await.map(drop)
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
        let removed = page.removed.iter().min_by_key(|of| of.first);
        let lacks = removed
            .filter(|_| !work.options.skips_archived)
            .map(|removed| {
                let name = work.generation.spec.view.trim_start_matches('$');
                let ways = "`skip_to` a position after it, or do without with `skip_archived`";
                let error = not_read_before_removal(&format!("`{name}`"), removed, ways);
                (removed.first, error.to_string())
            });
        for record in page.events {
            let position = record.position;
            if lacks.as_ref().is_some_and(|(first, _)| position > *first) {
                break;
            }
            if let Err(reason) = self.take(index, record) {
                self.stop_before(index, position, reason);
                return Ok(true);
            }
        }
        if let Some((first, reason)) = lacks {
            self.stop_before(index, first, reason);
            return Ok(true);
        }
        self.scheduler.scanned_to(index, page.scanned);
        Ok(true)
    }

    /// Reads no further in a partition. What comes before that is settled all the same.
    fn stop_before(&mut self, index: usize, position: Position, reason: String) {
        self.readers[index].stuck = Some(reason);
        self.scheduler.scanned_to(index, position.minus(1));
    }

    /// Hands an event to the scheduler; why not, when its key is unknown.
    fn take(&mut self, index: usize, record: RecordedEvent) -> Result<(), String> {
        let work = self.work;
        let position = record.position;
        let partition = record.partition;
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
                    let partitions = work.context.log().partitions();
                    let of = match partitions {
                        1 => String::new(),
                        _ => format!(" of partition {partition}"),
                    };
                    format!(
                        "{}; its key is unknown, so nothing is called for later events. Repair \
                         the code that reads it, or skip the event at {position}{of} with `{}`",
                        chain(&error),
                        skip_call(partitions)
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

    pub(super) fn call(&mut self, about: About, call: Call) {
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
            Err(reason) => Outcome::Failed { reason, attempts },
        };
        self.scheduler
            .ended(job, outcome, work.context.clock().now());
        self.show_dead_letters();
        Ok(())
    }

    pub(super) fn show_dead_letters(&self) {
        let keys = self.scheduler.dead_keys() as u64;
        self.work.progress.dead_letter_keys(keys);
    }

    /// Writes what is settled, if anything is. A partition in which nothing moved is left alone.
    pub(super) async fn commit(&mut self) -> Result<bool, WorkError> {
        let work = self.work;
        let mut written = false;
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
            let mut commit = work.view_commit(self.held.lease(), reader.checkpoint, to);
            commit.dead_letters.clone_from(&settled.dead_letters);
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
            written = true;
        }
        Ok(written)
    }
}
