//! Event time: microseconds, spans between them, and windows over them.

use serde::{Deserialize, Serialize};
use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// A moment of event time, in microseconds since 1970; earlier moments are negative.
///
/// Arithmetic saturates at [`Time::MIN`] and [`Time::MAX`] and never panics.
///
/// ```
/// use annals_streams::{Span, Time};
///
/// let noon = Time::from_micros(43_200_000_000);
/// assert_eq!(noon + Span::from_micros(5), Time::from_micros(43_200_000_005));
/// assert_eq!(Time::MAX + Span::from_micros(1), Time::MAX);
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Time(i64);

impl Time {
    /// Before everything; also the watermark before the first record.
    pub const MIN: Time = Time(i64::MIN);
    /// After everything; a watermark of this closes all that is open.
    pub const MAX: Time = Time(i64::MAX);

    /// The moment so many microseconds after the beginning of 1970.
    ///
    /// ```
    /// # use annals_streams::Time;
    /// assert!(Time::from_micros(-1) < Time::from_micros(0));
    /// ```
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the beginning of 1970.
    ///
    /// ```
    /// # use annals_streams::Time;
    /// assert_eq!(Time::from_micros(7).micros(), 7);
    /// ```
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// How far this is after `earlier`; negative when it is before.
    ///
    /// ```
    /// # use annals_streams::{Span, Time};
    /// assert_eq!(Time::from_micros(9).since(Time::from_micros(4)), Span::from_micros(5));
    /// ```
    pub const fn since(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Span> for Time {
    type Output = Time;

    fn add(self, span: Span) -> Time {
        Time(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for Time {
    type Output = Time;

    fn sub(self, span: Span) -> Time {
        Time(self.0.saturating_sub(span.0))
    }
}

/// A length of event time, in microseconds; negative where a bound or an offset may be.
///
/// ```
/// use annals_streams::Span;
/// use std::time::Duration;
///
/// assert_eq!(Span::from(Duration::from_secs(2)), Span::from_micros(2_000_000));
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Span(i64);

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);
    /// For ever.
    pub const MAX: Span = Span(i64::MAX);

    /// So many microseconds.
    ///
    /// ```
    /// # use annals_streams::Span;
    /// assert_eq!(Span::from_micros(3).micros(), 3);
    /// ```
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// The length in microseconds.
    ///
    /// ```
    /// # use annals_streams::Span;
    /// assert_eq!(Span::ZERO.micros(), 0);
    /// ```
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The same length in the other direction.
    ///
    /// ```
    /// # use annals_streams::Span;
    /// assert_eq!(Span::from_micros(3).negated(), Span::from_micros(-3));
    /// ```
    pub const fn negated(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Span(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
    }
}

impl Add for Span {
    type Output = Span;

    fn add(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
}

/// A stretch of event time that results belong to, ordered by start, then by end.
///
/// Tumbling and hopping windows are half-open, `[start, end)`. Sliding windows hold both ends. A
/// session is named by its first and its last event.
///
/// ```
/// use annals_streams::{Time, Window};
///
/// let minute = Window::new(Time::from_micros(0), Time::from_micros(60_000_000));
/// assert_eq!(minute.end.micros(), 60_000_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// The first moment that belongs to it.
    pub start: Time,
    /// The first moment after it, or the last one in it for sliding windows and sessions.
    pub end: Time,
}

impl Window {
    /// The window from `start` to `end`.
    ///
    /// ```
    /// # use annals_streams::{Time, Window};
    /// assert!(Window::new(Time::MIN, Time::MAX).start < Time::MAX);
    /// ```
    pub const fn new(start: Time, end: Time) -> Self {
        Self { start, end }
    }
}

/// The nearest 64-bit moment to an exact one.
pub(crate) fn clamp(exact: i128) -> Time {
    let within = exact.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    Time(i64::try_from(within).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Time::MAX + Span::MAX, Time::MAX);
        assert_eq!(Time::MIN - Span::MAX, Time::MIN);
        assert_eq!(clamp(i128::MAX), Time::MAX);
        assert_eq!(clamp(i128::MIN), Time::MIN);
        assert_eq!(Span::from(Duration::MAX), Span::MAX);
    }
}
