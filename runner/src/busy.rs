//! What a worker is busy with, and what its time goes into.

use std::time::Instant;

use serde::Serialize;

use crate::rate::Rate;

/// What a worker is busy with at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activity {
    /// It waits for events of the log.
    Reading,
    /// The code of the view, the reactor or the process manager runs.
    Handling,
    /// It waits for its transaction.
    Committing,
}

impl Activity {
    pub(crate) const ALL: [Activity; 3] =
        [Activity::Reading, Activity::Handling, Activity::Committing];
}

/// What the time goes into, more of what was lately.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy {
    pub(crate) now: Option<(Activity, Instant)>,
    spent: [Rate; Activity::ALL.len()],
}

impl Busy {
    pub(crate) fn turn(&mut self, to: Option<Activity>, since: Instant) {
        let now = Instant::now();
        if let Some((activity, began)) = self.now.take() {
            let spent = &mut self.spent[activity as usize];
            spent.begin(began.saturating_duration_since(since));
            let micros =
                u64::try_from(now.saturating_duration_since(began).as_micros()).unwrap_or(u64::MAX);
            spent.add(now.saturating_duration_since(since), micros);
        }
        self.now = to.map(|activity| (activity, now));
    }

    /// The part of the last seconds, from 0 to 1, that went into each activity.
    pub(crate) fn shares(&self, since: Instant) -> [f64; Activity::ALL.len()] {
        let mut busy = self.clone();
        busy.turn(None, since);
        busy.spent.map(|spent| {
            spent
                .per_second(since.elapsed())
                .map_or(0.0, |micros| micros / 1e6)
        })
    }
}
