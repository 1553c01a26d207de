//! The calls of cargo. When everything is tested there are two, and the second runs beside the
//! programs of the first.

use std::io::Write;
use std::process::Command;
use std::thread;

use super::programs::Programs;
use super::server::Server;
use super::summary::{Lines, Summary};
use crate::program::{cargo, run_heard, run_watched};
use crate::stop::Stop;

/// How many tests run at once, for each core: a part of their time they wait, for a server, a lease
/// or another process.
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
/// When everything is tested, cargo only compiles what the first chooses. Its programs run several
/// at once and beside the second call, whose words are shown when they have ended.
pub(crate) fn run(
    calls: &[Vec<String>],
    servers: &[Server],
    is_everything: bool,
) -> Result<Outcome, Stop> {
    let mut outcome = Outcome::default();
    if let ([first, second], true) = (calls, is_everything)
        && let Some(programs) = Programs::compiled(first)?
    {
        let mut beside = command(second, servers);
        let beside = thread::spawn(move || heard(&mut beside));
        let ran = programs.run(servers);
        let heard = beside.join();
        outcome.add(first, ran?);
        let (said, passed) = heard.map_err(|_| Stop::failed("a call of cargo was lost"))??;
        // The reader may be gone; the exit code is still wanted.
        let _ = std::io::stdout().write_all(&said);
        outcome.add(second, passed);
        return Ok(outcome);
    }
    for call in calls {
        outcome.add(call, watched(call, servers)?);
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
    environment(&mut command, servers, 1);
    command
}

/// What tests learn of the servers, and how many of a program run at once where so many programs
/// do.
pub(super) fn environment(command: &mut Command, servers: &[Server], programs: usize) {
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let tests = (cores * TESTS_PER_CORE / programs).max(1);
        command.env("RUST_TEST_THREADS", tests.to_string());
    }
    for server in servers {
        command.envs(server.environment.iter().cloned());
    }
}
