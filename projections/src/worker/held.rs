//! Holding a slot: the lease is taken, and renewed on a timer of its own, so that a long fold does
//! not lose it.

use std::pin::pin;
use std::time::Duration;

use annals_core::{Acquired, Clock, CommitError, Generation, Lease, LeaseState, StoreError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::quota::{Quota, SlotPermit};
use super::{Progress, SlotState, WorkError};
use crate::location::ViewLocation;
use crate::owner;

/// How often a slot is taken from others before that is given up.
const TAKE_OVER_ATTEMPTS: usize = 64;

/// Whoever waits for a slot asks for it no more often than this.
const ASK_AGAIN_MIN: Duration = Duration::from_millis(5);

/// Whoever waits for a slot looks so often how far it has come.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A lease that is being renewed until this is dropped.
pub(crate) struct HeldLease {
    views: ViewLocation,
    lease: Lease,
    lost: watch::Receiver<bool>,
    renewal: JoinHandle<()>,
    seat: Option<SlotPermit>,
}

/// A slot that can be held, and who would hold it.
pub(crate) struct SlotClaim<'a> {
    pub(crate) views: &'a ViewLocation,
    pub(crate) generation: &'a Generation,
    pub(crate) slot: u16,
    pub(crate) owner: &'a str,
    pub(crate) lease: Duration,
    pub(crate) clock: &'a dyn Clock,
    /// Where slots are shared by processes: the part of this one.
    pub(crate) share: Option<&'a Quota>,
}

impl SlotClaim<'_> {
    /// Whether somebody else works here now.
    pub(crate) async fn is_worked_on_by_another(&self) -> Result<bool, StoreError> {
        Ok(self.other().await?.is_some())
    }

    /// Who else works here now.
    async fn other(&self) -> Result<Option<LeaseState>, StoreError> {
        let name = self.generation.lease_name(self.slot);
        let leases = self.views.leases(&name).await?;
        let by_another =
            |of: &LeaseState| of.lease.name == name && !of.expired && of.lease.owner != self.owner;
        Ok(leases.into_iter().find(by_another))
    }

    /// How long whoever waits for the slot waits before asking again, at most.
    fn ask_again(&self) -> Duration {
        ASK_AGAIN_MIN.max(self.lease / 4)
    }
}

impl HeldLease {
    /// Waits until the slot is free, or until `over` is: then nothing is held. Meanwhile it looks
    /// now and then how far the slot has come.
    pub(crate) async fn acquire<L>(
        post: &SlotClaim<'_>,
        progress: &Progress,
        mut look: impl FnMut() -> L,
        over: impl Future<Output = ()>,
    ) -> Result<Option<HeldLease>, WorkError>
    where
        L: Future<Output = Result<(), WorkError>>,
    {
        let name = post.generation.lease_name(post.slot);
        let mut over = pin!(over);
        loop {
            let mut changes = post.share.map(Quota::changes);
            let seat = post.share.and_then(Quota::seat);
            if let (Some(changes), None) = (&mut changes, &seat) {
                // This process works on its share already.
                if let Some(other) = post.other().await? {
                    progress.state(SlotState::Elsewhere {
                        owner: other.lease.owner,
                        until: other.until,
                    });
                }
                look().await?;
                tokio::select! {
                    _ = changes.changed() => {}
                    () = tokio::time::sleep(post.ask_again().min(LOOK_AGAIN)) => {}
                    () = &mut over => return Ok(None),
                }
                continue;
            }
            // Not raced with `over`: a lease that was granted to somebody who does not wait any
            // more would hold up the next one.
            let until = match post
                .views
                .acquire_lease(&name, post.owner, post.lease)
                .await?
            {
                Acquired::Granted(lease) => {
                    return Ok(Some(HeldLease::renewing(post, lease, seat)));
                }
                // Nobody works under it any more, and its epoch sees to it that nobody ever will:
                // the process has ended, or it is this one, which was not told that it has it.
                Acquired::Held(other)
                    if other.lease.owner == post.owner || owner::has_ended(&other.lease.owner) =>
                {
                    tracing::info!(
                        lease = name,
                        owner = other.lease.owner,
                        "nobody works here any more"
                    );
                    post.views.release_lease(&other.lease).await?;
                    continue;
                }
                Acquired::Held(other) => {
                    progress.state(SlotState::Elsewhere {
                        owner: other.lease.owner,
                        until: other.until,
                    });
                    other.until
                }
            };
            drop(seat);
            // Whoever has it may be dead, and then it ends before long.
            let left = (until - post.clock.now()).to_std().unwrap_or_default();
            let mut wait = left.clamp(ASK_AGAIN_MIN, post.ask_again());
            while wait > Duration::ZERO {
                look().await?;
                let part = wait.min(LOOK_AGAIN);
                tokio::select! {
                    () = tokio::time::sleep(part) => {}
                    () = &mut over => return Ok(None),
                }
                wait -= part;
            }
        }
    }

    /// Takes the slot from whoever has it. Who had it is refused when it commits, and begins anew.
    pub(crate) async fn steal(post: &SlotClaim<'_>) -> Result<HeldLease, WorkError> {
        let name = post.generation.lease_name(post.slot);
        for _ in 0..TAKE_OVER_ATTEMPTS {
            match post
                .views
                .acquire_lease(&name, post.owner, post.lease)
                .await?
            {
                Acquired::Granted(lease) => return Ok(HeldLease::renewing(post, lease, None)),
                Acquired::Held(other) => post.views.release_lease(&other.lease).await?,
            }
        }
        let generation = post.generation.id;
        let slot = post.slot;
        let found = "others take it again and again".into();
        Err(WorkError::Again(CommitError::Fenced {
            generation,
            slot,
            found,
        }))
    }

    fn renewing(post: &SlotClaim<'_>, lease: Lease, seat: Option<SlotPermit>) -> HeldLease {
        let (tell, lost) = watch::channel(false);
        let renewal = tokio::spawn(renew(post.views.clone(), lease.clone(), post.lease, tell));
        HeldLease {
            views: post.views.clone(),
            lease,
            lost,
            renewal,
            seat,
        }
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

    /// Returns when this process works on more than its share, and this is the slot to give up.
    pub(crate) async fn is_surplus(&self) {
        match &self.seat {
            Some(seat) => seat.is_asked_for().await,
            None => std::future::pending().await,
        }
    }

    /// Gives the slot back, so that the next one need not wait.
    pub(crate) async fn release(self) {
        self.renewal.abort();
        if let Err(error) = self.views.release_lease(&self.lease).await {
            tracing::debug!(lease = self.lease.name, %error, "a lease was not given back; it ends \
                by itself");
        }
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

async fn renew(views: ViewLocation, lease: Lease, ttl: Duration, tell: watch::Sender<bool>) {
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
