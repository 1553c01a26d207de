//! A schema of its own on the test server, for the tests that need one.

// A server that does not do what is asked fails the test; each test uses some of this.
#![allow(clippy::unwrap_used, dead_code)]

use annals_core::EventId;
use annals_postgres::{Options, PostgresStore, sqlx};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// The URL of the test server.
pub(crate) fn url() -> String {
    std::env::var("ANNALS_TEST_POSTGRES").expect(
        "these tests need a PostgreSQL server: `cargo xtask test` makes one, or set \
         ANNALS_TEST_POSTGRES to the URL of a database \
         in which they may make and drop schemas",
    )
}

/// Where all programs of the test server are: links to some of them may be elsewhere.
pub(crate) fn binaries() -> std::path::PathBuf {
    let named = std::env::var("ANNALS_TEST_POSTGRES_BINARIES").expect(
        "this test needs the programs of PostgreSQL: `cargo xtask test` finds them, or set \
         ANNALS_TEST_POSTGRES_BINARIES to their directory",
    );
    let server = std::fs::canonicalize(std::path::Path::new(&named).join("postgres")).unwrap();
    server.parent().unwrap().to_owned()
}

/// A connection of the test's own.
pub(crate) async fn connection() -> PgConnection {
    PgConnection::connect(&url()).await.unwrap()
}

/// Options of a store in a schema whose connections find tables of the schema by their names alone.
pub(crate) fn options_within(schema: &str) -> Options {
    let connect: sqlx::postgres::PgConnectOptions = url().parse().unwrap();
    Options::new(connect.options([("search_path", schema)]))
        .schema(schema)
        .unwrap()
}

/// A schema with a name of its own, dropped with everything in it at the end.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) name: String,
}

impl Schema {
    pub(crate) fn new() -> Schema {
        let random = EventId::random().as_uuid().simple().to_string();
        Schema {
            name: format!("test_{random}"),
        }
    }

    pub(crate) fn options(&self) -> Options {
        url()
            .parse::<Options>()
            .unwrap()
            .schema(&self.name)
            .unwrap()
    }

    pub(crate) async fn store(&self) -> PostgresStore {
        PostgresStore::connect_with(self.options()).await.unwrap()
    }

    /// Options of a store whose connections have a name of their own, and that name.
    pub(crate) fn named(&self, readers: u32) -> (Options, String) {
        let name = format!("annals {}", self.name);
        let connect: sqlx::postgres::PgConnectOptions = url().parse().unwrap();
        let options = Options::new(connect.application_name(&name))
            .schema(&self.name)
            .unwrap()
            .readers(readers);
        (options, name)
    }

    /// A statement with the name of this schema where it says `annals.`
    pub(crate) fn sql(&self, statement: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(statement.replace("annals.", &format!("\"{}\".", self.name)))
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let drop = format!("drop schema if exists \"{}\" cascade", self.name);
        in_the_end("the schema is left over", async move {
            let mut connection = connection().await;
            loop {
                let dropped = sqlx::raw_sql(AssertSqlSafe(drop.clone()))
                    .execute(&mut connection)
                    .await;
                match dropped {
                    // A task of a store that ends just now still looks at the schema.
                    Err(sqlx::Error::Database(error))
                        if error.code().as_deref() == Some("40P01") => {}
                    dropped => return dropped.map(|_| ()),
                }
            }
        });
    }
}

/// Does something when a value is dropped; fails the test with `left_over` when it could not be
/// done.
pub(crate) fn in_the_end(
    left_over: &str,
    work: impl Future<Output = sqlx::Result<()>> + Send + 'static,
) {
    let working = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(work)
    });
    let worked = working.join();
    // A test that failed already says why.
    assert!(
        std::thread::panicking() || worked.is_ok_and(|worked| worked.is_ok()),
        "{left_over}"
    );
}
