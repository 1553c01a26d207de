//! A bank: accounts that decide, a log that keeps what happened, and read models that can be asked
//! for any day.
//!
//! `cargo run --example bank` tells a short story on a fresh file. It is also a tool for real data:
//!
//! ```text
//! cargo run --release --example bank -- import examples/data/berka-excerpt.asc
//! cargo run --release --example bank -- balances --as-of 1993-06-30
//! cargo run --release --example bank -- statements 576
//! cargo run --release --example bank -- history 576
//! ```
//!
//! With `--features kafka` it publishes what happened to a topic, and another program has the same
//! balances from that topic alone:
//!
//! ```text
//! cargo run --release --features kafka --example bank -- publish --to kafka://127.0.0.1:9092
//! cargo run --release --features kafka --example bank -- balances --from kafka://127.0.0.1:9092
//! ```
//!
//! With `--features postgres` it does the same on a PostgreSQL server:
//! `--store postgres://app@localhost/bank`. With `--features kafka-store` it does so on a topic of
//! Kafka, `--store "kafka://127.0.0.1:9092/bank?local=./bank&owns=all"`, with its read models in a
//! SQLite file beside the local copy, or where `--views` says.
//!
//! Start reading in `account.rs`, then `story.rs`; `balances.rs` is a read model and the question
//! that it answers.

#![allow(
    clippy::print_stderr,
    reason = "this is a program, and what went wrong goes to its user"
)]

mod account;
mod arguments;
mod balances;
#[path = "../ended/mod.rs"]
mod ended;
mod history;
mod import;
mod money;
mod month;
#[cfg(feature = "kafka")]
mod published;
#[cfg(not(feature = "kafka"))]
#[path = "published/without.rs"]
mod published;
mod statements;
mod store;
mod story;
#[cfg(test)]
mod tests;
mod transaction;
mod views;
mod volume;

use std::error::Error;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use annals::prelude::*;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use crate::arguments::{Arguments, Command, Store};
use crate::balances::{Balances, Format};

#[tokio::main]
async fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let mut out = BufWriter::new(io::stdout().lock());
    let done = run(command, &mut out).await;
    published::leave().await;
    ended::ended("bank", done)
}

/// Does what was asked, and prints what came of it.
async fn run(command: Option<Command>, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let Some(command) = command else {
        tell_story(out).await?;
        out.flush()?;
        return Ok(());
    };
    match command {
        Command::Import { file, store } => import(&file, &store.url, out).await?,
        Command::Publish { to, store } => {
            let db = store::open_existing(&store.url).await?;
            let sent = published::publish(&db, &to).await?;
            writeln!(out, "{sent} events published, to {}", store::shown(&to))?;
        }
        Command::Balances {
            as_of,
            format,
            from: Some(from),
            ..
        } => {
            let balances = published::balances(&from, as_of.happened).await?;
            print_balances(&balances, format, &from, out)?;
        }
        Command::Balances {
            as_of,
            format,
            from: None,
            store,
        } => {
            let db = open_with_views(&store).await?;
            let balances = balances::balances(&db, as_of).await;
            db.stop().await;
            print_balances(&balances?, format, &store.url, out)?;
        }
        Command::Statements {
            account,
            month,
            store,
        } => {
            let db = open_with_views(&store).await?;
            let found = match month {
                Some(month) => statements::statement(&db, &account, month)
                    .await
                    .map(Vec::from_iter),
                None => statements::statements(&db, &account).await,
            };
            db.stop().await;
            let found = found?;
            if found.is_empty() {
                let by_then = month
                    .map(|month| format!(" up to {month}"))
                    .unwrap_or_default();
                return Err(format!(
                    "account `{account}` had no transactions{by_then} in {}",
                    store::shown(&store.url)
                )
                .into());
            }
            writeln!(out, "Account {account} in {}\n", store::shown(&store.url))?;
            statements::print(&found, out)?;
        }
        Command::Volume { from, to, store } => {
            let db = open_with_views(&store).await?;
            let volumes = volume::volumes(&db, from, to).await;
            db.stop().await;
            let volumes = volumes?;
            writeln!(
                out,
                "{} days in {}\n",
                volumes.len(),
                store::shown(&store.url)
            )?;
            volume::print(&volumes, out)?;
        }
        Command::Rebuild { store } => {
            let db = open_with_views(&store).await?;
            let bar = events_bar();
            let rebuilt = views::rebuild(&db, &bar, out).await;
            bar.finish_and_clear();
            db.stop().await;
            out.flush()?;
            rebuilt?;
        }
        Command::History { account, store } => {
            let db = store::open_existing(&store.url).await?;
            let title = format!("Account {account} in {}", store::shown(&store.url));
            if !history::print(&db, &account, &title, out).await? {
                return Err(format!(
                    "nothing ever happened to account `{account}` in {}",
                    store::shown(&store.url)
                )
                .into());
            }
        }
    }
    out.flush()?;
    Ok(())
}

/// Prints balances, and where they are from.
fn print_balances(
    balances: &Balances,
    format: Format,
    place: &str,
    out: &mut impl Write,
) -> io::Result<()> {
    let title = format!("{} accounts in {}", balances.len(), store::shown(place));
    match format {
        Format::Table => writeln!(out, "{title}\n")?,
        Format::Csv => eprintln!("{title}"),
    }
    balances::print(balances, format, out)
}

/// Tells the story on a fresh file.
async fn tell_story(out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let file = store::fresh_file(Path::new("."));
    let db = Annals::open(&format!("sqlite:{file}")).await?;
    let db = views::up(db, None, &ProgressBar::hidden()).await?;
    let told = story::tell(&db, out).await;
    db.stop().await;
    told?;
    writeln!(
        out,
        "\nAll of it is in {file}. See what happened to an account, and look around:\n"
    )?;
    writeln!(
        out,
        "  cargo run --example bank -- statements alice --store sqlite:{file}"
    )?;
    writeln!(
        out,
        "  cargo run --example bank -- history alice --store sqlite:{file}"
    )?;
    writeln!(out, "  cargo run --example bank -- --help")?;
    Ok(())
}

async fn import(file: &Path, store: &str, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    // A file that cannot be used leaves no empty store.
    let source = import::Source::open(file)?;
    let db = Annals::open(store).await?;
    let started = Instant::now();
    let bar = bytes_bar();
    let report = import::import(&db, source, &bar).await;
    bar.finish_and_clear();
    let report = report?;
    let seconds = started.elapsed().as_secs_f64();

    for fault in &report.faults {
        eprintln!("{}: {fault}", file.display());
    }
    let unlisted = report.bad - report.faults.len() as u64;
    if unlisted > 0 {
        eprintln!("{}: and {unlisted} more bad rows", file.display());
    }
    let rate = report.rows() as f64 / seconds.max(0.001);
    writeln!(
        out,
        "{} rows imported, {} already there, {} bad, in {seconds:.2} s ({rate:.0} rows/s), into {}",
        report.imported,
        report.already_there,
        report.bad,
        store::shown(store)
    )?;
    Ok(())
}

/// Opens a store that must be there, and brings its read models up to the log.
async fn open_with_views(store: &Store) -> Result<Program, Box<dyn Error>> {
    let db = store::open_existing(&store.url).await?;
    let views = store::views_of(store).await?;
    let bar = events_bar();
    let up = views::up(db, views, &bar).await;
    bar.finish_and_clear();
    Ok(up?)
}

/// Of the bytes of a file.
fn bytes_bar() -> ProgressBar {
    bar("{bar:40} {percent:>3} %  {binary_bytes_per_sec}  {eta} left")
}

/// Of the events of a log. The message says how many, how fast and how long.
fn events_bar() -> ProgressBar {
    bar("{prefix}{bar:12} {wide_msg}")
}

/// On stderr, and only on a terminal.
fn bar(style: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    ProgressBar::no_length().with_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}
