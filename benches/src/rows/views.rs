//! The rows of read models: building them, following the log, asking them about the past.

use std::path::Path;
use std::time::Duration;

use annals::Annals;
use annals::prelude::View;
use annals_benches::Outcome;
use annals_benches::bare::Bare;
use annals_benches::live::Live;
use annals_benches::past::{self, Answers, Questions};
use annals_benches::rate::Rate;
use annals_benches::replay::Fill;
use annals_benches::view::{Balance, BalanceThen, rebuild};
use tokio::runtime::Runtime;

use super::{file, filled, sqlite};
use crate::report::{Report, Row, Target};

/// What a view is built at, into SQLite and without history.
const REBUILD_PER_SECOND: f64 = 400_000.0;

/// Within what an event is seen in a view, on SQLite.
const SEEN_WITHIN: Duration = Duration::from_millis(5);

pub(super) fn rows(report: &mut Report, events: usize, quick: bool) -> Outcome<()> {
    live(report, if quick { 10 } else { 1 })?;
    rebuilds(report, events)?;
    // Of each account an event now and then, and of few accounts very many, so that most moments lie inside a run.
    as_of(report, "spread", Questions { count: 5_000, accounts: events / 10, events })?;
    as_of(report, "dense", Questions { count: 5_000, accounts: 100, events })
}

fn row(
    name: impl Into<String>,
    work: impl Into<String>,
    unit: &'static str,
    beside: &'static str,
    target: Option<Target>,
) -> Row {
    Row { name: name.into(), work: work.into(), unit, beside, target }
}

/// From an append to the row that shows it.
fn live(report: &mut Report, less: usize) -> Outcome<()> {
    let works = [
        ("calm", Live { appends: 600 / less, tasks: 1, per_second: Some(200) }),
        ("busy", Live { appends: 6_000 / less, tasks: 20, per_second: Some(2_000) }),
        ("full", Live { appends: 12_800 / less, tasks: 64, per_second: None }),
    ];
    for (name, work) in works {
        let how = match work.per_second {
            Some(per_second) => format!("{per_second} a second from {} tasks", work.tasks),
            None => format!("from {} tasks, each as soon as it has seen its last", work.tasks),
        };
        report.compare_latencies(
            row(
                format!("view/live/{name}/sqlite"),
                format!("a durable append until it is seen in a view, single events, {how}"),
                "ms",
                "rusqlite, insert and upsert in one commit, then a select",
                work.per_second.map(|_| Target::Within(SEEN_WITHIN)),
            ),
            |runtime, directory| runtime.block_on(async { work.run(&sqlite(&file(directory)).await?).await }),
            |runtime, directory| runtime.block_on(Bare::open(&file(directory)))?.live(&work),
        )?;
    }
    Ok(())
}

fn rebuilds(report: &mut Report, events: usize) -> Outcome<()> {
    let names = [
        "view/rebuild/sqlite",
        "view/rebuild-history/sqlite",
        "view/rebuild/slots-2/sqlite",
        "view/rebuild/slots-4/sqlite",
    ];
    if !names.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let fill = Fill { events, batch_events: 1, streams: events / 10 };
    let kept = filled(report, fill)?;
    let path = file(kept.path());
    let bare = |with_history: bool| {
        let path = &path;
        move |runtime: &Runtime, directory: &Path| {
            let log = runtime.block_on(Bare::open(path))?;
            let mut views = runtime.block_on(Bare::open(&file(directory)))?;
            log.rebuild(&mut views, with_history)
        }
    };
    let what = format!("a keyed view built from {events} events over {} keys", fill.streams);
    let beside = "rusqlite, one cursor, a map, the same upserts";
    report.compare(
        row(names[0], &what, "events/s", beside, Some(Target::PerSecond(REBUILD_PER_SECOND))),
        ours::<Balance>(&path, events, 1),
        bare(false),
    )?;
    report.compare(
        row(
            names[1],
            format!("{what}, with its history"),
            "events/s",
            "the same loop, with a row of the past for each event",
            None,
        ),
        ours::<BalanceThen>(&path, events, 1),
        bare(true),
    )?;
    for (name, slots) in names[2..].iter().zip([2, 4]) {
        report.compare(
            row(*name, format!("{what}, in {slots} slots"), "events/s", "the same in one slot", None),
            ours::<Balance>(&path, events, slots),
            ours::<Balance>(&path, events, 1),
        )?;
    }
    Ok(())
}

/// A view of the log at `path`, built by a worker for each slot.
fn ours<V: View>(path: &Path, events: usize, slots: u16) -> impl FnMut(&Runtime, &Path) -> Outcome<Rate> {
    move |runtime, directory| {
        runtime.block_on(async { rebuild::<V>(&sqlite(path).await?, &file(directory), events, slots).await })
    }
}

/// Questions about the past, one after another.
fn as_of(report: &mut Report, name: &str, questions: Questions) -> Outcome<()> {
    let names = [format!("view/as-of/{name}/sqlite"), format!("view/as-of/{name}/replay")];
    if !names.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let Questions { accounts, events, .. } = questions;
    let kept = filled(report, Fill { events, batch_events: 1, streams: accounts })?;
    let path = file(kept.path());
    let (ours, theirs) = (kept.path().join("ours.db"), kept.path().join("theirs.db"));
    report.runtime.block_on(async {
        past::program(&sqlite(&path).await?, &ours).await?.stop().await;
        Bare::open(&path).await?.rebuild(&mut Bare::open(&theirs).await?, true)
    })?;
    let ask = |runtime: &Runtime, questions: &Questions| {
        runtime.block_on(async {
            let program = past::program(&sqlite(&path).await?, &ours).await?;
            let answers = questions.ask(&program).await;
            program.stop().await;
            answers
        })
    };
    let what = format!("a row as of a random moment, {accounts} keys, history over {events} events");
    let same =
        |answers: Answers, wanted: &Answers| match (answers.cents, answers.events) == (wanted.cents, wanted.events) {
            true => Ok(answers.latencies),
            false => Err("two answers about one moment differ".into()),
        };
    let by_hand = report.runtime.block_on(Bare::open(&theirs))?.ask(&questions)?;
    report.compare_latencies(
        row(&names[0], &what, "ms", "rusqlite, one select from a row of the past for each event", None),
        |runtime, _| same(ask(runtime, &questions)?, &by_hand),
        |runtime, _| same(runtime.block_on(Bare::open(&theirs))?.ask(&questions)?, &by_hand),
    )?;
    // A replay takes thousands of times as long.
    let few = Questions { count: 5, ..questions };
    let by_hand = report.runtime.block_on(Bare::open(&theirs))?.ask(&few)?;
    report.compare_latencies(
        row(&names[1], &what, "ms", "a replay of the log to that moment", None),
        |runtime, _| same(ask(runtime, &few)?, &by_hand),
        |runtime, _| same(runtime.block_on(async { few.replay(&Annals::on(sqlite(&path).await?)).await })?, &by_hand),
    )
}
