//! Events a second, smoothed: what happened counts less the longer ago it was.

use std::time::Duration;

/// What happened this long ago counts about a third.
const MEMORY: Duration = Duration::from_secs(10);

/// A rate that follows changes within seconds and does not jump with every batch. The caller gives
/// the times, counted from one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    begun: Option<Duration>,
    last: Duration,
    // Each event weighs less from moment to moment.
    weight: f64,
}

impl Rate {
    /// So many events, between the call before and `now`.
    pub(crate) fn add(&mut self, now: Duration, events: u64) {
        self.begin(now);
        self.weight = self.weight_at(now) + events as f64;
        self.last = self.last.max(now);
    }

    /// From now on there can be events. Later calls change nothing.
    pub(crate) fn begin(&mut self, now: Duration) {
        if self.begun.is_none() {
            self.begun = Some(now);
            self.last = now;
        }
    }

    /// Events a second; nothing before a moment has passed.
    pub(crate) fn per_second(&self, now: Duration) -> Option<f64> {
        let passed = now
            .checked_sub(self.begun?)
            .filter(|passed| *passed > Duration::ZERO)?;
        // As many seconds as the weights are worth: all that passed at first, MEMORY in the long
        // run.
        let seconds =
            MEMORY.as_secs_f64() * -(-passed.as_secs_f64() / MEMORY.as_secs_f64()).exp_m1();
        Some(self.weight_at(now) / seconds)
    }

    fn weight_at(&self, now: Duration) -> f64 {
        let passed = now.saturating_sub(self.last).as_secs_f64();
        self.weight * (-passed / MEMORY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rate: &Rate, at_seconds: u64, expected: f64) {
        let found = rate.per_second(Duration::from_secs(at_seconds)).unwrap();
        assert!(
            (found - expected).abs() <= expected * 0.06 + 1.0,
            "{found} instead of {expected}"
        );
    }

    #[test]
    fn a_steady_rate_is_known_early_and_then_forgotten() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(Duration::from_secs(1)), None);
        rate.begin(Duration::ZERO);
        for second in 1..=60 {
            rate.add(Duration::from_secs(second), 1_000);
            check(&rate, second, 1_000.0);
        }
        check(&rate, 70, 368.0);
        check(&rate, 160, 0.0);
    }

    #[test]
    fn a_rate_follows_what_changes() {
        let mut rate = Rate::default();
        rate.begin(Duration::ZERO);
        for second in 1..=120 {
            rate.add(
                Duration::from_secs(second),
                if second <= 60 { 100 } else { 5_000 },
            );
        }
        check(&rate, 120, 5_000.0);
    }
}
