//! Memory stores that break a promise: a case of the contract that passes on one proves nothing.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

/// Tests that a case fails on a store with a fault, and passes on one without.
macro_rules! fails_on {
    ($($test:ident: $module:ident::$case:ident on $fault:expr;)*) => {$(
        #[test]
        fn $test() {
            let case = async |fixture| $module::$case(&fixture).await;
            assert!(!crate::broken::passes(|| $fault, case), "the case did not notice");
            // And not because of the wrapping.
            let case = async |fixture| $module::$case(&fixture).await;
            assert!(crate::broken::passes(|| crate::broken::Whole, case));
        }
    )*};
}

pub(crate) use fails_on;

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

/// No fault.
#[derive(Debug)]
pub(crate) struct Whole;

impl StoreFault for Whole {}

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
