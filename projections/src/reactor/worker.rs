//! The one loop that makes the calls of a reactor: read, call, commit, and again.
//!
//! Calls of one key follow one another, those of several keys go on at once, and each is settled on
//! its own. What is settled is written under the epoch of the lease; a call that was made and not
//! written is made again with the same idempotency key.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    Checkpoint, CommitError, DeadLetter, EventId, Filter, Metadata, PAGE_EVENTS, Partition,
    Position, ReadLog, RecordedEvent, RowChange, ViewCommit, with_metadata,
};
use annals_runner::{
    Backoff, CommittedStep, DeadLetterPages, HeldLease, Note, Progress, Slot, SlotState,
    WindowNote, Work, WorkError, chain, contained_async, event_at, same_log, settled_to,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::call::{Call, Handler};
use super::window::Window;
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

    fn name(&self) -> &str {
        self.progress.name()
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

    async fn work(&self, held: &HeldLease, stop: watch::Receiver<bool>) -> Result<(), WorkError> {
        ReactorSession::begin(self, held).await?.run(stop).await
    }
}

/// From the taking of the lease to its loss.
struct ReactorSession<'a> {
    work: &'a React,
    held: &'a HeldLease,
    readers: Vec<PartitionReader>,
    // Calls that wait for their turn, by key. The first one of a key that is busy is being made.
    lanes: HashMap<String, VecDeque<(usize, Call)>>,
    busy: HashMap<String, Instant>,
    // Keys whose first call waits for room.
    ready: VecDeque<String>,
    // Keys that wait for a person, and those of them that are tried again.
    dead_letters: HashSet<String>,
    retried: VecDeque<String>,
    skips: HashMap<(Partition, Position), EventId>,
    calls: JoinSet<CallOutcome>,
}

/// One partition, and where the worker stands in it.
struct PartitionReader {
    partition: Partition,
    checkpoint: Position,
    window: Window,
    end: bool,
    dirty: bool,
    // When events were recorded that are held.
    recorded: BTreeMap<Position, DateTime<Utc>>,
    settled_events: u64,
    rows: BTreeMap<String, RowChange>,
    // Set aside, and written as soon as the checkpoint comes there.
    aside: BTreeMap<Position, (DeadLetter, Call)>,
}

impl PartitionReader {
    /// When the first event behind a position was recorded, of those that are held.
    fn oldest_behind(&self, position: Position) -> Option<DateTime<Utc>> {
        self.recorded
            .range(position.next()..)
            .next()
            .map(|(_, recorded_at)| *recorded_at)
    }
}

/// Where a call comes from.
enum From {
    PartitionReader(usize),
    Aside(DeadLetter),
}

/// A call that has ended.
struct CallOutcome {
    from: From,
    call: Call,
    attempts: u32,
    outcome: Result<Vec<RowChange>, String>,
}

impl<'a> ReactorSession<'a> {
    async fn begin(work: &'a React, held: &'a HeldLease) -> Result<ReactorSession<'a>, WorkError> {
        let mut readers = Vec::new();
        let checkpoints = work.context.views.checkpoints(work.generation.id).await?;
        for partition in (0..work.context.log().partitions()).map(Partition) {
            let found = checkpoints
                .iter()
                .find(|checkpoint| checkpoint.partition == partition);
            let start = Checkpoint::start(0, partition);
            let checkpoint = found.unwrap_or(&start);
            same_log(&**work.context.log(), &work.generation, checkpoint).await?;
            let low = settled_to(checkpoint);
            work.progress.reached(partition, low);
            readers.push(PartitionReader {
                partition,
                checkpoint: checkpoint.position,
                window: Window::begin(low, Note::of(checkpoint)?.into_window().settled),
                end: false,
                dirty: false,
                recorded: BTreeMap::new(),
                settled_events: 0,
                rows: BTreeMap::new(),
                aside: BTreeMap::new(),
            });
        }
        let mut session = ReactorSession {
            work,
            held,
            readers,
            lanes: HashMap::new(),
            busy: HashMap::new(),
            ready: VecDeque::new(),
            dead_letters: HashSet::new(),
            retried: VecDeque::new(),
            skips: HashMap::new(),
            calls: JoinSet::new(),
        };
        session.read_decisions().await?;
        Ok(session)
    }

    /// What was set aside, and what operator said about it.
    async fn read_decisions(&mut self) -> Result<(), WorkError> {
        let work = self.work;
        let mut pages = DeadLetterPages::of(&*work.context.views, work.generation.id);
        loop {
            let page = pages.next().await?;
            if page.is_empty() {
                break;
            }
            for dead_letters in page {
                // The first event of a key that nobody says anything against is tried again.
                if self.dead_letters.insert(dead_letters.key.clone())
                    && dead_letters.cause.is_none()
                {
                    self.retried.push_back(dead_letters.key);
                }
            }
        }
        for skip_decision in work
            .context
            .views
            .skip_decisions(work.workers.stored_name())
            .await?
        {
            self.skips.insert(
                (skip_decision.partition, skip_decision.position),
                skip_decision.event,
            );
        }
        work.progress
            .dead_letter_keys(self.dead_letters.len() as u64);
        Ok(())
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), WorkError> {
        let work = self.work;
        let mut hint = work.context.log().hint();
        loop {
            hint.reset();
            work.handler
                .due(
                    &work.context.views,
                    &work.generation,
                    work.context.clock().now(),
                )
                .await?;
            self.retry().await?;
            let mut moved = false;
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
            if self.lanes.is_empty() && self.readers.iter().all(|reader| reader.end) {
                work.progress.state(SlotState::Live);
            }
            self.tell();
            let ended = tokio::select! {
                Some(ended) = self.calls.join_next() => Some(ended),
                () = hint.wait(work.options.poll) => None,
                _ = stop.wait_for(|stop| *stop) => None,
            };
            if let Some(ended) = ended {
                self.ended(ended).await?;
            }
        }
    }

    /// Tells those who look what is being done.
    fn tell(&self) {
        let progress = &self.work.progress;
        progress.calls(
            self.busy
                .values()
                .min()
                .map(|began| (self.busy.len(), *began)),
        );
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

    /// Reads as much of a partition as there is room for. `false`: there was nothing new.
    async fn read(&mut self, index: usize) -> Result<bool, WorkError> {
        let work = self.work;
        let reader = &self.readers[index];
        let room = work
            .options
            .window_events_max
            .saturating_sub(reader.window.len());
        if room == 0 {
            return Ok(false);
        }
        let partition = reader.partition;
        let from = reader.window.scanned();
        let read = ReadLog::after(from)
            .partition(partition)
            .filter(work.handler.filter())
            .limit(room.min(PAGE_EVENTS));
        let page = work.context.log().read(read).await?;
        for record in &page.events {
            self.readers[index]
                .recorded
                .insert(record.position, record.recorded_at);
        }
        work.progress.head(
            partition,
            page.head.visible,
            self.readers[index].oldest_behind(from),
        );
        self.readers[index].end = page.end;
        if page.scanned <= from && page.events.is_empty() {
            return Ok(false);
        }
        for record in page.events {
            self.take(index, record)?;
        }
        let reader = &mut self.readers[index];
        reader.window.scanned_to(page.scanned);
        reader.dirty = true;
        Ok(true)
    }

    /// Gives an event to its lane.
    fn take(&mut self, index: usize, record: RecordedEvent) -> Result<(), WorkError> {
        let work = self.work;
        let reader = &mut self.readers[index];
        let position = record.position;
        let id = record.id;
        if !reader.window.take(position) {
            return Ok(());
        }
        if self.skips.get(&(reader.partition, position)) == Some(&id) {
            reader.window.settle(position);
            return Ok(());
        }
        let prepared = work.handler.prepare(record).map_err(|error| {
            WorkError::Stopped(format!(
                "{}; nobody knows its key, so nothing behind it is called for. Mend the program \
                 that reads it, or leave the \
                 event at {position} out with `skip_event`",
                chain(&error)
            ))
        });
        let call = match prepared {
            Ok(Some(call)) => call,
            Ok(None) => {
                reader.window.settle(position);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if self.dead_letters.contains(&call.key) {
            let letter = dead_letter(work, &call, None, 0);
            reader.window.settle(position);
            reader.aside.insert(position, (letter, call));
            return Ok(());
        }
        self.queue(index, call);
        Ok(())
    }

    fn queue(&mut self, index: usize, call: Call) {
        let key = call.key.clone();
        let lane = self.lanes.entry(key.clone()).or_default();
        lane.push_back((index, call));
        if lane.len() == 1 && !self.busy.contains_key(&key) {
            self.ready.push_back(key);
        }
    }

    /// Begins calls, as many as there is room for.
    async fn start(&mut self) -> Result<(), WorkError> {
        let mut starting = Vec::new();
        while self.calls.len() + starting.len() < self.work.options.calls_max {
            let Some(key) = self.ready.pop_front() else {
                break;
            };
            let Some((index, call)) = self.lanes.get_mut(&key).and_then(VecDeque::pop_front) else {
                continue;
            };
            self.busy.insert(key, Instant::now());
            starting.push((index, call));
        }
        if self.work.options.at_most_once && !starting.is_empty() {
            // Written before it is done: whatever dies from here on, nobody does it again.
            for (index, call) in &starting {
                self.settled(*index, call.record.position, Vec::new());
            }
            self.commit().await?;
        }
        for (index, call) in starting {
            self.call(From::PartitionReader(index), call, 0);
        }
        Ok(())
    }

    fn call(&mut self, from: From, call: Call, attempts: u32) {
        let options = self.work.options.clone();
        let progress = self.work.progress.clone();
        self.calls
            .spawn(make(options, progress, from, call, attempts));
    }

    fn settled(&mut self, index: usize, position: Position, rows: Vec<RowChange>) {
        let reader = &mut self.readers[index];
        reader.window.settle(position);
        reader
            .rows
            .extend(rows.into_iter().map(|row| (row.key.clone(), row)));
        reader.settled_events += 1;
        reader.dirty = true;
    }

    async fn ended(
        &mut self,
        ended: Result<CallOutcome, tokio::task::JoinError>,
    ) -> Result<(), WorkError> {
        let CallOutcome {
            from,
            call,
            attempts,
            outcome,
        } = match ended {
            Ok(ended) => ended,
            // What is done about an event is contained, so only the end of the runtime ends up
            // here.
            Err(error) => {
                return Err(WorkError::Stopped(format!(
                    "a call was broken off: {error}"
                )));
            }
        };
        let work = self.work;
        let key = call.key.clone();
        let position = call.record.position;
        if let Err(error) = &outcome {
            tracing::warn!(reactor = work.name(), key, %position, attempts, error, "a call failed");
        }
        let index = match from {
            From::PartitionReader(index) => index,
            From::Aside(dead_letters) => {
                return self.aside_ended(dead_letters, attempts, outcome).await;
            }
        };
        self.busy.remove(&key);
        match outcome {
            // It was settled before it was made.
            _ if work.options.at_most_once => {}
            Ok(rows) => self.settled(index, position, rows),
            Err(cause) => {
                let letter = dead_letter(work, &call, Some(cause), attempts);
                self.readers[index].aside.insert(position, (letter, call));
                self.settled(index, position, Vec::new());
                self.dead_letters.insert(key.clone());
                for (index, call) in self.lanes.remove(&key).unwrap_or_default() {
                    let position = call.record.position;
                    let letter = dead_letter(work, &call, None, 0);
                    self.readers[index].aside.insert(position, (letter, call));
                    self.settled(index, position, Vec::new());
                }
                work.progress
                    .dead_letter_keys(self.dead_letters.len() as u64);
            }
        }
        match self.lanes.get(&key).map(VecDeque::is_empty) {
            Some(false) => self.ready.push_back(key),
            Some(true) => _ = self.lanes.remove(&key),
            None => {}
        }
        Ok(())
    }

    /// Writes what is settled. A partition in which nothing moved is left alone.
    async fn commit(&mut self) -> Result<(), WorkError> {
        let work = self.work;
        for reader in self.readers.iter_mut().filter(|reader| reader.dirty) {
            let low = reader.window.low();
            let later = reader.aside.split_off(&low.next());
            let park: Vec<_> = reader
                .aside
                .values()
                .map(|(dead_letters, _)| dead_letters.clone())
                .collect();
            // What is set aside above the checkpoint is not written yet, so it is not settled for
            // those who come after.
            let above = reader
                .window
                .settled_above()
                .filter(|position| !later.contains_key(position));
            let above = above.collect();
            // A checkpoint never goes back; what is done once more stands below it.
            let position = low.max(reader.checkpoint);
            let event = event_at(&**work.context.log(), reader.partition, position).await?;
            let state = Note::from(WindowNote::of(above, low, position)).to_state();
            let to = Checkpoint {
                slot: 0,
                partition: reader.partition,
                position,
                event,
                state,
            };
            let mut commit =
                ViewCommit::new(work.generation.id, self.held.lease(), reader.checkpoint, to);
            commit.park = park;
            commit.rows = reader.rows.values().cloned().collect();
            let rows = commit.rows.len();
            let from = reader.checkpoint.get();
            let span = tracing::debug_span!(
                "commit",
                projection = work.name(),
                slot = 0,
                partition = reader.partition.0,
                from,
                to = low.get()
            );
            let begun = Instant::now();
            work.context
                .views
                .commit_view(commit)
                .instrument(span)
                .await?;
            let took = begun.elapsed();
            reader.checkpoint = position;
            reader.aside = later;
            reader.rows.clear();
            reader.dirty = false;
            reader.recorded = reader.recorded.split_off(&low.next());
            let events = std::mem::take(&mut reader.settled_events);
            let oldest = reader.oldest_behind(low);
            work.progress.settled_to(
                reader.partition,
                low,
                CommittedStep {
                    events,
                    rows,
                    took,
                    oldest,
                },
            );
        }
        Ok(())
    }

    /// Begins with the first event of each key that is tried again.
    async fn retry(&mut self) -> Result<(), WorkError> {
        while self.calls.len() < self.work.options.calls_max {
            let Some(key) = self.retried.pop_front() else {
                break;
            };
            self.retry_next(key).await?;
        }
        Ok(())
    }

    /// Tries the next event of a key that was set aside. When none is left the key goes on as the
    /// others do.
    async fn retry_next(&mut self, key: String) -> Result<(), WorkError> {
        let work = self.work;
        // What is still to be written as set aside is written first, where the checkpoint is there
        // already.
        self.commit().await?;
        loop {
            let first = first_dead_letter(work, &key).await?;
            let Some(dead_letters) = first else { break };
            let skips = self
                .skips
                .get(&(dead_letters.partition, dead_letters.position))
                == Some(&dead_letters.event);
            let read = ReadLog::after(dead_letters.position.minus(1))
                .up_to(dead_letters.position)
                .partition(dead_letters.partition);
            let record = work
                .context
                .log()
                .read(read.limit(1))
                .await?
                .events
                .into_iter()
                .next();
            let prepared = match record {
                Some(record) if !skips => work.handler.prepare(record),
                _ => Ok(None),
            };
            match prepared {
                Ok(Some(call)) => {
                    self.call(From::Aside(dead_letters), call, 0);
                    return Ok(());
                }
                // It is not there any more, or means nothing.
                Ok(None) => self.unpark(dead_letters, Vec::new()).await?,
                Err(error) => return self.aside_ended(dead_letters, 1, Err(chain(&error))).await,
            }
        }
        // Nothing of it is written as set aside, and what would be is called for now.
        self.dead_letters.remove(&key);
        for index in 0..self.readers.len() {
            let reader = &mut self.readers[index];
            let (of_key, others) = std::mem::take(&mut reader.aside)
                .into_iter()
                .partition(|(_, (of, _))| of.key == key);
            let of_key: BTreeMap<Position, (DeadLetter, Call)> = of_key;
            reader.aside = others;
            for (position, (_, call)) in of_key {
                self.readers[index].window.unsettle(position);
                self.readers[index].dirty = true;
                self.queue(index, call);
            }
        }
        work.progress
            .dead_letter_keys(self.dead_letters.len() as u64);
        Ok(())
    }

    async fn aside_ended(
        &mut self,
        dead_letters: DeadLetter,
        attempts: u32,
        outcome: Result<Vec<RowChange>, String>,
    ) -> Result<(), WorkError> {
        match outcome {
            Ok(rows) => {
                self.retried.push_front(dead_letters.key.clone());
                self.unpark(dead_letters, rows).await
            }
            Err(cause) => {
                let attempts = dead_letters.attempts + attempts;
                self.change_aside(dead_letters.partition, |commit| {
                    commit.park.push(DeadLetter {
                        cause: Some(cause),
                        attempts,
                        ..dead_letters
                    });
                })
                .await
            }
        }
    }

    async fn unpark(
        &mut self,
        dead_letters: DeadLetter,
        rows: Vec<RowChange>,
    ) -> Result<(), WorkError> {
        self.change_aside(dead_letters.partition, |commit| {
            commit
                .unpark
                .push((dead_letters.key, dead_letters.position));
            commit.rows = rows;
        })
        .await
    }

    /// Writes something about what is set aside, without a step.
    async fn change_aside(
        &mut self,
        partition: Partition,
        change: impl FnOnce(&mut ViewCommit) + Send,
    ) -> Result<(), WorkError> {
        self.commit().await?;
        let work = self.work;
        let commit = unmoved(work, self.held, partition, change).await?;
        Ok(work.context.views.commit_view(commit).await?)
    }
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

fn dead_letter(work: &React, call: &Call, cause: Option<String>, attempts: u32) -> DeadLetter {
    let record = &call.record;
    DeadLetter {
        key: call.key.clone(),
        partition: record.partition,
        position: record.position,
        event: record.id,
        cause,
        attempts,
        dead_since: work.context.clock().now(),
    }
}

/// Makes a call until it succeeds or there is no use in trying again.
async fn make(
    options: ReactorOptions,
    progress: Progress,
    from: From,
    call: Call,
    before: u32,
) -> CallOutcome {
    let mut attempts = before;
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
        let made = with_metadata(metadata.clone(), made).instrument(span).await;
        progress.called(matches!(made, Ok(Ok(_))), begun.elapsed());
        let cause = match made {
            Ok(Ok(rows)) => break Ok(rows),
            Ok(Err(ReactError::Permanent(cause))) | Err(cause) => break Err(cause),
            Ok(Err(ReactError::Retry(cause))) => cause,
        };
        if options.at_most_once || attempts >= options.attempts {
            break Err(cause);
        }
        tokio::time::sleep(backoff.next_wait()).await;
    };
    CallOutcome {
        from,
        call,
        attempts,
        outcome,
    }
}
