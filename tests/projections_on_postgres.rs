//! The suite of read models, run on PostgreSQL.

#![allow(clippy::unwrap_used)] // A store that cannot be made fails its test.
#![cfg(all(feature = "postgres", feature = "projections"))]

use std::sync::Arc;

use annals::{Clock, Store};
use annals_core::conformance::Fixture;
use annals_postgres::PostgresStore;
// The suite generates sequences of events with it.
use proptest as _;

#[path = "../store-postgres/tests/server/mod.rs"]
mod server;

/// `cargo xtask test` skips it by this name where there is no server.
#[path = "../projections/tests/it/suite.rs"]
mod on_postgres;
use on_postgres as suite;

#[path = "../projections/tests/it/inline_suite.rs"]
mod inline_on_postgres;

#[async_trait::async_trait]
impl Fixture for server::Schema {
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        Arc::new(
            PostgresStore::connect_with(self.options().clock(clock))
                .await
                .unwrap(),
        )
    }
}

async fn fixture() -> Arc<dyn Fixture> {
    Arc::new(server::Schema::new())
}
