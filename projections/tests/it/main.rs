//! Read models through the public door, on the memory store. The same tests run on every backend:
//! see `tests/` of the package `annals`.

#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use annals_core::conformance::{Fixture, MemoryFixture};

#[path = "inline_suite.rs"]
mod inline_suite;
mod metrics;
mod partitions;
#[path = "suite.rs"]
mod suite;

async fn fixture() -> Arc<dyn Fixture> {
    Arc::new(MemoryFixture::with_partitions(1))
}
