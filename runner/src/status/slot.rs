//! What one slot does, and how far it has come.

use std::collections::BTreeMap;
use std::time::Duration;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Partition, Position};
use serde::{Serialize, Serializer};

use crate::busy::Activity;
use crate::progress::{LastError, SlotProgress, SlotState, age};

/// What one slot does, and how far it has come.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SlotStatus {
    /// Its number.
    pub slot: u16,
    /// What it is doing.
    pub state: SlotState,
    /// The owner of its lease, as far as is known here: this process, or another one.
    pub owner: Option<String>,
    /// Up to where everything is settled, by partition.
    pub reached: BTreeMap<Partition, Position>,
    /// How far the log went when it was last read, by partition.
    pub head: BTreeMap<Partition, Position>,
    /// Events of the log between what is settled and the head, over all partitions, whether they
    /// concern it or not.
    pub lag_events: u64,
    /// How old the oldest event is that concerns it and is not settled: the program's clock against
    /// when it was recorded. Dead letters count as settled.
    #[serde(rename = "lag_seconds", serialize_with = "seconds")]
    pub lag: Duration,
    /// Events of the log that are passed in a second, over the last ten seconds or so; none while
    /// another process works on it.
    pub events_per_second: f64,
    /// How long the rest takes at that rate; nothing when nothing is left or nothing moves.
    #[serde(rename = "rest_seconds", serialize_with = "some_seconds")]
    pub rest: Option<Duration>,
    /// Events settled since this process began.
    pub settled_events: u64,
    /// Rows that its worker keeps in memory. How many the table has is not counted here: that would
    /// be a scan.
    pub rows_at_hand: u64,
    /// The bytes of these rows, as they are stored.
    pub bytes_at_hand: u64,
    /// How long its transactions took lately; nothing before the first.
    pub commits: Option<CommitTimes>,
    /// What its worker is busy with, and for how long.
    pub busy: Option<Busy>,
    /// What the last seconds went into.
    pub shares: TimeShares,
    /// Calls of a reactor that are being made.
    pub calls: Option<Calls>,
    /// Of a pipeline: how far event time has come, as far as this process works on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_time: Option<EventTime>,
    /// What went wrong last, also when it goes on by now.
    pub last_error: Option<LastError>,
    /// Keys in dead letters.
    pub dead_letter_keys: u64,
}

/// How long the last 128 transactions of a slot took, each with everything that is changed
/// together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CommitTimes {
    /// Transactions since this process began.
    pub count: u64,
    /// The last one.
    #[serde(rename = "last_seconds", serialize_with = "seconds")]
    pub last: Duration,
    /// Half of them took no longer.
    #[serde(rename = "p50_seconds", serialize_with = "seconds")]
    pub p50: Duration,
    /// 99 of 100 took no longer.
    #[serde(rename = "p99_seconds", serialize_with = "seconds")]
    pub p99: Duration,
}

/// What a worker does at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Busy {
    /// What.
    pub with: Activity,
    /// For how long.
    #[serde(rename = "for_seconds", serialize_with = "seconds")]
    pub since: Duration,
}

/// The part of the last seconds, from 0 to 1, that a worker spent with each of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TimeShares {
    /// Waiting for events of the log.
    pub reading: f64,
    /// In the code of the view.
    pub handling: f64,
    /// Waiting for its transactions.
    pub committing: f64,
}

/// How far a slot of a pipeline has come in event time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(clippy::exhaustive_structs)]
pub struct EventTime {
    /// The watermark, in microseconds since 1970: windows that end at or before it have closed. The
    /// least number there is before any event told a time, the largest after the end of time.
    pub watermark_micros: i64,
    /// The partition that holds it.
    pub held_by: Option<Partition>,
    /// Entries of state: windows and sessions of each key that are open, and what else is kept.
    pub open: u64,
    /// What came too late since the slot began here.
    pub too_late: u64,
    /// The keys that came most often lately, the busiest first.
    pub hot_keys: Vec<HotKey>,
}

/// A key of which there is much.
///
/// ```
/// let tea = annals_runner::HotKey { key: "tea".into(), percent: 41 };
/// assert_eq!(tea.to_string(), "`tea` with 41 %");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(clippy::exhaustive_structs)]
pub struct HotKey {
    /// The key.
    pub key: String,
    /// Roughly how many of a hundred items lately were of it.
    pub percent: u8,
}

/// Calls that a reactor is making.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Calls {
    /// How many.
    pub count: usize,
    /// For how long the longest.
    #[serde(rename = "longest_seconds", serialize_with = "seconds")]
    pub longest: Duration,
}

impl SlotStatus {
    pub(super) fn of(slot: u16, progress: &SlotProgress, now: DateTime<Utc>) -> SlotStatus {
        let lag_events = progress.lag_events();
        let oldest = progress.unsettled.values().min().filter(|_| lag_events > 0);
        let elsewhere = match &progress.state {
            SlotState::Elsewhere { owner, .. } => Some(owner.clone()),
            _ => None,
        };
        let rate = progress
            .events_per_second()
            .filter(|_| elsewhere.is_none())
            .unwrap_or_default();
        let rest = (lag_events > 0 && rate > 0.01)
            .then(|| Duration::from_secs_f64((lag_events as f64 / rate).min(1e9)));
        let [reading, handling, committing] = progress.shares();
        SlotStatus {
            slot,
            state: progress.state.clone(),
            owner: elsewhere.or_else(|| progress.owner.clone()),
            reached: progress.reached.clone(),
            head: progress.head.clone(),
            lag_events,
            lag: oldest.map(|oldest| age(*oldest, now)).unwrap_or_default(),
            events_per_second: rate,
            rest,
            settled_events: progress.settled_events,
            rows_at_hand: progress.rows_at_hand,
            bytes_at_hand: progress.bytes_at_hand,
            commits: CommitTimes::of(progress),
            busy: progress.busy.now.map(|(with, began)| Busy {
                with,
                since: began.elapsed(),
            }),
            shares: TimeShares {
                reading,
                handling,
                committing,
            },
            calls: progress.calls.map(|(count, began)| Calls {
                count,
                longest: began.elapsed(),
            }),
            event_time: progress
                .event_time
                .clone()
                .filter(|_| progress.owner.is_some()),
            last_error: progress.last_error.clone(),
            dead_letter_keys: progress.dead_letter_keys,
        }
    }
}

impl CommitTimes {
    fn of(progress: &SlotProgress) -> Option<CommitTimes> {
        let recent = &progress.commits.recent;
        let last = *recent.back()?;
        let mut sorted: Vec<_> = recent.iter().copied().collect();
        sorted.sort_unstable();
        let at =
            |hundredth: usize| sorted[(sorted.len() * hundredth).div_ceil(100).saturating_sub(1)];
        Some(CommitTimes {
            count: progress.commits.count,
            last,
            p50: at(50),
            p99: at(99),
        })
    }
}

pub(super) fn seconds<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[allow(clippy::ref_option, reason = "serde hands it over so")]
fn some_seconds<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration
        .map(|duration| duration.as_secs_f64())
        .serialize(serializer)
}
