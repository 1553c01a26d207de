//! Waiting until a view has come as far as somebody asks, and noticing when it never will.

use std::pin::pin;
use std::time::Duration;

use annals_core::{Generation, Phase, Position, Token};

use crate::query::ViewError;
use crate::status::Status;
use crate::supervisor::{GenerationWorkers, WorkerContext};
use crate::worker::SlotClaim;

/// How often it looks by itself whether a view has come far enough, when no worker of this process
/// tells.
const LOOK: Duration = Duration::from_millis(25);

/// One version of a view, whose readers wait for it.
pub(crate) struct CatchUp<'a> {
    pub(crate) context: &'a WorkerContext,
    pub(crate) following: &'a GenerationWorkers,
    pub(crate) version: u32,
}

impl CatchUp<'_> {
    /// Waits until a generation that readers see has come so far: the `live` one, or whichever it
    /// is by then. A worker that stopped ends the waiting at once.
    pub(crate) async fn reach(
        &self,
        live: Option<Generation>,
        token: &Token,
        at_most: Duration,
    ) -> Result<Generation, ViewError> {
        match tokio::time::timeout(at_most, self.there(live, token)).await {
            Ok(done) => done,
            Err(_) => {
                let now = self.context.db.clock().now();
                let held = self
                    .following
                    .each(|of| Status::of(of, now).to_string())
                    .join("; ");
                Err(ViewError::NotYet {
                    token: token.clone(),
                    waited: at_most,
                    held,
                })
            }
        }
    }

    async fn there(
        &self,
        mut live: Option<Generation>,
        token: &Token,
    ) -> Result<Generation, ViewError> {
        // Workers of this process tell soon enough, as a rule.
        let mut looks = false;
        loop {
            let found = match live.take() {
                Some(live) => Ok(live),
                None => self.live().await,
            };
            match found {
                Ok(generation) if self.comes_to(&generation, token, looks).await? => {
                    return Ok(generation);
                }
                Ok(generation) => self.is_at_work(&generation).await?,
                Err(ViewError::Building { .. }) => self.built().await?,
                Err(error) => return Err(error),
            }
            looks = true;
        }
    }

    /// Whether a generation comes so far within a little while: its workers in this process tell at
    /// once, those elsewhere are seen in the store; it is not looked there, unless told to, when
    /// there are none elsewhere.
    async fn comes_to(
        &self,
        generation: &Generation,
        token: &Token,
        looks: bool,
    ) -> Result<bool, ViewError> {
        let mut told = pin!(self.following.reached(generation.id, token));
        if looks || !self.following.works_on_all(generation.id) {
            tokio::select! {
                biased;
                () = &mut told => return Ok(true),
                stands = self.has_reached(generation, token) => if stands? { return Ok(true) },
            }
        }
        Ok(tokio::time::timeout(LOOK, told).await.is_ok())
    }

    /// Returns when a generation that this program folds is live. A worker that stopped ends the
    /// waiting at once.
    pub(crate) async fn built(&self) -> Result<(), ViewError> {
        loop {
            let generations = self.following.each(|of| of.generation.clone());
            if generations.iter().any(|of| of.phase == Phase::Live) {
                return Ok(());
            }
            for generation in generations.iter().filter(|of| of.phase == Phase::Building) {
                self.is_at_work(generation).await?;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// An error when a slot does not go on until a person has looked, neither here nor in another
    /// process.
    async fn is_at_work(&self, generation: &Generation) -> Result<(), ViewError> {
        let Some((slot, reason)) = self.following.stopped(generation.id) else {
            return Ok(());
        };
        if let Some(slot) = slot {
            // A newer program may be able to do what this one cannot.
            let WorkerContext {
                db,
                views,
                owner,
                options,
                ..
            } = self.context;
            let lease = options.lease;
            let clock = &**db.clock();
            let post = SlotClaim {
                views,
                generation,
                slot,
                owner,
                lease,
                clock,
                share: None,
            };
            if post.is_worked_on_by_another().await? {
                return Ok(());
            }
        }
        Err(ViewError::Stopped { reason })
    }

    /// Whether every slot has come so far, also those that another process works on.
    async fn has_reached(&self, generation: &Generation, token: &Token) -> Result<bool, ViewError> {
        let checkpoints = self.context.views.checkpoints(generation.id).await?;
        Ok((0..generation.spec.slots).all(|slot| {
            token.positions().all(|(partition, position)| {
                let mut of = checkpoints
                    .iter()
                    .filter(|of| of.slot == slot && of.partition == partition);
                position == Position::START || of.any(|checkpoint| checkpoint.position >= position)
            })
        }))
    }

    /// The generation that readers of this version see now.
    pub(crate) async fn live(&self) -> Result<Generation, ViewError> {
        let generations = self
            .context
            .views
            .generations(self.following.view())
            .await?;
        let mut ours = generations
            .into_iter()
            .filter(|of| of.spec.version == self.version);
        if let Some(live) = ours.find(|of| of.phase == Phase::Live) {
            return Ok(live);
        }
        let mut done = 0;
        let mut total = 0;
        for (reached, head) in self.following.each(|of| (of.reached(), of.head())) {
            done = reached;
            total = head;
        }
        Err(ViewError::Building { done, total })
    }
}
