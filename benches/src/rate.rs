//! How much in how long, and the middle of several rounds.

use std::time::{Duration, Instant};

use crate::machine;

/// How many things were done, how long it took, and how much work that was for the processor.
///
/// ```
/// use std::time::Duration;
///
/// use annals_benches::rate::Rate;
///
/// let (took, cpu) = (Duration::from_millis(250), Duration::from_millis(100));
/// let rate = Rate { count: 500, took, cpu };
/// assert_eq!(rate.per_second(), 2_000.0);
/// assert_eq!(rate.cpu_microseconds_each(), 200.0);
/// ```
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Rate {
    /// How many.
    pub count: usize,
    /// How long.
    pub took: Duration,
    /// How long all threads of the process together were on a core, in steps of 10 milliseconds;
    /// zero where the system does not tell.
    pub cpu: Duration,
}

impl Rate {
    /// How many in a second.
    pub fn per_second(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64()
    }

    /// How long each one kept a core busy, in microseconds.
    pub fn cpu_microseconds_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.count as f64
    }
}

/// Measures from its start on.
///
/// ```
/// let watch = annals_benches::rate::Watch::start();
/// assert_eq!(watch.stop(7).count, 7);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    start: Instant,
    cpu: Duration,
}

impl Watch {
    /// From now on.
    pub fn start() -> Watch {
        Watch {
            cpu: machine::cpu_time(),
            start: Instant::now(),
        }
    }

    /// `count` things since the start.
    pub fn stop(&self, count: usize) -> Rate {
        let took = self.start.elapsed();
        Rate {
            count,
            took,
            cpu: machine::cpu_time().saturating_sub(self.cpu),
        }
    }
}

/// The middle value; of an even number the lower one of the two.
///
/// ```
/// assert_eq!(annals_benches::rate::median(&[3.0, 1.0, 2.0]), Some(2.0));
/// ```
pub fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// A number with separators: `1,234,567`, `12.3`, `0.87`.
///
/// ```
/// use annals_benches::rate::readable;
///
/// assert_eq!(readable(1_234_567.8), "1,234,568");
/// assert_eq!([readable(12.34), readable(0.866)], ["12.3", "0.87"]);
/// ```
pub fn readable(number: f64) -> String {
    if number < 10.0 {
        return format!("{number:.2}");
    }
    if number < 100.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
