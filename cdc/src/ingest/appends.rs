//! The append that is in flight while what comes next is made, and what waits for its end: one at
//! a time, in order, each under the version that the one before it left.

use std::sync::Arc;

use annals_core::{Partition, Position, Store, Version};
use annals_runner::{CommittedStep, Slot, WorkError};
use chrono::{DateTime, Utc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::Placed;
use super::append::{Origin, append, archive_marks};
use super::chunk::bytes_of;
use super::handle::Shared;
use super::mark::{Mark, Resume, mark_stream};

/// Events, and bytes of their payloads, that wait for the end of an append before the next ones are
/// asked for.
const WAITING_EVENTS: usize = 4_000;
const WAITING_BYTES: usize = 2 << 20;

/// Events, and bytes of their payloads, of batches that become one.
const TOGETHER_EVENTS: usize = 8_000;
const TOGETHER_BYTES: usize = 8 << 20;

/// What goes into one append.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) events: Vec<Placed>,
    pub(super) mark: Mark,
    /// What is known of its events.
    pub(super) origin: Origin,
    /// What the source was known to, when it was given.
    pub(super) known_to: Option<DateTime<Utc>>,
}

/// A batch that waits.
struct Waiting {
    batch: Batch,
    bytes: usize,
}

impl Waiting {
    fn of(batch: Batch) -> Waiting {
        Waiting {
            bytes: bytes_of(&batch.events),
            batch,
        }
    }

    fn is_full(&self) -> bool {
        let is_large = self.batch.events.len() >= WAITING_EVENTS || self.bytes >= WAITING_BYTES;
        is_large || !self.batch.is_open()
    }

    /// Adds what comes after it; gives it back when it has to be an append of its own.
    fn add(&mut self, next: Waiting) -> Option<Waiting> {
        let events = self.batch.events.len() + next.batch.events.len();
        let are_open = self.batch.is_open() && next.batch.is_open();
        let is_room = events <= TOGETHER_EVENTS && self.bytes + next.bytes <= TOGETHER_BYTES;
        if !(are_open && is_room) {
            return Some(next);
        }
        self.bytes += next.bytes;
        self.batch.add(next.batch);
        None
    }
}

impl Batch {
    /// Whether it is whole transactions of the stream, to which others may be added.
    fn is_open(&self) -> bool {
        !self.origin.is_copied && self.mark.partial.is_none()
    }

    /// Adds what comes after it.
    fn add(&mut self, next: Batch) {
        let transactions = self.mark.transactions + next.mark.transactions;
        self.events.extend(next.events);
        self.origin.messages.extend(next.origin.messages);
        self.mark = next.mark;
        self.mark.transactions = transactions;
        self.known_to = self.known_to.max(next.known_to);
    }
}

/// An append whose answer is not there.
#[derive(Debug)]
struct InFlight {
    // It ends when this is dropped.
    task: JoinSet<Result<Option<Version>, WorkError>>,
    mark: Mark,
    known_to: Option<DateTime<Utc>>,
    began: Instant,
}

/// The appends of one run, in order.
pub(super) struct Appends<'a> {
    slot: &'a Slot,
    name: &'static str,
    store: Arc<dyn Store>,
    shared: &'a Shared,
    /// Of the marks, after the last append that was answered.
    version: Version,
    /// The mark of that append.
    last: Option<Mark>,
    in_flight: Option<InFlight>,
    waiting: Option<Waiting>,
    /// The marks of appends that were answered, of which the source was not told.
    answered: Vec<Mark>,
}

impl<'a> Appends<'a> {
    /// After this mark, which is of this version.
    pub(super) fn after(
        (version, last): (Version, Option<Mark>),
        slot: &'a Slot,
        name: &'static str,
        store: &Arc<dyn Store>,
        shared: &'a Shared,
    ) -> Appends<'a> {
        Appends {
            slot,
            name,
            store: Arc::clone(store),
            shared,
            version,
            last,
            in_flight: None,
            waiting: None,
            answered: Vec::new(),
        }
    }

    /// Whether everything was answered.
    pub(super) fn is_settled(&self) -> bool {
        self.in_flight.is_none()
    }

    /// Whether as much waits as may.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.as_ref().is_some_and(Waiting::is_full)
    }

    /// Appends this after everything before it. Returns before the answer is there.
    pub(super) async fn push(&mut self, batch: Batch) -> Result<(), WorkError> {
        let mut next = Waiting::of(batch);
        if let Some(waiting) = &mut self.waiting {
            match waiting.add(next) {
                Some(alone) => next = alone,
                None => return Ok(()),
            }
            // Then what waited is in flight.
            self.answer().await?;
        }
        self.waiting = Some(next);
        self.start_next()
    }

    /// Starts what waits, when nothing is in flight.
    fn start_next(&mut self) -> Result<(), WorkError> {
        if self.in_flight.is_some() {
            return Ok(());
        }
        let Some(Waiting { batch, .. }) = self.waiting.take() else {
            return Ok(());
        };
        let Batch {
            events,
            mut mark,
            origin,
            known_to,
        } = batch;
        mark.events = events.len() as u64;
        let stream = mark_stream(self.name)?;
        let (store, name) = (Arc::clone(&self.store), self.name);
        let (version, of_append) = (self.version, mark.clone());
        let last = self.last.clone();
        let appending = async move {
            let store = store.as_ref();
            let appended = append(
                store,
                (name, version),
                events,
                (&of_append, last.as_ref()),
                &origin,
            );
            let appended = appended.await?;
            if let Some(version) = appended {
                archive_marks(store, &stream, version).await;
            }
            Ok(appended)
        };
        let mut task = JoinSet::new();
        task.spawn(appending.in_current_span());
        self.in_flight = Some(InFlight {
            task,
            mark,
            known_to,
            began: Instant::now(),
        });
        Ok(())
    }

    /// Waits for the answer of what is in flight, and starts what waits. May be dropped.
    ///
    /// After an error nothing that waited is appended.
    pub(super) async fn answer(&mut self) -> Result<(), WorkError> {
        let Some(of) = &mut self.in_flight else {
            return Ok(());
        };
        let joined = of.task.join_next().await;
        let Some(of) = self.in_flight.take() else {
            return Ok(());
        };
        let appended = match joined {
            Some(Ok(appended)) => appended,
            Some(Err(ended)) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            _ => Err(WorkError::Restart),
        };
        let appended = appended.and_then(|version| {
            let found = "another process has written a mark";
            version.ok_or_else(|| self.slot.claim().fenced(found))
        });
        match appended {
            Ok(version) => self.version = version,
            Err(error) => {
                self.waiting = None;
                return Err(error);
            }
        }
        self.is_answered(of);
        self.start_next()
    }

    fn is_answered(&mut self, of: InFlight) {
        let mark = of.mark;
        let at = mark.resume.as_ref().and_then(Resume::lsn);
        self.shared.change(|status| {
            status.at = at.or(status.at);
            status.transactions += mark.transactions;
            status.events += mark.events;
        });
        self.shared.known_to(of.known_to);
        let taken = CommittedStep {
            events: mark.events,
            rows: 0,
            took: of.began.elapsed(),
            oldest: None,
        };
        let progress = &self.slot.progress;
        progress.settled_to(Partition(0), Position::START, taken);
        self.last = Some(mark.clone());
        self.answered.push(mark);
    }

    /// Waits until everything is answered.
    pub(super) async fn settle(&mut self) -> Result<(), WorkError> {
        while !self.is_settled() {
            self.answer().await?;
        }
        Ok(())
    }

    /// The marks of which the source is to be told, in order.
    pub(super) fn take_answered(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.answered)
    }
}
