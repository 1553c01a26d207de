//! Time and fresh ids by permission: the system's, and ones that a test can hold.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::contain::contained;
use crate::error::{Failure, StoreError};
use crate::event::{EventId, to_microseconds};

/// Tells what time it is. The only way in which Annals learns it.
///
/// ```
/// use annals_core::{Clock, ManualClock, chrono::TimeDelta};
///
/// let clock = ManualClock::default();
/// let before = clock.now();
/// clock.advance(TimeDelta::minutes(5));
/// assert_eq!(clock.now() - before, TimeDelta::minutes(5));
/// ```
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The present moment, to the microsecond.
    fn now(&self) -> DateTime<Utc>;
}

/// What time it is by a clock of the application, to the microsecond, for stores: it may panic, and
/// tell more than they keep.
///
/// # Errors
///
/// [`Failure::Invalid`] when the clock panics.
///
/// ```
/// use annals_core::{Clock, ManualClock, time_of};
///
/// let clock = ManualClock::default();
/// assert_eq!(time_of(&clock)?, clock.now());
/// # Ok::<_, annals_core::StoreError>(())
/// ```
pub fn time_of(clock: &dyn Clock) -> Result<DateTime<Utc>, StoreError> {
    contained(|| to_microseconds(clock.now())).map_err(|panic| {
        let context = format!("the clock cannot tell the time: {panic}");
        StoreError::new(Failure::Invalid, context)
    })
}

/// The clock of the operating system.
///
/// ```
/// use annals_core::{Clock, SystemClock};
///
/// assert!(SystemClock.now().timestamp() > 0);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // Here is where it is allowed.
    fn now(&self) -> DateTime<Utc> {
        to_microseconds(Utc::now())
    }
}

/// A clock that only moves when it is set. Starts at 2026-01-01T00:00:00Z.
///
/// ```
/// use annals_core::{Clock, ManualClock};
///
/// let clock = ManualClock::at("2026-03-31T12:00:00Z".parse()?);
/// assert_eq!(clock.now().to_rfc3339(), "2026-03-31T12:00:00+00:00");
/// # Ok::<_, annals_core::chrono::ParseError>(())
/// ```
#[derive(Debug)]
pub struct ManualClock {
    micros: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `moment`.
    pub fn at(moment: DateTime<Utc>) -> ManualClock {
        ManualClock {
            micros: AtomicI64::new(moment.timestamp_micros()),
        }
    }

    /// Moves the hands to `moment`, forward or back.
    pub fn set(&self, moment: DateTime<Utc>) {
        self.micros
            .store(moment.timestamp_micros(), Ordering::SeqCst);
    }

    /// Moves the hands forward by `step` (back, when it is negative).
    pub fn advance(&self, step: TimeDelta) {
        self.micros.fetch_add(
            step.num_microseconds().unwrap_or(i64::MAX),
            Ordering::SeqCst,
        );
    }
}

impl Default for ManualClock {
    fn default() -> ManualClock {
        // 2026-01-01T00:00:00Z
        ManualClock {
            micros: AtomicI64::new(1_767_225_600_000_000),
        }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.micros.load(Ordering::SeqCst))
            .unwrap_or(DateTime::UNIX_EPOCH)
    }
}

/// Gives every event its id.
///
/// ```
/// use annals_core::{CountedIds, IdSource};
///
/// let ids = CountedIds::default();
/// assert_eq!(ids.next().to_string(), "00000000-0000-7000-8000-000000000001");
/// assert_eq!(ids.next().to_string(), "00000000-0000-7000-8000-000000000002");
/// ```
pub trait IdSource: fmt::Debug + Send + Sync + 'static {
    /// An id that was never given before.
    fn next(&self) -> EventId;
}

/// UUIDv7 ids: unique everywhere, in the order in which this process made them.
///
/// ```
/// use annals_core::{IdSource, RandomIds};
///
/// assert!(RandomIds.next() < RandomIds.next());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomIds;

impl IdSource for RandomIds {
    fn next(&self) -> EventId {
        EventId::random()
    }
}

/// Ids that count 1, 2, 3 …, for tests whose output must not change.
///
/// ```
/// use annals_core::{CountedIds, IdSource};
///
/// assert_ne!(CountedIds::default().next(), CountedIds::starting_at(7).next());
/// ```
#[derive(Debug)]
pub struct CountedIds {
    next: AtomicU64,
}

impl CountedIds {
    /// Ids from `first` on.
    pub const fn starting_at(first: u64) -> CountedIds {
        CountedIds {
            next: AtomicU64::new(first),
        }
    }
}

impl Default for CountedIds {
    fn default() -> CountedIds {
        CountedIds::starting_at(1)
    }
}

impl IdSource for CountedIds {
    fn next(&self) -> EventId {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        // The shape of a UUIDv7, so that no id is mistaken for a derived one.
        EventId::from_uuid(Uuid::from_u128(
            0x0000_0000_0000_7000_8000_0000_0000_0000 | u128::from(number),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct ToTheNanosecond;

    impl Clock for ToTheNanosecond {
        fn now(&self) -> DateTime<Utc> {
            DateTime::from_timestamp_nanos(1_999)
        }
    }

    #[test]
    fn stores_are_told_the_time_in_whole_microseconds() {
        let told = time_of(&ToTheNanosecond).unwrap();
        assert_eq!(told, DateTime::from_timestamp_nanos(1_000));
    }
}
