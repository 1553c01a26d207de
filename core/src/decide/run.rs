//! The loop of a decision over several things.

use std::collections::HashSet;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;

use super::boundary::{Boundary, scope_of};
use super::emit::{EmitError, IntoDecision};
use super::guards::Guards;
use crate::aggregate::commit::{
    CommandError, Committed, Stamp, append, check_atomic, final_error, stamped,
};
use crate::annals::{Annals, duplicate};
use crate::append::Append;
use crate::contain::{Panicked, net};
use crate::error::Invalid;
use crate::event::NewEvent;
use crate::position::Partition;
use crate::stream::StreamId;

/// A decision on its way. Nothing happens until it is awaited.
///
/// ```
/// # use annals_core::*;
/// # async fn example<A: Aggregate, X: IntoEvents<A::Event>>(
/// #     db: Annals, transfer: fn(&A, &A) -> Result<(X, X), String>,
/// # )
/// # -> Result<(), CommandError<String>> {
/// db
///     .decide((A::at("alice"), A::at("bob")), |(a, b)| transfer(a, b))
///     .idempotency_key("transfer-9").await?;
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
        Decide {
            db,
            boundary,
            decide,
            stamp: Stamp::default(),
            returns: PhantomData,
        }
    }

    stamped! {
        /// Names the request: decided again with the same key over the same boundary, also after a
        /// restart, it returns the first result without deciding. The parts are the same boundary
        /// only in the same order. A decision that was refused or decided nothing leaves no trace
        /// and may be sent again. An empty key is [`CommandError::Invalid`].
    }
}

impl<'a, B, F, D, E> IntoFuture for Decide<'a, B, F, D, E>
where
    B: Boundary + 'a,
    F: FnMut(&B::State) -> Result<D, E> + Send + 'a,
    D: IntoDecision<B> + 'a,
    E: Send + 'a,
{
    type Output = Result<Committed, CommandError<E>>;
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
    async fn run(mut self) -> Result<Committed, CommandError<E>> {
        let partition = partition_of(self.db, &self.boundary)?;
        let scope = scope_of(&self.boundary.names())?;
        let mut looping = Looping::new(self.db, &self.stamp, scope, partition)?;
        let decided = looping
            .decide(&self.boundary, &mut self.decide, |_| Ok(true))
            .await?;
        decided.ok_or(CommandError::Contended {
            attempts: looping.attempts,
        })
    }
}

/// Where the ids of the request are looked for.
pub(super) fn partition_of(db: &Annals, boundary: &impl Boundary) -> Result<Partition, Invalid> {
    let store = &**db.store();
    let streams = boundary.streams()?;
    let max = store.limits().append_expectations_max;
    if streams.len() > max {
        return Err(Invalid::new(format!(
            "a decision over {} aggregates, at most {max} are allowed",
            streams.len()
        )));
    }
    let mut named = HashSet::new();
    if let Some(twice) = streams.iter().find(|stream| !named.insert(**stream)) {
        return Err(duplicate(twice));
    }
    match &*streams {
        [only] => Ok(store.partition_of(only)),
        [] => Ok(Partition(0)),
        [..] => check_atomic(store).map(|()| Partition(0)),
    }
}

/// What several attempts of one decision share.
pub(super) struct Looping<'a> {
    db: &'a Annals,
    stamp: &'a Stamp,
    scope: StreamId,
    partition: Partition,
    pub(super) attempts: u32,
}

impl<'a> Looping<'a> {
    pub(super) fn new(
        db: &'a Annals,
        stamp: &'a Stamp,
        scope: StreamId,
        partition: Partition,
    ) -> Result<Looping<'a>, Invalid> {
        stamp.check()?;
        Ok(Looping {
            db,
            stamp,
            scope,
            partition,
            attempts: 0,
        })
    }

    pub(super) async fn done_before<E>(&self) -> Result<Option<Committed>, CommandError<E>> {
        let store = &**self.db.store();
        self.stamp
            .done_before(store, &self.scope, self.partition)
            .await
    }

    /// Loads, decides and appends until it is done; nothing, when the state shows that another
    /// boundary is the right one.
    pub(super) async fn decide<B, D, E>(
        &mut self,
        boundary: &B,
        decide: &mut (impl FnMut(&B::State) -> Result<D, E> + Send),
        is_current: impl Fn(&B::State) -> Result<bool, Panicked> + Send,
    ) -> Result<Option<Committed>, CommandError<E>>
    where
        B: Boundary,
        D: IntoDecision<B>,
        E: Send,
    {
        let store = &**self.db.store();
        // In this process decisions on one thing follow one another: each finds what the one before
        // it left in the cache.
        let mut turns = self.db.cache().turns(boundary.turns()?).await;
        if let Some(done) = self.done_before().await? {
            return Ok(Some(done));
        }
        // What follows from a state that was not just read is decided again before it counts.
        let mut fresh = false;
        loop {
            let mut guards = Guards::on(store);
            let (state, known) = boundary.load(&mut guards, &mut turns, fresh).await?;
            if !is_current(&state)? {
                boundary.keep(state, known, &mut turns);
                return Ok(None);
            }
            // When it panics, what was loaded is dropped with it: nothing half-changed is kept.
            let decided = net(
                || format!("the decision over {}", boundary.names().join(", ")),
                || decide(&state).map(|decision| decision.into_decision(boundary)),
            )?;
            boundary.keep(state, known, &mut turns);
            let decided = match decided {
                Ok(Ok(events)) => Ok(events),
                Ok(Err(EmitError::Invalid(invalid))) => return Err(invalid.into()),
                Ok(Err(EmitError::Encode(error))) => return Err(error.into()),
                Err(refusal) => Err(CommandError::Refused(refusal)),
            };
            match decided {
                Ok(events) if !events.is_empty() => {
                    self.attempts += 1;
                    // Who only looks at the rest need not wait until this is written.
                    turns.keep_only(&events.iter().map(|(stream, _)| stream).collect());
                    if let Some((events, appended)) = self.append(&mut guards, events).await? {
                        let done = self.stamp.done(&appended);
                        self.stamp.check_repeated(store, &done).await?;
                        if !appended.was_repeated() {
                            boundary.absorb(store, &events, &appended, &mut turns).await;
                        }
                        return Ok(Some(done));
                    }
                }
                _ if guards.is_cached => {
                    fresh = true;
                    continue;
                }
                // The parts were read one after another: nothing and a refusal count when they
                // still are what they were.
                nothing => {
                    self.attempts += 1;
                    if guards.still_hold().await? {
                        // The same request may have taken effect elsewhere after it was asked for:
                        // then it is seen already.
                        if let Some(done) = self.done_before().await? {
                            return Ok(Some(done));
                        }
                        return nothing.map(|_| Some(Committed::nothing(store, &guards.seen)));
                    }
                }
            }
            if self.attempts >= self.db.retries().attempts_max {
                return Err(CommandError::Contended {
                    attempts: self.attempts,
                });
            }
            // A cached state that had become old is no sign of contention.
            if fresh || !guards.is_cached {
                self.db.retries().pause(self.attempts).await;
            }
            fresh = true;
            drop(turns);
            turns = self.db.cache().turns(boundary.turns()?).await;
        }
    }

    /// Appends what was decided; nothing, when it is to be decided again.
    async fn append<E>(
        &self,
        guards: &mut Guards<'_>,
        mut events: Vec<(StreamId, NewEvent)>,
    ) -> Result<Option<(Vec<(StreamId, NewEvent)>, crate::Appended)>, CommandError<E>> {
        let drafts = events.iter_mut().map(|(_, event)| event);
        self.stamp.apply(self.db, &self.scope, drafts)?;
        let request = Append {
            condition: guards.condition(),
            decided_on: Some(guards.incarnation),
            expectations: std::mem::take(&mut guards.streams),
            events,
            ..Append::default()
        };
        let events = request.events.clone();
        match append(self.db, request).await {
            Ok(appended) => Ok(Some((events, appended))),
            Err(error) => final_error(error).map_or(Ok(None), Err),
        }
    }
}

impl<B, F, D, E> fmt::Debug for Decide<'_, B, F, D, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decide")
            .field("stamp", &self.stamp)
            .finish_non_exhaustive()
    }
}
