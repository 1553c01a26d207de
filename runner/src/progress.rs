//! How far a slot has come and what it is busy with, for readers that wait for it and for the
//! status.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::{Clock, Generation, Incarnation, Partition, Position, Token};
use serde::Serialize;
use tokio::sync::watch;

use crate::busy::{Activity, Busy};
use crate::kind::Kind;
use crate::metrics::Meter;
use crate::rate::Rate;
use crate::status::EventTime;

#[cfg(test)]
mod tests;

/// What a slot is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
#[non_exhaustive]
pub enum SlotState {
    /// It has not begun.
    #[default]
    Starting,
    /// Another worker has it, in this process or another one.
    Elsewhere {
        /// The owner of its lease.
        owner: String,
        /// When that lease ends, unless it is renewed; by the clock of the store that keeps it.
        until: DateTime<Utc>,
    },
    /// It waits before it tries again.
    Waiting {
        /// What went wrong.
        reason: String,
    },
    /// It folds what it has not seen yet.
    CatchingUp,
    /// It is at the head and follows.
    Live,
    /// It needs an operator before it goes on.
    Stopped {
        /// Why, and what to do.
        reason: String,
    },
}

/// The last thing that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LastError {
    /// When, by the program's clock.
    pub at: DateTime<Utc>,
    /// What.
    pub error: String,
}

/// How far a slot has come.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SlotProgress {
    /// What it is doing.
    pub state: SlotState,
    /// The owner of its lease, when it is this process.
    pub owner: Option<String>,
    /// Up to where everything is settled, by partition.
    pub reached: BTreeMap<Partition, Position>,
    /// How far the log went when it was last read, by partition.
    pub head: BTreeMap<Partition, Position>,
    /// When the oldest event was recorded that is known to be unsettled, by partition.
    pub unsettled: BTreeMap<Partition, DateTime<Utc>>,
    /// Events settled since the worker started.
    pub settled_events: u64,
    /// Keys in dead letters, as its worker here knew last.
    pub dead_letter_keys: u64,
    // Of which incarnation of the log all of this is known.
    incarnation: Option<Incarnation>,
    // Whether the worker that holds the slot has read which keys these are.
    knows_dead_letters: bool,
    /// Rows that its worker keeps in memory.
    pub rows_at_hand: u64,
    /// Their bytes, as they are stored.
    pub bytes_at_hand: u64,
    pub(crate) commits: Commits,
    pub(crate) rate: Rate,
    pub(crate) busy: Busy,
    /// Calls of a reactor that are being made, and since when the one that takes longest.
    pub calls: Option<(usize, Instant)>,
    /// What went wrong last.
    pub last_error: Option<LastError>,
    /// Whether it was at the head once.
    pub was_live: bool,
    /// Decisions of operators that the worker knew when it took its lease.
    pub decisions_seen: u64,
    /// How far event time has come, where that is followed.
    pub event_time: Option<EventTime>,
    /// The one partition that it reads, if it does not read all.
    only: Option<Partition>,
    /// What times are counted from.
    since: Instant,
}

/// How long commits took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commits {
    pub(crate) count: u64,
    pub(crate) recent: VecDeque<Duration>,
}

/// Commits whose durations are kept.
const RECENT_COMMITS: usize = 128;

impl SlotProgress {
    pub(crate) fn new() -> SlotProgress {
        SlotProgress {
            state: SlotState::default(),
            owner: None,
            reached: BTreeMap::new(),
            head: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            settled_events: 0,
            dead_letter_keys: 0,
            incarnation: None,
            knows_dead_letters: false,
            rows_at_hand: 0,
            bytes_at_hand: 0,
            commits: Commits::default(),
            rate: Rate::default(),
            busy: Busy::default(),
            calls: None,
            last_error: None,
            was_live: false,
            decisions_seen: 0,
            event_time: None,
            only: None,
            since: Instant::now(),
        }
    }

    /// Of a slot of a generation.
    fn of_slot(generation: &Generation, slot: u16) -> SlotProgress {
        let by_partition = generation.spec.is_by_partition();
        SlotProgress {
            only: by_partition.then_some(Partition(slot.into())),
            ..SlotProgress::new()
        }
    }

    fn reads(&self, partition: Partition) -> bool {
        self.only.is_none_or(|only| only == partition)
    }

    /// Waits where the log is not read on, unless something else holds it: what it has settled is
    /// not all that there is.
    pub(crate) fn stalls(&mut self, stalled: &BTreeMap<Partition, String>) {
        if !matches!(self.state, SlotState::Live | SlotState::CatchingUp) {
            return;
        }
        let mut read = stalled.iter().filter(|(of, _)| self.reads(**of));
        if let Some((partition, why)) = read.next() {
            let reason = format!("partition {partition} of the log is not read on: {why}");
            self.state = SlotState::Waiting { reason };
        }
    }

    /// Up to where everything is settled in a partition.
    pub fn reached_in(&self, partition: Partition) -> Position {
        self.reached.get(&partition).copied().unwrap_or_default()
    }

    /// Whether everything up to a token is settled.
    pub fn has_reached(&self, token: &Token) -> bool {
        token.positions().all(|(partition, position)| {
            !self.reads(partition) || self.reached_in(partition) >= position
        })
    }

    /// Whether a worker of this process holds the slot in this incarnation of the log.
    pub(crate) fn works_in(&self, incarnation: Incarnation) -> bool {
        self.owner.is_some() && self.incarnation == Some(incarnation)
    }

    /// Whether its worker in this process has settled all up to a token of this incarnation of the
    /// log, and knows of no dead letters.
    pub fn is_without_dead_letters(&self, token: &Token, incarnation: Incarnation) -> bool {
        let knows_of_none = self.knows_dead_letters && self.dead_letter_keys == 0;
        self.works_in(incarnation) && knows_of_none && self.has_reached(token)
    }

    /// Events between what is settled and the head, over all partitions.
    pub fn lag_events(&self) -> u64 {
        self.head
            .iter()
            .map(|(partition, head)| head.get().saturating_sub(self.reached_in(*partition).get()))
            .sum()
    }

    /// Events of the log that are passed in a second, over all partitions.
    pub(crate) fn events_per_second(&self) -> Option<f64> {
        self.rate.per_second(self.since.elapsed())
    }

    /// The part of the last seconds, from 0 to 1, that went into each activity.
    pub(crate) fn shares(&self) -> [f64; Activity::ALL.len()] {
        self.busy.shares(self.since)
    }
}

impl Commits {
    fn add(&mut self, took: Duration) {
        self.count += 1;
        if self.recent.len() == RECENT_COMMITS {
            self.recent.pop_front();
        }
        self.recent.push_back(took);
    }
}

/// A transaction that was committed.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::exhaustive_structs)]
pub struct CommittedStep {
    /// Events that are settled by it.
    pub events: u64,
    /// Rows that it wrote or removed.
    pub rows: usize,
    /// How long it took.
    pub took: Duration,
    /// When the oldest event was recorded that was read and is not settled by it.
    pub oldest: Option<DateTime<Utc>>,
}

/// Where a worker writes how far it has come. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Progress {
    sender: Arc<watch::Sender<SlotProgress>>,
    meter: Arc<Meter>,
    name: Arc<str>,
    clock: Arc<dyn Clock>,
}

impl Progress {
    /// Of a slot of a generation.
    pub fn of(kind: Kind, generation: &Generation, slot: u16, clock: &Arc<dyn Clock>) -> Progress {
        Progress {
            sender: Arc::new(watch::Sender::new(SlotProgress::of_slot(generation, slot))),
            name: kind.display_name(&generation.spec.view).into(),
            meter: Arc::new(Meter::of(kind, generation, slot)),
            clock: Arc::clone(clock),
        }
    }

    /// Follows it.
    pub fn watch(&self) -> watch::Receiver<SlotProgress> {
        self.sender.subscribe()
    }

    /// The name that users gave to what works here.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A call of a reactor has ended.
    pub fn called(&self, done: bool, took: Duration) {
        self.meter.called(done, took);
    }

    /// Another worker took the slot before this one released it.
    pub(crate) fn lease_lost(&self) {
        self.meter.leases_lost.increment(1);
    }

    /// Events settled since the worker started.
    pub fn settled(&self) -> u64 {
        self.sender.borrow().settled_events
    }

    /// Whether it was at the head once.
    pub fn was_live(&self) -> bool {
        self.sender.borrow().was_live
    }

    /// Records in the metrics by how much it lags.
    pub fn publish(&self) {
        let progress = self.sender.borrow();
        let lag_events = progress.lag_events();
        let oldest = progress.unsettled.values().min().filter(|_| lag_events > 0);
        self.meter.lag_events.set(lag_events as f64);
        self.meter
            .lag_seconds
            .set(oldest.map_or(0.0, |oldest| age(*oldest, self.clock.now()).as_secs_f64()));
        self.meter
            .dead_letter_keys
            .set(progress.dead_letter_keys as f64);
    }

    /// What the slot is doing from now on.
    pub fn state(&self, state: SlotState) {
        self.sender.send_if_modified(|progress| {
            let changed = progress.state != state;
            if !matches!(state, SlotState::CatchingUp) {
                progress.busy.turn(None, progress.since);
            }
            progress.was_live |= state == SlotState::Live;
            progress.state = state;
            changed
        });
    }

    /// Records in the metrics how far a generation that is being built has come.
    pub(crate) fn publish_build(&self) {
        let progress = self.sender.borrow();
        let head = progress.head.values().map(|at| at.get()).sum::<u64>();
        let done = head.saturating_sub(progress.lag_events());
        self.meter.rebuild_progress.set(if head == 0 {
            1.0
        } else {
            done as f64 / head as f64
        });
    }

    /// Records in the metrics that the generation is built.
    pub(crate) fn built(&self) {
        self.meter.rebuild_progress.set(1.0);
    }

    /// Something went wrong with one thing among many, and the worker goes on.
    pub fn note_error(&self, error: &str) {
        let error = LastError {
            at: self.clock.now(),
            error: error.to_owned(),
        };
        self.sender.send_if_modified(|progress| {
            progress.last_error = Some(error);
            false
        });
    }

    /// Something went wrong: the worker stops, or waits before it tries again.
    pub fn failed(&self, state: SlotState) {
        if let SlotState::Stopped { reason } | SlotState::Waiting { reason } = &state {
            let error = LastError {
                at: self.clock.now(),
                error: reason.clone(),
            };
            self.sender.send_if_modified(|progress| {
                progress.last_error = Some(error);
                false
            });
        }
        self.meter.retries.increment(1);
        self.state(state);
    }

    /// A worker of this process has the lease as this owner, or released it, and has seen so many
    /// decisions of operators.
    pub fn held_by(&self, owner: Option<&str>, decisions_seen: u64) {
        self.sender.send_modify(|progress| {
            // What stopped it is shown until it is known to be repaired.
            let still = matches!(progress.state, SlotState::Stopped { .. })
                && progress.decisions_seen == decisions_seen;
            if owner.is_some() {
                progress.rate.begin(progress.since.elapsed());
                if !still && progress.state != SlotState::Live {
                    progress.state = SlotState::CatchingUp;
                }
            }
            progress.owner = owner.map(str::to_owned);
            // Another worker may have made some since.
            progress.knows_dead_letters = false;
            progress.decisions_seen = decisions_seen;
            progress.calls = None;
            progress.busy.turn(None, progress.since);
        });
    }

    /// What is known from now on is of this incarnation of the log, and nothing is of another.
    pub(crate) fn follows(&self, incarnation: Incarnation) {
        self.sender.send_if_modified(|progress| {
            let before = progress.incarnation.replace(incarnation);
            if before.is_some_and(|before| before != incarnation) {
                progress.reached.clear();
                progress.head.clear();
                progress.unsettled.clear();
            }
            false
        });
    }

    /// What the worker turns to now. Readers that wait for it are not woken.
    pub fn turns_to(&self, activity: Activity) {
        self.sender.send_if_modified(|progress| {
            progress.busy.turn(Some(activity), progress.since);
            false
        });
    }

    /// Calls that are being made, and since when the one that takes longest.
    pub fn calls(&self, calls: Option<(usize, Instant)>) {
        self.sender.send_if_modified(|progress| {
            progress.calls = calls;
            false
        });
    }

    /// Up to where everything is settled.
    pub fn reached(&self, partition: Partition, position: Position) {
        self.sender.send_modify(|progress| {
            progress.reached.insert(partition, position);
        });
    }

    /// How far the log goes, and when the oldest event was recorded that was read and is not
    /// settled.
    pub fn head(&self, partition: Partition, position: Position, oldest: Option<DateTime<Utc>>) {
        self.sender.send_if_modified(|progress| {
            if let Some(oldest) = oldest {
                progress.unsettled.entry(partition).or_insert(oldest);
            }
            progress.head.insert(partition, position) != Some(position)
        });
    }

    /// The log goes at least so far.
    pub(crate) fn head_at_least(&self, partition: Partition, position: Position) {
        self.sender.send_if_modified(|progress| {
            if !progress.reads(partition) {
                return false;
            }
            let head = progress.head.entry(partition).or_default();
            let moved = *head < position;
            *head = position.max(*head);
            moved
        });
    }

    /// When the oldest event was recorded that is not settled, where that is known.
    pub fn oldest(&self, partition: Partition, oldest: Option<DateTime<Utc>>) {
        self.sender.send_if_modified(|progress| {
            match oldest {
                Some(oldest) => _ = progress.unsettled.insert(partition, oldest),
                None => _ = progress.unsettled.remove(&partition),
            }
            false
        });
    }

    /// A transaction was committed that settles everything up to a position.
    pub fn settled_to(&self, partition: Partition, position: Position, taken: CommittedStep) {
        let meter = &self.meter;
        meter.events.increment(taken.events);
        meter.rows.increment(taken.rows as u64);
        meter.commits.increment(1);
        meter.commit_seconds.record(taken.took);
        self.sender.send_modify(|progress| {
            let before = progress
                .reached
                .insert(partition, position)
                .unwrap_or_default();
            match taken.oldest {
                Some(oldest) => _ = progress.unsettled.insert(partition, oldest),
                None => _ = progress.unsettled.remove(&partition),
            }
            progress.rate.add(
                progress.since.elapsed(),
                position.get().saturating_sub(before.get()),
            );
            progress.settled_events += taken.events;
            progress.commits.add(taken.took);
        });
    }

    /// What the worker keeps in memory.
    pub fn at_hand(&self, rows: usize, bytes: u64) {
        self.sender.send_if_modified(|progress| {
            progress.rows_at_hand = rows as u64;
            progress.bytes_at_hand = bytes;
            false
        });
    }

    /// How far event time has come.
    pub fn event_time(&self, event_time: EventTime) {
        self.sender.send_if_modified(|progress| {
            progress.event_time = Some(event_time);
            false
        });
    }

    /// Keys in dead letters.
    pub fn dead_letter_keys(&self, keys: u64) {
        self.sender.send_if_modified(|progress| {
            let changed = progress.dead_letter_keys != keys;
            progress.dead_letter_keys = keys;
            progress.knows_dead_letters = true;
            changed
        });
    }
}

/// How old something is; what was recorded by a clock that is ahead of ours is new.
pub(crate) fn age(recorded: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    (now - recorded)
        .max(TimeDelta::zero())
        .to_std()
        .unwrap_or_default()
}
