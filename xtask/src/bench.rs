//! `cargo xtask bench`: the workloads, optimised.

use crate::program::{cargo, run as run_program};
use crate::stop::Stop;
use crate::terminal::say;
use crate::test::{KINDS, Server};

/// Builds and runs the bench program, with servers of its own for the rows that need one;
/// everything typed goes to the program.
pub(crate) fn run(arguments: &[String]) -> Result<(), Stop> {
    let benched = KINDS
        .into_iter()
        .filter(|kind| kind.packages.contains(&"annals-benches"));
    let servers: Vec<Server> = benched.map(Server::find).collect();
    let ours = ["run", "--release", "--package", "annals-benches", "--"];
    let mut bench = cargo(ours.into_iter().chain(arguments.iter().map(String::as_str)));
    for server in &servers {
        // The program says which rows it skipped when there is none.
        say!("{}", server.need);
        bench.envs(server.environment.iter().cloned());
    }
    run_program(&mut bench)
}
