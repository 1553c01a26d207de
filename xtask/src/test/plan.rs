//! Which cargo calls run every test once, and what is skipped when there is no server.

use std::path::Path;

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

/// The package whose test programs mostly wait, for a broker: they leave a quarter to half of two
/// cores idle, and those that run beside them on a server of another kind use it.
const WAITING: &str = "store-kafka";

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

/// The call that compiles what this one runs.
pub(crate) fn compiled(call: &[String]) -> Vec<String> {
    let mut words = for_cargo(call).to_vec();
    words.push("--no-run".to_owned());
    words
}

pub(crate) fn is_only_compiled(call: &[String]) -> bool {
    for_cargo(call)
        .iter()
        .any(|word| matches!(word.as_str(), "--no-run" | "--help" | "-h"))
}

/// A call that runs all test programs, as two that run at once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Apart {
    pub(crate) others: Vec<String>,
    /// The test programs that mostly wait, if there are any.
    pub(crate) waiting: Option<Vec<String>>,
}

impl Apart {
    /// The name of a test program, in a line of cargo that says what it compiled:
    /// `Executable tests/it/main.rs (target/debug/deps/it-0f3a)`.
    pub(crate) fn program(line: &str) -> Option<String> {
        let source = line.trim_start().strip_prefix("Executable ")?;
        let (source, program) = source.split_once(" (")?;
        let (_, file) = program.rsplit_once(['/', '\\'])?;
        let (name, _) = file.rsplit_once('-')?;
        // Without a `/` in front: the programs of a package in the root are in `tests/`, too.
        let is_test = source.starts_with("tests/") || source.starts_with("tests\\");
        is_test.then(|| name.to_owned())
    }

    /// Divides a call that says `--tests`, by the programs that there are.
    pub(crate) fn of(call: &[String], mut programs: Vec<String>, root: &Path) -> Apart {
        programs.sort_unstable();
        programs.dedup();
        let tests = root.join(WAITING).join("tests");
        let (waiting, others): (Vec<_>, Vec<_>) = programs.into_iter().partition(|name| {
            tests.join(format!("{name}.rs")).exists() || tests.join(name).join("main.rs").exists()
        });
        if waiting.is_empty() {
            return Apart {
                others: call.to_vec(),
                waiting: None,
            };
        }
        let chosen =
            |names: Vec<String>| names.into_iter().flat_map(|name| ["--test".into(), name]);
        let (others, waiting): (Vec<_>, Vec<_>) =
            (chosen(others).collect(), chosen(waiting).collect());
        let (of_cargo, of_tests) = call.split_at(for_cargo(call).len());
        let with = |names: &[String], without: &[&str]| {
            let kept = of_cargo.iter().filter(|word| !without.contains(&&***word));
            let mut words: Vec<String> = Vec::new();
            for word in kept {
                match word.as_str() {
                    "--tests" => words.extend_from_slice(names),
                    _ => words.push(word.clone()),
                }
            }
            words.extend_from_slice(of_tests);
            words
        };
        Apart {
            others: with(&others, &[]),
            waiting: Some(with(&waiting, &["--lib", "--bins", "--examples"])),
        }
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
    fn compiling_chooses_the_same_and_names_no_test() {
        assert_eq!(
            compiled(&words("test --lib -- --skip one")),
            words("test --lib --no-run")
        );
        assert!(is_only_compiled(&words("test --no-run --lib")));
        assert!(!is_only_compiled(&words("test --lib -- --no-run")));
    }

    #[test]
    fn each_program_is_in_one_of_the_calls_at_once() {
        let said = "  Executable unittests src/lib.rs (target/debug/deps/annals-1f)
  Executable tests/it/main.rs (target/debug/deps/it-2f)
  Executable tests/it/main.rs (target/debug/deps/it-3f)
  Executable tests/three_brokers.rs (target/debug/deps/three_brokers-4f)
  Executable tests/docs.rs (target/debug/deps/docs-5f)
  Executable unittests examples/bank/main.rs (target/debug/examples/bank-6f)";
        let programs: Vec<_> = said.lines().filter_map(Apart::program).collect();
        assert_eq!(programs, ["it", "it", "three_brokers", "docs"]);
        let call = words("test --all-features --lib --tests --examples -- --skip --lib");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert_eq!(
            Apart::of(&call, programs, root),
            Apart {
                others: words("test --all-features --lib --test docs --examples -- --skip --lib"),
                waiting: Some(words(
                    "test --all-features --test it --test three_brokers -- --skip --lib"
                )),
            }
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
