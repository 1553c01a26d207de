//! Which cargo calls run every test once, and what is skipped when there is no server.

use super::server::{Kind, Lacks};

/// Flags that choose packages.
const PACKAGES: [&str; 4] = ["-p", "--package", "--workspace", "--manifest-path"];

/// Flags that choose targets.
const TARGETS: [&str; 11] = [
    "--lib",
    "--bin",
    "--bins",
    "--test",
    "--tests",
    "--example",
    "--examples",
    "--bench",
    "--benches",
    "--doc",
    "--all-targets",
];

/// A kind of server, and what tests must do without.
pub(crate) type LackingServer = (&'static Kind, Lacks);

/// Whether a test that these arguments choose may need a server of this kind.
pub(crate) fn wants(kind: &Kind, arguments: &[String]) -> bool {
    let chosen = packages(arguments);
    let is_elsewhere = for_cargo(arguments)
        .iter()
        .any(|argument| is_one_of(argument, &["--manifest-path"]));
    chosen.is_empty() && !is_elsewhere || chosen.iter().any(|name| kind.packages.contains(name))
}

/// Whether nothing can be run without a server of this kind.
pub(crate) fn is_nothing_without(kind: &Kind, arguments: &[String]) -> bool {
    kind.package
        .is_some_and(|package| packages(arguments).contains(&package))
}

/// What does not run, in words; nothing when all does.
pub(crate) fn skips((kind, lacks): LackingServer) -> Option<String> {
    let name = kind.name;
    match lacks {
        Lacks::Nothing => None,
        Lacks::Restarts => Some(format!(
            "the tests in `{}`: {name} is external, and {} names no program that restarts it",
            kind.restarts_module, kind.control
        )),
        Lacks::Everything => Some(match kind.package {
            Some(package) => format!(
                "all of the package {package}, and the tests in `{}`: no {name}",
                kind.module
            ),
            None => format!("the tests in `{}`: no {name}", kind.module),
        }),
    }
}

/// Without a choice of packages or targets: all of them, which takes two calls, because cargo runs
/// the documentation's tests only when asked for nothing else. With a choice: one call, with that
/// choice.
pub(crate) fn cargo_calls(arguments: &[String], lacking: &[LackingServer]) -> Vec<Vec<String>> {
    let for_cargo = for_cargo(arguments);
    let mut for_tests = arguments[for_cargo.len()..].to_vec();
    let chosen = |flags: &[&str]| for_cargo.iter().any(|argument| is_one_of(argument, flags));

    let mut base = vec!["test"];
    if !chosen(&PACKAGES) {
        base.push("--workspace");
        let without = lacking
            .iter()
            .filter(|(_, lacks)| *lacks == Lacks::Everything)
            .filter_map(|(kind, _)| kind.package);
        without.for_each(|package| base.extend(["--exclude", package]));
    }
    base.extend(["--all-features", "--no-fail-fast"]);
    let skipped = lacking.iter().filter_map(|(kind, lacks)| match lacks {
        Lacks::Nothing => None,
        Lacks::Restarts => Some(kind.restarts_module),
        Lacks::Everything => Some(kind.module),
    });
    for module in skipped {
        if for_tests.is_empty() {
            for_tests.push("--".to_owned());
        }
        for_tests.extend(["--skip", module].map(str::to_owned));
    }
    let call = |targets: &[&str]| {
        let ours = base.iter().chain(targets).map(|&word| word.to_owned());
        ours.chain(for_cargo.iter().cloned())
            .chain(for_tests.iter().cloned())
            .collect()
    };

    if chosen(&PACKAGES) || chosen(&TARGETS) {
        vec![call(&[])]
    } else {
        // Benches are skipped: they are measured by `cargo xtask bench`, and compiled by `lint`.
        vec![
            call(&["--lib", "--bins", "--tests", "--examples"]),
            call(&["--doc"]),
        ]
    }
}

/// What comes before `--`.
fn for_cargo(arguments: &[String]) -> &[String] {
    arguments
        .split(|argument| argument == "--")
        .next()
        .unwrap_or_default()
}

/// The packages that are named.
pub(crate) fn packages(arguments: &[String]) -> Vec<&str> {
    let for_cargo = for_cargo(arguments);
    let apart = for_cargo
        .windows(2)
        .filter(|pair| matches!(&*pair[0], "-p" | "--package"))
        .map(|pair| &*pair[1]);
    let together = for_cargo
        .iter()
        .filter_map(|argument| argument.strip_prefix("--package="));
    apart.chain(together).collect()
}

fn is_one_of(argument: &str, flags: &[&str]) -> bool {
    let flag = argument.split_once('=').map_or(argument, |(flag, _)| flag);
    flags.contains(&flag)
}

#[cfg(test)]
mod tests {
    use super::super::server::KINDS;
    use super::*;
    use crate::postgres;

    #[track_caller]
    fn check(typed: &str, calls: &[&str]) {
        let typed = words(typed);
        let got: Vec<String> = cargo_calls(&typed, &[])
            .iter()
            .map(|call| call.join(" "))
            .collect();
        assert_eq!(got, calls);
    }

    fn words(typed: &str) -> Vec<String> {
        typed.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn with_nothing_chosen_every_test_runs_once() {
        check(
            "",
            &[
                "test --workspace --all-features --no-fail-fast --lib --bins --tests --examples",
                "test --workspace --all-features --no-fail-fast --doc",
            ],
        );
    }

    #[test]
    fn what_follows_the_dashes_reaches_the_tests_of_both_calls() {
        check(
            "--release -- --ignored --lib",
            &[
                "test --workspace --all-features --no-fail-fast --lib --bins --tests --examples \
                 --release -- --ignored --lib",
                "test --workspace --all-features --no-fail-fast --doc --release -- --ignored --lib",
            ],
        );
    }

    #[test]
    fn a_chosen_package_or_target_is_tested_alone() {
        check(
            "-p annals-core append",
            &["test --all-features --no-fail-fast -p annals-core append"],
        );
        check(
            "--package=annals-core",
            &["test --all-features --no-fail-fast --package=annals-core"],
        );
        check(
            "--test kill",
            &["test --workspace --all-features --no-fail-fast --test kill"],
        );
        check(
            "--doc",
            &["test --workspace --all-features --no-fail-fast --doc"],
        );
    }

    #[test]
    fn a_missing_server_skips_the_suites_that_need_it() {
        let call = |typed, lacks| {
            let lacking = KINDS.map(|kind| (kind, lacks));
            cargo_calls(&words(typed), &lacking)[0].join(" ")
        };
        assert_eq!(
            call("--doc -- --nocapture", Lacks::Everything),
            "test --workspace --exclude annals-postgres --all-features --no-fail-fast --doc -- \
             --nocapture --skip on_postgres:: --skip on_kafka::"
        );
        assert_eq!(
            call("-p annals", Lacks::Everything),
            "test --all-features --no-fail-fast -p annals -- --skip on_postgres:: --skip \
             on_kafka::"
        );
        assert_eq!(
            call("--lib", Lacks::Restarts),
            "test --workspace --all-features --no-fail-fast --lib -- --skip server_restarts:: \
             --skip on_own_broker::"
        );
    }

    #[test]
    fn a_server_is_started_only_where_needed() {
        for (typed, wanted) in [
            ("", true),
            ("--test kill", true),
            ("-p annals-postgres", true),
            ("--package=annals", true),
            ("-p annals-core -- -p annals", false),
            ("-p annals-core -p annals-postgres", true),
            ("--manifest-path somewhere/Cargo.toml", false),
        ] {
            assert_eq!(wants(&postgres::KIND, &words(typed)), wanted, "{typed}");
        }
        assert!(is_nothing_without(
            &postgres::KIND,
            &words("-p annals-postgres")
        ));
        assert!(!is_nothing_without(&postgres::KIND, &words("-p annals")));
    }
}
