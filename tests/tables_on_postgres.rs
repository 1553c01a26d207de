//! Read models in tables of one's own, in the PostgreSQL database of the log.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.
#![cfg(all(feature = "postgres", feature = "projections"))]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals::ViewStore as _;
use annals::prelude::*;
use annals::projections::{Options, SqlTables, ViewError};
use annals_postgres::PostgresStore;
use annals_postgres::sqlx::{self, PgConnection, Row as _};

#[path = "../store-postgres/tests/server/mod.rs"]
mod server;

/// Left out by this name where there is no server.
mod on_postgres {
    use super::*;

    const WAIT: Duration = Duration::from_secs(60);

    #[derive(Event, Clone, Debug, Serialize, Deserialize)]
    #[event(category = "account")]
    enum AccountEvent {
        Deposited { cents: i64 },
        Withdrawn { cents: i64 },
    }

    #[derive(Default)]
    struct Account;

    impl Aggregate for Account {
        type Event = AccountEvent;

        fn apply(&mut self, _: &AccountEvent) {}
    }

    /// What each account has, in a table of a schema of the test's own that refuses to be overdrawn.
    struct Totals {
        schema: String,
        /// Makes every event fail, after it has done its work.
        broken: Arc<AtomicBool>,
        /// Makes every event end the transaction.
        commits: Arc<AtomicBool>,
    }

    impl Totals {
        fn table(&self, tables: &Tables) -> String {
            format!("\"{}\".{}", self.schema, tables.name("totals"))
        }
    }

    async fn run(connection: &mut PgConnection, statement: String) -> Result<(), Poison> {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(connection).await?;
        Ok(())
    }

    impl SqlProject for Totals {
        const NAME: &'static str = "totals";
        type Store = PostgresStore;
        type Event = AccountEvent;

        async fn create(&self, connection: &mut PgConnection, tables: &Tables) -> Result<(), Poison> {
            let columns = "account text primary key, cents bigint not null check (cents >= 0), events bigint not null";
            run(connection, format!("create table {} ({columns})", self.table(tables))).await
        }

        async fn on(
            &self,
            connection: &mut PgConnection,
            tables: &Tables,
            event: &Recorded<AccountEvent>,
        ) -> Result<(), Poison> {
            let cents = match **event {
                AccountEvent::Deposited { cents } => cents,
                AccountEvent::Withdrawn { cents } => -cents,
            };
            let (table, account) = (self.table(tables), event.record.stream.id());
            let begin = format!("insert into {table} values ($1, 0, 0) on conflict do nothing");
            sqlx::query(sqlx::AssertSqlSafe(begin)).bind(account).execute(&mut *connection).await?;
            let add = format!("update {table} set cents = cents + $2, events = events + 1 where account = $1");
            sqlx::query(sqlx::AssertSqlSafe(add)).bind(account).bind(cents).execute(&mut *connection).await?;
            if self.commits.load(Ordering::SeqCst) {
                run(connection, "commit".into()).await?;
            }
            if self.broken.load(Ordering::SeqCst) {
                return Err(Poison::new("it is broken"));
            }
            Ok(())
        }

        async fn publish(&self, connection: &mut PgConnection, tables: &Tables) -> Result<(), Poison> {
            let (schema, table) = (&self.schema, self.table(tables));
            run(connection, format!("create or replace view \"{schema}\".totals as select * from {table}")).await
        }

        async fn remove(&self, connection: &mut PgConnection, tables: &Tables) -> Result<(), Poison> {
            run(connection, format!("drop table if exists {} cascade", self.table(tables))).await
        }
    }

    struct Bank {
        store: PostgresStore,
        db: Program,
        broken: Arc<AtomicBool>,
        commits: Arc<AtomicBool>,
        // Dropped last.
        schema: server::Schema,
    }

    impl Bank {
        async fn open() -> Bank {
            let schema = server::Schema::new();
            let store = schema.store().await;
            let (broken, commits) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
            let db = start(&schema, &store, &broken, &commits).await;
            Bank { store, db, broken, commits, schema }
        }

        async fn start_again(&mut self) {
            self.db.stop().await;
            self.db = start(&self.schema, &self.store, &self.broken, &self.commits).await;
        }

        fn tables(&self) -> SqlTables<Totals> {
            self.db.tables::<Totals>()
        }

        async fn happens(&self, account: &str, event: AccountEvent) -> Done {
            self.db.aggregate::<Account>(account).run(|_| Ok::<_, String>(event.clone())).await.unwrap()
        }

        /// What a program that knows nothing of Annals reads.
        async fn totals(&self) -> Vec<(String, i64, i64)> {
            let select = format!("select account, cents, events from \"{}\".totals order by account", self.schema.name);
            let rows =
                sqlx::query(sqlx::AssertSqlSafe(select)).fetch_all(&mut server::connection().await).await.unwrap();
            rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
        }
    }

    async fn start(
        schema: &server::Schema,
        store: &PostgresStore,
        broken: &Arc<AtomicBool>,
        commits: &Arc<AtomicBool>,
    ) -> Program {
        let (broken, commits) = (Arc::clone(broken), Arc::clone(commits));
        let totals = SqlProjection::new(Totals { schema: schema.name.clone(), broken, commits }, store.clone());
        let options = Options::default().batch_events_max(7).lease(Duration::from_secs(3600));
        Annals::on(Arc::new(store.clone())).with(totals.options(options)).start().await.unwrap()
    }

    fn total(account: &str, cents: i64, events: i64) -> (String, i64, i64) {
        (account.into(), cents, events)
    }

    #[tokio::test]
    async fn tables_follow_the_log_and_go_on_where_the_last_program_stopped() {
        let mut bank = Bank::open().await;
        assert_eq!(bank.totals().await, [], "the tables are there before the first event");
        for number in 0..20 {
            bank.happens("alice", AccountEvent::Deposited { cents: number }).await;
        }
        let done = bank.happens("bob", AccountEvent::Deposited { cents: 5 }).await;
        bank.tables().wait_for(&done, WAIT).await.unwrap();
        assert_eq!(bank.totals().await, [total("alice", 190, 20), total("bob", 5, 1)]);
        bank.db.stop().await;
        let done = bank.happens("bob", AccountEvent::Withdrawn { cents: 2 }).await;
        bank.start_again().await;
        bank.tables().wait_for(&done, WAIT).await.unwrap();
        assert_eq!(bank.totals().await, [total("alice", 190, 20), total("bob", 3, 2)]);
    }

    #[tokio::test]
    async fn an_event_that_fails_undoes_itself_alone_and_stops_the_projection_until_it_is_left_out() {
        let bank = Bank::open().await;
        for _ in 0..3 {
            bank.happens("alice", AccountEvent::Deposited { cents: 1 }).await;
        }
        let overdrawn = bank.happens("carol", AccountEvent::Withdrawn { cents: 9 }).await;
        let last = bank.happens("alice", AccountEvent::Deposited { cents: 1 }).await;
        let error = bank.tables().wait_for(&last, WAIT).await.unwrap_err();
        assert!(matches!(&error, ViewError::Stopped { reason } if reason.contains("check constraint")), "{error}");
        assert_eq!(bank.totals().await, [total("alice", 3, 3)], "the account that was begun with it is gone too");
        bank.tables().skip_event(overdrawn.events()[0].position, "booked by mistake").await.unwrap();
        bank.tables().wait_for(&last, WAIT).await.unwrap();
        assert_eq!(bank.totals().await, [total("alice", 4, 4)]);
    }

    #[tokio::test]
    async fn work_that_ends_the_transaction_is_an_error_and_the_place_stays_where_it_was() {
        let bank = Bank::open().await;
        bank.commits.store(true, Ordering::SeqCst);
        let done = bank.happens("alice", AccountEvent::Deposited { cents: 1 }).await;
        bank.tables().wait_for(&done, Duration::from_secs(2)).await.unwrap_err();
        let generation = bank.store.generations("totals").await.unwrap()[0].id;
        let stands = bank.store.checkpoints(generation).await.unwrap();
        assert!(stands.iter().all(|of| of.position.get() == 0), "{stands:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn readers_see_whole_tables_while_new_ones_are_built_and_others_append() {
        let bank = Arc::new(Bank::open().await);
        let mut done = None;
        for number in 0..200 {
            done = Some(bank.happens(&format!("{}", number % 10), AccountEvent::Deposited { cents: 1 }).await);
        }
        bank.tables().wait_for(&done.unwrap(), WAIT).await.unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let (reader, ended) = (Arc::clone(&bank), Arc::clone(&over));
        let reading = tokio::spawn(async move {
            let mut looks = 0;
            while !ended.load(Ordering::SeqCst) || looks < 10 {
                let rows = reader.totals().await;
                let events: i64 = rows.iter().map(|(_, _, events)| events).sum();
                assert!(rows.len() == 10 && events >= 200, "{} rows, {events} events", rows.len());
                looks += 1;
            }
        });
        let (appends, ended) = (Arc::clone(&bank), Arc::clone(&over));
        let appending = tokio::spawn(async move {
            while !ended.load(Ordering::SeqCst) {
                appends.happens("3", AccountEvent::Deposited { cents: 1 }).await;
            }
        });
        let first = bank.tables().published().await.unwrap().unwrap();
        bank.tables().rebuild().begin().await.unwrap().finished(|_| ()).await.unwrap();
        assert_ne!(bank.tables().published().await.unwrap().unwrap(), first);
        over.store(true, Ordering::SeqCst);
        appending.await.unwrap();
        reading.await.unwrap();
        let done = bank.happens("3", AccountEvent::Deposited { cents: 1 }).await;
        bank.tables().wait_for(&done, WAIT).await.unwrap();
        let last = done.events()[0].position.get().cast_signed();
        assert_eq!(bank.totals().await.iter().map(|(_, _, events)| *events).sum::<i64>(), last);
        bank.tables().rebuild().drop_kept().await.unwrap();
        let tables =
            "select count(*) from information_schema.tables where table_schema = $1 and table_name like 'totals\\_g%'";
        let left: i64 = sqlx::query_scalar(tables)
            .bind(&bank.schema.name)
            .fetch_one(&mut server::connection().await)
            .await
            .unwrap();
        assert_eq!((bank.store.generations("totals").await.unwrap().len(), left), (1, 1));
    }
}
