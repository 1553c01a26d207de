//! A file that is replaced under a running store is noticed: nothing more is acknowledged or
//! answered, and the error says what to do.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.
#![cfg(unix)] // Elsewhere a file that is open cannot be replaced.

use std::path::{Path, PathBuf};
use std::time::Duration;

use annals_core::{
    Append, AppendError, EventId, EventStore, Failure, Log, NewEvent, Partition, Position, ReadLog,
    StoreError, StreamId,
};
use annals_sqlite::{Options, SqliteStore, rusqlite};
use tempfile::TempDir;

async fn append(store: &SqliteStore, stream: &str) -> Result<EventId, AppendError> {
    let event = NewEvent::json("thing.happened", b"{}".as_slice()).id(EventId::random());
    let append = Append::new(StreamId::new(stream).unwrap(), [event]);
    Ok(store.append(append).await?.last().id)
}

async fn streams(store: &SqliteStore) -> Result<Vec<String>, StoreError> {
    let page = store.read(ReadLog::after(Position::START)).await?;
    Ok(page
        .events
        .iter()
        .map(|event| event.stream.to_string())
        .collect())
}

async fn open(file: &Path) -> SqliteStore {
    // Reads of a second connection are among those that must notice.
    let options = Options::file(file).readers(2);
    SqliteStore::open_with(options).await.unwrap()
}

/// A directory with the log `bank.db` of two streams, and `backup.db`, a copy without the second.
async fn bank() -> (TempDir, PathBuf, PathBuf) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("bank.db");
    let backup = directory.path().join("backup.db");
    let store = open(&file).await;
    append(&store, "account-ada").await.unwrap();
    drop(store);
    std::fs::copy(&file, &backup).unwrap();
    let store = open(&file).await;
    append(&store, "account-bob").await.unwrap();
    drop(store);
    (directory, file, backup)
}

fn said(error: &StoreError, words: &[&str]) {
    assert_eq!(error.failure(), Failure::Closed, "{error}");
    for word in words.iter().chain(&["bank.db", "stop every program"]) {
        assert!(error.to_string().contains(word), "{error}");
    }
}

/// Everything that can be asked is refused, and what is at the path stays as it is.
async fn is_closed(store: &SqliteStore, words: &[&str]) {
    match append(store, "account-eve").await.unwrap_err() {
        AppendError::Store(error) | AppendError::Unknown(error) => said(&error, words),
        other => panic!("{other:?}"),
    }
    said(&streams(store).await.unwrap_err(), words);
    said(&store.head(Partition(0)).await.unwrap_err(), words);
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", file.display()))
}

#[tokio::test]
async fn a_backup_moved_into_its_place_closes_the_store() {
    let (_directory, file, backup) = bank().await;
    let store = open(&file).await;
    assert_eq!(streams(&store).await.unwrap().len(), 2);
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(with_suffix(&file, suffix)).unwrap();
    }
    std::fs::rename(&backup, &file).unwrap();
    is_closed(&store, &["removed or replaced"]).await;
    drop(store);
    // Opened again it is the log of the backup, and goes on.
    let store = open(&file).await;
    assert_eq!(streams(&store).await.unwrap(), ["account-ada"]);
    append(&store, "account-eve").await.unwrap();
}

#[tokio::test]
async fn reads_notice_a_replaced_file_before_a_write_does() {
    let (_directory, file, backup) = bank().await;
    let store = open(&file).await;
    std::fs::rename(&backup, &file).unwrap();
    said(
        &streams(&store).await.unwrap_err(),
        &["removed or replaced"],
    );
    is_closed(&store, &["removed or replaced"]).await;
}

#[tokio::test]
async fn a_removed_file_closes_the_store() {
    let (_directory, file, _) = bank().await;
    let store = open(&file).await;
    std::fs::remove_file(&file).unwrap();
    is_closed(&store, &["removed or replaced"]).await;
    assert!(!file.exists());
}

#[tokio::test]
async fn a_removed_or_replaced_journal_closes_the_store() {
    for replaced in [false, true] {
        let (_directory, file, backup) = bank().await;
        let store = open(&file).await;
        append(&store, "account-bob").await.unwrap();
        let journal = with_suffix(&file, "-wal");
        match replaced {
            true => std::fs::rename(&backup, &journal).unwrap(),
            false => std::fs::remove_file(&journal).unwrap(),
        }
        is_closed(&store, &["bank.db-wal"]).await;
    }
}

#[tokio::test]
async fn an_idle_store_notices_by_itself() {
    for read_only in [false, true] {
        let (_directory, file, backup) = bank().await;
        let options = Options::file(&file).poll_interval(Duration::from_millis(1));
        let options = match read_only {
            true => options.read_only(),
            false => options,
        };
        let store = SqliteStore::open_with(options).await.unwrap();
        let mut hint = store.hint();
        std::fs::rename(&backup, &file).unwrap();
        hint.wait(Duration::from_secs(60)).await;
        said(&store.head(Partition(0)).await.unwrap_err(), &["replaced"]);
    }
}

/// What another process does to the log with SQLite's own means, which keep the file.
fn restore(file: &Path, statements: &str) {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection.execute_batch(statements).unwrap();
}

/// An earlier state of the log, in which the key of `account-bob` went to another stream.
const EARLIER: &str = "delete from annals_events where position = 2;
    update annals_streams set name = 'account-zoe' where name = 'account-bob';
    insert into annals_events select 2, 2, 1, kind, append_index, append_events, occurred_at,
        recorded_at, randomblob(16), digest, tags, metadata, payload
        from annals_events where position = 1;";

#[tokio::test]
async fn a_log_restored_in_place_is_noticed_by_reads() {
    let (_directory, file, _) = bank().await;
    let store = open(&file).await;
    assert_eq!(
        streams(&store).await.unwrap(),
        ["account-ada", "account-bob"]
    );
    restore(&file, EARLIER);
    // Not the names that were cached for the other log.
    said(
        &streams(&store).await.unwrap_err(),
        &["restored", "position 2"],
    );
    is_closed(&store, &["restored"]).await;
}

#[tokio::test]
async fn a_log_restored_in_place_is_noticed_by_writes() {
    let (_directory, file, _) = bank().await;
    let store = open(&file).await;
    append(&store, "account-bob").await.unwrap();
    restore(&file, "delete from annals_events where position = 3");
    let error = append(&store, "account-bob").await.unwrap_err();
    assert!(error.to_string().contains("restored"), "{error:?}");
    let connection = rusqlite::Connection::open(&file).unwrap();
    let count = "select count(*) from annals_events";
    let events: i64 = connection.query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(events, 2, "nothing was written to the other log");
}

#[tokio::test]
async fn another_log_in_the_same_file_is_noticed() {
    let (_directory, file, _) = bank().await;
    let store = open(&file).await;
    restore(&file, "update annals_log set id = randomblob(16)");
    is_closed(&store, &["another log"]).await;
}

#[tokio::test]
async fn commits_of_others_are_no_replacement() {
    let (_directory, file, _) = bank().await;
    let ours = open(&file).await;
    let other = open(&file).await;
    for n in 0..20 {
        append(&ours, "account-ada").await.unwrap();
        append(&other, &format!("account-{n}")).await.unwrap();
        assert_eq!(streams(&ours).await.unwrap().len(), 4 + 2 * n);
        assert_eq!(streams(&other).await.unwrap().len(), 4 + 2 * n);
    }
    drop(other);
    append(&ours, "account-ada").await.unwrap();
    let _again = open(&file).await;
    append(&ours, "account-ada").await.unwrap();
}
