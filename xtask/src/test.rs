//! `cargo xtask test`: every test, on a machine that may have nothing but Rust.
//!
//! First what the tests need from the machine is found or installed, then cargo runs them,
//! then the closing lines say what ran, with what, and what could not be had.

mod c_compiler;
mod calls;
mod need;
mod plan;
mod server;
mod summary;

use std::time::Instant;

use crate::stop::Stop;
use crate::terminal::say;
use calls::Outcome;
pub(crate) use need::State;
use plan::LackingServer;
use server::Lacks;
pub(crate) use server::{KINDS, Kind, Server, Started};

/// Runs all tests; arguments before `--` go to `cargo test`, those after it to the tests.
pub(crate) fn run(arguments: &[String]) -> Result<(), Stop> {
    let began = Instant::now();
    let compiler = c_compiler::need();
    if compiler.is_missing() {
        say!("{compiler}");
        return Err(Stop::failed("no test ran: something they need is missing"));
    }
    let wanted = KINDS
        .into_iter()
        .filter(|kind| plan::wants(kind, arguments));
    let servers: Vec<Server> = wanted.map(Server::find).collect();
    let lacking: Vec<LackingServer> = servers
        .iter()
        .map(|server| (server.kind, server.lacks()))
        .collect();
    for server in servers.iter().filter(|server| server.need.is_missing()) {
        if plan::is_nothing_without(server.kind, arguments) {
            say!("{}", server.need);
            let name = server.kind.name;
            return Err(Stop::failed(format!("no test ran: there is no {name}")));
        }
    }

    let calls = plan::cargo_calls(arguments, &lacking);
    let Outcome {
        summary,
        ran,
        failed,
    } = calls::run(&calls, &servers)?;

    say!("\n{compiler}");
    servers.iter().for_each(|server| say!("{}", server.need));
    ran.iter().for_each(|line| say!("{line}"));
    if servers.is_empty() {
        say!("servers:   none needed");
    }
    for server in &servers {
        say!("server:    {}", server.shown());
    }
    summary.times().iter().for_each(|line| say!("{line}"));
    say!("{} in {} s", summary.programs(), began.elapsed().as_secs());
    say!("{}", summary.counts());
    // Last, so that the rest is not taken for everything.
    for skipped in lacking.iter().filter_map(|lacking| plan::skips(*lacking)) {
        say!("SKIPPED:   {skipped}");
    }
    if failed {
        // The last words of a run, where somebody who sees only its end finds them.
        let mut why = "a test failed, or did not compile".to_owned();
        for line in summary.failures() {
            why.push_str("\n    ");
            why.push_str(line);
        }
        return Err(Stop::failed(why));
    }
    let missing = servers
        .iter()
        .find(|server| server.lacks() == Lacks::Everything && server.must_be_there());
    match missing {
        Some(server) => Err(Stop::failed(format!(
            "the tests that need {} did not run",
            server.kind.name
        ))),
        None => Ok(()),
    }
}
