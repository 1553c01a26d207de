//! The calls of cargo. Of two, the second runs beside the first, and so do the programs that mostly
//! wait.

use std::io::Write;
use std::process::Command;
use std::thread;

use super::plan::{Apart, compiled, is_only_compiled};
use super::server::Server;
use super::summary::{Lines, Summary};
use crate::program::{cargo, root, run_heard, run_watched};
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
/// work for the cores, and the others mostly wait. The programs that wait most run beside both.
/// What is beside is shown when the first has ended.
pub(crate) fn run(calls: &[Vec<String>], servers: &[Server]) -> Result<Outcome, Stop> {
    let mut outcome = Outcome::default();
    let apart = match calls {
        [first, _] if !is_only_compiled(first) => apart(first, servers)?,
        _ => None,
    };
    let (Some(apart), [first, second]) = (apart, calls) else {
        for call in calls {
            outcome.add(call, watched(call, servers)?);
        }
        return Ok(outcome);
    };
    let beside = [Some(second.clone()), apart.waiting];
    let beside: Vec<_> = beside.into_iter().flatten().collect();
    let threads: Vec<_> = beside
        .iter()
        .map(|call| {
            let mut command = command(call, servers);
            thread::spawn(move || heard(&mut command))
        })
        .collect();
    let shown = watched(&apart.others, servers);
    let heard: Vec<_> = threads.into_iter().map(thread::JoinHandle::join).collect();
    outcome.add(first, shown?);
    for (call, heard) in beside.iter().zip(heard) {
        let (said, passed) = heard.map_err(|_| Stop::failed("a call of cargo was lost"))??;
        // The reader may be gone; the exit code is still wanted.
        let _ = std::io::stdout().write_all(&said);
        outcome.add(call, passed);
    }
    Ok(outcome)
}

/// Compiles what a call runs, and divides it; nothing when it did not compile.
fn apart(call: &[String], servers: &[Server]) -> Result<Option<Apart>, Stop> {
    let mut programs = Vec::new();
    let mut lines = Lines::default();
    let is_compiled = run_watched(&mut command(&compiled(call), servers), |bytes| {
        lines.take(bytes, |line| programs.extend(Apart::program(line)));
    })?;
    Ok(is_compiled.then(|| Apart::of(call, programs, &root())))
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
