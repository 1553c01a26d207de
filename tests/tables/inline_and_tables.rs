//! Two read models of the same accounts, one inline and one of tables of
//! one's own, and what a replay says of both.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use annals::prelude::*;
use annals::projections::{ConnectionOf, Options};
use annals::projections::{SqlProjection, SqlProjectionSetup, Tables};
use annals::store::{Log, ReadLog};
use annals::{Metadata, Partition, Token};
use annals_core::conformance::{Dice, rounds};

use crate::bank::{Account, AccountEvent, WAIT, published};
use crate::fixture::{LogWithTables, run};

pub(crate) const ACCOUNTS: u64 = 3;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "balances", events(AccountEvent), history)]
pub(crate) struct Balance {
    #[view(index)]
    cents: i64,
    events: u64,
}

impl Project<AccountEvent> for Balance {
    fn on(balance: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        balance.events += 1;
        match **event {
            AccountEvent::Deposited { cents } => balance.cents += cents,
            AccountEvent::Withdrawn { cents } => balance.cents -= cents,
            AccountEvent::Closed => balance.remove(),
        }
        Ok(())
    }
}

/// How many events there were, and of what sum, for each account.
pub(crate) struct AccountTotals<G>(PhantomData<fn(G)>);

impl<G: LogWithTables> SqlProjection for AccountTotals<G> {
    const NAME: &'static str = "counted";
    type Store = G::Store;
    type Event = AccountEvent;

    async fn create(
        &self,
        connection: &mut ConnectionOf<Self>,
        tables: &Tables,
    ) -> Result<(), Poison> {
        let columns = "account text primary key, events bigint, cents bigint";
        run::<G, Self>(
            connection,
            format!("create table {} ({columns})", tables.name("counted")),
        )
        .await
    }

    async fn on(
        &self,
        connection: &mut ConnectionOf<Self>,
        tables: &Tables,
        event: &Recorded<AccountEvent>,
    ) -> Result<(), Poison> {
        let table = tables.name("counted");
        let account = event.record.stream.id();
        let cents = if let AccountEvent::Deposited { cents } = **event {
            cents
        } else {
            0
        };
        let add = format!(
            "insert into {table} as kept values ('{account}', 1, {cents})
             on conflict (account) do update
             set events = kept.events + 1, cents = kept.cents + {cents}"
        );
        run::<G, Self>(connection, add).await
    }

    async fn publish(
        &self,
        connection: &mut ConnectionOf<Self>,
        tables: &Tables,
    ) -> Result<(), Poison> {
        run::<G, Self>(connection, published::<G>("counted", tables)).await
    }

    async fn remove(
        &self,
        connection: &mut ConnectionOf<Self>,
        tables: &Tables,
    ) -> Result<(), Poison> {
        run::<G, Self>(
            connection,
            format!("drop table if exists {}", tables.name("counted")),
        )
        .await
    }
}

/// A program that keeps both; the next one need not wait long for the slots of one that was
/// killed.
pub(crate) async fn start<G: LogWithTables>(store: &G::Store) -> Program {
    let options = Options::default()
        .batch_events_max(20)
        .lease(Duration::from_millis(50))
        .poll(Duration::from_millis(5));
    let balances = ViewSetup::<Balance>::new()
        .inline()
        .options(options.clone());
    let counted =
        SqlProjectionSetup::new(AccountTotals::<G>(PhantomData), store.clone()).options(options);
    Annals::on(Arc::new(store.clone()))
        .with(balances)
        .with(counted)
        .start()
        .await
        .unwrap()
}

/// An account, and some events that happen to it.
pub(crate) fn some_events(dice: &mut Dice) -> (u64, Vec<AccountEvent>) {
    let account = dice.roll(ACCOUNTS);
    let mut events: Vec<_> = (0..=dice.roll(3))
        .map(|_| AccountEvent::Deposited {
            cents: dice.roll(100).cast_signed(),
        })
        .collect();
    if dice.roll(12) == 0 {
        events.push(AccountEvent::Closed);
    }
    (account, events)
}

/// Appends some events to some account, in the name of a process; how many.
pub(crate) async fn command(db: &Annals, process: u32, dice: &mut Dice) -> u64 {
    let (account, events) = some_events(dice);
    let by = Metadata::default().actor(process.to_string());
    let done = db
        .aggregate::<Account>(account)
        .run(|_| Ok::<_, String>(events.clone()))
        .metadata(by)
        .await;
    // Others may get there first again and again; then it is left.
    done.map_or(0, |_| events.len() as u64)
}

type Rows = BTreeMap<String, Balance>;

/// Compares both read models with a replay: the rows at each position of the log and now, by their
/// keys and by their index, and the table. Returns how many events there are.
pub(crate) async fn equal_a_replay<G: LogWithTables>(
    fixture: &G,
    store: &G::Store,
    db: &Program,
) -> u64 {
    let mut rows = Rows::new();
    let mut counted = BTreeMap::new();
    let mut read = ReadLog::after(Position::START);
    let head = store.head(Partition(0)).await.unwrap().visible;
    let token = Token::new(store.id()).with(Partition(0), head);
    let view = db.view::<Balance>();
    view.wait_for(token.clone(), WAIT).await.unwrap();
    db.tables::<AccountTotals<G>>()
        .wait_for(token, WAIT)
        .await
        .unwrap();
    loop {
        let page = store.read(read.clone()).await.unwrap();
        for record in page.events {
            let position = record.position;
            let key = record.stream.id().to_owned();
            let of_account: &mut (i64, i64) = counted.entry(key.clone()).or_default();
            of_account.0 += 1;
            let row = rows.entry(key.clone()).or_default();
            row.events += 1;
            match serde_json::from_slice::<serde_json::Value>(&record.payload).unwrap()["cents"]
                .as_i64()
            {
                Some(cents) => {
                    (of_account.1, row.cents) = (of_account.1 + cents, row.cents + cents);
                }
                None => _ = rows.remove(&key),
            }
            // The more events there are, the more each of these looks costs.
            if !position.get().is_multiple_of(rounds(7, 1)) {
                continue;
            }
            let past = view.rows().as_of(position).await.unwrap().rows;
            assert_eq!(
                by_key(past),
                rows,
                "the rows as of {position} are not what a replay gives"
            );
        }
        if page.end {
            break;
        }
        read.after = page.scanned;
    }
    let table = fixture
        .read("select account, events, cents from counted")
        .await;
    let table: BTreeMap<_, _> = table
        .into_iter()
        .map(|(account, events, cents)| (account, (events, cents)))
        .collect();
    assert_eq!(table, counted, "the table is not what a replay gives");
    assert_eq!(
        by_key(view.rows().await.unwrap().rows),
        rows,
        "the rows are not what a replay gives"
    );
    let indexed = view.rows().by_index::<i64>("cents", ..).await.unwrap().rows;
    assert_eq!(by_key(indexed), rows, "nor is the index");
    for account in 0..ACCOUNTS {
        let key = account.to_string();
        assert_eq!(
            view.get(key.clone()).await.unwrap().as_ref(),
            rows.get(&key)
        );
    }
    head.get()
}

fn by_key(rows: Vec<annals::projections::RowEntry<Balance>>) -> Rows {
    rows.into_iter().map(|row| (row.key, row.value)).collect()
}
