//! How far a slot has come and what it is busy with, for those who wait for it and those who look.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Clock, Generation, Partition, Position, Token};
use serde::Serialize;
use tokio::sync::watch;

use crate::meter::Meter;
use crate::rate::Rate;
use crate::status::{Kind, age};

/// What a slot is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
#[non_exhaustive]
pub enum SlotState {
    /// It has not begun.
    #[default]
    Starting,
    /// Somebody else works on it: another worker, in whichever process.
    Elsewhere {
        /// The name of its owner.
        owner: String,
        /// When that lease ends, unless it is renewed; by the clock of the store that keeps it.
        until: DateTime<Utc>,
    },
    /// It waits before it tries again.
    Waiting {
        /// What went wrong.
        reason: String,
    },
    /// It folds what is behind it.
    CatchingUp,
    /// It is at the head and follows.
    Live,
    /// It does not go on until a person has looked.
    Stopped {
        /// Why, and what to do.
        reason: String,
    },
}

/// What a worker is busy with at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activity {
    /// It waits for events of the log.
    Reading,
    /// The code of the view, the reactor or the process runs.
    Handling,
    /// It waits for its transaction.
    Committing,
}

impl Activity {
    pub(crate) const ALL: [Activity; 3] =
        [Activity::Reading, Activity::Handling, Activity::Committing];
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
pub(crate) struct SlotProgress {
    pub(crate) state: SlotState,
    /// Who works on it, when it is this process.
    pub(crate) owner: Option<String>,
    /// Up to where everything is settled, by partition.
    pub(crate) reached: BTreeMap<Partition, Position>,
    /// How far the log went when it was last read, by partition.
    pub(crate) head: BTreeMap<Partition, Position>,
    /// When the oldest event was recorded that is known to be unsettled, by partition.
    pub(crate) unsettled: BTreeMap<Partition, DateTime<Utc>>,
    /// Events settled since the worker started.
    pub(crate) settled_events: u64,
    /// Keys that wait for a person.
    pub(crate) dead_letter_keys: u64,
    pub(crate) rows_at_hand: u64,
    pub(crate) bytes_at_hand: u64,
    pub(crate) commits: Commits,
    pub(crate) rate: Rate,
    pub(crate) busy: Busy,
    /// Calls of a reactor that are being made, and since when the one that takes longest.
    pub(crate) calls: Option<(usize, Instant)>,
    pub(crate) last_error: Option<LastError>,
    /// Whether it was at the head once.
    pub(crate) was_live: bool,
    /// How often operator had decided something when the worker began last.
    pub(crate) knows: u64,
    /// What times are counted from.
    since: Instant,
}

/// How long commits took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commits {
    pub(crate) count: u64,
    pub(crate) recent: VecDeque<Duration>,
}

/// Commits that are looked at for how long they take.
const RECENT_COMMITS: usize = 128;

/// What the time goes into, more of what was lately.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy {
    pub(crate) now: Option<(Activity, Instant)>,
    spent: [Rate; Activity::ALL.len()],
}

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
            rows_at_hand: 0,
            bytes_at_hand: 0,
            commits: Commits::default(),
            rate: Rate::default(),
            busy: Busy::default(),
            calls: None,
            last_error: None,
            was_live: false,
            knows: 0,
            since: Instant::now(),
        }
    }

    /// Up to where everything is settled in a partition.
    pub(crate) fn reached_in(&self, partition: Partition) -> Position {
        self.reached.get(&partition).copied().unwrap_or_default()
    }

    /// Whether everything up to a token is settled.
    pub(crate) fn has_reached(&self, token: &Token) -> bool {
        token
            .positions()
            .all(|(partition, position)| self.reached_in(partition) >= position)
    }

    /// Events between what is settled and the head, over all partitions.
    pub(crate) fn lag_events(&self) -> u64 {
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
        let mut busy = self.busy.clone();
        busy.turn(None, self.since);
        busy.spent.map(|spent| {
            spent
                .per_second(self.since.elapsed())
                .map_or(0.0, |micros| micros / 1e6)
        })
    }
}

impl Busy {
    fn turn(&mut self, to: Option<Activity>, since: Instant) {
        let now = Instant::now();
        if let Some((activity, began)) = self.now.take() {
            let spent = &mut self.spent[activity as usize];
            spent.begin(began.saturating_duration_since(since));
            let micros =
                u64::try_from(now.saturating_duration_since(began).as_micros()).unwrap_or(u64::MAX);
            spent.add(now.saturating_duration_since(since), micros);
        }
        self.now = to.map(|activity| (activity, now));
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

/// A transaction that was taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    /// Events that are settled by it.
    pub(crate) events: u64,
    pub(crate) rows: usize,
    pub(crate) took: Duration,
    /// When the oldest event was recorded that was read and is not settled by it.
    pub(crate) oldest: Option<DateTime<Utc>>,
}

/// The writing end.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    told: Arc<watch::Sender<SlotProgress>>,
    meter: Arc<Meter>,
    name: Arc<str>,
    clock: Arc<dyn Clock>,
}

impl Progress {
    pub(crate) fn of(
        kind: Kind,
        generation: &Generation,
        slot: u16,
        clock: &Arc<dyn Clock>,
    ) -> Progress {
        Progress {
            told: Arc::new(watch::Sender::new(SlotProgress::new())),
            name: kind.name_of(&generation.spec.view).into(),
            meter: Arc::new(Meter::of(kind, generation, slot)),
            clock: Arc::clone(clock),
        }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<SlotProgress> {
        self.told.subscribe()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    pub(crate) fn settled(&self) -> u64 {
        self.told.borrow().settled_events
    }

    pub(crate) fn was_live(&self) -> bool {
        self.told.borrow().was_live
    }

    /// Tells a recorder of metrics how far behind it is.
    pub(crate) fn publish(&self) {
        let progress = self.told.borrow();
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

    pub(crate) fn state(&self, state: SlotState) {
        self.told.send_if_modified(|progress| {
            let changed = progress.state != state;
            if !matches!(state, SlotState::CatchingUp) {
                progress.busy.turn(None, progress.since);
            }
            progress.was_live |= state == SlotState::Live;
            progress.state = state;
            changed
        });
    }

    /// Tells a recorder of metrics how far a generation that is being built has come.
    pub(crate) fn publish_build(&self) {
        let progress = self.told.borrow();
        let head = progress.head.values().map(|at| at.get()).sum::<u64>();
        let done = head.saturating_sub(progress.lag_events());
        self.meter.rebuild_progress.set(if head == 0 {
            1.0
        } else {
            done as f64 / head as f64
        });
    }

    /// Tells a recorder of metrics that the generation is built.
    pub(crate) fn built(&self) {
        self.meter.rebuild_progress.set(1.0);
    }

    /// Something went wrong: the worker stops, or waits before it tries again.
    pub(crate) fn failed(&self, state: SlotState) {
        if let SlotState::Stopped { reason } | SlotState::Waiting { reason } = &state {
            let error = LastError {
                at: self.clock.now(),
                error: reason.clone(),
            };
            self.told.send_if_modified(|progress| {
                progress.last_error = Some(error);
                false
            });
        }
        self.meter.retries.increment(1);
        self.state(state);
    }

    /// A worker of this process has the slot, under this name, or gives it back. It knows what
    /// operator had decided by then.
    pub(crate) fn held_by(&self, owner: Option<&str>, knows: u64) {
        self.told.send_modify(|progress| {
            // What stopped it stands until it is known to be mended.
            let still =
                matches!(progress.state, SlotState::Stopped { .. }) && progress.knows == knows;
            if owner.is_some() {
                progress.rate.begin(progress.since.elapsed());
                if !still && progress.state != SlotState::Live {
                    progress.state = SlotState::CatchingUp;
                }
            }
            progress.owner = owner.map(str::to_owned);
            progress.knows = knows;
            progress.calls = None;
            progress.busy.turn(None, progress.since);
        });
    }

    /// What the worker turns to now. Whoever waits for it is not woken.
    pub(crate) fn turns_to(&self, activity: Activity) {
        self.told.send_if_modified(|progress| {
            progress.busy.turn(Some(activity), progress.since);
            false
        });
    }

    pub(crate) fn calls(&self, calls: Option<(usize, Instant)>) {
        self.told.send_if_modified(|progress| {
            progress.calls = calls;
            false
        });
    }

    pub(crate) fn reached(&self, partition: Partition, position: Position) {
        self.told.send_modify(|progress| {
            progress.reached.insert(partition, position);
        });
    }

    /// How far the log goes, and when the oldest event was recorded that was read and is not
    /// settled.
    pub(crate) fn head(
        &self,
        partition: Partition,
        position: Position,
        oldest: Option<DateTime<Utc>>,
    ) {
        self.told.send_if_modified(|progress| {
            if let Some(oldest) = oldest {
                progress.unsettled.entry(partition).or_insert(oldest);
            }
            progress.head.insert(partition, position) != Some(position)
        });
    }

    /// When the oldest event was recorded that is not settled, where that is known.
    pub(crate) fn oldest(&self, partition: Partition, oldest: Option<DateTime<Utc>>) {
        self.told.send_if_modified(|progress| {
            match oldest {
                Some(oldest) => _ = progress.unsettled.insert(partition, oldest),
                None => _ = progress.unsettled.remove(&partition),
            }
            false
        });
    }

    pub(crate) fn settled_to(&self, partition: Partition, position: Position, taken: Taken) {
        let meter = &self.meter;
        meter.events.increment(taken.events);
        meter.rows.increment(taken.rows as u64);
        meter.commits.increment(1);
        meter.commit_seconds.record(taken.took);
        self.told.send_modify(|progress| {
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
    pub(crate) fn at_hand(&self, rows: usize, bytes: u64) {
        self.told.send_if_modified(|progress| {
            progress.rows_at_hand = rows as u64;
            progress.bytes_at_hand = bytes;
            false
        });
    }

    pub(crate) fn dead_letter_keys(&self, keys: u64) {
        self.told.send_if_modified(|progress| {
            let changed = progress.dead_letter_keys != keys;
            progress.dead_letter_keys = keys;
            changed
        });
    }
}
