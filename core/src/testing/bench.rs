//! A handle for tests: a store in memory, a clock that a test moves, ids that count.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::timeline::{Timeline, timeline, timeline_of_log};
use crate::annals::Annals;
use crate::clock::{CountedIds, ManualClock};
use crate::memory::MemoryStore;
use crate::store::Store;

/// A fresh [`Annals`] for one test: in memory, with a clock that only the test moves and ids that
/// count from 1.
///
/// ```
/// use annals_core::chrono::TimeDelta;
/// use annals_core::testing;
///
/// let db = testing::annals();
/// db.clock().advance(TimeDelta::days(3));
/// assert_eq!(annals_core::Clock::now(db.clock()).to_rfc3339(), "2026-01-04T00:00:00+00:00");
/// ```
pub fn annals() -> Bench {
    let clock = Arc::new(ManualClock::default());
    let store = MemoryStore::new().on_clock(Arc::<ManualClock>::clone(&clock));
    Bench::of(Arc::new(store), clock)
}

/// An [`Annals`] for tests, with its clock at hand; see [`annals`]. It derefs to the handle.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let db = annals_core::testing::annals();
/// assert_eq!(db.store().partitions(), 1);
/// assert_eq!(db.timeline("account-alice").await, "account-alice is absent");
/// # }
/// ```
pub struct Bench {
    db: Annals,
    clock: Arc<ManualClock>,
}

impl Bench {
    pub(super) fn of(store: Arc<dyn Store>, clock: Arc<ManualClock>) -> Bench {
        let db = Annals::on(store)
            .with_clock(Arc::<ManualClock>::clone(&clock))
            .with_ids(Arc::new(CountedIds::default()));
        Bench { db, clock }
    }

    /// The same, without states kept in memory: every command reads what it looks at.
    pub(super) fn uncached(mut self) -> Bench {
        self.db = self.db.with_cached_states(0);
        self
    }

    /// The clock: when events happen, and when they are recorded.
    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// The [`timeline`] of a stream, with its times.
    pub fn timeline(&self, stream: impl Into<String>) -> Timeline<'_> {
        timeline(&self.db, stream).with_times()
    }

    /// The [timeline of the whole log](timeline_of_log), with its times.
    pub fn timeline_of_log(&self) -> Timeline<'_> {
        timeline_of_log(&self.db).with_times()
    }
}

impl Deref for Bench {
    type Target = Annals;

    fn deref(&self) -> &Annals {
        &self.db
    }
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench")
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}
