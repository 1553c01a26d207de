//! The fixture of these tests: a log with tables beside it, which other processes
//! open too.

use annals::Store;
use annals::projections::{ConnectionOf, Poison, SqlProjection};
use annals::read_model::CustomTables;
use async_trait::async_trait;

/// A log of this test alone, gone when this is dropped.
#[async_trait]
pub(crate) trait LogWithTables: Sized + Send + Sync + 'static {
    type Store: CustomTables + Store + Clone;

    /// A view takes the place of another one of the same columns.
    const REPLACE_VIEW: &str;

    /// The test that is started as the process to be killed.
    const CHILD: &str;

    async fn new() -> Self;

    /// Where it is, as another process can be told.
    fn place(&self) -> String;

    async fn open(place: &str) -> Self::Store;

    /// Runs statements of SQL inside a transaction of the store.
    async fn run(
        connection: &mut <Self::Store as CustomTables>::Connection,
        statements: &str,
    ) -> Result<(), Poison>;

    /// What a program that knows nothing of Annals reads: rows of a text and two numbers.
    async fn read(&self, select: &str) -> Vec<(String, i64, i64)>;

    /// How many tables have names like this one.
    async fn tables_like(&self, name: &str) -> i64;
}

/// Runs a statement of a projection on the store of a fixture.
pub(crate) async fn run<G: LogWithTables, P>(
    connection: &mut ConnectionOf<P>,
    statements: String,
) -> Result<(), Poison>
where
    P: SqlProjection<Store = G::Store>,
{
    G::run(connection, &statements).await
}
