//! The pause before a copy that stopped for an operator is begun again: each copy makes a new slot
//! and reads everything again, so that it is not tried every few seconds.

use std::time::Duration;

use annals_core::{Backoff, Store, StoreError, Version};
use annals_runner::WorkError;
use tokio::time::Instant;

use super::operator::newest;
use super::status::IngestState;
use super::work::LOOK_EVERY;

/// Waits after copies that stopped, doubled each time.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(600));

/// How long a copy waits before it begins again.
#[derive(Debug)]
pub(super) struct Pause {
    backoff: Backoff,
    wait: Option<Duration>,
    /// The version of the decisions under which the last one stopped.
    decided: Version,
}

impl Default for Pause {
    fn default() -> Pause {
        Pause {
            backoff: BACKOFF,
            wait: None,
            decided: Version::NONE,
        }
    }
}

impl Pause {
    /// A run has ended in this state of the ingest.
    pub(super) fn after(&mut self, ended: &Result<(), WorkError>, state: IngestState) {
        let stopped_copying =
            matches!(ended, Err(WorkError::Stopped(_))) && state == IngestState::Snapshot;
        self.wait = stopped_copying.then(|| self.backoff.next_wait());
        if !stopped_copying {
            self.backoff.reset();
        }
    }

    /// Decisions up to this version are followed.
    pub(super) fn decided(&mut self, version: Version) {
        self.decided = version;
    }

    /// Returns when it is over, or an operator has decided something.
    pub(super) async fn over(&self, store: &dyn Store, name: &str) -> Result<(), StoreError> {
        let Some(wait) = self.wait else {
            return Ok(());
        };
        let began = Instant::now();
        while newest(store, name).await? == self.decided {
            let left = wait.saturating_sub(began.elapsed());
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_that_stop_wait_longer_each_time() {
        let stopped = || Err(WorkError::Stopped("a row".to_owned()));
        let mut pause = Pause::default();
        let mut before = Duration::ZERO;
        for _ in 0..6 {
            pause.after(&stopped(), IngestState::Snapshot);
            let wait = pause.wait.unwrap();
            assert!(wait > before, "{wait:?} after {before:?}");
            before = wait;
        }
        assert!(before > Duration::from_secs(60));
        pause.after(&Err(WorkError::Restart), IngestState::Snapshot);
        assert_eq!(pause.wait, None);
        pause.after(&stopped(), IngestState::Following);
        assert_eq!(pause.wait, None);
        pause.after(&stopped(), IngestState::Snapshot);
        assert!(pause.wait.unwrap() < before);
    }
}
