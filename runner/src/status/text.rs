//! A status in words.

use std::fmt::{self, Display};
use std::time::Duration;

use annals_core::Phase;
use annals_core::chrono::{DateTime, SecondsFormat};

use super::{EventTime, HotKey, SlotStatus, Status};
use crate::busy::Activity;
use crate::progress::SlotState;

/// An activity that takes so long is what holds a slot.
const LONG: Duration = Duration::from_secs(1);

/// An activity that takes this part of the time is what makes a slot slow.
const MOST: f64 = 0.5;

/// What holds it, in one line.
pub(super) fn why(status: &Status) -> String {
    let mut why = held(status);
    if status.phase == Phase::Kept {
        why.push_str("; kept for a roll-back");
    }
    if let Some(unverified) = &status.unverified {
        why.push_str(&format!("; not verified: {unverified}"));
    }
    match status.dead_letter_keys {
        0 => {}
        1 => why.push_str("; 1 key in dead letters"),
        keys => why.push_str(&format!("; {keys} keys in dead letters")),
    }
    why
}

fn held(status: &Status) -> String {
    let slots = &status.slots;
    let stopped = slots.iter().find_map(|of| match &of.state {
        SlotState::Stopped { reason } => Some(format!("slot {} stopped: {reason}", of.slot)),
        _ => None,
    });
    let waiting = || {
        slots.iter().find_map(|of| match &of.state {
            SlotState::Waiting { reason } => Some(format!("slot {} waits: {reason}", of.slot)),
            _ => None,
        })
    };
    if let Some(held) = stopped.or_else(|| status.refused.clone()).or_else(waiting) {
        return held;
    }
    // Readers wait for the slowest one.
    let slowest = slots.iter().max_by_key(|of| (of.lag_events, of.lag));
    let reason = slowest
        .and_then(reason)
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    let lag = status.lag_events;
    let rest = slowest
        .and_then(|of| of.rest)
        .map(|rest| format!(", {} to go", Span(rest)))
        .unwrap_or_default();
    match (status.phase, lag) {
        (Phase::Building, lag) => format!("being built, {lag} events to go{rest}{reason}"),
        (_, 0) => "up to date".into(),
        (_, lag) if status.lag >= LONG => {
            format!("lags {lag} events, {}{rest}{reason}", Span(status.lag))
        }
        (_, lag) => format!("lags {lag} events{rest}{reason}"),
    }
}

/// Why a slot lags, when there is more to say than that it works.
fn reason(of: &SlotStatus) -> Option<String> {
    if let SlotState::Elsewhere { owner, until } = &of.state {
        let until = until.format("%Y-%m-%dT%H:%M:%S%.3fZ");
        return Some(format!("slot {} is held by {owner} until {until}", of.slot));
    }
    if of.lag_events == 0 {
        return None;
    }
    if let Some(calls) = of.calls.filter(|calls| calls.longest >= LONG) {
        return Some(format!(
            "{} calls running, the longest for {}",
            calls.count,
            Span(calls.longest)
        ));
    }
    if let Some(busy) = of.busy.filter(|busy| busy.since >= LONG) {
        let what = match busy.with {
            Activity::Reading => "log read running",
            Activity::Handling => "handler running",
            Activity::Committing => "commit running",
        };
        return Some(format!("{what} for {}", Span(busy.since)));
    }
    let shares = [
        (of.shares.committing, "commits"),
        (of.shares.handling, "the handler"),
        (of.shares.reading, "reading the log"),
    ];
    let (share, what) = shares.into_iter().max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    let each = of
        .commits
        .filter(|_| what == "commits")
        .map(|of| format!(", {} each", Span(of.p50)))
        .unwrap_or_default();
    (share >= MOST).then(|| format!("{:.0} % of the time goes into {what}{each}", share * 100.0))
}

impl Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{}: {}", self.view, self.version, self.why)?;
        if f.alternate() {
            let phase = match self.phase {
                Phase::Building => "building",
                Phase::Live => "live",
                _ => "kept",
            };
            write!(f, "\n  generation {}, {phase}", self.generation)?;
            self.slots
                .iter()
                .try_for_each(|slot| write!(f, "\n  {slot}"))?;
        }
        Ok(())
    }
}

/// Everything about a slot, in one line.
impl Display for SlotStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            SlotState::Starting => "starting",
            SlotState::Elsewhere { .. } => "elsewhere",
            SlotState::Waiting { .. } => "waiting",
            SlotState::CatchingUp => "catching up",
            SlotState::Live => "live",
            SlotState::Stopped { .. } => "stopped",
        };
        let sum = |positions: &std::collections::BTreeMap<_, annals_core::Position>| {
            positions
                .values()
                .map(|position| position.get())
                .sum::<u64>()
        };
        write!(
            f,
            "slot {}: {state}, at {} of {}",
            self.slot,
            sum(&self.reached),
            sum(&self.head)
        )?;
        if self.lag_events > 0 {
            write!(f, ", lags {} events", self.lag_events)?;
        }
        if self.lag > Duration::ZERO {
            write!(f, ", the oldest {} old", Span(self.lag))?;
        }
        write!(f, "; {:.0} events/s", self.events_per_second)?;
        if let Some(rest) = self.rest {
            write!(f, ", {} to go", Span(rest))?;
        }
        write!(
            f,
            "; {} rows at hand, {} bytes",
            self.rows_at_hand, self.bytes_at_hand
        )?;
        if let Some(times) = self.commits {
            let last = Span(times.last);
            let p50 = Span(times.p50);
            let p99 = Span(times.p99);
            write!(
                f,
                "; {} commits, the last {last}, p50 {p50}, p99 {p99}",
                times.count
            )?;
        }
        if let Some(event_time) = &self.event_time {
            write!(f, "; {event_time}")?;
        }
        if self.dead_letter_keys > 0 {
            write!(f, "; {} keys in dead letters", self.dead_letter_keys)?;
        }
        if let Some(owner) = &self.owner {
            write!(f, "; held by {owner}")?;
        }
        match &self.last_error {
            Some(last) => write!(
                f,
                "; last error at {}: {}",
                last.at.format("%Y-%m-%dT%H:%M:%SZ"),
                last.error
            ),
            None => Ok(()),
        }
    }
}

impl Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.watermark_micros {
            i64::MIN => write!(f, "no event time yet")?,
            i64::MAX => write!(f, "the end of event time")?,
            micros => match DateTime::from_timestamp_micros(micros) {
                Some(moment) => {
                    let moment = moment.to_rfc3339_opts(SecondsFormat::AutoSi, true);
                    write!(f, "event time {moment}")?;
                }
                None => write!(f, "event time {micros} µs")?,
            },
        }
        if let Some(partition) = self.held_by.filter(|_| self.watermark_micros < i64::MAX) {
            write!(f, " (held by partition {partition})")?;
        }
        write!(f, ", {} open, {} too late", self.open, self.too_late)?;
        match self.hot_keys.first() {
            Some(busiest) => write!(f, ", busiest key {busiest}"),
            None => Ok(()),
        }
    }
}

impl Display for HotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` with {} %", self.key, self.percent)
    }
}

/// A length of time in the two units that matter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span(pub(crate) Duration);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let micros = self.0.as_micros();
        match seconds {
            0 if micros < 1_000 => write!(f, "{micros} µs"),
            0 if micros < 10_000 => write!(f, "{:.1} ms", micros as f64 / 1e3),
            0 => write!(f, "{} ms", micros / 1_000),
            1..60 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            60..3_600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            3_600..86_400 => write!(f, "{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
            _ => write!(f, "{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
        }
    }
}
