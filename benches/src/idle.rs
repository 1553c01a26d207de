//! What an idle program asks its server: views and watchers on a log to which nothing is appended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::prelude::*;
use annals::{Annals, Store};
use annals_postgres::sqlx::{self, PgConnection};
use tokio::task::JoinSet;

use crate::Outcome;
use crate::account::{Account, AccountEvent};
use crate::latency::{Laps, Latencies};
use crate::server::Schema;

/// How long the server's counters are watched.
const SPAN: Duration = Duration::from_secs(10);

/// A program that does nothing but follow.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Idle {
    /// One or twenty.
    pub views: Views,
    /// Watchers of one row each, of the first view, in a second program that holds no lease.
    pub watchers: usize,
}

/// How many views a program has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Views {
    /// One.
    One,
    /// Twenty.
    Twenty,
}

macro_rules! views {
    ($($view:ident = $name:literal),+ $(,)?) => {
        $(
            #[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, View)]
            #[view(name = $name, version = 1, events(AccountEvent))]
            struct $view {
                events: u64,
            }

            impl Project<AccountEvent> for $view {
                fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
                    row.events += 1;
                    Ok(())
                }
            }
        )+

        async fn started(store: &Arc<dyn Store>, views: Views) -> Outcome<Program> {
            let db = Annals::on(Arc::clone(store));
            Ok(match views {
                Views::One => db.with(First::projection()).start().await?,
                Views::Twenty => {
                    let setup = db.with(First::projection());
                    $(let setup = setup.with($view::projection());)+
                    setup.start().await?
                }
            })
        }
    };
}

/// The one that is watched, and is there in every program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "idle_first", version = 1, events(AccountEvent))]
struct First {
    events: u64,
}

impl Project<AccountEvent> for First {
    fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.events += 1;
        Ok(())
    }
}

views! {
    Idle2 = "idle_2", Idle3 = "idle_3", Idle4 = "idle_4", Idle5 = "idle_5", Idle6 = "idle_6",
    Idle7 = "idle_7", Idle8 = "idle_8", Idle9 = "idle_9", Idle10 = "idle_10",
    Idle11 = "idle_11", Idle12 = "idle_12", Idle13 = "idle_13", Idle14 = "idle_14",
    Idle15 = "idle_15", Idle16 = "idle_16", Idle17 = "idle_17", Idle18 = "idle_18",
    Idle19 = "idle_19", Idle20 = "idle_20",
}

impl Idle {
    /// Transactions a second that the server counts in its database meanwhile.
    ///
    /// # Errors
    ///
    /// Those of the stores and of the server.
    pub async fn queries_per_second(&self, schema: &Schema) -> Outcome<f64> {
        let program = started(&schema.store().await?, self.views).await?;
        let watchers = self.watching(schema).await?;
        let mut connection = schema.connection().await?;
        // What was asked to get here is written down by then.
        settled(&mut connection).await?;
        let before = transactions(&mut connection).await?;
        let start = Instant::now();
        tokio::time::sleep_until((start + SPAN).into()).await;
        let after = transactions(&mut connection).await?;
        let seconds = start.elapsed().as_secs_f64();
        watchers.stop().await;
        program.stop().await;
        Ok((after - before) as f64 / seconds)
    }

    /// How long each of `commands` takes, one after another, until its row is in hand in a view
    /// that knows of it.
    ///
    /// # Errors
    ///
    /// Those of the stores, the commands and the view.
    pub async fn own_writes(&self, schema: &Schema, commands: usize) -> Outcome<Latencies> {
        let program = started(&schema.store().await?, self.views).await?;
        let watchers = self.watching(schema).await?;
        let mut laps = Laps::start();
        for number in 0..commands {
            let id = number % ACCOUNTS;
            let start = Instant::now();
            let done = program
                .aggregate::<Account>(id)
                .run(|account: &Account| account.deposit(1))
                .await?;
            program
                .view::<First>()
                .get(id.to_string())
                .at_least(&done)
                .await?;
            laps.took(start);
        }
        watchers.stop().await;
        program.stop().await;
        Ok(laps.stop())
    }

    /// The second program with its watchers.
    async fn watching(&self, schema: &Schema) -> Outcome<Watchers> {
        let mut tasks = JoinSet::new();
        if self.watchers == 0 {
            return Ok(Watchers {
                tasks,
                program: None,
            });
        }
        let program = Arc::new(started(&schema.store().await?, Views::One).await?);
        for key in 0..self.watchers {
            let mut watch = program.view::<First>().watch(key.to_string());
            tasks.spawn(async move { while let Ok(Some(_)) = watch.next().await {} });
        }
        let program = Some(program);
        Ok(Watchers { tasks, program })
    }
}

/// Accounts of which the rows are written and seen.
const ACCOUNTS: usize = 10;

/// Who watches, and in which program.
struct Watchers {
    tasks: JoinSet<()>,
    program: Option<Arc<Program>>,
}

impl Watchers {
    async fn stop(mut self) {
        self.tasks.shutdown().await;
        if let Some(program) = self.program.and_then(Arc::into_inner) {
            program.stop().await;
        }
    }
}

/// Waits until the server's counters hold what was asked before: each session writes its own down
/// at most once a second.
async fn settled(connection: &mut PgConnection) -> Outcome<()> {
    let until = Instant::now() + Duration::from_secs(3);
    tokio::time::sleep_until(until.into()).await;
    transactions(connection).await.map(|_| ())
}

async fn transactions(connection: &mut PgConnection) -> Outcome<i64> {
    let counted = sqlx::query_scalar(
        "select xact_commit + xact_rollback from pg_catalog.pg_stat_database \
         where datname = pg_catalog.current_database()",
    );
    Ok(counted.fetch_one(connection).await?)
}
