//! A consumer that is ten times slower than its producer: what the program holds in memory
//! meanwhile, and whether anything is lost.
//!
//! `cargo run --release -p annals-benches --bin slow -- [--events N] [--per-second N]`

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what it is for"
)]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use annals::pipeline::Pipeline;
use annals::projections::{Options, Program};
use annals::status::SlotState;
use annals::store::{Append, Outgoing, Outlet, OutletError, OutletMark};
use annals::{Annals, Partition, Store, StoreError, prelude::*};
use annals_benches::Outcome;
use annals_benches::account::{self, AccountEvent};
use annals_benches::machine;
use annals_benches::seed::Seed;
use clap::Parser;

/// Events of one append.
const APPEND: u64 = 1_000;
/// How many times faster events are produced than consumed.
const FASTER: u64 = 10;
const WAIT: Duration = Duration::from_secs(3_600);

/// A consumer that is ten times slower than its producer.
#[derive(Debug, Parser)]
#[command(name = "slow", bin_name = "slow")]
struct Arguments {
    /// Events in all.
    #[arg(long, default_value_t = 400_000)]
    events: u64,
    /// How many a second are consumed.
    #[arg(long, default_value_t = 4_000)]
    per_second: u64,
}

/// Takes so many records a second.
#[derive(Clone, Debug)]
struct Slow {
    per_second: u64,
    taken: Arc<AtomicU64>,
    /// Records that were not the next one.
    wrong: Arc<AtomicU64>,
}

#[async_trait::async_trait]
impl Outlet for Slow {
    async fn open(&mut self) -> Result<Vec<OutletMark>, OutletError> {
        Ok(Vec::new())
    }

    async fn take(&mut self, batch: Vec<Outgoing>, _: OutletMark) -> Result<(), OutletError> {
        let takes = Duration::from_secs_f64(batch.len() as f64 / self.per_second as f64);
        tokio::time::sleep(takes).await;
        for record in batch {
            let next = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
            if record.payload.as_deref() != Some(next.to_string().as_bytes()) {
                self.wrong.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

fn pipeline(outlet: &Slow) -> Pipeline {
    let outlet = outlet.clone();
    let pipeline = Pipeline::new("slow", 1, move |log| {
        let moved = log.events::<AccountEvent>();
        let moved = moved.map(|event| event.record.position.get());
        let open = move || -> Result<Box<dyn Outlet>, StoreError> { Ok(Box::new(outlet.clone())) };
        moved
            .key_by(|_| 0_u64)
            .publish_to(open, |_, position| Outgoing {
                to: "moved".into(),
                key: "moved".into(),
                payload: Some(position.to_string().into()),
                headers: Vec::new(),
                occurred_at: Default::default(),
            });
    });
    pipeline.options(Options::default().batch_events_max(1_000))
}

/// Appends ten times as fast as is consumed.
async fn produce(store: Arc<dyn Store>, arguments: (u64, u64)) -> Outcome<()> {
    let (events, per_second) = arguments;
    let mut seed = Seed::new(7);
    let start = Instant::now();
    for first in (0..events).step_by(APPEND as usize) {
        let due = Duration::from_secs_f64(first as f64 / (FASTER * per_second) as f64);
        tokio::time::sleep_until((start + due).into()).await;
        let count = APPEND.min(events - first);
        let new = account::events(&mut seed, first as usize, count as usize)?;
        let stream = account::stream((first / APPEND) as usize)?;
        store.append(Append::new(stream, new)).await?;
    }
    Ok(())
}

/// Who waits for whom.
fn waits(db: &Program) -> String {
    let status = db.status();
    let slots = status.iter().flat_map(|of| &of.slots);
    let waits = slots.filter_map(|slot| match &slot.state {
        SlotState::Waiting { reason } => Some(reason.as_str()),
        _ => None,
    });
    waits.collect::<Vec<_>>().join("; ")
}

async fn run(Arguments { events, per_second }: Arguments) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("slow.db");
    let db = Annals::open(&format!("sqlite:{}", file.display())).await?;
    let slow = Slow {
        per_second,
        taken: Arc::default(),
        wrong: Arc::default(),
    };
    let db = db.with(pipeline(&slow)).start().await?;
    println!(
        "{events} events, {} a second in, {per_second} out",
        FASTER * per_second
    );
    println!("seconds\tin the log\tconsumed\tMiB\twho waits");
    let start = Instant::now();
    let producer = tokio::spawn(produce(Arc::clone(db.store()), (events, per_second)));
    let all = Duration::from_secs_f64(events as f64 / per_second as f64);
    for tenth in 1..=20 {
        tokio::time::sleep_until((start + all * tenth / 20).into()).await;
        let head = db.store().head(Partition(0)).await?.visible;
        let taken = slow.taken.load(Ordering::Relaxed);
        let seconds = start.elapsed().as_secs_f64();
        let mib = machine::memory_bytes().unwrap_or_default() as f64 / f64::from(1 << 20);
        println!("{seconds:.1}\t{head}\t{taken}\t{mib:.1}\t{}", waits(&db));
    }
    producer.await??;
    let head = db.store().head(Partition(0)).await?.visible;
    let token = Token::new(db.store().id()).with(Partition(0), head);
    let pipeline = db.pipeline("slow").ok_or("there is no pipeline `slow`")?;
    pipeline.wait_until_sent(token, WAIT).await?;
    let taken = slow.taken.load(Ordering::Relaxed);
    let wrong = slow.wrong.load(Ordering::Relaxed);
    println!("{taken} consumed of {head}, {wrong} out of their turn");
    db.stop().await;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
