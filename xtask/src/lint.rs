//! `cargo xtask lint`: everything that can be said about the code without running it.

mod crate_count;
mod lockfile;
mod repository;
mod rust_version;
mod sleeps;
mod tree;
mod unused;
mod walls;

use std::time::Instant;

use crate::program::{cargo, run as run_program};
use crate::stop::Stop;
use crate::terminal::say;

/// One thing looked at: `Ok` says what was found in order, or nothing when its tool has said so.
type Check = (&'static str, fn() -> Result<String, Stop>);

/// Quick ones first, so that a typo is known in seconds.
const CHECKS: [Check; 11] = [
    ("format", format),
    ("repository", repository::check),
    ("Cargo.lock", lockfile::check),
    ("sleeps", sleeps::check),
    ("walls", walls::check),
    ("crate count", crate_count::check),
    ("unused dependencies", unused::check),
    ("clippy", clippy),
    ("no features", no_features),
    ("rustdoc", rustdoc),
    ("rust-version", rust_version::check),
];

/// Makes every check, also after one that failed, and ends with the list of those that did.
pub(crate) fn run() -> Result<(), Stop> {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        say!("--- {name}");
        let began = Instant::now();
        let outcome = check();
        let seconds = began.elapsed().as_secs_f32();
        match outcome {
            Ok(found) => say!(
                "ok: {name}{}{found} ({seconds:.1} s)",
                if found.is_empty() { "" } else { ": " }
            ),
            Err(stop) => {
                say!("FAILED: {name}: {stop}");
                failed.push(name);
            }
        }
    }
    say!(
        "\n{} of {} checks passed",
        CHECKS.len() - failed.len(),
        CHECKS.len()
    );
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Stop::failed(format!("not in order: {}", failed.join(", "))))
    }
}

fn format() -> Result<String, Stop> {
    run_program(&mut cargo(["fmt", "--all", "--check"])).map(|()| String::new())
}

fn clippy() -> Result<String, Stop> {
    let words = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    run_program(&mut cargo(words)).map(|()| String::new())
}

/// Features only add, so the facade compiles without any.
fn no_features() -> Result<String, Stop> {
    let words = [
        "clippy",
        "--package",
        "annals",
        "--lib",
        "--no-default-features",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    run_program(&mut cargo(words)).map(|()| String::new())
}

fn rustdoc() -> Result<String, Stop> {
    let words = [
        "doc",
        "--workspace",
        "--all-features",
        "--no-deps",
        "--locked",
    ];
    run_program(cargo(words).env("RUSTDOCFLAGS", "-D warnings")).map(|()| String::new())
}
