//! How many tests ran, read from the summaries that test programs print.

/// Adds up every `test result:` line of a stream of output.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    programs: u64,
    line: Vec<u8>,
}

impl Tally {
    /// Takes the next bytes of output; a line may come in several pieces.
    pub(crate) fn watch(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.count(&String::from_utf8_lossy(&line));
            } else {
                self.line.push(byte);
            }
        }
    }

    /// How many test programs were heard of.
    pub(crate) fn programs(&self) -> String {
        format!(
            "{} test program{}",
            self.programs,
            if self.programs == 1 { "" } else { "s" }
        )
    }

    /// The sums, in the words that test runners use.
    pub(crate) fn counts(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.ignored
        )
    }

    // `test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s`
    fn count(&mut self, line: &str) {
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
            self.programs += u64::from(passed + failed + ignored > 0);
        }
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
            let mut tally = Tally::default();
            OUTPUT
                .as_bytes()
                .chunks(size)
                .for_each(|piece| tally.watch(piece));
            assert_eq!(tally.counts(), "7 passed, 1 failed, 1 skipped");
            assert_eq!(tally.programs(), "2 test programs");
        }
    }
}
