//! A file made by any earlier version of the tables opens, and everything in it stays.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::path::Path;

use annals_core::{
    Append, AppendStreams, Condition, EventId, EventStore, Expected, Failure, Filter, FoldId, Log,
    Metadata, NewEvent, Partition, Position, Query, ReadLog, ReadQuery, ReadStream, Snapshot,
    SnapshotStore, Status, StreamId, TaggedStore, Version,
};
use annals_sqlite::{Options, SqliteStore, rusqlite};
use tempfile::TempDir;

/// Version 1 as it was: the first migration, and a log of five events in two streams, one of them
/// deleted.
fn make_version_1(file: &Path) {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection
        .pragma_update(None, "journal_mode", "wal")
        .unwrap();
    connection
        .execute_batch(include_str!("fixtures/version_1.sql"))
        .unwrap();
}

async fn open(file: &Path) -> SqliteStore {
    SqliteStore::open_with(Options::file(file)).await.unwrap()
}

fn event(n: u128) -> EventId {
    EventId::from_uuid(uuid::Uuid::from_u128(
        0x0000_0000_0000_7000_8000_0000_0000_0000 | n,
    ))
}

#[tokio::test]
async fn a_file_of_version_1_is_upgraded_with_everything_in_it() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("log.db");
    make_version_1(&file);
    // Somebody who may not write is told what to do, and the file stays as it is.
    let refused = SqliteStore::open_with(Options::file(&file).read_only())
        .await
        .unwrap_err();
    assert_eq!(refused.failure(), Failure::Incompatible);
    assert!(refused.to_string().contains("version 1"), "{refused}");

    for reopened in [false, true] {
        let store = open(&file).await;
        assert_eq!(
            store.id().to_string(),
            "0198f3a27b3c7d4e8f90a1b2c3d4e5f6",
            "the log is the same one"
        );
        let page = store
            .read(ReadLog::after(Position::START).up_to(Position::new(5)))
            .await
            .unwrap();
        let lines: Vec<String> = page
            .events
            .iter()
            .map(|event| {
                let payload = String::from_utf8_lossy(&event.payload);
                format!(
                    "{} {} {} {} {payload} {:?}",
                    event.position, event.stream, event.version, event.event_type, event.tags
                )
            })
            .collect();
        assert_eq!(
            lines,
            [
                r#"1 account-ada 1 account.opened {"owner":"Ada"} ["owner:ada"]"#,
                r#"2 account-ada 2 account.deposited {"cents":500} []"#,
                r#"3 account-bob 1 account.opened {"owner":"Bob"} ["owner:bob", "region:north"]"#,
                r#"4 account-bob 2 account.closed {} ["owner:bob"]"#,
                r#"5 account-ada 3 account.withdrawn {"cents":120} []"#,
            ]
        );
        let ids: Vec<_> = page.events.iter().map(|event| event.id).collect();
        assert_eq!(ids, (1..=5).map(event).collect::<Vec<_>>());
        assert_eq!(
            page.events[1].metadata,
            Metadata::default().causation(event(1)).actor("ada")
        );
        assert_eq!(
            page.events[4].recorded_at.to_rfc3339(),
            "2026-01-01T00:00:04+00:00"
        );

        // What later versions brought works on what was there before.
        let tagged = store
            .read_query(ReadQuery::of(Query::tagged(["owner:bob".parse().unwrap()])))
            .await
            .unwrap();
        assert_eq!(
            tagged
                .events
                .iter()
                .map(|event| event.position.get())
                .collect::<Vec<_>>(),
            [3, 4]
        );
        let filter = Filter::default().tag("region:north".parse().unwrap());
        assert_eq!(
            store
                .read(ReadLog::after(Position::START).filter(filter))
                .await
                .unwrap()
                .events
                .len(),
            1
        );
        let bob = StreamId::new("account-bob").unwrap();
        let append = AppendStreams::default().event(
            bob.clone(),
            NewEvent::json("account.opened", b"{}".as_slice()),
        );
        let taken = Condition::none_matches(Query::tagged(["owner:ada".parse().unwrap()]));
        assert!(store.append_if(append, taken).await.is_err());
        assert_eq!(
            store.stream_state(&bob).await.unwrap().status,
            Status::Deleted
        );

        let ada = StreamId::new("account-ada").unwrap();
        let snapshot = Snapshot::new(
            ada.clone(),
            FoldId::new("Account", 1),
            Version::new(3),
            "json",
            b"{}".as_slice(),
        );
        store.save_snapshot(snapshot.clone()).await.unwrap();
        let kept = store
            .newest_snapshot(&ada, &FoldId::new("Account", 1), Version::MAX)
            .await
            .unwrap();
        assert_eq!(kept, Some(snapshot));

        // The old events are recognised, and the log goes on behind them.
        let again =
            NewEvent::json("account.deposited", br#"{"cents":500}"#.as_slice()).id(event(2));
        let error = store
            .append(Append::new(bob, [again.clone()]))
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("belongs to stream `account-ada`"),
            "{error}"
        );
        let again = store
            .append(Append::new(ada.clone(), [again]))
            .await
            .unwrap();
        assert!(again.was_repeated());
        assert_eq!(again.last().position.get(), 2);
        let next = NewEvent::json("account.deposited", br#"{"cents":1}"#.as_slice());
        let expected = Expected::Version(Version::new(3 + u64::from(reopened)));
        let next = store
            .append(Append::new(ada.clone(), [next]).expecting(expected))
            .await
            .unwrap();
        assert_eq!(next.last().position.get(), 6 + u64::from(reopened));
        assert_eq!(
            store
                .read_stream(ReadStream::of(ada))
                .await
                .unwrap()
                .events
                .len(),
            4 + usize::from(reopened)
        );
    }
}

#[tokio::test]
async fn an_upgrade_that_was_cut_short_is_done_again() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("log.db");
    make_version_1(&file);
    let connection = rusqlite::Connection::open(&file).unwrap();
    // The second migration as a killed process leaves it: begun, not committed.
    connection
        .execute_batch(
            "begin immediate; create table annals_tags (key integer primary key, name text)",
        )
        .unwrap();
    drop(connection);
    let store = open(&file).await;
    assert_eq!(store.head(Partition(0)).await.unwrap().visible.get(), 5);
}

#[tokio::test]
async fn several_that_open_a_new_file_at_once_make_one_log() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("log.db");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let file = file.clone();
        tasks.spawn(async move { open(&file).await.id() });
    }
    let ids: std::collections::HashSet<_> = tasks.join_all().await.into_iter().collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn the_file_may_already_be_the_applications() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("app.db");
    let connection = rusqlite::Connection::open(&file).unwrap();
    let script = "pragma application_id = 7; pragma user_version = 12; create table events (mine \
        text); insert into events values ('x')";
    connection.execute_batch(script).unwrap();
    drop(connection);
    let store = open(&file).await;
    store
        .append(Append::new(
            StreamId::new("a-1").unwrap(),
            [NewEvent::json("a", b"1".as_slice())],
        ))
        .await
        .unwrap();
    drop(store);
    let connection = rusqlite::Connection::open(&file).unwrap();
    let found = |sql: &str| {
        connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(
        (
            found("pragma application_id"),
            found("pragma user_version"),
            found("select count(*) from events")
        ),
        (7, 12, 1)
    );
}
