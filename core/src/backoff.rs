//! How long to wait before the next attempt.

use std::time::Duration;

/// Waits that double from the first to the longest.
///
/// ```
/// use std::time::Duration;
///
/// use annals_core::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(150));
/// let waits = [(); 3].map(|()| backoff.next_wait().as_millis());
/// assert_eq!(waits, [50, 100, 150]);
/// backoff.reset();
/// assert_eq!(backoff.next_wait().as_millis(), 50);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    /// From `first`, doubling up to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff {
            first,
            longest,
            attempts: 0,
        }
    }

    /// The wait before the attempt that follows.
    pub fn next_wait(&mut self) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        self.wait_after(self.attempts)
    }

    /// The wait after so many attempts (from 1).
    pub fn wait_after(&self, attempts: u32) -> Duration {
        let doubled = 1_u32 << attempts.saturating_sub(1).min(30);
        self.first.saturating_mul(doubled).min(self.longest)
    }

    /// Something succeeded: the next failure is another one.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3_600));
        let seconds = [1, 2, 3, 12, 13, 1_000].map(|of| backoff.wait_after(of).as_secs());
        assert_eq!(seconds, [1, 2, 4, 2_048, 3_600, 3_600]);
    }
}
