//! The loop that keeps the tables of a generation up to date: read, hand over, commit, and again.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use annals_core::{
    Checkpoint, CommitError, Event, EventId, Filter, Generation, Keeps, OwnTables, Partition, Position, ReadLog,
    Recorded, StoreError, TableWork, ViewCommit,
};
use async_trait::async_trait;
use tokio::sync::watch;

use super::hook::Subject;
use super::{ConnectionOf, SqlProject, Tables};
use crate::left_out::LeftOut;
use crate::options::Options;
use crate::reactor::contained;
use crate::supervisor::{Following, Site};
use crate::worker::{Held, Post, Progress, SlotState, Taken, WorkError, chain, event_at, same_log, seen};

/// Events in one transaction: where it is open, others wait, and an event may take some statements.
const STEP_EVENTS: usize = 1_000;

/// Works on the tables of one generation.
pub(super) struct TableWorker<P: SqlProject> {
    pub(super) site: Site,
    pub(super) following: Following,
    pub(super) subject: Subject<P>,
    pub(super) generation: Generation,
    pub(super) progress: Progress,
}

/// A partition, where the tables stand in it, and how often the event behind that was tried.
struct Feed {
    partition: Partition,
    position: Position,
    attempts: u32,
}

/// An event that makes no sense, and why not.
#[derive(Debug)]
struct Stuck {
    position: Position,
    reason: String,
}

impl<P: SqlProject> TableWorker<P> {
    /// Works until it is told to stop, beginning anew after failures that may pass.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut anew = self.following.anew();
        let mut wait = self.site.options.back_off;
        while !*stop.borrow() {
            let settled = self.progress.settled();
            let ended = match self.hold_and_work(&mut stop, &mut anew).await {
                None => break,
                Some(WorkError::Anew) => continue,
                Some(ended) => ended,
            };
            let most = Options::BACK_OFF_MAX;
            wait = if self.progress.settled() == settled { (wait * 2).min(most) } else { self.site.options.back_off };
            let pause = match ended {
                WorkError::Stopped(reason) => {
                    tracing::error!(projection = P::NAME, reason, "the projection stopped");
                    self.progress.failed(SlotState::Stopped { reason });
                    // What stopped it may be mended from another process, which nobody here is told of.
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
        let (views, generation, owner) = (&self.site.views, &self.generation, &self.site.owner);
        let (lease, clock) = (self.site.options.lease, &**self.site.db.clock());
        let post = Post { views, generation, slot: 0, owner, lease, clock };
        let knows = *anew.borrow();
        let over = async {
            tokio::select! {
                _ = anew.changed() => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        };
        let look = || seen(&**self.site.db.store(), &post, filter::<P>(), &self.progress);
        let held = match Held::acquire(&post, &self.progress, look, over).await {
            Ok(Some(held)) => held,
            Ok(None) => return (!*stop.borrow()).then_some(WorkError::Anew),
            Err(error) => return Some(error),
        };
        self.progress.held_by(Some(owner), knows);
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

    async fn work(&self, held: &Held) -> Result<Infallible, WorkError> {
        let mut feeds = self.begin(held).await?;
        let left_out = LeftOut::of(self.site.views.verdicts(P::NAME).await?);
        let mut hint = self.site.db.store().hint();
        loop {
            hint.reset();
            let mut moved = false;
            for feed in &mut feeds {
                let before = feed.position;
                let stuck = self.step(held, feed, &left_out).await?;
                moved |= feed.position > before || stuck.is_some();
                if let Some(stuck) = stuck {
                    self.try_later(feed, before, stuck).await?;
                }
            }
            if !moved {
                self.progress.state(SlotState::Live);
                hint.wait(self.site.options.poll).await;
            }
        }
    }

    /// Where the tables stand. They are made first, when nobody did so yet.
    async fn begin(&self, held: &Held) -> Result<Vec<Feed>, WorkError> {
        let generation = self.generation.id;
        let checkpoints = self.site.views.checkpoints(generation).await?;
        if checkpoints.is_empty() {
            let step = ViewCommit::new(generation, held.lease(), Position::START, Checkpoint::start(0, Partition(0)));
            let made = self.subject.store.commit_with(step, self.subject.create(generation)).await;
            made.map_err(ended)?;
        }
        let mut feeds = Vec::new();
        for partition in (0..self.site.db.store().partitions()).map(Partition) {
            let checkpoint = checkpoints.iter().find(|of| of.partition == partition).cloned();
            let checkpoint = checkpoint.unwrap_or_else(|| Checkpoint::start(0, partition));
            same_log(&**self.site.db.store(), &self.generation, &checkpoint).await?;
            self.progress.reached(partition, checkpoint.position);
            feeds.push(Feed { partition, position: checkpoint.position, attempts: 0 });
        }
        Ok(feeds)
    }

    /// Takes a partition further, up to the first event that makes no sense.
    async fn step(&self, held: &Held, feed: &mut Feed, left_out: &LeftOut) -> Result<Option<Stuck>, WorkError> {
        let log = self.site.db.store();
        let limit = self.site.options.batch_events_max.min(STEP_EVENTS);
        let read = ReadLog::after(feed.position).partition(feed.partition).filter(filter::<P>()).limit(limit);
        let page = log.read(read).await?;
        self.progress.head(feed.partition, page.head.visible, page.events.first().map(|record| record.recorded_at));
        if page.scanned <= feed.position && page.events.is_empty() {
            return Ok(None);
        }
        if !page.end {
            self.progress.state(SlotState::CatchingUp);
        }
        let last = page.events.last().map(|last| (last.position, last.id));
        let (mut parts, mut unreadable) = (Vec::with_capacity(page.events.len()), None);
        for record in page.events {
            if left_out.is_whole(&record) {
                continue;
            }
            let (position, id) = (record.position, record.id);
            match Recorded::decode(record) {
                Ok(events) => parts.push(Part { position, id, events: events.into_iter().collect() }),
                Err(error) => {
                    unreadable = Some(Stuck { position, reason: chain(&error) });
                    break;
                }
            }
        }
        let up_to = unreadable.as_ref().map_or(page.scanned, |stuck| stuck.position.minus(1));
        let event = match last.filter(|(at, _)| *at == up_to) {
            Some((_, id)) => Some(id),
            None => event_at(&**log, feed.partition, up_to).await?,
        };
        let to = Checkpoint { position: up_to, event, ..Checkpoint::start(0, feed.partition) };
        let step = ViewCommit::new(self.generation.id, held.lease(), feed.position, to);
        let (events, stuck) = (parts.len() as u64, Arc::new(Mutex::new(None)));
        let (project, tables) = (Arc::clone(&self.subject.project), Tables::of(self.generation.id));
        let work = Batch::<P> { project, tables, parts, stuck: Arc::clone(&stuck) };
        let begun = Instant::now();
        self.subject.store.commit_with(step, Box::new(work)).await.map_err(ended)?;
        let stuck = stuck.lock().unwrap_or_else(PoisonError::into_inner).take().or(unreadable);
        let reached = stuck.as_ref().map_or(up_to, |stuck: &Stuck| stuck.position.minus(1));
        if reached > feed.position {
            feed.position = reached;
            let taken = Taken { events, rows: 0, took: begun.elapsed(), oldest: None };
            self.progress.settled_to(feed.partition, reached, taken);
            self.following.tell(&self.generation, feed.partition, reached, None);
        }
        Ok(stuck)
    }

    /// Waits before an event is tried again, or stops at it when it was tried often enough.
    async fn try_later(&self, feed: &mut Feed, before: Position, stuck: Stuck) -> Result<(), WorkError> {
        feed.attempts = if feed.position > before { 1 } else { feed.attempts + 1 };
        let options = &self.site.options;
        if feed.attempts < options.attempts {
            let wait = options.retry_after.saturating_mul(1 << (feed.attempts - 1).min(16));
            tokio::time::sleep(wait.min(Options::RETRY_AFTER_MAX)).await;
            return Ok(());
        }
        let (name, position, reason) = (P::NAME, stuck.position, stuck.reason);
        Err(WorkError::Stopped(format!(
            "the event at position {position} of partition {} makes no sense to `{name}`: {reason}. Nothing behind it is taken in, because nobody \
             knows what the tables would miss. Mend the projection or its tables, or leave the event out with `skip_event`",
            feed.partition
        )))
    }
}

/// What the log is read through.
fn filter<P: SqlProject>() -> Filter {
    Filter::default().types(P::Event::shapes().iter().map(|shape| shape.event_type))
}

/// What a refused step means for the worker.
fn ended(error: CommitError) -> WorkError {
    match error {
        CommitError::Store(error) => error.into(),
        error => WorkError::Again(error),
    }
}

/// An event of the log, read as one or several.
struct Part<E> {
    position: Position,
    id: EventId,
    events: Vec<Recorded<E>>,
}

/// The events of a step, handed over inside its transaction.
struct Batch<P: SqlProject> {
    project: Arc<P>,
    tables: Tables,
    parts: Vec<Part<P::Event>>,
    stuck: Arc<Mutex<Option<Stuck>>>,
}

impl<P: SqlProject> Batch<P> {
    /// Hands one event over; why not, when it makes no sense.
    async fn take(&self, connection: &mut ConnectionOf<P>, part: &Part<P::Event>) -> Result<(), String> {
        for event in &part.events {
            match contained(self.project.on(connection, &self.tables, event)).await {
                Ok(Ok(())) => {}
                Ok(Err(poison)) => return Err(poison.reason().into()),
                Err(panic) => return Err(panic),
            }
        }
        Ok(())
    }

    fn is_stuck(&self, stuck: Option<Stuck>) {
        *self.stuck.lock().unwrap_or_else(PoisonError::into_inner) = stuck;
    }
}

#[async_trait]
impl<P: SqlProject> TableWork<ConnectionOf<P>, ViewCommit> for Batch<P> {
    async fn run(&mut self, connection: &mut ConnectionOf<P>, step: &mut ViewCommit) -> Result<(), StoreError> {
        self.is_stuck(None);
        let mut before: Option<(Position, EventId)> = None;
        for part in &self.parts {
            P::Store::mark(connection).await?;
            match self.take(connection, part).await {
                Ok(()) => P::Store::keep(connection).await?,
                Err(reason) => {
                    P::Store::undo(connection).await?;
                    // What stands before it is taken in all the same.
                    step.to.position = part.position.minus(1);
                    step.to.event = before.filter(|(at, _)| *at == step.to.position).map(|(_, id)| id);
                    self.is_stuck(Some(Stuck { position: part.position, reason }));
                    return Ok(());
                }
            }
            before = Some((part.position, part.id));
        }
        Ok(())
    }
}

/// What a generation of these tables is made of.
pub(super) fn spec_of<P: SqlProject>(site: &Site) -> annals_core::GenerationSpec {
    let store = site.db.store();
    let mut spec = annals_core::GenerationSpec::new(P::NAME, P::VERSION, store.id());
    spec.handles = P::Event::shapes().iter().map(|shape| shape.event_type.to_owned()).collect();
    spec.handles.sort_unstable();
    spec.handles.dedup();
    spec.partitions = store.partitions();
    spec.keeps = Keeps::Present;
    spec
}
