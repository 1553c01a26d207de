//! A process that ends as `kill -9` ends it, at a step of its outlet.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use annals_kafka::testing::{Step, at_steps};

/// Names the step in the environment of the process.
pub(super) const STEP: &str = "ANNALS_KAFKA_KILLED_STEP";

pub(super) const STEPS: [Step; 5] = [
    Step::BeforeFence,
    Step::BeforeBegin,
    Step::AfterSend,
    Step::BeforeCommit,
    Step::AfterCommit,
];

/// How often a step is still passed until the process ends at it.
static LEFT: AtomicU32 = AtomicU32::new(0);

/// Ends this process when it comes to the step that its environment names, if it names one.
pub(super) fn ends_at_its_step() {
    // The fence comes once; of transactions the third is the one.
    let is_fence = std::env::var(STEP).is_ok_and(|step| step == "BeforeFence");
    LEFT.store(if is_fence { 1 } else { 3 }, Ordering::SeqCst);
    at_steps(die_at);
}

fn die_at(step: Step) {
    let wanted = std::env::var(STEP).unwrap_or_default();
    if wanted == format!("{step:?}") && LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
        let this = std::process::id().to_string();
        let _ = Command::new("kill").args(["-9", &this]).status();
        loop {
            std::thread::park();
        }
    }
}
