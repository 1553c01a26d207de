//! Holding a lease: taken, renewed by a heartbeat of its own so that a long fold does not lose it,
//! and released also when its holder is dropped.

mod heartbeat;
mod owned;

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use annals_core::{Lease, StoreError};

use self::heartbeat::Heartbeat;
pub(crate) use self::heartbeat::Heartbeats;
use self::owned::{OwnedLease, Taken};
use crate::claim::SlotClaim;
use crate::context::WorkerContext;
use crate::error::WorkError;
use crate::owner;
use crate::progress::{Progress, SlotState};
use crate::quota::{Quota, SlotPermit};

/// How often a slot is taken from others before that is given up.
const STEAL_ATTEMPTS: usize = 64;

/// A worker that waits for a slot asks for it no more often than this.
const ASK_AGAIN_MIN: Duration = Duration::from_millis(5);

/// A worker that waits for a slot reads so often how far it has come.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A lease that is renewed until it is released or dropped.
#[derive(Debug)]
pub struct HeldLease {
    // Ends before the lease is released.
    heartbeat: Heartbeat,
    lease: OwnedLease,
    permit: Option<SlotPermit>,
}

impl HeldLease {
    /// Waits until the slot is free, or until `over` is: then nothing is held. Meanwhile `look` is
    /// called now and then, to see how far the slot has come.
    ///
    /// # Errors
    ///
    /// Those of `look` and of the store.
    pub(crate) async fn acquire<L>(
        claim: &SlotClaim,
        progress: &Progress,
        mut look: impl FnMut() -> L,
        over: impl Future<Output = ()>,
    ) -> Result<Option<HeldLease>, WorkError>
    where
        L: Future<Output = Result<(), WorkError>>,
    {
        let mut over = pin!(over);
        loop {
            let mut changes = claim.quota.as_ref().map(Quota::changes);
            let permit = claim.quota.as_ref();
            let permit = permit.and_then(|quota| quota.permit(claim.slot()));
            if let (Some(changes), None) = (&mut changes, &permit) {
                // This process holds its quota already.
                if let Some(other) = claim.other().await? {
                    progress.state(SlotState::Elsewhere {
                        owner: other.lease.owner,
                        until: other.until,
                    });
                }
                look().await?;
                tokio::select! {
                    _ = changes.changed() => {}
                    () = tokio::time::sleep(ask_again(claim).min(LOOK_AGAIN)) => {}
                    () = &mut over => return Ok(None),
                }
                continue;
            }
            let other = match OwnedLease::take(&claim.views, &claim.name, &claim.owner, claim.ttl)
                .await?
            {
                Taken::Granted(lease) => {
                    return Ok(Some(HeldLease::renewing(
                        lease,
                        &claim.heartbeats,
                        claim.ttl,
                        permit,
                    )));
                }
                // No worker uses it any more, and its epoch keeps it from ever being used: the
                // process has ended, or it is this one, and the answer to its request got lost.
                Taken::Held(other)
                    if other.lease.owner == claim.owner || owner::has_ended(&other.lease.owner) =>
                {
                    let owner = &other.lease.owner;
                    tracing::info!(lease = claim.name, owner, "an abandoned lease is released");
                    claim.views.release_lease(&other.lease).await?;
                    continue;
                }
                Taken::Held(other) => {
                    progress.state(SlotState::Elsewhere {
                        owner: other.lease.owner.clone(),
                        until: other.until,
                    });
                    other
                }
            };
            drop(permit);
            // Its owner may be dead, and then it ends before long.
            let left = (other.until - claim.clock.now())
                .to_std()
                .unwrap_or_default();
            let mut wait = left.clamp(ASK_AGAIN_MIN, ask_again(claim));
            let mut released = pin!(claim.released(&other));
            while wait > Duration::ZERO {
                look().await?;
                let part = wait.min(LOOK_AGAIN);
                tokio::select! {
                    () = tokio::time::sleep(part) => {}
                    () = &mut released => break,
                    () = &mut over => return Ok(None),
                }
                wait -= part;
            }
        }
    }

    /// Takes the slot from its owner, whose next commit is fenced and who starts again.
    ///
    /// # Errors
    ///
    /// Those of the store, and [`WorkError::Retry`] when others take it again and again.
    pub async fn steal(claim: &SlotClaim) -> Result<HeldLease, WorkError> {
        for _ in 0..STEAL_ATTEMPTS {
            match OwnedLease::take(&claim.views, &claim.name, &claim.owner, claim.ttl).await? {
                Taken::Granted(lease) => {
                    return Ok(HeldLease::renewing(
                        lease,
                        &claim.heartbeats,
                        claim.ttl,
                        None,
                    ));
                }
                Taken::Held(other) => claim.views.release_lease(&other.lease).await?,
            }
        }
        Err(claim.fenced("others take it again and again"))
    }

    fn renewing(
        lease: OwnedLease,
        heartbeats: &Heartbeats,
        ttl: Duration,
        permit: Option<SlotPermit>,
    ) -> HeldLease {
        let heartbeat = heartbeats.renew(lease.views(), lease.lease(), ttl);
        HeldLease {
            heartbeat,
            lease,
            permit,
        }
    }

    /// The lease, for commits under it.
    pub fn lease(&self) -> Lease {
        self.lease.lease().clone()
    }

    /// Returns when another worker has the slot.
    pub(crate) async fn lost(&self) {
        let mut lost = self.heartbeat.lost.clone();
        if lost.wait_for(|lost| *lost).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns when this process holds more than its quota, and this is the slot to release.
    pub(crate) async fn is_surplus(&self) {
        match &self.permit {
            Some(permit) => permit.is_surplus().await,
            None => std::future::pending().await,
        }
    }

    /// Releases the slot, so that the next worker need not wait.
    pub async fn release(self) {
        let HeldLease {
            heartbeat,
            mut lease,
            permit,
        } = self;
        drop(heartbeat);
        lease.release().await;
        drop(permit);
    }
}

/// How long a worker that waits for the slot waits before it asks again, at most.
fn ask_again(claim: &SlotClaim) -> Duration {
    ASK_AGAIN_MIN.max(claim.ttl / 4)
}

/// One process at a time begins, checks and switches the generations of a view: it holds the
/// coordination lease of the view.
#[derive(Debug)]
pub struct Coordination(HeldLease);

impl Coordination {
    /// Waits until no other process coordinates the view.
    ///
    /// # Errors
    ///
    /// Only those of a store that cannot answer.
    pub async fn take(context: &WorkerContext, view: &str) -> Result<Coordination, StoreError> {
        loop {
            match Coordination::try_take(context, view).await? {
                Some(taken) => return Ok(taken),
                None => tokio::time::sleep(context.timing.poll).await,
            }
        }
    }

    /// The coordination lease, if it is free.
    pub(crate) async fn try_take(
        context: &WorkerContext,
        view: &str,
    ) -> Result<Option<Coordination>, StoreError> {
        let name = format!("{view}/coordination");
        let ttl = context.timing.lease;
        match OwnedLease::take(&context.views, &name, &context.owner, ttl).await? {
            Taken::Granted(lease) => Ok(Some(Coordination(HeldLease::renewing(
                lease,
                &context.heartbeats,
                ttl,
                None,
            )))),
            Taken::Held(other) => {
                if owner::has_ended(&other.lease.owner) {
                    context.views.release_lease(&other.lease).await?;
                }
                Ok(None)
            }
        }
    }

    /// Lets others coordinate.
    pub async fn release(self) {
        self.0.release().await;
    }
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests;
