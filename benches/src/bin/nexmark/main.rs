//! Queries 0 to 5, 7 to 9, 11, 15 and 17 to 20 of the Nexmark benchmark as pipelines, each compared
//! with SQL over the same events.
//!
//! `cargo run --release -p annals-benches --bin nexmark -- [--events N] [--query q5 [--tsv FILE]]`:
//! the events are those of the crate `nexmark` with its defaults. Rows are fields joined by `|`,
//! sorted as text, times in milliseconds since 1970, windows by their start, days counted from
//! there, divisions rounded down. A clock event at the end closes the last windows.

mod joins;
mod market;
mod oracle;
mod program;
mod queries;
mod rows;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use market::Market;
use oracle::QUERIES;

/// Nexmark queries as pipelines, compared with SQL.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many events.
    #[arg(long, default_value_t = 100_000)]
    events: u64,
    /// Only this query, as `q5`; without it all of them.
    #[arg(long)]
    query: Option<String>,
    /// Write the rows of the query here.
    #[arg(long, requires = "query")]
    tsv: Option<PathBuf>,
}

#[allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose answer is text"
)]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments, &Market::first(arguments.events)) {
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

fn run(arguments: &Arguments, market: &Market) -> Result<Vec<String>, Box<dyn Error>> {
    let names = QUERIES.map(|(number, _)| format!("q{number}"));
    let asked = |name: &String| arguments.query.as_ref().is_none_or(|asked| asked == name);
    if !names.iter().any(asked) {
        return Err(format!("the queries are {}", names.join(", ")).into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let found = runtime.block_on(program::rows_of_all(market))?;
    let wanted = oracle::rows_of_all(market)?;
    let mut lines = Vec::new();
    let all = names.iter().zip(found.iter().zip(&wanted));
    for (name, (found, wanted)) in all.filter(|(name, _)| asked(name)) {
        if let Some(file) = &arguments.tsv {
            let mut text = found.join("\n");
            text.push('\n');
            std::fs::write(file, text)?;
        }
        if found != wanted {
            let first = found
                .iter()
                .zip(wanted)
                .find(|(found, wanted)| found != wanted);
            return Err(format!(
                "{name}: {} rows where SQL gives {}; the first that differ: {first:?}",
                found.len(),
                wanted.len()
            )
            .into());
        }
        lines.push(format!("{name}: {} rows, as SQL gives them", found.len()));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_query_gives_the_rows_of_sql() {
        let arguments = Arguments::parse_from(["nexmark"]);
        for (market, is_lively) in [(Market::lively(5_000), true), (Market::first(5_000), false)] {
            let lines = run(&arguments, &market).map_err(|error| error.to_string());
            let lines = lines.unwrap_or_else(|error| vec![error]);
            assert_eq!(lines.len(), QUERIES.len(), "{lines:?}");
            let is_empty = lines.iter().any(|line| line.contains(": 0 rows"));
            assert!(!is_lively || !is_empty, "{lines:?}");
            // States of the generator are in lower case, so a query in upper case finds no seller.
            let has_no_sellers = lines.iter().any(|line| line.starts_with("q3: 0 rows"));
            assert!(!has_no_sellers, "{lines:?}");
        }
    }
}
