//! A database for each measurement, dropped afterwards, and a pause in the middle of one writer's
//! transaction.

use annals_postgres::sqlx::{self, AssertSqlSafe, Connection, PgConnection};

use crate::Outcome;

/// The stream whose writer is paused.
pub(crate) const PAUSED: &str = "account-paused";

/// How long a flush takes.
#[derive(Clone, Copy)]
pub(crate) enum Disk {
    AsIs,
    /// At least so long, by the server's own delay before it.
    TwoMilliseconds,
}

/// A database with nothing in it.
pub(crate) struct Database {
    admin: String,
    name: String,
}

impl Database {
    pub(crate) async fn make(peer: &str, disk: Disk) -> Outcome<Database> {
        let database = Database::named(&format!("peers_{peer}_{}", std::process::id()))?;
        database.drop().await?;
        database
            .ask_admin(&format!("create database {}", database.name))
            .await?;
        if let Disk::TwoMilliseconds = disk {
            for setting in ["commit_delay = 2000", "commit_siblings = 0"] {
                let set = format!("alter database {} set {setting}", database.name);
                database.ask_admin(&set).await?;
            }
        }
        Ok(database)
    }

    /// The one that another process made.
    pub(crate) fn named(name: &str) -> Outcome<Database> {
        let admin = std::env::var("ANNALS_TEST_POSTGRES").map_err(
            |_| "name a server in ANNALS_TEST_POSTGRES; `cargo xtask postgres up` starts one",
        )?;
        Ok(Database {
            admin,
            name: name.to_owned(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn url(&self) -> String {
        let (base, settings) = self.admin.split_once('?').unwrap_or((&self.admin, ""));
        let (server, _) = base.rsplit_once('/').unwrap_or((base, ""));
        format!(
            "{server}/{}{}{settings}",
            self.name,
            if settings.is_empty() { "" } else { "?" }
        )
    }

    /// A statement, or several.
    pub(crate) async fn run(&self, sql: &str) -> Outcome<()> {
        let mut connection = PgConnection::connect(&self.url()).await?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await?;
        Ok(())
    }

    /// How many rows the table has.
    pub(crate) async fn count(&self, table: &str) -> Outcome<u64> {
        let mut connection = PgConnection::connect(&self.url()).await?;
        let count =
            sqlx::query_scalar::<_, i64>(AssertSqlSafe(format!("select count(*) from {table}")));
        Ok(count.fetch_one(&mut connection).await?.cast_unsigned())
    }

    /// The inserter of a row for which the condition holds pauses for three seconds with
    /// everything done but the commit.
    pub(crate) async fn pause(&self, table: &str, condition: &str) -> Outcome<()> {
        self.run(&format!(
            "create function pause() returns trigger language plpgsql as
             $$ begin if {condition} then perform pg_sleep(3); end if; return null; end $$;
             create constraint trigger pause after insert on {table} deferrable initially deferred
             for each row execute function pause()"
        ))
        .await
    }

    pub(crate) async fn drop(&self) -> Outcome<()> {
        self.ask_admin(&format!(
            "drop database if exists {} with (force)",
            self.name
        ))
        .await?;
        self.ask_admin("checkpoint").await
    }

    async fn ask_admin(&self, sql: &str) -> Outcome<()> {
        let mut connection = PgConnection::connect(&self.admin).await?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await?;
        Ok(())
    }
}
