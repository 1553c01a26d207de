//! The PostgreSQL server of the rows that need one, and schemas on it that are gone when they have
//! been measured.

use std::sync::Arc;

use annals::{EventId, Store};
use annals_postgres::sqlx::postgres::PgConnectOptions;
use annals_postgres::sqlx::{self, AssertSqlSafe, Connection, PgConnection};
use annals_postgres::{Options, PostgresStore};

use crate::{Outcome, baseline_sqlx};

/// The variable that names the server: `cargo xtask bench` starts one and sets it.
pub const URL: &str = "ANNALS_TEST_POSTGRES";

/// The server's URL, where there is one.
pub fn url() -> Option<String> {
    std::env::var(URL).ok().filter(|url| !url.is_empty())
}

/// The disk that flushes go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Disk {
    /// As it is.
    AsIs,
    /// Each flush takes 2 ms, as on a volume in a network.
    TwoMilliseconds,
}

impl Disk {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Disk::AsIs => "as-is",
            Disk::TwoMilliseconds => "2ms",
        }
    }

    /// The disk of that name.
    pub fn named(name: &str) -> Disk {
        match name == Disk::TwoMilliseconds.name() {
            true => Disk::TwoMilliseconds,
            false => Disk::AsIs,
        }
    }
}

/// A schema with a name of its own, dropped with everything in it when [`Schema::drop`] is called.
#[derive(Clone, Debug)]
pub struct Schema {
    url: String,
    name: String,
    disk: Disk,
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
            disk: Disk::AsIs,
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

    /// The same schema, for sessions whose flushes go to this disk.
    #[must_use]
    pub fn on(self, disk: Disk) -> Schema {
        Schema { disk, ..self }
    }

    /// How sessions are made.
    fn connect_options(&self) -> Outcome<PgConnectOptions> {
        let connect: PgConnectOptions = self.url.parse()?;
        Ok(match self.disk {
            Disk::AsIs => connect,
            Disk::TwoMilliseconds => {
                connect.options([("commit_delay", "2000"), ("commit_siblings", "0")])
            }
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
        Ok(Options::new(self.connect_options()?).schema(&self.name)?)
    }

    /// A connection with nothing around it.
    ///
    /// # Errors
    ///
    /// Those of the server.
    pub async fn connection(&self) -> Outcome<PgConnection> {
        Ok(PgConnection::connect_with(&self.connect_options()?).await?)
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
    pub async fn make_baseline(&self) -> Outcome<()> {
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
    pub async fn make_baseline_copy(&self) -> Outcome<()> {
        self.make_baseline().await?;
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
