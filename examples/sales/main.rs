//! Counts and revenue per product, and per product and minute, kept exactly from a topic of plain
//! JSON that another program writes, or from a log in SQLite.
//!
//! `cargo xtask kafka up` starts a broker and prints its URL; then
//!
//! ```text
//! cargo run --example sales --features kafka -- kafka://127.0.0.1:PORT
//! ```
//!
//! sends some orders, follows the topic into `sales.db`, and prints the table. Kill it at any
//! moment and run it again: nothing is counted twice, and nothing is missing. The last lines show
//! the checkpoints of the view, which decide, beside the offsets of the consumer group, which are
//! for other people's tools.
//!
//! ```text
//! cargo run --example sales --features kafka -- sqlite:orders.db
//! ```
//!
//! is the same view and the same pipeline over orders that are events of a file.

#[path = "../ended/mod.rs"]
mod ended;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use annals::kafka::{Kafka, NewRecord, Topic, TopicLog, TopicSpec};
use annals::pipeline::{Fold as FoldWindow, Pipeline, Window};
use annals::prelude::*;
use annals::read_model::ViewStore;
use annals::sqlite::SqliteStore;
use annals::store::{Append, Log, NewEvent};
use annals::{EventId, Failure, Partition, Store};

const TOPIC: &str = "orders";
const GROUP: &str = "sales";
const DATABASE: &str = "sqlite:sales.db";

/// Where a broker is expected when the command line and `ANNALS_KAFKA` name none.
const URL: &str = "kafka://127.0.0.1:9092";

/// Orders that a run adds.
const ORDERS: usize = 30_000;

/// How long the view may take to catch up.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What a record of the topic says: the value is the event's content as it is.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "orders")]
enum OrderEvent {
    Placed {
        product: String,
        pieces: u32,
        cents: i64,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "sales", version = 1, events(OrderEvent))]
struct Sales {
    orders: u64,
    pieces: u64,
    cents: i64,
}

impl Project<OrderEvent> for Sales {
    fn keys(event: &Recorded<OrderEvent>) -> Result<Vec<String>, Poison> {
        let OrderEvent::Placed { product, .. } = &**event;
        Ok(vec![product.clone()])
    }

    fn on(sales: &mut Row<'_, Self>, event: &Recorded<OrderEvent>) -> Result<(), Poison> {
        let OrderEvent::Placed { pieces, cents, .. } = &**event;
        sales.orders += 1;
        sales.pieces += u64::from(*pieces);
        sales.cents += cents;
        Ok(())
    }
}

/// What was sold of a product in a minute, by when the orders were written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "sales-per-minute", key = (Window, String))]
struct MinuteSales {
    orders: u64,
    cents: i64,
}

impl FoldWindow<i64> for MinuteSales {
    fn add(&mut self, cents: &i64) {
        self.orders += 1;
        self.cents += cents;
    }

    fn merge(&mut self, other: MinuteSales) {
        self.orders += other.orders;
        self.cents += other.cents;
    }
}

/// Each minute as it grows: partitions of a topic are not in one order, so orders may come a few
/// seconds after later ones.
fn per_minute() -> Pipeline {
    Pipeline::new("minutes", 1, |log| {
        log.events::<OrderEvent>()
            .out_of_order_by(Duration::from_secs(10))
            .map(|event| {
                let OrderEvent::Placed { product, cents, .. } = &**event;
                (product.clone(), *cents)
            })
            .key_by(|(product, _)| product.clone())
            .map(|_, (_, cents)| *cents)
            .tumbling(Duration::from_mins(1))
            .folded::<MinuteSales>()
            .on_update()
            .into_view();
    })
}

/// An order as anybody's program makes it.
fn order(number: usize) -> OrderEvent {
    let pieces = number % 5 + 1;
    OrderEvent::Placed {
        product: ["tea", "coffee", "cocoa"][number % 3].to_owned(),
        pieces: pieces as u32,
        cents: pieces as i64 * 250,
    }
}

/// Appends orders to a log of our own.
async fn append_orders(store: &dyn Store, orders: usize) -> Result<(), Box<dyn Error>> {
    let mut number = 0;
    while number < orders {
        let stream = StreamId::of("orders", EventId::random().to_string())?;
        let upto = orders.min(number + 500);
        let events = (number..upto).map(|number| NewEvent::of(&order(number)));
        let events = events.collect::<Result<Vec<_>, _>>()?;
        store.append(Append::new(stream, events)).await?;
        number = upto;
    }
    Ok(())
}

/// Sends orders as another team's program would: JSON without anything of Annals in it.
async fn place_orders(kafka: &Kafka, orders: usize) -> Result<(), Box<dyn Error>> {
    let spec = TopicSpec::named(TOPIC).partitions(3);
    kafka.ensure([spec]).await?;
    let publisher = kafka.publisher()?;
    for number in 0..orders {
        let OrderEvent::Placed {
            product,
            pieces,
            cents,
        } = order(number);
        let order = format!(r#"{{"product":"{product}","pieces":{pieces},"cents":{cents}}}"#);
        let record = NewRecord::to(TOPIC).key(format!("order-{number}"));
        publisher.queue(&record.value(order)).await?;
    }
    publisher.flush().await?;
    Ok(())
}

/// Where the log ends now.
async fn now(log: &TopicLog) -> Result<Token, Box<dyn Error>> {
    let mut token = Token::new(log.id());
    for partition in (0..log.partitions()).map(Partition) {
        token = token.with(partition, log.head(partition).await?.visible);
    }
    Ok(token)
}

async fn follow(kafka: &Kafka, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let orders = Topic::named(TOPIC)
        .every_record_is("orders.placed")
        .group(GROUP);
    let log = kafka.log(orders).await?;
    let views = Arc::new(SqliteStore::open(DATABASE).await?);
    let db = Annals::following(Arc::new(log.clone()))
        .with(Sales::projection())
        .with(per_minute())
        .views_in(Arc::<SqliteStore>::clone(&views))
        .start()
        .await?;
    let token = now(&log).await?;
    show(&db, &token, out).await?;
    show_offsets(&log, &*views, &token, out).await?;
    db.stop().await;
    Ok(())
}

/// The same from a log of our own.
async fn follow_store(
    url: &str,
    orders: usize,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let db = Annals::open(url)
        .await?
        .with(Sales::projection())
        .with(per_minute())
        .start()
        .await?;
    append_orders(&**db.store(), orders).await?;
    let head = db.store().head(Partition(0)).await?.visible;
    let token = Token::new(db.store().id()).with(Partition(0), head);
    show(&db, &token, out).await?;
    db.stop().await;
    Ok(())
}

/// What was sold of each product, and in the last minutes.
async fn show(db: &Program, token: &Token, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let rows = db
        .view::<Sales>()
        .rows()
        .at_least(token.clone())
        .within(TIMEOUT);
    writeln!(
        out,
        "{:<10}{:>10}{:>10}{:>14}",
        "product", "orders", "pieces", "cents"
    )?;
    for row in rows.await?.rows {
        let sales = row.value;
        let (orders, pieces, cents) = (sales.orders, sales.pieces, sales.cents);
        writeln!(out, "{:<10}{orders:>10}{pieces:>10}{cents:>14}", row.key)?;
    }
    let minutes = db.view::<MinuteSales>().rows().backward().limit(3);
    let minutes = minutes.at_least(token.clone()).within(TIMEOUT);
    for row in minutes.await?.rows {
        let (window, product) = row.key;
        let MinuteSales { orders, cents } = row.value;
        let minute = window.start.micros() / 60_000_000 % 1_440;
        let (hour, minute) = (minute / 60, minute % 60);
        writeln!(
            out,
            "{hour:02}:{minute:02} {product:<10}{orders:>10}{cents:>14}"
        )?;
    }
    Ok(())
}

/// Tells the group how far the view has come, and shows both.
async fn show_offsets(
    log: &TopicLog,
    views: &dyn ViewStore,
    reached: &Token,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let Some(group) = log.group() else {
        return Ok(());
    };
    let all = log.partitions() as usize;
    let mut assigned = group.assignment();
    let joined = assigned.wait_for(|assignment| assignment.partitions.len() == all);
    if tokio::time::timeout(TIMEOUT, joined).await.is_err() {
        writeln!(
            out,
            "another program of the group `{GROUP}` has the partitions"
        )?;
        return Ok(());
    }
    let partitions = (0..log.partitions()).map(Partition);
    let positions = partitions.map(|partition| (partition, reached.position(partition)));
    group.commit(positions).await?;
    let committed = group.committed(log.partitions()).await?;
    let generations = views.generations("sales").await?;
    for generation in generations {
        for checkpoint in views.checkpoints(generation.id).await? {
            let partition = checkpoint.partition;
            let of_group = committed.iter().find(|of| of.partition == partition);
            let of_group = of_group.and_then(|of| of.position).unwrap_or_default();
            let head = reached.position(partition);
            let position = checkpoint.position;
            writeln!(
                out,
                "partition {partition}: checkpoint {position}, offset of group `{GROUP}` \
                 {of_group}, end {head}"
            )?;
        }
    }
    Ok(())
}

/// How long leaving the group may take. Who does not leave keeps its partitions for 45 s.
const LEAVE: Duration = Duration::from_secs(5);

async fn run_and_leave(url: &str) -> Result<(), Box<dyn Error>> {
    let done = run(url).await;
    annals::kafka::left_groups(LEAVE).await;
    done
}

async fn run(url: &str) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    if url.starts_with("sqlite:") {
        return follow_store(url, ORDERS, &mut out).await;
    }
    let kafka = match Kafka::connect(url).await {
        Err(error) if error.failure() == Failure::Unavailable => {
            writeln!(
                out,
                "{error}; `cargo xtask kafka up` starts one, and prints its URL, which is given as \
                 an argument"
            )?;
            return Ok(());
        }
        connected => connected?,
    };
    place_orders(&kafka, ORDERS).await?;
    follow(&kafka, &mut out).await
}

fn main() -> ExitCode {
    let url = std::env::args()
        .nth(1)
        .or_else(|| std::env::var("ANNALS_KAFKA").ok())
        .unwrap_or_else(|| URL.to_owned());
    let runtime = tokio::runtime::Runtime::new();
    let done = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run_and_leave(&url)));
    ended::ended("sales", done)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn orders_of_a_file_are_sold_by_the_minute() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("orders.db").display());
        let mut out = Vec::new();
        follow_store(&url, 3_000, &mut out).await.unwrap();
        // Started again, it goes on where it was.
        follow_store(&url, 3_000, &mut out).await.unwrap();
        let said = String::from_utf8(out).unwrap();
        let teas: Vec<_> = said
            .lines()
            .filter(|line| line.starts_with("tea"))
            .collect();
        let tea = |orders: i64| {
            format!(
                "{:<10}{orders:>10}{:>10}{:>14}",
                "tea",
                orders * 3,
                orders * 750
            )
        };
        assert_eq!(teas, [tea(1_000), tea(2_000)]);
        let db = Annals::open(&*url).await.unwrap().with(per_minute());
        let db = db.start().await.unwrap();
        let minutes = db.view::<MinuteSales>().rows().await.unwrap().rows;
        let sold = minutes
            .iter()
            .map(|row| (row.value.orders, row.value.cents));
        let sum = sold.fold((0, 0), |(orders, cents), of| (orders + of.0, cents + of.1));
        assert_eq!(sum, (6_000, 6_000 * 750));
        db.stop().await;
    }
}
