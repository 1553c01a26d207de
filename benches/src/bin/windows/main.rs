//! Windows of event time over a workload that was also given to two peers: what an event costs, and
//! whether the answers are the given ones.
//!
//! `cargo run --release -p annals-benches --bin windows -- --query tumble|hop|hopmax|session|join
//! --events N [--store URL [--slots N]]`: without a store JSON in memory through the stages, with
//! one a pipeline over its log, its rows and its state kept exactly once. Appending is not
//! measured; the rate is per second of CPU of the whole process. A clock event at the end closes
//! the last windows.
//!
//! `--latency N --store URL` instead says how long after an append a row is seen by those who watch
//! it: of the window that it closes, and of the window that it updates.

mod durable;
mod latency;
mod memory;
mod workload;

use std::error::Error;
use std::process::ExitCode;

use annals::projections::Options;
use clap::{Parser, ValueEnum};

use latency::Latency;
use workload::{Answer, peak_mib};

/// Windows of event time: what an event costs, and whether the answers are right.
#[derive(Debug, Parser)]
struct Arguments {
    /// What is asked.
    #[arg(long, value_enum, required_unless_present = "latency")]
    query: Option<Query>,
    /// How many events.
    #[arg(long, default_value_t = 500_000)]
    events: u64,
    /// An empty store: `memory:`, `sqlite:FILE` or `postgres://…`; none: no store at all.
    #[arg(long)]
    store: Option<String>,
    /// Over how many slots the keys are divided.
    #[arg(long, default_value_t = 1, requires = "store")]
    slots: u16,
    /// Keys that are run again before the rows serve; that reads the whole log a second time, so it
    /// is off by default.
    #[arg(long, default_value_t = 0, requires = "store")]
    verified_keys: usize,
    /// Measure how soon rows are seen, with so many appends.
    #[arg(long, requires = "store")]
    latency: Option<u64>,
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
    /// Pairs of a bid and one of the other half, of one bidder in windows of ten seconds.
    Join,
}

impl Query {
    /// What comes out of the first 500,000 events.
    fn expected(self) -> Answer {
        let (rows, sum, squares) = match self {
            Query::Tumble => (199_797, 500_000, 13_326_958),
            Query::Hop => (998_729, 2_500_000, 66_597_458),
            Query::Hopmax => (2_506, 154_552, 9_588_058),
            Query::Session => (452_015, 500_000, 606_118),
            Query::Join => (12_544, 12_544, 12_544),
        };
        Answer { rows, sum, squares }
    }
}

#[allow(clippy::print_stderr, reason = "a program whose answer is text")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match (&arguments.latency, &arguments.store) {
        (Some(appends), Some(url)) => seen_after(*appends, url),
        _ => answer(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "a program whose answer is text")]
fn answer(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let query = arguments.query.ok_or("name a query")?;
    let events = arguments.events;
    let slots = arguments.slots;
    let (answer, cpu, wall) = match &arguments.store {
        None => memory::run(query, events),
        Some(url) => durable::run(query, events, options(arguments), url)?,
    };
    let place = arguments.store.as_deref().unwrap_or("no store");
    println!("{query:?} of {events} events, {place}, slots: {slots}: {answer}");
    let rate = events as f64 / cpu.max(0.01);
    println!("{rate:.0} events per CPU-second ({cpu:.2} s of the whole process, without appends)");
    let rate = events as f64 / wall.max(0.001);
    let peak = peak_mib();
    println!("{rate:.0} events per second ({wall:.2} s); at most {peak} MiB, with the appends");
    if events == 500_000 && answer != query.expected() {
        return Err(format!("wrong: it should be {}", query.expected()).into());
    }
    Ok(())
}

fn options(arguments: &Arguments) -> Options {
    let options = Options::default().slots(arguments.slots);
    options.verified_keys(arguments.verified_keys)
}

#[allow(clippy::print_stdout, reason = "a program whose answer is text")]
fn seen_after(appends: u64, url: &str) -> Result<(), Box<dyn Error>> {
    for on_update in [false, true] {
        let Latency { median, p99 } = latency::run(on_update, appends, url)?;
        let row = if on_update { "update" } else { "closed window" };
        println!("append to {row} seen, {appends} appends: median {median:.1?}, p99 {p99:.1?}");
    }
    Ok(())
}
