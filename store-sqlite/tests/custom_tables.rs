//! Tables of the application's own change with the steps of a worker, or not at all.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::time::Duration;

use annals_core::conformance::TablesFixture;
use annals_core::{
    Acquired, AppendError, Checkpoint, CommitError, CustomTables, GenerationSpec, GenerationStore,
    InTransaction, Leases, Log, Partition, StoreError, ViewCommit,
};
use annals_sqlite::rusqlite::Connection;
use annals_sqlite::{AppendTransaction, SqliteStore};
use async_trait::async_trait;

#[derive(Debug)]
struct InMemory;

#[async_trait]
impl TablesFixture for InMemory {
    type Store = SqliteStore;

    async fn open(&self) -> SqliteStore {
        SqliteStore::open("sqlite::memory:").await.unwrap()
    }

    async fn run(connection: &mut Connection, statements: &str) -> Result<(), String> {
        connection
            .execute_batch(statements)
            .map_err(|error| error.to_string())
    }

    async fn rows(&self, store: &SqliteStore, table: &str) -> Option<i64> {
        let count = format!("select count(*) from {table}");
        let count = move |transaction: &mut AppendTransaction<'_>| {
            Ok::<_, AppendError>(
                transaction
                    .connection()
                    .query_row(&count, [], |row| row.get(0))
                    .ok(),
            )
        };
        store.append_in(count).await.unwrap()
    }
}

annals_core::conformance_of_custom_tables! { fixture: crate::InMemory }

struct Waits;

#[async_trait]
impl InTransaction<Connection, ViewCommit> for Waits {
    async fn run(
        &mut self,
        connection: &mut Connection,
        _: &mut ViewCommit,
    ) -> Result<(), StoreError> {
        connection
            .execute_batch("create table totals (n integer)")
            .unwrap();
        std::future::pending().await
    }
}

#[tokio::test]
async fn work_that_awaits_is_refused() {
    let store = InMemory.open().await;
    let generation = store
        .begin_generation(GenerationSpec::new("totals", 1, store.id()))
        .await
        .unwrap();
    let asked = store
        .acquire_lease(
            &generation.lease_name(0),
            "worker-a",
            Duration::from_secs(3600),
        )
        .await
        .unwrap();
    let Acquired::Granted(lease) = asked else {
        panic!("no other worker has it")
    };
    let start = Checkpoint::start(0, Partition(0));
    let step = ViewCommit::new(generation.id, lease, start.position, start);
    let error = store.commit_with(step, Box::new(Waits)).await.unwrap_err();
    assert!(
        matches!(&error, CommitError::Store(error) if error.to_string().contains("awaited")),
        "{error}"
    );
    assert_eq!(InMemory.rows(&store, "totals").await, None);
}
