//! What a projection does, how far it has come, and what holds it: values for machines, one line or
//! a few for operators.

mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Generation, Partition, Phase, Position};
use serde::{Serialize, Serializer};

use crate::busy::Activity;
use crate::kind::Kind;
use crate::progress::{LastError, SlotProgress, SlotState, age};

/// What a projection does, and how far it has come, as this process knows it.
///
/// It is known without asking a store. Of a slot that another process works on it shows what was
/// read from the store, a second ago at most. Serialises for machines (times in seconds, ending in
/// `_seconds`), with [`why`](Status::why) among it; prints as one line that says what holds it, and
/// with `{:#}` as several with everything.
///
/// ```
/// # fn example(program: &annals_runner::Program) {
/// for status in program.status() {
///     println!("{status}");
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// What it is.
    pub kind: Kind,
    /// The name of the view; of a reactor or process the name under which its checkpoint is kept.
    pub view: String,
    /// The version of its fold.
    pub version: u32,
    /// The generation.
    pub generation: u64,
    /// What the generation is for.
    pub phase: Phase,
    /// Why it cannot be switched to, when it was checked and refused.
    pub refused: Option<String>,
    lag_events: u64,
    #[serde(rename = "lag_seconds", serialize_with = "seconds")]
    lag: Duration,
    dead_letter_keys: u64,
    why: String,
    /// Its slots, in order.
    pub slots: Vec<SlotStatus>,
}

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

impl Status {
    /// Of a generation with these slots, in their order.
    pub fn new(
        kind: Kind,
        generation: &Generation,
        refused: Option<String>,
        slots: Vec<SlotProgress>,
        now: DateTime<Utc>,
    ) -> Status {
        let slots = (0..)
            .zip(&slots)
            .map(|(slot, progress)| SlotStatus::of(slot, progress, now))
            .collect();
        Status::of_slots(kind, generation, refused, slots)
    }

    fn of_slots(
        kind: Kind,
        generation: &Generation,
        refused: Option<String>,
        slots: Vec<SlotStatus>,
    ) -> Status {
        let mut status = Status {
            kind,
            view: generation.spec.view.clone(),
            version: generation.spec.version,
            generation: generation.id.0,
            phase: generation.phase,
            refused,
            lag_events: slots
                .iter()
                .map(|slot| slot.lag_events)
                .max()
                .unwrap_or_default(),
            lag: slots.iter().map(|slot| slot.lag).max().unwrap_or_default(),
            dead_letter_keys: slots.iter().map(|slot| slot.dead_letter_keys).sum(),
            why: String::new(),
            slots,
        };
        status.why = text::why(&status);
        status
    }

    /// Events between what is settled and the head, over all partitions; the slowest slot counts.
    pub fn lag_events(&self) -> u64 {
        self.lag_events
    }

    /// How old the oldest event is that concerns it and is not settled; the slowest slot counts.
    pub fn lag(&self) -> Duration {
        self.lag
    }

    /// Keys in dead letters.
    pub fn dead_letter_keys(&self) -> u64 {
        self.dead_letter_keys
    }

    /// One line for operators: that it is up to date, or why it lags. A worker that stopped comes
    /// first, then one that waits before it tries again, a lease that another process holds, and
    /// what takes the time.
    pub fn why(&self) -> &str {
        &self.why
    }
}

impl SlotStatus {
    fn of(slot: u16, progress: &SlotProgress, now: DateTime<Utc>) -> SlotStatus {
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

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
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

#[cfg(test)]
mod tests {
    use annals_core::chrono::TimeDelta;
    use annals_core::{Clock, GenerationId, GenerationSpec, LogId, ManualClock};
    use insta::assert_snapshot;

    use super::*;

    fn now() -> DateTime<Utc> {
        ManualClock::default().now()
    }

    fn slot(number: u16, reached: u64, head: u64) -> SlotStatus {
        let at = |position| BTreeMap::from([(Partition(0), Position::new(position))]);
        let mut slot = SlotStatus::of(number, &SlotProgress::new(), now());
        slot.reached = at(reached);
        slot.head = at(head);
        slot.lag_events = head - reached;
        slot
    }

    fn status(phase: Phase, slots: Vec<SlotStatus>) -> Status {
        let spec = GenerationSpec::new("balances", 2, LogId::random());
        let generation = Generation::new(GenerationId(7), spec, phase, now(), Position::MAX);
        Status::of_slots(Kind::View, &generation, None, slots)
    }

    fn busy_slot() -> SlotStatus {
        let ms = Duration::from_millis;
        SlotStatus {
            state: SlotState::CatchingUp,
            owner: Some("4711-here".into()),
            lag: Duration::from_secs(95),
            events_per_second: 12_000.0,
            rest: Some(ms(7_500)),
            settled_events: 1_000,
            rows_at_hand: 300,
            bytes_at_hand: 15_000,
            commits: Some(CommitTimes {
                count: 12,
                last: ms(43),
                p50: ms(40),
                p99: ms(210),
            }),
            shares: TimeShares {
                reading: 0.1,
                handling: 0.05,
                committing: 0.83,
            },
            last_error: Some(LastError {
                at: now(),
                error: "the disk was full".into(),
            }),
            dead_letter_keys: 2,
            ..slot(0, 10_000, 100_000)
        }
    }

    fn other_slot() -> SlotStatus {
        let until = now() + TimeDelta::seconds(10);
        let elsewhere = SlotState::Elsewhere {
            owner: "17-there".into(),
            until,
        };
        SlotStatus {
            state: elsewhere,
            owner: Some("17-there".into()),
            ..slot(1, 99_990, 100_000)
        }
    }

    #[test]
    fn operators_read_everything_about_a_projection() {
        assert_snapshot!(format!("{:#}", status(Phase::Live, vec![busy_slot(), other_slot()])), @r#"
        balances v2: lags 90000 events, 1 min 35 s, 7.5 s to go: 83 % of the time goes into commits, 40 ms each; 2 keys in dead letters
          generation 7, live
          slot 0: catching up, at 10000 of 100000, lags 90000 events, the oldest 1 min 35 s old; 12000 events/s, 7.5 s to go; 300 rows at hand, 15000 bytes; 12 commits, the last 43 ms, p50 40 ms, p99 210 ms; 2 keys in dead letters; held by 4711-here; last error at 2026-01-01T00:00:00Z: the disk was full
          slot 1: elsewhere, at 99990 of 100000, lags 10 events; 0 events/s; 0 rows at hand, 0 bytes; held by 17-there
        "#);
    }

    #[test]
    fn machines_read_the_same() {
        let status = status(Phase::Live, vec![busy_slot()]);
        assert_snapshot!(serde_json::to_string_pretty(&status).unwrap(), @r#"
        {
          "kind": "view",
          "view": "balances",
          "version": 2,
          "generation": 7,
          "phase": "live",
          "refused": null,
          "lag_events": 90000,
          "lag_seconds": 95.0,
          "dead_letter_keys": 2,
          "why": "lags 90000 events, 1 min 35 s, 7.5 s to go: 83 % of the time goes into commits, 40 ms each; 2 keys in dead letters",
          "slots": [
            {
              "slot": 0,
              "state": {
                "is": "catching_up"
              },
              "owner": "4711-here",
              "reached": {
                "0": 10000
              },
              "head": {
                "0": 100000
              },
              "lag_events": 90000,
              "lag_seconds": 95.0,
              "events_per_second": 12000.0,
              "rest_seconds": 7.5,
              "settled_events": 1000,
              "rows_at_hand": 300,
              "bytes_at_hand": 15000,
              "commits": {
                "count": 12,
                "last_seconds": 0.043,
                "p50_seconds": 0.04,
                "p99_seconds": 0.21
              },
              "busy": null,
              "shares": {
                "reading": 0.1,
                "handling": 0.05,
                "committing": 0.83
              },
              "calls": null,
              "last_error": {
                "at": "2026-01-01T00:00:00Z",
                "error": "the disk was full"
              },
              "dead_letter_keys": 2
            }
          ]
        }
        "#);
    }

    #[track_caller]
    fn check(slot: SlotStatus, why: &str) {
        assert_eq!(status(Phase::Live, vec![slot]).why(), why);
    }

    #[test]
    fn one_line_says_why_it_lags() {
        let seconds = Duration::from_secs;
        let quiet = || SlotStatus {
            shares: TimeShares::default(),
            dead_letter_keys: 0,
            ..busy_slot()
        };
        check(slot(0, 5, 5), "up to date");
        check(
            SlotStatus {
                dead_letter_keys: 1,
                ..slot(0, 5, 5)
            },
            "up to date; 1 key in dead letters",
        );
        check(quiet(), "lags 90000 events, 1 min 35 s, 7.5 s to go");
        let stopped = SlotState::Stopped {
            reason: "its key is unknown".into(),
        };
        check(
            SlotStatus {
                state: stopped,
                ..busy_slot()
            },
            "slot 0 stopped: its key is unknown; 2 keys in dead letters",
        );
        let waiting = SlotState::Waiting {
            reason: "the disk is full".into(),
        };
        check(
            SlotStatus {
                state: waiting,
                ..quiet()
            },
            "slot 0 waits: the disk is full",
        );
        check(
            other_slot(),
            "lags 10 events: slot 1 is held by 17-there until 2026-01-01T00:00:10.000Z",
        );
        let shares = TimeShares {
            handling: 0.9,
            ..TimeShares::default()
        };
        check(
            SlotStatus { shares, ..quiet() },
            "lags 90000 events, 1 min 35 s, 7.5 s to go: 90 % of the time goes into the handler",
        );
        let busy = Busy {
            with: Activity::Handling,
            since: seconds(3),
        };
        check(
            SlotStatus {
                busy: Some(busy),
                rest: None,
                ..quiet()
            },
            "lags 90000 events, 1 min 35 s: handler running for 3.0 s",
        );
        let calls = Calls {
            count: 16,
            longest: seconds(40),
        };
        check(
            SlotStatus {
                calls: Some(calls),
                rest: None,
                ..quiet()
            },
            "lags 90000 events, 1 min 35 s: 16 calls running, the longest for 40.0 s",
        );
    }

    #[test]
    fn a_build_says_how_long_it_still_takes() {
        let building = status(Phase::Building, vec![busy_slot()]);
        assert_eq!(
            building.to_string(),
            "balances v2: being built, 90000 events to go, 7.5 s to go: 83 % of the time goes into \
             commits, 40 ms each; 2 keys in dead letters"
        );
    }
}
