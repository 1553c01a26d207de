//! What a decision looks at: each part loads its state and says what must not change until the
//! decision is recorded.

use std::any::TypeId;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;

use sha2::{Digest as _, Sha256};

use super::guards::Guards;
use crate::aggregate::cache::{TurnKey, turn_of};
use crate::aggregate::commit::tagged;
use crate::aggregate::fold::{LoadError, catch_up};
use crate::aggregate::{Aggregate, At};
use crate::error::Invalid;
use crate::position::{Partition, Position};
use crate::query::Query;
use crate::read::ReadQuery;
use crate::stream::StreamId;
use crate::stream_state::Status;
use crate::typed::{Event, Recorded};

/// A state folded from whatever a query finds: what a decision that crosses streams needs to know,
/// and no more.
///
/// ```
/// use annals_core::{Event, Fold, Query, Recorded};
///
/// /// Whether a coupon was used in any cart.
/// #[derive(Default)]
/// struct CouponUse { used: bool }
///
/// # struct CartEvent; impl CartEvent { fn uses_coupon(&self) -> bool { true } }
/// # trait Sketch { type Event; fn apply(&mut self, event: &Recorded<Self::Event>); }
/// # impl Sketch for CouponUse {
/// # type Event = CartEvent;
/// // In `impl Fold for CouponUse`:
/// fn apply(&mut self, event: &Recorded<CartEvent>) {
///     self.used |= event.uses_coupon();
/// }
/// # }
/// ```
pub trait Fold: Default + Send + Sync + 'static {
    /// The events that it is folded from; others that the query finds are not even read.
    type Event: Event;

    /// Takes in what happened, with its times and metadata at hand.
    fn apply(&mut self, event: &Recorded<Self::Event>);

    /// This fold over what `query` finds, as a part of a decision.
    fn over(query: Query) -> Over<Self> {
        let types: Vec<&str> = Self::Event::shapes()
            .iter()
            .map(|shape| shape.event_type)
            .collect();
        Over {
            read: query.clone().only_types(&types),
            asked: query,
            fold: PhantomData,
        }
    }
}

/// A fold over a query: a part of a decision. An append that adds to what the query finds makes the
/// decision be taken again.
///
/// ```
/// # use annals_core::{Fold, Query};
/// # fn example<CouponUse: Fold>() -> Result<(), annals_core::Invalid> {
/// let boundary = CouponUse::over(Query::tagged(["coupon:SPRING".parse()?]));
/// # Ok(())
/// # }
/// ```
pub struct Over<F> {
    asked: Query,
    // … narrowed to the types that the fold knows.
    read: Query,
    fold: PhantomData<fn() -> F>,
}

impl<F> fmt::Debug for Over<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Over").field(&self.asked).finish()
    }
}

/// One thing that a decision looks at: [`At`] an aggregate, or a fold [`Over`] a query. There are
/// no others.
pub trait Part: sealed::Sealed + Send + Sync {
    /// What is loaded of it.
    type State: Send + Sync;

    /// The stream that it is, if it is one.
    #[doc(hidden)]
    fn stream(&self) -> Result<Option<&StreamId>, Invalid>;

    /// Names it among others, the same in every process and in every later version of the program.
    #[doc(hidden)]
    fn name(&self) -> String;

    /// Whose turn it is to decide on it.
    #[doc(hidden)]
    fn turn(&self) -> Result<TurnKey, Invalid>;

    /// Loads the state, and says what must not change.
    #[doc(hidden)]
    fn load(
        &self,
        guards: &mut Guards<'_>,
    ) -> impl Future<Output = Result<Self::State, LoadError>> + Send;
}

/// Everything that a decision looks at: one fold over a query, or a tuple of up to six aggregates
/// and folds. There are no others.
pub trait Boundary: sealed::Sealed + Send + Sync {
    /// The states, in the same shape.
    type State: Send + Sync;

    /// The streams among the parts.
    #[doc(hidden)]
    fn streams(&self) -> Result<Vec<&StreamId>, Invalid>;

    /// The names of the parts.
    #[doc(hidden)]
    fn names(&self) -> Vec<String>;

    /// Whose turn it is to decide on the parts.
    #[doc(hidden)]
    fn turns(&self) -> Result<Vec<TurnKey>, Invalid>;

    /// Loads every part.
    #[doc(hidden)]
    fn load(
        &self,
        guards: &mut Guards<'_>,
    ) -> impl Future<Output = Result<Self::State, LoadError>> + Send;
}

mod sealed {
    pub trait Sealed {}
}

impl<A: Aggregate> sealed::Sealed for At<A> {}

impl<A: Aggregate> Part for At<A> {
    type State = A;

    fn stream(&self) -> Result<Option<&StreamId>, Invalid> {
        At::stream(self).map(Some)
    }

    fn name(&self) -> String {
        At::stream(self).map_or_else(|_| String::new(), ToString::to_string)
    }

    fn turn(&self) -> Result<TurnKey, Invalid> {
        At::stream(self).map(turn_of::<A>)
    }

    async fn load(&self, guards: &mut Guards<'_>) -> Result<A, LoadError> {
        let stream = At::stream(self)?;
        let held = catch_up::<A>(guards.store, stream, None).await?;
        // A tombstone is for ever, so there is nothing to guard, and the store refuses what is
        // decided for it.
        if held.status != Status::Tombstoned {
            guards.streams.push((stream.clone(), held.expected()));
        }
        guards.seen.push((held.partition, held.position));
        Ok(held.state)
    }
}

impl<F: Fold> sealed::Sealed for Over<F> {}

impl<F: Fold> Part for Over<F> {
    type State = F;

    fn stream(&self) -> Result<Option<&StreamId>, Invalid> {
        Ok(None)
    }

    fn name(&self) -> String {
        // In the words of the caller: the types that the fold knows become more with the program.
        let items = self
            .asked
            .items()
            .iter()
            .map(|item| serde_json::json!([item.types, item.streams, item.tags]));
        serde_json::Value::from_iter(items).to_string()
    }

    fn turn(&self) -> Result<TurnKey, Invalid> {
        Ok((scope_of(&[Part::name(self)])?, TypeId::of::<F>()))
    }

    async fn load(&self, guards: &mut Guards<'_>) -> Result<F, LoadError> {
        let store = tagged(guards.store)?;
        let mut state = F::default();
        let mut read = ReadQuery::of(self.read.clone());
        loop {
            let page = store.read_query(read.clone()).await?;
            if read.up_to == Position::MAX {
                // The first page's moment is the moment of the whole reading.
                read = read.up_to(page.head.visible);
            }
            for record in page.events {
                for event in Recorded::decode(record)? {
                    state.apply(&event);
                }
            }
            if page.end || page.scanned >= read.up_to {
                break;
            }
            read = read.after(page.scanned);
        }
        guards.queries.push((self.read.clone(), read.up_to));
        guards.seen.push((Partition(0), read.up_to));
        Ok(state)
    }
}

impl<F: Fold> Boundary for Over<F> {
    type State = F;

    fn streams(&self) -> Result<Vec<&StreamId>, Invalid> {
        Ok(Vec::new())
    }

    fn names(&self) -> Vec<String> {
        vec![Part::name(self)]
    }

    fn turns(&self) -> Result<Vec<TurnKey>, Invalid> {
        Ok(vec![Part::turn(self)?])
    }

    fn load(&self, guards: &mut Guards<'_>) -> impl Future<Output = Result<F, LoadError>> + Send {
        Part::load(self, guards)
    }
}

/// The stream name that stands for these parts: ids of their requests are derived from it, nothing
/// is stored under it.
pub(super) fn scope_of(names: &[String]) -> Result<StreamId, Invalid> {
    let hash = Sha256::digest(names.join("\n").as_bytes());
    let half: [u8; 16] = std::array::from_fn(|index| hash[index]);
    StreamId::any(format!("$decision-{:032x}", u128::from_be_bytes(half)))
}

macro_rules! tuples {
    ($(($($part:ident.$index:tt),+))+) => {$(
        impl<$($part: Part),+> sealed::Sealed for ($($part,)+) {}

        impl<$($part: Part),+> Boundary for ($($part,)+) {
            type State = ($($part::State,)+);

            fn streams(&self) -> Result<Vec<&StreamId>, Invalid> {
                Ok([$(self.$index.stream()?),+].into_iter().flatten().collect())
            }

            fn names(&self) -> Vec<String> {
                vec![$(self.$index.name()),+]
            }

            fn turns(&self) -> Result<Vec<TurnKey>, Invalid> {
                Ok(vec![$(self.$index.turn()?),+])
            }

            async fn load(&self, guards: &mut Guards<'_>) -> Result<Self::State, LoadError> {
                Ok(($(self.$index.load(guards).await?,)+))
            }
        }
    )+};
}

tuples! {
    (A.0)
    (A.0, B.1)
    (A.0, B.1, C.2)
    (A.0, B.1, C.2, D.3)
    (A.0, B.1, C.2, D.3, E.4)
    (A.0, B.1, C.2, D.3, E.4, F.5)
}
