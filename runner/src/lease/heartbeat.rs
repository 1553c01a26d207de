//! The heartbeats of the leases of a process: all that are of one length are renewed in one call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use annals_core::{Failure, Lease, StoreError, contained_async};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::location::ViewLocation;

/// The leases that are renewed, by their length. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heartbeats(Arc<Mutex<BTreeMap<Duration, OfLength>>>);

#[derive(Debug, Default)]
struct OfLength {
    next: u64,
    renewed: BTreeMap<u64, (Lease, watch::Sender<bool>)>,
    task: Option<JoinHandle<()>>,
}

/// A lease that is renewed as long as this is there.
#[derive(Debug)]
pub(super) struct Heartbeat {
    of: Heartbeats,
    ttl: Duration,
    number: u64,
    pub(super) lost: watch::Receiver<bool>,
}

impl Heartbeats {
    /// Renews a lease three times in its length, and says when it is lost.
    pub(super) fn renew(&self, views: &ViewLocation, lease: &Lease, ttl: Duration) -> Heartbeat {
        let (losing, lost) = watch::channel(false);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = all.entry(ttl).or_default();
        let number = of.next;
        of.next += 1;
        of.renewed.insert(number, (lease.clone(), losing));
        if of.task.as_ref().is_none_or(JoinHandle::is_finished) {
            let beats = beat(self.clone(), views.clone(), ttl);
            of.task = Some(tokio::spawn(beats));
        }
        Heartbeat {
            of: self.clone(),
            ttl,
            number,
            lost,
        }
    }

    fn renewed(&self, ttl: Duration) -> Vec<(u64, Lease)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let renewed = all.get(&ttl).into_iter().flat_map(|of| &of.renewed);
        renewed
            .map(|(number, (lease, _))| (*number, lease.clone()))
            .collect()
    }

    fn remove(&self, ttl: Duration, number: u64) -> Option<watch::Sender<bool>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = all.get_mut(&ttl)?;
        let removed = of.renewed.remove(&number);
        if of.renewed.is_empty()
            && let Some(task) = of.task.take()
        {
            task.abort();
        }
        removed.map(|(_, losing)| losing)
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.of.remove(self.ttl, self.number);
    }
}

async fn beat(heartbeats: Heartbeats, views: ViewLocation, ttl: Duration) {
    loop {
        tokio::time::sleep(ttl / 3).await;
        let (numbers, leases): (Vec<_>, Vec<_>) = heartbeats.renewed(ttl).into_iter().unzip();
        let renewed = contained_async(views.renew_leases(&leases, ttl)).await;
        let renewed =
            renewed.unwrap_or_else(|panic| Err(StoreError::new(Failure::Unavailable, panic)));
        let held = match renewed {
            Ok(held) => held,
            Err(error) => {
                // They may still be ours; a commit under one that is not is refused.
                tracing::warn!(leases = leases.len(), %error, "leases were not renewed");
                continue;
            }
        };
        for (number, held) in numbers.into_iter().zip(held) {
            if !held && let Some(losing) = heartbeats.remove(ttl, number) {
                let _ = losing.send(true);
            }
        }
    }
}
