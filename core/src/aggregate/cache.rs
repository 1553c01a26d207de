//! States of busy aggregates, and turns: within one process, commands on one aggregate follow one
//! another.
//!
//! A state is put in only after its events were committed. It may lag what other processes wrote;
//! then the append conflicts and the rest of the stream is read.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use hashlink::LruCache;
use tokio::sync::{Mutex as TurnMutex, OwnedMutexGuard};

use super::Aggregate;
use crate::stream::StreamId;

type Slot = Option<Box<dyn Any + Send>>;
type Slots = LruCache<TurnKey, Arc<TurnMutex<Slot>>>;

/// Whose turn: a kind of state, and what it is the state of.
pub(crate) type TurnKey = (StreamId, TypeId);

pub(crate) struct Cache {
    capacity: usize,
    slots: Mutex<Slots>,
}

impl Cache {
    pub(crate) fn new(capacity: usize) -> Cache {
        Cache {
            capacity,
            slots: Mutex::new(LruCache::new(capacity)),
        }
    }

    /// A cache of the same size with nothing in it.
    pub(crate) fn empty(&self) -> Cache {
        Cache::new(self.capacity)
    }

    /// Waits for this process's turn. Two holders at once are possible when the slot was evicted in
    /// between; they only cost each other a conflict.
    pub(crate) async fn turn(&self, key: TurnKey) -> Turn {
        if self.capacity == 0 {
            return Turn {
                slot: Arc::new(TurnMutex::new(None)).lock_owned().await,
            };
        }
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(key).or_insert_with(Arc::default))
        };
        Turn {
            slot: slot.lock_owned().await,
        }
    }

    /// Waits for several turns, one after another in an order that is the same for everybody, so
    /// that no lock waits in a circle.
    pub(crate) async fn turns(&self, mut keys: Vec<TurnKey>) -> Turns {
        keys.sort();
        keys.dedup();
        let mut turns = Turns::default();
        for key in keys {
            let turn = self.turn(key.clone()).await;
            turns.held.insert(key, turn);
        }
        turns
    }
}

/// The turns of a decision over several things, by what they are turns of.
#[derive(Default)]
pub struct Turns {
    held: BTreeMap<TurnKey, Turn>,
}

impl Turns {
    /// What is kept under `key`; nothing also when the turn was passed on.
    pub(crate) fn take<T: Any + Send>(&mut self, key: &TurnKey) -> Option<T> {
        self.held.get_mut(key)?.take()
    }

    pub(crate) fn put<T: Any + Send>(&mut self, key: &TurnKey, kept: T) {
        if let Some(turn) = self.held.get_mut(key) {
            turn.put(kept);
        }
    }

    /// Passes on the turns of everything but these streams.
    pub(crate) fn keep_only(&mut self, streams: &HashSet<&StreamId>) {
        self.held.retain(|(stream, _), _| streams.contains(stream));
    }
}

/// The right to use an aggregate's slot. Dropping it, also in the middle of a command, passes it
/// on.
pub(crate) struct Turn {
    slot: OwnedMutexGuard<Slot>,
}

impl Turn {
    /// The state, out of the slot: when it is not put back the slot stays empty, and the next
    /// one reads the stream.
    pub(crate) fn take<T: Any + Send>(&mut self) -> Option<T> {
        self.slot.take()?.downcast().ok().map(|held| *held)
    }

    pub(crate) fn put<T: Any + Send>(&mut self, held: T) {
        *self.slot = Some(Box::new(held));
    }
}

/// The turn of commands on an aggregate.
pub(crate) fn turn_of<A: Aggregate>(stream: &StreamId) -> TurnKey {
    (stream.clone(), TypeId::of::<A>())
}
