//! Code of the application that runs on the writer thread fails alone: clocks, values that are
//! dropped, and transactions that it would like to end.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::{future::Future, pin::pin};

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    Append, AppendError, ChangeStream, Clock, EventStore, Failure, Log, NewEvent, Partition,
    StreamChange, StreamId,
};
use annals_sqlite::{AppendTransaction, Options, SqliteStore, rusqlite};
use tempfile::TempDir;

fn stream(name: &str) -> StreamId {
    StreamId::new(name).unwrap()
}

fn event() -> NewEvent {
    NewEvent::json("thing.happened", b"{}".as_slice())
}

async fn append(store: &SqliteStore, to: &str) -> Result<(), AppendError> {
    store
        .append(Append::new(stream(to), [event()]))
        .await
        .map(|_| ())
}

async fn head(store: &SqliteStore) -> u64 {
    store.head(Partition(0)).await.unwrap().visible.get()
}

#[derive(Debug)]
struct Broken;

impl Clock for Broken {
    fn now(&self) -> DateTime<Utc> {
        panic!("the battery is empty")
    }
}

#[tokio::test]
async fn a_clock_that_panics_fails_its_own_requests_only() {
    let store = SqliteStore::open("sqlite::memory:").await.unwrap();
    let broken = store.clone().on_clock(Arc::new(Broken));
    let change = StreamChange::Tombstone;
    let name = stream("a-1");
    let (appended, neighbour, changed) = tokio::join!(
        append(&broken, "a-1"),
        append(&store, "a-2"),
        broken.change_stream(ChangeStream::new(&name, change))
    );
    neighbour.unwrap();
    for error in [appended.unwrap_err(), changed.unwrap_err()] {
        let AppendError::Store(error) = error else {
            panic!("{error:?}")
        };
        assert_eq!(error.failure(), Failure::Invalid);
        assert!(
            error.to_string().contains("the battery is empty"),
            "{error}"
        );
    }
    append(&store, "a-3").await.unwrap();
    assert_eq!(head(&store).await, 2);
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("it cannot be dropped")
    }
}

#[tokio::test]
async fn an_answer_that_panics_when_dropped_fails_no_other_handle() {
    let store = SqliteStore::open("sqlite::memory:").await.unwrap();
    let writer = store.clone();
    // The transaction is at work until the one who waits for its answer has gone.
    let (go_on, waits) = std::sync::mpsc::channel::<()>();
    {
        let dropped = pin!(writer.append_in(move |transaction| {
            waits.recv().unwrap();
            transaction.append(Append::default().event(stream("a-1"), event()))?;
            Ok::<_, AppendError>(PanicsWhenDropped)
        }));
        let polled = dropped.poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
    }
    go_on.send(()).unwrap();
    append(&store, "a-2").await.unwrap();
    append(&writer, "a-3").await.unwrap();
    assert_eq!(
        head(&store).await,
        3,
        "the answer was dropped, not its events"
    );
}

/// Runs statements in the application's part of a transaction, beside other appends.
async fn ends_by(end: impl Fn(&rusqlite::Connection) + Copy + Send + 'static, name: &str) {
    let directory = TempDir::new().unwrap();
    let options = Options::file(directory.path().join("log.db"));
    let store = SqliteStore::open_with(options).await.unwrap();
    append(&store, "before-1").await.unwrap();
    let ended = store.append_in(move |transaction: &mut AppendTransaction<'_>| {
        transaction.append(Append::default().event(stream("a-1"), event()))?;
        end(transaction.connection());
        Ok::<_, AppendError>(())
    });
    let (first, ended, last) = tokio::join!(append(&store, "a-2"), ended, append(&store, "a-3"));
    first.unwrap();
    last.unwrap();
    let error = ended.unwrap_err();
    assert!(!error.to_string().contains("damaged"), "{name}: {error}");
    assert!(
        error.to_string().contains("ends the transaction"),
        "{name}: {error}"
    );
    assert_eq!(
        head(&store).await,
        3,
        "{name}: nothing of it, and all of the others"
    );
    append(&store, "a-4").await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_the_application_ends_is_undone() {
    for statements in [
        "commit",
        "commit; begin",
        "rollback",
        "begin",
        "end; begin immediate",
        "rollback to annals_application",
        "release annals_application",
    ] {
        ends_by(
            move |connection| _ = connection.execute_batch(statements),
            statements,
        )
        .await;
    }
    let cached = |connection: &rusqlite::Connection| {
        let _ = connection
            .prepare_cached("commit")
            .and_then(|mut commit| commit.execute([]));
    };
    ends_by(cached, "a cached commit").await;
}

#[tokio::test]
async fn savepoints_of_the_application_are_allowed() {
    let store = SqliteStore::open("sqlite::memory:").await.unwrap();
    let kept = store.append_in(|transaction| {
        let connection = transaction.connection();
        connection
            .execute_batch(
                "create table mine (n integer); savepoint part; insert into mine values (1);
                 rollback to part; release part; insert into mine values (2)",
            )
            .unwrap();
        transaction.append(Append::default().event(stream("a-1"), event()))?;
        let sum = "select sum(n) from mine";
        let sum = transaction
            .connection()
            .query_row(sum, [], |row| row.get::<_, i64>(0));
        Ok::<_, AppendError>(sum.unwrap())
    });
    assert_eq!(kept.await.unwrap(), 2);
}
