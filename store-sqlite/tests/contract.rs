//! The contract of a store, on a file and in memory.

#![allow(clippy::unwrap_used)] // A fixture that cannot be made fails its test.

use std::sync::Arc;

use annals_core::conformance::Fixture;
use annals_core::{Clock, Store};
use annals_sqlite::{Options, SqliteStore};
use async_trait::async_trait;
use tempfile::TempDir;

/// A file in a directory of its own; every handle opens it again, as another process would.
#[derive(Debug)]
struct OnFile(TempDir);

#[async_trait]
impl Fixture for OnFile {
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        let options = Options::file(self.0.path().join("log.db")).clock(clock);
        Arc::new(SqliteStore::open_with(options).await.unwrap())
    }
}

/// What is in memory stays as long as the first handle to it does.
#[derive(Debug)]
struct InMemory(SqliteStore);

#[async_trait]
impl Fixture for InMemory {
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        Arc::new(self.0.clone().on_clock(clock))
    }
}

mod on_a_file {
    annals_core::conformance! {
        fixture: super::OnFile(super::TempDir::new().unwrap()),
        traits: [atomic, tagged, snapshots, views, inline, shared],
    }
}

mod in_memory {
    annals_core::conformance! {
        fixture: super::InMemory(super::SqliteStore::open("sqlite::memory:").await.unwrap()),
        traits: [atomic, tagged, snapshots, views, inline, shared],
    }
}
