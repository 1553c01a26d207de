//! Processes that keep read models are killed at any moment: rows that travel with appends, and tables of the application's own, are
//! what a replay gives.
//!
//! The test starts itself as the processes that will be killed.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // What must not fail is unwrapped, and the figures are shown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use annals::prelude::*;
use annals::projections::Options;
use annals::sqlite::SqliteStore;
use annals::sqlite::rusqlite::{Connection, OpenFlags};
use annals::{Log as _, Partition, ReadLog};
use annals_core::conformance::Dice;
use tempfile::TempDir;

const FILE: &str = "ANNALS_KILLS_FILE";
const WAIT: Duration = Duration::from_secs(60);
const ACCOUNTS: u64 = 12;

#[derive(Event, Clone, Debug, Serialize, Deserialize)]
#[event(category = "account")]
enum AccountEvent {
    Deposited { cents: i64 },
    Closed,
}

#[derive(Default)]
struct Account;

impl Aggregate for Account {
    type Event = AccountEvent;

    fn apply(&mut self, _: &AccountEvent) {}
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "balances", events(AccountEvent), history)]
struct Balance {
    #[view(index)]
    cents: i64,
    events: u64,
}

impl Project<AccountEvent> for Balance {
    fn on(balance: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        balance.events += 1;
        match **event {
            AccountEvent::Deposited { cents } => balance.cents += cents,
            AccountEvent::Closed => balance.remove(),
        }
        Ok(())
    }
}

/// How many events there were, and of what sum, for each account.
struct Counted;

impl SqlProject for Counted {
    const NAME: &'static str = "counted";
    type Store = SqliteStore;
    type Event = AccountEvent;

    async fn create(&self, connection: &mut Connection, tables: &Tables) -> Result<(), Poison> {
        let table = tables.name("counted");
        let create = format!("create table {table} (account text primary key, events integer, cents integer)");
        Ok(connection.execute_batch(&create)?)
    }

    async fn on(
        &self,
        connection: &mut Connection,
        tables: &Tables,
        event: &Recorded<AccountEvent>,
    ) -> Result<(), Poison> {
        let (table, account) = (tables.name("counted"), event.record.stream.id());
        let cents = if let AccountEvent::Deposited { cents } = **event { cents } else { 0 };
        let add = format!(
            "insert into {table} values (?1, 1, ?2) on conflict do update set events = events + 1, cents = cents + ?2"
        );
        connection.prepare_cached(&add)?.execute((account, cents))?;
        Ok(())
    }

    async fn publish(&self, connection: &mut Connection, tables: &Tables) -> Result<(), Poison> {
        let table = tables.name("counted");
        let publish = format!("drop view if exists counted; create view counted as select * from {table}");
        Ok(connection.execute_batch(&publish)?)
    }

    async fn remove(&self, connection: &mut Connection, tables: &Tables) -> Result<(), Poison> {
        Ok(connection.execute_batch(&format!("drop table if exists {}", tables.name("counted")))?)
    }
}

async fn open(file: &Path) -> SqliteStore {
    SqliteStore::open(&format!("sqlite:{}", file.display())).await.unwrap()
}

/// Both read models; whoever comes next need not wait long for the slots of one that was killed.
async fn start(store: &SqliteStore) -> Program {
    let options =
        Options::default().batch_events_max(20).lease(Duration::from_millis(50)).poll(Duration::from_millis(5));
    let balances = Projection::<Balance>::new().inline().options(options.clone());
    let counted = SqlProjection::new(Counted, store.clone()).options(options);
    Annals::on(Arc::new(store.clone())).with(balances).with(counted).start().await.unwrap()
}

/// Appends some events to some account.
async fn command(db: &Annals, dice: &mut Dice) {
    let account = dice.roll(ACCOUNTS);
    let mut events: Vec<_> =
        (0..=dice.roll(3)).map(|_| AccountEvent::Deposited { cents: dice.roll(100).cast_signed() }).collect();
    if dice.roll(12) == 0 {
        events.push(AccountEvent::Closed);
    }
    // Others may get there first again and again; then it is left.
    let _ = db.aggregate::<Account>(account).run(|_| Ok::<_, String>(events.clone())).await;
}

/// The process that the tests start and kill: it gives commands until then.
#[test]
#[ignore = "it is the process that the other tests start and kill"]
fn works_until_it_is_killed() {
    let Ok(file) = std::env::var(FILE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = open(Path::new(&file)).await;
        let db = start(&store).await;
        let mut dice = Dice::new(u64::from(std::process::id()));
        loop {
            command(&db, &mut dice).await;
        }
    });
}

fn victim(file: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["works_until_it_is_killed", "--exact", "--ignored"]).env(FILE, file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

type Rows = BTreeMap<String, Balance>;

/// What a replay gives: the rows of the view, and what was counted.
async fn replay(store: &SqliteStore) -> (Rows, BTreeMap<String, (i64, i64)>, u64) {
    let (mut rows, mut counted, mut read) = (Rows::new(), BTreeMap::new(), ReadLog::after(Position::START));
    loop {
        let page = store.read(read.clone()).await.unwrap();
        for record in page.events {
            let key = record.stream.id().to_owned();
            let of_account: &mut (i64, i64) = counted.entry(key.clone()).or_default();
            of_account.0 += 1;
            let row = rows.entry(key.clone()).or_default();
            row.events += 1;
            match serde_json::from_slice::<serde_json::Value>(&record.payload).unwrap()["cents"].as_i64() {
                Some(cents) => (of_account.1, row.cents) = (of_account.1 + cents, row.cents + cents),
                None => _ = rows.remove(&key),
            }
        }
        if page.end {
            return (rows, counted, page.scanned.get());
        }
        read.after = page.scanned;
    }
}

fn counted(file: &Path) -> BTreeMap<String, (i64, i64)> {
    let reader = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut select = reader.prepare("select account, events, cents from counted").unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

async fn kill(kills: u64, file: PathBuf) {
    let store = open(&file).await;
    start(&store).await.stop().await;
    // A program that knows nothing of read models appends all the time, too.
    let foreign = Annals::on(Arc::new(store.clone()));
    let mut dice = Dice::new(kills);
    let mut one = victim(&file);
    for _ in 0..kills {
        let other = victim(&file);
        // It is killed when the log has moved a little, mostly while it works.
        let until = store.head(Partition(0)).await.unwrap().visible.plus(dice.roll(60));
        let moved = async {
            while store.head(Partition(0)).await.unwrap().visible < until {
                command(&foreign, &mut dice).await;
                tokio::time::sleep(Duration::from_micros(dice.roll(2_000))).await;
            }
        };
        tokio::time::timeout(WAIT, moved).await.unwrap();
        one.kill().unwrap();
        one.wait().unwrap();
        one = other;
    }
    one.kill().unwrap();
    one.wait().unwrap();
    let db = start(&store).await;
    let (expected, expected_counts, head) = replay(&store).await;
    let token = annals::Token::new(store.id()).with(Partition(0), Position::new(head));
    let view = db.view::<Balance>();
    view.wait_for(token.clone(), WAIT).await.unwrap();
    db.tables::<Counted>().wait_for(token, WAIT).await.unwrap();
    assert_eq!(counted(&file), expected_counts, "the table is not what a replay gives");
    let rows: Rows = view.rows().await.unwrap().rows.into_iter().map(|row| (row.key, row.value)).collect();
    assert_eq!(rows, expected, "the rows are not what a replay gives");
    let by_index = view.rows().by_index::<i64>("cents", ..).await.unwrap().rows;
    assert_eq!(by_index.into_iter().map(|row| (row.key, row.value)).collect::<Rows>(), expected, "nor is the index");
    for account in 0..ACCOUNTS {
        let key = account.to_string();
        assert_eq!(view.get(key.clone()).await.unwrap().as_ref(), expected.get(&key));
        let past = view.get(key.clone()).as_of(Position::new(head)).await.unwrap();
        assert_eq!(past.as_ref(), expected.get(&key), "the newest version of {key}");
    }
    println!("{kills} kills: {head} events of {ACCOUNTS} accounts, each in its row and in the table once");
    assert!(head > kills * 10, "too little happened to prove anything");
    db.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inline_rows_and_own_tables_equal_a_replay_when_their_processes_are_killed_60_times() {
    let directory = TempDir::new().unwrap();
    kill(60, directory.path().join("bank.db")).await;
}
