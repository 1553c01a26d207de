//! What holds for read models on every backend, on SQLite in a file.

#![allow(clippy::unwrap_used)] // A store that cannot be made fails its test.

use std::sync::Arc;

use annals::sqlite::{Options, SqliteStore};
use annals::{Clock, Store};
use annals_core::conformance::Fixture;
// The suite draws its histories with it.
use proptest as _;
use tempfile::TempDir;

#[path = "../projections/tests/it/inline_suite.rs"]
mod inline_suite;
#[path = "../projections/tests/it/suite.rs"]
mod suite;

/// A file in a directory of its own; every handle opens it again, as another process would.
#[derive(Debug)]
struct OnFile(TempDir);

#[async_trait::async_trait]
impl Fixture for OnFile {
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        let file = Options::file(self.0.path().join("log.db"));
        Arc::new(SqliteStore::open_with(file.clock(clock)).await.unwrap())
    }
}

async fn fixture() -> Arc<dyn Fixture> {
    Arc::new(OnFile(TempDir::new().unwrap()))
}
