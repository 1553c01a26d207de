//! Annals and other event stores for Rust on PostgreSQL: the same appends side by side, and whether
//! a tail is given everything while one writer pauses in the middle of its transaction.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml`, with a server in
//! ANNALS_TEST_POSTGRES (`cargo xtask postgres up` starts one and prints its URL).

mod annals;
mod cqrs_es;
mod event_core;
mod evento_sql;
mod processes;
mod server;

use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use server::{Database, Disk, PAUSED};
use tokio::task::JoinSet;

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How many connections a peer may have.
const CLIENTS: u32 = 32;

const ROUNDS: usize = 3;

/// Events that each task appends before the clock starts, so that connections are open and names
/// are known.
const WARM: usize = 2;

/// A store that appends one event after a version of a stream, and may have a tail.
pub(crate) trait Peer: Send + Sync + Sized + 'static {
    const NAME: &'static str;
    /// Where its events are.
    const TABLE: &'static str;

    fn open(database: &Database, clients: u32) -> impl Future<Output = Outcome<Self>> + Send;

    /// The condition by which a row of the paused stream is known.
    fn is_paused() -> String;

    /// Appends an event to a stream that has had `version` events.
    fn append(
        &self,
        stream: &str,
        version: u64,
        cents: i64,
    ) -> impl Future<Output = Outcome<()>> + Send;

    /// Counts what its tail delivers, from the beginning on; false when it has none.
    fn follow(&self, delivered: Arc<AtomicU64>) -> impl Future<Output = Outcome<bool>> + Send;
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [argument, name, database, tasks, first, events] = &arguments[..]
        && argument == processes::ARGUMENT
    {
        let database = Database::named(database)?;
        let share = processes::Share {
            first: first.parse()?,
            tasks: tasks.parse()?,
            events: events.parse()?,
        };
        return match name.as_str() {
            annals::Annals::NAME => share.append::<annals::Annals>(&database).await,
            cqrs_es::CqrsEs::NAME => share.append::<cqrs_es::CqrsEs>(&database).await,
            evento_sql::Evento::NAME => share.append::<evento_sql::Evento>(&database).await,
            _ => share.append::<event_core::EventCore>(&database).await,
        };
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let (less, rounds) = if quick { (10, 1) } else { (1, ROUNDS) };
    let rounds = match arguments.iter().position(|argument| argument == "--rounds") {
        Some(at) => arguments
            .get(at + 1)
            .ok_or("`--rounds` needs a number")?
            .parse()?,
        None => rounds,
    };
    let head = "annals | cqrs-es | evento | eventcore | cqrs-es / annals | evento / annals | \
        eventcore / annals |";
    println!("| tasks | {head}\n|---|---:|---:|---:|---:|---:|---:|---:|");
    for (tasks, events) in [(1, 2_000), (8, 10_000), (32, 20_000), (256, 40_000)] {
        compare(&tasks.to_string(), rounds, async |of| match of {
            0 => rate::<annals::Annals>(tasks, events / less).await,
            1 => rate::<cqrs_es::CqrsEs>(tasks, events / less).await,
            2 => rate::<evento_sql::Evento>(tasks, events / less).await,
            _ => rate::<event_core::EventCore>(tasks, events / less).await,
        })
        .await?;
    }
    for (disk, shown) in [
        (Disk::AsIs, "the disk as it is"),
        (Disk::TwoMilliseconds, "each flush 2 ms long"),
    ] {
        println!(
            "\n{shown}\n\n| processes × tasks | {head}\n|---|---:|---:|---:|---:|---:|---:|---:|"
        );
        for (processes, tasks) in [(1, 64), (4, 64), (4, 4), (16, 16), (64, 64)] {
            let events = match disk {
                Disk::AsIs => 20_000,
                Disk::TwoMilliseconds => 400 * processes.clamp(4, 16) * (tasks / processes).min(8),
            } / less;
            let name = format!("{processes} × {}", tasks / processes);
            let run = (processes, tasks, events, disk);
            compare(&name, rounds, async |of| match of {
                0 => processes::rate::<annals::Annals>(run).await,
                1 => processes::rate::<cqrs_es::CqrsEs>(run).await,
                2 => processes::rate::<evento_sql::Evento>(run).await,
                _ => processes::rate::<event_core::EventCore>(run).await,
            })
            .await?;
        }
    }
    println!("\n| store | committed | delivered | lost |\n|---|---:|---:|---:|");
    loss::<annals::Annals>().await?;
    loss::<cqrs_es::CqrsEs>().await?;
    loss::<evento_sql::Evento>().await?;
    loss::<event_core::EventCore>().await?;
    Ok(())
}

/// Prints a line: the middle of the rounds of each store, and how many times as fast Annals is.
async fn compare(
    name: &str,
    rounds: usize,
    rate: impl AsyncFn(usize) -> Outcome<f64>,
) -> Outcome<()> {
    let mut rates = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        for (of, rates) in rates.iter_mut().enumerate() {
            rates.push(rate(of).await?);
        }
    }
    let [ours, others @ ..] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    let figures = others.map(|other| format!("{other:.0}")).join(" | ");
    let ratios = others
        .map(|other| format!("1 / {:.1}", ours / other))
        .join(" | ");
    println!("| {name} | {ours:.0} | {figures} | {ratios} |");
    Ok(())
}

/// Appends a second, of single events, from tasks with a stream each, one append after another.
async fn rate<P: Peer>(tasks: usize, events: usize) -> Outcome<f64> {
    let database = Database::make(P::NAME, Disk::AsIs).await?;
    let peer = Arc::new(P::open(&database, CLIENTS).await?);
    write_all(&peer, 0, tasks, 0..WARM).await?;
    let began = Instant::now();
    write_all(&peer, 0, tasks, WARM..WARM + events / tasks).await?;
    let rate = (events / tasks * tasks) as f64 / began.elapsed().as_secs_f64();
    drop(peer);
    database.drop().await?;
    Ok(rate)
}

/// Appends from tasks with a stream each, after these versions.
async fn write_all<P: Peer>(
    peer: &Arc<P>,
    first: usize,
    tasks: usize,
    versions: Range<usize>,
) -> Outcome<()> {
    let mut writers = JoinSet::new();
    for task in first..first + tasks {
        writers.spawn(write(
            Arc::clone(peer),
            format!("account-{task}"),
            versions.clone(),
        ));
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    Ok(())
}

async fn write<P: Peer>(peer: Arc<P>, stream: String, versions: Range<usize>) -> Outcome<()> {
    for version in versions {
        peer.append(&stream, version as u64, 1).await?;
    }
    Ok(())
}

/// Compares what was committed with what a tail was given, when one transaction was open for three
/// seconds while others committed.
async fn loss<P: Peer>() -> Outcome<()> {
    let database = Database::make(P::NAME, Disk::AsIs).await?;
    let peer = Arc::new(P::open(&database, CLIENTS).await?);
    database.pause(P::TABLE, &P::is_paused()).await?;
    let delivered = Arc::new(AtomicU64::new(0));
    if !peer.follow(Arc::clone(&delivered)).await? {
        println!("| {} | – | – | it has no tail |", P::NAME);
        return database.drop().await;
    }
    let mut writers = JoinSet::new();
    writers.spawn(write(Arc::clone(&peer), PAUSED.to_owned(), 0..1));
    for task in 0..8 {
        let peer = Arc::clone(&peer);
        writers.spawn(async move {
            // Going on for longer than the pause, and for longer than the margins that some readers
            // keep.
            let mut turn = tokio::time::interval(Duration::from_millis(20));
            for version in 0..300 {
                turn.tick().await;
                peer.append(&format!("account-{task}"), version, 1).await?;
            }
            Ok(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    let committed = database.count(P::TABLE).await?;
    // Enough for every reader to come to the end, if it ever does.
    let mut look = tokio::time::interval(Duration::from_millis(500));
    let mut quiet = 0;
    let mut before = 0;
    while quiet < 10 && delivered.load(Ordering::Relaxed) < committed {
        look.tick().await;
        let now = delivered.load(Ordering::Relaxed);
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
    let delivered = delivered.load(Ordering::Relaxed);
    println!(
        "| {} | {committed} | {delivered} | {} |",
        P::NAME,
        committed.saturating_sub(delivered)
    );
    drop(peer);
    database.drop().await
}
