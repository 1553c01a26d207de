//! The calls of cargo: the last one runs beside the first, when there are two.

use std::io::Write;
use std::process::Command;
use std::thread;

use super::server::Server;
use super::summary::{Lines, Summary};
use crate::program::{cargo, run as run_program, run_heard, run_watched};
use crate::stop::Stop;

/// How many tests of a program run at once, for each core: most of their time they wait, for a
/// server, a lease or another process.
const TESTS_PER_CORE: usize = 2;

/// What is known after all calls.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) summary: Summary,
    /// Each call, and whether it passed.
    pub(crate) ran: Vec<String>,
    pub(crate) failed: bool,
}

/// Makes each call, also after one that failed, so that one run shows everything.
///
/// Two calls are made at once, after everything is compiled: the tests of the documentation are
/// work for the cores, and the others mostly wait. What the second says is shown when the first
/// has ended.
pub(crate) fn run(calls: &[Vec<String>], servers: &[Server]) -> Result<Outcome, Stop> {
    let mut outcome = Outcome::default();
    let is_compiled = |call| run_program(&mut command(&compiled(call), servers)).is_ok();
    match calls {
        [first, second] if !is_only_compiled(first) && is_compiled(first) => {
            let mut beside = command(second, servers);
            let beside = thread::spawn(move || heard(&mut beside));
            let shown = watched(first, servers);
            let heard = beside.join();
            outcome.add(first, shown?);
            let (said, passed) = heard.map_err(|_| Stop::failed("a call of cargo was lost"))??;
            // The reader may be gone; the exit code is still wanted.
            let _ = std::io::stdout().write_all(&said);
            outcome.add(second, passed);
        }
        _ => {
            for call in calls {
                outcome.add(call, watched(call, servers)?);
            }
        }
    }
    Ok(outcome)
}

impl Outcome {
    fn add(&mut self, call: &[String], (summary, passed): (Summary, bool)) {
        let outcome = if passed { "passed:   " } else { "FAILED:   " };
        self.ran.push(format!("{outcome} cargo {}", call.join(" ")));
        self.failed |= !passed;
        self.summary.merge(summary);
    }
}

fn watched(call: &[String], servers: &[Server]) -> Result<(Summary, bool), Stop> {
    summed(|take| run_watched(&mut command(call, servers), take))
}

/// What a call said, without showing it.
type Heard = (Vec<u8>, (Summary, bool));

fn heard(call: &mut Command) -> Result<Heard, Stop> {
    let mut said = Vec::new();
    let summed = summed(|take| {
        run_heard(call, |bytes| {
            take(bytes);
            said.extend_from_slice(bytes);
        })
    })?;
    Ok((said, summed))
}

/// Runs a call, and adds up what its test programs print.
fn summed(
    run: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<bool, Stop>,
) -> Result<(Summary, bool), Stop> {
    let mut summary = Summary::default();
    let mut lines = Lines::default();
    let passed = run(&mut |bytes| lines.take(bytes, |line| summary.take(line)))?;
    summary.end();
    Ok((summary, passed))
}

fn command(call: &[String], servers: &[Server]) -> Command {
    let mut command = cargo(call);
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        command.env("RUST_TEST_THREADS", (cores * TESTS_PER_CORE).to_string());
    }
    for server in servers {
        command.envs(server.environment.iter().cloned());
    }
    command
}

/// The call that compiles what this one runs.
fn compiled(call: &[String]) -> Vec<String> {
    let mut words: Vec<String> = call
        .iter()
        .take_while(|word| *word != "--")
        .cloned()
        .collect();
    words.push("--no-run".to_owned());
    words
}

fn is_only_compiled(call: &[String]) -> bool {
    call.iter()
        .take_while(|word| *word != "--")
        .any(|word| matches!(word.as_str(), "--no-run" | "--help" | "-h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiling_chooses_the_same_and_names_no_test() {
        let words = |typed: &str| typed.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            compiled(&words("test --lib -- --skip one")),
            words("test --lib --no-run")
        );
        assert!(is_only_compiled(&words("test --no-run --lib")));
        assert!(!is_only_compiled(&words("test --lib -- --no-run")));
    }
}
