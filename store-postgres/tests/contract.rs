//! The contract of a store, on a server.

#![allow(clippy::unwrap_used)] // A fixture that cannot be made fails its test.

mod server;

use std::sync::Arc;

use annals_core::conformance::Fixture;
use annals_core::{Clock, Store};
use annals_postgres::PostgresStore;
use async_trait::async_trait;

/// Every handle is opened again, as another process would.
#[async_trait]
impl Fixture for server::Schema {
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        Arc::new(
            PostgresStore::connect_with(self.options().clock(clock))
                .await
                .unwrap(),
        )
    }
}

annals_core::conformance! {
    fixture: crate::server::Schema::new(),
    traits: [atomic, tagged, snapshots, views, inline, shared],
}
