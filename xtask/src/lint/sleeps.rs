//! Tests and examples wait for the thing, not for a while.
//!
//! Clippy has one list of forbidden functions for all targets of a workspace, and products may
//! sleep (a back-off, a poll), so tests and examples are looked at here.

use std::path::Path;

use crate::program::{answer, program, root};
use crate::stop::Stop;

/// Calls that wait for a while, in two halves so that this file does not make them.
const SLEEPS: [(&str, &str); 2] = [("time::", "sleep("), ("thread::", "sleep(")];

/// Directories whose code is tests or examples, wherever they are in a path.
const ROOMS: [&str; 3] = ["tests", "examples", "conformance"];

/// Files that may: what is tested there is a moment that nothing announces.
const ALLOWED: [(&str, &str); 6] = [
    (
        "store-kafka/examples/store_rates.rs",
        "callers append for a while",
    ),
    (
        "store-kafka/examples/rates.rs",
        "the memory of a reader that does nothing for a while",
    ),
    (
        "store-kafka/tests/it/on_kafka/outlets.rs",
        "a transaction ends while marks are read",
    ),
    (
        "store-kafka/tests/it/on_kafka/processors.rs",
        "a process is killed in the middle of its work",
    ),
    (
        "store-kafka/tests/it/on_kafka/read_models.rs",
        "a process is killed in the middle of its work",
    ),
    (
        "store-kafka/tests/it/on_kafka/killed_relays.rs",
        "a process is killed in the middle of its work",
    ),
];

/// No file of a test or an example sleeps, except those that are listed with their reason.
pub(crate) fn check() -> Result<String, Stop> {
    let files = answer(&mut program("git", ["ls-files", "-z", "--", "*.rs"]))?;
    let mut found = Vec::new();
    let mut looked_at = 0;
    for name in files.split('\0').filter(|name| is_looked_at(name)) {
        let path = root().join(name);
        if !path.exists() {
            continue;
        }
        looked_at += 1;
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Stop::failed(format!("cannot read {name}: {error}")))?;
        found.extend(sleeps(&text).map(|line| {
            format!(
                "{name}:{line}: it sleeps; wait for the thing (a `tokio::time::interval` between \
                 two looks, a channel, a future that ends)"
            )
        }));
    }
    if found.is_empty() {
        let allowed: Vec<String> = ALLOWED
            .iter()
            .map(|(name, reason)| format!("{name} ({reason})"))
            .collect();
        Ok(format!(
            "{looked_at} files; not looked at: {}",
            allowed.join(", ")
        ))
    } else {
        Err(Stop::failed(found.join("\n")))
    }
}

fn is_looked_at(name: &str) -> bool {
    let in_room = Path::new(name)
        .components()
        .any(|part| ROOMS.iter().any(|room| part.as_os_str() == *room));
    in_room && !ALLOWED.iter().any(|(allowed, _)| *allowed == name)
}

/// The numbers of the lines that sleep.
fn sleeps(text: &str) -> impl Iterator<Item = usize> + '_ {
    text.lines().enumerate().filter_map(|(at, line)| {
        let code = line.split("//").next().unwrap_or_default();
        let calls = SLEEPS
            .iter()
            .any(|(module, call)| code.contains(&format!("{module}{call}")));
        calls.then_some(at + 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_found_and_a_mention_is_not() {
        let call = SLEEPS.map(|(module, call)| format!("{module}{call}"));
        let text = format!(
            "let a = 1;\n    tokio::{}x).await;\n// tokio::{}\nstd::{}y);\n",
            call[0], call[0], call[1]
        );
        assert_eq!(sleeps(&text).collect::<Vec<_>>(), [2, 4]);
    }

    #[test]
    fn tests_and_examples_are_looked_at_and_products_are_not() {
        for (name, looked_at) in [
            ("tests/tables/cut.rs", true),
            ("core/tests/it/main.rs", true),
            ("examples/texts.rs", true),
            ("core/src/conformance/log.rs", true),
            ("runner/src/lease.rs", false),
            ("store-kafka/tests/it/on_kafka/outlets.rs", false),
        ] {
            assert_eq!(is_looked_at(name), looked_at, "{name}");
        }
    }
}
