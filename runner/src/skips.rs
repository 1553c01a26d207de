//! Events that operators decided to skip: honoured by every fold, now and in every rebuild.

use std::collections::{HashMap, HashSet};

use annals_core::{DeadLetter, EventId, Partition, Position, RecordedEvent, SkipDecision};

/// The skip decisions about one view, reactor or process manager.
#[derive(Clone, Debug, Default)]
pub struct Skips {
    // A decision is about an event, and not about another one at its position in a log that was
    // restored.
    events: HashMap<(Partition, Position, EventId), SkippedEvent>,
}

#[derive(Clone, Debug, Default)]
struct SkippedEvent {
    for_all_keys: bool,
    keys: HashSet<String>,
}

impl Skips {
    /// Of these decisions.
    pub fn of(decisions: Vec<SkipDecision>) -> Skips {
        let mut skips = Skips::default();
        for decision in decisions {
            let of = (decision.partition, decision.position, decision.event);
            let skipped = skips.events.entry(of).or_default();
            match decision.key {
                Some(key) => _ = skipped.keys.insert(key),
                None => skipped.for_all_keys = true,
            }
        }
        skips
    }

    fn find(&self, record: &RecordedEvent) -> Option<&SkippedEvent> {
        self.find_at((record.partition, record.position), record.id)
    }

    fn find_at(&self, at: (Partition, Position), event: EventId) -> Option<&SkippedEvent> {
        let (partition, position) = at;
        self.events.get(&(partition, position, event))
    }

    /// Whether the event at a place is skipped for all keys.
    pub fn for_all_keys_at(&self, at: (Partition, Position), event: EventId) -> bool {
        self.find_at(at, event)
            .is_some_and(|skipped| skipped.for_all_keys)
    }

    /// Whether an event is skipped for all keys.
    pub fn for_all_keys(&self, record: &RecordedEvent) -> bool {
        self.find(record)
            .is_some_and(|skipped| skipped.for_all_keys)
    }

    /// The keys for which an event is skipped, if there are any.
    pub fn keys(&self, record: &RecordedEvent) -> Option<&HashSet<String>> {
        self.find(record)
            .map(|skipped| &skipped.keys)
            .filter(|keys| !keys.is_empty())
    }

    /// Whether the event of a dead letter is skipped for its key, also when it is in the log no
    /// more.
    pub fn for_dead_letter(&self, letter: &DeadLetter) -> bool {
        self.find_at((letter.partition, letter.position), letter.event)
            .is_some_and(|skipped| skipped.for_all_keys || skipped.keys.contains(&letter.key))
    }

    /// Whether an event is skipped for a key.
    pub fn for_key(&self, record: &RecordedEvent, key: &str) -> bool {
        self.find(record)
            .is_some_and(|skipped| skipped.for_all_keys || skipped.keys.contains(key))
    }
}

/// What an operator calls to skip an event of a log of so many partitions: where there are several,
/// a position alone names no event.
///
/// ```
/// assert_eq!(annals_runner::skip_call(1), "skip_event");
/// assert_eq!(annals_runner::skip_call(3), "skip_event_in");
/// ```
pub fn skip_call(partitions: u32) -> &'static str {
    match partitions {
        1 => "skip_event",
        _ => "skip_event_in",
    }
}

#[cfg(test)]
mod tests {
    use annals_core::{Clock, SystemClock};

    use super::*;

    #[test]
    fn a_decision_is_about_its_event_and_no_other_there() {
        let before = EventId::random();
        let now = EventId::random();
        let decision = |event, key: &str| SkipDecision {
            view: "balances".into(),
            partition: Partition(0),
            position: Position::new(7),
            event,
            key: Some(key.into()),
            reason: "a test".into(),
            decided_at: SystemClock.now(),
        };
        let letter = |event, key: &str| DeadLetter {
            key: key.into(),
            partition: Partition(0),
            position: Position::new(7),
            event,
            reason: None,
            attempts: 0,
            dead_since: SystemClock.now(),
        };
        // The log was restored and went on: another event is at the position.
        let skips = Skips::of(vec![decision(before, "alice"), decision(now, "bob")]);
        for (event, key, skipped) in [
            (before, "alice", true),
            (before, "bob", false),
            (now, "alice", false),
            (now, "bob", true),
        ] {
            assert_eq!(skips.for_dead_letter(&letter(event, key)), skipped, "{key}");
        }
    }
}
