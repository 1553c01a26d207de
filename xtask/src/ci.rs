//! `cargo xtask ci`: everything that a change must pass, with a header and a time per step.

use std::time::Instant;

use crate::stop::Stop;
use crate::terminal::say;
use crate::{examples, lint, test};

type Step = (&'static str, fn() -> Result<(), Stop>);

const STEPS: [Step; 3] = [
    ("test", || test::run(&[])),
    ("lint", lint::run),
    ("examples", examples::run),
];

/// Runs every step, also after one that failed, and ends by saying which passed.
pub(crate) fn run() -> Result<(), Stop> {
    let began = Instant::now();
    let mut closing = Vec::new();
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        say!(
            "\n=== cargo xtask {name}   ({} s since the start)\n",
            began.elapsed().as_secs()
        );
        let step_began = Instant::now();
        let outcome = step();
        let seconds = step_began.elapsed().as_secs();
        match outcome {
            Ok(()) => closing.push(format!("passed  cargo xtask {name}  ({seconds} s)")),
            Err(stop) => {
                closing.push(format!("FAILED  cargo xtask {name}  ({seconds} s): {stop}"));
                failed.push(name);
            }
        }
    }
    say!(
        "\n=== after {} s\n{}",
        began.elapsed().as_secs(),
        closing.join("\n")
    );
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Stop::failed(format!("{} failed", failed.join(" and "))))
    }
}
