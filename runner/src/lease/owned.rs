//! A lease that is released when its owner is dropped, also while it was being asked for.

use std::time::Duration;

use annals_core::{Acquired, Lease, LeaseState, StoreError};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::location::ViewLocation;

/// A lease of this process.
#[derive(Debug)]
pub(super) struct OwnedLease {
    views: ViewLocation,
    lease: Lease,
    released: bool,
}

/// The answer to asking for a lease.
pub(super) enum Taken {
    Granted(OwnedLease),
    Held(LeaseState),
}

impl OwnedLease {
    /// Asks for a lease. When this is dropped before the answer is there, what is granted then is
    /// released.
    pub(super) async fn take(
        views: &ViewLocation,
        name: &str,
        owner: &str,
        ttl: Duration,
    ) -> Result<Taken, StoreError> {
        let (answer, asked) = oneshot::channel();
        let views = views.clone();
        let name = name.to_owned();
        let owner = owner.to_owned();
        tokio::spawn(async move {
            let acquired = views.acquire_lease(&name, &owner, ttl).await;
            let taken = acquired.map(|acquired| match acquired {
                Acquired::Granted(lease) => Taken::Granted(OwnedLease {
                    views,
                    lease,
                    released: false,
                }),
                Acquired::Held(other) => Taken::Held(other),
            });
            // An answer that arrives too late is dropped, and releases what it holds.
            let _ = answer.send(taken);
        });
        match asked.await {
            Ok(taken) => taken,
            Err(_) => Err(StoreError::new(
                annals_core::Failure::Unavailable,
                "the request for a lease was aborted",
            )),
        }
    }

    pub(super) fn views(&self) -> &ViewLocation {
        &self.views
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(super) async fn release(&mut self) {
        release(&self.views, &self.lease).await;
        self.released = true;
    }
}

impl Drop for OwnedLease {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        let views = self.views.clone();
        let lease = self.lease.clone();
        // Without a runtime the lease expires by itself.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { release(&views, &lease).await });
        }
    }
}

async fn release(views: &ViewLocation, lease: &Lease) {
    if let Err(error) = views.release_lease(lease).await {
        tracing::debug!(lease = lease.name, %error, "a lease was not released and expires");
    }
}
