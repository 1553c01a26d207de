//! What a projection does, how far it has come, and what holds it: values for machines, one line or
//! a few for operators.

mod slot;
mod text;

use std::time::Duration;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Generation, Phase};
use serde::Serialize;

pub use slot::{Busy, Calls, CommitTimes, EventTime, HotKey, SlotStatus, TimeShares};

use self::slot::seconds;
use crate::kind::Kind;
use crate::progress::SlotProgress;

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
    /// The name of the view; of a reactor or process manager the name under which its checkpoint is
    /// kept.
    pub view: String,
    /// The version of its fold.
    pub version: u32,
    /// The generation.
    pub generation: u64,
    /// What the generation is for.
    pub phase: Phase,
    /// Why it cannot be switched to, when it was checked and refused.
    pub refused: Option<String>,
    /// Why it was switched to without having been compared with the log, where this process did
    /// that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unverified: Option<String>,
    lag_events: u64,
    #[serde(rename = "lag_seconds", serialize_with = "seconds")]
    lag: Duration,
    dead_letter_keys: u64,
    why: String,
    /// Its slots, in order.
    pub slots: Vec<SlotStatus>,
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
            unverified: None,
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

    /// The same for a generation that was not compared with the log.
    #[must_use]
    pub(crate) fn unverified(mut self, why: Option<String>) -> Status {
        self.unverified = why;
        self.why = text::why(&self);
        self
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

#[cfg(test)]
mod tests;
