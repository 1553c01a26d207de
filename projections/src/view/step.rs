//! From a stored event to what it does to rows: decoded once, its keys known, the types forgotten.

use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use annals_core::{
    Event, EventKind, Filter, Position, Recorded, RecordedEvent, StreamId, Undecodable,
};
use annals_runner::{Skips, WorkError, chain};

use super::{Poison, Project, Row, View};
use crate::key::{RefusedKey, ViewKey, checked, too_long};

/// The event types of a view, and how each is folded.
///
/// `#[derive(View)]` writes it from `events(…)`:
///
/// ```
/// # use annals_projections::{Handlers, Project, View};
/// # use annals_core::Event;
/// # fn example<Balance: Project<AccountEvent>, AccountEvent: Event>() -> Handlers<Balance> {
/// Handlers::new().on::<AccountEvent>()
/// # }
/// ```
pub struct Handlers<V: View> {
    // In the order of their registration.
    prepares: Vec<Prepare<V>>,
    of: EventTypes,
}

/// The event types of a view. The view is not in the type, so that the maps are compiled once.
#[derive(Default)]
struct EventTypes {
    // The types that read a stored name, by their numbers in the order of their registration.
    by_name: BTreeMap<&'static str, Vec<usize>>,
    types: Vec<TypeId>,
    kinds: Vec<EventKind>,
    categories: BTreeSet<&'static str>,
    summaries: Vec<&'static str>,
}

type Prepare<V> = fn(RecordedEvent) -> Result<Vec<Step<V>>, StepError>;

/// What one event does: its keys, and the fold.
pub(crate) struct Step<V: View> {
    pub(crate) keys: Vec<String>,
    // Of those: short ones of keys that are too long, and what is wrong with these.
    refused: Vec<RefusedKey>,
    event: Arc<dyn Fold<V>>,
}

trait Fold<V: View>: Send + Sync {
    fn record(&self) -> &RecordedEvent;
    fn apply(&self, row: &mut Row<'_, V>) -> Result<(), Poison>;
}

struct Typed<E>(Recorded<E>);

impl<V: Project<E>, E: Event> Fold<V> for Typed<E> {
    fn record(&self) -> &RecordedEvent {
        &self.0.record
    }

    fn apply(&self, row: &mut Row<'_, V>) -> Result<(), Poison> {
        V::on(row, &self.0)
    }
}

/// An event whose key is unknown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    #[error("the event at {} (id {}) has no key: {reason}", .record.shown_place(), .record.id)]
    NoKey {
        record: Box<RecordedEvent>,
        reason: String,
    },
    #[error(
        "the event at position {position} changes rows {keys:?} of inline view `{view}`, and not \
         only that of its stream `{stream}`"
    )]
    OtherKey {
        view: &'static str,
        position: Position,
        stream: StreamId,
        keys: Vec<String>,
    },
}

impl From<StepError> for WorkError {
    fn from(error: StepError) -> WorkError {
        WorkError::Stopped(chain(&error))
    }
}

impl EventTypes {
    /// Whether it was not there yet.
    fn add(&mut self, id: TypeId, kind: EventKind, summaries: &[&'static str]) -> bool {
        if self.types.contains(&id) {
            return false;
        }
        let number = self.types.len();
        self.types.push(id);
        let shapes = kind.shapes().iter();
        let names: BTreeSet<_> = shapes.map(|shape| shape.event_type).collect();
        for name in names {
            self.by_name.entry(name).or_default().push(number);
        }
        self.categories.insert(kind.category());
        self.summaries.extend(summaries);
        self.kinds.push(kind);
        true
    }

    /// The numbers of the types that read a stored name.
    fn readers(&self, name: &str) -> &[usize] {
        self.by_name
            .get(name)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// The category of the streams, when there is one for all types.
    fn category(&self) -> Option<&'static str> {
        self.categories
            .first()
            .copied()
            .filter(|_| self.categories.len() == 1)
    }

    fn names(&self) -> Vec<String> {
        self.by_name.keys().map(|name| (*name).into()).collect()
    }

    fn filter(&self) -> Filter {
        Filter::default().types(self.by_name.keys().copied())
    }
}

impl<V: View> Handlers<V> {
    /// Of no event type yet.
    pub fn new() -> Handlers<V> {
        Handlers {
            prepares: Vec::new(),
            of: EventTypes::default(),
        }
    }

    /// Also of `E`.
    #[must_use]
    pub fn on<E: Event>(mut self) -> Handlers<V>
    where
        V: Project<E>,
    {
        let kind = EventKind::of::<E>();
        if self.of.add(TypeId::of::<E>(), kind, V::SUMMARIES) {
            self.prepares.push(prepare::<V, E>);
        }
        self
    }

    /// The category of the streams, when there is one for all types.
    pub(crate) fn category(&self) -> Option<&'static str> {
        self.of.category()
    }

    /// The key of the row that is folded from a stream and from no other.
    pub(crate) fn own_key(&self, stream: &StreamId) -> Option<String> {
        if self.category() != Some(stream.category()) {
            return None;
        }
        let own = annals_runner::contained(|| {
            let key = V::Key::from_stream_id(stream.id())?;
            let is_back = key.to_stream_id().as_deref() == Some(stream.id());
            checked(&key).ok().filter(|_| is_back)
        });
        own.ok().flatten()
    }

    /// Refuses an event that changes another row than that of its stream.
    pub(crate) fn check_own_stream(&self, step: &Step<V>) -> Result<(), StepError> {
        let record = step.record();
        let own = self.own_key(&record.stream);
        if step.keys.iter().all(|key| Some(key) == own.as_ref()) {
            return Ok(());
        }
        let position = record.position;
        let stream = record.stream.clone();
        let keys = step.keys.clone();
        Err(StepError::OtherKey {
            view: V::NAME,
            position,
            stream,
            keys,
        })
    }

    /// The stored names of the types, in order.
    pub fn types(&self) -> Vec<String> {
        self.of.names()
    }

    /// The same, as the types have them.
    #[cfg(feature = "streams")]
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.of.by_name.keys().copied()
    }

    /// The stored names of events that replace everything before them in their stream.
    pub(crate) fn summaries(&self) -> &[&'static str] {
        &self.of.summaries
    }

    /// The types themselves, for tools.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = &EventKind> {
        self.of.kinds.iter()
    }

    /// What the log is read through.
    pub(crate) fn filter(&self) -> Filter {
        self.of.filter()
    }

    /// What a stored event does; nothing when the view does not handle its type.
    pub(crate) fn prepare(&self, record: RecordedEvent) -> Result<Vec<Step<V>>, StepError> {
        match self.of.readers(&record.event_type) {
            [] => Ok(Vec::new()),
            [number] => (self.prepares[*number])(record),
            // Several types of the program read this stored name, and each has its say.
            several => {
                let mut steps = Vec::new();
                for number in several {
                    steps.extend((self.prepares[*number])(record.clone())?);
                }
                Ok(steps)
            }
        }
    }
}

impl<V: View> Handlers<V> {
    /// What a stored event does, without the keys for which operators skipped it.
    pub(crate) fn prepare_except(
        &self,
        skips: &Skips,
        record: RecordedEvent,
    ) -> Result<Vec<Step<V>>, StepError> {
        if skips.for_all_keys(&record) {
            return Ok(Vec::new());
        }
        let Some(skipped) = skips.keys(&record) else {
            return self.prepare(record);
        };
        let mut steps = self.prepare(record)?;
        for step in &mut steps {
            step.keys.retain(|key| !skipped.contains(key));
        }
        steps.retain(|step| !step.keys.is_empty());
        Ok(steps)
    }
}

impl<V: View> Default for Handlers<V> {
    fn default() -> Handlers<V> {
        Handlers::new()
    }
}

impl<V: View> fmt::Debug for Handlers<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.of.by_name.keys()).finish()
    }
}

/// An event as one or several of a type.
pub(crate) fn decode<E: Event>(record: RecordedEvent) -> Result<Vec<Recorded<E>>, StepError> {
    Ok(Recorded::<E>::decode(record)?.into_iter().collect())
}

fn prepare<V: Project<E>, E: Event>(record: RecordedEvent) -> Result<Vec<Step<V>>, StepError> {
    let mut steps = Vec::with_capacity(1);
    // Not by way of a list of events: a record is large.
    for event in Recorded::<E>::decode(record)? {
        let found = contained(|| {
            let keys = V::keys(&event)?;
            Ok(keys.iter().map(ViewKey::to_key).collect::<Vec<_>>())
        });
        match found {
            Ok(mut keys) => {
                let mut refused = Vec::new();
                for key in &mut keys {
                    if let Some(long) = too_long(key) {
                        key.clone_from(&long.short);
                        refused.push(long);
                    }
                }
                keys.sort_unstable();
                keys.dedup();
                steps.push(Step {
                    keys,
                    refused,
                    event: Arc::new(Typed(event)),
                });
            }
            Err(poison) => {
                return Err(StepError::NoKey {
                    reason: poison.reason().into(),
                    record: Box::new(event.record),
                });
            }
        }
    }
    Ok(steps)
}

impl<V: View> Step<V> {
    pub(crate) fn record(&self) -> &RecordedEvent {
        self.event.record()
    }

    /// The same event for some of its keys, if there are any.
    pub(crate) fn of_keys(&self, is_one: impl Fn(&String) -> bool) -> Option<Step<V>> {
        let keys: Vec<_> = self
            .keys
            .iter()
            .filter(|key| is_one(key))
            .cloned()
            .collect();
        (!keys.is_empty()).then(|| Step {
            keys,
            refused: self.refused.clone(),
            event: Arc::clone(&self.event),
        })
    }

    /// Whether it changes the row of this key.
    pub(crate) fn is_about(&self, key: &str) -> bool {
        self.keys.iter().any(|of| of == key)
    }

    /// Folds the event into a row. A panic is a poison, not a dead worker.
    pub(crate) fn apply(&self, row: &mut Row<'_, V>) -> Result<(), Poison> {
        if let Some(refused) = self.refused.iter().find(|of| of.short == row.key_text()) {
            return Err(Poison::new(refused.reason.clone()));
        }
        contained(|| self.event.apply(row))
    }
}

/// Runs a user's code; a panic of it is a poison.
pub(crate) fn contained<T>(run: impl FnOnce() -> Result<T, Poison>) -> Result<T, Poison> {
    annals_runner::contained(run).unwrap_or_else(|panic| Err(Poison::new(panic)))
}
