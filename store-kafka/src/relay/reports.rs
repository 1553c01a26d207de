//! Who learns how far a relay has come.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use annals_core::chrono::{DateTime, Utc};
use annals_core::{Partition, Position};
use annals_runner::{CommittedStep, Progress, SlotState};
use tokio::sync::watch;

/// Told by a relay while it publishes.
pub(crate) trait Reports: Send + Sync {
    /// It continues after this position.
    fn begins(&self, partition: Partition, after: Position);

    /// The log goes so far; when the first event was recorded that is to be published next.
    fn found(&self, partition: Partition, head: Position, oldest: Option<DateTime<Utc>>);

    /// Everything up to a position is published.
    fn published(&self, partition: Partition, position: Position, step: CommittedStep);
}

impl Reports for () {
    fn begins(&self, _: Partition, _: Position) {}

    fn found(&self, _: Partition, _: Position, _: Option<DateTime<Utc>>) {}

    fn published(&self, _: Partition, _: Position, _: CommittedStep) {}
}

/// The status of a program.
impl Reports for Progress {
    fn begins(&self, partition: Partition, after: Position) {
        self.reached(partition, after);
    }

    fn found(&self, partition: Partition, head: Position, oldest: Option<DateTime<Utc>>) {
        self.head(partition, head, oldest);
        let lags = self.watch().borrow().lag_events() > 0;
        self.state(match lags {
            true => SlotState::CatchingUp,
            false => SlotState::Live,
        });
    }

    fn published(&self, partition: Partition, position: Position, step: CommittedStep) {
        self.settled_to(partition, position, step);
        let is_live = self.watch().borrow().lag_events() == 0;
        if is_live {
            self.state(SlotState::Live);
        }
        self.publish();
    }
}

/// Waits until all that was in the log is published.
pub(super) struct CaughtUp {
    heads: Vec<(Partition, Position)>,
    reached: watch::Sender<BTreeMap<Partition, Position>>,
    sent: AtomicU64,
}

impl CaughtUp {
    pub(super) fn with(heads: Vec<(Partition, Position)>) -> CaughtUp {
        CaughtUp {
            heads,
            reached: watch::Sender::default(),
            sent: AtomicU64::new(0),
        }
    }

    /// Returns when the heads were reached.
    pub(super) async fn wait(&self) {
        let mut reached = self.reached.subscribe();
        let all = |reached: &BTreeMap<Partition, Position>| {
            let mut heads = self.heads.iter();
            heads.all(|(partition, head)| {
                reached.get(partition).copied().unwrap_or_default() >= *head
            })
        };
        // The sender is in here.
        let _ = reached.wait_for(all).await;
    }

    /// Records that were sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Reports for CaughtUp {
    fn begins(&self, partition: Partition, after: Position) {
        self.reached.send_modify(|reached| {
            reached.insert(partition, after);
        });
    }

    fn found(&self, _: Partition, _: Position, _: Option<DateTime<Utc>>) {}

    fn published(&self, partition: Partition, position: Position, step: CommittedStep) {
        self.sent.fetch_add(step.events, Ordering::Relaxed);
        self.begins(partition, position);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use annals_core::chrono::TimeDelta;
    use annals_core::{
        Clock, GenerationSpec, GenerationStore as _, LogId, ManualClock, MemoryStore,
    };
    use annals_runner::{Kind, Status};

    use super::*;

    #[tokio::test]
    async fn lag_is_known_in_events_and_in_seconds() {
        let views = MemoryStore::new();
        let spec = GenerationSpec::new("$relay/bank", 1, LogId::random());
        let generation = views.begin_generation(spec).await.unwrap();
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        let progress = Progress::of(Kind::Relay, &generation, 0, &clock);
        let status = || {
            let slots = vec![progress.watch().borrow().clone()];
            Status::new(Kind::Relay, &generation, None, slots, clock.now())
        };
        let ago = |seconds| Some(clock.now() - TimeDelta::seconds(seconds));
        progress.begins(Partition(0), Position::new(10));
        progress.found(Partition(0), Position::new(15), ago(20));
        assert_eq!((status().lag_events(), status().lag().as_secs()), (5, 20));
        let step = CommittedStep {
            events: 2,
            oldest: ago(8),
            ..CommittedStep::default()
        };
        progress.published(Partition(0), Position::new(12), step);
        assert_eq!((status().lag_events(), status().lag().as_secs()), (3, 8));
        progress.published(Partition(0), Position::new(15), CommittedStep::default());
        assert_eq!((status().lag_events(), status().lag().as_secs()), (0, 0));
        assert_eq!(status().slots[0].state, SlotState::Live);
    }

    #[tokio::test]
    async fn all_heads_are_waited_for() {
        let at = Position::new;
        let waits = CaughtUp::with(vec![(Partition(0), at(3)), (Partition(1), at(0))]);
        let pending = tokio::time::timeout(std::time::Duration::ZERO, waits.wait());
        assert!(pending.await.is_err());
        waits.begins(Partition(0), at(2));
        let step = CommittedStep {
            events: 7,
            ..CommittedStep::default()
        };
        waits.published(Partition(0), at(3), step);
        waits.wait().await;
        assert_eq!(waits.sent(), 7);
    }
}
