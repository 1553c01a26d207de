//! What a decision looks at: each part loads its state and says what must not change until the decision is recorded.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;

use crate::aggregate::fold::{LoadError, catch_up};
use crate::aggregate::{Aggregate, At};
use crate::append::{Condition, Expected};
use crate::error::{Failure, Invalid, StoreError};
use crate::position::{Partition, Position};
use crate::query::Query;
use crate::read::ReadQuery;
use crate::store::Store;
use crate::stream::StreamId;
use crate::typed::{Event, Recorded};

/// A state folded from whatever a query finds: what a decision that crosses streams needs to know, and no more.
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
        let types: Vec<&str> = Self::Event::shapes().iter().map(|shape| shape.event_type).collect();
        Over { query: query.only_types(&types), fold: PhantomData }
    }
}

/// A fold over a query: a part of a decision. An append that adds to what the query finds makes the decision be taken again.
///
/// ```
/// # use annals_core::{Fold, Query};
/// # fn example<CouponUse: Fold>() -> Result<(), annals_core::Invalid> {
/// let boundary = CouponUse::over(Query::tagged(["coupon:SPRING".parse()?]));
/// # Ok(())
/// # }
/// ```
pub struct Over<F> {
    query: Query,
    fold: PhantomData<fn() -> F>,
}

impl<F> fmt::Debug for Over<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Over").field(&self.query).finish()
    }
}

/// What must still hold when a decision is recorded: collected while its parts load.
#[derive(Debug)]
pub struct Guards<'a> {
    store: &'a dyn Store,
    pub(super) streams: Vec<(StreamId, Expected)>,
    pub(super) queries: Vec<(Query, Position)>,
    pub(super) seen: Vec<(Partition, Position)>,
}

impl<'a> Guards<'a> {
    pub(super) fn on(store: &'a dyn Store) -> Guards<'a> {
        Guards { store, streams: Vec::new(), queries: Vec::new(), seen: Vec::new() }
    }

    /// The condition of all queries: nothing that matches one of them stands behind the earliest moment of a reading.
    pub(super) fn condition(&self) -> Option<Condition> {
        let after = self.queries.iter().map(|(_, after)| *after).min()?;
        let query = self.queries.iter().fold(Query::default(), |all, (query, _)| all.or(query.clone()));
        Some(Condition::none_matches(query).after(after))
    }

    /// Whether nothing moved since the parts were read: then what they show belongs to one moment.
    pub(super) async fn still_hold(&self) -> Result<bool, StoreError> {
        for (stream, expected) in &self.streams {
            if !expected.allows_writing(&self.store.stream_state(stream).await?) {
                return Ok(false);
            }
        }
        for (query, after) in &self.queries {
            let page = tagged(self.store)?.read_query(ReadQuery::of(query.clone()).after(*after).limit(1)).await?;
            if !page.events.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn tagged(store: &dyn Store) -> Result<&dyn crate::TaggedStore, StoreError> {
    store.tagged().ok_or_else(|| StoreError::new(Failure::Invalid, "this store cannot decide over queries"))
}

/// One thing that a decision looks at: [`At`] an aggregate, or a fold [`Over`] a query.
pub trait Part: Send + Sync {
    /// What is loaded of it.
    type State: Send + Sync;

    /// The stream that it is, if it is one.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when it was asked for by an id that is no legal name.
    fn stream(&self) -> Result<Option<&StreamId>, Invalid>;

    /// Names it among others, the same in every process: part of the scope of an idempotency key.
    fn name(&self) -> String;

    /// Loads the state, and says what must not change.
    fn load(&self, guards: &mut Guards<'_>) -> impl Future<Output = Result<Self::State, LoadError>> + Send;
}

impl<A: Aggregate> Part for At<A> {
    type State = A;

    fn stream(&self) -> Result<Option<&StreamId>, Invalid> {
        At::stream(self).map(Some)
    }

    fn name(&self) -> String {
        At::stream(self).map_or_else(|_| String::new(), ToString::to_string)
    }

    async fn load(&self, guards: &mut Guards<'_>) -> Result<A, LoadError> {
        let stream = At::stream(self)?;
        let held = catch_up::<A>(guards.store, stream, None).await?;
        guards.streams.push((stream.clone(), held.expected()));
        guards.seen.push((held.partition, held.position));
        Ok(held.state)
    }
}

impl<F: Fold> Part for Over<F> {
    type State = F;

    fn stream(&self) -> Result<Option<&StreamId>, Invalid> {
        Ok(None)
    }

    fn name(&self) -> String {
        format!("{:?}", self.query)
    }

    async fn load(&self, guards: &mut Guards<'_>) -> Result<F, LoadError> {
        let store = tagged(guards.store)?;
        let mut state = F::default();
        let mut read = ReadQuery::of(self.query.clone());
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
        guards.queries.push((self.query.clone(), read.up_to));
        guards.seen.push((Partition(0), read.up_to));
        Ok(state)
    }
}

/// Everything that a decision looks at: one fold over a query, or a tuple of up to six aggregates and folds.
pub trait Boundary: Send + Sync {
    /// The states, in the same shape.
    type State: Send + Sync;

    /// The streams among the parts.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when a part was asked for by an id that is no legal name.
    fn streams(&self) -> Result<Vec<&StreamId>, Invalid>;

    /// Names it, the same in every process.
    fn name(&self) -> String;

    /// Loads every part.
    fn load(&self, guards: &mut Guards<'_>) -> impl Future<Output = Result<Self::State, LoadError>> + Send;
}

impl<F: Fold> Boundary for Over<F> {
    type State = F;

    fn streams(&self) -> Result<Vec<&StreamId>, Invalid> {
        Ok(Vec::new())
    }

    fn name(&self) -> String {
        Part::name(self)
    }

    fn load(&self, guards: &mut Guards<'_>) -> impl Future<Output = Result<F, LoadError>> + Send {
        Part::load(self, guards)
    }
}

macro_rules! tuples {
    ($(($($part:ident.$index:tt),+))+) => {$(
        impl<$($part: Part),+> Boundary for ($($part,)+) {
            type State = ($($part::State,)+);

            fn streams(&self) -> Result<Vec<&StreamId>, Invalid> {
                Ok([$(self.$index.stream()?),+].into_iter().flatten().collect())
            }

            fn name(&self) -> String {
                [$(self.$index.name()),+].join("\n")
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
