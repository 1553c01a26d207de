//! Keys in dead letters, as operators see them.

use annals_core::chrono::{DateTime, Utc};
use annals_core::{DeadLetter, EventId, Partition, Position};

/// A key in dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterKey<K = String> {
    /// The key.
    pub key: K,
    /// Why its first dead letter could not be handled.
    pub reason: String,
    /// The partition of that event.
    pub partition: Partition,
    /// Its position.
    pub position: Position,
    /// Its id.
    pub event: EventId,
    /// How often it was tried.
    pub attempts: u32,
    /// When it became a dead letter.
    pub dead_since: DateTime<Utc>,
    /// How many events are queued after it.
    pub queued: u64,
}

/// What came of a decision about dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settled {
    /// Events that were handled or skipped.
    pub events: u64,
    /// The first dead letter of a key now; nothing when all is well.
    pub still: Option<DeadLetter>,
}

impl Settled {
    /// Takes in what came of the same decision in another generation, where nothing came of it
    /// until now.
    pub(super) fn or_of(self, another: Settled) -> Settled {
        let events = match self.events {
            0 => another.events,
            events => events,
        };
        Settled {
            events,
            still: self.still.or(another.still),
        }
    }
}

impl DeadLetterKey {
    pub(super) fn first(letter: DeadLetter) -> DeadLetterKey {
        DeadLetterKey {
            key: letter.key,
            reason: letter.reason.unwrap_or_default(),
            partition: letter.partition,
            position: letter.position,
            event: letter.event,
            attempts: letter.attempts,
            dead_since: letter.dead_since,
            queued: 0,
        }
    }

    /// Takes in the next event of the queue. The one with the reason need not be in the first
    /// partition.
    pub(super) fn next(&mut self, letter: DeadLetter) {
        let queued = self.queued + 1;
        if self.reason.is_empty() && letter.reason.is_some() {
            *self = DeadLetterKey::first(letter);
        }
        self.queued = queued;
    }
}

impl<K> DeadLetterKey<K> {
    /// The same under another form of the key.
    pub fn with_key<L>(self, key: L) -> DeadLetterKey<L> {
        DeadLetterKey {
            key,
            reason: self.reason,
            partition: self.partition,
            position: self.position,
            event: self.event,
            attempts: self.attempts,
            dead_since: self.dead_since,
            queued: self.queued,
        }
    }
}
