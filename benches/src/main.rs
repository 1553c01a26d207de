//! Prints one table: each workload on memory, SQLite and PostgreSQL, beside the same work by hand.
//!
//! `cargo run --release -p annals-benches -- [FILTER] [--quick] [--rounds N] [--dir PATH] [--tsv
//! FILE]`

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what it is for"
)]

mod report;
mod rows;

use std::path::PathBuf;
use std::process::ExitCode;

use annals_benches::Outcome;
use clap::Parser;
use report::Report;

/// Measures the workloads, each beside the same work by hand, and prints one table.
#[derive(Debug, Parser)]
#[command(name = "annals-benches", bin_name = "cargo xtask bench")]
struct Options {
    /// Only rows whose names contain this: `append/processes`.
    #[arg(default_value = "")]
    filter: String,
    /// A tenth of the work, one round: to see that everything runs.
    #[arg(long)]
    quick: bool,
    /// How often each row is measured [default: 5, or 1 with --quick].
    #[arg(long)]
    rounds: Option<usize>,
    /// A directory on the disk that is measured [default: that of temporary files].
    #[arg(long)]
    dir: Option<PathBuf>,
    /// A file for the rows as values separated by tabs.
    #[arg(long)]
    tsv: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // The program runs itself: for each measurement of memory, and as one of many.
        [rows::REPLAY_PEAK, file, events] => rows::replay_peak(file, events),
        [rows::REBUILD_PEAK, file, events] => rows::rebuild_peak(file, events),
        [rows::APPENDS, how, schema, disk, process, events] => {
            rows::append_in_process(how, schema, disk, process, events)
        }
        _ => run(&Options::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Outcome<()> {
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 5 });
    let dir = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let mut report = Report::new(options.filter.clone(), rounds.max(1), dir)?;
    rows::all(&mut report, options.quick)?;
    report.print();
    options
        .tsv
        .as_deref()
        .map_or(Ok(()), |path| report.write_tsv(path))
}
