//! Change data capture: the inserts of a table, from the log of a server into a log of ours, beside
//! `pg_recvlogical`, which throws them away.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::cdc::{
    Ingest, IngestState, Ingests as _, Lsn, Mark, Postgres, Resume, Source, TableOf, TableRow,
    mark_stream,
};
use annals::prelude::*;
use annals::store::Append;
use annals::{Annals, EventId, Store};
use annals_postgres::sqlx::{self, AssertSqlSafe, Connection as _, PgConnection};

use crate::Outcome;
use crate::latency::{Laps, Latencies};
use crate::rate::{Rate, Watch};
use crate::server;

/// The variable that names the directory with the programs of the server.
const BINARIES: &str = "ANNALS_TEST_POSTGRES_BINARIES";

const TABLE: &str = "create table orders(id bigint primary key, n int, v text, at timestamptz); \
    create publication bench for table orders;";

/// How often one looks whether something is there.
const LOOK: Duration = Duration::from_millis(1);

/// A row of the table.
#[derive(TableRow, Clone, Debug)]
#[table("public.orders")]
struct Order {
    #[key]
    id: i64,
}

/// A database with a table, and a slot that has all of its inserts.
///
/// ```no_run
/// # async fn example() -> annals_benches::Outcome<()> {
/// use annals_benches::cdc::Shop;
///
/// let shop = Shop::filled(500_000, 1_000).await?;
/// println!("{} rows a second", shop.decode().await?.per_second());
/// shop.drop().await
/// # }
/// ```
#[derive(Debug)]
pub struct Shop {
    name: String,
    url: String,
    rows: usize,
    mark: Mark,
    /// Where the inserts end.
    end: String,
}

async fn scalar(connection: &mut PgConnection, sql: String) -> Outcome<String> {
    Ok(sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(connection)
        .await?)
}

async fn run(connection: &mut PgConnection, sql: String) -> Outcome<()> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await?;
    Ok(())
}

impl Shop {
    /// An empty table.
    ///
    /// # Errors
    ///
    /// Those of the server, or that there is none.
    pub async fn empty() -> Outcome<Shop> {
        let server = server::url().ok_or_else(|| format!("{} names no server", server::URL))?;
        let name = format!("cdc_{}", EventId::random().as_uuid().simple());
        let mut admin = PgConnection::connect(&server).await?;
        run(&mut admin, format!("create database {name}")).await?;
        let address = server
            .rsplit_once('/')
            .map_or(&*server, |(address, _)| address);
        let url = format!("{address}/{name}");
        let mut connection = PgConnection::connect(&url).await?;
        run(&mut connection, TABLE.to_owned()).await?;
        Ok(Shop {
            name,
            url,
            rows: 0,
            mark: Mark::begun(""),
            end: String::new(),
        })
    }

    /// A table with so many rows, inserted by so many in a transaction.
    ///
    /// # Errors
    ///
    /// Those of the server, or that there is none.
    pub async fn filled(rows: usize, in_transaction: usize) -> Outcome<Shop> {
        let mut shop = Shop::empty().await?;
        let mut connection = PgConnection::connect(&shop.url).await?;
        let slot = format!(
            "select pg_create_logical_replication_slot('{}', 'pgoutput')",
            shop.name
        );
        run(&mut connection, slot).await?;
        let fill = format!(
            "do $$ begin \
             for i in 0..{} loop insert into orders select g, g % 1000, \
             md5(g::text), now() from generate_series(i * {in_transaction} + 1, \
             (i + 1) * {in_transaction}) g; commit; end loop; end $$",
            rows / in_transaction - 1
        );
        // Each statement by itself: several at once are one transaction.
        run(&mut connection, "set synchronous_commit = off".to_owned()).await?;
        run(&mut connection, fill).await?;
        let confirmed = format!(
            "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = '{}'",
            shop.name
        );
        let confirmed: Lsn = scalar(&mut connection, confirmed).await?.parse()?;
        // What was committed is flushed, and something comes after it.
        run(&mut connection, "checkpoint".to_owned()).await?;
        let end = "select pg_current_wal_flush_lsn()::text".to_owned();
        shop.end = scalar(&mut connection, end).await?;
        let more = "select pg_logical_emit_message(false, 'bench', 'end')";
        run(&mut connection, more.to_owned()).await?;
        run(&mut connection, "checkpoint".to_owned()).await?;
        let source = "select format('postgres %s timeline %s slot ', \
            (select system_identifier from pg_control_system()), \
            (select timeline_id from pg_control_checkpoint()))";
        let source = scalar(&mut connection, source.to_owned()).await?;
        shop.mark = Mark::begun(source);
        shop.mark.resume = Some(Resume::Lsn(confirmed));
        shop.rows = rows;
        Ok(shop)
    }

    /// A slot of one's own with all of it, and a mark before its beginning.
    async fn slot(&self) -> Outcome<(String, Mark)> {
        let slot = format!("run_{}", EventId::random().as_uuid().simple());
        let mut connection = PgConnection::connect(&self.url).await?;
        let copy = format!(
            "select pg_copy_logical_replication_slot('{}', '{slot}')",
            self.name
        );
        run(&mut connection, copy).await?;
        let mut mark = self.mark.clone();
        mark.source = format!("{}{slot}", mark.source).into();
        Ok((slot, mark))
    }

    async fn drop_slot(&self, slot: &str) -> Outcome<()> {
        let mut connection = PgConnection::connect(&self.url).await?;
        let drop = format!(
            "select pg_terminate_backend(active_pid) from pg_replication_slots \
             where slot_name = '{slot}' and active"
        );
        run(&mut connection, drop).await?;
        loop {
            let drop = format!("select pg_drop_replication_slot('{slot}')");
            match run(&mut connection, drop).await {
                Ok(()) => return Ok(()),
                Err(error) if error.to_string().contains("is active") => {
                    tokio::time::sleep(LOOK).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Decodes all rows, and throws them away.
    ///
    /// # Errors
    ///
    /// Those of the source.
    pub async fn decode(&self) -> Outcome<Rate> {
        let (slot, mark) = self.slot().await?;
        let mut source = Postgres::at(&self.url).publication("bench").slot(&slot);
        let watch = Watch::start();
        source.begin("bench", Some(&mark)).await?;
        let mut count = 0;
        while count < self.rows {
            let chunk = source.next().await?;
            count += chunk.records.len();
            let mut mark = mark.clone();
            mark.resume = chunk.resume;
            if mark.resume.is_some() {
                source.confirm(&mark).await?;
            }
        }
        let rate = watch.stop(count);
        source.end().await;
        drop(source);
        self.drop_slot(&slot).await?;
        Ok(rate)
    }

    /// Takes all rows into a log.
    ///
    /// # Errors
    ///
    /// Those of the source and of the store.
    pub async fn take_into(&self, store: &Arc<dyn Store>) -> Outcome<Rate> {
        let (slot, mark) = self.slot().await?;
        store
            .append(Append::new(mark_stream("bench")?, [mark.event()?]))
            .await?;
        let source = Postgres::at(&self.url).publication("bench").slot(&slot);
        let watch = Watch::start();
        let program = Annals::on(Arc::clone(store))
            .with(Ingest::named("bench").from(source))
            .start()
            .await?;
        let ingest = program.ingest("bench").ok_or("no ingest")?;
        let mut count = 0;
        while count < self.rows {
            tokio::time::sleep(LOOK).await;
            let status = ingest.status();
            if let IngestState::Stopped(why) = status.state {
                return Err(why.into());
            }
            // One event says what the table looks like.
            count = status.events.saturating_sub(1) as usize;
        }
        let rate = watch.stop(count);
        program.stop().await;
        self.drop_slot(&slot).await?;
        Ok(rate)
    }

    /// What the client of the server does with it: nothing.
    ///
    /// # Errors
    ///
    /// That the program cannot be run.
    pub async fn pg_recvlogical(&self) -> Outcome<Rate> {
        let (slot, _) = self.slot().await?;
        let binaries = std::env::var(BINARIES).map_err(|_| format!("{BINARIES} is not set"))?;
        let mut receive = Command::new(std::path::Path::new(&binaries).join("pg_recvlogical"));
        receive.args([
            "--start",
            "--no-loop",
            "-f",
            "/dev/null",
            "-o",
            "proto_version=1",
        ]);
        receive.args(["-o", "publication_names=bench", "--slot", &slot]);
        receive.args(["--endpos", &self.end, "--dbname", &self.url]);
        let watch = Watch::start();
        let done = receive.stdin(Stdio::null()).status()?;
        if !done.success() {
            return Err("pg_recvlogical failed".into());
        }
        let rate = watch.stop(self.rows);
        self.drop_slot(&slot).await?;
        Ok(rate)
    }

    /// Inserts rows one by one, so many a second, and waits until each is seen in the copy: from
    /// sending the insert to having the row.
    ///
    /// # Errors
    ///
    /// Those of the source and of the store.
    pub async fn seen(
        &self,
        store: &Arc<dyn Store>,
        rows: usize,
        per_second: u32,
    ) -> Outcome<Latencies> {
        let source = Postgres::at(&self.url)
            .publication("bench")
            .slot(&self.name);
        let program = Annals::on(Arc::clone(store))
            .with(Ingest::named("bench").from(source))
            .with(TableOf::<Order>::projection())
            .start()
            .await?;
        let ingest = program.ingest("bench").ok_or("no ingest")?;
        while ingest.status().state != IngestState::Following || ingest.status().at.is_none() {
            tokio::time::sleep(LOOK).await;
        }
        let mut connection = PgConnection::connect(&self.url).await?;
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
        let mut laps = Laps::start();
        for id in 0..rows as i64 {
            ticks.tick().await;
            let began = Instant::now();
            insert(&mut connection, id).await?;
            while program.view::<TableOf<Order>>().get(id).await?.is_none() {
                tokio::time::sleep(LOOK / 4).await;
            }
            laps.took(began);
        }
        let laps = laps.stop();
        program.stop().await;
        self.drop_slot(&self.name).await?;
        run(&mut connection, "truncate orders".to_owned()).await?;
        Ok(laps)
    }

    /// Inserts rows one by one, so many a second: until each is committed.
    ///
    /// # Errors
    ///
    /// Those of the server.
    pub async fn inserted(&self, rows: usize, per_second: u32) -> Outcome<Latencies> {
        let mut connection = PgConnection::connect(&self.url).await?;
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
        let mut laps = Laps::start();
        for id in 0..rows as i64 {
            ticks.tick().await;
            let began = Instant::now();
            insert(&mut connection, id).await?;
            laps.took(began);
        }
        let laps = laps.stop();
        run(&mut connection, "truncate orders".to_owned()).await?;
        Ok(laps)
    }

    /// Removes it with its slots.
    ///
    /// # Errors
    ///
    /// Those of the server.
    pub async fn drop(self) -> Outcome<()> {
        let server = server::url().unwrap_or_default();
        let mut admin = PgConnection::connect(&server).await?;
        let slots = format!(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots \
             where database = '{}'",
            self.name
        );
        run(&mut admin, slots).await?;
        run(
            &mut admin,
            format!("drop database {} with (force)", self.name),
        )
        .await
    }
}

async fn insert(connection: &mut PgConnection, id: i64) -> Outcome<()> {
    sqlx::query("insert into orders values ($1, 1, 'seen', now())")
        .bind(id)
        .execute(connection)
        .await?;
    Ok(())
}
