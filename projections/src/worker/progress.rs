//! How far a slot has come, for those who wait for it and those who look.

use std::collections::BTreeMap;
use std::sync::Arc;

use annals_core::{Partition, Position, Token};
use tokio::sync::watch;

/// What a slot is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotState {
    /// It has not begun.
    #[default]
    Starting,
    /// It waits: for its lease, or before it tries again.
    Waiting {
        /// For what.
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

/// How far a slot has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotProgress {
    /// What it is doing.
    pub state: SlotState,
    /// Up to where everything is settled, by partition.
    pub reached: BTreeMap<Partition, Position>,
    /// How far the log went when it was last read, by partition.
    pub head: BTreeMap<Partition, Position>,
    /// Events settled since the worker started.
    pub settled_events: u64,
    /// Keys that wait for a person.
    pub parked_keys: u64,
    /// Whether it was at the head once.
    pub(crate) was_live: bool,
}

impl SlotProgress {
    /// Up to where everything is settled in a partition.
    pub(crate) fn reached_in(&self, partition: Partition) -> Position {
        self.reached.get(&partition).copied().unwrap_or_default()
    }

    /// Whether everything up to a token is settled.
    pub(crate) fn has_reached(&self, token: &Token) -> bool {
        token.positions().all(|(partition, position)| self.reached_in(partition) >= position)
    }
}

/// The writing end.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<watch::Sender<SlotProgress>>);

impl Progress {
    pub(crate) fn new() -> Progress {
        Progress(Arc::new(watch::Sender::default()))
    }

    pub(crate) fn watch(&self) -> watch::Receiver<SlotProgress> {
        self.0.subscribe()
    }

    pub(crate) fn settled(&self) -> u64 {
        self.0.borrow().settled_events
    }

    pub(crate) fn state(&self, state: SlotState) {
        self.0.send_if_modified(|progress| {
            let changed = progress.state != state;
            progress.was_live |= state == SlotState::Live;
            progress.state = state;
            changed
        });
    }

    pub(crate) fn reached(&self, partition: Partition, position: Position) {
        self.0.send_modify(|progress| {
            progress.reached.insert(partition, position);
        });
    }

    pub(crate) fn head(&self, partition: Partition, position: Position) {
        self.0.send_if_modified(|progress| progress.head.insert(partition, position) != Some(position));
    }

    pub(crate) fn settled_to(&self, partition: Partition, position: Position, events: u64) {
        self.0.send_modify(|progress| {
            progress.reached.insert(partition, position);
            progress.settled_events += events;
        });
    }

    pub(crate) fn parked_keys(&self, keys: u64) {
        self.0.send_if_modified(|progress| {
            let changed = progress.parked_keys != keys;
            progress.parked_keys = keys;
            changed
        });
    }
}
