//! The loop of a decision over several things.

use std::collections::HashSet;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;

use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};

use super::boundary::{Boundary, Guards};
use super::emit::{EmitError, IntoDecision};
use crate::aggregate::commit::{CommandError, Done, Stamp, append, final_error};
use crate::annals::{Annals, duplicate};
use crate::append::AppendStreams;
use crate::event::Metadata;
use crate::position::Partition;
use crate::stream::StreamId;

/// A decision on its way. Nothing happens until it is awaited.
///
/// ```
/// # use annals_core::*;
/// # async fn example<A: Aggregate, X: IntoEvents<A::Event>>(db: Annals, transfer: fn(&A, &A) -> Result<(X, X), String>)
/// # -> Result<(), CommandError<String>> {
/// db.decide((A::at("alice"), A::at("bob")), |(a, b)| transfer(a, b)).idempotency_key("transfer-9").await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing happens until it is awaited"]
pub struct Decide<'a, B, F, D, E> {
    db: &'a Annals,
    boundary: B,
    decide: F,
    stamp: Stamp,
    returns: PhantomData<fn() -> (D, E)>,
}

impl<'a, B, F, D, E> Decide<'a, B, F, D, E> {
    pub(crate) fn new(db: &'a Annals, boundary: B, decide: F) -> Self {
        Decide { db, boundary, decide, stamp: Stamp::default(), returns: PhantomData }
    }

    /// Names the request: decided again with the same key over the same boundary, also after a restart, it returns the first
    /// result without deciding. A refused decision leaves no trace and may be sent again.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.stamp.idempotency_key = Some(key.into());
        self
    }

    /// What the events carry beside their content; what is not said here comes from the handle and the task.
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.stamp.metadata = metadata;
        self
    }

    /// When it happened in the world. Default: now, by the handle's clock.
    pub fn occurred_at(mut self, moment: DateTime<Utc>) -> Self {
        self.stamp.occurred_at = Some(moment);
        self
    }
}

impl<'a, B, F, D, E> IntoFuture for Decide<'a, B, F, D, E>
where
    B: Boundary + 'a,
    F: FnMut(&B::State) -> Result<D, E> + Send + 'a,
    D: IntoDecision<B> + 'a,
    E: Send + 'a,
{
    type Output = Result<Done, CommandError<E>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<B, F, D, E> Decide<'_, B, F, D, E>
where
    B: Boundary,
    F: FnMut(&B::State) -> Result<D, E> + Send,
    D: IntoDecision<B>,
    E: Send,
{
    async fn run(mut self) -> Result<Done, CommandError<E>> {
        let store = &**self.db.store();
        let mut named = HashSet::new();
        if let Some(twice) = self.boundary.streams()?.into_iter().find(|stream| !named.insert(*stream)) {
            return Err(duplicate(twice).into());
        }
        let scope = scope_of(&self.boundary)?;
        if let Some(done) = self.stamp.done_before(store, &scope, Partition(0)).await? {
            return Ok(done);
        }
        let mut attempts = 0;
        while attempts < self.db.retries().attempts_max {
            attempts += 1;
            let mut guards = Guards::on(store);
            let state = self.boundary.load(&mut guards).await?;
            let decided = (self.decide)(&state).map(|decision| decision.into_decision(&self.boundary));
            let mut events = match decided {
                Ok(Ok(events)) => events,
                Ok(Err(EmitError::Invalid(invalid))) => return Err(invalid.into()),
                Ok(Err(EmitError::Encode(error))) => return Err(error.into()),
                // The parts were read one after another: a refusal counts when they still are what they were.
                Err(refusal) => match guards.still_hold().await? {
                    true => return Err(CommandError::Refused(refusal)),
                    false => continue,
                },
            };
            if events.is_empty() {
                match guards.still_hold().await? {
                    true => return Ok(Done::nothing(store, &guards.seen)),
                    false => continue,
                }
            }
            self.stamp.apply(self.db, &scope, events.iter_mut().map(|(_, event)| event));
            let condition = guards.condition();
            let mut request = AppendStreams::default();
            (request.expectations, request.events) = (guards.streams, events);
            match append(self.db, request, condition).await {
                Ok(appended) => return Ok(Done::appended(&appended)),
                Err(error) => {
                    if let Some(error) = final_error(error) {
                        return Err(error);
                    }
                }
            }
            self.db.retries().pause(attempts).await;
        }
        Err(CommandError::Contended { attempts })
    }
}

/// The stream name that ids of this boundary's requests are derived from. Nothing is stored under it.
fn scope_of(boundary: &impl Boundary) -> Result<StreamId, crate::Invalid> {
    let hash = Sha256::digest(boundary.name().as_bytes());
    let half: [u8; 16] = std::array::from_fn(|index| hash[index]);
    StreamId::any(format!("$decision-{:032x}", u128::from_be_bytes(half)))
}

impl<B, F, D, E> fmt::Debug for Decide<'_, B, F, D, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decide").field("stamp", &self.stamp).finish_non_exhaustive()
    }
}
