//! cqrs-es with postgres-es: the repository below its framework, which is the fastest way in. It
//! has no tail.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::{PersistedEventRepository, SerializedEvent};
use cqrs_es::{Aggregate, DomainEvent};
use postgres_es::PostgresEventRepository;
use serde::{Deserialize, Serialize};
use sqlx_of_cqrs_es::postgres::PgPoolOptions;

use crate::server::{Database, PAUSED};
use crate::{Outcome, Peer};

#[derive(Default, Serialize, Deserialize)]
struct Account;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Deposited {
    cents: i64,
}

impl DomainEvent for Deposited {
    fn event_type(&self) -> String {
        "Deposited".to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = ();
    type Event = Deposited;
    type Error = std::fmt::Error;
    type Services = ();

    async fn handle(&mut self, (): (), (): &(), _: &EventSink<Self>) -> Result<(), Self::Error> {
        Ok(())
    }

    fn apply(&mut self, _: Deposited) {}
}

pub(crate) struct CqrsEs(PostgresEventRepository);

impl Peer for CqrsEs {
    const NAME: &'static str = "cqrs_es";
    const TABLE: &'static str = "events";

    async fn open(database: &Database, clients: u32) -> Outcome<CqrsEs> {
        let tables = "create table if not exists events (aggregate_type text not null, \
            aggregate_id text not null,
            sequence bigint check (sequence >= 0) not null,
            event_type text not null, event_version text not null,
            payload json not null, metadata json not null,
            primary key (aggregate_type, aggregate_id, sequence))";
        database.run(tables).await?;
        let pool = PgPoolOptions::new()
            .max_connections(clients)
            .connect(&database.url())
            .await?;
        Ok(CqrsEs(PostgresEventRepository::new(pool)))
    }

    fn is_paused() -> String {
        format!("new.aggregate_id = '{PAUSED}'")
    }

    async fn append(&self, stream: &str, version: u64, cents: i64) -> Outcome<()> {
        let event = SerializedEvent::new(
            stream.to_owned(),
            version as usize + 1,
            Account::TYPE.to_owned(),
            "Deposited".to_owned(),
            "1".to_owned(),
            serde_json::to_value(Deposited { cents })?,
            serde_json::json!({}),
        );
        self.0.persist::<Account>(&[event], None).await?;
        Ok(())
    }

    async fn follow(&self, _: Arc<AtomicU64>) -> Outcome<bool> {
        Ok(false)
    }
}
