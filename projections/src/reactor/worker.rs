//! The work of a reactor: read, call, commit, and again. The scheduler says what is called when.
//!
//! What is settled is written under the epoch of the lease; a call that was made and not written is
//! made again with the same idempotency key.

use std::ops::Deref;
use std::sync::Arc;

use annals_core::Filter;
use annals_runner::{HeldLease, Slot, Tasks, Work, WorkError};
use tokio::sync::watch;

use super::ReactorOptions;
use super::call::Handler;
use super::session::ReactorSession;

/// Makes the calls of a reactor.
pub(crate) struct React {
    pub(super) slot: Slot,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) options: ReactorOptions,
}

impl Deref for React {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        &self.slot
    }
}

impl React {
    pub(crate) fn new(slot: Slot, handler: Arc<dyn Handler>, options: ReactorOptions) -> React {
        React {
            slot,
            handler,
            options,
        }
    }
}

impl Work for React {
    fn slot(&self) -> &Slot {
        &self.slot
    }

    fn filter(&self) -> Filter {
        self.handler.filter()
    }

    fn ends_itself(&self) -> bool {
        true
    }

    async fn work(
        &self,
        held: &HeldLease,
        tasks: Tasks,
        stop: watch::Receiver<bool>,
    ) -> Result<(), WorkError> {
        let session = ReactorSession::begin(self, held, tasks).await?;
        session.run(stop).await
    }
}
