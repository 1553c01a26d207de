//! A file of every released schema opens with all its data, and a released schema never changes.
//!
//! `fixtures/schema_1.sql` is a file of schema version 1 as text, `fixtures/schema_1.txt` what the
//! API says of it. `ANNALS_UPDATE=1 cargo test -p annals-sqlite --test schema` writes the second
//! one again. Before the first release `ANNALS_UPDATE=schema` writes both; afterwards a migration
//! brings a new pair, and the older files stay as they are.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod fixture;

use std::path::{Path, PathBuf};

use annals_core::{
    Append, AppendError, EventId, EventStore, Expected, Failure, Log, NewEvent, Partition,
    StreamId, Version,
};
use annals_sqlite::{Options, SqliteStore, rusqlite};
use tempfile::TempDir;

/// Every schema version that was released, and the one that will be next.
const FIXTURES: [(u32, &str, &str); 1] = [(
    1,
    include_str!("fixtures/schema_1.sql"),
    include_str!("fixtures/schema_1.txt"),
)];

async fn open(file: &Path) -> SqliteStore {
    SqliteStore::open_with(Options::file(file)).await.unwrap()
}

/// A file as the text of a fixture says.
fn restore(directory: &TempDir, script: &str) -> PathBuf {
    let file = directory.path().join("log.db");
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection
        .pragma_update(None, "journal_mode", "wal")
        .unwrap();
    connection.execute_batch(script).unwrap();
    file
}

/// The tables, indexes and views of Annals in a file.
fn schema(file: &Path) -> Vec<String> {
    let connection = rusqlite::Connection::open(file).unwrap();
    let mut statement = connection
        .prepare(
            "select sql from sqlite_schema where name like 'annals_%' and sql <> '' order by name",
        )
        .unwrap();
    let schema = statement.query_map([], |row| row.get(0)).unwrap();
    schema.map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_file_of_every_schema_version_opens_with_its_data() {
    if std::env::var_os("ANNALS_UPDATE").is_some_and(|what| what == "schema") {
        fixture::update().await;
        return;
    }
    for (version, script, said) in FIXTURES {
        let directory = TempDir::new().unwrap();
        let file = restore(&directory, script);
        for reopened in 0..2 {
            let store = open(&file).await;
            let found = fixture::describe(&store).await;
            if std::env::var_os("ANNALS_UPDATE").is_some() {
                fixture::write(version, "txt", &found);
                continue;
            }
            assert_eq!(found, said, "schema version {version}, opened {reopened}");
        }
    }
}

#[tokio::test]
async fn a_file_of_every_schema_version_goes_on() {
    for (_, script, _) in FIXTURES {
        let directory = TempDir::new().unwrap();
        let store = open(&restore(&directory, script)).await;
        let head = store.head(Partition(0)).await.unwrap().visible;
        let bob = StreamId::new("account-bob").unwrap();
        // An event of the file keeps its id, its stream and its content.
        let first = fixture::deposited(2, 500);
        let elsewhere = store.append(Append::new(bob, [first.clone()])).await;
        assert!(
            matches!(elsewhere, Err(AppendError::IdClash { .. })),
            "{elsewhere:?}"
        );
        let ada = StreamId::new("account-ada").unwrap();
        let again = store
            .append(Append::new(ada.clone(), [first]))
            .await
            .unwrap();
        assert!(again.was_repeated());
        let next =
            NewEvent::json("account.deposited", br#"{"cents":1}"#.as_slice()).id(EventId::random());
        let append = Append::new(ada, [next]).expecting(Expected::Version(Version::new(3)));
        let next = store.append(append).await.unwrap();
        assert_eq!(next.last().position, head.next());
    }
}

#[tokio::test]
async fn a_migrated_file_has_the_schema_of_a_new_one() {
    let directory = TempDir::new().unwrap();
    let new = directory.path().join("new.db");
    drop(open(&new).await);
    for (version, script, _) in FIXTURES {
        let directory = TempDir::new().unwrap();
        let file = restore(&directory, script);
        drop(open(&file).await);
        assert_eq!(schema(&file), schema(&new), "schema version {version}");
    }
}

#[tokio::test]
async fn a_killed_first_migration_is_repeated() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("log.db");
    let connection = rusqlite::Connection::open(&file).unwrap();
    // As a killed process leaves it: begun, not committed.
    connection
        .execute_batch("begin immediate; create table annals_log (one integer primary key)")
        .unwrap();
    drop(connection);
    let store = open(&file).await;
    assert_eq!(store.head(Partition(0)).await.unwrap().visible.get(), 0);
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("log.db");
    drop(open(&file).await);
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection
        .execute(
            "insert into annals_migrations (version, applied_at) values (99, 0)",
            [],
        )
        .unwrap();
    drop(connection);
    for options in [Options::file(&file), Options::file(&file).read_only()] {
        let refused = SqliteStore::open_with(options).await.unwrap_err();
        assert_eq!(refused.failure(), Failure::Incompatible);
        for said in ["log.db", "schema version 99", "newer Annals", "update"] {
            assert!(refused.to_string().contains(said), "{refused}");
        }
    }
}

#[tokio::test]
async fn concurrent_first_opens_make_one_log() {
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
async fn an_application_file_keeps_its_tables_and_pragmas() {
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
