//! Logs in databases of their own on the test server.

use annals::EventId;
use annals::postgres::sqlx::postgres::PgConnectOptions;
use annals::postgres::sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, query_scalar, raw_sql,
};
use async_trait::async_trait;

use crate::child::ChildProcess;
use crate::fixture::{HeldCommit, Location, SharedLogs};
use crate::server;

/// Databases with names of their own, dropped at the end.
#[derive(Debug)]
pub(crate) struct Databases {
    begin: String,
}

impl Databases {
    pub(crate) async fn new() -> Databases {
        Databases {
            begin: format!("test_{}", EventId::random().as_uuid().simple()),
        }
    }

    fn name(&self, log: &str) -> String {
        format!("{}_{log}", self.begin)
    }

    fn options(&self, log: &str) -> PgConnectOptions {
        let server: PgConnectOptions = server::url().parse().unwrap();
        server.database(&self.name(log))
    }

    /// A connection of the test's own to the database of a log.
    pub(crate) async fn connection(&self, log: &str) -> PgConnection {
        self.options(log).connect().await.unwrap()
    }
}

async fn run(connection: &mut PgConnection, statements: &str) {
    raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(connection)
        .await
        .unwrap();
}

#[async_trait]
impl SharedLogs for Databases {
    async fn place(&self, log: &str) -> Location {
        let name = self.name(log);
        let mut server = server::connection().await;
        let is_there =
            query_scalar::<_, bool>("select exists (select from pg_database where datname = $1)")
                .bind(&name);
        if !is_there.fetch_one(&mut server).await.unwrap() {
            run(
                &mut server,
                &format!("create database {name} template template0"),
            )
            .await;
        }
        Location(self.options(log).to_url_lossy().into())
    }

    async fn copy(&self, from: &str, to: &str) {
        // Those who used it may not have said goodbye yet.
        self.cut_off(from).await;
        let from = self.name(from);
        let to = self.name(to);
        let mut server = server::connection().await;
        for statement in [
            format!("drop database if exists {to} with (force)"),
            format!("create database {to} template {from}"),
        ] {
            run(&mut server, &statement).await;
        }
    }

    async fn stored(&self, log: &str) -> Vec<String> {
        let mut connection = self.connection(log).await;
        let tables = "select tablename::text from pg_tables where schemaname = 'annals'";
        let tables: Vec<String> = query_scalar(tables)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let mut stored = Vec::new();
        for table in tables {
            // Bytes that are a text are shown as one, so that it can be searched for.
            let rows = format!(
                "set bytea_output = escape; \
                 select '{table}: ' || row::text from annals.{table} as row"
            );
            let rows = raw_sql(AssertSqlSafe(rows))
                .fetch_all(&mut connection)
                .await
                .unwrap();
            stored.extend(rows.iter().map(|row| row.get::<String, _>(0)));
        }
        stored
    }

    async fn cut_off(&self, log: &str) -> usize {
        let cut_off = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1";
        let name = self.name(log);
        let mut server = server::connection().await;
        query_scalar::<_, bool>(cut_off)
            .bind(name)
            .fetch_all(&mut server)
            .await
            .unwrap()
            .len()
    }

    async fn hold_commits(&self, log: &str) -> Box<dyn HeldCommit> {
        Box::new(self.hold(log, "view_checkpoint").await)
    }
}

impl Databases {
    /// From now on no transaction that wrote to this table comes to the end of its COMMIT.
    pub(crate) async fn hold(&self, log: &str, table: &str) -> HeldSession {
        let mut connection = self.connection(log).await;
        // A trigger that is put off runs inside of COMMIT, when everything was written. It waits
        // for the holder of the lock.
        let hold = format!(
            "create or replace function annals.wait_in_commit() returns trigger language plpgsql as
                 $$ begin perform pg_advisory_xact_lock_shared({LOCK}); return null; end $$;
             drop trigger if exists held on annals.{table};
             create constraint trigger held after insert or update on annals.{table}
                 deferrable initially deferred
                 for each row execute function annals.wait_in_commit();
             select pg_advisory_lock({LOCK})"
        );
        run(&mut connection, &hold).await;
        HeldSession {
            connection,
            held: None,
        }
    }

    /// A transaction that has nothing to do with the log and sees all of it as it is now, for as
    /// long as it is kept.
    pub(crate) async fn old_snapshot(&self, log: &str) -> PgConnection {
        let mut connection = self.connection(log).await;
        let begin = "begin isolation level repeatable read; create table unrelated (n integer); \
            select count(*) from annals.event";
        run(&mut connection, begin).await;
        connection
    }
}

const LOCK: i64 = 4_711;

/// A log in which commits are held by this connection.
pub(crate) struct HeldSession {
    connection: PgConnection,
    /// The server's process that is held.
    held: Option<i32>,
}

impl HeldSession {
    async fn waits_in_commit(&mut self) -> Option<i32> {
        let waiting = "select pid from pg_locks join pg_stat_activity using (pid)
            where locktype = 'advisory' and objid::bigint = $1 and not granted
                and datname = current_database()";
        query_scalar(waiting)
            .bind(LOCK)
            .fetch_optional(&mut self.connection)
            .await
            .unwrap()
    }

    /// Returns when a commit is held.
    pub(crate) async fn is_reached(&mut self) {
        while self.held.is_none() {
            self.held = self.waits_in_commit().await;
        }
    }

    pub(crate) async fn let_go(&mut self) {
        run(
            &mut self.connection,
            &format!("select pg_advisory_unlock({LOCK})"),
        )
        .await;
    }

    async fn is_there(&mut self, process: i32) -> bool {
        let is_there = query_scalar("select exists (select from pg_stat_activity where pid = $1)")
            .bind(process);
        is_there.fetch_one(&mut self.connection).await.unwrap()
    }
}

#[async_trait]
impl HeldCommit for HeldSession {
    async fn is_reached_by(&mut self, _: &mut ChildProcess) {
        self.is_reached().await;
    }

    async fn end(mut self: Box<Self>, wanted: bool) -> bool {
        let process = self.held.expect("no child is held");
        if wanted {
            self.let_go().await;
        } else {
            run(
                &mut self.connection,
                &format!("select pg_terminate_backend({process})"),
            )
            .await;
        }
        while self.is_there(process).await {
            tokio::task::yield_now().await;
        }
        self.connection.close().await.unwrap();
        wanted
    }
}

impl Drop for Databases {
    fn drop(&mut self) {
        let names = format!(
            "select datname from pg_database where starts_with(datname, '{}')",
            self.begin
        );
        server::in_the_end("the databases are not dropped", async move {
            let mut server = server::connection().await;
            for name in query_scalar::<_, String>(AssertSqlSafe(names))
                .fetch_all(&mut server)
                .await?
            {
                raw_sql(AssertSqlSafe(format!("drop database {name} with (force)")))
                    .execute(&mut server)
                    .await?;
            }
            Ok(())
        });
    }
}
