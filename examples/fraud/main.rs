//! Fraud, caught while it happens: eight rules over payments and log-ins, and what is done about
//! what they find.
//!
//! ```text
//! cargo run --example fraud
//! cargo run --release --example fraud -- FILE.csv --out ALERTS.csv
//! ```
//!
//! Without arguments it makes up an afternoon at a bank, in which payments become known late and
//! some are delivered twice, prints the alerts as they are appended, and counts them at the end
//! beside the worst verdict of each user and who was blocked.
//!
//! With a file it judges the payments of the file (`id,user,at,cents`: microseconds since 1970, in
//! any order up to 20 seconds, some twice) by three rules of a user's last five minutes, and writes
//! the alerts, `id,user,count_5m,cents_5m,rules`, in the order of time. With `--store` the log is
//! kept, and a run that was killed goes on: with the same file, for another one needs a store of
//! its own. `--rebuild` builds the pipeline once more, which sends nothing twice.

mod afternoon;
mod bank;
#[path = "../ended/mod.rs"]
mod ended;
mod files;
mod lesson;
mod rules;
#[cfg(test)]
mod tests;
mod verdict;

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use annals::prelude::*;
use clap::Parser;

/// Fraud, caught on the log. Without arguments it tells the story of an afternoon.
#[derive(Debug, Parser)]
#[command(name = "fraud", bin_name = "fraud")]
struct Arguments {
    /// Payments to be judged: id,user,at,cents.
    #[arg(requires = "out")]
    file: Option<PathBuf>,
    /// Where the alerts are written.
    #[arg(long, requires = "file")]
    out: Option<PathBuf>,
    /// A store that keeps the log: sqlite:FILE or postgres://…; without it, memory does.
    #[arg(long, value_name = "URL", requires = "file")]
    store: Option<String>,
    /// The slots that share the users.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    slots: u16,
    /// Builds the pipeline a second time before the alerts are written.
    #[arg(long, requires = "file")]
    rebuild: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut told = io::stdout().lock();
    let done = match (&arguments.file, &arguments.out) {
        (Some(file), Some(out)) => judge(&arguments, (file, out), &mut told).await,
        _ => afternoon::tell(arguments.slots, &mut told).await,
    };
    ended::ended("fraud", done)
}

async fn judge(
    arguments: &Arguments,
    (file, out): (&Path, &Path),
    told: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let url = arguments.store.as_deref().unwrap_or("sqlite::memory:");
    files::all_differ(file, out, url)?;
    let db = Annals::open(url).await?;
    let payments = lesson::import(&**db.store(), file).await?;
    let db = db
        .with(lesson::judge().slots(arguments.slots))
        .start()
        .await?;
    lesson::judged(&db).await?;
    if arguments.rebuild {
        let pipeline = db
            .pipeline("judge")
            .ok_or("the program has no pipeline `judge`")?;
        let rebuild = pipeline.rebuild().begin().await?;
        rebuild.finished(|_| ()).await?;
        lesson::judged(&db).await?;
    }
    let alerts = lesson::export(&**db.store(), out).await?;
    if let Some(pipeline) = db.pipeline("judge") {
        writeln!(told, "{}", pipeline.status())?;
    }
    let out = out.display();
    writeln!(told, "{payments} payments, {alerts} alerts in {out}")?;
    db.stop().await;
    Ok(())
}
