//! How many tests ran, how long each suite took and what failed, read from what cargo and test
//! programs print.

use std::time::Instant;

/// How many lines of what a failed test printed are repeated at the end.
const LINES_OF_A_FAILURE: usize = 6;

/// How much of such a line.
const CHARACTERS_OF_A_LINE: usize = 300;

/// Adds up every `test result:` line of a stream of output.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    passed: u64,
    failed: u64,
    ignored: u64,
    suites: Vec<Suite>,
    /// What cargo said last that it runs, and when.
    running: Option<(String, Instant)>,
    /// What the failed tests of the running program printed: name, and the first lines.
    printed: Vec<(String, Vec<String>)>,
    /// What the next lines are.
    next: Next,
    /// The program that ended last.
    last: Option<String>,
    /// Each failed test, with its program and what it printed, and what did not compile.
    failures: Vec<String>,
}

/// What lines without a mark of their own are.
#[derive(Debug, Default, PartialEq)]
enum Next {
    #[default]
    Anything,
    /// What a failed test printed.
    Printed,
    /// Names of failed tests; one that printed nothing is named nowhere else.
    FailedTests,
    /// The programs that failed, in cargo's last words.
    FailedPrograms,
}

/// One test program, and what it took.
#[derive(Debug)]
struct Suite {
    name: String,
    tests: u64,
    seconds: f64,
}

/// The next lines of a stream whose bytes come in pieces.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    /// Takes the next bytes and hands out the lines that they complete.
    pub(crate) fn take(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        for &byte in bytes {
            if byte == b'\n' {
                line(&String::from_utf8_lossy(&self.0));
                self.0.clear();
            } else {
                self.0.push(byte);
            }
        }
    }
}

impl Summary {
    /// Takes the next line of output.
    pub(crate) fn take(&mut self, line: &str) {
        self.cargo_says(line);
        self.failed_test_says(line);
        self.program_says(line);
    }

    /// Adds what another stream of output said.
    pub(crate) fn merge(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.suites.extend(other.suites);
        self.failures.extend(other.failures);
    }

    /// Says that there is no more output.
    pub(crate) fn end(&mut self) {
        if let Some((name, _)) = self.running.take() {
            self.failures.push(format!("{name} ended in the middle"));
        }
    }

    /// A line of cargo's own: `Running tests/it/main.rs (target/…/it-0f3a)`.
    fn cargo_says(&mut self, line: &str) {
        let line = line.trim_start();
        let name = line
            .strip_prefix("Running ")
            .or_else(|| line.strip_prefix("Doc-tests "));
        if let Some(name) = name {
            let is_documentation = line.starts_with("Doc-tests");
            let name = match name.rsplit_once('/') {
                Some((_, program)) if !is_documentation => program,
                _ => name,
            };
            let source = line.split_whitespace().rev().nth(1).unwrap_or_default();
            let shown = match name.trim_end_matches(')').rsplit_once('-') {
                Some((program, _)) if !is_documentation => format!("{program} ({source})"),
                _ => format!("{name} (documentation)"),
            };
            self.end();
            self.next = Next::Anything;
            self.running = Some((shown, Instant::now()));
        } else if let Some(how) = line.strip_prefix("process didn't exit successfully: ") {
            self.program_ended(how);
        } else if line.starts_with("error: ") && line.ends_with(" failed:") {
            self.next = Next::FailedPrograms;
        } else if self.next == Next::FailedPrograms && line.starts_with('`') {
            self.failures.push(format!("failed: {line}"));
        } else if self.running.is_none()
            && (line.starts_with("error[") || line.starts_with("error: could not compile"))
        {
            self.failures.push(line.to_owned());
        }
    }

    // `---- one::two stdout ----`, what the test printed, and after all of them `failures:`.
    /// A line of what the test runner prints about failed tests.
    fn failed_test_says(&mut self, line: &str) {
        let name = line
            .strip_prefix("---- ")
            .and_then(|line| line.strip_suffix(" stdout ----"));
        if let Some(name) = name {
            self.printed.push((name.to_owned(), Vec::new()));
            self.next = Next::Printed;
        } else if line == "failures:" {
            self.next = Next::FailedTests;
        } else if let Some(name) = line.strip_prefix("    ")
            && self.next == Next::FailedTests
        {
            if self.printed.iter().all(|(printed, _)| printed != name) {
                self.printed.push((name.to_owned(), Vec::new()));
            }
        } else if self.next == Next::Printed
            && !line.trim().is_empty()
            && let Some((_, lines)) = self.printed.last_mut()
            && lines.len() < LINES_OF_A_FAILURE
        {
            lines.push(line.chars().take(CHARACTERS_OF_A_LINE).collect());
        }
    }

    /// How a program ended, in cargo's words: the command, and the exit status or signal in
    /// brackets. Failed tests are the usual reason, and are named themselves.
    fn program_ended(&mut self, how: &str) {
        let status = how.rsplit_once('(').map_or(how, |(_, status)| status);
        let status = status.trim_end_matches(')');
        if let Some((name, _)) = self.running.take() {
            self.failures
                .push(format!("{name} ended in the middle: {status}"));
        } else if status != "exit status: 101"
            && let Some(name) = &self.last
        {
            self.failures
                .push(format!("{name} ended badly after its last test: {status}"));
        }
    }

    // `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in
    // 0.01s`
    /// A line of a test program.
    fn program_says(&mut self, line: &str) {
        // A test that writes without a newline leaves its words in front.
        let Some((_, summary)) = line.split_once("test result: ") else {
            return;
        };
        let Some((_, counts)) = summary.split_once(". ") else {
            return;
        };
        let count_of = |what: &str| {
            let part = counts.split("; ").find_map(|part| part.strip_suffix(what));
            part.and_then(|number| number.trim().parse::<u64>().ok())
        };
        if let (Some(passed), Some(failed), Some(ignored)) = (
            count_of(" passed"),
            count_of(" failed"),
            count_of(" ignored"),
        ) {
            self.passed += passed;
            self.failed += failed;
            self.ignored += ignored;
            self.ended(passed + failed + ignored, counts);
        }
    }

    fn ended(&mut self, tests: u64, counts: &str) {
        let by_itself = counts
            .rsplit_once("finished in ")
            .and_then(|(_, seconds)| seconds.trim_end_matches('s').parse().ok());
        let (name, seconds) = match self.running.take() {
            Some((name, began)) => (name, began.elapsed().as_secs_f64()),
            None => ("another program".to_owned(), 0.0),
        };
        for (test, lines) in self.printed.drain(..) {
            self.failures.push(format!("{test} of {name}"));
            self.failures
                .extend(lines.into_iter().map(|line| format!("    {line}")));
        }
        self.next = Next::Anything;
        self.last = Some(name.clone());
        if tests > 0 {
            self.suites.push(Suite {
                name,
                tests,
                seconds: by_itself.unwrap_or(seconds),
            });
        }
    }

    /// The suites, the longest first; those under a second are added up.
    pub(crate) fn times(&self) -> Vec<String> {
        let mut suites: Vec<&Suite> = self.suites.iter().collect();
        suites.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
        let (long, short): (Vec<_>, Vec<_>) =
            suites.into_iter().partition(|suite| suite.seconds >= 1.0);
        let mut lines: Vec<String> = long
            .iter()
            .map(|suite| {
                format!(
                    "{:>7.1} s  {} tests  {}",
                    suite.seconds, suite.tests, suite.name
                )
            })
            .collect();
        if !short.is_empty() {
            let seconds: f64 = short.iter().map(|suite| suite.seconds).sum();
            let tests: u64 = short.iter().map(|suite| suite.tests).sum();
            let programs = short.len();
            lines.push(format!(
                "{seconds:>7.1} s  {tests} tests  {programs} others together"
            ));
        }
        lines
    }

    /// What failed, or did not compile: each test with its program and, indented, the first lines
    /// that it printed.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// How many test programs were heard of.
    pub(crate) fn programs(&self) -> String {
        let programs = self.suites.len();
        format!(
            "{programs} test program{}",
            if programs == 1 { "" } else { "s" }
        )
    }

    /// The sums, in the words that test runners use.
    pub(crate) fn counts(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.ignored
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 2 tests
test a ... ok
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s

test result: FAILED. 5 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 2.00s
test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
the test result: unclear
";

    #[test]
    fn summaries_add_up_however_the_output_is_cut() {
        for size in [1, 7, OUTPUT.len()] {
            let mut summary = Summary::default();
            let mut lines = Lines::default();
            for piece in OUTPUT.as_bytes().chunks(size) {
                lines.take(piece, |line| summary.program_says(line));
            }
            assert_eq!(summary.counts(), "7 passed, 1 failed, 1 skipped");
            assert_eq!(summary.programs(), "2 test programs");
        }
    }

    #[test]
    fn failed_tests_are_named_with_what_they_printed() {
        let mut summary = Summary::default();
        let output = "error[E0425]: cannot find value `three` in this scope
     Running tests/it/main.rs (target/debug/deps/it-2f)
test one::two ... FAILED

failures:

---- one::two stdout ----

thread 'one::two' (7) panicked at tests/it/one.rs:3:5:
two is not three

failures:
    one::quiet
    one::two

test result: FAILED. 0 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s

error: test failed, to rerun pass `-p annals-core --test it`

Caused by:
  process didn't exit successfully: `target/debug/deps/it-2f` (exit status: 101)
     Running tests/cut.rs (target/debug/deps/cut-2f)
running 1 test
error: test failed, to rerun pass `-p annals-core --test cut`

Caused by:
  process didn't exit successfully: `target/debug/deps/cut-2f` (signal: 6, SIGABRT)
     Running tests/torn.rs (target/debug/deps/torn-2f)
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
error: test failed, to rerun pass `-p annals-core --test torn`

Caused by:
  process didn't exit successfully: `target/debug/deps/torn-2f` (signal: 11, SIGSEGV)
error: 3 targets failed:
    `-p annals-core --test it`
     Running tests/last.rs (target/debug/deps/last-2f)
running 1 test";
        output.lines().for_each(|line| summary.take(line));
        summary.end();
        assert_eq!(
            summary.failures(),
            [
                "error[E0425]: cannot find value `three` in this scope",
                "one::two of it (tests/it/main.rs)",
                "    thread 'one::two' (7) panicked at tests/it/one.rs:3:5:",
                "    two is not three",
                "one::quiet of it (tests/it/main.rs)",
                "cut (tests/cut.rs) ended in the middle: signal: 6, SIGABRT",
                "torn (tests/torn.rs) ended badly after its last test: signal: 11, SIGSEGV",
                "failed: `-p annals-core --test it`",
                "last (tests/last.rs) ended in the middle",
            ]
        );
    }

    #[test]
    fn suites_are_listed_with_the_longest_first() {
        let mut summary = Summary::default();
        for (cargo, program) in [
            (
                "     Running unittests src/lib.rs (target/debug/deps/annals_core-1f)",
                "0.20",
            ),
            (
                "     Running tests/it/main.rs (target/debug/deps/it-2f)",
                "2.00",
            ),
            ("   Doc-tests annals_core", "7.50"),
        ] {
            summary.cargo_says(cargo);
            summary.program_says(&format!(
                "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; \
                 finished in {program}s"
            ));
        }
        assert_eq!(
            summary.times(),
            [
                "    7.5 s  3 tests  annals_core (documentation)",
                "    2.0 s  3 tests  it (tests/it/main.rs)",
                "    0.2 s  3 tests  1 others together",
            ]
        );
    }
}
