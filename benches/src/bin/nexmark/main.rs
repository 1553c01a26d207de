//! Queries 0, 1, 2, 5, 7, 11, 15 and 17 of the Nexmark benchmark as pipelines, each compared with
//! SQL over the same bids.
//!
//! `cargo run --release -p annals-benches --bin nexmark -- [--events N] [--rows DIRECTORY]`: rows
//! are fields joined by `|`, sorted as text, times in milliseconds since 1970, windows by their
//! start, days counted from there, divisions rounded down. A clock event at the end closes the last
//! windows.

mod bids;
mod oracle;
mod queries;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use queries::{NUMBERS, rows_of_all};

/// Nexmark queries as pipelines, compared with SQL.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many bids.
    #[arg(long, default_value_t = 100_000)]
    events: u64,
    /// Write the rows of each query here, as `q0.txt` and so on.
    #[arg(long)]
    rows: Option<PathBuf>,
}

#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose answer is text"
)]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<Vec<String>, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let bids = bids::first(arguments.events);
    let found = runtime.block_on(rows_of_all(&bids))?;
    let wanted = oracle::rows_of_all(&bids)?;
    let mut lines = Vec::new();
    for (number, (found, wanted)) in NUMBERS.iter().zip(found.iter().zip(&wanted)) {
        if let Some(directory) = &arguments.rows {
            let mut text = found.join("\n");
            text.push('\n');
            std::fs::write(directory.join(format!("q{number}.txt")), text)?;
        }
        if found != wanted {
            let first = found
                .iter()
                .zip(wanted)
                .find(|(found, wanted)| found != wanted);
            return Err(format!(
                "q{number}: {} rows where SQL gives {}; the first that differ: {first:?}",
                found.len(),
                wanted.len()
            )
            .into());
        }
        lines.push(format!(
            "q{number}: {} rows, as SQL gives them",
            found.len()
        ));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_gives_the_rows_of_sql() {
        let arguments = Arguments {
            events: 5_000,
            rows: None,
        };
        assert_eq!(
            run(&arguments)
                .map_err(|error| error.to_string())
                .map(|lines| lines.len()),
            Ok(8)
        );
    }
}
