//! Annals and other event stores for Rust on PostgreSQL: the same appends side by side, and whether a tail is given everything while
//! one writer stands still in the middle of its transaction.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml`, with a server in ANNALS_TEST_POSTGRES
//! (`cargo xtask postgres up` starts one and prints its URL).

mod annals;
mod cqrs_es;
mod event_core;
mod evento_sql;
mod server;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use server::{Database, PAUSED};
use tokio::task::JoinSet;

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How many connections a peer may have.
const CLIENTS: u32 = 32;

const ROUNDS: usize = 3;

/// A store that appends one event behind a version of a stream, and may have a tail.
pub(crate) trait Peer: Send + Sync + Sized + 'static {
    const NAME: &'static str;
    /// Where its events are.
    const TABLE: &'static str;

    fn open(database: &Database, clients: u32) -> impl Future<Output = Outcome<Self>> + Send;

    /// The condition by which a row of the paused stream is known.
    fn is_paused() -> String;

    /// Appends an event to a stream that has had `version` events.
    fn append(&self, stream: &str, version: u64, cents: i64) -> impl Future<Output = Outcome<()>> + Send;

    /// Counts what its tail delivers, from the beginning on; false when it has none.
    fn follow(&self, delivered: Arc<AtomicU64>) -> impl Future<Output = Outcome<bool>> + Send;
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let events = if quick { 1_000 } else { 10_000 };
    println!(
        "| tasks | annals | cqrs-es | evento | eventcore | cqrs-es / annals | evento / annals | eventcore / annals |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for tasks in [1, 8, 32, 256] {
        let mut rates = [const { Vec::new() }; 4];
        let events = if tasks == 1 { events / 5 } else { events };
        for _ in 0..if quick { 1 } else { ROUNDS } {
            rates[0].push(rate::<annals::Annals>(tasks, events).await?);
            rates[1].push(rate::<cqrs_es::CqrsEs>(tasks, events).await?);
            rates[2].push(rate::<evento_sql::Evento>(tasks, events).await?);
            rates[3].push(rate::<event_core::EventCore>(tasks, events).await?);
        }
        let [ours, others @ ..] = rates.map(|mut rates| {
            rates.sort_by(f64::total_cmp);
            rates[rates.len() / 2]
        });
        let figures = others.map(|other| format!("{other:.0}")).join(" | ");
        let ratios = others.map(|other| format!("1 / {:.1}", ours / other)).join(" | ");
        println!("| {tasks} | {ours:.0} | {figures} | {ratios} |");
    }
    println!("\n| store | committed | delivered | lost |\n|---|---:|---:|---:|");
    loss::<annals::Annals>().await?;
    loss::<cqrs_es::CqrsEs>().await?;
    loss::<evento_sql::Evento>().await?;
    loss::<event_core::EventCore>().await?;
    Ok(())
}

/// Appends a second, of single events, from tasks with a stream each, one append after another.
async fn rate<P: Peer>(tasks: usize, events: usize) -> Outcome<f64> {
    let database = Database::make(P::NAME).await?;
    let peer = Arc::new(P::open(&database, CLIENTS).await?);
    let began = Instant::now();
    let mut writers = JoinSet::new();
    for task in 0..tasks {
        writers.spawn(write(Arc::clone(&peer), format!("account-{task}"), events / tasks));
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    let rate = (events / tasks * tasks) as f64 / began.elapsed().as_secs_f64();
    drop(peer);
    database.drop().await?;
    Ok(rate)
}

async fn write<P: Peer>(peer: Arc<P>, stream: String, events: usize) -> Outcome<()> {
    for version in 0..events as u64 {
        peer.append(&stream, version, 1).await?;
    }
    Ok(())
}

/// Compares what was committed with what a tail was given, when one transaction was open for three seconds while others committed.
async fn loss<P: Peer>() -> Outcome<()> {
    let database = Database::make(P::NAME).await?;
    let peer = Arc::new(P::open(&database, CLIENTS).await?);
    database.pause(P::TABLE, &P::is_paused()).await?;
    let delivered = Arc::new(AtomicU64::new(0));
    if !peer.follow(Arc::clone(&delivered)).await? {
        println!("| {} | – | – | it has no tail |", P::NAME);
        return database.drop().await;
    }
    let mut writers = JoinSet::new();
    writers.spawn(write(Arc::clone(&peer), PAUSED.to_owned(), 1));
    for task in 0..8 {
        let peer = Arc::clone(&peer);
        writers.spawn(async move {
            // Going on for longer than the pause, and for longer than the margins that some readers keep.
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
    let (mut look, mut quiet, mut before) = (tokio::time::interval(Duration::from_millis(500)), 0, 0);
    while quiet < 10 && delivered.load(Ordering::Relaxed) < committed {
        look.tick().await;
        let now = delivered.load(Ordering::Relaxed);
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
    let delivered = delivered.load(Ordering::Relaxed);
    println!("| {} | {committed} | {delivered} | {} |", P::NAME, committed.saturating_sub(delivered));
    drop(peer);
    database.drop().await
}
