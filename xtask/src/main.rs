//! What people and CI type: `cargo xtask <command>`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "talking to the person at the terminal is its work"
)]

mod apt;
mod bench;
mod ci;
mod examples;
mod kafka;
mod lint;
mod postgres;
mod program;
mod stop;
mod test;

use std::process::ExitCode;

use stop::Stop;

/// One word that can be typed after `cargo xtask`.
struct Task {
    name: &'static str,
    arguments: &'static str,
    says: &'static str,
    run: fn(&[String]) -> Result<(), Stop>,
}

/// Every task, in the order that `help` lists them.
const TASKS: [Task; 7] = [
    Task {
        name: "test",
        arguments: "[cargo test arguments] [-- test arguments]",
        says: "all tests, those of the examples and of the documentation included",
        run: test::run,
    },
    Task {
        name: "lint",
        arguments: "",
        says: "format, clippy, rustdoc, the walls between crates, the repository's own rules",
        run: lint::run,
    },
    Task {
        name: "examples",
        arguments: "",
        says: "every example once, without arguments, in an empty directory",
        run: examples::run,
    },
    Task {
        name: "postgres",
        arguments: "up | down",
        says: "a PostgreSQL for this clone: starts it and prints its URL, or stops it",
        run: postgres::run,
    },
    Task {
        name: "kafka",
        arguments: "up [--nodes 3] | down",
        says: "an Apache Kafka for this clone: starts it and prints its URL, or stops it",
        run: kafka::run,
    },
    Task {
        name: "bench",
        arguments: "[arguments]",
        says: "the workloads of benches/, optimised; arguments go to the bench program",
        run: bench::run,
    },
    Task {
        name: "ci",
        arguments: "",
        says: "test, lint and examples, one after another: what a change must pass",
        run: ci::run,
    },
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "help".to_owned());
    let rest: Vec<String> = arguments.collect();
    match dispatch(&name, &rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            eprintln!("cargo xtask {name}: {stop}");
            ExitCode::from(stop.exit_code())
        }
    }
}

fn dispatch(name: &str, arguments: &[String]) -> Result<(), Stop> {
    if matches!(name, "help" | "--help" | "-h") {
        print!("{}", help());
        return Ok(());
    }
    match TASKS.iter().find(|task| task.name == name) {
        Some(task) => (task.run)(arguments),
        None => Err(Stop::misused(format!(
            "no such command; there are {}",
            names().join(", ")
        ))),
    }
}

fn names() -> Vec<&'static str> {
    TASKS.iter().map(|task| task.name).chain(["help"]).collect()
}

fn help() -> String {
    let mut text = String::from("cargo xtask <command>\n\n");
    for task in &TASKS {
        text += &format!("  {:<10}{}\n", task.name, task.says);
        if !task.arguments.is_empty() {
            text += &format!(
                "  {:<10}  cargo xtask {} {}\n",
                "", task.name, task.arguments
            );
        }
    }
    text + "  help      this list\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_command_is_a_misuse_that_names_the_known_ones() {
        let stop = dispatch("tset", &[]).unwrap_err();
        assert_eq!(stop.exit_code(), 2);
        assert_eq!(
            stop.to_string(),
            "no such command; there are test, lint, examples, postgres, kafka, bench, ci, help"
        );
    }

    #[test]
    fn help_has_a_line_for_every_command() {
        let help = help();
        for name in names() {
            assert!(
                help.lines()
                    .any(|line| line.starts_with(&format!("  {name} "))),
                "{name} is missing in:\n{help}"
            );
        }
    }
}
