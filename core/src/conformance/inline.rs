//! Rows of inline views: written with them or not at all, and never folded twice.

use std::sync::Arc;

use bytes::Bytes;

use super::Fixture;
use super::view_words::*;
use super::words::*;
use crate::append::{Append, AppendError, Appended, Expected};
use crate::generation::History;
use crate::inline::{InlineRow, InlineRowVersion, InlineViews, RowAdvance, VersionedRow};
use crate::position::Position;
use crate::read::ReadLog;
use crate::store::Store;
use crate::stream::{StreamId, Version};
use crate::{Checkpoint, CommitError, GenerationId, GenerationSpec, ReadRows, RowsBy, ViewCommit};

fn inline(store: &dyn Store) -> &dyn InlineViews {
    store.inline_views().expect("the trait was declared")
}

fn inline_spec(history: History, indexes: &[&str]) -> GenerationSpec {
    GenerationSpec {
        inline: true,
        history,
        ..spec("a", indexes)
    }
}

async fn begin_inline(store: &dyn Store, history: History, indexes: &[&str]) -> GenerationId {
    let spec = inline_spec(history, indexes);
    views(store).begin_generation(spec).await.unwrap().id
}

fn account() -> StreamId {
    stream("account-1")
}

/// An append of so many events after a version of the stream, without rows.
pub(super) fn append_after(version: u64, events_count: usize) -> Append {
    let mut append = Append::new(account(), events(events_count));
    append.expectations[0].1 = Expected::Version(Version::new(version));
    append
}

/// The row of the key `1`, from a version of its stream.
pub(super) fn row(generation: GenerationId, from: u64, value: impl Into<Bytes>) -> InlineRow {
    let mut row = InlineRow::new(generation, account(), "1", Version::new(from));
    row.value = Some(value.into());
    row
}

pub(super) async fn carry(
    store: &dyn Store,
    mut append: Append,
    row: InlineRow,
) -> Result<Appended, AppendError> {
    append.rows.push(row);
    store.append(append).await
}

/// The row of the key `1`: its value, and its version.
pub(super) async fn standing(
    store: &dyn Store,
    generation: GenerationId,
) -> Option<(Option<Bytes>, u64)> {
    let mut found = inline(store)
        .read_versioned(generation, &["missing".into(), "1".into()])
        .await
        .unwrap();
    assert!(found.len() <= 1, "{found:?}");
    found
        .pop()
        .map(|VersionedRow { value, at, .. }| (value, at.get()))
}

async fn found(store: &dyn Store, generation: GenerationId, by: RowsBy) -> Vec<Bytes> {
    read_rows(views(store), ReadRows::of(generation, by))
        .await
        .into_iter()
        .map(|row| row.value)
        .collect()
}

pub(super) fn said(value: &str, at: u64) -> Option<(Option<Bytes>, u64)> {
    Some((Some(Bytes::copy_from_slice(value.as_bytes())), at))
}

pub async fn rows_are_written_with_their_append_at_its_version(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let other = another(fixture, &store).await;
    let generation = begin_inline(&*store, History::None, &["one"]).await;
    assert_eq!(standing(&*store, generation).await, None);
    for (version, value) in [(0, "two"), (2, "four")] {
        let mut row = row(generation, version, value);
        row.indexed = vec![value.into()];
        let appended = carry(&*store, append_after(version, 2), row).await.unwrap();
        assert_eq!(appended.last().version.get(), version + 2);
        assert_eq!(
            standing(&*other, generation).await,
            said(value, version + 2)
        );
        let range = (
            std::ops::Bound::Included(value.to_owned()),
            std::ops::Bound::Unbounded,
        );
        let by_index = RowsBy::Index {
            name: "one".into(),
            range,
        };
        for by in [RowsBy::Keys(vec!["1".into()]), every_key(), by_index] {
            assert_eq!(found(&*other, generation, by).await, [value]);
        }
    }
    assert_eq!(
        views(&*store).checkpoints(generation).await.unwrap(),
        [],
        "an append is no step of a worker"
    );
}

pub async fn rows_of_a_refused_append_are_not_written(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let generation = begin_inline(&*store, History::None, &[]).await;
    carry(&*store, append_after(0, 1), row(generation, 0, "first"))
        .await
        .unwrap();
    let error = carry(&*store, append_after(0, 1), row(generation, 1, "never"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, AppendError::Invalid(_)),
        "a row whose version is after its append: {error:?}"
    );
    let error = carry(&*store, append_after(5, 1), row(generation, 1, "never"))
        .await
        .unwrap_err();
    assert!(matches!(error, AppendError::Conflict(_)), "{error:?}");
    assert_eq!(standing(&*store, generation).await, said("first", 1));
}

pub async fn rows_of_a_repeated_append_are_not_written_again(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let generation = begin_inline(&*store, History::None, &[]).await;
    let first = append_after(0, 1);
    carry(&*store, first.clone(), row(generation, 0, "first"))
        .await
        .unwrap();
    carry(&*store, append_after(1, 1), row(generation, 1, "second"))
        .await
        .unwrap();
    let again = carry(&*store, first, row(generation, 0, "never"))
        .await
        .unwrap();
    assert!(again.was_repeated());
    assert_eq!(standing(&*store, generation).await, said("second", 2));
}

pub async fn rows_at_another_version_are_skipped_by_the_append(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let generation = begin_inline(&*store, History::Versions, &[]).await;
    carry(&*store, append_after(0, 2), row(generation, 0, "two"))
        .await
        .unwrap();
    store.append(append_after(2, 1)).await.unwrap();
    // Folded by a caller who thought that the row had the third event.
    let mut wrong = row(generation, 3, "never");
    wrong.past = vec![InlineRowVersion {
        event: 0,
        value: None,
    }];
    let appended = carry(&*store, append_after(3, 1), wrong).await.unwrap();
    assert_eq!(appended.last().version, Version::new(4));
    assert_eq!(standing(&*store, generation).await, said("two", 2));
    let versions = views(&*store)
        .row_versions(generation, "1", (Position::START, Position::MAX), 9)
        .await
        .unwrap();
    assert_eq!(versions, []);
    // And by a caller who knows its version.
    carry(&*store, append_after(4, 1), row(generation, 2, "five"))
        .await
        .unwrap();
    assert_eq!(standing(&*store, generation).await, said("five", 5));
}

pub async fn rows_of_a_dropped_generation_are_skipped_by_the_append(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let generation = begin_inline(&*store, History::None, &["one"]).await;
    views(&*store).drop_generation(generation).await.unwrap();
    let appended = carry(&*store, append_after(0, 1), row(generation, 0, "never"))
        .await
        .unwrap();
    assert_eq!(appended.last().version, Version::FIRST);
    let gone = inline(&*store)
        .read_versioned(generation, &["1".into()])
        .await
        .unwrap_err();
    assert!(
        matches!(gone, CommitError::Gone(of) if of == generation),
        "{gone:?}"
    );
}

pub async fn rows_that_are_never_valid_are_refused_with_their_append(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let generation = begin_inline(&*store, History::None, &["one"]).await;
    let not_inline = views(&*store)
        .begin_generation(spec("b", &[]))
        .await
        .unwrap()
        .id;
    let with = |change: &dyn Fn(&mut Append)| {
        let mut good = row(generation, 0, "never");
        good.indexed = vec!["x".into()];
        let mut append = append_after(0, 1);
        append.rows.push(good);
        change(&mut append);
        append
    };
    let past = |event| vec![InlineRowVersion { event, value: None }];
    let bad: [(&str, Append); 11] = [
        (
            "too few entries",
            with(&|append| append.rows[0].indexed.clear()),
        ),
        (
            "entries of a row that there is not",
            with(&|append| append.rows[0].value = None),
        ),
        (
            "a view that is not inline",
            with(&|append| append.rows[0] = row(not_inline, 0, "never")),
        ),
        (
            "a past that is not kept",
            with(&|append| append.rows[0].past = past(0)),
        ),
        (
            "the past of an event that is not there",
            with(&|append| append.rows[0].past = past(1)),
        ),
        (
            "the past turned round",
            with(&|append| append.rows[0].past = [past(0), past(0)].concat()),
        ),
        (
            "a row twice",
            with(&|append| append.rows.push(append.rows[0].clone())),
        ),
        (
            "another stream",
            with(&|append| append.rows[0].stream = stream("account-2")),
        ),
        (
            "no version is expected",
            with(&|append| append.expectations[0].1 = Expected::NoStream),
        ),
        (
            "a row from after the append",
            with(&|append| append.rows[0].from = Version::FIRST),
        ),
        (
            "a long key",
            with(&|append| append.rows[0].key = "k".repeat(crate::VIEW_KEY_BYTES_MAX + 1)),
        ),
    ];
    for (what, append) in bad {
        let error = store.append(append).await.expect_err(what);
        assert!(
            matches!(error, AppendError::Invalid(_)),
            "{what}: {error:?}"
        );
    }
    assert_eq!(whole_stream(&*store, &account()).await.len(), 0);
    store.append(with(&|_| {})).await.unwrap();
    assert_eq!(standing(&*store, generation).await, said("never", 1));
}

pub async fn rows_may_be_removed_and_keep_their_version(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let generation = begin_inline(&*store, History::None, &["one"]).await;
    let mut first = row(generation, 0, "first");
    first.indexed = vec!["x".into()];
    carry(&*store, append_after(0, 1), first).await.unwrap();
    let gone = InlineRow::new(generation, account(), "1", Version::FIRST);
    carry(&*store, append_after(1, 2), gone).await.unwrap();
    assert_eq!(standing(&*store, generation).await, Some((None, 3)));
    let by_index = RowsBy::Index {
        name: "one".into(),
        range: (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded),
    };
    for by in [every_key(), by_index] {
        assert_eq!(found(&*store, generation, by).await, [""; 0]);
    }
    let mut again = row(generation, 3, "again");
    again.indexed = vec!["y".into()];
    carry(&*store, append_after(3, 1), again).await.unwrap();
    assert_eq!(standing(&*store, generation).await, said("again", 4));
}

pub async fn row_versions_are_kept_at_the_positions_of_events(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let generation = begin_inline(&*store, History::Bitemporal, &[]).await;
    let mut carried = row(generation, 0, "c");
    let was = |event, value: &'static str| InlineRowVersion {
        event,
        value: Some(Bytes::from_static(value.as_bytes())),
    };
    // The second event does not touch the row, the third removes it.
    carried.past = vec![
        was(0, "a"),
        InlineRowVersion {
            event: 2,
            value: None,
        },
        was(3, "c"),
    ];
    let placed = carry(&*store, append_after(0, 4), carried).await.unwrap();
    let at = |index: usize| placed.events()[index].position;
    let recorded_at = whole_stream(&*store, &account()).await[0].recorded_at;
    let versions = views(&*store)
        .row_versions(generation, "1", (Position::START, Position::MAX), 9)
        .await
        .unwrap();
    let found: Vec<_> = versions
        .iter()
        .map(|of| (of.after, of.up_to, of.recorded_at, of.value.as_deref()))
        .collect();
    let expected = [(0, Some(&b"a"[..])), (2, None), (3, Some(b"c"))];
    assert_eq!(
        found,
        expected.map(|(index, value)| (at(index).minus(1), at(index), recorded_at, value))
    );
    let touched = views(&*store)
        .touched(generation, "1", Position::START, Position::MAX, 9)
        .await
        .unwrap();
    assert_eq!(touched, [at(0), at(2), at(3)]);
    let moments = [
        (at(0), Some("a")),
        (at(1), Some("a")),
        (at(2), None),
        (at(3), Some("c")),
    ];
    for (moment, value) in moments {
        let past = past(views(&*store), generation, "1", moment.get())
            .await
            .expect("something is known of it");
        assert_eq!(
            (
                past.base.and_then(|base| base.value).as_deref(),
                past.refold_after
            ),
            (value.map(str::as_bytes), None)
        );
    }
}

/// A step that takes the row of the key `1` from a version of its stream to another.
pub(super) fn step_over(worker: &Worker, to: u64, versions: (u64, u64), value: &str) -> ViewCommit {
    let mut step = worker.step(to);
    step.rows = vec![set("1", value.to_owned(), &[])];
    step.versions = vec![row_version("1", to - 1, to, Some(value))];
    step.touched = vec![("1".into(), at(to))];
    step.advances = vec![RowAdvance {
        key: "1".into(),
        from: Version::new(versions.0),
        to: Version::new(versions.1),
    }];
    step
}

pub async fn steps_leave_rows_as_appends_made_them(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let mut worker = Worker::begin(views(&*store), inline_spec(History::Bitemporal, &[])).await;
    let generation = worker.id();
    store.append(append_after(0, 1)).await.unwrap();
    let first = step_over(&worker, 1, (0, 1), "one");
    worker.take(views(&*store), first).await;
    assert_eq!(standing(&*store, generation).await, said("one", 1));
    carry(&*store, append_after(1, 2), row(generation, 1, "three"))
        .await
        .unwrap();
    // The worker read the row before that append, and the log after it.
    let mut late = step_over(&worker, 3, (1, 2), "two");
    late.rows.push(set("2", "another", &[]));
    late.advances.push(RowAdvance {
        key: "2".into(),
        from: Version::NONE,
        to: Version::FIRST,
    });
    worker.take(views(&*store), late).await;
    assert_eq!(standing(&*store, generation).await, said("three", 3));
    assert_eq!(
        found(&*store, generation, RowsBy::Keys(vec!["2".into()])).await,
        ["another"]
    );
    assert_eq!(
        views(&*store)
            .touched(generation, "1", Position::START, Position::MAX, 9)
            .await
            .unwrap(),
        [at(1)]
    );
    let versions = views(&*store)
        .row_versions(generation, "1", (Position::START, Position::MAX), 9)
        .await
        .unwrap();
    assert_eq!(versions.len(), 1);
    assert_eq!(
        views(&*store).checkpoints(generation).await.unwrap()[0].position,
        at(3)
    );
}

pub async fn steps_over_rows_that_moved_elsewhere_are_fenced(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let worker = Worker::begin(views(&*store), inline_spec(History::Bitemporal, &[])).await;
    carry(&*store, append_after(0, 1), row(worker.id(), 0, "one"))
        .await
        .unwrap();
    let step = step_over(&worker, 9, (0, 2), "never");
    assert_fenced(
        &refused_step(views(&*store), &worker.generation, step).await,
        &worker,
    );
    let step = step_over(&worker, 9, (2, 3), "never");
    assert_fenced(
        &refused_step(views(&*store), &worker.generation, step).await,
        &worker,
    );
    assert_eq!(standing(&*store, worker.id()).await, said("one", 1));
}

pub async fn steps_without_the_target_version_of_a_row_are_refused(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let worker = Worker::begin(views(&*store), inline_spec(History::Bitemporal, &[])).await;
    let other = Worker::begin(views(&*store), spec("b", &[])).await;
    let with = |worker: &Worker, change: &dyn Fn(&mut ViewCommit)| {
        let mut step = step_over(worker, 1, (0, 1), "never");
        change(&mut step);
        step
    };
    let bad = [
        with(&worker, &|step| step.advances.clear()),
        with(&worker, &|step| step.advances[0].to = Version::NONE),
        with(&worker, &|step| {
            step.advances.push(step.advances[0].clone());
        }),
        with(&worker, &|step| {
            (step.rows, step.touched, step.advances) = (vec![], vec![], vec![]);
        }),
        with(&worker, &|step| {
            (step.rows, step.versions, step.advances) = (vec![], vec![], vec![]);
        }),
        with(&other, &|_| {}),
    ];
    for step in bad {
        let of = if step.generation == other.id() {
            &other
        } else {
            &worker
        };
        let error = refused_step(views(&*store), &of.generation, step).await;
        assert!(matches!(error, CommitError::Invalid(_)), "{error:?}");
    }
}

pub async fn rows_survive_reopening(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let begun = views(&*store)
        .begin_generation(inline_spec(History::Versions, &[]))
        .await
        .unwrap();
    carry(&*store, append_after(0, 1), row(begun.id, 0, "one"))
        .await
        .unwrap();
    carry(
        &*store,
        append_after(1, 1),
        InlineRow::new(begun.id, account(), "1", Version::FIRST),
    )
    .await
    .unwrap();
    let store = reopen(fixture, store).await;
    assert_eq!(
        views(&*store).generations("a").await.unwrap()[0],
        begun,
        "it is inline as before"
    );
    assert_eq!(standing(&*store, begun.id).await, Some((None, 2)));
    carry(&*store, append_after(2, 1), row(begun.id, 2, "three"))
        .await
        .unwrap();
    assert_eq!(standing(&*store, begun.id).await, said("three", 3));
}

/// How many events were folded into the row, and its version.
async fn count(store: &dyn Store, generation: GenerationId) -> (u64, u64) {
    let (value, at) = standing(store, generation).await.unwrap_or_default();
    (
        value.map_or(0, |value| {
            std::str::from_utf8(&value).unwrap().parse().unwrap()
        }),
        at,
    )
}

pub async fn appends_and_steps_at_once_fold_every_event_once(fixture: &dyn Fixture) {
    const APPENDS: u64 = 120;
    let store = open(fixture).await;
    let other = another(fixture, &store).await;
    let spec = GenerationSpec {
        partitions: store.partitions(),
        ..inline_spec(History::None, &[])
    };
    let mut worker = Worker::begin(views(&*store), spec).await;
    worker.partition = store.partition_of(&account());
    let generation = worker.id();
    let appending: Arc<dyn Store> = Arc::clone(&store);
    // Every third append carries no row, as those of another program.
    let appends = tokio::spawn(async move {
        for version in 0..APPENDS {
            let mut append = append_after(version, 1);
            let (folded, at) = count(&*appending, generation).await;
            if version % 3 != 1 && at == version {
                append
                    .rows
                    .push(row(generation, at, (folded + 1).to_string()));
            }
            appending.append(append).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    while count(&*other, generation).await.1 < APPENDS {
        step_once(&*other, &mut worker).await;
    }
    appends.await.unwrap();
    step_once(&*other, &mut worker).await;
    assert_eq!(count(&*other, generation).await, (APPENDS, APPENDS));
}

/// Folds what is new in the log onto the row.
async fn step_once(store: &dyn Store, worker: &mut Worker) {
    let Worker {
        partition,
        at: from,
        ..
    } = *worker;
    let read = ReadLog::after(from).partition(partition);
    let page = store.read(read).await.unwrap();
    let (folded, at) = count(store, worker.id()).await;
    let new: Vec<u64> = page
        .events
        .iter()
        .map(|event| event.version.get())
        .filter(|version| *version > at)
        .collect();
    let to = Checkpoint {
        position: page.scanned,
        ..Checkpoint::start(0, partition)
    };
    let mut step = ViewCommit::new(worker.id(), worker.lease.clone(), from, to);
    if let Some(last) = new.last() {
        step.rows = vec![set("1", (folded + new.len() as u64).to_string(), &[])];
        step.advances = vec![RowAdvance {
            key: "1".into(),
            from: Version::new(at),
            to: Version::new(*last),
        }];
    }
    // The row was read after the log, so it cannot have moved to where the step would be fenced.
    worker.take(views(store), step).await;
    tokio::task::yield_now().await;
}
