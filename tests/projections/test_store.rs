//! Where a test keeps its events and read models: in a store of the backend that the suite runs on.

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use annals_core::conformance::Fixture;
use annals_core::{Clock, Store, SystemClock, ViewStore};

/// A store with its data, which stay as long as this does. It has one partition, and a place for
/// read models.
#[derive(Clone)]
pub(crate) struct TestStore {
    store: Arc<dyn Store>,
    fixture: Arc<dyn Fixture>,
}

/// Makes a place for the data of a store.
pub(crate) type Stores = fn() -> Arc<dyn Fixture>;

thread_local! {
    /// What makes the stores of the test of this thread.
    static STORES: Cell<Option<Stores>> = const { Cell::new(None) };
}

/// From now on this makes the stores of the test of this thread.
pub(crate) fn make_stores_with(stores: Stores) {
    STORES.set(Some(stores));
}

/// What makes the stores of the test of this thread.
pub(crate) fn stores() -> Stores {
    STORES
        .get()
        .expect("stores are made on the thread of their test")
}

/// An empty store.
pub(crate) async fn store() -> TestStore {
    store_on(Arc::new(SystemClock)).await
}

/// An empty store whose recorded times and leases follow this clock.
pub(crate) async fn store_on(clock: Arc<dyn Clock>) -> TestStore {
    let fixture = stores()();
    let store = fixture.open(clock).await;
    TestStore { store, fixture }
}

impl TestStore {
    pub(crate) fn handle(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// A handle of its own to the same data, as another process has it.
    pub(crate) async fn another_handle(&self) -> Arc<dyn Store> {
        self.another_handle_on(Arc::new(SystemClock)).await
    }

    /// The same, with a clock.
    pub(crate) async fn another_handle_on(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        self.fixture.open(clock).await
    }

    pub(crate) fn views(&self) -> &dyn ViewStore {
        self.store.views().unwrap()
    }
}

impl Deref for TestStore {
    type Target = dyn Store;

    fn deref(&self) -> &dyn Store {
        &*self.store
    }
}

impl fmt::Debug for TestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fixture.fmt(f)
    }
}
