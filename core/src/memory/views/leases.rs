//! Leases in memory.

use std::ops::Bound;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::error::StoreError;
use crate::lease::{Acquired, Lease, LeaseState, Leases};
use crate::memory::MemoryStore;

/// A lease and when it ends; one that was given back is remembered, so that it can be told.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) lease: Lease,
    until: DateTime<Utc>,
    pub(super) given_back: bool,
}

impl Kept {
    fn has_ended(&self, now: DateTime<Utc>) -> bool {
        self.given_back || now >= self.until
    }

    fn state(&self, now: DateTime<Utc>) -> LeaseState {
        LeaseState {
            lease: self.lease.clone(),
            until: self.until,
            expired: self.has_ended(now),
        }
    }
}

#[async_trait]
impl Leases for MemoryStore {
    async fn acquire_lease(
        &self,
        name: &str,
        owner: &str,
        ttl: Duration,
    ) -> Result<Acquired, StoreError> {
        let now = self.clock.now();
        let mut views = self.read_models();
        if let Some(kept) = views.leases.get(name).filter(|kept| !kept.has_ended(now)) {
            return Ok(Acquired::Held(kept.state(now)));
        }
        views.last_epoch += 1;
        let lease = Lease {
            name: name.into(),
            owner: owner.into(),
            epoch: views.last_epoch,
        };
        let kept = Kept {
            lease: lease.clone(),
            until: Lease::end(now, ttl),
            given_back: false,
        };
        views.leases.insert(name.into(), kept);
        Ok(Acquired::Granted(lease))
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let until = Lease::end(self.clock.now(), ttl);
        Ok(self
            .read_models()
            .current(lease)
            .map(|kept| kept.until = until)
            .is_some())
    }

    async fn release_lease(&self, lease: &Lease) -> Result<(), StoreError> {
        if let Some(kept) = self.read_models().current(lease) {
            kept.given_back = true;
        }
        Ok(())
    }

    async fn leases(&self, prefix: &str) -> Result<Vec<LeaseState>, StoreError> {
        let now = self.clock.now();
        let views = self.read_models();
        let named = views
            .leases
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        Ok(named
            .take_while(|(name, _)| name.starts_with(prefix))
            .map(|(_, kept)| kept.state(now))
            .collect())
    }
}
