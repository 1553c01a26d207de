//! A slot that can be held, and the owner that would hold it.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Clock, Generation, GenerationId, LeaseState, StoreError};
use uuid::Uuid;

use crate::context::WorkerContext;
use crate::error::WorkError;
use crate::lease::Heartbeats;
use crate::location::ViewLocation;
use crate::poll::Poll;
use crate::quota::Quota;

/// A slot that can be held, and the owner that would hold it.
#[derive(Clone, Debug)]
pub struct SlotClaim {
    pub(crate) views: ViewLocation,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) ttl: Duration,
    /// Where processes share the slots: the quota of this one.
    pub(crate) quota: Option<Quota>,
    pub(crate) heartbeats: Heartbeats,
    poll: Poll,
    generation: GenerationId,
    slot: u16,
}

impl SlotClaim {
    /// The claim of a worker of this program.
    pub fn of(context: &WorkerContext, generation: &Generation, slot: u16) -> SlotClaim {
        SlotClaim {
            views: context.views.clone(),
            clock: Arc::clone(context.clock()),
            name: generation.lease_name(slot),
            owner: context.owner.clone(),
            ttl: context.timing.lease,
            quota: None,
            heartbeats: context.heartbeats.clone(),
            poll: context.poll.clone(),
            generation: generation.id,
            slot,
        }
    }

    /// The claim of an operator's decision: under a name of its own, so that neither the worker nor
    /// another decision takes it for an abandoned one.
    pub fn of_operator(context: &WorkerContext, generation: &Generation, slot: u16) -> SlotClaim {
        let mut claim = SlotClaim::of(context, generation, slot);
        let unique = Uuid::now_v7().simple();
        claim.owner = format!("{}-operator-{unique}", claim.owner);
        claim
    }

    /// Within this quota.
    pub(crate) fn within(mut self, quota: Option<&Quota>) -> SlotClaim {
        self.quota = quota.cloned();
        self
    }

    /// The number of the slot.
    pub(crate) fn slot(&self) -> u16 {
        self.slot
    }

    /// The owner that would hold it.
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    /// Whether another owner holds it now.
    pub(crate) async fn is_held_by_another(&self) -> Result<bool, StoreError> {
        Ok(self.other().await?.is_some())
    }

    /// The lease of another owner, if one holds it now.
    pub(crate) async fn other(&self) -> Result<Option<LeaseState>, StoreError> {
        let leases = self.views.leases(&self.name).await?;
        let of_another = |of: &LeaseState| {
            of.lease.name == self.name && !of.expired && of.lease.owner != self.owner
        };
        Ok(leases.into_iter().find(of_another))
    }

    /// Returns when a poll from now on finds that this lease of another owner was released.
    pub(crate) async fn released(&self, other: &LeaseState) {
        let mut polls = self.poll.seen();
        let number = polls.borrow().number;
        let held = |of: &LeaseState| of.lease == other.lease && !of.expired;
        let released = polls.wait_for(|seen| {
            let state = seen.state(self.generation);
            seen.states_number > number + 1 && !state.is_some_and(|of| of.leases.iter().any(held))
        });
        if released.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// That another worker has the slot.
    pub fn fenced(&self, found: &str) -> WorkError {
        WorkError::fenced(self.generation, self.slot, found)
    }
}
