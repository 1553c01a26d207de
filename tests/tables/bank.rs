//! Accounts with a table of what each of them has.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals::prelude::*;
use annals::projections::{ConnectionOf, Options, SqlProjectionHandle};
use annals::projections::{SqlProjection, SqlProjectionSetup, Tables};

use crate::fixture::{LogWithTables, run};

pub(crate) const WAIT: Duration = Duration::from_secs(60);

#[derive(Event, Clone, Debug, Serialize, Deserialize)]
#[event(category = "account")]
pub(crate) enum AccountEvent {
    Deposited { cents: i64 },
    Withdrawn { cents: i64 },
    Closed,
}

#[derive(Default)]
pub(crate) struct Account;

impl Aggregate for Account {
    type Event = AccountEvent;

    fn apply(&mut self, _: &AccountEvent) {}
}

/// What makes every event fail.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// It makes no sense, after it has done its work.
    pub(crate) is_broken: AtomicBool,
    /// It ends the transaction.
    pub(crate) commits: AtomicBool,
}

/// What each account has, in a table that refuses to be overdrawn. It says which account an event
/// is about, or nothing.
pub(crate) struct Totals<G, const BY_ACCOUNT: bool = false> {
    faults: Arc<Faults>,
    fixture: std::marker::PhantomData<fn(G)>,
}

impl<G: LogWithTables, const BY_ACCOUNT: bool> SqlProjection for Totals<G, BY_ACCOUNT> {
    const NAME: &'static str = "totals";
    type Store = G::Store;
    type Event = AccountEvent;

    fn key(event: &Recorded<AccountEvent>) -> Option<String> {
        BY_ACCOUNT.then(|| event.record.stream.id().to_owned())
    }

    async fn create(
        &self,
        connection: &mut ConnectionOf<Self>,
        tables: &Tables,
    ) -> Result<(), Poison> {
        let columns = "account text primary key, cents bigint not null check (cents >= 0), events \
            bigint not null";
        run::<G, Self>(
            connection,
            format!("create table {} ({columns})", tables.name("totals")),
        )
        .await
    }

    async fn on(
        &self,
        connection: &mut ConnectionOf<Self>,
        tables: &Tables,
        event: &Recorded<AccountEvent>,
    ) -> Result<(), Poison> {
        let cents = match **event {
            AccountEvent::Deposited { cents } => cents,
            AccountEvent::Withdrawn { cents } => -cents,
            AccountEvent::Closed => 0,
        };
        let table = tables.name("totals");
        let account = event.record.stream.id();
        let begin =
            format!("insert into {table} values ('{account}', 0, 0) on conflict do nothing");
        run::<G, Self>(connection, begin).await?;
        let add = format!(
            "update {table} set cents = cents + {cents}, events = events + 1 where account = \
             '{account}'"
        );
        run::<G, Self>(connection, add).await?;
        if self.faults.commits.load(Ordering::SeqCst) {
            run::<G, Self>(connection, "commit".into()).await?;
        }
        if self.faults.is_broken.load(Ordering::SeqCst) {
            return Err(Poison::new("it is broken"));
        }
        Ok(())
    }

    async fn publish(
        &self,
        connection: &mut ConnectionOf<Self>,
        tables: &Tables,
    ) -> Result<(), Poison> {
        run::<G, Self>(connection, published::<G>("totals", tables)).await
    }

    async fn remove(
        &self,
        connection: &mut ConnectionOf<Self>,
        tables: &Tables,
    ) -> Result<(), Poison> {
        run::<G, Self>(
            connection,
            format!("drop table if exists {}", tables.name("totals")),
        )
        .await
    }
}

/// What makes readers of a name see the tables of a generation.
pub(crate) fn published<G: LogWithTables>(name: &str, tables: &Tables) -> String {
    format!(
        "{} as select * from {}",
        G::REPLACE_VIEW.replace("NAME", name),
        tables.name(name)
    )
}

pub(crate) fn options() -> Options {
    Options::default()
        .batch_events_max(7)
        .lease(Duration::from_secs(3600))
}

/// A program that keeps the totals.
pub(crate) struct Bank<G: LogWithTables, const BY_ACCOUNT: bool = false> {
    pub(crate) store: G::Store,
    pub(crate) db: Program,
    pub(crate) faults: Arc<Faults>,
    // Dropped last.
    pub(crate) fixture: G,
}

impl<G: LogWithTables, const BY_ACCOUNT: bool> fmt::Debug for Bank<G, BY_ACCOUNT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bank")
            .field("db", &self.db)
            .finish_non_exhaustive()
    }
}

impl<G: LogWithTables, const BY_ACCOUNT: bool> Bank<G, BY_ACCOUNT> {
    pub(crate) async fn open() -> Self {
        Self::open_with(options()).await
    }

    pub(crate) async fn open_with(options: Options) -> Self {
        let fixture = G::new().await;
        let store = G::open(&fixture.place()).await;
        let faults = Arc::default();
        let db = Self::start(&store, &faults, options).await;
        Bank {
            store,
            db,
            faults,
            fixture,
        }
    }

    async fn start(store: &G::Store, faults: &Arc<Faults>, options: Options) -> Program {
        let totals = Totals::<G, BY_ACCOUNT> {
            faults: Arc::clone(faults),
            fixture: std::marker::PhantomData,
        };
        let totals = SqlProjectionSetup::new(totals, store.clone()).options(options);
        Annals::on(Arc::new(store.clone()))
            .with(totals)
            .start()
            .await
            .unwrap()
    }

    pub(crate) async fn start_again(&mut self) {
        self.db = Self::start(&self.store, &self.faults, options()).await;
    }

    pub(crate) fn tables(&self) -> SqlProjectionHandle<Totals<G, BY_ACCOUNT>> {
        self.db.tables::<Totals<G, BY_ACCOUNT>>()
    }

    pub(crate) async fn happens(&self, account: &str, event: AccountEvent) -> Committed {
        self.db
            .aggregate::<Account>(account)
            .run(|_| Ok::<_, String>(event.clone()))
            .await
            .unwrap()
    }

    pub(crate) async fn deposits(&self, account: &str, cents: i64) -> Committed {
        self.happens(account, AccountEvent::Deposited { cents })
            .await
    }

    pub(crate) async fn withdraws(&self, account: &str, cents: i64) -> Committed {
        self.happens(account, AccountEvent::Withdrawn { cents })
            .await
    }

    /// What a program that knows nothing of Annals reads.
    pub(crate) async fn totals(&self) -> Vec<(String, i64, i64)> {
        self.fixture
            .read("select account, cents, events from totals order by account")
            .await
    }
}

pub(crate) fn total(account: &str, cents: i64, events: i64) -> (String, i64, i64) {
    (account.into(), cents, events)
}
