//! The rows: which workload, how much of it, on which store, beside what.

mod alerts;
mod backend;
mod cdc;
mod checkouts;
mod commands;
mod peaks;
mod postgres;
mod processes;
mod reading;
mod views;

use crate::report::{Report, Row, Target};
use annals::{MemoryStore, Store};
use annals_benches::Outcome;
use annals_benches::append::{Batches, Singles};
use annals_benches::baseline_sqlite::Baseline;
use annals_benches::rate::Watch;
use annals_benches::replay::Fill;
use annals_sqlite::{Options, SqliteStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

use commands::{cold_commands, commands};
pub(crate) use peaks::{REBUILD_PEAK, REPLAY_PEAK, rebuild_peak, replay_peak};
pub(crate) use processes::{APPENDS, append_in_process};
use reading::{loads, replays};

/// All rows, as far as the filter wants them.
pub(crate) fn all(report: &mut Report, quick: bool) -> Outcome<()> {
    let scaled = |count: usize| if quick { count / 10 } else { count };
    batches(report, scaled(300_000))?;
    singles(report, scaled(20_000))?;
    commands(report, scaled(20_000))?;
    cold_commands(report, scaled(20_000), scaled(100_000))?;
    replays(report, scaled(1_000_000))?;
    views::rows::<backend::File>(report, scaled(1_000_000), quick)?;
    loads(report, quick)?;
    alerts::rows(report, quick)?;
    checkouts::rows::<backend::File>(report, quick)?;
    postgres::rows(report, quick)?;
    cdc::rows(report, quick)?;
    peaks::rows(report, scaled(5_000_000), scaled(50_000))
}

fn file(directory: &Path) -> PathBuf {
    directory.join("log.db")
}

async fn sqlite(path: &Path) -> Outcome<Arc<dyn Store>> {
    Ok(Arc::new(SqliteStore::open_with(Options::file(path)).await?))
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

fn row(
    name: &str,
    work: &str,
    unit: &'static str,
    beside: &'static str,
    target: Option<f64>,
) -> Row {
    Row {
        name: name.into(),
        work: work.into(),
        unit,
        beside: beside.into(),
        target: target.map(Target::Ratio),
    }
}

fn batches(report: &mut Report, events: usize) -> Outcome<()> {
    for (tasks, target) in [(1, Some(0.8)), (4, None)] {
        let work = Batches {
            events,
            batch_events: 1_000,
            streams: 100,
            tasks,
        };
        let what = format!("append, durable, batches of 1,000, {tasks} at a time");
        report.compare(
            row(
                &format!("append/batches/{tasks}/sqlite"),
                &what,
                "events/s",
                "rusqlite, a transaction for each 1,000 inserts",
                target,
            ),
            |runtime, directory| {
                runtime.block_on(async {
                    work.run(&sqlite(&file(directory)).await?, work.make()?)
                        .await
                })
            },
            |runtime, directory| {
                runtime
                    .block_on(Baseline::open(&file(directory)))?
                    .append(work.make()?)
            },
        )?;
    }
    let work = Batches {
        events,
        batch_events: 1_000,
        streams: 100,
        tasks: 1,
    };
    report.compare(
        row(
            "append/batches/1/memory",
            "append, memory, batches of 1,000",
            "events/s",
            "keeping them in a `Vec`, with their digests",
            None,
        ),
        |runtime, _| runtime.block_on(async { work.run(&memory(), work.make()?).await }),
        |_, _| {
            let made = work.make()?;
            let watch = Watch::start();
            let kept: Vec<_> = made
                .iter()
                .flat_map(|(_, events)| events)
                .map(|e| (e.digest(), e.clone()))
                .collect();
            Ok(watch.stop(std::hint::black_box(kept).len()))
        },
    )
}

fn singles(report: &mut Report, events: usize) -> Outcome<()> {
    // One after another, so that each waits for its flush.
    let alone = Singles {
        events: events / 10,
        tasks: 1,
    };
    for tasks in [1, 8, 64, 256] {
        let work = Singles {
            events: if tasks == 1 {
                alone.events
            } else {
                events * tasks.min(64) / 8
            },
            tasks,
        };
        let target = (tasks == 256).then_some(10.0);
        report.compare(
            row(
                &format!("append/singles/{tasks}/sqlite"),
                &format!("append, durable, single events from {tasks} tasks"),
                "events/s",
                "rusqlite, one commit for each event, one connection",
                target,
            ),
            |runtime, directory| {
                runtime.block_on(async {
                    work.run(&sqlite(&file(directory)).await?, work.make()?)
                        .await
                })
            },
            |runtime, directory| {
                let one_by_one = alone.make()?.into_iter().flat_map(|(stream, events)| {
                    events
                        .into_iter()
                        .map(move |event| (stream.clone(), vec![event]))
                });
                runtime
                    .block_on(Baseline::open(&file(directory)))?
                    .append(one_by_one.collect())
            },
        )?;
    }
    for tasks in [1, 64] {
        let work = Singles {
            events: events * 10,
            tasks,
        };
        report.compare(
            row(
                &format!("append/singles/{tasks}/memory"),
                &format!("append, memory, single events from {tasks} tasks"),
                "events/s",
                "the same in one batch",
                None,
            ),
            |runtime, _| runtime.block_on(async { work.run(&memory(), work.make()?).await }),
            |runtime, _| {
                let batches = Batches {
                    events: work.events,
                    batch_events: 10_000,
                    streams: 1,
                    tasks: 1,
                };
                runtime.block_on(async { batches.run(&memory(), batches.make()?).await })
            },
        )?;
    }
    Ok(())
}

/// A file with a log in it, in a directory of its own.
fn filled(report: &Report, fill: Fill) -> Outcome<TempDir> {
    let directory = report.directory()?;
    report
        .runtime
        .block_on(self::fill(&file(directory.path()), fill))?;
    Ok(directory)
}

async fn fill(path: &Path, fill: Fill) -> Outcome<()> {
    // Test data: it need not survive a power cut.
    let options = Options::file(path).relaxed_durability();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open_with(options).await?);
    fill.run(&store).await
}
