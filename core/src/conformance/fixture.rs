//! How the suite opens a backend.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::custom_tables::CustomTables;
use crate::memory::MemoryStore;
use crate::store::Store;

/// One place where a store keeps its data: a fresh directory, a fresh database, a fresh set of
/// topics.
///
/// Every test makes one, opens it, perhaps drops what it opened and opens it again, and drops it.
///
/// ```
/// use std::sync::Arc;
///
/// use annals_core::conformance::Fixture;
/// use annals_core::{Clock, MemoryStore, Store};
///
/// #[derive(Debug, Default)]
/// struct InMemory(MemoryStore);
///
/// #[async_trait::async_trait]
/// impl Fixture for InMemory {
///     async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
///         Arc::new(self.0.clone().on_clock(clock))
///     }
/// }
/// ```
#[async_trait]
pub trait Fixture: fmt::Debug + Send + Sync {
    /// Opens the store; its recorded times come from `clock`.
    ///
    /// The first time it is empty. After every earlier handle was dropped it is opened again, with
    /// the same data. Where [`is_shared`](Fixture::is_shared) says so it is also opened while
    /// another handle is in use, as another process would. Panics when it cannot be opened.
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store>;

    /// Whether several handles may be open at once, and append at once.
    fn is_shared(&self) -> bool {
        true
    }
}

/// As [`Fixture`], of a store that lets applications change tables of their own in its
/// transactions: for [`conformance_of_custom_tables!`](crate::conformance_of_custom_tables).
///
/// ```
/// use annals_core::conformance::TablesFixture;
/// use annals_core::{CustomTables, Store};
///
/// /// What a store of SQL statements would have to say.
/// trait Sql: CustomTables + Store + Clone {
///     fn run(connection: &mut Self::Connection, statements: &str) -> Result<(), String>;
///     fn count(&self, table: &str) -> Option<i64>;
/// }
///
/// #[derive(Debug)]
/// struct Kept<S>(S);
///
/// #[async_trait::async_trait]
/// impl<S: Sql + std::fmt::Debug> TablesFixture for Kept<S> {
///     type Store = S;
///
///     async fn open(&self) -> S {
///         self.0.clone()
///     }
///
///     async fn run(connection: &mut S::Connection, statements: &str) -> Result<(), String> {
///         S::run(connection, statements)
///     }
///
///     async fn rows(&self, store: &S, table: &str) -> Option<i64> {
///         store.count(table)
///     }
/// }
/// ```
#[async_trait]
pub trait TablesFixture: fmt::Debug + Send + Sync + 'static {
    /// The store.
    type Store: CustomTables + Store;

    /// Opens the store, which is empty the first time.
    async fn open(&self) -> Self::Store;

    /// Runs statements of SQL, with semicolons between them, inside a transaction of the store;
    /// else says what is wrong with one.
    async fn run(
        connection: &mut <Self::Store as CustomTables>::Connection,
        statements: &str,
    ) -> Result<(), String>;

    /// How many rows a table or view of the application has, as others see it; nothing when it is
    /// not there.
    async fn rows(&self, store: &Self::Store, table: &str) -> Option<i64>;
}

/// As [`Fixture`], of a store whose partitions have owners: for
/// [`conformance_of_owners!`](crate::conformance_of_owners).
///
/// ```
/// use std::sync::Arc;
///
/// use annals_core::Store;
/// use annals_core::conformance::OwnedFixture;
///
/// /// What a store with owners would have to say.
/// trait Owned: std::fmt::Debug + Send + Sync {
///     fn open(&self, process: &str, owns: bool) -> Arc<dyn Store>;
/// }
///
/// #[derive(Debug)]
/// struct Places<S>(S);
///
/// #[async_trait::async_trait]
/// impl<S: Owned> OwnedFixture for Places<S> {
///     async fn open_owner(&self, process: &str) -> Arc<dyn Store> {
///         self.0.open(process, true)
///     }
///
///     async fn open_reader(&self) -> Arc<dyn Store> {
///         self.0.open("reader", false)
///     }
///
///     async fn lose_copies(&self) {}
/// }
/// ```
#[async_trait]
pub trait OwnedFixture: fmt::Debug + Send + Sync {
    /// Opens the store as another process that owns every partition, and takes each from its last
    /// owner. It is `process` to others, and keeps what it keeps for itself under that name.
    async fn open_owner(&self, process: &str) -> Arc<dyn Store>;

    /// Opens the store as another process that owns nothing.
    async fn open_reader(&self) -> Arc<dyn Store>;

    /// Loses what processes keep for themselves, such as local copies. Every handle was dropped.
    async fn lose_copies(&self);
}

/// The memory store, as the suite sees it: what was appended stays as long as the fixture does.
///
/// ```
/// use std::sync::Arc;
///
/// use annals_core::SystemClock;
/// use annals_core::conformance::{Fixture, MemoryFixture};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let fixture = MemoryFixture::with_partitions(3);
/// let one = fixture.open(Arc::new(SystemClock)).await;
/// let same = fixture.open(Arc::new(SystemClock)).await;
/// assert_eq!(one.id(), same.id());
/// # });
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct MemoryFixture {
    store: MemoryStore,
}

impl MemoryFixture {
    /// An empty memory store with `count` partitions.
    pub fn with_partitions(count: u32) -> MemoryFixture {
        MemoryFixture {
            store: MemoryStore::with_partitions(count),
        }
    }
}

#[async_trait]
impl Fixture for MemoryFixture {
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        Arc::new(self.store.clone().on_clock(clock))
    }
}
