//! Rebalancing: the processes that work on a generation count each other, and divide its slots.
//!
//! Each of them holds a membership lease. So one that was killed counts until its lease ends, no
//! longer, and its slots go to the others.

use annals_core::{Acquired, Generation, Lease, LeaseState, StoreError};
use tokio::sync::watch;

use crate::context::WorkerContext;
use crate::owner;
use crate::quota::Quota;

/// The membership of a process among those that work on a generation.
pub(crate) struct Membership {
    pub(crate) context: WorkerContext,
    pub(crate) generation: Generation,
    pub(crate) quota: Quota,
}

impl Membership {
    /// Keeps the quota up to date until it is stopped.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let slots = usize::from(self.generation.spec.slots);
        let ttl = self.context.timing.lease;
        let mut own = None;
        while !*stop.borrow() {
            let wait = match self.count(&mut own).await {
                Ok(processes) => {
                    self.quota.divide(slots, processes);
                    ttl / 3
                }
                Err(error) => {
                    let view = &self.generation.spec.view;
                    tracing::warn!(view, %error, "the members of a generation cannot be counted");
                    ttl / 12
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        if let Some(lease) = own
            && let Err(error) = self.context.views.release_lease(&lease).await
        {
            tracing::debug!(lease = lease.name, %error, "a lease was not released and expires");
        }
    }

    /// How many processes there are, with this one. One that finds no free membership, because
    /// there is a process for every slot already, is a spare.
    async fn count(&self, own: &mut Option<Lease>) -> Result<usize, StoreError> {
        let views = &self.context.views;
        let renewed = match &*own {
            Some(lease) => views.renew_lease(lease, self.context.timing.lease).await?,
            None => false,
        };
        if !renewed {
            *own = self.join().await?;
        }
        let others = views
            .leases(&self.generation.process_lease_prefix())
            .await?;
        let is_there = |of: &&LeaseState| {
            !of.expired
                && of.lease.owner != self.context.owner
                && !owner::has_ended(&of.lease.owner)
        };
        Ok(1 + others.iter().filter(is_there).count())
    }

    async fn join(&self) -> Result<Option<Lease>, StoreError> {
        let views = &self.context.views;
        let owner = &self.context.owner;
        let ttl = self.context.timing.lease;
        for member in 0..self.generation.spec.slots {
            let name = self.generation.process_lease_name(member);
            match views.acquire_lease(&name, owner, ttl).await? {
                Acquired::Granted(lease) => return Ok(Some(lease)),
                // The first process that notices takes it over.
                Acquired::Held(other) if owner::has_ended(&other.lease.owner) => {
                    views.release_lease(&other.lease).await?;
                    if let Acquired::Granted(lease) = views.acquire_lease(&name, owner, ttl).await?
                    {
                        return Ok(Some(lease));
                    }
                }
                Acquired::Held(_) => {}
            }
        }
        Ok(None)
    }
}
