//! How often a command is decided again when others got there first, and how long it waits in
//! between.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use crate::backoff::Backoff;

/// How often and how patiently to try again.
///
/// The waits double from `first_wait` up to `longest_wait`, each cut by a random half so that
/// racers part.
///
/// ```
/// let retries = annals_core::Retries::default();
/// assert_eq!(retries.attempts_max, 20);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Retries {
    /// Decisions of one command, the first included, before it gives up. Default: 20.
    pub attempts_max: u32,
    /// The wait before the second attempt. Default: 1 ms.
    pub first_wait: Duration,
    /// No wait is longer. Default: 100 ms.
    pub longest_wait: Duration,
}

impl Default for Retries {
    fn default() -> Retries {
        Retries {
            attempts_max: 20,
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(100),
        }
    }
}

impl Retries {
    /// Waits before the attempt after `attempts`.
    pub(crate) async fn pause(&self, attempts: u32) {
        tokio::time::sleep(self.wait_after(attempts)).await;
    }

    fn wait_after(&self, attempts: u32) -> Duration {
        let whole = Backoff::new(self.first_wait, self.longest_wait).wait_after(attempts);
        // A fresh `RandomState` is seeded at random; no better dice are needed here.
        let dice = RandomState::new().build_hasher().finish() % 1_000;
        whole / 2 + whole.mul_f64(dice as f64 / 2_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_differ() {
        let retries = Retries::default();
        for attempts in 1..100 {
            let whole =
                Duration::from_millis(1 << (attempts - 1).min(10)).min(retries.longest_wait);
            let wait = retries.wait_after(attempts);
            assert!(wait >= whole / 2 && wait <= whole, "{attempts}: {wait:?}");
        }
        let waits: std::collections::HashSet<_> = (0..20).map(|_| retries.wait_after(10)).collect();
        assert!(waits.len() > 1);
    }
}
