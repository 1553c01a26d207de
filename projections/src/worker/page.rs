//! A page of the log as what its events do, for all slots: decoded once in a process.

use std::any::Any;
use std::sync::{Mutex, MutexGuard, PoisonError};

use annals_core::chrono::{DateTime, Utc};
use annals_core::{EventId, Head, LogPage, Partition, Position, RecordedEvent, Removed};
use annals_runner::{SharedPage, Skips, chain, slot_of};

use crate::view::step::{Step, StepError};
use crate::view::{Handlers, View};

/// What the events of a page do. The view is not in the type, so that reading ahead and sharing
/// pages are compiled once.
pub(crate) struct ViewPage {
    pub(super) read: ReadPage,
    steps: Box<dyn PageSteps>,
}

trait PageSteps: Any + Send + Sync {
    /// Whether a slot has not taken what is its own.
    fn is_for(&self, slot: u16) -> bool;
}

/// By slot, until that takes it.
struct SlotSteps<V: View>(Vec<Mutex<Option<Vec<Step<V>>>>>);

impl<V: View> SlotSteps<V> {
    fn lock(&self, slot: u16) -> Option<MutexGuard<'_, Option<Vec<Step<V>>>>> {
        let steps = self.0.get(usize::from(slot))?;
        Some(steps.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<V: View> PageSteps for SlotSteps<V> {
    fn is_for(&self, slot: u16) -> bool {
        self.lock(slot).is_some_and(|steps| steps.is_some())
    }
}

/// What of a page does not depend on the view.
pub(super) struct ReadPage {
    pub(super) head: Head,
    pub(super) scanned: Position,
    pub(super) end: bool,
    removed: Vec<Removed>,
    /// The last event that was scanned, if it is of the view.
    pub(super) last: Option<EventId>,
    /// By position: when each was recorded, and the bytes of its payload.
    events: Vec<(Position, DateTime<Utc>, usize)>,
    /// Events whose keys are unknown, in order.
    unknown: Vec<((Partition, EventId), Unknown)>,
}

/// What a slot takes of a page.
pub(super) struct Taken<V: View> {
    pub(super) steps: Vec<Step<V>>,
    pub(super) bytes: usize,
    /// An event that stops the view: what comes before it was taken.
    pub(super) stuck: Option<Unknown>,
}

/// An event that cannot be given to a key.
#[derive(Clone)]
pub(super) struct Unknown {
    pub(super) position: Position,
    pub(super) recorded_at: DateTime<Utc>,
    pub(super) reason: String,
}

impl ReadPage {
    /// Of a page whose events are still to be read.
    fn of(page: &mut LogPage) -> ReadPage {
        let last = page.events.last();
        let last = last.filter(|last| last.position == page.scanned);
        let last = last.map(|last| last.id);
        let events = page.events.iter();
        let events = events.map(|of| (of.position, of.recorded_at, of.payload.len()));
        ReadPage {
            head: page.head,
            scanned: page.scanned,
            end: page.end,
            last,
            events: events.collect(),
            removed: std::mem::take(&mut page.removed),
            unknown: Vec::new(),
        }
    }

    /// Whether nothing of it is after this position.
    pub(super) fn is_empty_after(&self, after: Position) -> bool {
        self.events.last().is_none_or(|(last, ..)| *last <= after)
    }

    /// When the first event after this position was recorded.
    pub(super) fn oldest_after(&self, after: Position) -> Option<DateTime<Utc>> {
        let mut events = self.events.iter();
        let first = events.find(|(position, ..)| *position > after);
        first.map(|(_, recorded_at, _)| *recorded_at)
    }

    /// What was removed after this position.
    pub(super) fn removed_after(&self, after: Position) -> Vec<Removed> {
        let removed = self.removed.iter().filter(|of| of.last > after);
        removed.cloned().collect()
    }

    /// The bytes of the payloads after this position.
    fn bytes_after(&self, after: Position) -> usize {
        let events = self.events.iter();
        let events = events.filter(|(position, ..)| *position > after);
        events.map(|(_, _, bytes)| bytes).sum()
    }

    /// The first event after this position whose keys are unknown, and that no operator skipped.
    fn stuck_after(&self, after: Position, skips: &Skips) -> Option<Unknown> {
        let unknown = self.unknown.iter().find(|((partition, event), of)| {
            let at = (*partition, of.position);
            of.position > after && !skips.for_all_keys_at(at, *event)
        });
        unknown.map(|(_, of)| of.clone())
    }
}

impl ViewPage {
    /// What the events of a page do in so many slots; `inline` ones change their own streams' rows.
    pub(super) fn of<V: View>(
        mut page: LogPage,
        handlers: &Handlers<V>,
        slots: u16,
        inline: bool,
    ) -> ViewPage {
        let mut read = ReadPage::of(&mut page);
        let slots = usize::from(slots.max(1));
        let of_slot = page.events.len() / slots;
        let mut steps: Vec<Vec<Step<V>>> =
            (0..slots).map(|_| Vec::with_capacity(of_slot)).collect();
        for record in page.events {
            let of = (record.partition, record.id);
            let position = record.position;
            let recorded_at = record.recorded_at;
            match prepared(handlers, record, inline) {
                Ok(prepared) => prepared
                    .into_iter()
                    .for_each(|step| divide(step, &mut steps)),
                Err(error) => {
                    let reason = chain(&error);
                    let at = Unknown {
                        position,
                        recorded_at,
                        reason,
                    };
                    read.unknown.push((of, at));
                }
            }
        }
        let steps = steps.into_iter().map(|of| Mutex::new(Some(of)));
        let steps = SlotSteps(steps.collect());
        ViewPage {
            read,
            steps: Box::new(steps),
        }
    }

    /// What a slot does that has everything up to `after`, without what operators skipped.
    pub(super) fn take<V: View>(&self, slot: u16, after: Position, skips: &Skips) -> Taken<V> {
        let all: &dyn Any = &*self.steps;
        let all = all
            .downcast_ref::<SlotSteps<V>>()
            .expect("a slot takes from the pages of its own view");
        let stuck = self.read.stuck_after(after, skips);
        let ends = stuck
            .as_ref()
            .map_or(Position::MAX, |of| of.position.minus(1));
        let mut steps = all
            .lock(slot)
            .and_then(|mut steps| steps.take())
            .unwrap_or_default();
        steps.retain_mut(|step| {
            let record = step.record();
            let is_taken = record.position > after && record.position <= ends;
            if !is_taken || skips.for_all_keys(record) {
                return false;
            }
            if let Some(skipped) = skips.keys(record).cloned() {
                step.keys.retain(|key| !skipped.contains(key));
            }
            !step.keys.is_empty()
        });
        Taken {
            steps,
            bytes: self.read.bytes_after(after),
            stuck,
        }
    }
}

fn prepared<V: View>(
    handlers: &Handlers<V>,
    record: RecordedEvent,
    inline: bool,
) -> Result<Vec<Step<V>>, StepError> {
    let steps = handlers.prepare(record)?;
    if inline {
        let mut all = steps.iter();
        all.try_for_each(|step| handlers.check_own_stream(step))?;
    }
    Ok(steps)
}

/// Gives each slot the keys that are its own.
fn divide<V: View>(step: Step<V>, slots: &mut [Vec<Step<V>>]) {
    let count = slots.len() as u16;
    let slot = |key: &String| if count < 2 { 0 } else { slot_of(key, count) };
    let Some(first) = step.keys.first().map(slot) else {
        return;
    };
    if step.keys.iter().all(|key| slot(key) == first) {
        slots[usize::from(first)].push(step);
        return;
    }
    for (number, steps) in (0..count).zip(slots) {
        let of_slot = step.of_keys(|key| slot_of(key, count) == number);
        steps.extend(of_slot);
    }
}

impl SharedPage for ViewPage {
    fn scanned(&self) -> Position {
        self.read.scanned
    }

    fn is_end(&self) -> bool {
        self.read.end
    }

    fn is_for(&self, slot: u16) -> bool {
        self.steps.is_for(slot)
    }
}
