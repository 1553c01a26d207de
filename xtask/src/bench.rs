//! `cargo xtask bench`: the workloads, optimised.

use crate::kafka;
use crate::program::{cargo, run as run_program};
use crate::stop::Stop;
use crate::terminal::say;
use crate::test::{KINDS, Server};

/// Builds and runs the bench program, with servers of its own for the rows that need one;
/// everything typed goes to the program.
pub(crate) fn run(arguments: &[String]) -> Result<(), Stop> {
    if let [word] = arguments
        && word == kafka::NAME
    {
        return [1, 3].into_iter().try_for_each(of_kafka);
    }
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

/// The rates of the Kafka crate, each beside a bare client, on brokers of their own.
fn of_kafka(nodes: u16) -> Result<(), Stop> {
    let (guard, brokers) = kafka::for_bench(nodes)?;
    for example in ["rates", "store_rates"] {
        say!(
            "{example}, {nodes} node{}",
            if nodes == 1 { "" } else { "s" }
        );
        let ours = [
            "run",
            "--release",
            "--all-features",
            "--package",
            "annals-kafka",
        ];
        let program = ["--example", example, "--", &brokers, &nodes.to_string()];
        run_program(&mut cargo(ours.into_iter().chain(program)))?;
    }
    drop(guard);
    Ok(())
}
