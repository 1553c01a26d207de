//! What a projection does, how far it has come, and what holds it: for people, and for those who wait.

use std::fmt;
use std::time::Duration;

use annals_core::{Generation, Partition, Phase, Position, Token};
use tokio::sync::watch;

use crate::program::StartError;
use crate::worker::{SlotProgress, SlotState};

/// Whether a generation has been built.
#[derive(Clone, Debug)]
pub(crate) struct BuildProgress {
    pub(crate) done: bool,
}

impl BuildProgress {
    pub(crate) fn of(generation: &Generation) -> BuildProgress {
        BuildProgress { done: generation.phase == Phase::Live }
    }
}

/// A projection that runs in this process.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    view: &'static str,
    generation: Generation,
    slots: Vec<watch::Receiver<SlotProgress>>,
    build: watch::Receiver<BuildProgress>,
}

impl Running {
    pub(crate) fn new(
        view: &'static str,
        generation: Generation,
        slots: Vec<watch::Receiver<SlotProgress>>,
        build: watch::Receiver<BuildProgress>,
    ) -> Running {
        Running { view, generation, slots, build }
    }

    pub(crate) fn view(&self) -> &'static str {
        self.view
    }

    pub(crate) fn generation(&self) -> &Generation {
        &self.generation
    }

    pub(crate) fn is_built(&self) -> bool {
        self.build.borrow().done
    }

    /// Returns when the generation was switched to; an error when a slot stopped before.
    pub(crate) async fn wait_until_built(&self) -> Result<(), StartError> {
        let mut build = self.build.clone();
        let stopped = self.stopped();
        tokio::select! {
            _ = build.wait_for(|build| build.done) => Ok(()),
            reason = stopped => Err(StartError::Stopped { view: self.view, reason }),
        }
    }

    /// Returns when a slot stopped, with its reason.
    async fn stopped(&self) -> String {
        let mut waits = tokio::task::JoinSet::new();
        for slot in &self.slots {
            let mut slot = slot.clone();
            waits.spawn(async move {
                let stopped = slot.wait_for(|progress| matches!(progress.state, SlotState::Stopped { .. })).await;
                match stopped.map(|progress| progress.state.clone()) {
                    Ok(SlotState::Stopped { reason }) => reason,
                    _ => std::future::pending().await,
                }
            });
        }
        match waits.join_next().await {
            Some(Ok(reason)) => reason,
            _ => std::future::pending().await,
        }
    }

    /// Returns when every slot has come to these positions, by partition.
    pub(crate) async fn wait_for(&self, heads: &[Position]) {
        for slot in &self.slots {
            let mut slot = slot.clone();
            let there = slot.wait_for(|progress| {
                (0..).zip(heads).all(|(partition, head)| reached(progress, Partition(partition)) >= *head)
            });
            if there.await.is_err() {
                // Its worker is gone, and with it the program.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns when some slot has moved, or after `at_most`.
    pub(crate) async fn moved(&self, at_most: Duration) {
        let mut waits = tokio::task::JoinSet::new();
        for slot in &self.slots {
            let mut slot = slot.clone();
            slot.mark_unchanged();
            waits.spawn(async move { slot.changed().await.is_ok() });
        }
        let _ = tokio::time::timeout(at_most, waits.join_next()).await;
    }

    pub(crate) fn has_reached(&self, token: &Token) -> bool {
        self.slots.iter().all(|slot| {
            let progress = slot.borrow();
            token.positions().all(|(partition, position)| reached(&progress, partition) >= position)
        })
    }

    pub(crate) fn status(&self) -> Status {
        Status {
            view: self.view.into(),
            version: self.generation.spec.version,
            generation: self.generation.id.0,
            built: self.is_built(),
            slots: self.slots.iter().map(|slot| slot.borrow().clone()).collect(),
        }
    }
}

fn reached(progress: &SlotProgress, partition: Partition) -> Position {
    progress.reached.get(&partition).copied().unwrap_or_default()
}

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
    /// The generation that this program follows.
    pub generation: u64,
    /// Whether readers see it.
    pub built: bool,
    /// Its slots, in order.
    pub slots: Vec<SlotProgress>,
}

impl Status {
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
        self.head.iter().map(|(partition, head)| head.get().saturating_sub(reached(self, *partition).get())).sum()
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
        match (held, lag, self.built) {
            (Some(held), ..) => f.write_str(&held)?,
            (None, lag, false) => write!(f, "being built, {lag} events to go")?,
            (None, 0, true) => f.write_str("up to date")?,
            (None, lag, true) => write!(f, "{lag} events behind")?,
        }
        match self.parked_keys() {
            0 => Ok(()),
            1 => f.write_str("; 1 key waits for a person"),
            keys => write!(f, "; {keys} keys wait for a person"),
        }
    }
}
