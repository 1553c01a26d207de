//! A fair share of the slots: where several processes work on a generation, each takes as many as
//! there are for every one of them.
//!
//! ProcessHandle tell each other by leases that they are there. So one that was killed counts until
//! its lease ends, no longer, and what it worked on is shared out anew.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annals_core::{Acquired, Generation, Lease, LeaseState, StoreError};
use tokio::sync::watch;

use crate::location::ViewLocation;
use crate::owner;

/// How many slots of a generation this process may work on, and on how many it does.
#[derive(Clone, Debug)]
pub(crate) struct Quota(Arc<QuotaState>);

#[derive(Debug)]
struct QuotaState {
    seats: Mutex<PermitCount>,
    /// Counts up whenever there may be a seat where there was none, or one too few.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct PermitCount {
    most: usize,
    taken: usize,
    /// Of those that are taken: how many were asked to be given up.
    leaving: usize,
}

impl Quota {
    /// Nothing, until it is known who else is there.
    pub(crate) fn unknown() -> Quota {
        Quota(Arc::new(QuotaState {
            seats: Mutex::default(),
            changed: watch::Sender::default(),
        }))
    }

    fn seats(&self) -> MutexGuard<'_, PermitCount> {
        self.0.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut PermitCount)) {
        change(&mut self.seats());
        self.0.changed.send_modify(|count| *count += 1);
    }

    /// So many processes share so many slots.
    fn divide(&self, slots: usize, processes: usize) {
        let most = slots.div_ceil(processes.max(1));
        if self.seats().most != most {
            self.change(|seats| seats.most = most);
        }
    }

    /// Tells when it is worth asking for a seat again.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// The right to work on one slot more, if there is one.
    pub(super) fn seat(&self) -> Option<SlotPermit> {
        let mut seats = self.seats();
        let is_free = seats.taken < seats.most;
        seats.taken += usize::from(is_free);
        is_free.then(|| SlotPermit {
            share: self.clone(),
            is_leaving: AtomicBool::new(false),
        })
    }
}

/// The right to work on one slot, until it is dropped.
#[derive(Debug)]
pub(super) struct SlotPermit {
    share: Quota,
    is_leaving: AtomicBool,
}

impl SlotPermit {
    /// Returns when this process works on more slots than its share, and this is the one to give
    /// up.
    pub(super) async fn is_asked_for(&self) {
        let mut changes = self.share.changes();
        loop {
            changes.mark_unchanged();
            {
                let mut seats = self.share.seats();
                if seats.taken - seats.leaving > seats.most {
                    seats.leaving += 1;
                    self.is_leaving.store(true, Ordering::Relaxed);
                    return;
                }
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Drop for SlotPermit {
    fn drop(&mut self) {
        self.share.change(|seats| {
            seats.taken -= 1;
            seats.leaving -= usize::from(self.is_leaving.load(Ordering::Relaxed));
        });
    }
}

/// A process among those that work on a generation: it says that it is there, and counts who else
/// is.
pub(crate) struct Membership {
    pub(crate) views: ViewLocation,
    pub(crate) generation: Generation,
    pub(crate) owner: String,
    pub(crate) lease: Duration,
    pub(crate) share: Quota,
}

impl Membership {
    /// History the share up to date until it is told to stop.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let slots = usize::from(self.generation.spec.slots);
        let mut own = None;
        while !*stop.borrow() {
            let wait = match self.look(&mut own).await {
                Ok(processes) => {
                    self.share.divide(slots, processes);
                    self.lease / 3
                }
                Err(error) => {
                    let view = &self.generation.spec.view;
                    tracing::warn!(view, %error, "it cannot be told who else works on the slots");
                    self.lease / 12
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        if let Some(lease) = own
            && let Err(error) = self.views.release_lease(&lease).await
        {
            tracing::debug!(lease = lease.name, %error, "a lease was not given back; it ends by \
                itself");
        }
    }

    /// How many processes are there, with this one. One that finds no place, because there is a
    /// process for every slot already, is a spare.
    async fn look(&self, own: &mut Option<Lease>) -> Result<usize, StoreError> {
        let keeps = match &*own {
            Some(lease) => self.views.renew_lease(lease, self.lease).await?,
            None => false,
        };
        if !keeps {
            *own = self.take_a_place().await?;
        }
        let others = self
            .views
            .leases(&self.generation.process_lease_prefix())
            .await?;
        let is_there = |of: &&LeaseState| {
            !of.expired && of.lease.owner != self.owner && !owner::has_ended(&of.lease.owner)
        };
        Ok(1 + others.iter().filter(is_there).count())
    }

    async fn take_a_place(&self) -> Result<Option<Lease>, StoreError> {
        for place in 0..self.generation.spec.slots {
            let name = self.generation.process_lease_name(place);
            match self
                .views
                .acquire_lease(&name, &self.owner, self.lease)
                .await?
            {
                Acquired::Granted(lease) => return Ok(Some(lease)),
                // Whoever is first makes use of it.
                Acquired::Held(other) if owner::has_ended(&other.lease.owner) => {
                    self.views.release_lease(&other.lease).await?;
                    if let Acquired::Granted(lease) = self
                        .views
                        .acquire_lease(&name, &self.owner, self.lease)
                        .await?
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_takes_its_share_and_gives_up_what_is_more() {
        let share = Quota::unknown();
        assert!(
            share.seat().is_none(),
            "nothing before it is known who else is there"
        );
        share.divide(8, 2);
        let mut seats: Vec<_> = std::iter::from_fn(|| share.seat()).collect();
        assert_eq!(seats.len(), 4);
        share.divide(8, 3);
        let asked = seats.pop().unwrap();
        asked.is_asked_for().await;
        assert!(
            tokio::time::timeout(Duration::ZERO, seats[0].is_asked_for())
                .await
                .is_err(),
            "one is enough"
        );
        assert!(share.seat().is_none());
        drop(asked);
        assert!(share.seat().is_none(), "three are taken");
        seats.clear();
        assert_eq!(
            std::iter::from_fn(|| share.seat())
                .collect::<Vec<_>>()
                .len(),
            3
        );
        share.divide(8, 100);
        assert!(
            share.seat().is_some(),
            "a spare process takes what nobody else does"
        );
    }
}
