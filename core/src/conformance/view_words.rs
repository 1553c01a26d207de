//! The words in which the cases about read models are written.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};

use super::Fixture;
use super::words::{open, open_at};
use crate::clock::ManualClock;
use crate::event::EventId;
use crate::lease::{Acquired, Lease};
use crate::position::{LogId, Partition, Position};
use crate::store::Store;
use crate::{
    Checkpoint, CommitError, DeadLetter, Generation, GenerationId, GenerationSpec, History,
    PastRow, ReadRows, RowChange, RowVersion, RowsBy, ViewCommit, ViewRow, ViewStore,
};

pub(super) const TTL: Duration = Duration::from_secs(10);

pub(super) fn views(store: &dyn Store) -> &dyn ViewStore {
    store.views().expect("the trait was declared")
}

/// A second handle as another process would have it, or the same one for a store that only one
/// process can open.
pub(super) async fn another(fixture: &dyn Fixture, store: &Arc<dyn Store>) -> Arc<dyn Store> {
    if fixture.is_shared() {
        open(fixture).await
    } else {
        Arc::clone(store)
    }
}

/// Drops the handle and opens the same data again, with the clock that the case holds.
pub(super) async fn reopen_at(
    fixture: &dyn Fixture,
    clock: &Arc<ManualClock>,
    store: Arc<dyn Store>,
) -> Arc<dyn Store> {
    drop(store);
    open_at(fixture, clock).await
}

pub(super) fn at(position: u64) -> Position {
    Position::new(position)
}

/// The moment at which the event at this position was recorded, to the microsecond.
pub(super) fn recorded(position: u64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_767_225_600_123_457).unwrap()
        + TimeDelta::seconds(position as i64)
}

/// A view that keeps everything that can be kept, with these indexes.
pub(super) fn spec(view: &str, indexes: &[&str]) -> GenerationSpec {
    let mut spec = GenerationSpec::new(view, 1, LogId::random());
    spec.history = History::Bitemporal;
    spec.indexes = indexes.iter().map(|name| (*name).to_owned()).collect();
    spec
}

pub(super) fn set(key: &str, value: impl Into<Bytes>, indexed: &[&str]) -> RowChange {
    let indexed = indexed.iter().map(|entry| (*entry).to_owned()).collect();
    RowChange {
        key: key.into(),
        value: Some(value.into()),
        indexed,
    }
}

pub(super) fn removed(key: &str) -> RowChange {
    RowChange {
        key: key.into(),
        value: None,
        indexed: Vec::new(),
    }
}

pub(super) fn row_version(key: &str, after: u64, up_to: u64, value: Option<&str>) -> RowVersion {
    let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
    RowVersion {
        key: key.into(),
        after: at(after),
        up_to: at(up_to),
        recorded_at: recorded(up_to),
        value,
    }
}

pub(super) fn dead_letters(
    key: &str,
    position: u64,
    reason: Option<&str>,
    attempts: u32,
) -> DeadLetter {
    DeadLetter {
        key: key.into(),
        partition: Partition(0),
        position: at(position),
        event: EventId::random(),
        reason: reason.map(str::to_owned),
        attempts,
        dead_since: recorded(position),
    }
}

#[track_caller]
pub(super) fn granted(acquired: Acquired) -> Lease {
    match acquired {
        Acquired::Granted(lease) => lease,
        Acquired::Held(state) => panic!("it had to be granted, but {state:?}"),
    }
}

/// Who works on a slot and a partition of a generation, one step after another.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) generation: Generation,
    pub(super) lease: Lease,
    pub(super) slot: u16,
    pub(super) partition: Partition,
    pub(super) at: Position,
}

impl Worker {
    /// Begins a generation, and works on its first slot.
    pub(super) async fn begin(views: &dyn ViewStore, spec: GenerationSpec) -> Worker {
        Worker::on(views, views.begin_generation(spec).await.unwrap(), 0).await
    }

    pub(super) async fn on(views: &dyn ViewStore, generation: Generation, slot: u16) -> Worker {
        let lease = granted(
            views
                .acquire_lease(&generation.lease_name(slot), "worker-a", TTL)
                .await
                .unwrap(),
        );
        Worker {
            generation,
            lease,
            slot,
            partition: Partition(0),
            at: Position::START,
        }
    }

    pub(super) fn id(&self) -> GenerationId {
        self.generation.id
    }

    /// A step to this position that changes nothing else yet.
    pub(super) fn step(&self, to: u64) -> ViewCommit {
        let slot = self.slot;
        let partition = self.partition;
        let position = at(to);
        let to = Checkpoint {
            slot,
            partition,
            position,
            event: Some(EventId::random()),
            state: Bytes::new(),
        };
        ViewCommit::new(self.generation.id, self.lease.clone(), self.at, to)
    }

    pub(super) async fn take(&mut self, views: &dyn ViewStore, step: ViewCommit) {
        let to = step.to.position;
        views.commit_view(step).await.unwrap();
        self.at = to;
    }

    /// One step that changes these rows.
    pub(super) async fn change(
        &mut self,
        views: &dyn ViewStore,
        rows: impl IntoIterator<Item = RowChange>,
    ) {
        let mut step = self.step(self.at.get() + 1);
        step.rows = rows.into_iter().collect();
        self.take(views, step).await;
    }
}

pub(super) fn every_key() -> RowsBy {
    RowsBy::KeyRange(Bound::Unbounded, Bound::Unbounded)
}

pub(super) fn keys_of(rows: &[ViewRow]) -> Vec<&str> {
    rows.iter().map(|row| row.key.as_str()).collect()
}

/// Reads everything that is asked for, page after page, and checks what every page owes.
pub(super) async fn read_rows(views: &dyn ViewStore, mut read: ReadRows) -> Vec<ViewRow> {
    let mut all = Vec::new();
    loop {
        let page = views.read_rows(read.clone()).await.unwrap();
        assert!(
            page.rows.len() <= read.limit,
            "{} rows, limit {}",
            page.rows.len(),
            read.limit
        );
        let last = page.rows.last().map(|row| row.key.clone());
        all.extend(page.rows);
        let Some(next) = page.next else { return all };
        assert_eq!(
            Some(&next.key),
            last.as_ref(),
            "a page ends at its last row"
        );
        assert_ne!(Some(&next), read.after.as_ref(), "a page that gets nowhere");
        read.after = Some(next);
    }
}

/// All that can be seen of a generation: equal pictures mean that nothing was changed between them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ViewPicture {
    generation: Generation,
    pub(super) rows: Vec<ViewRow>,
    by_index: Vec<Vec<ViewRow>>,
    pub(super) checkpoints: Vec<Checkpoint>,
    pub(super) versions: Vec<Vec<RowVersion>>,
    touched: Vec<Vec<Position>>,
    pub(super) dead_letters: Vec<DeadLetter>,
}

impl ViewPicture {
    pub(super) async fn of(views: &dyn ViewStore, generation: &Generation) -> ViewPicture {
        let id = generation.id;
        let all = (Bound::Unbounded, Bound::Unbounded);
        let known = views.generations(&generation.spec.view).await.unwrap();
        let mut picture = ViewPicture {
            generation: known
                .into_iter()
                .find(|known| known.id == id)
                .expect("the generation is there"),
            rows: read_rows(views, ReadRows::of(id, every_key())).await,
            by_index: Vec::new(),
            checkpoints: views.checkpoints(id).await.unwrap(),
            versions: Vec::new(),
            touched: Vec::new(),
            dead_letters: views.dead_letters(id, None, 10_000).await.unwrap(),
        };
        for name in &generation.spec.indexes {
            let by = RowsBy::Index {
                name: name.clone(),
                range: all.clone(),
            };
            picture
                .by_index
                .push(read_rows(views, ReadRows::of(id, by)).await);
        }
        for key in views.past_keys(id, all, None, 10_000).await.unwrap() {
            let between = (Position::START, Position::MAX);
            picture
                .versions
                .push(views.row_versions(id, &key, between, 10_000).await.unwrap());
            picture.touched.push(
                views
                    .touched(id, &key, between.0, between.1, 10_000)
                    .await
                    .unwrap(),
            );
        }
        picture
    }
}

/// Takes a step that must be refused and change nothing.
pub(super) async fn refused_step(
    views: &dyn ViewStore,
    generation: &Generation,
    step: ViewCommit,
) -> CommitError {
    let before = ViewPicture::of(views, generation).await;
    let error = views
        .commit_view(step)
        .await
        .expect_err("it had to be refused");
    assert_eq!(
        ViewPicture::of(views, generation).await,
        before,
        "a refusal changed something: {error}"
    );
    error
}

#[track_caller]
pub(super) fn assert_fenced(error: &CommitError, of: &Worker) {
    let CommitError::Fenced {
        generation, slot, ..
    } = error
    else {
        panic!("fenced, but it is {error:?}")
    };
    assert_eq!((*generation, *slot), (of.id(), of.slot));
}

#[track_caller]
pub(super) fn assert_gone<T>(answer: Result<T, CommitError>, id: GenerationId) {
    match answer {
        Err(CommitError::Gone(gone)) => assert_eq!(gone, id),
        Err(error) => panic!("gone, but it is {error:?}"),
        Ok(_) => panic!("generation {id} is gone, and it was answered"),
    }
}

/// What is known of one key at a moment.
pub(super) async fn past(
    views: &dyn ViewStore,
    id: GenerationId,
    key: &str,
    moment: u64,
) -> Option<PastRow> {
    let mut found = views
        .read_past(id, &[key.to_owned()], at(moment))
        .await
        .unwrap();
    assert!(
        found.len() <= 1 && found.iter().all(|row| row.key == key),
        "{found:?}"
    );
    found.pop()
}
