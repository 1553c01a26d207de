//! Rows of commands: the whole loop from loading to appending.

use crate::report::Report;
use annals::store::{Append, Expected};
use annals::{Annals, Version};
use annals_benches::baseline_sqlite::Baseline;
use annals_benches::command::Deposits;
use annals_benches::rate::{Rate, Watch};
use annals_benches::replay::Fill;
use annals_benches::seed::Seed;
use annals_benches::{Outcome, account};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{file, filled, memory, row, sqlite};

pub(super) fn commands(report: &mut Report, commands: usize) -> Outcome<()> {
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
                    .block_on(Baseline::open(&file(directory)))?
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
                .block_on(Baseline::open(&file(directory)))?
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

pub(super) fn cold_commands(
    report: &mut Report,
    commands: usize,
    aggregates: usize,
) -> Outcome<()> {
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
                .block_on(Baseline::open(&copy(directory)?))?
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
