//! `cargo xtask test`: every test, on a machine that may have nothing but Rust.
//!
//! First what the tests need from the machine is found or installed, then cargo runs them,
//! then the closing lines say what ran, with what, and what could not be had.

mod c_compiler;
mod need;
mod plan;
mod server;
mod tally;

use std::time::Instant;

use crate::kafka;
use crate::program::{cargo, run_watched};
use crate::stop::Stop;
pub(crate) use need::{Need, State};
use server::Lacks;
pub(crate) use server::Server;
use tally::Tally;

/// Runs all tests; arguments before `--` go to `cargo test`, those after it to the tests.
pub(crate) fn run(arguments: &[String]) -> Result<(), Stop> {
    let began = Instant::now();
    let compiler = c_compiler::need();
    if compiler.is_missing() {
        println!("{compiler}");
        return Err(Stop::failed("no test ran: something they need is missing"));
    }
    let server = plan::wants_server(arguments).then(Server::find);
    let lacks = server.as_ref().map_or(Lacks::Nothing, Server::lacks);
    if let Some(server) = &server
        && lacks == Lacks::Everything
        && plan::is_nothing_without_server(arguments)
    {
        println!("{}", server.need);
        return Err(Stop::failed("no test ran: there is no PostgreSQL"));
    }

    let kafka = kafka::is_wanted_by(&plan::packages(arguments)).then(kafka::Tested::find);
    let no_kafka = kafka.as_ref().and_then(kafka::Tested::skipped);

    let mut tally = Tally::default();
    let mut ran = Vec::new();
    let mut failed = false;
    for mut words in plan::cargo_calls(arguments, lacks) {
        if let Some(module) = no_kafka {
            plan::skip(&mut words, module);
        }
        let mut call = cargo(&words);
        call.envs(
            kafka
                .iter()
                .flat_map(|kafka| kafka.environment.iter().cloned()),
        );
        call.envs(
            server
                .iter()
                .flat_map(|server| server.environment.iter().cloned()),
        );
        // Each call has its turn also after a failure, so that one run shows everything.
        let passed = run_watched(&mut call, |bytes| tally.watch(bytes))?;
        ran.push(format!(
            "{}cargo {}",
            if passed { "passed:    " } else { "FAILED:    " },
            words.join(" ")
        ));
        failed |= !passed;
    }

    println!("\n{compiler}");
    server.iter().for_each(|server| println!("{}", server.need));
    kafka.iter().for_each(|kafka| println!("{}", kafka.need));
    ran.iter().for_each(|line| println!("{line}"));
    println!(
        "servers:   {}",
        server
            .as_ref()
            .map_or("none needed".to_owned(), Server::shown)
    );
    kafka
        .iter()
        .for_each(|kafka| println!("           {}", kafka.shown()));
    println!("{} in {} s", tally.programs(), began.elapsed().as_secs());
    println!("{}", tally.counts());
    // Last, so that nobody takes the rest for everything.
    plan::skips(lacks)
        .iter()
        .for_each(|what| println!("LEFT OUT:  {what}"));
    if let Some(module) = no_kafka {
        println!("LEFT OUT:  the tests in `{module}`");
    }
    match &server {
        _ if failed => Err(Stop::failed("a test failed, or did not compile")),
        Some(server) if lacks == Lacks::Everything && server.must_be_there() => {
            Err(Stop::failed("the tests that need PostgreSQL did not run"))
        }
        _ if kafka
            .as_ref()
            .is_some_and(|kafka| kafka.need.is_missing() && kafka.must_be_there()) =>
        {
            Err(Stop::failed("the tests that need Apache Kafka did not run"))
        }
        _ => Ok(()),
    }
}
