//! Many at once: tasks in one process, handles to one file, and futures that are dropped.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use annals_core::{
    Append, AppendError, ChangeStream, EventId, EventStore, Expected, FoldId, Log, Metadata,
    NewEvent, PAGE_BYTES_MAX, Partition, Position, ReadLog, ReadStream, Snapshot, SnapshotStore,
    StreamChange, StreamId, Version,
};
use annals_sqlite::{Options, SqliteStore, rusqlite};
use tempfile::TempDir;

fn place() -> (TempDir, Options) {
    let directory = TempDir::new().unwrap();
    let options = Options::file(directory.path().join("log.db"));
    (directory, options)
}

fn stream(n: u64) -> StreamId {
    StreamId::new(format!("thing-{n}")).unwrap()
}

fn event(payload: &str) -> NewEvent {
    NewEvent::json("thing.happened", payload.to_owned().into_bytes())
}

async fn head(store: &SqliteStore) -> u64 {
    store.head(Partition(0)).await.unwrap().visible.get()
}

/// How many transactions the journal holds.
fn commits(file: &Path) -> usize {
    let journal = std::fs::read(file.with_extension("db-wal")).unwrap();
    // A header of 32 bytes, then a header of 24 for each page; the last page of a transaction names
    // the size of the file.
    journal[32..]
        .chunks_exact(24 + 4_096)
        .filter(|frame| frame[4..8] != [0; 4])
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_that_come_together_are_flushed_together_and_answered_apart() {
    let (_directory, options) = place();
    let store = SqliteStore::open_with(options.clone()).await.unwrap();
    let before = commits(options.path().unwrap());
    // Two tasks for each of 100 streams expect it to be new: one of each pair is right. Each right
    // one comes twice.
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..100 {
        for racer in 0..2_u64 {
            let append =
                Append::new(stream(n), [event(&racer.to_string())]).expecting(Expected::NoStream);
            for _ in 0..2 {
                let store = store.clone();
                let append = append.clone();
                tasks.spawn(async move { (n, racer, store.append(append).await) });
            }
        }
    }
    let mut winners = vec![Vec::new(); 100];
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            (n, racer, Ok(appended)) => {
                assert_eq!(appended.last().version, Version::FIRST);
                winners[n as usize].push((racer, appended.was_repeated()));
            }
            (_, _, Err(AppendError::Conflict(found))) => {
                assert!(found[0].to_string().contains("is at 1"), "{found:?}");
            }
            (n, racer, Err(error)) => panic!("{n} {racer}: {error:?}"),
        }
    }
    for mut pair in winners {
        pair.sort_by_key(|(_, repeated)| *repeated);
        assert!(
            matches!(pair[..], [(one, false), (same, true)] if one == same),
            "{pair:?}"
        );
    }
    assert_eq!(head(&store).await, 100);
    let flushes = commits(options.path().unwrap()) - before;
    assert!(flushes < 50, "{flushes} transactions for 400 appends");
}

#[tokio::test]
async fn two_handles_to_one_file_see_each_other() {
    let (_directory, options) = place();
    let options = options.poll_interval(Duration::from_millis(5));
    let one = SqliteStore::open_with(options.clone()).await.unwrap();
    let two = SqliteStore::open_with(options).await.unwrap();
    assert_eq!(one.id(), two.id());
    for n in 0..20 {
        let (writer, other) = if n % 2 == 0 {
            (&one, &two)
        } else {
            (&two, &one)
        };
        let mut hint = other.hint();
        // Each writes on top of what the other did, so what either remembers is out of date every
        // time.
        let append =
            Append::new(stream(1), [event("1")]).expecting(Expected::Version(Version::new(n)));
        assert_eq!(
            writer.append(append).await.unwrap().last().position.get(),
            n + 1
        );
        hint.wait(Duration::from_secs(30)).await;
        assert_eq!(head(other).await, n + 1);
    }
    // What one deletes is deleted for the other.
    one.change_stream(ChangeStream::new(&stream(1), StreamChange::Tombstone))
        .await
        .unwrap();
    let refused = two
        .append(Append::new(stream(1), [event("1")]))
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("tombstoned at 20"),
        "{refused}"
    );
}

#[tokio::test]
async fn what_a_plain_connection_writes_is_noticed() {
    let (_directory, options) = place();
    let store = SqliteStore::open_with(options.clone().poll_interval(Duration::from_millis(5)))
        .await
        .unwrap();
    store
        .append(Append::new(stream(1), [event("1")]))
        .await
        .unwrap();
    let mut hint = store.hint();
    let other = rusqlite::Connection::open(options.path().unwrap()).unwrap();
    other
        .execute_batch("create table mine (n integer)")
        .unwrap();
    hint.wait(Duration::from_secs(30)).await;
    // It may have written anything, so everything is looked up again.
    let append = Append::new(stream(1), [event("2")]).expecting(Expected::Version(Version::FIRST));
    assert_eq!(
        store.append(append).await.unwrap().last().version,
        Version::new(2)
    );
}

#[tokio::test]
async fn a_reader_is_not_held_up_by_a_long_write() {
    let (_directory, options) = place();
    let store = SqliteStore::open_with(options.clone()).await.unwrap();
    store
        .append(Append::new(stream(1), [event("1")]))
        .await
        .unwrap();
    let other = rusqlite::Connection::open(options.path().unwrap()).unwrap();
    other
        .execute_batch("begin immediate; create table mine (n integer)")
        .unwrap();
    let page = store.read_stream(ReadStream::of(stream(1))).await.unwrap();
    assert_eq!((page.events.len(), page.head), (1, Position::new(1)));
    other.execute_batch("commit").unwrap();
}

/// Polls it once and drops it.
async fn touch(future: impl Future) {
    let mut future = pin!(future);
    let _ = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
        .map(|_| ());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_future_loses_nothing_and_leaks_nothing() {
    let (_directory, options) = place();
    // Small enough that a leaked place in the queue or a leaked reader would be missed.
    let store = SqliteStore::open_with(options.readers(1).queue_bytes_max(4 << 10))
        .await
        .unwrap();
    let mut dropped = Vec::new();
    for n in 0..500 {
        let append = Append::new(stream(n), [event("1")]);
        touch(store.append(append.clone())).await;
        touch(store.read(ReadLog::after(Position::START))).await;
        touch(store.change_stream(ChangeStream::new(&stream(n + 10_000), StreamChange::Delete)))
            .await;
        dropped.push(append);
    }
    for append in &dropped {
        assert_eq!(
            store.append(append.clone()).await.unwrap().last().version,
            Version::FIRST
        );
    }
    assert_eq!(head(&store).await, 500, "each is there once");
    assert_eq!(
        store
            .read(ReadLog::after(Position::START))
            .await
            .unwrap()
            .events
            .len(),
        500
    );
}

#[tokio::test]
async fn queued_appends_are_done_before_the_store_closes() {
    let (_directory, options) = place();
    let store = SqliteStore::open_with(options.clone()).await.unwrap();
    let append = Append::new(stream(1), [event("1")]);
    touch(store.append(append)).await;
    drop(store);
    let store = SqliteStore::open_with(options).await.unwrap();
    assert_eq!(head(&store).await, 1);
}

#[tokio::test]
async fn a_handle_may_be_dropped_by_the_writer_itself() {
    let store = SqliteStore::open("sqlite::memory:").await.unwrap();
    let inner = store.clone();
    let handed = store.append_in(move |_| {
        let _keeps_it = &inner;
        Ok::<_, AppendError>(())
    });
    touch(handed).await;
    drop(store);
}

#[tokio::test]
async fn a_page_is_bounded_whatever_is_asked() {
    let store = SqliteStore::open("sqlite::memory:").await.unwrap();
    for n in 0..3 {
        store
            .append(Append::new(stream(n), (0..10_000).map(|_| event("1"))))
            .await
            .unwrap();
    }
    let page = store
        .read(ReadLog::after(Position::START).limit(usize::MAX))
        .await
        .unwrap();
    assert!(
        page.events.len() < 20_000 && !page.end,
        "{}",
        page.events.len()
    );
    let large = "x".repeat(1 << 20);
    store
        .append(Append::new(stream(9), (0..16).map(|_| event(&large))))
        .await
        .unwrap();
    let page = store
        .read_stream(ReadStream::of(stream(9)).limit(usize::MAX))
        .await
        .unwrap();
    let bytes: usize = page.events.iter().map(|event| event.payload.len()).sum();
    assert!(bytes <= PAGE_BYTES_MAX + large.len(), "{bytes}");
    assert_eq!(page.next, Some(Version::new(page.events.len() as u64 + 1)));
}

#[tokio::test]
async fn the_sqlite3_shell_shows_events_and_streams() {
    let (_directory, options) = place();
    let clock = annals_core::ManualClock::default();
    let store = SqliteStore::open_with(options.clone().clock(std::sync::Arc::new(clock)))
        .await
        .unwrap();
    let cause = EventId::from_uuid(uuid::Uuid::from_u128(2));
    let correlation = uuid::Uuid::from_u128(1);
    let metadata = Metadata::default()
        .correlation(correlation)
        .causation(cause)
        .actor("ada");
    let event = NewEvent::json("thing.happened", br#"{"n":1}"#.as_slice())
        .at("1969-12-31T23:59:59.5Z".parse().unwrap())
        .metadata(metadata)
        .tag("a:1".parse().unwrap())
        .tag("b:2".parse().unwrap());
    store.append(Append::new(stream(1), [event])).await.unwrap();
    store
        .append(Append::new(
            stream(1),
            [NewEvent::new("raw", "bytes", vec![0, 255])
                .at(annals_core::chrono::DateTime::UNIX_EPOCH)],
        ))
        .await
        .unwrap();
    let connection = rusqlite::Connection::open(options.path().unwrap()).unwrap();
    let line = |position: i64| -> String {
        let columns = "stream, version, type, payload, tags, occurred_at, recorded_at, \
            metadata";
        let shown = format!("select {columns} from annals_readable_events where position = ?1");
        connection
            .query_row(&shown, [position], |row| {
                let texts: Vec<String> = (0..8)
                    .map(|column| match row.get_ref(column).unwrap() {
                        rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                        rusqlite::types::ValueRef::Text(text) => {
                            String::from_utf8(text.to_vec()).unwrap()
                        }
                        _ => "-".into(),
                    })
                    .collect();
                Ok(texts.join(" | "))
            })
            .unwrap()
    };
    assert_eq!(
        line(1),
        "thing-1 | 1 | thing.happened | {\"n\":1} | a:1 b:2 | 1969-12-31T23:59:59.500000Z | \
         2026-01-01T00:00:00.000000Z | \
         {\"correlation\":\"00000000-0000-0000-0000-000000000001\",\
         \"causation\":\"00000000-0000-0000-0000-000000000002\",\"actor\":\"ada\"}"
    );
    assert_eq!(
        line(2),
        "thing-1 | 2 | raw | bytes:00FF | - | 1970-01-01T00:00:00.000000Z | \
         2026-01-01T00:00:00.000000Z | -"
    );
    let streams = "select stream || ' ' || version || ' ' || status from annals_readable_streams";
    assert_eq!(
        connection
            .query_row(streams, [], |row| row.get::<_, String>(0))
            .unwrap(),
        "thing-1 2 active"
    );
}

#[tokio::test]
async fn archived_content_leaves_the_file_and_its_ids_stay_known() {
    let (_directory, options) = place();
    let store = SqliteStore::open_with(options.clone()).await.unwrap();
    let secrets: Vec<_> = (0..50)
        .map(|n| {
            event(&format!("\"a secret of mine, number {n}\""))
                .tag(format!("email:mail{n}@secret").parse().unwrap())
        })
        .collect();
    store
        .append(Append::new(stream(1), secrets.clone()))
        .await
        .unwrap();
    store
        .append(Append::new(stream(1), [event("\"a summary\"")]))
        .await
        .unwrap();
    let snapshot = Snapshot::new(
        stream(1),
        FoldId::new("Thing", 1),
        Version::new(50),
        "json",
        b"a secret of mine, in a snapshot".as_slice(),
    );
    store.save_snapshot(snapshot).await.unwrap();
    let archive = StreamChange::Archive {
        before: Version::new(51),
    };
    store
        .change_stream(ChangeStream::new(&stream(1), archive).expecting(Expected::Exists))
        .await
        .unwrap();
    assert_eq!(
        store
            .read(ReadLog::after(Position::START))
            .await
            .unwrap()
            .events
            .len(),
        1
    );
    assert!(
        store
            .append(Append::new(stream(1), secrets))
            .await
            .unwrap()
            .was_repeated()
    );
    drop(store);
    let file = std::fs::read(options.path().unwrap()).unwrap();
    let found = |text: &str| {
        file.windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    assert!(found("a summary") && !found("a secret of mine") && !found("@secret"));
}
