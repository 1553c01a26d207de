//! Read your own writes: waiting until a view has come as far as a token, and noticing when it
//! never will.

use std::pin::pin;
use std::time::Duration;

use annals_core::{Generation, GenerationState, Invalid, Phase, Position, Token};

use crate::checkpoint::{same_log, settled_to};
use crate::claim::SlotClaim;
use crate::context::WorkerContext;
use crate::error::{ViewError, WorkError};
use crate::generation::{GenerationWorkers, serving};
use crate::location::ViewLocation;
use crate::poll::Seen;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

/// How long workers of this process are waited for before the store is asked too.
const POLL: Duration = Duration::from_millis(25);

/// The readers of a view, who wait for it.
#[derive(Clone, Debug)]
pub struct CatchUp {
    context: WorkerContext,
    workers: GenerationWorkers,
    from_the_store: bool,
}

impl CatchUp {
    /// Of what these workers follow.
    pub fn new(context: &WorkerContext, workers: &GenerationWorkers) -> CatchUp {
        CatchUp {
            context: context.clone(),
            workers: workers.clone(),
            from_the_store: false,
        }
    }

    /// Only what is stored counts: for what can be moved back while a worker does not know it yet.
    #[must_use]
    pub fn from_the_store(mut self) -> CatchUp {
        self.from_the_store = true;
        self
    }

    /// Whether a token is one that this log can have given.
    ///
    /// # Errors
    ///
    /// [`ViewError::Invalid`] for one of another log.
    pub fn check_token(&self, token: &Token) -> Result<(), ViewError> {
        if token.log() == self.context.log().id() {
            return Ok(());
        }
        Err(Invalid::new(format!("the token {token} is of another log")).into())
    }

    /// Waits until a generation that readers see has come so far: the `live` one, or whichever it
    /// is by then. A worker that stopped ends the waiting at once.
    ///
    /// # Errors
    ///
    /// [`ViewError::NotYet`] after `at_most`, [`ViewError::Stopped`] at once when it will not come
    /// so far, [`ViewError::Invalid`] for a token of another log.
    pub async fn caught_up_with(
        &self,
        live: Option<Generation>,
        token: &Token,
        at_most: Duration,
    ) -> Result<Generation, ViewError> {
        self.check_token(token)?;
        match tokio::time::timeout(at_most, self.wait(live, token)).await {
            Ok(done) => done,
            Err(_) => Err(ViewError::NotYet {
                token: token.clone(),
                waited: at_most,
                held: self.held(),
            }),
        }
    }

    /// What holds it, for an error.
    fn held(&self) -> String {
        let now = self.context.clock().now();
        let status = self.workers.status(now);
        if status.is_empty() {
            return format!("no generation of `{}` is followed yet", self.workers.name());
        }
        status
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    }

    async fn wait(
        &self,
        mut live: Option<Generation>,
        token: &Token,
    ) -> Result<Generation, ViewError> {
        // Workers of this process say so soon enough, as a rule.
        let mut polls = false;
        loop {
            let found = match live.take() {
                Some(live) => Ok(live),
                None => self.live_in(&*self.context.poll.now().await?),
            };
            match found {
                Ok(generation) if self.comes_to(&generation, token, polls).await? => {
                    return Ok(generation);
                }
                Ok(generation) => self.is_at_work(&generation).await?,
                Err(ViewError::Building { .. }) => self.built().await?,
                Err(error) => return Err(error),
            }
            polls = true;
        }
    }

    /// Whether a generation comes so far within a little while: its workers in this process say so
    /// at once, those elsewhere are seen in the store; it is not polled, unless asked for, when
    /// there are none elsewhere.
    async fn comes_to(
        &self,
        generation: &Generation,
        token: &Token,
        polls: bool,
    ) -> Result<bool, ViewError> {
        if self.from_the_store {
            return self.has_reached(generation, token).await;
        }
        // What they know of a log that was restored meanwhile says nothing about this one.
        let incarnation = self.context.log().incarnation();
        if !self.workers.works_on_all(generation.id, incarnation) {
            return self.has_reached(generation, token).await;
        }
        let mut reached = pin!(self.workers.reached(generation.id, token));
        if polls {
            tokio::select! {
                biased;
                () = &mut reached => return Ok(true),
                stored = self.has_reached(generation, token) => if stored? { return Ok(true) },
            }
        }
        Ok(tokio::time::timeout(POLL, reached).await.is_ok())
    }

    /// Returns when a generation that this program folds serves. A worker that stopped ends the
    /// waiting at once, and so does the end of the last generation that was being built.
    ///
    /// # Errors
    ///
    /// [`ViewError::Stopped`]
    pub async fn built(&self) -> Result<(), ViewError> {
        let mut changes = self.workers.changes();
        let mut was_followed = false;
        loop {
            if self.workers.serving().is_some() {
                return Ok(());
            }
            let generations = self.workers.each(|of| of.generation.clone());
            for generation in generations.iter().filter(|of| of.phase == Phase::Building) {
                self.is_at_work(generation).await?;
            }
            self.has_not_ended()?;
            if was_followed && generations.is_empty() {
                let name = self.workers.name();
                return Err(ViewError::Stopped {
                    reason: format!(
                        "the generation of `{name}` that was being built was dropped; start the \
                         program again, which begins another one"
                    ),
                });
            }
            was_followed |= !generations.is_empty();
            let _ = tokio::time::timeout(POLL, changes.changed()).await;
        }
    }

    /// An error when a slot needs an operator, both here and in every other process.
    async fn is_at_work(&self, generation: &Generation) -> Result<(), ViewError> {
        if let Some((slot, reason)) = self.workers.stopped(generation.id) {
            // A newer program may be able to do what this one cannot.
            if let Some(slot) = slot {
                let claim = SlotClaim::of(&self.context, generation, slot);
                if claim.is_held_by_another().await? {
                    return Ok(());
                }
            }
            return Err(ViewError::Stopped { reason });
        }
        let ended = self.has_not_ended();
        if ended.is_err() {
            for slot in 0..generation.spec.slots {
                let claim = SlotClaim::of(&self.context, generation, slot);
                if claim.is_held_by_another().await? {
                    return Ok(());
                }
            }
        }
        ended
    }

    /// An error when the program was stopped: nothing will come of waiting.
    fn has_not_ended(&self) -> Result<(), ViewError> {
        if !*self.workers.ended().borrow() {
            return Ok(());
        }
        Err(ViewError::Stopped {
            reason: "the program was stopped; start it again".into(),
        })
    }

    /// Whether every slot has come so far, also those that another process works on.
    async fn has_reached(&self, generation: &Generation, token: &Token) -> Result<bool, ViewError> {
        let seen = self.context.poll.now().await?;
        let Some(GenerationState { checkpoints, .. }) = seen.state(generation.id) else {
            return Ok(false);
        };
        let reached = (0..generation.spec.slots).all(|slot| {
            token.positions().all(|(partition, position)| {
                let mut of = checkpoints
                    .iter()
                    .filter(|of| of.slot == slot && of.partition == partition);
                position == Position::START
                    || !generation.spec.reads(slot, partition)
                    || of.any(|of| settled_to(of) >= position)
            })
        });
        // A view in another store outlives a log that is restored: it may have seen what is not
        // there any more, and then its rows are not those of this log.
        let asks = token
            .positions()
            .any(|(_, position)| position > Position::START);
        if reached && asks && matches!(self.context.views, ViewLocation::Own(_)) {
            for checkpoint in checkpoints {
                let same = same_log(&**self.context.log(), generation, checkpoint).await;
                match same {
                    Err(WorkError::Stopped(reason)) => return Err(ViewError::Stopped { reason }),
                    same => same?,
                }
            }
        }
        Ok(reached)
    }

    /// The generation that readers see now.
    ///
    /// # Errors
    ///
    /// [`ViewError::Building`] while there is none.
    pub async fn live(&self) -> Result<Generation, ViewError> {
        let spec = self.workers.spec();
        let generations = self.context.views.generations(&spec.view).await?;
        self.live_among(&generations)
    }

    fn live_in(&self, seen: &Seen) -> Result<Generation, ViewError> {
        let generations: Vec<_> = seen
            .generations(&self.workers.spec().view)
            .cloned()
            .collect();
        self.live_among(&generations)
    }

    fn live_among(&self, generations: &[Generation]) -> Result<Generation, ViewError> {
        if let Some(live) = serving(generations, self.workers.spec()) {
            return Ok(live.clone());
        }
        let followed = self
            .workers
            .each(|of| (of.events_done(), of.events_total()));
        let (done, total) = followed.last().copied().unwrap_or_default();
        Err(ViewError::Building { done, total })
    }
}
