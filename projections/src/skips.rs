//! What operator decided to leave out of a view: honoured by every fold, now and in every rebuild.

use std::collections::{HashMap, HashSet};

use annals_core::{EventId, Partition, Position, RecordedEvent, SkipDecision};

use crate::step::{Handlers, Step, StepError};
use crate::view::View;

/// The skip_decisions about a view.
#[derive(Clone, Debug, Default)]
pub(crate) struct Skips {
    events: HashMap<(Partition, Position), Left>,
}

#[derive(Clone, Debug)]
struct Left {
    // A skip_decision is about this event, and not about another one that stands there in a log
    // that was restored.
    event: EventId,
    whole: bool,
    keys: HashSet<String>,
}

impl Skips {
    pub(crate) fn of(skip_decisions: Vec<SkipDecision>) -> Skips {
        let mut skips = Skips::default();
        for skip_decision in skip_decisions {
            let place = (skip_decision.partition, skip_decision.position);
            let nothing = Left {
                event: skip_decision.event,
                whole: false,
                keys: HashSet::new(),
            };
            let left = skips.events.entry(place).or_insert(nothing);
            match skip_decision.key {
                Some(key) => _ = left.keys.insert(key),
                None => left.whole = true,
            }
        }
        skips
    }

    fn left(&self, record: &RecordedEvent) -> Option<&Left> {
        self.events
            .get(&(record.partition, record.position))
            .filter(|left| left.event == record.id)
    }

    /// Whether an event is left out for all keys.
    pub(crate) fn is_whole(&self, record: &RecordedEvent) -> bool {
        self.left(record).is_some_and(|left| left.whole)
    }

    /// The keys for which an event is left out, if there are any.
    pub(crate) fn keys(&self, record: &RecordedEvent) -> Option<&HashSet<String>> {
        self.left(record).map(|left| &left.keys)
    }

    /// Whether an event is left out for a key.
    pub(crate) fn is_left(&self, record: &RecordedEvent, key: &str) -> bool {
        self.left(record)
            .is_some_and(|left| left.whole || left.keys.contains(key))
    }

    /// What is left of what a stored event does.
    pub(crate) fn prepare<V: View>(
        &self,
        handlers: &Handlers<V>,
        record: RecordedEvent,
    ) -> Result<Vec<Step<V>>, StepError> {
        let Some(left) = self.left(&record) else {
            return handlers.prepare(record);
        };
        if left.whole {
            return Ok(Vec::new());
        }
        let mut steps = handlers.prepare(record)?;
        for step in &mut steps {
            step.keys.retain(|key| !left.keys.contains(key));
        }
        steps.retain(|step| !step.keys.is_empty());
        Ok(steps)
    }
}
