//! The rows that a worker has at hand, and the fold of a batch onto them. Pure: what is missing is
//! fetched before, what has changed is written after.

use std::collections::{BTreeSet, HashMap, HashSet};

use annals_core::{
    DeadLetter, History, Position, RecordedEvent, RowAdvance, RowChange, RowVersion, Version,
    chrono,
};
use annals_runner::{ViewError, WorkError, chain};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use hashlink::LruCache;

use crate::step::Step;
use crate::view::{Poison, Row, View};

/// A view with history keeps what its rows are at least once in so many positions, also inside a
/// larger batch: the most of the log that a question about a moment reads again. Runs do not reach
/// over a multiple of it.
const RUN_POSITIONS: u64 = 1_024;

/// The last position that a run can end at in which `position` lies.
pub(crate) fn run_end(position: Position) -> Position {
    Position::new(position.get().div_ceil(RUN_POSITIONS) * RUN_POSITIONS)
}

/// The last position up to and with this one at which no run is cut in two.
pub(crate) fn between_runs(position: Position) -> Position {
    Position::new(position.get() / RUN_POSITIONS * RUN_POSITIONS)
}

/// Rows of one slot, as of the last batch. Thrown away whole when a commit fails.
pub(crate) struct Rows<V> {
    cached: LruCache<String, Cached<V>>,
    kept_max: usize,
    // How many keys the last batch was about at most: the ones used last.
    of_batch: usize,
    batches: u64,
    folds: u64,
    // Whether rows stand at versions of their streams.
    inline: bool,
    // Whether the store has no row of the slot that is not at hand.
    all: bool,
    bytes: u64,
}

struct Cached<V> {
    value: Option<V>,
    // As the store has it: what a poisoned row goes back to, and what tells that nothing changed.
    stored: Option<Bytes>,
    // Of an inline view: where the row stood in its stream as the store has it, and where it stands
    // with what was folded since.
    stood: Version,
    stands: Version,
    // The fold that changed it last, and its place among the changes of a batch.
    folded: u64,
    changed: RowAt,
}

/// A place among the changed rows of a batch; batches count from 1.
#[derive(Clone, Copy, Default)]
struct RowAt {
    batch: u64,
    index: usize,
}

/// What a batch changes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    batch: u64,
    pub(crate) rows: Vec<RowChange>,
    pub(crate) versions: Vec<RowVersion>,
    pub(crate) touched: Vec<(String, Position)>,
    pub(crate) park: Vec<DeadLetter>,
    pub(crate) stands: Vec<RowAdvance>,
}

/// A row that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the row `{key}` of view `{view}` cannot be written")]
pub(crate) struct Unwritable {
    view: &'static str,
    key: String,
    source: serde_json::Error,
}

impl From<Unwritable> for WorkError {
    fn from(error: Unwritable) -> WorkError {
        WorkError::Stopped(chain(&error))
    }
}

impl From<Unwritable> for ViewError {
    fn from(error: Unwritable) -> ViewError {
        ViewError::unreadable(error)
    }
}

impl<V: View> Rows<V> {
    pub(crate) fn keeping(kept_max: usize) -> Rows<V> {
        let cached = LruCache::new_unbounded();
        Rows {
            cached,
            kept_max,
            of_batch: 0,
            batches: 0,
            folds: 0,
            inline: false,
            all: false,
            bytes: 0,
        }
    }

    /// The same for a view whose rows travel with appends: what a row has already is not folded
    /// onto it again.
    pub(crate) fn inline(mut self, inline: bool) -> Rows<V> {
        self.inline = inline;
        self
    }

    /// The same for a slot of which the store has no rows yet.
    pub(crate) fn all(mut self, all: bool) -> Rows<V> {
        self.all = all;
        self
    }

    /// Whether there are no rows besides those at hand.
    pub(crate) fn are_all(&self) -> bool {
        self.all
    }

    /// Lets go of the rows that were not used for longest, but not of those of the last batch,
    /// which the store may not have yet.
    pub(crate) fn trim(&mut self) {
        while self.cached.len() > self.kept_max.max(self.of_batch) {
            self.all = false;
            let gone = self.cached.remove_lru();
            self.bytes -= gone.map_or(0, |(_, cached)| size(cached.stored.as_ref()));
        }
    }

    /// How many rows are at hand, those included that do not exist, and how many bytes they are as
    /// stored.
    pub(crate) fn at_hand(&self) -> (usize, u64) {
        (self.cached.len(), self.bytes)
    }

    /// The keys that `steps` need and that are not at hand, each once.
    pub(crate) fn missing(&self, steps: &[Step<V>]) -> Vec<String> {
        let mut missing = HashSet::new();
        for key in steps.iter().flat_map(|step| &step.keys) {
            if !self.cached.contains_key(key) {
                missing.insert(key);
            }
        }
        missing.into_iter().cloned().collect()
    }

    /// Takes in what the store has for a key.
    pub(crate) fn learn(&mut self, key: String, stored: Option<Bytes>) -> Result<(), Unwritable> {
        self.learn_standing(key, stored, Version::NONE)
    }

    /// Takes in what the store has for a key of an inline view, and where that stands.
    pub(crate) fn learn_standing(
        &mut self,
        key: String,
        stored: Option<Bytes>,
        stands: Version,
    ) -> Result<(), Unwritable> {
        let value = decoded(&key, stored.as_ref())?;
        self.bytes += size(stored.as_ref());
        let cached = Cached {
            value,
            stored,
            stood: stands,
            stands,
            folded: 0,
            changed: RowAt::default(),
        };
        let before = self.cached.insert(key, cached);
        self.bytes -= before.map_or(0, |before| size(before.stored.as_ref()));
        Ok(())
    }

    /// Forgets all rows, because appends may change them.
    pub(crate) fn forget_all(&mut self) {
        self.all = false;
        self.cached.clear();
        self.bytes = 0;
    }

    /// The rows of these steps, as they are now.
    pub(crate) fn told(&mut self, steps: &[Step<V>]) -> Vec<RowChange> {
        let keys: BTreeSet<&String> = steps.iter().flat_map(|step| &step.keys).collect();
        let row = |key: &String| {
            let value = self.cached.get(key)?.stored.clone();
            Some(RowChange {
                key: key.clone(),
                value,
                indexed: Vec::new(),
            })
        };
        keys.into_iter().filter_map(row).collect()
    }

    /// The rows at hand, each with its key; those that there are not are left out.
    pub(crate) fn into_values(self) -> impl Iterator<Item = (String, V)> {
        self.cached
            .into_iter()
            .filter_map(|(key, cached)| Some((key, cached.value?)))
    }

    /// Whether the row has an event of this version of its stream already.
    fn has_already(&mut self, key: &str, version: Version) -> bool {
        self.inline
            && self
                .cached
                .get(key)
                .is_some_and(|cached| version <= cached.stood)
    }

    /// Forgets a row, because somebody else changed it.
    pub(crate) fn forget(&mut self, key: &str) {
        self.all = false;
        let gone = self.cached.remove(key);
        self.bytes -= gone.map_or(0, |gone| size(gone.stored.as_ref()));
    }

    /// Nothing changed yet. The rows of this batch stay at hand until the next one begins.
    pub(crate) fn batch(&mut self) -> Changes {
        self.batches += 1;
        self.of_batch = 0;
        Changes {
            batch: self.batches,
            ..Changes::default()
        }
    }

    /// Folds the next events of a batch, whose keys are all at hand, so that nothing of them is
    /// needed any more. `dead_letters` are the keys that wait for a person; it grows.
    pub(crate) fn fold(
        &mut self,
        changes: &mut Changes,
        steps: &[Step<V>],
        dead_letters: &mut HashSet<String>,
        now: DateTime<Utc>,
    ) -> Result<(), Unwritable> {
        self.folds += 1;
        let mut dirty = Vec::new();
        let mut run = Run::default();
        for (index, step) in steps.iter().enumerate() {
            let record = step.record();
            if record.position > run.end {
                self.keep_versions(&mut run, changes)?;
                run.end = run_end(record.position);
            }
            for key in &step.keys {
                if self.has_already(key, record.version) {
                    continue;
                }
                let poison = if dead_letters.contains(key) {
                    None
                } else if let Err(poison) = self
                    .apply(key, step)
                    .map(|first| dirty.extend(first.then_some(key.as_str())))
                {
                    let before = &steps[..index];
                    self.go_back(key, before, record.position)?;
                    run.go_back(key, before, record.position);
                    changes
                        .touched
                        .retain(|(of, at)| of != key || *at != record.position);
                    dead_letters.insert(key.clone());
                    Some(poison)
                } else {
                    if V::HISTORY != History::None {
                        run.touch(key, record);
                    }
                    if V::HISTORY == History::Bitemporal {
                        changes.touched.push((key.clone(), record.position));
                    }
                    continue;
                };
                changes.dead_letters(key, record, poison, now);
            }
        }
        self.keep_versions(&mut run, changes)?;
        self.of_batch += dirty.len();
        for key in dirty {
            self.keep_row(key, changes)?;
        }
        Ok(())
    }

    /// Sets the row to what it was, without a word about what is stored.
    fn set(&mut self, key: &str, value: Option<&Bytes>, stands: Version) -> Result<(), Unwritable> {
        if let Some(cached) = self.cached.get_mut(key) {
            cached.value = decoded(key, value)?;
            cached.stands = stands;
        }
        Ok(())
    }

    fn stands_at(&mut self, key: &str) -> Version {
        self.cached
            .get(key)
            .map_or(Version::NONE, |cached| cached.stands)
    }

    /// Whether it was the first event of this fold for the row.
    fn apply(&mut self, key: &str, step: &Step<V>) -> Result<bool, Poison> {
        let Some(cached) = self.cached.get_mut(key) else {
            return Err(Poison::new("the row was not at hand"));
        };
        let existed = cached.value.is_some();
        let mut value = cached.value.take().unwrap_or_default();
        let mut row = Row::new(key, &mut value, existed);
        step.apply(&mut row)?;
        let removed = row.was_removed();
        cached.value = (!removed).then_some(value);
        cached.stands = step.record().version;
        Ok(std::mem::replace(&mut cached.folded, self.folds) != self.folds)
    }

    /// Undoes what the event at `position` began: the row as stored, and the events of this batch
    /// before it once more.
    fn go_back(
        &mut self,
        key: &str,
        before: &[Step<V>],
        position: Position,
    ) -> Result<(), Unwritable> {
        if let Some(cached) = self.cached.get_mut(key) {
            cached.value = decoded(key, cached.stored.as_ref())?;
            cached.stands = cached.stood;
        }
        let stood = self
            .cached
            .get(key)
            .filter(|_| self.inline)
            .map_or(Version::NONE, |cached| cached.stood);
        let before = before.iter().filter(|step| step.record().version > stood);
        for step in before.filter(|step| step.is_about(key) && step.record().position < position) {
            // It went well a moment ago, and nothing but the row and the event is looked at.
            if let Err(poison) = self.apply(key, step) {
                tracing::warn!(
                    view = V::NAME,
                    key,
                    reason = poison.reason(),
                    "a fold gave two answers to one event"
                );
            }
        }
        Ok(())
    }

    fn keep_versions(
        &mut self,
        run: &mut Run<'_>,
        changes: &mut Changes,
    ) -> Result<(), Unwritable> {
        let mut touched: Vec<_> = run.touched.drain().collect();
        touched.sort_unstable_by_key(|(key, _)| *key);
        for (
            key,
            Touched {
                first,
                last,
                recorded_at,
            },
        ) in touched
        {
            let value = self.encoded(key)?;
            changes.versions.push(RowVersion {
                key: key.into(),
                after: first.minus(1),
                up_to: last,
                recorded_at,
                value,
            });
        }
        Ok(())
    }

    fn keep_row(&mut self, key: &str, changes: &mut Changes) -> Result<(), Unwritable> {
        let Some(cached) = self.cached.peek_mut(key) else {
            return Ok(());
        };
        if self.inline && cached.stands > cached.stood {
            changes.stands.push(RowAdvance {
                key: key.into(),
                from: cached.stood,
                to: cached.stands,
            });
            cached.stood = cached.stands;
        }
        let value = cached
            .value
            .as_ref()
            .map(|value| encode(key, value))
            .transpose()?;
        if cached.stored == value {
            return Ok(());
        }
        self.bytes = self.bytes - size(cached.stored.as_ref()) + size(value.as_ref());
        cached.stored.clone_from(&value);
        let indexed = cached.value.as_ref().map(View::indexed).unwrap_or_default();
        match cached.changed.of(changes) {
            Some(row) => (row.value, row.indexed) = (value, indexed),
            None => changes.rows.push(RowChange {
                key: key.into(),
                value,
                indexed,
            }),
        }
        Ok(())
    }

    fn encoded(&mut self, key: &str) -> Result<Option<Bytes>, Unwritable> {
        let Some(value) = self
            .cached
            .get(key)
            .and_then(|cached| cached.value.as_ref())
        else {
            return Ok(None);
        };
        encode(key, value).map(Some)
    }
}

impl RowAt {
    /// The change of the batch that stands here; else the end of `changes` becomes the place.
    fn of<'a>(&mut self, changes: &'a mut Changes) -> Option<&'a mut RowChange> {
        if self.batch != changes.batch {
            *self = RowAt {
                batch: changes.batch,
                index: changes.rows.len(),
            };
        }
        changes.rows.get_mut(self.index)
    }
}

fn size(stored: Option<&Bytes>) -> u64 {
    stored.map_or(0, |bytes| bytes.len() as u64)
}

/// A row as it is stored: JSON, fields in the order of the type.
pub(crate) fn encode<V: View>(key: &str, value: &V) -> Result<Bytes, Unwritable> {
    match serde_json::to_vec(value) {
        Ok(bytes) => Ok(bytes.into()),
        Err(source) => Err(Unwritable {
            view: V::NAME,
            key: key.into(),
            source,
        }),
    }
}

pub(crate) fn decoded<V: View>(key: &str, stored: Option<&Bytes>) -> Result<Option<V>, Unwritable> {
    let Some(bytes) = stored else { return Ok(None) };
    match serde_json::from_slice(bytes) {
        Ok(value) => Ok(Some(value)),
        Err(source) => Err(Unwritable {
            view: V::NAME,
            key: key.into(),
            source,
        }),
    }
}

/// A stretch of a batch, at the end of which it is kept what the rows are that it touched.
#[derive(Debug, Default)]
struct Run<'a> {
    end: Position,
    touched: HashMap<&'a str, Touched>,
}

/// The events of a run that touched a row.
#[derive(Clone, Copy, Debug)]
struct Touched {
    first: Position,
    last: Position,
    recorded_at: DateTime<Utc>,
}

impl<'a> Run<'a> {
    fn touch(&mut self, key: &'a str, record: &RecordedEvent) {
        let position = record.position;
        let recorded_at = record.recorded_at;
        let touched = self.touched.entry(key).or_insert(Touched {
            first: position,
            last: position,
            recorded_at,
        });
        touched.last = position;
        touched.recorded_at = recorded_at;
    }

    /// Takes back that the event at `position` touched the row.
    fn go_back<V: View>(&mut self, key: &str, before: &[Step<V>], position: Position) {
        let Some(touched) = self
            .touched
            .get_mut(key)
            .filter(|touched| touched.last == position)
        else {
            return;
        };
        let mut earlier = before
            .iter()
            .rev()
            .filter(|step| step.is_about(key))
            .map(Step::record);
        match earlier.find(|record| record.position < position) {
            Some(record) if touched.first <= record.position => {
                touched.last = record.position;
                touched.recorded_at = record.recorded_at;
            }
            _ => _ = self.touched.remove(key),
        }
    }
}

impl Changes {
    /// How much of it is about the past, or about keys that wait.
    pub(crate) fn past(&self) -> usize {
        self.versions.len() + self.touched.len() + self.park.len()
    }

    /// An event is set aside once for a key, also when it reads as several.
    fn dead_letters(
        &mut self,
        key: &str,
        record: &RecordedEvent,
        poison: Option<Poison>,
        now: DateTime<Utc>,
    ) {
        let mut of_event = self
            .park
            .iter()
            .rev()
            .take_while(|dead_letters| dead_letters.position == record.position);
        if of_event.any(|dead_letters| dead_letters.key == key) {
            return;
        }
        self.park.push(DeadLetter {
            key: key.into(),
            partition: record.partition,
            position: record.position,
            event: record.id,
            attempts: u32::from(poison.is_some()),
            cause: poison.map(|poison| poison.reason().into()),
            dead_since: now,
        });
    }
}

/// An event of a key's queue, and what it does to the row; why not, when it still makes no sense.
pub(crate) struct Waiting<V: View> {
    pub(crate) dead_letters: DeadLetter,
    pub(crate) steps: Result<Vec<Step<V>>, Poison>,
}

/// What settling a queue changes.
#[derive(Debug)]
pub(crate) struct DrainedKey {
    pub(crate) changes: Changes,
    pub(crate) unpark: Vec<(String, Position)>,
    /// The event on which the key waits now.
    pub(crate) still: Option<DeadLetter>,
}

/// Folds the queue of a key onto its row, in order, up to the first event that makes no sense. What
/// is kept of the past is at the places of the events themselves.
pub(crate) fn drained<V: View>(
    key: &str,
    stored: Option<Bytes>,
    stands: Option<Version>,
    queue: Vec<Waiting<V>>,
) -> Result<DrainedKey, Unwritable> {
    let mut rows = Rows::<V>::keeping(1).inline(stands.is_some());
    let mut before = stored.clone();
    rows.learn_standing(key.into(), stored, stands.unwrap_or(Version::NONE))?;
    let mut stood = rows.stands_at(key);
    let mut drained = DrainedKey {
        changes: rows.batch(),
        unpark: Vec::new(),
        still: None,
    };
    for Waiting {
        dead_letters,
        steps,
    } in queue
    {
        let folded = steps.and_then(|mut steps| {
            steps.retain(|step| !rows.has_already(key, step.record().version));
            steps
                .iter()
                .try_for_each(|step| rows.apply(key, step).map(drop))?;
            Ok(steps.first().map(|step| step.record().recorded_at))
        });
        match folded {
            Ok(recorded_at) => {
                if let Some(recorded_at) = recorded_at {
                    before = rows.encoded(key)?;
                    stood = rows.stands_at(key);
                    let at = dead_letters.position;
                    let value = before.clone();
                    if V::HISTORY != History::None {
                        let version = RowVersion {
                            key: key.into(),
                            after: at.minus(1),
                            up_to: at,
                            recorded_at,
                            value,
                        };
                        drained.changes.versions.push(version);
                    }
                    if V::HISTORY == History::Bitemporal {
                        drained.changes.touched.push((key.into(), at));
                    }
                }
                drained
                    .unpark
                    .push((dead_letters.key, dead_letters.position));
            }
            Err(poison) => {
                rows.set(key, before.as_ref(), stood)?;
                let cause = Some(poison.reason().into());
                let attempts = dead_letters.attempts + 1;
                drained.still = Some(DeadLetter {
                    cause,
                    attempts,
                    ..dead_letters
                });
                break;
            }
        }
    }
    rows.keep_row(key, &mut drained.changes)?;
    Ok(drained)
}

/// Folds more events onto one row, for questions about the past. A poisoned event ends it, as it
/// did when it was set aside.
pub(crate) fn refold<V: View>(
    key: &str,
    stored: Option<&Bytes>,
    steps: &[Step<V>],
) -> Result<Option<V>, Unwritable> {
    let mut rows = Rows::keeping(1);
    rows.learn(key.into(), stored.cloned())?;
    for (index, step) in steps
        .iter()
        .enumerate()
        .filter(|(_, step)| step.is_about(key))
    {
        if rows.apply(key, step).is_err() {
            rows.go_back(key, &steps[..index], step.record().position)?;
            break;
        }
    }
    Ok(rows.cached.remove(key).and_then(|cached| cached.value))
}

/// What a row was from an event on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowVersionBefore {
    pub(crate) from: Position,
    pub(crate) recorded_at: DateTime<Utc>,
    pub(crate) value: Option<Bytes>,
}

/// What a row was after each event that is about it, up to one that makes no sense; and that one's
/// reason.
pub(crate) fn versions<V: View>(
    key: &str,
    base: Option<&Bytes>,
    steps: &[Step<V>],
) -> Result<(Vec<RowVersionBefore>, Option<Poison>), Unwritable> {
    let mut rows = Rows::keeping(1);
    rows.learn(key.into(), base.cloned())?;
    let mut versions: Vec<RowVersionBefore> = Vec::new();
    for step in steps.iter().filter(|step| step.is_about(key)) {
        if let Err(poison) = rows.apply(key, step) {
            return Ok((versions, Some(poison)));
        }
        let from = step.record().position;
        let recorded_at = step.record().recorded_at;
        let value = rows.encoded(key)?;
        // One event may read as several.
        if versions.last().is_some_and(|last| last.from == from) {
            versions.pop();
        }
        versions.push(RowVersionBefore {
            from,
            recorded_at,
            value,
        });
    }
    Ok((versions, None))
}

/// Folds events onto a row; else the place of the one that makes no sense, and why not.
pub(crate) fn folded<V: View>(
    key: &str,
    base: Option<Bytes>,
    steps: &[Step<V>],
) -> Result<Result<Option<Bytes>, (Position, Poison)>, Unwritable> {
    let mut rows = Rows::keeping(1);
    rows.learn(key.into(), base)?;
    for step in steps.iter().filter(|step| step.is_about(key)) {
        if let Err(poison) = rows.apply(key, step) {
            return Ok(Err((step.record().position, poison)));
        }
    }
    rows.encoded(key).map(Ok)
}

/// Only what belongs to one slot: steps that keep none of their keys are left out.
pub(crate) fn of_slot<V: View>(
    steps: Vec<Step<V>>,
    slot: u16,
    slots: u16,
) -> impl Iterator<Item = Step<V>> {
    steps.into_iter().filter_map(move |mut step| {
        if slots > 1 {
            step.keys
                .retain(|key| annals_runner::slot_of(key, slots) == slot);
        }
        (!step.keys.is_empty()).then_some(step)
    })
}
