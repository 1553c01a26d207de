//! How long each of many things took.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::machine;

/// How long each thing took, and how much work all of them were for the processor. Times are kept
/// to three digits.
///
/// ```
/// use std::time::Duration;
///
/// use annals_benches::latency::Laps;
///
/// let laps = Laps::start();
/// let latencies = laps.stop_with((1..=200).map(Duration::from_micros));
/// let p99 = latencies.percentile(99).unwrap_or_default();
/// assert!(p99.abs_diff(Duration::from_micros(198)) < Duration::from_micros(1));
/// ```
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Latencies {
    /// Nanoseconds.
    pub each: Histogram<u64>,
    /// How long all threads of the process together were on a core meanwhile; zero where the system
    /// does not say.
    pub cpu: Duration,
}

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies {
            each: nanoseconds(),
            cpu: Duration::ZERO,
        }
    }
}

fn nanoseconds() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are a legal precision")
}

impl Latencies {
    /// What so many in a hundred did not exceed; nothing when there were none.
    pub fn percentile(&self, percent: u8) -> Option<Duration> {
        let value = || Duration::from_nanos(self.each.value_at_percentile(percent.into()));
        (!self.each.is_empty()).then(value)
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Latencies) -> Latencies {
        self.each += other.each;
        self.cpu += other.cpu;
        self
    }
}

/// Records how long one thing after another took.
///
/// ```
/// use std::time::Instant;
///
/// use annals_benches::latency::Laps;
///
/// let mut laps = Laps::start();
/// laps.took(Instant::now());
/// assert_eq!(laps.stop().each.len(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct Laps {
    each: Histogram<u64>,
    cpu: Duration,
}

impl Laps {
    /// From now on.
    pub fn start() -> Laps {
        Laps {
            each: nanoseconds(),
            cpu: machine::cpu_time(),
        }
    }

    /// One was begun then, and is done now.
    pub fn took(&mut self, since: Instant) {
        self.add(since.elapsed());
    }

    fn add(&mut self, time: Duration) {
        self.each += u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    }

    /// All of them.
    pub fn stop(self) -> Latencies {
        self.stop_with([])
    }

    /// All of them, and those that others recorded.
    pub fn stop_with(mut self, others: impl IntoIterator<Item = Duration>) -> Latencies {
        others.into_iter().for_each(|time| self.add(time));
        Latencies {
            each: self.each,
            cpu: machine::cpu_time().saturating_sub(self.cpu),
        }
    }
}
