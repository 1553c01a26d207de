//! What people decided to leave out of a view: honoured by every fold, now and in every rebuild.

use std::collections::{HashMap, HashSet};

use annals_core::{EventId, Partition, Position, RecordedEvent, Verdict};

use crate::step::{Handlers, Step, StepError};
use crate::view::View;

/// The verdicts about a view.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeftOut {
    events: HashMap<(Partition, Position), Left>,
}

#[derive(Clone, Debug)]
struct Left {
    // A verdict is about this event, and not about another one that stands there in a log that was restored.
    event: EventId,
    whole: bool,
    keys: HashSet<String>,
}

impl LeftOut {
    pub(crate) fn of(verdicts: Vec<Verdict>) -> LeftOut {
        let mut left_out = LeftOut::default();
        for verdict in verdicts {
            let place = (verdict.partition, verdict.position);
            let nothing = Left { event: verdict.event, whole: false, keys: HashSet::new() };
            let left = left_out.events.entry(place).or_insert(nothing);
            match verdict.key {
                Some(key) => _ = left.keys.insert(key),
                None => left.whole = true,
            }
        }
        left_out
    }

    /// Whether an event is left out for all keys.
    pub(crate) fn is_whole(&self, record: &RecordedEvent) -> bool {
        let left = self.events.get(&(record.partition, record.position));
        left.is_some_and(|left| left.whole && left.event == record.id)
    }

    /// What is left of what a stored event does.
    pub(crate) fn prepare<V: View>(
        &self,
        handlers: &Handlers<V>,
        record: RecordedEvent,
    ) -> Result<Vec<Step<V>>, StepError> {
        let place = (record.partition, record.position);
        let Some(left) = self.events.get(&place).filter(|left| left.event == record.id) else {
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
