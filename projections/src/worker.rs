//! The one loop that keeps a slot of a generation up to date: read, fold, commit, and again.
//!
//! Rows, history, what is set aside and the checkpoint change in one transaction, under the epoch of the slot's lease. So the
//! effect is exactly once, whatever dies when: a worker that was paused for too long is refused, and the next one goes on at the
//! checkpoint.

mod drain;
mod held;
mod progress;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::{
    Checkpoint, CommitError, EventId, Failure, Generation, Keeps, LogPage, Parked, Partition, Position, ReadLog,
    ReadRows, RowChange, RowsBy, Store, StoreError, ViewCommit,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) use drain::Emptied;
pub(crate) use held::{Held, Post};
pub(crate) use progress::Progress;
pub use progress::{SlotProgress, SlotState};

use crate::key::slot_of;
use crate::left_out::LeftOut;
use crate::options::Options;
use crate::place::Place;
use crate::rows::{Changes, Rows, Unwritable, of_slot};
use crate::step::{Handlers, Step, StepError};
use crate::supervisor::Following;
use crate::view::View;

/// Keys looked up at once.
const LOOKUP_KEYS: usize = 5_000;

/// Why a worker does not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    /// Somebody else works on the slot, or the store did not answer: begin anew.
    #[error(transparent)]
    Again(#[from] CommitError),
    /// What it knows may not hold any more: begin anew, at once.
    #[error("people have decided something")]
    Anew,
    /// A person must look.
    #[error("{0}")]
    Stopped(String),
}

impl From<StoreError> for WorkError {
    fn from(error: StoreError) -> WorkError {
        match error.failure() {
            Failure::Unavailable | Failure::Full => WorkError::Again(CommitError::Store(error)),
            _ => WorkError::Stopped(chain(&error)),
        }
    }
}

impl WorkError {
    /// For those who cannot begin anew.
    pub(crate) fn into_store(self) -> StoreError {
        match self {
            WorkError::Again(CommitError::Store(error)) => error,
            WorkError::Stopped(reason) => StoreError::new(Failure::Invalid, reason),
            error => StoreError::new(Failure::Unavailable, chain(&error)),
        }
    }
}

impl From<Unwritable> for WorkError {
    fn from(error: Unwritable) -> WorkError {
        WorkError::Stopped(chain(&error))
    }
}

impl From<StepError> for WorkError {
    fn from(error: StepError) -> WorkError {
        WorkError::Stopped(chain(&error))
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        said = format!("{said}: {cause}");
        source = cause.source();
    }
    said
}

/// What a worker works on and with.
pub(crate) struct Work<V: View> {
    pub(crate) log: Arc<dyn Store>,
    pub(crate) views: Place,
    pub(crate) clock: Arc<dyn annals_core::Clock>,
    pub(crate) generation: Generation,
    pub(crate) slot: u16,
    pub(crate) owner: String,
    pub(crate) handlers: Arc<Handlers<V>>,
    pub(crate) options: Options,
    pub(crate) progress: Progress,
    pub(crate) following: Following,
}

impl<V: View> Work<V> {
    /// Works until it is told to stop. Begins anew after a failure that may pass, and stops by itself when a person must look.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut wait = self.options.back_off;
        let mut anew = self.following.anew();
        let mut said = None;
        while !*stop.borrow() {
            let settled = self.progress.settled();
            let Some(ended) = self.hold_and_work(&mut stop, &mut anew).await else { break };
            match ended {
                WorkError::Stopped(reason) => {
                    if said.as_ref() != Some(&reason) {
                        tracing::error!(view = V::NAME, slot = self.slot, reason, "the projection stopped");
                    }
                    self.progress.state(SlotState::Stopped { reason: reason.clone() });
                    said = Some(reason);
                    // What stopped it may be mended from another process, which nobody here is told of.
                    tokio::select! {
                        () = tokio::time::sleep(Options::BACK_OFF_MAX) => {}
                        _ = anew.changed() => {}
                        _ = stop.wait_for(|stop| *stop) => break,
                    }
                    continue;
                }
                WorkError::Anew => continue,
                WorkError::Again(error) => {
                    let error = chain(&error);
                    tracing::warn!(view = V::NAME, slot = self.slot, error, "the projection begins anew");
                    self.progress.state(SlotState::Waiting { reason: error });
                }
            }
            // Something was settled in between: the trouble is a new one.
            wait = if self.progress.settled() == settled {
                (wait * 2).min(Options::BACK_OFF_MAX)
            } else {
                self.options.back_off
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
    }

    /// Works under the lease of the slot until something ends it; nothing when it was told to stop. What was begun is dropped
    /// then: it is done as a whole or not at all.
    async fn hold_and_work(
        &self,
        stop: &mut watch::Receiver<bool>,
        anew: &mut watch::Receiver<u64>,
    ) -> Option<WorkError> {
        let post = self.post();
        let held = tokio::select! {
            held = Held::acquire(&post, &self.progress) => held,
            // Somebody had the slot for a moment and gave it back.
            _ = anew.changed() => return Some(WorkError::Anew),
            _ = stop.wait_for(|stop| *stop) => return None,
        };
        let held = match held {
            Ok(held) => held,
            Err(error) => return Some(error),
        };
        let ended = tokio::select! {
            error = self.work(&held) => Some(error),
            _ = anew.changed() => Some(WorkError::Anew),
            () = held.lost() => Some(WorkError::Again(self.fenced("the lease was lost"))),
            _ = stop.wait_for(|stop| *stop) => None,
        };
        held.release().await;
        ended
    }

    /// Tells those who watch.
    fn tell(&self, partition: Partition, position: Position, rows: Option<Vec<RowChange>>) {
        self.following.tell(&self.generation, partition, position, rows);
    }

    fn post(&self) -> Post<'_> {
        let (views, generation, owner) = (&self.views, &self.generation, &self.owner);
        Post { views, generation, slot: self.slot, owner, lease: self.options.lease }
    }

    fn fenced(&self, found: &str) -> CommitError {
        CommitError::Fenced { generation: self.generation.id, slot: self.slot, found: found.into() }
    }

    /// Follows the log until something is wrong.
    async fn work(&self, held: &Held) -> WorkError {
        let mut shift = match Shift::begin(self, held).await {
            Ok(shift) => shift,
            Err(error) => return error,
        };
        let mut hint = self.log.hint();
        loop {
            hint.reset();
            if let Err(error) = shift.look_after().await {
                return error;
            }
            let mut moved = false;
            for index in 0..shift.feeds.len() {
                match shift.step(index).await {
                    Ok(stepped) => moved |= stepped,
                    Err(error) => return error,
                }
            }
            if !moved {
                self.progress.state(SlotState::Live);
                hint.wait(self.options.poll).await;
            }
        }
    }
}

/// From the taking of a lease to its loss.
struct Shift<'a, V: View> {
    work: &'a Work<V>,
    held: &'a Held,
    feeds: Vec<Feed>,
    rows: Rows<V>,
    parked: HashSet<String>,
    parked_events: usize,
    /// Keys that are tried again by themselves, and when.
    retries: BTreeMap<String, DateTime<Utc>>,
    /// When the past is forgotten next.
    forget_at: DateTime<Utc>,
    left_out: LeftOut,
}

/// One partition, and where the slot stands in it.
struct Feed {
    partition: Partition,
    position: Position,
    event: Option<EventId>,
    ahead: Option<JoinHandle<Result<LogPage, StoreError>>>,
}

impl<'a, V: View> Shift<'a, V> {
    async fn begin(work: &'a Work<V>, held: &'a Held) -> Result<Shift<'a, V>, WorkError> {
        let mut feeds = Vec::new();
        let checkpoints = work.views.checkpoints(work.generation.id).await?;
        for partition in (0..work.log.partitions()).map(Partition) {
            let found =
                checkpoints.iter().find(|checkpoint| checkpoint.slot == work.slot && checkpoint.partition == partition);
            let start = Checkpoint::start(work.slot, partition);
            let checkpoint = found.unwrap_or(&start);
            same_log(&*work.log, &work.generation, checkpoint).await?;
            work.progress.reached(partition, checkpoint.position);
            // Somebody else may have changed rows since this process worked here last.
            work.tell(partition, checkpoint.position, None);
            feeds.push(Feed { partition, position: checkpoint.position, event: checkpoint.event, ahead: None });
        }
        let mut shift = Shift {
            work,
            held,
            feeds,
            rows: Rows::keeping(work.options.rows_kept_max),
            parked: HashSet::new(),
            parked_events: 0,
            retries: BTreeMap::new(),
            forget_at: work.clock.now(),
            left_out: LeftOut::of(work.views.verdicts(V::NAME).await?),
        };
        shift.read_parked().await?;
        Ok(shift)
    }

    /// What was set aside.
    async fn read_parked(&mut self) -> Result<(), WorkError> {
        let work = self.work;
        let slots = work.generation.spec.slots;
        let mut after: Option<(String, Partition, Position)> = None;
        loop {
            let place = after.as_ref().map(|(key, partition, position)| (key.as_str(), *partition, *position));
            let page = work.views.parked(work.generation.id, place, annals_core::PAGE_EVENTS).await?;
            let Some(last) = page.last() else { break };
            after = Some((last.key.clone(), last.partition, last.position));
            for parked in page.into_iter().filter(|parked| slot_of(&parked.key, slots) == work.slot) {
                self.parked_events += 1;
                self.retry_later(&parked);
                self.parked.insert(parked.key);
            }
        }
        work.progress.parked_keys(self.parked.len() as u64);
        Ok(())
    }

    /// Takes one partition a batch further. `false`: there was nothing new.
    async fn step(&mut self, index: usize) -> Result<bool, WorkError> {
        let work = self.work;
        let begun = self.feeds[index].position;
        let mut steps = Vec::new();
        let (mut bytes, mut stuck) = (0, None);
        loop {
            let feed = &mut self.feeds[index];
            let page = feed.next_page(work).await?;
            work.progress.head(feed.partition, page.head.visible);
            let more = !page.end;
            if feed.position >= page.scanned && page.events.is_empty() {
                break;
            }
            feed.position = page.scanned;
            feed.event = match page.events.last() {
                Some(last) if last.position == page.scanned => Some(last.id),
                // The last one was filtered out; it is looked up before the commit.
                _ => None,
            };
            if more {
                feed.read_ahead(work);
            }
            for record in page.events {
                bytes += record.payload.len();
                let position = record.position;
                match self.left_out.prepare(&work.handlers, record) {
                    Ok(prepared) => steps.extend(of_slot(prepared, work.slot, work.generation.spec.slots)),
                    Err(error) => {
                        // What stands before it is settled all the same.
                        (feed.position, feed.event, feed.ahead) = (position.minus(1), None, None);
                        stuck = Some(error);
                        break;
                    }
                }
            }
            let full = steps.len() >= work.options.batch_events_max || bytes >= work.options.batch_bytes_max;
            if !more || full || stuck.is_some() {
                break;
            }
            work.progress.state(SlotState::CatchingUp);
        }
        let moved = self.feeds[index].position > begun;
        if moved {
            self.commit(index, begun, &steps).await?;
        }
        match stuck {
            Some(error) => Err(WorkError::Stopped(self.stuck(index, &error))),
            None => Ok(moved),
        }
    }

    /// Why an event that cannot be given to a key stops the projection, and what to do.
    fn stuck(&self, index: usize, error: &StepError) -> String {
        let feed = &self.feeds[index];
        let (view, at) = (V::NAME, feed.position.next());
        let partition = if self.feeds.len() > 1 { format!(" of partition {}", feed.partition) } else { String::new() };
        format!(
            "{}; nobody knows which rows it changes, so nothing behind it is folded. Mend the program that reads it, or leave \
             the event at {at}{partition} out of view `{view}` with `skip_event`",
            chain(error)
        )
    }

    async fn commit(&mut self, index: usize, begun: Position, steps: &[Step<V>]) -> Result<(), WorkError> {
        let work = self.work;
        self.fetch(steps).await?;
        let feed = &mut self.feeds[index];
        let (partition, up_to) = (feed.partition, feed.position);
        if feed.event.is_none() {
            feed.event = event_at(&*work.log, partition, up_to).await?;
        }
        let to =
            Checkpoint { slot: work.slot, partition, position: up_to, event: feed.event, state: bytes::Bytes::new() };
        let Changes { rows, versions, touched, park } = self.rows.fold(steps, &mut self.parked, work.clock.now())?;
        self.room_for(park.len())?;
        let mut commit = ViewCommit::new(work.generation.id, self.held.lease(), begun, to);
        (commit.rows, commit.versions, commit.touched, commit.park) = (rows, versions, touched, park);
        let (rows, park) = (commit.rows.clone(), commit.park.clone());
        work.views.commit_view(commit).await?;
        self.parked_events += park.len();
        park.iter().for_each(|parked| self.retry_later(parked));
        work.tell(partition, up_to, Some(rows));
        self.rows.trim();
        work.progress.settled_to(partition, up_to, steps.len() as u64);
        work.progress.parked_keys(self.parked.len() as u64);
        Ok(())
    }

    /// Refuses to set aside more than can be looked after.
    fn room_for(&self, events: usize) -> Result<(), WorkError> {
        let (aside, most) = (self.parked_events + events, self.work.options.parked_max);
        if aside <= most {
            return Ok(());
        }
        let (view, slot) = (V::NAME, self.work.slot);
        Err(WorkError::Stopped(format!(
            "{aside} events of view `{view}` would be set aside in slot {slot}, at most {most} are allowed; nothing was changed. Mend the fold \
             and retry the keys that wait, skip or discard what they wait for, or raise `parked_max`"
        )))
    }

    /// Notes when a key that waits is tried again by itself, if it is.
    fn retry_later(&mut self, parked: &Parked) {
        let options = &self.work.options;
        if parked.cause.is_none() || parked.attempts >= options.attempts {
            return;
        }
        let wait = options.retry_after.saturating_mul(1 << parked.attempts.saturating_sub(1).min(16));
        let wait = TimeDelta::from_std(wait.min(Options::RETRY_AFTER_MAX)).unwrap_or(TimeDelta::hours(1));
        self.retries.insert(parked.key.clone(), self.work.clock.now() + wait);
    }

    /// What is done now and then.
    async fn look_after(&mut self) -> Result<(), WorkError> {
        self.retry_due().await?;
        self.forget_old().await
    }

    /// Forgets the past that is older than is kept. One slot does so for all.
    async fn forget_old(&mut self) -> Result<(), WorkError> {
        let (work, now) = (self.work, self.work.clock.now());
        let Some(age) = work.options.history_for.filter(|_| V::KEEPS != Keeps::Present && work.slot == 0) else {
            return Ok(());
        };
        let (Ok(age), true) = (TimeDelta::from_std(age), now >= self.forget_at) else { return Ok(()) };
        self.forget_at = now + (age / 16).clamp(TimeDelta::seconds(1), TimeDelta::hours(1));
        let partition = self.feeds[0].partition;
        let Some(oldest) = now.checked_sub_signed(age) else { return Ok(()) };
        let since = work.log.position_at(partition, oldest).await?.min(self.feeds[0].position);
        if since > Position::START {
            work.views.forget_history(work.generation.id, since).await?;
        }
        Ok(())
    }

    /// Tries the keys again whose time has come.
    async fn retry_due(&mut self) -> Result<(), WorkError> {
        if self.retries.is_empty() {
            return Ok(());
        }
        let (work, now) = (self.work, self.work.clock.now());
        let due: Vec<String> =
            self.retries.iter().filter(|(_, due)| **due <= now).map(|(key, _)| key.clone()).collect();
        for key in due {
            self.retries.remove(&key);
            self.rows.forget(&key);
            let emptied = work.empty(self.held.lease(), &key, &self.left_out).await?;
            self.parked_events = self.parked_events.saturating_sub(emptied.settled as usize);
            match emptied.still {
                Some(still) => self.retry_later(&still),
                None => _ = self.parked.remove(&key),
            }
        }
        work.progress.parked_keys(self.parked.len() as u64);
        Ok(())
    }

    /// Brings the rows to hand that a batch needs.
    async fn fetch(&mut self, steps: &[Step<V>]) -> Result<(), WorkError> {
        let missing = self.rows.missing(steps);
        for keys in missing.chunks(LOOKUP_KEYS) {
            let read = ReadRows::of(self.work.generation.id, RowsBy::Keys(keys.to_vec())).limit(keys.len());
            let page = self.work.views.read_rows(read).await?;
            let mut found: HashMap<_, _> = page.rows.into_iter().map(|row| (row.key, row.value)).collect();
            for key in keys {
                self.rows.learn(key.clone(), found.remove(key))?;
            }
        }
        Ok(())
    }
}

impl Feed {
    fn request<V: View>(&self, work: &Work<V>) -> ReadLog {
        let limit = work.options.batch_events_max.min(4_096);
        ReadLog::after(self.position).partition(self.partition).filter(work.handlers.filter()).limit(limit)
    }

    fn read_ahead<V: View>(&mut self, work: &Work<V>) {
        let (log, read) = (Arc::clone(&work.log), self.request(work));
        self.ahead = Some(tokio::spawn(async move { log.read(read).await }));
    }

    async fn next_page<V: View>(&mut self, work: &Work<V>) -> Result<LogPage, StoreError> {
        match self.ahead.take() {
            None => work.log.read(self.request(work)).await,
            Some(ahead) => ahead.await.unwrap_or_else(|error| {
                Err(StoreError::new(Failure::Unavailable, "a read of the log was broken off").because(error))
            }),
        }
    }
}

/// The event at a position, if it is there.
pub(crate) async fn event_at(
    log: &dyn Store,
    partition: Partition,
    position: Position,
) -> Result<Option<EventId>, StoreError> {
    if position == Position::START {
        return Ok(None);
    }
    let read = ReadLog::after(position.minus(1)).up_to(position).partition(partition).limit(1);
    Ok(log.read(read).await?.events.first().map(|event| event.id))
}

/// Whether the log is the one that the checkpoint speaks of: a restored, swapped or rewound one is noticed here.
pub(crate) async fn same_log(
    log: &dyn Store,
    generation: &Generation,
    checkpoint: &Checkpoint,
) -> Result<(), WorkError> {
    let (view, spec) = (&generation.spec.view, &generation.spec);
    let stop = |what: String| {
        Err(WorkError::Stopped(format!(
            "{what}; nothing was changed. If this is the log that is meant to be read, rebuild the view `{view}`; if not, open the right one"
        )))
    };
    if spec.log != log.id() {
        return stop(format!(
            "generation {} was folded from the log {}, this is {}",
            generation.id,
            spec.log,
            log.id()
        ));
    }
    let (partition, position) = (checkpoint.partition, checkpoint.position);
    let head = log.head(partition).await?.visible;
    if head < position {
        return stop(format!(
            "the log ends at {head} and the view has seen {position}: the log was restored or rewound"
        ));
    }
    let found = event_at(log, partition, position).await?;
    if checkpoint.event.is_some() && found.is_some() && found != checkpoint.event {
        return stop(format!(
            "the event at {position} is not the one that the view has seen there: the log was restored and went on"
        ));
    }
    Ok(())
}
