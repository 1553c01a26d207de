//! How large the next batch may be: one that was not committed is not tried again as it was.
//!
//! A batch that takes longer to deliver than a transaction may last would be tried for ever. So
//! each failure halves the bounds of the next one, and commits let them grow again.

use std::sync::atomic::{AtomicU32, Ordering};

/// The most halvings: 4 MiB become 1 KiB.
const HALVINGS_MAX: u32 = 12;

/// So many commits one after another double what a batch may hold: a link that stays slow fails
/// only now and then.
const COMMITS: u32 = 16;

/// What the bounds of a batch are divided by. Kept over failures: what was too large is not tried
/// again as it was.
///
/// ```
/// use annals_runner::BatchLimit;
///
/// let limit = BatchLimit::default();
/// assert_eq!(limit.of(1_000), 1_000);
/// limit.failed();
/// assert_eq!(limit.of(1_000), 500);
/// limit.committed();
/// assert_eq!(limit.of(1_000), 500, "it grows after some more");
/// ```
#[derive(Debug, Default)]
pub struct BatchLimit {
    halvings: AtomicU32,
    commits: AtomicU32,
}

impl BatchLimit {
    /// What is left of a bound, and never nothing.
    pub fn of(&self, most: usize) -> usize {
        (most >> self.halvings.load(Ordering::Acquire)).max(1)
    }

    /// A batch was not committed.
    pub fn failed(&self) {
        self.commits.store(0, Ordering::Release);
        let more = self.halvings.load(Ordering::Acquire) + 1;
        self.halvings
            .store(more.min(HALVINGS_MAX), Ordering::Release);
    }

    /// A batch was committed.
    pub fn committed(&self) {
        let halvings = self.halvings.load(Ordering::Acquire);
        if halvings == 0 {
            return;
        }
        let commits = self.commits.load(Ordering::Acquire) + 1;
        self.commits.store(commits % COMMITS, Ordering::Release);
        if commits >= COMMITS {
            self.halvings.store(halvings - 1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_halve_a_batch_down_to_one_record() {
        let limit = BatchLimit::default();
        let sizes: Vec<usize> = (0..14)
            .map(|_| {
                limit.failed();
                limit.of(1_000)
            })
            .collect();
        assert_eq!(sizes, [500, 250, 125, 62, 31, 15, 7, 3, 1, 1, 1, 1, 1, 1]);
        assert_eq!(limit.of(4 << 20), 1_024);
    }

    #[test]
    fn commits_one_after_another_let_batches_grow() {
        let limit = BatchLimit::default();
        limit.failed();
        limit.failed();
        let commit = |times: u32| (0..times).for_each(|_| limit.committed());
        commit(COMMITS - 1);
        assert_eq!(limit.of(1_000), 250);
        limit.failed();
        commit(COMMITS - 1);
        assert_eq!(limit.of(1_000), 125, "counted from zero after a failure");
        commit(1);
        assert_eq!(limit.of(1_000), 250);
        commit(3 * COMMITS);
        assert_eq!(limit.of(1_000), 1_000);
    }
}
