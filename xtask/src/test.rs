//! `cargo xtask test`: every test, on a machine that may have nothing but Rust.
//!
//! First what the tests need from the machine is found or installed, then cargo runs them,
//! then the closing lines say what ran, with what, and what could not be had.

mod c_compiler;
mod need;
mod plan;
mod tally;

use std::time::Instant;

use crate::program::{cargo, run_watched};
use crate::stop::Stop;
use need::Need;
use tally::Tally;

/// Runs all tests; arguments before `--` go to `cargo test`, those after it to the tests.
pub(crate) fn run(arguments: &[String]) -> Result<(), Stop> {
    let began = Instant::now();
    let needs = [c_compiler::need()];
    if needs.iter().any(Need::is_missing) {
        println!("{}", closing(&needs, &[]));
        return Err(Stop::failed("no test ran: something they need is missing"));
    }

    let mut tally = Tally::default();
    let mut ran = Vec::new();
    let mut failed = false;
    for words in plan::cargo_calls(arguments) {
        // Each call has its turn also after a failure, so that one run shows everything.
        let passed = run_watched(&mut cargo(&words), |bytes| tally.watch(bytes))?;
        ran.push(format!("{}cargo {}", if passed { "passed:    " } else { "FAILED:    " }, words.join(" ")));
        failed |= !passed;
    }

    println!("\n{}", closing(&needs, &ran));
    println!("servers:   none needed");
    println!("{} in {} s", tally.programs(), began.elapsed().as_secs());
    println!("{}", tally.counts());
    if failed { Err(Stop::failed("a test failed, or did not compile")) } else { Ok(()) }
}

fn closing(needs: &[Need], ran: &[String]) -> String {
    let needs = needs.iter().map(Need::to_string);
    let ran = ran.iter().cloned();
    needs.chain(ran).collect::<Vec<_>>().join("\n")
}
