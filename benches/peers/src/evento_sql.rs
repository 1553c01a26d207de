//! evento on PostgreSQL: its write builder, and a subscription.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use annals_postgres::sqlx::postgres::PgPoolOptions;
use evento::metadata::Event;
use evento::migrator::{Migrate, Plan};
use evento::subscription::{Context, SubscriptionBuilder};
use evento::{Executor, Postgres};

use crate::server::{Database, PAUSED};
use crate::{Outcome, Peer};

#[evento::aggregate]
pub enum Account {
    Deposited { cents: i64 },
}

/// How many events the subscription has handed over; a handler is a plain function.
static DELIVERED: AtomicU64 = AtomicU64::new(0);

#[evento::subscription]
async fn count<E: Executor>(
    _context: &Context<'_, E>,
    _event: Event<Deposited>,
) -> anyhow::Result<()> {
    DELIVERED.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

pub(crate) struct Evento(Postgres);

impl Peer for Evento {
    const NAME: &'static str = "evento";
    const TABLE: &'static str = "event";

    async fn open(database: &Database, clients: u32) -> Outcome<Evento> {
        let pool = PgPoolOptions::new()
            .max_connections(clients)
            .connect(&database.url())
            .await?;
        let mut connection = pool.acquire().await?;
        let migrator = evento::sql_migrator::new::<annals_postgres::sqlx::Postgres>()?;
        migrator.run(&mut *connection, &Plan::apply_all()).await?;
        drop(connection);
        Ok(Evento(pool.into()))
    }

    fn is_paused() -> String {
        format!("new.aggregator_id = '{PAUSED}'")
    }

    async fn append(&self, stream: &str, version: u64, cents: i64) -> Outcome<()> {
        evento::append(stream)
            .original_version(version as u16)
            .event(&Deposited { cents })
            .commit(&self.0)
            .await?;
        Ok(())
    }

    async fn follow(&self, delivered: Arc<AtomicU64>) -> Outcome<bool> {
        DELIVERED.store(0, Ordering::Relaxed);
        let subscription = SubscriptionBuilder::new("count")
            .handler(count())
            .start(&self.0)
            .await;
        let subscription = subscription.map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            let mut look = tokio::time::interval(std::time::Duration::from_millis(20));
            while !subscription.is_finished() {
                look.tick().await;
                delivered.store(DELIVERED.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        });
        Ok(true)
    }
}
