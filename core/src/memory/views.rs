//! Read models in memory: every change is made under one lock, after everything that could refuse
//! it was looked at.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::MemoryStore;
use crate::append::{Append, Placed};
use crate::error::{Invalid, StoreError};
use crate::inline::{InlineRow, InlineViews, RowOutcome, VersionedRow};
use crate::lease::{Acquired, Lease, LeaseState, Leases};
use crate::position::{Partition, Position};
use crate::read::{Direction, PAGE_BYTES_MAX};
use crate::stream::Version;
use crate::{
    Checkpoint, CommitError, DeadLetter, Generation, GenerationId, GenerationSpec, History,
    PastRow, Phase, ReadRows, RowChange, RowPlace, RowVersion, RowsBy, RowsPage, SkipDecision,
    ViewCommit, ViewRow, ViewStore,
};

/// The read models of a store, and the leases of those who work on them.
#[derive(Debug, Default)]
pub(super) struct Views {
    generations: BTreeMap<GenerationId, Built>,
    // The last ones that were given; what is dropped does not give them back.
    last_generation: u64,
    last_epoch: u64,
    leases: BTreeMap<String, Kept>,
    skip_decisions: BTreeMap<(String, Partition, Position, Option<String>), SkipDecision>,
}

/// A lease and when it ends; one that was given back is remembered, so that it can be told.
#[derive(Debug)]
struct Kept {
    lease: Lease,
    until: DateTime<Utc>,
    given_back: bool,
}

/// A generation and everything in it.
#[derive(Debug)]
struct Built {
    generation: Generation,
    checkpoints: BTreeMap<(u16, Partition), Checkpoint>,
    rows: BTreeMap<String, Row>,
    // For each index of the specification: entry and key.
    indexes: Vec<BTreeSet<(String, String)>>,
    // By key, and then by where the version ends.
    versions: BTreeMap<String, BTreeMap<Position, RowVersion>>,
    touched: BTreeMap<String, BTreeSet<Position>>,
    dead_letters: BTreeMap<(String, Partition, Position), DeadLetter>,
    // Of an inline view: the version of its stream at which each row stands, also where there is no
    // row any more.
    stands: BTreeMap<String, Version>,
}

#[derive(Debug)]
struct Row {
    value: Bytes,
    indexed: Vec<String>,
}

impl Kept {
    fn has_ended(&self, now: DateTime<Utc>) -> bool {
        self.given_back || now >= self.until
    }

    fn state(&self, now: DateTime<Utc>) -> LeaseState {
        LeaseState {
            lease: self.lease.clone(),
            until: self.until,
            expired: self.has_ended(now),
        }
    }
}

impl Views {
    fn built(&self, id: GenerationId) -> Result<&Built, CommitError> {
        self.generations.get(&id).ok_or(CommitError::Gone(id))
    }

    fn built_mut(&mut self, id: GenerationId) -> Result<&mut Built, CommitError> {
        self.generations.get_mut(&id).ok_or(CommitError::Gone(id))
    }

    /// The lease with this name, if it is still this one: of this epoch and not given back.
    fn current(&mut self, lease: &Lease) -> Option<&mut Kept> {
        self.leases
            .get_mut(&lease.name)
            .filter(|kept| kept.lease == *lease && !kept.given_back)
    }

    /// Refuses rows that can never travel with an append.
    pub(super) fn check_prepared(&self, append: &Append) -> Result<(), Invalid> {
        let mut known = append
            .rows
            .iter()
            .filter_map(|row| Some((row, self.built(row.generation).ok()?)));
        known.try_for_each(|(row, built)| row.check(&built.generation))
    }

    /// Writes the rows of an append that stand where they were found.
    pub(super) fn take_prepared(
        &mut self,
        append: &Append,
        placed: &[Placed],
        recorded_at: DateTime<Utc>,
    ) {
        for row in &append.rows {
            let (Ok(built), Some(to)) = (
                self.built_mut(row.generation),
                append.version_after(&row.stream),
            ) else {
                continue;
            };
            if built.stands_at(&row.key) == row.from {
                built.take_prepared(row, to, placed, recorded_at);
            }
        }
    }

    fn commit(&mut self, mut commit: ViewCommit) -> Result<(), CommitError> {
        let built = self.built(commit.generation)?;
        commit.check(&built.generation)?;
        let slot = commit.to.slot;
        let partition = commit.to.partition;
        let stands = built
            .checkpoints
            .get(&(slot, partition))
            .map_or(Position::START, |checkpoint| checkpoint.position);
        let fenced = |found| CommitError::Fenced {
            generation: commit.generation,
            slot,
            found,
        };
        if self.current(&commit.lease).is_none() {
            let found = match self.leases.get(&commit.lease.name) {
                Some(Kept {
                    lease,
                    given_back: false,
                    ..
                }) => format!("`{}` has epoch {}", lease.owner, lease.epoch),
                _ => "the lease was given back".into(),
            };
            return Err(fenced(found));
        }
        if stands != commit.from {
            return Err(fenced(format!(
                "it stands at {stands}, the step goes from {}",
                commit.from
            )));
        }
        // Behind the fence: who repeats a step that was taken is told so, and not that its versions
        // are there already.
        let built = self.built_mut(commit.generation)?;
        let known = built.known_already(&commit)?;
        commit.leave_out(&known);
        built.check_versions(&commit.versions)?;
        built.take(commit);
        Ok(())
    }
}

impl Built {
    fn new(generation: Generation) -> Built {
        let indexes = vec![BTreeSet::new(); generation.spec.indexes.len()];
        Built {
            generation,
            checkpoints: BTreeMap::new(),
            rows: BTreeMap::new(),
            indexes,
            versions: BTreeMap::new(),
            touched: BTreeMap::new(),
            dead_letters: BTreeMap::new(),
            stands: BTreeMap::new(),
        }
    }

    fn stands_at(&self, key: &str) -> Version {
        self.stands.get(key).copied().unwrap_or(Version::NONE)
    }

    /// The rows of an inline view that appends brought as far as the step would.
    fn known_already(&self, commit: &ViewCommit) -> Result<HashSet<String>, CommitError> {
        let mut known = HashSet::new();
        for step in &commit.stands {
            let stands = self.stands_at(&step.key);
            match step.against(stands) {
                RowOutcome::Apply => {}
                RowOutcome::AlreadyApplied => _ = known.insert(step.key.clone()),
                RowOutcome::Fenced => return Err(commit.row_moved(step, stands)),
            }
        }
        Ok(known)
    }

    fn take_prepared(
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
        self.stands.insert(key.clone(), to);
        self.change(RowChange {
            key,
            value,
            indexed,
        });
    }

    fn check_versions(&self, versions: &[RowVersion]) -> Result<(), Invalid> {
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

    /// Takes a step that nothing stands against.
    fn take(&mut self, commit: ViewCommit) {
        let partition = commit.to.partition;
        self.stands
            .extend(commit.stands.into_iter().map(|step| (step.key, step.to)));
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
        for (key, position) in commit.unpark {
            self.dead_letters.remove(&(key, partition, position));
        }
        for dead_letters in commit.park {
            self.dead_letters.insert(
                (dead_letters.key.clone(), partition, dead_letters.position),
                dead_letters,
            );
        }
        self.checkpoints
            .insert((commit.to.slot, partition), commit.to);
    }

    fn change(&mut self, change: RowChange) {
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
    fn places(
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

    fn page(&self, read: &ReadRows) -> Result<RowsPage, CommitError> {
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

    fn kept_at(&self, moment: Position) -> Result<(), CommitError> {
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

    fn past(&self, key: &String, moment: Position) -> Option<PastRow> {
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

    fn forget(&mut self, since: Position) {
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

type Range<T> = (Bound<T>, Bound<T>);

/// What of a range lies behind `after`; nothing when there is nothing.
fn narrowed<T: Ord>(
    (mut from, mut to): Range<T>,
    after: Option<T>,
    direction: Direction,
) -> Option<Range<T>> {
    if let Some(after) = after {
        match (direction, &from, &to) {
            (Direction::Forward, Bound::Included(at) | Bound::Excluded(at), _) if after < *at => {}
            (Direction::Forward, ..) => from = Bound::Excluded(after),
            (Direction::Backward, _, Bound::Included(at) | Bound::Excluded(at)) if after > *at => {}
            (Direction::Backward, ..) => to = Bound::Excluded(after),
        }
    }
    let holds_something = match (&from, &to) {
        (Bound::Included(from), Bound::Included(to)) => from <= to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from < to,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
    };
    holds_something.then_some((from, to))
}

/// A range of entries as a range of entries and keys.
fn of_entries(from: &Bound<String>, to: &Bound<String>) -> Range<(String, String)> {
    let before = |entry: &String| (entry.clone(), String::new());
    // The text that comes next after another one is that one and a zero.
    let behind = |entry: &String| (format!("{entry}\0"), String::new());
    let from = match from {
        Bound::Included(entry) => Bound::Included(before(entry)),
        Bound::Excluded(entry) => Bound::Included(behind(entry)),
        Bound::Unbounded => Bound::Unbounded,
    };
    let to = match to {
        Bound::Included(entry) => Bound::Excluded(behind(entry)),
        Bound::Excluded(entry) => Bound::Excluded(before(entry)),
        Bound::Unbounded => Bound::Unbounded,
    };
    (from, to)
}

fn turned<'a, T>(
    places: impl DoubleEndedIterator<Item = T> + 'a,
    direction: Direction,
) -> Box<dyn Iterator<Item = T> + 'a> {
    match direction {
        Direction::Forward => Box::new(places),
        Direction::Backward => Box::new(places.rev()),
    }
}

/// Behind `after`, and from the start when there is none.
fn behind<T: ?Sized>(after: Option<&T>) -> Range<&T> {
    (
        after.map_or(Bound::Unbounded, Bound::Excluded),
        Bound::Unbounded,
    )
}

#[async_trait]
impl InlineViews for MemoryStore {
    async fn read_versioned(
        &self,
        generation: GenerationId,
        keys: &[String],
    ) -> Result<Vec<VersionedRow>, CommitError> {
        let views = self.read_models();
        let built = views.built(generation)?;
        let keys: BTreeSet<&String> = keys.iter().collect();
        let stands = keys
            .into_iter()
            .filter_map(|key| Some((key, *built.stands.get(key)?)));
        let row = |key: &String| built.rows.get(key).map(|row| row.value.clone());
        Ok(stands
            .map(|(key, at)| VersionedRow {
                key: key.clone(),
                value: row(key),
                at,
            })
            .collect())
    }
}

impl MemoryStore {
    pub(super) fn read_models(&self) -> MutexGuard<'_, Views> {
        self.shared
            .views
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Leases for MemoryStore {
    async fn acquire_lease(
        &self,
        name: &str,
        owner: &str,
        ttl: Duration,
    ) -> Result<Acquired, StoreError> {
        let now = self.clock.now();
        let mut views = self.read_models();
        if let Some(kept) = views.leases.get(name).filter(|kept| !kept.has_ended(now)) {
            return Ok(Acquired::Held(kept.state(now)));
        }
        views.last_epoch += 1;
        let lease = Lease {
            name: name.into(),
            owner: owner.into(),
            epoch: views.last_epoch,
        };
        let kept = Kept {
            lease: lease.clone(),
            until: Lease::end(now, ttl),
            given_back: false,
        };
        views.leases.insert(name.into(), kept);
        Ok(Acquired::Granted(lease))
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let until = Lease::end(self.clock.now(), ttl);
        Ok(self
            .read_models()
            .current(lease)
            .map(|kept| kept.until = until)
            .is_some())
    }

    async fn release_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        if let Some(kept) = self.read_models().current(lease) {
            kept.given_back = true;
        }
        Ok(())
    }

    async fn leases(&self, prefix: &str) -> Result<Vec<LeaseState>, StoreError> {
        let now = self.clock.now();
        let views = self.read_models();
        let named = views
            .leases
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        Ok(named
            .take_while(|(name, _)| name.starts_with(prefix))
            .map(|(_, kept)| kept.state(now))
            .collect())
    }
}

#[async_trait]
impl ViewStore for MemoryStore {
    async fn begin_generation(&self, spec: GenerationSpec) -> Result<Generation, StoreError> {
        spec.check()?;
        let begun_at = self.clock.now();
        let mut views = self.read_models();
        views.last_generation += 1;
        let id = GenerationId(views.last_generation);
        let since = if spec.history == History::None {
            Position::MAX
        } else {
            Position::START
        };
        let generation = Generation::new(id, spec, Phase::Building, begun_at, since);
        views.generations.insert(id, Built::new(generation.clone()));
        Ok(generation)
    }

    async fn generations(&self, view: &str) -> Result<Vec<Generation>, StoreError> {
        let views = self.read_models();
        let of_view = views
            .generations
            .values()
            .filter(|built| built.generation.spec.view == view);
        Ok(of_view.map(|built| built.generation.clone()).collect())
    }

    async fn view_names(&self) -> Result<Vec<String>, StoreError> {
        let views = self.read_models();
        let names: BTreeSet<&String> = views
            .generations
            .values()
            .map(|built| &built.generation.spec.view)
            .collect();
        Ok(names.into_iter().cloned().collect())
    }

    async fn switch_to(&self, generation: GenerationId) -> Result<(), CommitError> {
        let mut views = self.read_models();
        let GenerationSpec { view, version, .. } = views.built(generation)?.generation.spec.clone();
        for built in views
            .generations
            .values_mut()
            .map(|built| &mut built.generation)
        {
            if built.id == generation {
                built.phase = Phase::Live;
            } else if built.phase == Phase::Live
                && built.spec.view == view
                && built.spec.version == version
            {
                built.phase = Phase::Kept;
            }
        }
        Ok(())
    }

    async fn drop_generation(&self, generation: GenerationId) -> Result<(), CommitError> {
        let mut views = self.read_models();
        let Ok(Built {
            generation: dropped,
            ..
        }) = views.built(generation)
        else {
            return Ok(());
        };
        let all = views.generations.values().map(|built| &built.generation);
        dropped.check_drop(all.filter(|other| other.spec.view == dropped.spec.view))?;
        let leases: Vec<String> = dropped.lease_names().collect();
        for lease in leases {
            views.leases.remove(&lease);
        }
        views.generations.remove(&generation);
        Ok(())
    }

    async fn checkpoints(&self, generation: GenerationId) -> Result<Vec<Checkpoint>, CommitError> {
        Ok(self
            .read_models()
            .built(generation)?
            .checkpoints
            .values()
            .cloned()
            .collect())
    }

    async fn commit_view(&self, commit: ViewCommit) -> Result<(), CommitError> {
        self.read_models().commit(commit)
    }

    async fn read_rows(&self, read: ReadRows) -> Result<RowsPage, CommitError> {
        self.read_models().built(read.generation)?.page(&read)
    }

    async fn read_past(
        &self,
        generation: GenerationId,
        keys: &[String],
        moment: Position,
    ) -> Result<Vec<PastRow>, CommitError> {
        let views = self.read_models();
        let built = views.built(generation)?;
        built.kept_at(moment)?;
        let keys: BTreeSet<&String> = keys.iter().collect();
        Ok(keys
            .into_iter()
            .filter_map(|key| built.past(key, moment))
            .collect())
    }

    async fn past_keys(
        &self,
        generation: GenerationId,
        range: (Bound<String>, Bound<String>),
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, CommitError> {
        let views = self.read_models();
        let built = views.built(generation)?;
        let Some(range) = narrowed(range, after.map(str::to_owned), Direction::Forward) else {
            return Ok(Vec::new());
        };
        let rows = built
            .rows
            .range(range.clone())
            .take(limit)
            .map(|(key, _)| key);
        let versions = built.versions.range(range).take(limit).map(|(key, _)| key);
        let keys: BTreeSet<&String> = rows.chain(versions).collect();
        Ok(keys.into_iter().take(limit).cloned().collect())
    }

    async fn row_versions(
        &self,
        generation: GenerationId,
        key: &str,
        between: (Position, Position),
        limit: usize,
    ) -> Result<Vec<RowVersion>, CommitError> {
        let views = self.read_models();
        let of_key = views
            .built(generation)?
            .versions
            .get(key)
            .into_iter()
            .flat_map(BTreeMap::values);
        let ends_there =
            |version: &&RowVersion| between.0 < version.up_to && version.up_to <= between.1;
        Ok(of_key.filter(ends_there).take(limit).cloned().collect())
    }

    async fn keys_changed_between(
        &self,
        generation: GenerationId,
        between: (Position, Position),
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, CommitError> {
        let views = self.read_models();
        let built = views.built(generation)?;
        built.kept_at(between.0)?;
        let ends_there = |up_to: &Position| between.0 < *up_to && *up_to <= between.1;
        let keys = built.versions.range::<str, _>(behind(after));
        let changed = keys.filter(|(_, versions)| versions.keys().any(ends_there));
        Ok(changed.take(limit).map(|(key, _)| key.clone()).collect())
    }

    async fn touched(
        &self,
        generation: GenerationId,
        key: &str,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<Position>, CommitError> {
        let views = self.read_models();
        let of_key = views
            .built(generation)?
            .touched
            .get(key)
            .into_iter()
            .flatten();
        Ok(of_key
            .filter(|position| after < **position && **position <= up_to)
            .take(limit)
            .copied()
            .collect())
    }

    async fn forget_history(
        &self,
        generation: GenerationId,
        since: Position,
    ) -> Result<(), CommitError> {
        self.read_models().built_mut(generation)?.forget(since);
        Ok(())
    }

    async fn dead_letters(
        &self,
        generation: GenerationId,
        after: Option<(&str, Partition, Position)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, CommitError> {
        let after = after.map(|(key, partition, position)| (key.to_owned(), partition, position));
        let views = self.read_models();
        let dead_letters = views
            .built(generation)?
            .dead_letters
            .range(behind(after.as_ref()));
        Ok(dead_letters
            .take(limit)
            .map(|(_, dead_letters)| dead_letters.clone())
            .collect())
    }

    async fn save_skip_decision(&self, skip_decision: SkipDecision) -> Result<(), StoreError> {
        let place = (
            skip_decision.view.clone(),
            skip_decision.partition,
            skip_decision.position,
            skip_decision.key.clone(),
        );
        self.read_models()
            .skip_decisions
            .insert(place, skip_decision);
        Ok(())
    }

    async fn skip_decisions(&self, view: &str) -> Result<Vec<SkipDecision>, StoreError> {
        let views = self.read_models();
        Ok(views
            .skip_decisions
            .values()
            .filter(|skip_decision| skip_decision.view == view)
            .cloned()
            .collect())
    }
}
