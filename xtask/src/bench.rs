//! `cargo xtask bench`: the workloads, optimised.

use crate::program::{cargo, run as run_program};
use crate::stop::Stop;

/// Builds and runs the bench program; everything typed goes to it.
pub(crate) fn run(arguments: &[String]) -> Result<(), Stop> {
    let ours = ["run", "--release", "--package", "annals-benches", "--"];
    run_program(&mut cargo(ours.into_iter().chain(arguments.iter().map(String::as_str))))
}
