//! What developers and CI type: `cargo xtask <command>`.

mod apt;
mod bench;
mod ci;
mod ephemeral;
mod examples;
mod flips;
mod kafka;
mod lint;
mod postgres;
mod process;
mod program;
mod stop;
mod terminal;
mod test;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use stop::Stop;

#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", about)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// Runs all tests, those of the examples and of the documentation included.
    #[command(override_usage = "cargo xtask test [CARGO TEST ARGUMENTS] [-- TEST ARGUMENTS]")]
    Test {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        arguments: Vec<String>,
    },
    /// Checks format, clippy, rustdoc, the walls between crates, the repository's own rules.
    Lint,
    /// Runs every example once, without arguments, in an empty directory.
    Examples,
    /// Starts or stops a PostgreSQL for this clone.
    #[command(subcommand)]
    Postgres(postgres::Task),
    /// Starts or stops an Apache Kafka for this clone.
    #[command(subcommand)]
    Kafka(kafka::Task),
    /// Runs the workloads of benches/, optimised; arguments go to the bench program. `kafka`: the
    /// rates of the Kafka crate, on one node and on three.
    #[command(override_usage = "cargo xtask bench [FILTER] [OPTIONS OF THE BENCH PROGRAM]")]
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        arguments: Vec<String>,
    },
    /// Flips each comparison of streams/ in a copy, and says which flip no test notices.
    Flips {
        /// Only those of these files, or of a line: `due.rs` or `due.rs:33`.
        only: Vec<String>,
    },
    /// Runs test, lint and examples, one after another: what a change must pass.
    Ci,
}

fn main() -> ExitCode {
    let Arguments { task } = Arguments::parse_from(for_clap(std::env::args_os().collect()));
    match run(&task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            terminal::complain!("cargo xtask: {stop}");
            ExitCode::from(stop.exit_code())
        }
    }
}

fn run(task: &Task) -> Result<(), Stop> {
    match task {
        Task::Test { arguments } => test::run(arguments),
        Task::Lint => lint::run(),
        Task::Examples => examples::run(),
        Task::Postgres(task) => postgres::run(task),
        Task::Kafka(task) => kafka::run(task),
        Task::Bench { arguments } => bench::run(arguments),
        Task::Flips { only } => flips::run(only),
        Task::Ci => ci::run(),
    }
}

/// What follows `test` and `bench` belongs to other programs, its own `--` included: it is put
/// after a `--` of ours.
fn for_clap(mut words: Vec<OsString>) -> Vec<OsString> {
    let is = |at: usize, known: &[&str]| {
        words
            .get(at)
            .is_some_and(|word| known.iter().any(|known| word == known))
    };
    if is(1, &["test", "bench"]) && !is(2, &["--help", "-h"]) {
        words.insert(2, "--".into());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Task {
        let words = line.split_whitespace().map(OsString::from).collect();
        Arguments::try_parse_from(for_clap(words)).unwrap().task
    }

    #[test]
    fn the_commands_make_sense_to_clap() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn arguments_of_other_programs_reach_them_as_typed() {
        for (line, expected) in [
            ("xtask test", ""),
            ("xtask test -p annals --doc", "-p annals --doc"),
            ("xtask test -- --ignored", "-- --ignored"),
            ("xtask test --lib -- -q", "--lib -- -q"),
        ] {
            let Task::Test { arguments } = parsed(line) else {
                panic!("`{line}` is a test")
            };
            assert_eq!(arguments.join(" "), expected);
        }
        let Task::Bench { arguments } = parsed("xtask bench append/processes --quick") else {
            panic!("it is a bench")
        };
        assert_eq!(arguments, ["append/processes", "--quick"]);
    }

    #[test]
    fn unknown_words_and_surplus_ones_are_refused() {
        for line in [
            "xtask tset",
            "xtask ci now",
            "xtask postgres",
            "xtask kafka up --nodes 9",
        ] {
            let words = line.split_whitespace().map(OsString::from).collect();
            assert!(
                Arguments::try_parse_from(for_clap(words)).is_err(),
                "{line}"
            );
        }
    }
}
