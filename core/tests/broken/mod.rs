//! Memory stores that break a promise: a case of the contract that passes on one proves nothing.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use annals_core::conformance::faulty::{FaultyStore, StoreFault};
use annals_core::conformance::{Fixture, MemoryFixture, run};
use annals_core::{Clock, Store};
use async_trait::async_trait;

/// A memory store that is wrapped in a new fault whenever it is opened.
#[derive(Debug)]
pub(crate) struct Broken<T> {
    memory: MemoryFixture,
    fault: fn() -> T,
}

#[async_trait]
impl<T: StoreFault> Fixture for Broken<T> {
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        FaultyStore::new(self.memory.open(clock).await, (self.fault)())
    }
}

/// Whether a case passes on a store with this fault.
pub(crate) fn passes<T, C>(fault: fn() -> T, case: impl FnOnce(Broken<T>) -> C) -> bool
where
    T: StoreFault + fmt::Debug,
    C: Future<Output = ()>,
{
    let memory = MemoryFixture::with_partitions(1);
    let fixture = Broken { memory, fault };
    catch_unwind(AssertUnwindSafe(|| run(case(fixture)))).is_ok()
}
