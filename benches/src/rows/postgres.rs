//! The rows of PostgreSQL, each beside the same work by hand with sqlx.

use std::path::Path;

use annals::{Annals, Position};
use annals_benches::append::{Batches, Singles};
use annals_benches::idle::{Idle, Views};
use annals_benches::latency::Latencies;
use annals_benches::replay::{self, Fill, Replayed};
use annals_benches::server::{self, Schema};
use annals_benches::{Outcome, baseline_sqlx};
use tokio::runtime::Runtime;

use super::{backend, checkouts, processes, row, views};
use crate::report::Report;

/// How many clients insert by hand, where ours have more: more of them are slower.
const CLIENTS: usize = 32;

/// As many as leave the server some of its connections.
const CLIENTS_MANY: usize = 128;

/// All rows, as far as the filter wants them; none when there is no server.
pub(super) fn rows(report: &mut Report, quick: bool) -> Outcome<()> {
    if server::url().is_none() {
        eprintln!(
            "SKIPPED: the rows of PostgreSQL, because {} names no server; `cargo xtask bench` \
             starts one",
            server::URL
        );
        return Ok(());
    }
    let scaled = |count: usize| if quick { count / 10 } else { count };
    report.describe("PostgreSQL", report.runtime.block_on(server::describe())?);
    singles(report, scaled(20_000))?;
    batches(report, scaled(300_000))?;
    processes::rows(report, scaled(20_000))?;
    replays(report, scaled(1_000_000))?;
    idle(report)?;
    own_writes(report, quick)?;
    checkouts::rows::<Schema>(report, quick)?;
    views::rows::<Schema>(report, scaled(1_000_000), quick)
}

/// What an idle program may ask a second, whatever it follows.
const IDLE_QUERIES_MAX: f64 = 10.0;

fn idle(report: &mut Report) -> Outcome<()> {
    for (name, what, views, watchers) in [
        ("views-1", "one view", Views::One, 0),
        ("views-20", "20 views", Views::Twenty, 0),
        (
            "watchers-1000",
            "one view, and one with 1,000 watchers and no lease",
            Views::One,
            1_000,
        ),
    ] {
        let row = row(
            &format!("idle/{name}/postgres"),
            &format!("what an idle program asks the server: {what}"),
            "queries/s",
            "",
            None,
        );
        if !report.wants(&row.name) {
            continue;
        }
        let idle = Idle { views, watchers };
        let queries = measured(&report.runtime, async |schema| {
            idle.queries_per_second(schema).await
        })?;
        report.state(
            row,
            format!("{queries:.1} queries/s"),
            format!("at most {IDLE_QUERIES_MAX}"),
            String::new(),
            queries <= IDLE_QUERIES_MAX,
        );
    }
    Ok(())
}

/// A command until its own write is seen in a view, beside other views and watchers.
fn own_writes(report: &mut Report, quick: bool) -> Outcome<()> {
    let commands = if quick { 50 } else { 1_000 };
    let mut alone = None;
    for (name, what, views, watchers) in [
        ("views-1", "one view", Views::One, 0),
        ("views-20", "20 views", Views::Twenty, 0),
        (
            "watchers-1000",
            "one view, and 1,000 watchers of it in another program",
            Views::One,
            1_000,
        ),
    ] {
        let row = row(
            &format!("own-write/{name}/postgres"),
            &format!("a command until a reader sees it, one after another: {what}"),
            "ms",
            "with one view",
            None,
        );
        if !report.wants(&row.name) {
            continue;
        }
        let idle = Idle { views, watchers };
        let seen = measured(&report.runtime, async |schema| {
            idle.own_writes(schema, commands).await
        })?;
        let said = |of: &Latencies| {
            let [p50, p99] = [50, 99].map(|percent| checkouts::milliseconds(of, percent));
            format!("p50 {p50:.2}, p99 {p99:.2} ms")
        };
        let ours = said(&seen);
        let alone = alone.get_or_insert(seen.clone());
        let [one, now] = [&*alone, &seen].map(|of| checkouts::milliseconds(of, 50));
        let slower = now / one;
        report.state(
            row,
            ours,
            said(alone),
            format!("{slower:.2}"),
            slower <= SLOWER_MAX,
        );
    }
    Ok(())
}

/// Other views and watchers make one's own writes no slower than this.
const SLOWER_MAX: f64 = 1.5;

/// Runs it in a schema of its own, which is dropped afterwards.
fn measured<T>(runtime: &Runtime, work: impl AsyncFnOnce(&Schema) -> Outcome<T>) -> Outcome<T> {
    backend::measured(runtime, Path::new(""), work)
}

fn singles(report: &mut Report, events: usize) -> Outcome<()> {
    // At most 1.3 times the latency is at least so much of the rate.
    let latency = Some(0.77);
    for (tasks, clients, beside, target) in [
        (
            1,
            1,
            "sqlx, an insert and its commit for each event, 1 client",
            latency,
        ),
        (
            8,
            8,
            "sqlx, an insert and its commit for each event, 8 clients",
            None,
        ),
        (
            32,
            CLIENTS,
            "sqlx, an insert and its commit for each event, 32 clients",
            None,
        ),
        (
            256,
            CLIENTS,
            "sqlx, an insert and its commit for each event, 32 clients",
            Some(5.0),
        ),
        (
            256,
            CLIENTS_MANY,
            "sqlx, an insert and its commit for each event, 128 clients",
            None,
        ),
    ] {
        let many = if clients == CLIENTS_MANY { "-many" } else { "" };
        let work = Singles {
            events: events * tasks.min(64) / 8,
            tasks,
        };
        let by_hand = Singles {
            events: events * clients.min(16) / 8,
            tasks: clients,
        };
        report.compare(
            row(
                &format!("append/singles/{tasks}/postgres{many}"),
                &format!(
                    "append with an expected version, durable, single events from {tasks} tasks"
                ),
                "events/s",
                beside,
                target,
            ),
            |runtime, _| {
                measured(runtime, async |schema| {
                    work.run(&schema.store().await?, work.make()?).await
                })
            },
            |runtime, _| {
                measured(runtime, async |schema| {
                    schema.make_baseline().await?;
                    baseline_sqlx::singles(schema, by_hand.make()?, clients, 0).await
                })
            },
        )?;
    }
    Ok(())
}

fn batches(report: &mut Report, events: usize) -> Outcome<()> {
    for tasks in [1, 4] {
        let work = Batches {
            events,
            batch_events: 1_000,
            streams: 100,
            tasks,
        };
        report.compare(
            row(
                &format!("append/batches/{tasks}/postgres"),
                &format!("append, durable, batches of 1,000, {tasks} at a time"),
                "events/s",
                "sqlx, one statement of 1,000 rows for each batch, one connection",
                None,
            ),
            |runtime, _| {
                measured(runtime, async |schema| {
                    work.run(&schema.store().await?, work.make()?).await
                })
            },
            |runtime, _| {
                measured(runtime, async |schema| {
                    schema.make_baseline().await?;
                    baseline_sqlx::batches(schema, work.make()?).await
                })
            },
        )?;
    }
    Ok(())
}

fn replays(report: &mut Report, events: usize) -> Outcome<()> {
    let names = ["replay/typed/postgres", "replay/pages/postgres"];
    if !names.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let schema = Schema::new()?;
    let wanted = report.runtime.block_on(async {
        Fill {
            events,
            batch_events: 10,
            streams: events / 100,
        }
        .run(&schema.store().await?)
        .await?;
        schema.make_baseline_copy().await?;
        Outcome::Ok(baseline_sqlx::replay(&schema).await?.cents)
    })?;
    let same = |replayed: Replayed| match replayed.cents == wanted && replayed.rate.count == events
    {
        true => Outcome::Ok(replayed.rate),
        false => Err("two replays of one log differ".into()),
    };
    for (name, is_typed) in [(names[0], true), (names[1], false)] {
        report.compare(
            row(
                name,
                &format!(
                    "replay of {events} events {}",
                    if is_typed {
                        "to typed events"
                    } else {
                        "as pages, then `decode`"
                    }
                ),
                "events/s",
                "sqlx and serde_json, one cursor",
                is_typed.then_some(0.9),
            ),
            |runtime, _| {
                runtime.block_on(async {
                    let db = Annals::on(schema.store().await?);
                    same(if is_typed {
                        replay::typed(&db, Position::MAX).await?
                    } else {
                        replay::pages(&db).await?
                    })
                })
            },
            |runtime, _| same(runtime.block_on(baseline_sqlx::replay(&schema))?),
        )?;
    }
    report.runtime.block_on(schema.drop())
}
