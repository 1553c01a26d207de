//! Holding a slot: the lease is taken, and renewed on a timer of its own, so that a long fold does not lose it.

use std::time::Duration;

use annals_core::{Acquired, Lease};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{SlotState, Work, WorkError};
use crate::place::Place;
use crate::view::View;

/// How often a slot is taken from others before that is given up.
const TAKE_OVER_ATTEMPTS: usize = 64;

/// A lease that is being renewed until this is dropped.
pub(crate) struct Held {
    views: Place,
    lease: Lease,
    lost: watch::Receiver<bool>,
    renewal: JoinHandle<()>,
}

impl Held {
    /// Waits until the slot is free.
    pub(crate) async fn acquire<V: View>(work: &Work<V>) -> Result<Held, WorkError> {
        let name = work.generation.lease_name(work.slot);
        let lease = loop {
            match work.views.acquire_lease(&name, &work.owner, work.options.lease).await? {
                Acquired::Granted(lease) => break lease,
                Acquired::Held(other) => {
                    work.progress.state(SlotState::Waiting { reason: format!("worked on by {}", other.lease.owner) });
                }
            }
            tokio::time::sleep(work.options.lease / 4).await;
        };
        Ok(Held::renewing(work, lease))
    }

    /// Takes the slot from whoever has it. Who had it is refused when it commits, and begins anew.
    pub(crate) async fn take_over<V: View>(work: &Work<V>) -> Result<Held, WorkError> {
        let name = work.generation.lease_name(work.slot);
        for _ in 0..TAKE_OVER_ATTEMPTS {
            match work.views.acquire_lease(&name, &work.owner, work.options.lease).await? {
                Acquired::Granted(lease) => return Ok(Held::renewing(work, lease)),
                Acquired::Held(other) => work.views.release_lease(&other.lease).await?,
            }
        }
        Err(WorkError::Again(work.fenced("others take it again and again")))
    }

    fn renewing<V: View>(work: &Work<V>, lease: Lease) -> Held {
        let (tell, lost) = watch::channel(false);
        let renewal = tokio::spawn(renew(work.views.clone(), lease.clone(), work.options.lease, tell));
        Held { views: work.views.clone(), lease, lost, renewal }
    }

    pub(crate) fn lease(&self) -> Lease {
        self.lease.clone()
    }

    /// Returns when the slot is another's.
    pub(crate) async fn lost(&self) {
        let mut lost = self.lost.clone();
        if lost.wait_for(|lost| *lost).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Gives the slot back, so that the next one need not wait.
    pub(crate) async fn release(self) {
        self.renewal.abort();
        if let Err(error) = self.views.release_lease(&self.lease).await {
            tracing::debug!(lease = self.lease.name, %error, "a lease was not given back; it ends by itself");
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

async fn renew(views: Place, lease: Lease, ttl: Duration, tell: watch::Sender<bool>) {
    loop {
        tokio::time::sleep(ttl / 3).await;
        match views.renew_lease(&lease, ttl).await {
            Ok(true) => {}
            Ok(false) => break,
            // It may still be ours; a commit under it is refused if it is not.
            Err(error) => tracing::warn!(lease = lease.name, %error, "a lease was not renewed"),
        }
    }
    let _ = tell.send(true);
}
