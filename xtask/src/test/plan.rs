//! Which cargo calls run every test once.

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

/// Without a choice of packages or targets: all of them, which takes two calls, because cargo runs the
/// documentation's tests only when asked for nothing else. With a choice: one call, with that choice.
pub(crate) fn cargo_calls(arguments: &[String]) -> Vec<Vec<String>> {
    let dashes = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    let (for_cargo, for_tests) = arguments.split_at(dashes);
    let chosen = |flags: &[&str]| for_cargo.iter().any(|argument| is_one_of(argument, flags));

    let mut base = vec!["test"];
    if !chosen(&PACKAGES) {
        base.push("--workspace");
    }
    base.extend(["--all-features", "--no-fail-fast"]);
    let call = |targets: &[&str]| {
        let ours = base.iter().chain(targets).map(|&word| word.to_owned());
        ours.chain(for_cargo.iter().cloned()).chain(for_tests.iter().cloned()).collect()
    };

    if chosen(&PACKAGES) || chosen(&TARGETS) {
        vec![call(&[])]
    } else {
        // Benches are left out: they are measured by `cargo xtask bench`, and compiled by `lint`.
        vec![call(&["--lib", "--bins", "--tests", "--examples"]), call(&["--doc"])]
    }
}

fn is_one_of(argument: &str, flags: &[&str]) -> bool {
    let flag = argument.split_once('=').map_or(argument, |(flag, _)| flag);
    flags.contains(&flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(typed: &str, calls: &[&str]) {
        let typed: Vec<String> = typed.split_whitespace().map(str::to_owned).collect();
        let got: Vec<String> = cargo_calls(&typed).iter().map(|call| call.join(" ")).collect();
        assert_eq!(got, calls);
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
                "test --workspace --all-features --no-fail-fast --lib --bins --tests --examples --release -- --ignored --lib",
                "test --workspace --all-features --no-fail-fast --doc --release -- --ignored --lib",
            ],
        );
    }

    #[test]
    fn a_chosen_package_or_target_is_tested_alone() {
        check("-p annals-core append", &["test --all-features --no-fail-fast -p annals-core append"]);
        check("--package=annals-core", &["test --all-features --no-fail-fast --package=annals-core"]);
        check("--test kill", &["test --workspace --all-features --no-fail-fast --test kill"]);
        check("--doc", &["test --workspace --all-features --no-fail-fast --doc"]);
    }
}
