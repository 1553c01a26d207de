//! Read models in a file: what is dropped or forgotten is hidden at once and purged later, by any
//! store that has the file open.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{
    Acquired, Append, Checkpoint, CommitError, DeadLetter, EventStore, Failure, GenerationId,
    GenerationSpec, GenerationStore, History, Lease, Leases, Log, ManualClock, NewEvent, Partition,
    Position, ReadRows, RowChange, RowStore, RowVersion, RowsBy, Store, StreamId, ViewCommit,
};
use annals_sqlite::{Options, SqliteStore, rusqlite};
use tempfile::TempDir;

fn file(directory: &TempDir) -> PathBuf {
    directory.path().join("log.db")
}

async fn open(file: &Path) -> SqliteStore {
    SqliteStore::open_with(Options::file(file)).await.unwrap()
}

/// A generation that keeps everything, and the lease on its slot.
async fn begun(store: &SqliteStore) -> (GenerationId, Lease) {
    let mut spec = GenerationSpec::new("a", 1, store.id());
    spec.history = History::Bitemporal;
    spec.indexes = vec!["by".into()];
    let generation = store.begin_generation(spec).await.unwrap();
    let asked = store
        .acquire_lease(&generation.lease_name(0), "w", Duration::from_secs(60))
        .await
        .unwrap();
    let Acquired::Granted(lease) = asked else {
        panic!("it is free")
    };
    (generation.id, lease)
}

/// A step to this position with a row, a version and all the rest for each of the keys.
fn step(
    id: GenerationId,
    lease: &Lease,
    from: u64,
    to: u64,
    keys: std::ops::Range<u64>,
) -> ViewCommit {
    let at = Position::new;
    let to_there = Checkpoint {
        position: at(to),
        ..Checkpoint::start(0, Partition(0))
    };
    let mut step = ViewCommit::new(id, lease.clone(), at(from), to_there);
    for n in keys {
        let key = format!("key-{n:06}");
        let value = bytes::Bytes::from(format!("{n} at {to}"));
        step.rows.push(RowChange {
            key: key.clone(),
            value: Some(value.clone()),
            indexed: vec![format!("{}", n % 7)],
        });
        let recorded_at = annals_core::chrono::DateTime::UNIX_EPOCH;
        step.versions.push(RowVersion {
            key: key.clone(),
            after: at(from),
            up_to: at(to),
            recorded_at,
            value: Some(value),
        });
        step.touched.push((key.clone(), at(to)));
        if n.is_multiple_of(10) {
            let event = annals_core::EventId::random();
            let partition = Partition(0);
            let position = at(to);
            let dead_since = recorded_at;
            step.dead_letters.push(DeadLetter {
                key,
                partition,
                position,
                event,
                reason: None,
                attempts: 1,
                dead_since,
            });
        }
    }
    step
}

fn every_row(id: GenerationId) -> ReadRows {
    ReadRows::of(id, RowsBy::KeyRange(Bound::Unbounded, Bound::Unbounded))
}

fn count(file: &Path, what: &str) -> i64 {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection
        .query_row(&format!("select count(*) from {what}"), [], |row| {
            row.get(0)
        })
        .unwrap()
}

/// Waits until so many rows are left.
async fn wait_for(file: &Path, what: &str, left: i64) {
    let until = Instant::now() + Duration::from_secs(60);
    let mut poll = tokio::time::interval(Duration::from_millis(5));
    while count(file, what) != left {
        assert!(
            Instant::now() < until,
            "{} instead of {left} are left of {what}",
            count(file, what)
        );
        poll.tick().await;
    }
}

const TABLES: [&str; 6] = [
    "annals_view_rows",
    "annals_view_entries",
    "annals_view_versions",
    "annals_view_touched",
    "annals_view_dead_letters",
    "annals_view_checkpoints",
];

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_generation_is_immediate_and_delays_no_append() {
    let directory = TempDir::new().unwrap();
    let file = file(&directory);
    let store = open(&file).await;
    let (large, lease) = begun(&store).await;
    let (small, other) = begun(&store).await;
    for n in 0..10 {
        store
            .commit_view(step(large, &lease, n, n + 1, n * 5_000..(n + 1) * 5_000))
            .await
            .unwrap();
    }
    store
        .commit_view(step(small, &other, 0, 1, 0..20))
        .await
        .unwrap();
    store.drop_generation(large).await.unwrap();
    assert!(matches!(
        store.read_rows(every_row(large)).await,
        Err(CommitError::Gone(_))
    ));
    let mut appends = 0;
    while count(&file, "annals_view_generations") > 1 {
        let append = Append::new(
            StreamId::new("note-1").unwrap(),
            [NewEvent::json("noted", b"{}".as_slice())],
        );
        store.append(append).await.unwrap();
        appends += 1;
    }
    assert!(
        appends >= 10,
        "it was cleared away between {appends} appends only"
    );
    assert_eq!(
        TABLES.map(|table| count(&file, table)),
        [20, 20, 20, 20, 2, 1]
    );
    assert_eq!(
        store.read_rows(every_row(small)).await.unwrap().rows.len(),
        20
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_before_closing_is_purged_after_opening() {
    let directory = TempDir::new().unwrap();
    let file = file(&directory);
    let store = open(&file).await;
    let (id, lease) = begun(&store).await;
    store
        .commit_view(step(id, &lease, 0, 1, 0..20_000))
        .await
        .unwrap();
    drop(store);
    // As the drop leaves it, before anything is cleared away.
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection
        .execute("delete from annals_view_checkpoints", [])
        .unwrap();
    connection
        .execute("update annals_view_generations set phase = 3", [])
        .unwrap();
    drop(connection);
    let store = open(&file).await;
    wait_for(&file, "annals_view_generations", 0).await;
    assert_eq!(TABLES.map(|table| count(&file, table)), [0; 6]);
    let (next, _) = begun(&store).await;
    assert!(next > id, "an id returned");
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_history_is_hidden_and_then_purged() {
    let directory = TempDir::new().unwrap();
    let file = file(&directory);
    let store = open(&file).await;
    let (id, lease) = begun(&store).await;
    for n in 0..20 {
        store
            .commit_view(step(id, &lease, n, n + 1, 0..500))
            .await
            .unwrap();
    }
    for (since, left) in [(0, 20), (7, 14), (7, 14), (15, 6)] {
        store
            .forget_history(id, Position::new(since))
            .await
            .unwrap();
        let all = (Position::START, Position::MAX);
        // The newest that ends at or before it is what was true then.
        let shown = store.row_versions(id, "key-000499", all, 99).await.unwrap();
        assert_eq!(shown.len(), left, "since {since}");
        wait_for(&file, "annals_view_versions", left as i64 * 500).await;
        assert_eq!(
            store.row_versions(id, "key-000499", all, 99).await.unwrap(),
            shown
        );
    }
    assert_eq!(count(&file, "annals_view_touched"), 10_000);
}

/// As a worker in another process sees it.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_paused_is_fenced_through_the_file() {
    let directory = TempDir::new().unwrap();
    let clock = Arc::new(ManualClock::default());
    let options = Options::file(file(&directory)).clock(Arc::clone(&clock) as _);
    let one = SqliteStore::open_with(options.clone()).await.unwrap();
    let two = SqliteStore::open_with(options).await.unwrap();
    let (id, lease) = begun(&one).await;
    one.commit_view(step(id, &lease, 0, 1, 0..5)).await.unwrap();
    clock.advance(annals_core::chrono::TimeDelta::seconds(61));
    let Acquired::Granted(taken) = two
        .acquire_lease(&lease.name, "other", Duration::from_secs(60))
        .await
        .unwrap()
    else {
        panic!("it has ended")
    };
    let fenced = one
        .commit_view(step(id, &lease, 1, 2, 0..5))
        .await
        .unwrap_err();
    assert!(matches!(fenced, CommitError::Fenced { .. }), "{fenced:?}");
    assert!(
        !one.renew_lease(&lease, Duration::from_secs(60))
            .await
            .unwrap()
    );
    two.commit_view(step(id, &taken, 1, 2, 0..5)).await.unwrap();
    assert_eq!(
        one.checkpoints(id).await.unwrap()[0].position,
        Position::new(2)
    );
}

/// Steps, appends and refused steps that are committed together each have their own outcome.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_commit_leaves_its_neighbours_alone() {
    let directory = TempDir::new().unwrap();
    let store = open(&file(&directory)).await;
    let mut workers = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        workers.push(begun(&store).await);
    }
    for round in 0..20 {
        for (number, (id, lease)) in workers.clone().into_iter().enumerate() {
            let mut stale = lease.clone();
            stale.epoch += u64::from(number % 2 == 1);
            let store = store.clone();
            let append = store.clone();
            tasks.spawn(async move {
                let taken = store
                    .commit_view(step(id, &stale, round, round + 1, 0..50))
                    .await;
                assert_eq!(taken.is_ok(), number % 2 == 0, "{taken:?}");
            });
            tasks.spawn(async move {
                let stream = StreamId::new(format!("note-{number}")).unwrap();
                append
                    .append(Append::new(
                        stream,
                        [NewEvent::json("noted", b"{}".as_slice())],
                    ))
                    .await
                    .unwrap();
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }
    for (number, (id, _)) in workers.iter().enumerate() {
        let page = store.read_rows(every_row(*id)).await.unwrap();
        let expected = if number % 2 == 0 { (50, 1) } else { (0, 0) };
        assert_eq!((page.rows.len(), page.checkpoints.len()), expected);
    }
    assert_eq!(
        store.head(Partition(0)).await.unwrap().visible,
        Position::new(80)
    );
}

#[tokio::test]
async fn a_read_only_store_shows_views_and_changes_none() {
    let directory = TempDir::new().unwrap();
    let file = file(&directory);
    let store = open(&file).await;
    let (id, lease) = begun(&store).await;
    store
        .commit_view(step(id, &lease, 0, 1, 0..5))
        .await
        .unwrap();
    drop(store);
    let reader = SqliteStore::open_with(Options::file(&file).read_only())
        .await
        .unwrap();
    assert!(reader.views().is_some());
    assert_eq!(reader.read_rows(every_row(id)).await.unwrap().rows.len(), 5);
    let refused = reader
        .acquire_lease("x", "w", Duration::from_secs(1))
        .await
        .unwrap_err();
    assert_eq!(refused.failure(), Failure::ReadOnly);
    let Err(CommitError::Store(refused)) = reader.commit_view(step(id, &lease, 1, 2, 0..5)).await
    else {
        panic!("it must not be written")
    };
    assert_eq!(refused.failure(), Failure::ReadOnly);
    let shown = |view: &str| count(&file, view);
    assert_eq!(
        (
            shown("annals_readable_views"),
            shown("annals_readable_rows")
        ),
        (1, 0)
    );
}
