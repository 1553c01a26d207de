//! How long each of many things took.

use std::time::{Duration, Instant};

use crate::machine;

/// How long each thing took, and how much work all of them were for the processor.
///
/// ```
/// use std::time::Duration;
///
/// use annals_benches::latency::Latencies;
///
/// let each = (1..=200).map(Duration::from_micros).collect();
/// let latencies = Latencies { each, cpu: Duration::ZERO };
/// assert_eq!(latencies.percentile(50), Some(Duration::from_micros(100)));
/// assert_eq!(latencies.percentile(99), Some(Duration::from_micros(198)));
/// ```
#[derive(Clone, Debug, Default)]
#[allow(clippy::exhaustive_structs)]
pub struct Latencies {
    /// How long each one took, in any order.
    pub each: Vec<Duration>,
    /// How long all threads of the process together were on a core meanwhile; zero where the system
    /// does not tell.
    pub cpu: Duration,
}

impl Latencies {
    /// What so many in a hundred did not exceed; nothing when there were none.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut each = self.each.clone();
        each.sort_unstable();
        let rank = (each.len() * percent).div_ceil(100);
        each.get(rank.checked_sub(1)?).copied()
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Latencies) -> Latencies {
        self.each.extend(other.each);
        self.cpu += other.cpu;
        self
    }
}

/// Takes down how long one thing after another took.
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
    each: Vec<Duration>,
    cpu: Duration,
}

impl Laps {
    /// From now on.
    pub fn start() -> Laps {
        Laps {
            each: Vec::new(),
            cpu: machine::cpu_time(),
        }
    }

    /// One was begun then, and is done now.
    pub fn took(&mut self, since: Instant) {
        self.each.push(since.elapsed());
    }

    /// All of them.
    pub fn stop(self) -> Latencies {
        self.stop_with([])
    }

    /// All of them, and those that others took down.
    pub fn stop_with(mut self, others: impl IntoIterator<Item = Duration>) -> Latencies {
        self.each.extend(others);
        Latencies {
            each: self.each,
            cpu: machine::cpu_time().saturating_sub(self.cpu),
        }
    }
}
