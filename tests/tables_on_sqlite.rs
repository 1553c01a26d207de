//! Read models in tables of one's own, in the SQLite file of the log.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals::ViewStore as _;
use annals::prelude::*;
use annals::projections::{Options, SqlTables, StartError, ViewError};
use annals::sqlite::SqliteStore;
use annals::sqlite::rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

const WAIT: Duration = Duration::from_secs(30);

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

/// What each account has, in a table that refuses to be overdrawn. It says which account an event is about, or nothing.
struct Totals<const BY_ACCOUNT: bool = false> {
    /// Makes every event fail, after it has done its work.
    broken: Arc<AtomicBool>,
}

impl<const BY_ACCOUNT: bool> SqlProject for Totals<BY_ACCOUNT> {
    const NAME: &'static str = "totals";
    type Store = SqliteStore;
    type Event = AccountEvent;

    fn key(event: &Recorded<AccountEvent>) -> Option<String> {
        BY_ACCOUNT.then(|| event.record.stream.id().to_owned())
    }

    async fn create(&self, connection: &mut Connection, tables: &Tables) -> Result<(), Poison> {
        let table = tables.name("totals");
        Ok(connection.execute_batch(&format!(
            "create table {table} (account text primary key, cents integer not null check (cents >= 0), events integer not null)"
        ))?)
    }

    async fn on(
        &self,
        connection: &mut Connection,
        tables: &Tables,
        event: &Recorded<AccountEvent>,
    ) -> Result<(), Poison> {
        let cents = match **event {
            AccountEvent::Deposited { cents } => cents,
            AccountEvent::Withdrawn { cents } => -cents,
        };
        let (table, account) = (tables.name("totals"), event.record.stream.id());
        connection.execute(&format!("insert into {table} values (?1, 0, 0) on conflict do nothing"), [account])?;
        let add = format!("update {table} set cents = cents + ?2, events = events + 1 where account = ?1");
        connection.prepare_cached(&add)?.execute((account, cents))?;
        if self.broken.load(Ordering::SeqCst) {
            return Err(Poison::new("it is broken"));
        }
        Ok(())
    }

    async fn publish(&self, connection: &mut Connection, tables: &Tables) -> Result<(), Poison> {
        let table = tables.name("totals");
        Ok(connection
            .execute_batch(&format!("drop view if exists totals; create view totals as select * from {table}"))?)
    }

    async fn remove(&self, connection: &mut Connection, tables: &Tables) -> Result<(), Poison> {
        Ok(connection.execute_batch(&format!("drop table if exists {}", tables.name("totals")))?)
    }
}

struct Bank {
    directory: TempDir,
    store: SqliteStore,
    db: Program,
    broken: Arc<AtomicBool>,
}

async fn open(directory: &Path) -> SqliteStore {
    SqliteStore::open(&format!("sqlite:{}", directory.join("bank.db").display())).await.unwrap()
}

async fn start(store: &SqliteStore, broken: &Arc<AtomicBool>) -> Result<Program, StartError> {
    let totals = SqlProjection::new(Totals::<false> { broken: Arc::clone(broken) }, store.clone());
    let options = Options::default().batch_events_max(7).lease(Duration::from_secs(3600));
    Annals::on(Arc::new(store.clone())).with(totals.options(options)).start().await
}

impl Bank {
    async fn open() -> Bank {
        let directory = TempDir::new().unwrap();
        let (store, broken) = (open(directory.path()).await, Arc::default());
        let db = start(&store, &broken).await.unwrap();
        Bank { directory, store, db, broken }
    }

    fn tables(&self) -> SqlTables<Totals> {
        self.db.tables::<Totals>()
    }

    async fn happens(&self, account: &str, event: AccountEvent) -> Done {
        self.db.aggregate::<Account>(account).run(|_| Ok::<_, String>(event.clone())).await.unwrap()
    }

    /// What a program that knows nothing of Annals reads.
    fn reader(&self) -> Connection {
        Connection::open_with_flags(self.directory.path().join("bank.db"), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
    }

    fn totals(&self) -> Vec<(String, i64, i64)> {
        totals(&self.reader())
    }
}

fn totals(reader: &Connection) -> Vec<(String, i64, i64)> {
    let mut select = reader.prepare("select account, cents, events from totals order by account").unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn total(account: &str, cents: i64, events: i64) -> (String, i64, i64) {
    (account.into(), cents, events)
}

#[tokio::test]
async fn tables_follow_the_log_and_go_on_where_the_last_program_stopped() {
    let mut bank = Bank::open().await;
    assert_eq!(bank.totals(), [], "the tables are there before the first event");
    for number in 0..20 {
        bank.happens("alice", AccountEvent::Deposited { cents: number }).await;
    }
    let done = bank.happens("bob", AccountEvent::Deposited { cents: 5 }).await;
    bank.tables().wait_for(&done, WAIT).await.unwrap();
    assert_eq!(bank.totals(), [total("alice", 190, 20), total("bob", 5, 1)]);
    bank.db.stop().await;
    let done = bank.happens("bob", AccountEvent::Withdrawn { cents: 2 }).await;
    bank.db = start(&bank.store, &bank.broken).await.unwrap();
    bank.tables().wait_for(&done, WAIT).await.unwrap();
    assert_eq!(bank.totals(), [total("alice", 190, 20), total("bob", 3, 2)]);
    assert!(bank.db.status().iter().any(|status| status.view == "totals"), "{:?}", bank.db.status());
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
    assert!(matches!(&error, ViewError::Stopped { reason } if reason.contains("CHECK constraint failed")), "{error}");
    assert_eq!(bank.totals(), [total("alice", 3, 3)], "the account that was begun with it is gone too");

    let position = overdrawn.events()[0].position;
    let invalid = bank.tables().skip_event(position, "").await.unwrap_err();
    assert!(matches!(invalid, ViewError::Invalid(_)), "{invalid}");
    bank.tables().skip_event(position, "booked by mistake").await.unwrap();
    bank.tables().wait_for(&last, WAIT).await.unwrap();
    assert_eq!(bank.totals(), [total("alice", 4, 4)]);
    bank.tables().rebuild().begin().await.unwrap().finished(|_| ()).await.unwrap();
    assert_eq!(bank.totals(), [total("alice", 4, 4)], "a rebuild leaves it out too");
}

#[tokio::test]
async fn an_event_is_tried_again_when_its_trouble_has_passed() {
    let bank = Bank::open().await;
    bank.broken.store(true, Ordering::SeqCst);
    let done = bank.happens("alice", AccountEvent::Deposited { cents: 1 }).await;
    let error = bank.tables().wait_for(&done, WAIT).await.unwrap_err();
    assert!(error.to_string().contains("it is broken"), "{error}");
    assert_eq!(bank.totals(), []);
    bank.broken.store(false, Ordering::SeqCst);
    // It looks again by itself after some seconds.
    let mended = async {
        while bank.tables().wait_for(&done, WAIT).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WAIT, mended).await.unwrap();
    assert_eq!(bank.totals(), [total("alice", 1, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_whole_tables_while_new_ones_are_built_and_others_append() {
    let bank = Arc::new(Bank::open().await);
    for number in 0..300 {
        bank.happens(&format!("{}", number % 10), AccountEvent::Deposited { cents: 1 }).await;
    }
    let done = bank.happens("0", AccountEvent::Deposited { cents: 1 }).await;
    bank.tables().wait_for(&done, WAIT).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let (reader, ended) = (bank.reader(), Arc::clone(&over));
    let reading = tokio::task::spawn_blocking(move || {
        let (mut seen, mut looks) = (301, 0);
        while !ended.load(Ordering::SeqCst) || looks < 10 {
            let rows = totals(&reader);
            let events: i64 = rows.iter().map(|(_, _, events)| events).sum();
            assert_eq!(rows.len(), 10);
            // A switch shows tables that are about as new, never ones that are half built.
            assert!(events >= 301, "{events} events, {seen} were seen before");
            (seen, looks) = (events, looks + 1);
        }
        looks
    });
    let appending = {
        let (bank, ended) = (Arc::clone(&bank), Arc::clone(&over));
        tokio::spawn(async move {
            while !ended.load(Ordering::SeqCst) {
                bank.happens("3", AccountEvent::Deposited { cents: 1 }).await;
            }
        })
    };
    let first = bank.tables().published().await.unwrap().unwrap();
    for _ in 0..3 {
        bank.tables().rebuild().begin().await.unwrap().finished(|_| ()).await.unwrap();
    }
    assert_ne!(bank.tables().published().await.unwrap().unwrap(), first);
    bank.tables().rebuild().roll_back().await.unwrap();
    over.store(true, Ordering::SeqCst);
    appending.await.unwrap();
    assert!(reading.await.unwrap() > 10);
    let done = bank.happens("3", AccountEvent::Deposited { cents: 1 }).await;
    bank.tables().wait_for(&done, WAIT).await.unwrap();
    let last = done.events()[0].position.get();
    assert_eq!(bank.totals().iter().map(|(_, _, events)| *events).sum::<i64>(), last.cast_signed());
    bank.tables().rebuild().drop_kept().await.unwrap();
    let left: Vec<String> =
        bank.store.generations("totals").await.unwrap().iter().map(|of| of.id.to_string()).collect();
    let select = "select count(*) from sqlite_schema where type = 'table' and name like 'totals\\_g%' escape '\\'";
    let tables: i64 = bank.reader().query_row(select, [], |row| row.get(0)).unwrap();
    assert_eq!((left.len(), tables), (1, 1));
}

#[tokio::test]
async fn a_build_that_is_called_off_takes_its_tables_along() {
    let bank = Bank::open().await;
    let done = bank.happens("alice", AccountEvent::Deposited { cents: 1 }).await;
    bank.tables().wait_for(&done, WAIT).await.unwrap();
    // It cannot become complete, so that it can be called off.
    bank.broken.store(true, Ordering::SeqCst);
    let building = bank.tables().rebuild().begin().await.unwrap();
    let table = format!("totals_g{}", building.generation());
    let has_table = |reader: &Connection| {
        let count = "select count(*) from sqlite_schema where name = ?1";
        reader.query_row(count, [&table], |row| row.get::<_, i64>(0)).unwrap()
    };
    let reader = bank.reader();
    tokio::time::timeout(WAIT, async {
        while has_table(&reader) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    building.call_off().await.unwrap();
    assert_eq!(has_table(&reader), 0);
    assert_eq!(bank.totals(), [total("alice", 1, 1)]);
}

#[tokio::test]
async fn an_event_with_a_key_delays_only_its_key_until_a_person_has_looked() {
    let directory = TempDir::new().unwrap();
    let (store, broken) = (open(directory.path()).await, Arc::default());
    let totals = SqlProjection::new(Totals::<true> { broken }, store.clone());
    let db = Annals::on(Arc::new(store.clone())).with(totals).start().await.unwrap();
    let bank = Bank { directory, store, db, broken: Arc::default() };
    let tables = bank.db.tables::<Totals<true>>();
    bank.happens("alice", AccountEvent::Deposited { cents: 1 }).await;
    let overdrawn = bank.happens("carol", AccountEvent::Withdrawn { cents: 9 }).await;
    bank.happens("carol", AccountEvent::Deposited { cents: 20 }).await;
    let last = bank.happens("alice", AccountEvent::Deposited { cents: 2 }).await;
    tables.wait_for(&last, WAIT).await.unwrap();
    assert_eq!(bank.totals(), [total("alice", 3, 2)]);

    let aside = bank.db.set_aside("totals").unwrap();
    let waiting = aside.keys(None, 10).await.unwrap();
    assert_eq!((waiting.len(), &*waiting[0].key, waiting[0].behind), (1, "carol", 1));
    assert!(waiting[0].cause.contains("CHECK constraint failed"), "{}", waiting[0].cause);
    let settled = aside.retry("carol").await.unwrap();
    assert_eq!((settled.events, settled.still.map(|still| still.attempts)), (0, Some(2)));
    let position = overdrawn.events()[0].position;
    let settled = aside.skip("carol", position, "booked by mistake").await.unwrap();
    assert_eq!((settled.events, settled.still), (2, None));
    assert_eq!(bank.totals(), [total("alice", 3, 2), total("carol", 20, 1)]);
    let last = bank.happens("carol", AccountEvent::Withdrawn { cents: 5 }).await;
    tables.wait_for(&last, WAIT).await.unwrap();
    let expected = [total("alice", 3, 2), total("carol", 15, 2)];
    assert_eq!(bank.totals(), expected);
    tables.rebuild().begin().await.unwrap().finished(|_| ()).await.unwrap();
    assert_eq!(bank.totals(), expected, "a rebuild leaves it out too");
}
