//! Windows of event time over a workload that was also given to two peers: what an event costs, and
//! whether the answers are the given ones.
//!
//! `cargo run --release -p annals-benches --bin windows -- --query tumble|hop|hopmax|session
//! --events N [--store URL]`: without a store JSON in memory through the stages, with one a
//! pipeline over its log, its rows and its state kept exactly once. Appending is not measured; the
//! rate is per second of CPU of the whole process. A clock event at the end closes the last
//! windows.

mod durable;
mod memory;
mod workload;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use workload::Answer;

/// Windows of event time: what an event costs, and whether the answers are right.
#[derive(Debug, Parser)]
struct Arguments {
    /// What is asked.
    #[arg(long, value_enum)]
    query: Query,
    /// How many events.
    #[arg(long, default_value_t = 500_000)]
    events: u64,
    /// An empty store: `memory:`, `sqlite:FILE` or `postgres://…`; none: no store at all.
    #[arg(long)]
    store: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Query {
    /// Bids of each auction in windows of ten seconds.
    Tumble,
    /// Bids of each auction in windows of ten seconds, one every two.
    Hop,
    /// Of those the largest number in each window.
    Hopmax,
    /// Bids of each bidder in sessions with a gap of ten seconds.
    Session,
}

impl Query {
    /// What comes out of the first 500,000 events.
    fn expected(self) -> Answer {
        let (rows, sum, squares) = match self {
            Query::Tumble => (199_797, 500_000, 13_326_958),
            Query::Hop => (998_729, 2_500_000, 66_597_458),
            Query::Hopmax => (2_506, 154_552, 9_588_058),
            Query::Session => (452_015, 500_000, 606_118),
        };
        Answer { rows, sum, squares }
    }
}

#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose answer is text"
)]
fn main() -> ExitCode {
    let Arguments {
        query,
        events,
        store,
    } = Arguments::parse();
    let measured = match &store {
        None => Ok(memory::run(query, events)),
        Some(url) => durable::run(query, events, url),
    };
    let (answer, cpu) = match measured {
        Ok(measured) => measured,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let place = store.as_deref().unwrap_or("no store");
    println!("{query:?} of {events} events, {place}: {answer}");
    let rate = events as f64 / cpu.max(0.01);
    println!("{rate:.0} events per CPU-second ({cpu:.2} s of the whole process, without appends)");
    if events == 500_000 && answer != query.expected() {
        eprintln!("wrong: it should be {}", query.expected());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
