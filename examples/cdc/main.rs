//! A copy of another application's shop that is exact, follows within milliseconds, and keeps what
//! the shop deletes.
//!
//! ```text
//! cargo run --example cdc --features cdc [-- postgres://…]
//! ```
//!
//! makes a shop in a database of its own on that server, or on the private one of this clone
//! (`cargo xtask postgres up`), takes in its tables, and shows what is printed below. Whatever
//! changes there is changed by `psql`. The shop knows nothing of it: it has no trigger and no
//! column for it. Only its outbox is written for us, in the transactions of the shop, so that no
//! order is ever stored without its event, and no event sent without its order: the dual write that
//! goes wrong in the end.

#[path = "../ended/mod.rs"]
mod ended;
mod shop;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use annals::cdc::{
    Before, Change, Ingest, IngestState, Ingests as _, Label, Outbox, Postgres, TableHistory,
    TableRow,
};
use annals::prelude::*;
use annals::store::ReadStream;
use shop::Shop;

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

/// A product of the shop.
#[derive(TableRow, Clone, Debug, PartialEq)]
#[table("public.products")]
struct Product {
    #[key]
    id: i64,
    name: String,
    in_stock: i32,
}

/// What is in stock: a read model over the changes of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "stock", version = 1, events(Change<Product>), key = i64)]
struct Stock {
    name: String,
    in_stock: i32,
}

impl Project<Change<Product>> for Stock {
    fn on(stock: &mut Row<'_, Self>, event: &Recorded<Change<Product>>) -> Result<(), Poison> {
        match &**event {
            Change::Read { after } | Change::Inserted { after } | Change::Updated { after, .. } => {
                stock.name.clone_from(&after.name);
                stock.in_stock = after.in_stock;
            }
            Change::Deleted { .. } | Change::Moved { .. } => stock.remove(),
        }
        Ok(())
    }
}

/// How long a step may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The story.
async fn story(server: &str, database: &str, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let shop = Shop::open(server)?;
    let tables = Postgres::at(&shop.url)
        .tables(["products", "orders", "outbox"])
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
        .with(Stock::projection())
        .with(TableHistory::<Order>::projection())
        .start()
        .await?;
    let told = tell(&db, &shop, out).await;
    let status = db.ingest("shop").map(|ingest| ingest.status().to_string());
    let told = told.map_err(|error| match status {
        Some(status) => format!("{error} ({status})").into(),
        None => error,
    });
    db.stop().await;
    let closed = shop.close();
    told.and(closed)
}

/// What happens in the shop, and what comes of it.
async fn tell(db: &Program, shop: &Shop, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let stock = db.view::<Stock>();
    until(async || Ok(stock.get(2).await?.is_some())).await?;
    let follows = async || {
        let status = db.ingest("shop").ok_or("the program has it")?.status();
        Ok(status.state == IngestState::Following)
    };
    until(follows).await?;
    writeln!(out, "the tables as they were are in, in one snapshot")?;

    shop.does("update products set in_stock = in_stock - 1 where id = 1")?;
    let committed = Instant::now();
    until(async || Ok(stock.get(1).await?.is_some_and(|lamp| lamp.in_stock == 11))).await?;
    let millis = committed.elapsed().as_millis();
    writeln!(
        out,
        "a lamp was sold, and the stock list has 11 after {millis} ms"
    )?;

    shop.does("update orders set status = 'shipped' where id = 1")?;
    let event = first_event(db, "shipment-1").await?;
    writeln!(out, "translated: {event}")?;

    // The application stores the order, and ends before it sends the message.
    shop.does("insert into orders values (3, 'cleo', 'pending', 1500)")?;
    // With an outbox both are in one transaction, and the row need not stay.
    shop.does(
        "insert into orders values (4, 'dora', 'pending', 700);
         insert into outbox values ('0190a8b0-5b8c-7cc4-9b3e-3f1d8a4b2c11', 'invoice', '4',
                                    'invoice.asked', '{\"cents\": 700}');
         delete from outbox",
    )?;
    let event = first_event(db, "invoice-4").await?;
    writeln!(out, "from the outbox, with its order: {event}")?;
    let orders = db.view::<TableHistory<Order>>();
    until(async || Ok(orders.get(4).await?.is_some())).await?;
    let is_stored = orders.get(3).await?.is_some();
    let is_sent = !events_of(db, "invoice-3").await?.is_empty();
    writeln!(
        out,
        "by two writes: order 3 stored: {is_stored}, its invoice sent: {is_sent}"
    )?;

    let before = db.store().head(annals::Partition(0)).await?.visible;
    shop.does("delete from orders where id = 2")?;
    until(async || Ok(orders.get(2).await?.is_none())).await?;
    let then = orders.get(2).as_of(before).await?;
    let then = then.ok_or("it was there")?.row()?;
    writeln!(
        out,
        "the shop forgot order 2; before, it was {}'s of {} cents",
        then.customer, then.cents
    )?;

    let status = db.ingest("shop").ok_or("the program has it")?.status();
    let follows = status.state == IngestState::Following;
    writeln!(
        out,
        "ingest shop follows: {follows}, skipped: {}",
        status.skipped
    )?;
    Ok(())
}

async fn events_of(db: &Annals, stream: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let read = ReadStream::of(StreamId::new(stream)?);
    let events = db.store().read_stream(read).await?.events.into_iter();
    let shown = events.map(|event| {
        let payload = String::from_utf8_lossy(&event.payload);
        format!("{} {payload}", event.event_type)
    });
    Ok(shown.collect())
}

/// The first event of a stream, as soon as it is there.
async fn first_event(db: &Annals, stream: &str) -> Result<String, Box<dyn Error>> {
    until(async || Ok(!events_of(db, stream).await?.is_empty())).await?;
    let events = events_of(db, stream).await?;
    Ok(events.into_iter().next().unwrap_or_default())
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
    let looked = tokio::time::timeout(TIMEOUT, looking).await;
    looked.map_err(|_| format!("a step took longer than {TIMEOUT:?}"))?
}

#[tokio::main]
async fn main() -> ExitCode {
    let named = std::env::args().nth(1);
    let server = named.or_else(|| std::env::var("ANNALS_TEST_POSTGRES").ok());
    let mut out = io::stdout().lock();
    let done = match server.map_or_else(shop::private_server, Ok) {
        Ok(server) => with_own_log(&server, &mut out).await,
        Err(error) => Err(error),
    };
    ended::ended("cdc", done)
}

/// The shop is another one in each run, and so is the log of it.
async fn with_own_log(server: &str, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let database = format!("sqlite:{}", folder.path().join("shop.db").display());
    story(server, &database, out).await
}

#[cfg(test)]
mod on_postgres {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_story_is_printed_in_full() {
        let server = std::env::var("ANNALS_TEST_POSTGRES")
            .expect("`cargo xtask test` names a server in ANNALS_TEST_POSTGRES");
        let mut out = Vec::new();
        with_own_log(&server, &mut out).await.unwrap();
        let out = String::from_utf8(out).unwrap();
        let millis = out.split(" after ").nth(1).unwrap();
        let millis = millis.split(" ms").next().unwrap();
        assert_eq!(
            out.replacen(&format!("after {millis} ms"), "after N ms", 1),
            "the tables as they were are in, in one snapshot\n\
             a lamp was sold, and the stock list has 11 after N ms\n\
             translated: shipment.sent {\"customer\":\"ada\"}\n\
             from the outbox, with its order: invoice.asked {\"cents\": 700}\n\
             by two writes: order 3 stored: true, its invoice sent: false\n\
             the shop forgot order 2; before, it was bob's of 900 cents\n\
             ingest shop follows: true, skipped: 0\n"
        );
    }
}
