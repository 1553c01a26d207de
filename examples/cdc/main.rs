//! A copy of somebody else's shop that is exact, follows within milliseconds, and remembers what
//! the shop forgets.
//!
//! `cargo xtask postgres up` starts a server and prints its URL; then
//!
//! ```text
//! cargo run --example cdc --features cdc -- postgres://…
//! ```
//!
//! makes a shop in a database of its own there, takes in its tables, and shows what is printed
//! below. The shop knows nothing of it: it has no trigger and no column for it. Only its outbox is
//! written for us, in the transactions of the shop, so that no order is ever stored without its
//! event, and no event sent without its order: the dual write that goes wrong in the end.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use annals::cdc::{
    Before, Change, Ingest, IngestState, Ingests as _, Label, Outbox, Postgres, TableHistory,
    TableRow,
};
use annals::prelude::*;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

/// A row of the shop's table, as far as it is of interest here.
#[derive(TableRow, Clone, Debug, PartialEq)]
#[table("public.orders")]
struct Order {
    #[key]
    id: i64,
    customer: String,
    status: OrderStatus,
    cents: i64,
}

#[derive(Label, Clone, Debug, PartialEq)]
enum OrderStatus {
    Pending,
    Shipped,
}

/// What a change of the table means to us.
#[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "shipment")]
enum Shipment {
    Sent { customer: String },
}

/// What is found by a customer's name: a read model over the changes of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "search", version = 1, events(Change<Order>), key = i64)]
struct Found {
    #[view(index)]
    customer: String,
    cents: i64,
}

impl Project<Change<Order>> for Found {
    fn on(found: &mut Row<'_, Self>, event: &Recorded<Change<Order>>) -> Result<(), Poison> {
        match &**event {
            Change::Read { after } | Change::Inserted { after } | Change::Updated { after, .. } => {
                found.customer.clone_from(&after.customer);
                found.cents = after.cents;
            }
            Change::Deleted { .. } | Change::Moved { .. } => found.remove(),
        }
        Ok(())
    }
}

const SHOP: &str = "
    create table orders (id bigint primary key, customer text not null,
                         status text not null, cents bigint not null);
    alter table orders replica identity full;
    create table outbox (id uuid primary key, aggregatetype text not null,
                         aggregateid text not null, type text not null, payload jsonb not null);
    insert into orders values (1, 'ada', 'pending', 4200), (2, 'bob', 'pending', 900);
";

/// How long a step may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A database of this run, removed at its end.
struct Shop {
    admin: PgConnection,
    name: String,
    url: String,
}

impl Shop {
    async fn open(server: &str) -> Result<Shop, Box<dyn Error>> {
        let name = format!("annals_shop_{}", std::process::id());
        let mut admin = PgConnection::connect(server).await?;
        let create = format!("create database {name}");
        admin.execute(AssertSqlSafe(create)).await?;
        let place = server.rsplit_once('/').map_or(server, |(place, _)| place);
        let url = format!("{place}/{name}");
        let shop = Shop { admin, name, url };
        shop.run(SHOP).await?;
        Ok(shop)
    }

    /// What an application does, in one transaction.
    async fn run(&self, sql: &str) -> Result<(), sqlx::Error> {
        let mut connection = PgConnection::connect(&self.url).await?;
        let transaction = format!("begin; {sql}; commit");
        connection
            .execute(sqlx::raw_sql(AssertSqlSafe(transaction)))
            .await?;
        connection.close().await
    }

    async fn close(mut self) -> Result<(), sqlx::Error> {
        let slot = format!(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots \
             where database = '{}'",
            self.name
        );
        self.admin.execute(AssertSqlSafe(slot)).await?;
        let drop = format!("drop database {} with (force)", self.name);
        self.admin.execute(AssertSqlSafe(drop)).await?;
        self.admin.close().await
    }
}

/// The story.
async fn story(server: &str, database: &str, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let shop = Shop::open(server).await?;
    let tables = Postgres::at(&shop.url)
        .tables(["orders", "outbox"])
        .slot(&shop.name);
    let shipped = |change: &Change<Order>| match change {
        Change::Updated {
            before: Before::Row(was),
            after,
        } if was.status == OrderStatus::Pending && after.status == OrderStatus::Shipped => {
            let customer = after.customer.clone();
            Some((
                format!("shipment-{}", after.id),
                Shipment::Sent { customer },
            ))
        }
        _ => None,
    };
    let ingest = Ingest::named("shop")
        .from(tables)
        .translate(shipped)
        .outbox(Outbox::table("outbox"));
    let db = Annals::open(database)
        .await?
        .with(ingest)
        .with(Found::projection())
        .with(TableHistory::<Order>::projection())
        .start()
        .await?;

    let search = db.view::<Found>();
    until(async || Ok(search.get(2).await?.is_some())).await?;
    writeln!(out, "the tables as they were are in, in one snapshot")?;

    shop.run(
        "update orders set status = 'shipped' where id = 1;
         insert into orders values (3, 'cleo', 'pending', 1500);
         insert into outbox values ('0190a8b0-5b8c-7cc4-9b3e-3f1d8a4b2c11', 'invoice', '3',
                                    'invoice.asked', '{\"cents\": 1500}');
         delete from outbox",
    )
    .await?;
    until(async || Ok(search.get(3).await?.is_some())).await?;
    for (what, stream) in [
        ("translated", "shipment-1"),
        ("from the outbox", "invoice-3"),
    ] {
        let read = annals::store::ReadStream::of(StreamId::new(stream)?);
        let page = db.store().read_stream(read).await?;
        let event = page
            .events
            .first()
            .ok_or("the event is in the same append")?;
        let payload = String::from_utf8_lossy(&event.payload);
        writeln!(out, "{what}: {} {payload}", event.event_type)?;
    }

    let before = db.store().head(annals::Partition(0)).await?.visible;
    shop.run("delete from orders where id = 2").await?;
    until(async || Ok(search.get(2).await?.is_none())).await?;
    let history = db.view::<TableHistory<Order>>();
    until(async || Ok(history.get(2).await?.is_none())).await?;
    let then = history
        .get(2)
        .as_of(before)
        .await?
        .ok_or("it was there")?
        .row()?;
    writeln!(
        out,
        "the shop forgot order 2; before, it was {}'s of {} cents",
        then.customer, then.cents
    )?;

    let handle = db.ingest("shop").ok_or("the program has it")?;
    let status = handle.status();
    let follows = status.state == IngestState::Following;
    writeln!(
        out,
        "ingest shop follows: {follows}, skipped: {}",
        status.skipped
    )?;
    db.stop().await;
    shop.close().await?;
    Ok(())
}

/// Looks again and again, until it is so.
async fn until(
    mut look: impl AsyncFnMut() -> Result<bool, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut again = tokio::time::interval(Duration::from_millis(5));
    let looking = async {
        while !look().await? {
            again.tick().await;
        }
        Ok(())
    };
    tokio::time::timeout(TIMEOUT, looking).await?
}

#[tokio::main]
async fn main() -> ExitCode {
    let named = std::env::args().nth(1);
    let server = named.or_else(|| std::env::var("ANNALS_TEST_POSTGRES").ok());
    let mut out = io::stdout().lock();
    let done = match server {
        Some(server) => story(&server, "sqlite:shop.db", &mut out).await,
        None => Err(
            "name a PostgreSQL server with `wal_level = logical`: `cargo xtask postgres \
                     up` starts one and prints its URL"
                .into(),
        ),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod on_postgres {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_story_is_printed_in_full() {
        let server = std::env::var("ANNALS_TEST_POSTGRES")
            .expect("`cargo xtask test` names a server in ANNALS_TEST_POSTGRES");
        let mut out = Vec::new();
        let folder = tempfile::tempdir().unwrap();
        let database = format!("sqlite:{}", folder.path().join("shop.db").display());
        story(&server, &database, &mut out).await.unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "the tables as they were are in, in one snapshot\n\
             translated: shipment.sent {\"customer\":\"ada\"}\n\
             from the outbox: invoice.asked {\"cents\": 1500}\n\
             the shop forgot order 2; before, it was bob's of 900 cents\n\
             ingest shop follows: true, skipped: 0\n"
        );
    }
}
