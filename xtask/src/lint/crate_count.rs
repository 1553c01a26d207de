//! How much a user compiles: the crates that `cargo add annals` brings.

use std::collections::BTreeSet;

use crate::program::{answer, cargo};
use crate::stop::Stop;

/// The default build stays below this many crates.
const LIMIT: usize = 62;

/// Counts every crate that a default build of the facade compiles on this platform: ours and
/// others', build scripts' and macros' included, two versions of one crate as two.
pub(crate) fn check() -> Result<String, Stop> {
    let words = [
        "tree",
        "--package",
        "annals",
        "--locked",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
    ];
    let crates = distinct(&answer(cargo(words).args(["--format", "{p}"]))?);
    if crates.len() < LIMIT {
        return Ok(format!(
            "the default build of `annals` is {} crates, its own included (limit: below {LIMIT})",
            crates.len()
        ));
    }
    let names = crates.into_iter().collect::<Vec<_>>();
    Err(Stop::failed(format!(
        "the default build of `annals` is {} crates, not below {LIMIT}:\n{}",
        names.len(),
        names.join("\n")
    )))
}

// `serde v1.0.229 (*)` is a crate that was listed before.
fn distinct(tree: &str) -> BTreeSet<String> {
    let lines = tree.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            line.split_whitespace()
                .take(2)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_counts_once_and_its_versions_count_each() {
        let tree =
            "annals v0.1.0 (/a/b)\nserde v1.0.229\nsyn v2.0.1\nsyn v3.0.9\nserde v1.0.229 (*)\n\n";
        assert_eq!(
            distinct(tree).into_iter().collect::<Vec<_>>(),
            [
                "annals v0.1.0",
                "serde v1.0.229",
                "syn v2.0.1",
                "syn v3.0.9",
            ]
        );
    }
}
