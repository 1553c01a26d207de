//! A decision whose second part is known only after the first was looked at.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;

use super::boundary::{Boundary, Part, scope_of};
use super::emit::IntoDecision;
use super::guards::Guards;
use super::run::{Looping, partition_of};
use crate::aggregate::commit::{CommandError, Committed, Stamp, stamped};
use crate::annals::Annals;
use crate::contain::{Panicked, net};

/// A decision in two looks on its way. Nothing happens until it is awaited.
///
/// ```
/// # use annals_core::*;
/// # async fn example<Cart: Aggregate, Stock: Aggregate>(
/// #     db: Annals,
/// #     skus: fn(&Cart) -> Vec<String>,
/// #     check_out: fn(&Cart) -> Result<Cart::Event, String>,
/// # ) -> Result<(), CommandError<String>> {
/// db.decide_in_two_looks(
///     Cart::at("c1"),
///     |cart| Stock::at_each(skus(cart)),
///     |(cart, stocks)| Ok((check_out(cart)?, ())),
/// )
/// .idempotency_key("order-7")
/// .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing happens until it is awaited"]
pub struct DecideInTwoLooks<'a, P, S, F, D, E> {
    db: &'a Annals,
    first: P,
    second: S,
    decide: F,
    stamp: Stamp,
    returns: PhantomData<fn() -> (D, E)>,
}

impl<'a, P, S, F, D, E> DecideInTwoLooks<'a, P, S, F, D, E> {
    pub(crate) fn new(db: &'a Annals, first: P, second: S, decide: F) -> Self {
        DecideInTwoLooks {
            db,
            first,
            second,
            decide,
            stamp: Stamp::default(),
            returns: PhantomData,
        }
    }

    stamped! {
        /// Names the request: decided again with the same key over the same first part, also after
        /// a restart and whatever the second part would be now, it returns the first result without
        /// deciding. A decision that was refused or decided nothing leaves no trace and may be sent
        /// again. An empty key is [`CommandError::Invalid`].
    }
}

impl<'a, P, Q, S, F, D, E> IntoFuture for DecideInTwoLooks<'a, P, S, F, D, E>
where
    P: Part + Clone + 'a,
    Q: Part + 'a,
    S: Fn(&P::State) -> Q + Send + Sync + 'a,
    F: FnMut(&(P::State, Q::State)) -> Result<D, E> + Send + 'a,
    D: IntoDecision<(P, Q)> + 'a,
    E: Send + 'a,
{
    type Output = Result<Committed, CommandError<E>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<P, S, F, D, E> DecideInTwoLooks<'_, P, S, F, D, E>
where
    P: Part + Clone,
    E: Send,
{
    async fn run<Q>(mut self) -> Result<Committed, CommandError<E>>
    where
        Q: Part,
        S: Fn(&P::State) -> Q + Send + Sync,
        F: FnMut(&(P::State, Q::State)) -> Result<D, E> + Send,
        D: IntoDecision<(P, Q)>,
    {
        let db = self.db;
        let alone = (self.first.clone(),);
        let partition = partition_of(db, &alone)?;
        let scope = scope_of(&alone.names())?;
        let mut looping = Looping::new(db, &self.stamp, scope, partition)?;
        if let Some(done) = looping.done_before().await? {
            return Ok(done);
        }
        let mut fresh = false;
        for _ in 0..db.retries().attempts_max {
            let second = {
                let mut turns = db.cache().turns(alone.turns()?).await;
                let mut guards = Guards::on(&**db.store());
                let (state, known) = alone.load(&mut guards, &mut turns, fresh).await?;
                let second = look(&self.second, &state.0)?;
                alone.keep(state, known, &mut turns);
                second
            };
            let both = (self.first.clone(), second);
            partition_of(db, &both)?;
            let of_second = both.1.name();
            let is_current = |state: &(P::State, Q::State)| {
                let asked = look(&self.second, &state.0)?;
                Ok(asked.name() == of_second)
            };
            if let Some(done) = looping.decide(&both, &mut self.decide, is_current).await? {
                return Ok(done);
            }
            fresh = true;
        }
        Err(CommandError::Contended {
            attempts: db.retries().attempts_max,
        })
    }
}

/// Asks what else to look at.
fn look<S, Q>(second: &impl Fn(&S) -> Q, state: &S) -> Result<Q, Panicked> {
    net(|| "what leads to the second look", || second(state))
}

impl<P, S, F, D, E> fmt::Debug for DecideInTwoLooks<'_, P, S, F, D, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecideInTwoLooks")
            .field("stamp", &self.stamp)
            .finish_non_exhaustive()
    }
}
