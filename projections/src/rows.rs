//! The rows that a worker has at hand, and the fold of a batch onto them. Pure: what is missing is fetched before, what has
//! changed is written after.

use std::collections::{HashMap, HashSet};

use annals_core::{Keeps, Parked, Position, RecordedEvent, RowChange, RowVersion, chrono};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use hashlink::LruCache;

use crate::step::Step;
use crate::view::{Poison, Row, View};

/// Events after which a view with history keeps what its rows are, also inside a larger batch: the most that a question about a
/// moment folds again.
pub(crate) const RUN_EVENTS: usize = 1_024;

/// Rows of one slot, as of the last batch. Thrown away whole when a commit fails.
pub(crate) struct Rows<V> {
    cached: LruCache<String, Cached<V>>,
    kept_max: usize,
}

struct Cached<V> {
    value: Option<V>,
    // As the store has it: what a poisoned row goes back to, and what tells that nothing changed.
    stored: Option<Bytes>,
}

/// Where a batch begins and ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) after: Position,
    pub(crate) up_to: Position,
    pub(crate) recorded_at: DateTime<Utc>,
}

/// What a batch changes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) rows: Vec<RowChange>,
    pub(crate) versions: Vec<RowVersion>,
    pub(crate) touched: Vec<(String, Position)>,
    pub(crate) park: Vec<Parked>,
}

/// A row that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the row `{key}` of view `{view}` cannot be written")]
pub(crate) struct Unwritable {
    view: &'static str,
    key: String,
    source: serde_json::Error,
}

impl<V: View> Rows<V> {
    pub(crate) fn keeping(kept_max: usize) -> Rows<V> {
        Rows { cached: LruCache::new_unbounded(), kept_max }
    }

    /// Lets go of the rows that were not used for longest.
    pub(crate) fn trim(&mut self) {
        while self.cached.len() > self.kept_max {
            self.cached.remove_lru();
        }
    }

    /// The keys that `steps` need and that are not at hand, each once.
    pub(crate) fn missing(&mut self, steps: &[Step<V>]) -> Vec<String> {
        let mut missing = HashSet::new();
        for key in steps.iter().flat_map(|step| &step.keys) {
            if self.cached.get(key).is_none() && !missing.contains(key) {
                missing.insert(key.clone());
            }
        }
        missing.into_iter().collect()
    }

    /// Takes in what the store has for a key.
    pub(crate) fn learn(&mut self, key: String, stored: Option<Bytes>) -> Result<(), Unwritable> {
        let value = decoded(&key, stored.as_ref())?;
        self.cached.insert(key, Cached { value, stored });
        Ok(())
    }

    /// Folds a batch whose keys are all at hand. `parked` are the keys that wait for a person; it grows.
    pub(crate) fn fold(
        &mut self,
        steps: &[Step<V>],
        extent: Extent,
        parked: &mut HashSet<String>,
        now: DateTime<Utc>,
    ) -> Result<Changes, Unwritable> {
        let mut changes = Changes::default();
        let mut dirty = HashSet::new();
        let mut run = (extent.after, HashSet::new());
        let keeps_history = V::KEEPS != Keeps::Present;
        for (index, step) in steps.iter().enumerate() {
            let record = step.record();
            for key in &step.keys {
                let poison = match parked.contains(key) {
                    true => None,
                    false => match self.apply(key, step) {
                        Ok(()) => {
                            if keeps_history {
                                run.1.insert(key.clone());
                            }
                            if V::KEEPS == Keeps::Bitemporal {
                                changes.touched.push((key.clone(), record.position));
                            }
                            dirty.insert(key.clone());
                            continue;
                        }
                        Err(poison) => {
                            self.go_back(key, &steps[..index])?;
                            parked.insert(key.clone());
                            Some(poison)
                        }
                    },
                };
                changes.park.push(set_aside(key, record, poison, now));
            }
            if keeps_history && (index + 1) % RUN_EVENTS == 0 {
                let end = (record.position, record.recorded_at);
                self.keep_versions(&mut run, end, &mut changes)?;
            }
        }
        if keeps_history {
            self.keep_versions(&mut run, (extent.up_to, extent.recorded_at), &mut changes)?;
        }
        for key in dirty {
            self.keep_row(key, &mut changes)?;
        }
        Ok(changes)
    }

    fn apply(&mut self, key: &str, step: &Step<V>) -> Result<(), Poison> {
        let Some(cached) = self.cached.get_mut(key) else {
            return Err(Poison::new("the row was not at hand"));
        };
        let existed = cached.value.is_some();
        let mut value = cached.value.take().unwrap_or_default();
        let mut row = Row::new(key, &mut value, existed);
        step.apply(&mut row)?;
        let removed = row.was_removed();
        cached.value = (!removed).then_some(value);
        Ok(())
    }

    /// Undoes what a poisoned event began: the row as stored, and the events of this batch before it once more.
    fn go_back(&mut self, key: &str, before: &[Step<V>]) -> Result<(), Unwritable> {
        if let Some(cached) = self.cached.get_mut(key) {
            cached.value = decoded(key, cached.stored.as_ref())?;
        }
        for step in before.iter().filter(|step| step.keys.iter().any(|of| of == key)) {
            // It went well a moment ago, and nothing but the row and the event is looked at.
            if let Err(poison) = self.apply(key, step) {
                tracing::warn!(view = V::NAME, key, reason = poison.reason(), "a fold gave two answers to one event");
            }
        }
        Ok(())
    }

    fn keep_versions(
        &mut self,
        run: &mut (Position, HashSet<String>),
        (up_to, recorded_at): (Position, DateTime<Utc>),
        changes: &mut Changes,
    ) -> Result<(), Unwritable> {
        let mut keys: Vec<_> = run.1.drain().collect();
        keys.sort_unstable();
        for key in keys {
            let value = self.encoded(&key)?;
            changes.versions.push(RowVersion { key, after: run.0, up_to, recorded_at, value });
        }
        run.0 = up_to;
        Ok(())
    }

    fn keep_row(&mut self, key: String, changes: &mut Changes) -> Result<(), Unwritable> {
        let value = self.encoded(&key)?;
        let Some(cached) = self.cached.get_mut(&key) else { return Ok(()) };
        if cached.stored == value {
            return Ok(());
        }
        cached.stored = value.clone();
        let indexed = cached.value.as_ref().map(View::indexed).unwrap_or_default();
        changes.rows.push(RowChange { key, value, indexed });
        Ok(())
    }

    fn encoded(&mut self, key: &str) -> Result<Option<Bytes>, Unwritable> {
        let Some(value) = self.cached.get(key).and_then(|cached| cached.value.as_ref()) else { return Ok(None) };
        encode(key, value).map(Some)
    }
}

/// A row as it is stored: JSON, fields in the order of the type.
pub(crate) fn encode<V: View>(key: &str, value: &V) -> Result<Bytes, Unwritable> {
    match serde_json::to_vec(value) {
        Ok(bytes) => Ok(bytes.into()),
        Err(source) => Err(Unwritable { view: V::NAME, key: key.into(), source }),
    }
}

pub(crate) fn decoded<V: View>(key: &str, stored: Option<&Bytes>) -> Result<Option<V>, Unwritable> {
    let Some(bytes) = stored else { return Ok(None) };
    match serde_json::from_slice(bytes) {
        Ok(value) => Ok(Some(value)),
        Err(source) => Err(Unwritable { view: V::NAME, key: key.into(), source }),
    }
}

/// Folds more events onto one row, for questions about the past. A poisoned event is passed over, as it was when it was set aside.
pub(crate) fn refold<V: View>(key: &str, stored: Option<&Bytes>, steps: &[Step<V>]) -> Result<Option<V>, Unwritable> {
    let mut rows = Rows::keeping(1);
    rows.learn(key.into(), stored.cloned())?;
    for (index, step) in steps.iter().enumerate().filter(|(_, step)| step.keys.iter().any(|of| of == key)) {
        if rows.apply(key, step).is_err() {
            rows.go_back(key, &steps[..index])?;
            break;
        }
    }
    Ok(rows.cached.remove(key).and_then(|cached| cached.value))
}

fn set_aside(key: &str, record: &RecordedEvent, poison: Option<Poison>, now: DateTime<Utc>) -> Parked {
    Parked {
        key: key.into(),
        partition: record.partition,
        position: record.position,
        event: record.id,
        attempts: u32::from(poison.is_some()),
        cause: poison.map(|poison| poison.reason().into()),
        parked_at: now,
    }
}

/// Only what belongs to one slot: steps that keep none of their keys are left out.
pub(crate) fn of_slot<V: View>(steps: Vec<Step<V>>, slot: u16, slots: u16) -> impl Iterator<Item = Step<V>> {
    steps.into_iter().filter_map(move |mut step| {
        if slots > 1 {
            step.keys.retain(|key| crate::key::slot_of(key, slots) == slot);
        }
        (!step.keys.is_empty()).then_some(step)
    })
}

/// Positions that people decided to leave out, by partition.
pub(crate) type LeftOut = HashMap<annals_core::Partition, HashSet<Position>>;
