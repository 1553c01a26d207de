//! The rows: which workload, how much of it, on which store, beside what.

mod backend;
mod peaks;
mod postgres;
mod views;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use annals::store::{Append, Expected};
use annals::{Annals, MemoryStore, Position, Store, Version};
use annals_benches::append::{Batches, Singles};
use annals_benches::bare::Bare;
use annals_benches::command::Deposits;
use annals_benches::load::Loads;
use annals_benches::rate::{Rate, Watch};
use annals_benches::replay::{self, Fill};
use annals_benches::seed::Seed;
use annals_benches::{Outcome, account};
use annals_sqlite::{Options, SqliteStore};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::report::{Report, Row, Target};
pub(crate) use peaks::{REBUILD_PEAK, REPLAY_PEAK, rebuild_peak, replay_peak};
pub(crate) use postgres::{APPENDS, append_in_process};

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
    postgres::rows(report, quick)?;
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
                    .block_on(Bare::open(&file(directory)))?
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
                    .block_on(Bare::open(&file(directory)))?
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

fn commands(report: &mut Report, commands: usize) -> Outcome<()> {
    for tasks in [1, 64] {
        let work = Deposits {
            commands: commands / 10,
            aggregates: 1,
            tasks,
        };
        report.compare(
            row(
                &format!("command/hot/{tasks}/sqlite"),
                &format!("commands on one hot aggregate from {tasks} tasks, durable"),
                "commands/s",
                "rusqlite, state at hand, one commit each",
                None,
            ),
            |runtime, directory| {
                runtime.block_on(async {
                    work.run(&Annals::on(sqlite(&file(directory)).await?)).await
                })
            },
            |runtime, directory| {
                runtime
                    .block_on(Bare::open(&file(directory)))?
                    .deposits(&work, 1)
            },
        )?;
    }
    let work = Deposits {
        commands: commands / 2,
        aggregates: 1_000,
        tasks: 256,
    };
    report.compare(
        row(
            "command/warm/256/sqlite",
            "commands on 1,000 hot aggregates from 256 tasks, durable",
            "commands/s",
            "rusqlite, states at hand, one commit each",
            None,
        ),
        |runtime, directory| {
            runtime.block_on(async { work.run(&Annals::on(sqlite(&file(directory)).await?)).await })
        },
        |runtime, directory| {
            runtime
                .block_on(Bare::open(&file(directory)))?
                .deposits(&work, 1_000)
        },
    )?;
    for tasks in [1, 64] {
        let work = Deposits {
            commands: commands * 5,
            aggregates: 1,
            tasks,
        };
        report.compare(
            row(
                &format!("command/hot/{tasks}/memory"),
                &format!("commands on one hot aggregate from {tasks} tasks, memory"),
                "commands/s",
                "the append alone, expecting the version",
                None,
            ),
            |runtime, _| runtime.block_on(work.run(&Annals::on(memory()))),
            |runtime, _| runtime.block_on(appends_alone(work.commands)),
        )?;
    }
    Ok(())
}

async fn appends_alone(count: usize) -> Outcome<Rate> {
    let store = memory();
    let stream = account::stream(0)?;
    let events = account::events(&mut Seed::new(5), 0, count)?;
    let watch = Watch::start();
    for (version, event) in (0..).zip(events) {
        let expected = Expected::Version(Version::new(version));
        store
            .append(Append::new(stream.clone(), [event]).expecting(expected))
            .await?;
    }
    Ok(watch.stop(count))
}

fn cold_commands(report: &mut Report, commands: usize, aggregates: usize) -> Outcome<()> {
    if !report.wants("command/cold/256/sqlite") && !report.wants("command/cold/256/memory") {
        return Ok(());
    }
    let work = Deposits {
        commands,
        aggregates,
        tasks: 256,
    };
    let fill = Fill {
        events: aggregates * 10,
        batch_events: 10,
        streams: aggregates,
    };
    let what = format!("commands on {aggregates} cold aggregates of 10 events from 256 tasks");
    let kept = filled(report, fill)?;
    let copy = |directory: &Path| -> Outcome<PathBuf> {
        std::fs::copy(file(kept.path()), file(directory))?;
        Ok(file(directory))
    };
    report.compare(
        row(
            "command/cold/256/sqlite",
            &format!("{what}, durable"),
            "commands/s",
            "rusqlite, select and fold, one commit each",
            None,
        ),
        |runtime, directory| {
            let path = copy(directory)?;
            runtime.block_on(async { work.run(&Annals::on(sqlite(&path).await?)).await })
        },
        |runtime, directory| {
            runtime
                .block_on(Bare::open(&copy(directory)?))?
                .deposits(&work, Annals::CACHED_STATES)
        },
    )?;
    if !report.wants("command/cold/256/memory") {
        return Ok(());
    }
    let store = memory();
    report.runtime.block_on(fill.run(&store))?;
    report.compare(
        row(
            "command/cold/256/memory",
            &format!("{what}, memory"),
            "commands/s",
            "the same with all states at hand",
            None,
        ),
        |runtime, _| {
            runtime.block_on(work.run(&Annals::on(Arc::clone(&store)).with_cached_states(0)))
        },
        |runtime, _| {
            let db = Annals::on(Arc::clone(&store)).with_cached_states(aggregates);
            runtime.block_on(async {
                work.run(&db).await?;
                work.run(&db).await
            })
        },
    )
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
    // Nobody's data: it need not survive a power cut.
    let options = Options::file(path).relaxed_durability();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open_with(options).await?);
    fill.run(&store).await
}

fn replays(report: &mut Report, events: usize) -> Outcome<()> {
    let names = [
        "replay/typed/sqlite",
        "replay/pages/sqlite",
        "replay/typed/memory",
    ];
    if !names.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let fill = Fill {
        events,
        batch_events: 10,
        streams: events / 100,
    };
    let kept = filled(report, fill)?;
    let path = file(kept.path());
    let bare = |runtime: &Runtime| runtime.block_on(Bare::open(&path))?.replay();
    let wanted = bare(&report.runtime)?.cents;
    let same = |replayed: replay::Replayed| match replayed.cents == wanted
        && replayed.rate.count == events
    {
        true => Outcome::Ok(replayed.rate),
        false => Err("two replays of one log differ".into()),
    };
    let of_file = "rusqlite and serde_json, one cursor";
    let what = format!("replay of {events} events");
    report.compare(
        row(
            names[0],
            &format!("{what} to typed events"),
            "events/s",
            of_file,
            Some(0.8),
        ),
        |runtime, _| {
            same(runtime.block_on(async {
                replay::typed(&Annals::on(sqlite(&path).await?), Position::MAX).await
            })?)
        },
        |runtime, _| bare(runtime).map(|replayed| replayed.rate),
    )?;
    report.compare(
        row(
            names[1],
            &format!("{what} as pages, then `decode`"),
            "events/s",
            of_file,
            None,
        ),
        |runtime, _| {
            same(
                runtime
                    .block_on(async { replay::pages(&Annals::on(sqlite(&path).await?)).await })?,
            )
        },
        |runtime, _| bare(runtime).map(|replayed| replayed.rate),
    )?;
    if !report.wants(names[2]) {
        return Ok(());
    }
    let store = memory();
    report.runtime.block_on(fill.run(&store))?;
    report.compare(
        row(
            names[2],
            &format!("{what} to typed events, memory"),
            "events/s",
            of_file,
            None,
        ),
        |runtime, _| {
            let db = Annals::on(Arc::clone(&store));
            Ok(runtime.block_on(replay::typed(&db, Position::MAX))?.rate)
        },
        |runtime, _| bare(runtime).map(|replayed| replayed.rate),
    )
}

fn loads(report: &mut Report, quick: bool) -> Outcome<()> {
    for (events, loads) in [(10, 5_000), (1_000, 1_000), (100_000, 20)] {
        let loads = Loads {
            events,
            loads: if quick { loads / 10 } else { loads },
        };
        let names: Vec<_> = [
            "plain/sqlite",
            "snapshot/sqlite",
            "plain/memory",
            "snapshot/memory",
        ]
        .iter()
        .map(|name| format!("load/{events}/{name}"))
        .collect();
        if !names.iter().any(|name| report.wants(name)) {
            continue;
        }
        let kept = report.directory()?;
        let path = file(kept.path());
        let in_memory = memory();
        report.runtime.block_on(async {
            loads.prepare(&sqlite(&path).await?).await?;
            loads.prepare(&in_memory).await
        })?;
        for (name, snapshot) in names.iter().zip([false, true]) {
            let how = if snapshot {
                "from a snapshot and 5 events"
            } else {
                "without a snapshot"
            };
            report.compare(
                row(
                    name,
                    &format!("load a stream of {events} events {how}"),
                    "loads/s",
                    "rusqlite and serde_json, the same rows",
                    None,
                ),
                |runtime, _| {
                    runtime.block_on(async {
                        loads.run(&Annals::on(sqlite(&path).await?), snapshot).await
                    })
                },
                |runtime, _| runtime.block_on(Bare::open(&path))?.load(&loads, snapshot),
            )?;
        }
        for (name, snapshot) in names[2..].iter().zip([false, true]) {
            let how = if snapshot {
                "from a snapshot and 5 events"
            } else {
                "without a snapshot"
            };
            report.compare(
                row(
                    name,
                    &format!("load a stream of {events} events {how}, memory"),
                    "loads/s",
                    "rusqlite and serde_json, the same rows",
                    None,
                ),
                |runtime, _| {
                    runtime.block_on(loads.run(&Annals::on(Arc::clone(&in_memory)), snapshot))
                },
                |runtime, _| runtime.block_on(Bare::open(&path))?.load(&loads, snapshot),
            )?;
        }
    }
    Ok(())
}
