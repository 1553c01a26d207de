//! The rows of read models: building them, following the log, asking them about the past.

use std::path::Path;

use annals::Annals;
use annals::prelude::View;
use annals_benches::Outcome;
use annals_benches::live::Live;
use annals_benches::past::{self, Answers, Questions};
use annals_benches::rate::Rate;
use annals_benches::replay::Fill;
use annals_benches::view::{Balance, BalanceThen, rebuild};
use tokio::runtime::Runtime;

use super::backend::{Backend, measured};
use crate::report::{Report, Row, Target};

/// The rows of one kind of database.
pub(super) fn rows<B: Backend>(report: &mut Report, events: usize, quick: bool) -> Outcome<()> {
    live::<B>(report, if quick { 10 } else { 1 })?;
    rebuilds::<B>(report, events)?;
    // Of each account an event now and then, and of few accounts very many, so that most moments
    // lie inside an interval.
    as_of::<B>(
        report,
        "spread",
        Questions {
            count: 5_000,
            accounts: events / 10,
            events,
        },
    )?;
    as_of::<B>(
        report,
        "dense",
        Questions {
            count: 5_000,
            accounts: 100,
            events,
        },
    )
}

fn row(
    name: impl Into<String>,
    work: impl Into<String>,
    unit: &'static str,
    beside: impl Into<String>,
    target: Option<Target>,
) -> Row {
    Row {
        name: name.into(),
        work: work.into(),
        unit,
        beside: beside.into(),
        target,
    }
}

/// From an append to the row that shows it.
fn live<B: Backend>(report: &mut Report, less: usize) -> Outcome<()> {
    let works = [
        (
            "200",
            Live {
                appends: 600 / less,
                tasks: 1,
                per_second: Some(200),
            },
        ),
        (
            "2000",
            Live {
                appends: 6_000 / less,
                tasks: 20,
                per_second: Some(2_000),
            },
        ),
        (
            "full",
            Live {
                appends: 12_800 / less,
                tasks: 64,
                per_second: None,
            },
        ),
    ];
    for (name, work) in works {
        let how = match work.per_second {
            Some(per_second) => format!("{per_second} a second from {} tasks", work.tasks),
            None => format!(
                "from {} tasks, each as soon as it has seen its last",
                work.tasks
            ),
        };
        report.compare_latencies(
            row(
                format!("view/live/{name}/{}", B::NAME),
                format!("a durable append until it is seen in a view, single events, {how}"),
                "ms",
                format!(
                    "{}, insert and upsert in one commit, then a select",
                    B::DRIVER
                ),
                work.per_second.map(|_| Target::Within(B::SEEN_WITHIN)),
            ),
            |runtime, directory| {
                measured(runtime, directory, async |it: &B| {
                    work.run(&it.store().await?).await
                })
            },
            |runtime, directory| {
                measured(runtime, directory, async |it: &B| {
                    it.live_by_hand(&work).await
                })
            },
        )?;
    }
    Ok(())
}

fn rebuilds<B: Backend>(report: &mut Report, events: usize) -> Outcome<()> {
    let names = [
        "rebuild",
        "rebuild-history",
        "rebuild/slots-2",
        "rebuild/slots-4",
    ];
    let names = names.map(|name| format!("view/{name}/{}", B::NAME));
    if !names.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let fill = Fill {
        events,
        batch_events: 1,
        streams: events / 10,
    };
    let kept = report.directory()?;
    let log = filled::<B>(report, kept.path(), fill)?;
    let by_hand = |with_history: bool| {
        let log = &log;
        move |runtime: &Runtime, directory: &Path| {
            measured(runtime, directory, async |views: &B| {
                log.rebuild_by_hand(views, with_history).await
            })
        }
    };
    let what = format!(
        "a keyed view built from {events} events over {} keys",
        fill.streams
    );
    report.compare(
        row(
            &*names[0],
            &what,
            "events/s",
            format!("{}, one cursor, a map, the same upserts", B::DRIVER),
            Some(Target::PerSecond(B::REBUILD_PER_SECOND)),
        ),
        ours::<B, Balance>(&log, events, 1),
        by_hand(false),
    )?;
    report.compare(
        row(
            &*names[1],
            format!("{what}, with its history"),
            "events/s",
            "the same loop, with a row of the past for each event",
            None,
        ),
        ours::<B, BalanceThen>(&log, events, 1),
        by_hand(true),
    )?;
    for (name, slots) in names[2..].iter().zip([2, 4]) {
        report.compare(
            row(
                &**name,
                format!("{what}, in {slots} slots"),
                "events/s",
                "the same in one slot",
                None,
            ),
            ours::<B, Balance>(&log, events, slots),
            ours::<B, Balance>(&log, events, 1),
        )?;
    }
    report.runtime.block_on(log.remove())
}

/// A database with a log in it.
fn filled<B: Backend>(report: &Report, directory: &Path, fill: Fill) -> Outcome<B> {
    let log = B::new(directory)?;
    report.runtime.block_on(log.fill(fill))?;
    Ok(log)
}

/// A view of a log, built by a worker for each slot.
fn ours<B: Backend, V: View>(
    log: &B,
    events: usize,
    slots: u16,
) -> impl FnMut(&Runtime, &Path) -> Outcome<Rate> + use<'_, B, V> {
    move |runtime, directory| {
        measured(runtime, directory, async |views: &B| {
            rebuild::<V>(&log.store().await?, views.views().await?, events, slots).await
        })
    }
}

/// Questions about the past, one after another.
fn as_of<B: Backend>(report: &mut Report, name: &str, questions: Questions) -> Outcome<()> {
    let names = [B::NAME, B::REPLAY].map(|of| format!("view/as-of/{name}/{of}"));
    if !names.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let Questions {
        accounts, events, ..
    } = questions;
    let kept = report.directory()?;
    let of_ours = report.directory()?;
    let of_theirs = report.directory()?;
    let log: B = filled(
        report,
        kept.path(),
        Fill {
            events,
            batch_events: 1,
            streams: accounts,
        },
    )?;
    let ours = B::new(of_ours.path())?;
    let theirs = B::new(of_theirs.path())?;
    report.runtime.block_on(async {
        past::program(&log.store().await?, ours.views().await?)
            .await?
            .stop()
            .await;
        log.rebuild_by_hand(&theirs, true).await
    })?;
    let ask = |runtime: &Runtime, questions: &Questions| {
        runtime.block_on(async {
            let program = past::program(&log.store().await?, ours.views().await?).await?;
            let answers = questions.ask(&program).await;
            program.stop().await;
            answers
        })
    };
    let what =
        format!("a row as of a random moment, {accounts} keys, history over {events} events");
    let same = |answers: Answers, wanted: &Answers| match (answers.cents, answers.events)
        == (wanted.cents, wanted.events)
    {
        true => Ok(answers.latencies),
        false => Err("two answers about one moment differ".into()),
    };
    let by_hand = report.runtime.block_on(theirs.ask_by_hand(&questions))?;
    report.compare_latencies(
        row(
            &*names[0],
            &what,
            "ms",
            format!(
                "{}, one select from a row of the past for each event",
                B::DRIVER
            ),
            None,
        ),
        |runtime, _| same(ask(runtime, &questions)?, &by_hand),
        |runtime, _| same(runtime.block_on(theirs.ask_by_hand(&questions))?, &by_hand),
    )?;
    // A replay takes thousands of times as long.
    let few = Questions {
        count: 5,
        ..questions
    };
    let by_hand = report.runtime.block_on(theirs.ask_by_hand(&few))?;
    report.compare_latencies(
        row(
            &*names[1],
            &what,
            "ms",
            "a replay of the log to that moment",
            None,
        ),
        |runtime, _| same(ask(runtime, &few)?, &by_hand),
        |runtime, _| {
            same(
                runtime.block_on(async { few.replay(&Annals::on(log.store().await?)).await })?,
                &by_hand,
            )
        },
    )?;
    report.runtime.block_on(async {
        for each in [log, ours, theirs] {
            each.remove().await?;
        }
        Ok(())
    })
}
