//! One generation in memory: its rows, indexes, history, dead letters and checkpoints.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::ranges::{narrowed, of_entries, turned};
use crate::append::Placed;
use crate::error::Invalid;
use crate::inline::{InlineRow, RowOutcome};
use crate::position::{Partition, Position};
use crate::read::PAGE_BYTES_MAX;
use crate::stream::Version;
use crate::{
    Checkpoint, CommitError, DeadLetter, Generation, History, PastRow, ReadRows, RowChange,
    RowPlace, RowVersion, RowsBy, RowsPage, ViewCommit, ViewRow,
};

/// A generation and everything in it.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) generation: Generation,
    pub(super) checkpoints: BTreeMap<(u16, Partition), Checkpoint>,
    pub(super) rows: BTreeMap<String, Row>,
    // For each index of the specification: entry and key.
    pub(super) indexes: Vec<BTreeSet<(String, String)>>,
    // By key, and then by where the version ends.
    pub(super) versions: BTreeMap<String, BTreeMap<Position, RowVersion>>,
    pub(super) touched: BTreeMap<String, BTreeSet<Position>>,
    pub(super) dead_letters: BTreeMap<(String, Partition, Position), DeadLetter>,
    // Of an inline view: the version of its stream that each row is at, also where there is no
    // row any more.
    pub(super) stream_versions: BTreeMap<String, Version>,
    // What each slot keeps for itself.
    pub(super) state: BTreeMap<(u16, Bytes), Bytes>,
}

#[derive(Debug)]
pub(super) struct Row {
    pub(super) value: Bytes,
    pub(super) indexed: Vec<String>,
}

impl Built {
    pub(super) fn new(generation: Generation) -> Built {
        let indexes = vec![BTreeSet::new(); generation.spec.indexes.len()];
        Built {
            generation,
            checkpoints: BTreeMap::new(),
            rows: BTreeMap::new(),
            indexes,
            versions: BTreeMap::new(),
            touched: BTreeMap::new(),
            dead_letters: BTreeMap::new(),
            stream_versions: BTreeMap::new(),
            state: BTreeMap::new(),
        }
    }

    pub(super) fn version_of(&self, key: &str) -> Version {
        self.stream_versions
            .get(key)
            .copied()
            .unwrap_or(Version::NONE)
    }

    /// The rows of an inline view that appends brought as far as the step would.
    pub(super) fn known_already(
        &self,
        commit: &ViewCommit,
    ) -> Result<HashSet<String>, CommitError> {
        let mut known = HashSet::new();
        for step in &commit.advances {
            let version = self.version_of(&step.key);
            match step.against(version) {
                RowOutcome::Apply => {}
                RowOutcome::AlreadyApplied => _ = known.insert(step.key.clone()),
                RowOutcome::Fenced => return Err(commit.row_moved(step, version)),
            }
        }
        Ok(known)
    }

    pub(super) fn take_prepared(
        &mut self,
        row: &InlineRow,
        to: Version,
        placed: &[Placed],
        recorded_at: DateTime<Utc>,
    ) {
        let InlineRow {
            key,
            value,
            indexed,
            ..
        } = row.clone();
        if self.generation.spec.history == History::Bitemporal {
            self.touched
                .entry(key.clone())
                .or_default()
                .extend(row.touched(placed));
        }
        for version in row.versions(placed, recorded_at) {
            self.versions
                .entry(key.clone())
                .or_default()
                .insert(version.up_to, version);
        }
        self.stream_versions.insert(key.clone(), to);
        self.change(RowChange {
            key,
            value,
            indexed,
        });
    }

    pub(super) fn check_versions(&self, versions: &[RowVersion]) -> Result<(), Invalid> {
        let known = |version: &&RowVersion| {
            self.versions
                .get(&version.key)
                .is_some_and(|of_key| of_key.contains_key(&version.up_to))
        };
        match versions.iter().find(known) {
            Some(RowVersion { key, up_to, .. }) => {
                let key = key.escape_debug();
                Err(Invalid::new(format!(
                    "key `{key}` has a version that ends at {up_to} already"
                )))
            }
            None => Ok(()),
        }
    }

    /// Takes a step that was checked.
    pub(super) fn take(&mut self, commit: ViewCommit) {
        let partition = commit.to.partition;
        self.stream_versions
            .extend(commit.advances.into_iter().map(|step| (step.key, step.to)));
        for row in commit.rows {
            self.change(row);
        }
        for version in commit.versions {
            self.versions
                .entry(version.key.clone())
                .or_default()
                .insert(version.up_to, version);
        }
        for (key, position) in commit.touched {
            self.touched.entry(key).or_default().insert(position);
        }
        for (key, position) in commit.settled_letters {
            self.dead_letters.remove(&(key, partition, position));
        }
        for letter in commit.dead_letters {
            let place = (letter.key.clone(), partition, letter.position);
            self.dead_letters.insert(place, letter);
        }
        for (key, value) in commit.state {
            match value {
                Some(value) => self.state.insert((commit.to.slot, key), value),
                None => self.state.remove(&(commit.to.slot, key)),
            };
        }
        self.checkpoints
            .insert((commit.to.slot, partition), commit.to);
    }

    /// A page of what a slot keeps for itself.
    pub(super) fn state_page(
        &self,
        slot: u16,
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> Vec<(Bytes, Bytes)> {
        let from = match after {
            Some(after) => Bound::Excluded((slot, Bytes::copy_from_slice(after))),
            None => Bound::Included((slot, Bytes::new())),
        };
        let of_slot = self.state.range((from, Bound::Unbounded));
        let mut page = Vec::new();
        let mut bytes = 0;
        for ((_, key), value) in of_slot.take_while(|((of, _), _)| *of == slot) {
            page.push((key.clone(), value.clone()));
            bytes += key.len() + value.len();
            if bytes >= bytes_max {
                break;
            }
        }
        page
    }

    pub(super) fn change(&mut self, change: RowChange) {
        let RowChange {
            key,
            value,
            indexed,
        } = change;
        if let Some(before) = self.rows.remove(&key) {
            for (index, entry) in self.indexes.iter_mut().zip(before.indexed) {
                index.remove(&(entry, key.clone()));
            }
        }
        if let Some(value) = value {
            for (index, entry) in self.indexes.iter_mut().zip(&indexed) {
                index.insert((entry.clone(), key.clone()));
            }
            self.rows.insert(key, Row { value, indexed });
        }
    }

    /// The places of the rows that are asked for, in the order that is asked for.
    pub(super) fn places(
        &self,
        read: &ReadRows,
    ) -> Result<Box<dyn Iterator<Item = RowPlace> + '_>, CommitError> {
        let after_key = read.after.as_ref().map(|place| place.key.clone());
        let by_key = |key: &String| RowPlace {
            entry: String::new(),
            key: key.clone(),
        };
        Ok(match &read.by {
            RowsBy::Keys(keys) => {
                let keys: BTreeSet<String> = keys
                    .iter()
                    .filter(|key| self.rows.contains_key(*key))
                    .cloned()
                    .collect();
                let range = narrowed(
                    (Bound::Unbounded, Bound::Unbounded),
                    after_key,
                    read.direction,
                );
                let keys: Vec<RowPlace> =
                    range.map_or_else(Vec::new, |range| keys.range(range).map(by_key).collect());
                turned(keys.into_iter(), read.direction)
            }
            RowsBy::KeyRange(from, to) => {
                match narrowed((from.clone(), to.clone()), after_key, read.direction) {
                    Some(range) => turned(
                        self.rows.range(range).map(move |(key, _)| by_key(key)),
                        read.direction,
                    ),
                    None => Box::new(std::iter::empty()),
                }
            }
            RowsBy::Index {
                name,
                range: (from, to),
            } => {
                let Some(index) = self
                    .generation
                    .spec
                    .indexes
                    .iter()
                    .position(|known| known == name)
                else {
                    let view = &self.generation.spec.view;
                    let name = name.escape_debug();
                    return Err(Invalid::new(format!("view `{view}` has no index `{name}`")).into());
                };
                let after = read
                    .after
                    .as_ref()
                    .map(|place| (place.entry.clone(), place.key.clone()));
                match narrowed(of_entries(from, to), after, read.direction) {
                    Some(range) => {
                        let place = |(entry, key): &(String, String)| RowPlace {
                            entry: entry.clone(),
                            key: key.clone(),
                        };
                        turned(self.indexes[index].range(range).map(place), read.direction)
                    }
                    None => Box::new(std::iter::empty()),
                }
            }
        })
    }

    pub(super) fn page(&self, read: &ReadRows) -> Result<RowsPage, CommitError> {
        let mut rows = Vec::new();
        let mut bytes = 0;
        let mut last = read.after.clone();
        let checkpoints = self.checkpoints.values().cloned().collect();
        for place in self.places(read)? {
            if rows.len() >= read.limit || bytes >= PAGE_BYTES_MAX {
                return Ok(RowsPage {
                    rows,
                    next: last,
                    checkpoints,
                });
            }
            let value = self.rows[&place.key].value.clone();
            bytes += value.len();
            rows.push(ViewRow {
                key: place.key.clone(),
                value,
            });
            last = Some(place);
        }
        Ok(RowsPage {
            rows,
            next: None,
            checkpoints,
        })
    }

    pub(super) fn kept_at(&self, moment: Position) -> Result<(), CommitError> {
        let Generation {
            id: generation,
            history_since: since,
            ..
        } = self.generation;
        if moment < since {
            Err(CommitError::BeforeHistory {
                generation,
                moment,
                since,
            })
        } else {
            Ok(())
        }
    }

    pub(super) fn past(&self, key: &String, moment: Position) -> Option<PastRow> {
        let versions = self.versions.get(key)?;
        let base = versions
            .range(..=moment)
            .next_back()
            .map(|(_, version)| version.clone());
        let next = versions
            .range(moment.next()..)
            .next()
            .map(|(_, version)| version.after);
        Some(PastRow {
            key: key.clone(),
            base,
            refold_after: next.filter(|after| *after < moment),
        })
    }

    pub(super) fn forget(&mut self, since: Position) {
        if since <= self.generation.history_since {
            return;
        }
        self.generation.history_since = since;
        self.versions.retain(|_, versions| {
            let later = versions.split_off(&since.next());
            let base = versions
                .pop_last()
                .filter(|(_, version)| version.value.is_some());
            *versions = base.into_iter().chain(later).collect();
            !versions.is_empty()
        });
    }
}
