//! The rows that a worker has at hand.

use std::collections::{BTreeSet, HashSet};

use annals_core::{Json, Position, RowChange, Survival, Version};
use annals_runner::contained;
use bytes::Bytes;
use hashlink::LruCache;

use super::changes::{Changes, RowAt};
use super::row::{RowError, decoded, encode, indexed, read_back};
use crate::view::step::Step;
use crate::view::{Poison, Row, View};

/// Bytes of rows that are kept at hand, as they are stored.
const KEPT_BYTES_MAX: u64 = 256 << 20;

/// Rows of one slot, as of the last batch. Thrown away whole when a commit fails.
pub(crate) struct Rows<V> {
    pub(super) cached: LruCache<String, Cached<V>>,
    kept_max: usize,
    bytes_max: u64,
    // How many keys the last batch was about at most: the ones used last.
    pub(super) of_batch: usize,
    batches: u64,
    pub(super) folds: u64,
    // Whether rows have versions of their streams.
    pub(super) inline: bool,
    // Whether the store has no row of the slot that is not at hand.
    all: bool,
    pub(super) bytes: u64,
}

pub(super) struct Cached<V> {
    pub(super) value: Option<V>,
    // As the store has it: what a row goes back to, and what shows that nothing changed.
    pub(super) stored: Option<Bytes>,
    // Why the stored row cannot be read. No event can be folded onto it then.
    unreadable: Option<String>,
    // Of an inline view: the version of its stream that is stored, and the one with what was folded
    // since.
    pub(super) stored_version: Version,
    pub(super) version: Version,
    // The fold that changed it last, and where it is among the changes of a batch.
    pub(super) folded: u64,
    pub(super) changed: RowAt,
}

impl<V: View> Rows<V> {
    pub(crate) fn keeping(kept_max: usize) -> Rows<V> {
        let cached = LruCache::new_unbounded();
        Rows {
            cached,
            kept_max,
            bytes_max: KEPT_BYTES_MAX,
            of_batch: 0,
            batches: 0,
            folds: 0,
            inline: false,
            all: false,
            bytes: 0,
        }
    }

    /// The same for a view whose rows are written with appends: what a row has already is not
    /// folded onto it again.
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

    /// Evicts the rows that were not used for longest, but not of those of the last batch,
    /// which the store may not have yet.
    pub(crate) fn trim(&mut self) {
        while self.cached.len() > self.of_batch
            && (self.cached.len() > self.kept_max || self.bytes > self.bytes_max)
        {
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
    pub(crate) fn learn(&mut self, key: String, stored: Option<Bytes>) -> Result<(), RowError> {
        let value = decoded(&key, stored.as_ref())?;
        self.insert(key, value, stored, None, Version::NONE);
        Ok(())
    }

    /// Takes in what the store has for a key of a view, at a version of its stream when it is
    /// inline. What cannot be read is an error of the events that come to it.
    pub(crate) fn learn_lenient(&mut self, key: String, stored: Option<Bytes>, version: Version) {
        match decoded(&key, stored.as_ref()) {
            Ok(value) => self.insert(key, value, stored, None, version),
            Err(error) => self.insert(key, None, stored, Some(error.reason()), version),
        }
    }

    fn insert(
        &mut self,
        key: String,
        value: Option<V>,
        stored: Option<Bytes>,
        unreadable: Option<String>,
        version: Version,
    ) {
        self.bytes += size(stored.as_ref());
        let cached = Cached {
            value,
            stored,
            unreadable,
            stored_version: version,
            version,
            folded: 0,
            changed: RowAt::default(),
        };
        let before = self.cached.insert(key, cached);
        self.bytes -= before.map_or(0, |before| size(before.stored.as_ref()));
    }

    /// Forgets all rows, because appends may change them.
    pub(crate) fn forget_all(&mut self) {
        self.all = false;
        self.cached.clear();
        self.bytes = 0;
    }

    /// Forgets a row, because it was changed elsewhere.
    pub(crate) fn forget(&mut self, key: &str) {
        self.all = false;
        let gone = self.cached.remove(key);
        self.bytes -= gone.map_or(0, |gone| size(gone.stored.as_ref()));
    }

    /// The rows of these steps, as they are now.
    pub(crate) fn changes_of(&mut self, steps: &[Step<V>]) -> Vec<RowChange> {
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

    /// The rows at hand, each with its key, without those that do not exist.
    pub(crate) fn into_values(self) -> impl Iterator<Item = (String, V)> {
        self.cached
            .into_iter()
            .filter_map(|(key, cached)| Some((key, cached.value?)))
    }

    /// Whether the row has an event of this version of its stream already.
    pub(super) fn has_already(&mut self, key: &str, version: Version) -> bool {
        self.inline
            && self
                .cached
                .get(key)
                .is_some_and(|cached| version <= cached.stored_version)
    }

    /// Nothing changed yet. The rows of this batch stay at hand until the next one begins.
    pub(crate) fn batch(&mut self) -> Changes {
        self.batches += 1;
        self.of_batch = 0;
        Changes::of_batch(self.batches)
    }

    /// Sets the row to what it was, without a word about what is stored.
    pub(super) fn set(&mut self, key: &str, value: Option<&Bytes>, version: Version) {
        if let Some(cached) = self.cached.get_mut(key) {
            // What was read once is read again.
            cached.value = decoded(key, value).unwrap_or_default();
            cached.version = version;
        }
    }

    pub(super) fn version(&mut self, key: &str) -> Version {
        self.cached
            .get(key)
            .map_or(Version::NONE, |cached| cached.version)
    }

    /// Whether it was the first event of this fold for the row.
    pub(super) fn apply(&mut self, key: &str, step: &Step<V>) -> Result<bool, Poison> {
        let Some(cached) = self.cached.get_mut(key) else {
            return Err(Poison::new("the row was not at hand"));
        };
        if let Some(reason) = &cached.unreadable {
            return Err(Poison::new(reason.clone()));
        }
        let existed = cached.value.is_some();
        let before = cached.value.take();
        // The default of a row is code of users too.
        let mut value = match before {
            Some(value) => value,
            None => contained(V::default).map_err(Poison::new)?,
        };
        let mut row = Row::new(key, &mut value, existed);
        step.apply(&mut row)?;
        let removed = row.was_removed();
        cached.value = (!removed).then_some(value);
        cached.version = step.record().version;
        Ok(std::mem::replace(&mut cached.folded, self.folds) != self.folds)
    }

    /// Whether the row can be stored, indexed and read back as it is.
    pub(super) fn check(&self, key: &str) -> Result<(), Poison> {
        let Some(value) = self.cached.peek(key).and_then(|of| of.value.as_ref()) else {
            return Ok(());
        };
        storable(key, value).map_err(|error| Poison::new(error.reason()))
    }

    /// As [`Cached::can_be_stored`].
    pub(super) fn can_be_stored(&self, key: &str) -> Result<(), RowError> {
        match self.cached.peek(key) {
            Some(cached) => cached.can_be_stored(key),
            None => Ok(()),
        }
    }

    /// Undoes what the event at `position` began: the row as stored, and the events of this batch
    /// before it once more.
    pub(super) fn go_back(&mut self, key: &str, before: &[Step<V>], position: Position) {
        let mut stored_version = Version::NONE;
        if let Some(cached) = self.cached.get_mut(key) {
            cached.value = decoded(key, cached.stored.as_ref()).unwrap_or_default();
            cached.version = cached.stored_version;
            if self.inline {
                stored_version = cached.stored_version;
            }
        }
        let before = before
            .iter()
            .filter(|step| step.record().version > stored_version || !self.inline);
        let before: Vec<_> = before
            .filter(|step| step.is_about(key) && step.record().position < position)
            .collect();
        for step in before {
            // It succeeded a moment ago, and a fold depends on the row and the event alone.
            if let Err(poison) = self.apply(key, step) {
                let reason = poison.reason();
                tracing::warn!(view = V::NAME, key, reason, "a fold gave two answers");
            }
        }
    }

    pub(super) fn encoded(&mut self, key: &str) -> Result<Option<Bytes>, RowError> {
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

impl<V: View> Cached<V> {
    /// The answer of [`Rows::check`] for a row that is not stored, mostly without writing it. Only
    /// what serde code by hand loses is not seen by looking.
    pub(super) fn can_be_stored(&self, key: &str) -> Result<(), RowError> {
        let Some(value) = &self.value else {
            return Ok(());
        };
        let looked = contained(|| Json::look_at(value));
        let is_whole = matches!(looked, Ok(Ok(Survival::Whole)));
        if is_whole && (V::INDEXES.is_empty() || indexed(key, value).is_ok()) {
            return Ok(());
        }
        storable(key, value)
    }
}

fn storable<V: View>(key: &str, value: &V) -> Result<(), RowError> {
    let bytes = encode(key, value)?;
    read_back::<V>(key, Some(&bytes))?;
    indexed(key, value).map(drop)
}

pub(super) fn size(stored: Option<&Bytes>) -> u64 {
    stored.map_or(0, |bytes| bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::view::Handlers;

    #[derive(Default, Serialize, Deserialize)]
    struct Note(String);

    impl View for Note {
        const NAME: &'static str = "notes";
        type Key = String;

        fn handlers() -> Handlers<Self> {
            Handlers::new()
        }
    }

    #[test]
    fn rows_at_hand_are_bounded_in_bytes() {
        let mut rows = Rows::<Note>::keeping(1_000);
        rows.bytes_max = 10_000;
        let text = serde_json::to_vec(&Note("x".repeat(998))).unwrap();
        for key in 0..100 {
            rows.learn(key.to_string(), Some(text.clone().into()))
                .unwrap();
            rows.trim();
            let (kept, bytes) = rows.at_hand();
            assert!(bytes <= 10_000, "{bytes}");
            assert_eq!(bytes, 1_000 * kept as u64);
        }
        assert_eq!(rows.at_hand().0, 10);
        // Those used last are the ones that are kept.
        assert!(rows.cached.contains_key("99") && !rows.cached.contains_key("89"));
    }
}
