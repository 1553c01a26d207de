//! Logs in schemas of the test server.

use annals::postgres::PostgresStore;
use annals::postgres::sqlx::{self, AssertSqlSafe, PgConnection, Row as _, query_scalar};
use annals::projections::Poison;
use annals::read_model::CustomTables;
use async_trait::async_trait;

use crate::fixture::LogWithTables;
use crate::server::{self, Schema};

/// A schema of its own, in which tables are found by their names alone.
#[derive(Debug)]
pub(crate) struct Databases(pub(crate) Schema);

#[async_trait]
impl LogWithTables for Databases {
    type Store = PostgresStore;

    const REPLACE_VIEW: &str = "create or replace view NAME";
    const CHILD: &str = "on_postgres::works_until_it_is_killed";

    async fn new() -> Databases {
        Databases(Schema::new())
    }

    fn place(&self) -> String {
        self.0.name.clone()
    }

    async fn open(place: &str) -> PostgresStore {
        PostgresStore::connect_with(server::options_within(place))
            .await
            .unwrap()
    }

    async fn run(
        connection: &mut <PostgresStore as CustomTables>::Connection,
        statements: &str,
    ) -> Result<(), Poison> {
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
            .execute(connection)
            .await?;
        Ok(())
    }

    async fn read(&self, select: &str) -> Vec<(String, i64, i64)> {
        let rows = sqlx::query(AssertSqlSafe(select.to_owned()))
            .fetch_all(&mut self.connection().await)
            .await
            .unwrap();
        rows.iter()
            .map(|row| (row.get(0), row.get(1), row.get(2)))
            .collect()
    }

    async fn tables_like(&self, name: &str) -> i64 {
        let count = "select count(*) from information_schema.tables where table_schema = $1 and \
            table_name like $2";
        query_scalar(count)
            .bind(&self.0.name)
            .bind(name)
            .fetch_one(&mut server::connection().await)
            .await
            .unwrap()
    }
}

impl Databases {
    async fn connection(&self) -> PgConnection {
        let mut connection = server::connection().await;
        let here = format!("set search_path to \"{}\"", self.0.name);
        sqlx::raw_sql(AssertSqlSafe(here))
            .execute(&mut connection)
            .await
            .unwrap();
        connection
    }
}
