//! Prints one table: each workload on memory, SQLite and PostgreSQL, beside the same work by hand.
//!
//! `cargo run --release -p annals-benches -- [FILTER] [--quick] [--rounds N] [--dir PATH]`

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
use report::Report;

/// What was asked for.
struct Options {
    filter: String,
    quick: bool,
    rounds: usize,
    dir: PathBuf,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // The program runs itself: for each measurement of memory, and as one of many.
        [rows::REPLAY_PEAK, file, events] => rows::replay_peak(file, events),
        [rows::REBUILD_PEAK, file, events] => rows::rebuild_peak(file, events),
        [rows::APPENDS, how, schema, process, tasks, events] => {
            rows::append_in_process(how, schema, process, tasks, events)
        }
        _ => parse(&arguments).and_then(|options| run(&options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Outcome<Options> {
    let mut options = Options {
        filter: String::new(),
        quick: false,
        rounds: 0,
        dir: std::env::temp_dir(),
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("`{argument}` needs a value"))
        };
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--rounds" => options.rounds = value()?.parse()?,
            "--dir" => options.dir = value()?.into(),
            flag if flag.starts_with('-') => {
                return Err(format!(
                    "`{flag}` is not known: [FILTER] [--quick] [--rounds N] [--dir PATH]"
                )
                .into());
            }
            filter => filter.clone_into(&mut options.filter),
        }
    }
    if options.rounds == 0 {
        options.rounds = if options.quick { 1 } else { 5 };
    }
    Ok(options)
}

fn run(options: &Options) -> Outcome<()> {
    let mut report = Report::new(options.filter.clone(), options.rounds, options.dir.clone())?;
    rows::all(&mut report, options.quick)?;
    report.print();
    Ok(())
}
