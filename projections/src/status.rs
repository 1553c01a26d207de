//! What a projection does, how far it has come, and what holds it, in one line for people.

use std::fmt;

use annals_core::Phase;

use crate::supervisor::Followed;
use crate::worker::{SlotProgress, SlotState};

/// What a projection does, and how far it has come. Prints as one line that says what holds it.
///
/// ```
/// # fn example(program: &annals_projections::Program) {
/// for status in program.status() {
///     println!("{status}");
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The name of the view.
    pub view: String,
    /// The version of its fold.
    pub version: u32,
    /// The generation.
    pub generation: u64,
    /// What it is for.
    pub phase: Phase,
    /// Why it cannot be switched to, when it was checked and refused.
    pub refused: Option<String>,
    /// Its slots, in order.
    pub slots: Vec<SlotProgress>,
}

impl Status {
    pub(crate) fn of(followed: &Followed) -> Status {
        let generation = &followed.generation;
        Status {
            view: generation.spec.view.clone(),
            version: generation.spec.version,
            generation: generation.id.0,
            phase: generation.phase,
            refused: followed.refused.clone(),
            slots: followed.slots.iter().map(|slot| slot.borrow().clone()).collect(),
        }
    }

    /// Events between what is settled and the head, over all partitions; the slowest slot counts.
    pub fn lag_events(&self) -> u64 {
        self.slots.iter().map(SlotProgress::lag_events).max().unwrap_or_default()
    }

    /// Keys that wait for a person.
    pub fn parked_keys(&self) -> u64 {
        self.slots.iter().map(|slot| slot.parked_keys).sum()
    }
}

impl SlotProgress {
    /// Events between what is settled and the head, over all partitions.
    pub fn lag_events(&self) -> u64 {
        self.head.iter().map(|(partition, head)| head.get().saturating_sub(self.reached_in(*partition).get())).sum()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (view, version, lag) = (&self.view, self.version, self.lag_events());
        write!(f, "{view} v{version}: ")?;
        let held = self.slots.iter().enumerate().find_map(|(slot, progress)| match &progress.state {
            SlotState::Stopped { reason } => Some(format!("slot {slot} stopped: {reason}")),
            SlotState::Waiting { reason } => Some(format!("slot {slot} waits: {reason}")),
            _ => None,
        });
        match (held.or_else(|| self.refused.clone()), lag, self.phase) {
            (Some(held), ..) => f.write_str(&held)?,
            (None, lag, Phase::Building) => write!(f, "being built, {lag} events to go")?,
            (None, 0, _) => f.write_str("up to date")?,
            (None, lag, _) => write!(f, "{lag} events behind")?,
        }
        if self.phase == Phase::Kept {
            f.write_str("; kept to go back to")?;
        }
        match self.parked_keys() {
            0 => Ok(()),
            1 => f.write_str("; 1 key waits for a person"),
            keys => write!(f, "; {keys} keys wait for a person"),
        }
    }
}
