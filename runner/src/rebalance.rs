//! Rebalancing: the processes that work on a generation count each other, and divide its slots.
//!
//! Each of them holds a membership lease. So one that was killed counts until its lease ends, no
//! longer, and its slots go to the others. Where the log's partitions are assigned to processes,
//! for example by a consumer group, slots go with them and processes are not counted.

use std::collections::BTreeSet;

use annals_core::{Acquired, Assignment, Generation, Lease, LeaseState, Partition, StoreError};
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
    pub(crate) async fn run(self, stop: watch::Receiver<bool>) {
        match self.context.log().assignment() {
            Some(assigned) => self.follow(assigned, stop).await,
            None => self.divide(stop).await,
        }
    }

    /// Each partition brings its slots. It is a hint: the leases protect.
    async fn follow(
        self,
        mut assigned: watch::Receiver<Assignment>,
        mut stop: watch::Receiver<bool>,
    ) {
        let partitions = self.context.log().partitions();
        loop {
            let assignment = assigned.borrow_and_update().clone();
            let slots = slots_of(&assignment, self.generation.spec.slots, partitions);
            self.quota.assign(slots);
            let changed = tokio::select! {
                changed = assigned.changed() => changed,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            if changed.is_err() {
                // The member of the group is gone; what it had stays.
                let _ = stop.wait_for(|stop| *stop).await;
                return;
            }
        }
    }

    async fn divide(self, mut stop: watch::Receiver<bool>) {
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

/// The slots that partitions bring with them: each slot goes with one partition.
fn slots_of(assignment: &Assignment, slots: u16, partitions: u32) -> BTreeSet<u16> {
    let goes_with = |slot: &u16| Partition(u32::from(*slot) % partitions.max(1));
    (0..slots)
        .filter(|slot| assignment.partitions.contains(&goes_with(slot)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_goes_with_one_partition() {
        let of = |partitions: &[u32], slots, all| {
            let partitions = partitions.iter().copied().map(Partition);
            slots_of(&Assignment::new(partitions, 1), slots, all)
        };
        for slots in [1, 3, 4, 8] {
            let (one, two) = (of(&[0, 2], slots, 4), of(&[1, 3], slots, 4));
            assert!(one.is_disjoint(&two));
            assert_eq!(one.len() + two.len(), usize::from(slots));
        }
        assert_eq!(of(&[1], 8, 4), [1, 5].into());
        assert_eq!(of(&[], 8, 4), [].into());
    }
}
