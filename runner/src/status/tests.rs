//! What operators and machines read.

use std::collections::BTreeMap;

use annals_core::chrono::TimeDelta;
use annals_core::{Clock, GenerationId, GenerationSpec, LogId, ManualClock, Partition, Position};
use insta::assert_snapshot;

use super::*;
use crate::busy::Activity;
use crate::progress::{LastError, SlotState};

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
fn a_generation_that_was_not_verified_says_so() {
    let status = status(Phase::Live, vec![slot(0, 10, 10)]);
    let status = status.unverified(Some("its keys come from several partitions".into()));
    assert_eq!(
        status.to_string(),
        "balances v2: up to date; not verified: its keys come from several partitions"
    );
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
