//! What a decision looks at: each part loads its state and says what must not change until the
//! decision is recorded.

use std::any::{TypeId, type_name};
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;

use sha2::{Digest as _, Sha256};

use super::guards::Guards;
use crate::aggregate::cache::{TurnKey, Turns, turn_of};
use crate::aggregate::commit::tagged;
use crate::aggregate::fold::{CachedState, LoadError, applying, catch_up, save_snapshot};
use crate::aggregate::run::read_back;
use crate::aggregate::{Aggregate, At};
use crate::append::Appended;
use crate::contain::net;
use crate::error::Invalid;
use crate::event::NewEvent;
use crate::position::{Incarnation, Partition, Position};
use crate::query::Query;
use crate::read::ReadQuery;
use crate::store::Store;
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

/// One thing that a decision looks at: [`At`] an aggregate, [`Each`](super::Each) of several, or a
/// fold [`Over`] a query. There are no others.
pub trait Part: sealed::Sealed + Send + Sync {
    /// What is loaded of it.
    type State: Send + Sync;

    /// What is known of the state beside it.
    #[doc(hidden)]
    type Known: Send + Sync;

    /// The streams that it is.
    #[doc(hidden)]
    fn streams(&self) -> Result<Vec<&StreamId>, Invalid>;

    /// Names it among others, the same in every process and in every later version of the program.
    #[doc(hidden)]
    fn name(&self) -> String;

    /// Whose turn it is to decide on it.
    #[doc(hidden)]
    fn turns(&self) -> Result<Vec<TurnKey>, Invalid>;

    /// Loads the state, and says what must not change. A state from the cache may do, unless it
    /// must be `fresh`.
    #[doc(hidden)]
    fn load(
        &self,
        guards: &mut Guards<'_>,
        turns: &mut Turns,
        fresh: bool,
    ) -> impl Future<Output = Result<(Self::State, Self::Known), LoadError>> + Send;

    /// Keeps the state for the next decision.
    #[doc(hidden)]
    fn keep(&self, state: Self::State, known: Self::Known, turns: &mut Turns);

    /// Brings what is kept up to what was appended.
    #[doc(hidden)]
    fn absorb(
        &self,
        store: &dyn Store,
        events: &[(StreamId, NewEvent)],
        appended: &Appended,
        turns: &mut Turns,
    ) -> impl Future<Output = ()> + Send;
}

/// Everything that a decision looks at: one fold over a query, or a tuple of up to six parts. There
/// are no others.
pub trait Boundary: sealed::Sealed + Send + Sync {
    /// The states, in the same shape.
    type State: Send + Sync;

    /// What is known of the states beside them.
    #[doc(hidden)]
    type Known: Send + Sync;

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
        turns: &mut Turns,
        fresh: bool,
    ) -> impl Future<Output = Result<(Self::State, Self::Known), LoadError>> + Send;

    /// Keeps the states for the next decision.
    #[doc(hidden)]
    fn keep(&self, state: Self::State, known: Self::Known, turns: &mut Turns);

    /// Brings what is kept up to what was appended.
    #[doc(hidden)]
    fn absorb(
        &self,
        store: &dyn Store,
        events: &[(StreamId, NewEvent)],
        appended: &Appended,
        turns: &mut Turns,
    ) -> impl Future<Output = ()> + Send;
}

pub(super) mod sealed {
    pub trait Sealed {}
}

impl<A: Aggregate> sealed::Sealed for At<A> {}

impl<A: Aggregate> Part for At<A> {
    type State = A;
    type Known = CachedState<()>;

    fn streams(&self) -> Result<Vec<&StreamId>, Invalid> {
        Ok(vec![At::stream(self)?])
    }

    fn name(&self) -> String {
        At::stream(self).map_or_else(|_| String::new(), ToString::to_string)
    }

    fn turns(&self) -> Result<Vec<TurnKey>, Invalid> {
        Ok(vec![turn_of::<A>(At::stream(self)?)])
    }

    async fn load(
        &self,
        guards: &mut Guards<'_>,
        turns: &mut Turns,
        fresh: bool,
    ) -> Result<(A, CachedState<()>), LoadError> {
        let stream = At::stream(self)?;
        let current = guards.incarnation;
        let cached = turns
            .take::<CachedState<A>>(&turn_of::<A>(stream))
            .filter(|cached| cached.incarnation == Some(current));
        let held = match cached {
            Some(cached) if !fresh => {
                guards.is_cached = true;
                cached
            }
            cached => catch_up::<A>(guards.store, stream, cached).await?,
        };
        // A tombstone is for ever, so there is nothing to guard, and the store refuses what is
        // decided for it.
        if held.status != Status::Tombstoned {
            guards.streams.push((stream.clone(), held.expected()));
        }
        guards.seen.push((held.partition, held.position));
        Ok(held.split())
    }

    fn keep(&self, state: A, known: CachedState<()>, turns: &mut Turns) {
        if let Ok(stream) = At::stream(self) {
            turns.put(&turn_of::<A>(stream), known.with(state));
        }
    }

    async fn absorb(
        &self,
        store: &dyn Store,
        events: &[(StreamId, NewEvent)],
        appended: &Appended,
        turns: &mut Turns,
    ) {
        let Ok(stream) = At::stream(self) else { return };
        let key = turn_of::<A>(stream);
        let of_this = events.iter().filter(|(to, _)| to == stream);
        let drafts: Vec<NewEvent> = of_this.map(|(_, event)| event.clone()).collect();
        let last = appended
            .events()
            .iter()
            .rev()
            .find(|placed| placed.stream == *stream);
        let Some(last) = last else { return };
        let Some(mut held) = turns.take::<CachedState<A>>(&key) else {
            return;
        };
        // What cannot be read back is found out by the next one who reads the stream.
        let Ok(stored) = read_back::<A::Event>(&drafts) else {
            return;
        };
        if !held.take_in(stream, &stored) {
            return;
        }
        held.version = last.version;
        held.status = Status::Active;
        held.partition = last.partition;
        held.position = appended.last().position;
        held.unsaved += drafts.len() as u64;
        save_snapshot(store, stream, &mut held).await;
        turns.put(&key, held);
    }
}

/// A fold over a query as it was at a position: the next one goes on from there.
struct CachedFold<F> {
    state: F,
    known: FoldKnown,
}

/// What is known of a fold over a query.
#[derive(Clone, Copy, Debug)]
pub struct FoldKnown {
    up_to: Position,
    incarnation: Incarnation,
}

impl<F: Fold> Over<F> {
    fn key(&self) -> Result<TurnKey, Invalid> {
        Ok((scope_of(&[Part::name(self)])?, TypeId::of::<F>()))
    }
}

impl<F: Fold> sealed::Sealed for Over<F> {}

impl<F: Fold> Part for Over<F> {
    type State = F;
    type Known = FoldKnown;

    fn streams(&self) -> Result<Vec<&StreamId>, Invalid> {
        Ok(Vec::new())
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

    fn turns(&self) -> Result<Vec<TurnKey>, Invalid> {
        Ok(vec![self.key()?])
    }

    async fn load(
        &self,
        guards: &mut Guards<'_>,
        turns: &mut Turns,
        _: bool,
    ) -> Result<(F, FoldKnown), LoadError> {
        let store = tagged(guards.store)?;
        let incarnation = guards.incarnation;
        let cached = turns
            .take::<CachedFold<F>>(&self.key()?)
            .filter(|cached| cached.known.incarnation == incarnation);
        let (mut state, mut read) = match cached {
            Some(CachedFold { state, known }) => {
                (state, ReadQuery::of(self.read.clone()).after(known.up_to))
            }
            None => {
                let code = || format!("`default` of `{}`", type_name::<F>());
                (net(code, F::default)?, ReadQuery::of(self.read.clone()))
            }
        };
        loop {
            let page = store.read_query(read.clone()).await?;
            if read.up_to == Position::MAX {
                // The first page's moment is the moment of the whole reading.
                read = read.up_to(page.head.visible);
            }
            for record in page.events {
                for event in Recorded::decode(record)? {
                    net(|| applying::<F>(&event.record), || state.apply(&event))?;
                }
            }
            if page.end || page.scanned >= read.up_to {
                break;
            }
            read = read.after(page.scanned);
        }
        guards.queries.push((self.read.clone(), read.up_to));
        guards.seen.push((Partition(0), read.up_to));
        let known = FoldKnown {
            up_to: read.up_to,
            incarnation,
        };
        Ok((state, known))
    }

    fn keep(&self, state: F, known: FoldKnown, turns: &mut Turns) {
        if let Ok(key) = self.key() {
            turns.put(&key, CachedFold { state, known });
        }
    }

    async fn absorb(&self, _: &dyn Store, _: &[(StreamId, NewEvent)], _: &Appended, _: &mut Turns) {
        // What was appended is read with what others append: the next fold goes on from here.
    }
}

impl<F: Fold> Boundary for Over<F> {
    type State = F;
    type Known = FoldKnown;

    fn streams(&self) -> Result<Vec<&StreamId>, Invalid> {
        Ok(Vec::new())
    }

    fn names(&self) -> Vec<String> {
        vec![Part::name(self)]
    }

    fn turns(&self) -> Result<Vec<TurnKey>, Invalid> {
        Part::turns(self)
    }

    fn load(
        &self,
        guards: &mut Guards<'_>,
        turns: &mut Turns,
        fresh: bool,
    ) -> impl Future<Output = Result<(F, FoldKnown), LoadError>> + Send {
        Part::load(self, guards, turns, fresh)
    }

    fn keep(&self, state: F, known: FoldKnown, turns: &mut Turns) {
        Part::keep(self, state, known, turns);
    }

    async fn absorb(&self, _: &dyn Store, _: &[(StreamId, NewEvent)], _: &Appended, _: &mut Turns) {
    }
}

/// The stream name of these parts: ids of their requests are derived from it, nothing
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
            type Known = ($($part::Known,)+);

            fn streams(&self) -> Result<Vec<&StreamId>, Invalid> {
                Ok([$(self.$index.streams()?),+].concat())
            }

            fn names(&self) -> Vec<String> {
                vec![$(self.$index.name()),+]
            }

            fn turns(&self) -> Result<Vec<TurnKey>, Invalid> {
                Ok([$(self.$index.turns()?),+].concat())
            }

            #[allow(non_snake_case)] // The parts are named as their types are.
            async fn load(
                &self,
                guards: &mut Guards<'_>,
                turns: &mut Turns,
                fresh: bool,
            ) -> Result<(Self::State, Self::Known), LoadError> {
                let parts = ($(self.$index.load(guards, turns, fresh).await?,)+);
                let ($($part,)+) = parts;
                Ok((($($part.0,)+), ($($part.1,)+)))
            }

            fn keep(&self, state: Self::State, known: Self::Known, turns: &mut Turns) {
                $(self.$index.keep(state.$index, known.$index, turns);)+
            }

            async fn absorb(
                &self,
                store: &dyn Store,
                events: &[(StreamId, NewEvent)],
                appended: &Appended,
                turns: &mut Turns,
            ) {
                $(self.$index.absorb(store, events, appended, turns).await;)+
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
