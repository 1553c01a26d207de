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
use crate::position::Partition;

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
        self.stamp.check()?;
        let store = &**self.db.store();
        let streams = self.boundary.streams()?;
        let mut named = HashSet::new();
        if let Some(twice) = streams.iter().find(|stream| !named.insert(**stream)) {
            return Err(duplicate(twice).into());
        }
        let partition = match &*streams {
            [only] => store.partition_of(only),
            [] => Partition(0),
            [..] => check_atomic(store).map(|()| Partition(0))?,
        };
        let scope = scope_of(&self.boundary.names())?;
        if let Some(done) = self.stamp.done_before(store, &scope, partition).await? {
            return Ok(done);
        }
        let mut turns = Vec::new();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut guards = Guards::on(store);
            let state = self.boundary.load(&mut guards).await?;
            let decided = match (self.decide)(&state)
                .map(|decision| decision.into_decision(&self.boundary))
            {
                Ok(Ok(events)) => Ok(events),
                Ok(Err(EmitError::Invalid(invalid))) => return Err(invalid.into()),
                Ok(Err(EmitError::Encode(error))) => return Err(error.into()),
                Err(refusal) => Err(CommandError::Refused(refusal)),
            };
            match decided {
                Ok(mut events) if !events.is_empty() => {
                    self.stamp
                        .apply(self.db, &scope, events.iter_mut().map(|(_, event)| event));
                    let mut request = Append::default();
                    request.condition = guards.condition();
                    request.decided_on = Some(guards.incarnation);
                    request.expectations = guards.streams;
                    request.events = events;
                    match append(self.db, request).await {
                        Ok(appended) => return Ok(self.stamp.done(&appended)),
                        Err(error) => {
                            if let Some(error) = final_error(error) {
                                return Err(error);
                            }
                        }
                    }
                }
                // The parts were read one after another: nothing and a refusal count when they
                // still are what they were.
                nothing => {
                    if guards.still_hold().await? {
                        // The same request may have taken effect elsewhere after it was asked for:
                        // then it is seen already.
                        if let Some(done) = self.stamp.done_before(store, &scope, partition).await?
                        {
                            return Ok(done);
                        }
                        return nothing.map(|_| Committed::nothing(store, &guards.seen));
                    }
                }
            }
            if attempts >= self.db.retries().attempts_max {
                return Err(CommandError::Contended { attempts });
            }
            if turns.is_empty() {
                // Who was overtaken once lines up with the others in this process. Not from the
                // start: decisions that share what none of them writes need not wait for each
                // other.
                turns = self.db.cache().turns(self.boundary.turns()?).await;
            } else {
                self.db.retries().pause(attempts).await;
            }
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
