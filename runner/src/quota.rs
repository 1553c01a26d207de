//! A quota of the slots: where several processes work on a generation, each may hold an equal part
//! of them, or those that were assigned to it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// How many slots of a generation this process may work on, and on how many it does.
#[derive(Clone, Debug)]
pub struct Quota(Arc<QuotaState>);

#[derive(Debug)]
struct QuotaState {
    permits: Mutex<PermitCount>,
    /// Counts up whenever a permit may have become free, or is held beyond the quota.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct PermitCount {
    limit: usize,
    /// Where slots are assigned, those of this process; how many they are does not matter then.
    assigned: Option<BTreeSet<u16>>,
    taken: usize,
    /// Of those that are taken: how many were asked to be given up.
    leaving: usize,
}

impl Quota {
    /// No permits, until the other processes are known.
    pub(crate) fn unknown() -> Quota {
        Quota(Arc::new(QuotaState {
            permits: Mutex::default(),
            changed: watch::Sender::default(),
        }))
    }

    fn permits(&self) -> MutexGuard<'_, PermitCount> {
        self.0
            .permits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut PermitCount)) {
        change(&mut self.permits());
        self.0.changed.send_modify(|count| *count += 1);
    }

    /// So many processes share so many slots.
    pub(crate) fn divide(&self, slots: usize, processes: usize) {
        let limit = slots.div_ceil(processes.max(1));
        if self.permits().limit != limit {
            self.change(|permits| permits.limit = limit);
        }
    }

    /// This process is asked to work on these slots.
    pub(crate) fn assign(&self, slots: BTreeSet<u16>) {
        self.change(|permits| permits.assigned = Some(slots));
    }

    /// Changes when it is worth asking for a permit again.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// The right to work on this slot too, if there is one.
    pub(crate) fn permit(&self, slot: u16) -> Option<SlotPermit> {
        let mut permits = self.permits();
        let is_free = match &permits.assigned {
            Some(assigned) => assigned.contains(&slot),
            None => permits.taken < permits.limit,
        };
        permits.taken += usize::from(is_free);
        is_free.then(|| SlotPermit {
            quota: self.clone(),
            slot,
            is_leaving: AtomicBool::new(false),
        })
    }
}

/// The right to work on one slot, until it is dropped.
#[derive(Debug)]
pub(crate) struct SlotPermit {
    quota: Quota,
    slot: u16,
    is_leaving: AtomicBool,
}

impl SlotPermit {
    /// Returns when this process holds more slots than its quota, or others than were assigned to
    /// it, and this is the one to release.
    pub(crate) async fn is_surplus(&self) {
        let mut changes = self.quota.changes();
        loop {
            changes.mark_unchanged();
            {
                let mut permits = self.quota.permits();
                let is_surplus = match &permits.assigned {
                    Some(assigned) => !assigned.contains(&self.slot),
                    None => permits.taken - permits.leaving > permits.limit,
                };
                if is_surplus {
                    permits.leaving += 1;
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
        self.quota.change(|permits| {
            permits.taken -= 1;
            permits.leaving -= usize::from(self.is_leaving.load(Ordering::Relaxed));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_takes_its_quota_and_releases_the_surplus() {
        let quota = Quota::unknown();
        assert!(
            quota.permit(0).is_none(),
            "none before the other processes are known"
        );
        quota.divide(8, 2);
        let mut permits: Vec<_> = std::iter::from_fn(|| quota.permit(0)).collect();
        assert_eq!(permits.len(), 4);
        quota.divide(8, 3);
        let surplus = permits.pop().unwrap();
        surplus.is_surplus().await;
        assert!(
            tokio::time::timeout(std::time::Duration::ZERO, permits[0].is_surplus())
                .await
                .is_err(),
            "one is enough"
        );
        assert!(quota.permit(0).is_none());
        drop(surplus);
        assert!(quota.permit(0).is_none(), "three are taken");
        permits.clear();
        assert_eq!(
            std::iter::from_fn(|| quota.permit(0))
                .collect::<Vec<_>>()
                .len(),
            3
        );
        quota.divide(8, 100);
        assert!(
            quota.permit(0).is_some(),
            "a spare process takes a slot that is free"
        );
    }

    #[tokio::test]
    async fn where_slots_are_assigned_others_are_released() {
        let quota = Quota::unknown();
        quota.assign([1, 2].into());
        assert!(quota.permit(0).is_none());
        let (one, two) = (quota.permit(1).unwrap(), quota.permit(2).unwrap());
        quota.assign([0, 2].into());
        one.is_surplus().await;
        assert!(quota.permit(1).is_none());
        assert!(quota.permit(0).is_some());
        assert!(
            tokio::time::timeout(std::time::Duration::ZERO, two.is_surplus())
                .await
                .is_err(),
            "it is still this process's"
        );
    }
}
