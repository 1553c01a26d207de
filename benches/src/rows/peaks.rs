//! The rows of memory: how much more a long log takes than a short one, each in a process of its
//! own.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use annals::{Annals, Position};
use annals_benches::replay::{self, Fill};
use annals_benches::view::{Balance, rebuild};
use annals_benches::{Outcome, machine};
use annals_sqlite::{Options, SqliteStore};
use tokio::runtime::{Builder, Runtime};

use super::{file, filled, row, sqlite};
use crate::report::Report;

/// The argument with which the program measures the memory of one replay.
pub(crate) const REPLAY_PEAK: &str = "--replay-peak";

/// The argument with which the program measures the memory of one rebuild.
pub(crate) const REBUILD_PEAK: &str = "--rebuild-peak";

/// What the peak of a long log may be above that of a short one.
const PEAK_DIFFERENCE_MAX_MB: f64 = 20.0;

pub(super) fn rows(report: &mut Report, many: usize, few: usize) -> Outcome<()> {
    let of_replay = row(
        "memory/replay/sqlite",
        &format!("peak memory of a process that replays {many} typed events"),
        "MB",
        "",
        None,
    );
    let what =
        format!("peak memory of a process that builds a view of 1,000 rows from {many} events");
    let of_rebuild = row("memory/rebuild/sqlite", &what, "MB", "", None);
    if !report.wants(&of_replay.name) && !report.wants(&of_rebuild.name) {
        return Ok(());
    }
    let fill = |events| Fill {
        events,
        batch_events: 50,
        streams: 1_000,
    };
    let large = filled(report, fill(many))?;
    let small = filled(report, fill(few))?;
    let large = file(large.path());
    let small = file(small.path());
    for (row, argument) in [(of_replay, REPLAY_PEAK), (of_rebuild, REBUILD_PEAK)] {
        if !report.wants(&row.name) {
            continue;
        }
        let of_many = measured(argument, &large, many)?;
        let of_few = measured(argument, &small, few)?;
        let difference = of_many - of_few;
        report.state(
            row,
            format!("{of_many:.1} MB"),
            format!("{of_few:.1} MB for {few}"),
            format!("{difference:+.1} MB"),
            difference <= PEAK_DIFFERENCE_MAX_MB,
        );
    }
    Ok(())
}

/// What a process of its own took, in megabytes.
fn measured(argument: &str, path: &Path, events: usize) -> Outcome<f64> {
    let answer = Command::new(std::env::current_exe()?)
        .arg(argument)
        .arg(path)
        .arg(events.to_string())
        .output()?;
    if !answer.status.success() {
        return Err(String::from_utf8_lossy(&answer.stderr).into_owned().into());
    }
    Ok(String::from_utf8_lossy(&answer.stdout)
        .trim()
        .parse::<f64>()?
        / 1e6)
}

/// Replays a log of so many events and prints the most memory that took, in bytes.
pub(crate) fn replay_peak(path: &str, events: &str) -> Outcome<()> {
    let events: u64 = events.parse()?;
    let replayed = runtime()?.block_on(async {
        replay::typed(
            &Annals::on(sqlite(Path::new(path)).await?),
            Position::new(events),
        )
        .await
    })?;
    if replayed.rate.count as u64 != events {
        return Err(format!("replayed {} of {events} events", replayed.rate.count).into());
    }
    print_peak()
}

/// Builds a view of a log of so many events, beside it, and prints the most memory that took, in
/// bytes.
pub(crate) fn rebuild_peak(path: &str, events: &str) -> Outcome<()> {
    let path = Path::new(path);
    let events = events.parse()?;
    runtime()?.block_on(async {
        let views = SqliteStore::open_with(Options::file(path.with_file_name("views.db"))).await?;
        rebuild::<Balance>(&sqlite(path).await?, Arc::new(views), events, 1).await
    })?;
    print_peak()
}

fn runtime() -> Outcome<Runtime> {
    Ok(Builder::new_multi_thread().enable_time().build()?)
}

fn print_peak() -> Outcome<()> {
    println!(
        "{}",
        machine::peak_memory_bytes().ok_or("this system does not say how much memory was used")?
    );
    Ok(())
}
