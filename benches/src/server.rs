//! The PostgreSQL server of the rows that need one, and schemas on it that are gone when they have
//! been measured.

use std::sync::Arc;

use annals::{EventId, Store};
use annals_postgres::sqlx::{self, AssertSqlSafe, Connection, PgConnection};
use annals_postgres::{Options, PostgresStore};

use crate::{Outcome, baseline_sqlx};

/// The variable that names the server: `cargo xtask bench` starts one and sets it.
pub const URL: &str = "ANNALS_TEST_POSTGRES";

/// The server's URL, where there is one.
pub fn url() -> Option<String> {
    std::env::var(URL).ok().filter(|url| !url.is_empty())
}

/// A schema with a name of its own, dropped with everything in it when [`Schema::drop`] is called.
#[derive(Clone, Debug)]
pub struct Schema {
    url: String,
    name: String,
}

impl Schema {
    /// A unique name; nothing is made yet.
    ///
    /// # Errors
    ///
    /// When no server is named.
    pub fn new() -> Outcome<Schema> {
        let name = format!("bench_{}", EventId::random().as_uuid().simple());
        Ok(Schema {
            url: url().ok_or_else(|| format!("{URL} names no server"))?,
            name,
        })
    }

    /// The schema of that name, made by another process.
    ///
    /// # Errors
    ///
    /// When no server is named.
    pub fn named(name: &str) -> Outcome<Schema> {
        Ok(Schema {
            name: name.to_owned(),
            ..Schema::new()?
        })
    }

    /// What others call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Annals in this schema.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn store(&self) -> Outcome<Arc<dyn Store>> {
        Ok(Arc::new(
            PostgresStore::connect_with(self.options()?).await?,
        ))
    }

    /// How Annals is opened in this schema.
    ///
    /// # Errors
    ///
    /// When the URL is none.
    pub fn options(&self) -> Outcome<Options> {
        Ok(self.url.parse::<Options>()?.schema(&self.name)?)
    }

    /// A connection with nothing around it.
    ///
    /// # Errors
    ///
    /// Those of the server.
    pub async fn connection(&self) -> Outcome<PgConnection> {
        Ok(PgConnection::connect(&self.url).await?)
    }

    /// A statement about `baseline.` or `annals.`, about this schema.
    pub fn sql(&self, statement: &str) -> AssertSqlSafe<String> {
        let name = format!("\"{}\".", self.name);
        AssertSqlSafe(
            statement
                .replace("baseline.", &name)
                .replace("annals.", &name),
        )
    }

    /// Makes the tables for those who write by hand.
    ///
    /// # Errors
    ///
    /// Those of the server.
    pub async fn make_plain(&self) -> Outcome<()> {
        let make = format!(
            "create schema if not exists \"{}\"; {}",
            self.name,
            include_str!("sql/sqlx_tables.sql")
        );
        sqlx::raw_sql(self.sql(&make))
            .execute(&mut self.connection().await?)
            .await?;
        Ok(())
    }

    /// Makes the tables for those who write by hand, with what Annals holds here in them.
    ///
    /// # Errors
    ///
    /// Those of the server.
    pub async fn make_plain_copy(&self) -> Outcome<()> {
        self.make_plain().await?;
        let copy = sqlx::query(self.sql(include_str!("sql/sqlx_copy.sql")))
            .bind(baseline_sqlx::KINDS.map(str::to_owned));
        copy.execute(&mut self.connection().await?).await?;
        self.vacuum(&["baseline.by_hand", "annals.event"]).await
    }

    /// Cleans these tables up and counts what is in them, as the server does by itself in time.
    ///
    /// # Errors
    ///
    /// Those of the server.
    pub async fn vacuum(&self, tables: &[&str]) -> Outcome<()> {
        let mut connection = self.connection().await?;
        for table in tables {
            sqlx::raw_sql(self.sql(&format!("vacuum analyze {table}")))
                .execute(&mut connection)
                .await?;
        }
        Ok(())
    }

    /// Drops it, and lets the server write down what it has not, so that the next to be measured
    /// does not pay for it.
    ///
    /// # Errors
    ///
    /// Those of the server.
    pub async fn drop(self) -> Outcome<()> {
        let mut connection = self.connection().await?;
        sqlx::raw_sql(AssertSqlSafe(format!(
            "drop schema if exists \"{}\" cascade",
            self.name
        )))
        .execute(&mut connection)
        .await?;
        sqlx::raw_sql("checkpoint").execute(&mut connection).await?;
        Ok(())
    }
}

/// What the server says of itself: version, and the settings on which durable appends depend.
///
/// # Errors
///
/// Those of the server.
pub async fn describe() -> Outcome<String> {
    let mut connection = Schema::new()?.connection().await?;
    let mut said = Vec::new();
    for setting in [
        "server_version",
        "fsync",
        "synchronous_commit",
        "wal_level",
        "shared_buffers",
        "max_connections",
    ] {
        let value: String = sqlx::query_scalar("select current_setting($1)")
            .bind(setting)
            .fetch_one(&mut connection)
            .await?;
        said.push(if setting == "server_version" {
            value
        } else {
            format!("{setting}={value}")
        });
    }
    Ok(said.join(", "))
}
