//! Rows of reading: replays of the log, and loads of aggregates.

use crate::report::Report;
use annals::{Annals, Position};
use annals_benches::Outcome;
use annals_benches::baseline_sqlite::Baseline;
use annals_benches::load::Loads;
use annals_benches::replay::{self, Fill};
use std::sync::Arc;
use tokio::runtime::Runtime;

use super::{file, filled, memory, row, sqlite};

pub(super) fn replays(report: &mut Report, events: usize) -> Outcome<()> {
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
    let baseline = |runtime: &Runtime| runtime.block_on(Baseline::open(&path))?.replay();
    let wanted = baseline(&report.runtime)?.cents;
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
        |runtime, _| baseline(runtime).map(|replayed| replayed.rate),
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
        |runtime, _| baseline(runtime).map(|replayed| replayed.rate),
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
        |runtime, _| baseline(runtime).map(|replayed| replayed.rate),
    )
}

pub(super) fn loads(report: &mut Report, quick: bool) -> Outcome<()> {
    for (events, loads) in [(10, 5_000), (1_000, 1_000), (100_000, 20)] {
        let loads = Loads {
            events,
            loads: if quick { loads / 10 } else { loads },
        };
        let names: Vec<_> = [
            "whole/sqlite",
            "snapshot/sqlite",
            "whole/memory",
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
                |runtime, _| {
                    runtime
                        .block_on(Baseline::open(&path))?
                        .load(&loads, snapshot)
                },
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
                |runtime, _| {
                    runtime
                        .block_on(Baseline::open(&path))?
                        .load(&loads, snapshot)
                },
            )?;
        }
    }
    Ok(())
}
