//! `cargo xtask bench`: the workloads, optimised.

use crate::program::{cargo, run as run_program};
use crate::stop::Stop;
use crate::test::Server;

/// Builds and runs the bench program, with a server of its own for the rows that need one;
/// everything typed goes to the program.
pub(crate) fn run(arguments: &[String]) -> Result<(), Stop> {
    let server = Server::find();
    // The program says which rows it left out when there is none.
    println!("{}", server.need);
    let ours = ["run", "--release", "--package", "annals-benches", "--"];
    let mut bench = cargo(ours.into_iter().chain(arguments.iter().map(String::as_str)));
    run_program(bench.envs(server.environment.iter().cloned()))
}
