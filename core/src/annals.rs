//! The handle that programs pass around: a store, a clock, ids, and the states of busy aggregates.

use std::fmt;
use std::sync::Arc;

use crate::aggregate::cache::Cache;
use crate::aggregate::{Aggregate, AggregateRef};
use crate::clock::{Clock, IdSource, RandomIds, SystemClock};
use crate::context::ambient;
use crate::decide::{Boundary, Decide, DecideInTwoLooks, IntoDecision, Part};
use crate::error::Invalid;
use crate::event::{Metadata, RecordedEvent};
use crate::inline_projector::InlineProjector;
use crate::memory::MemoryStore;
use crate::read_only::ReadOnly;
use crate::replay::Events;
use crate::retry::Retries;
use crate::store::{Log, Store};

/// A store, and everything that decides on it. Cheap to clone; has no generic parameter.
///
/// ```
/// use annals_core::Annals;
///
/// let db = Annals::in_memory();
/// assert_eq!(db.store().partitions(), 1);
/// ```
#[derive(Clone)]
pub struct Annals {
    shared: Arc<Shared>,
    metadata: Arc<Metadata>,
}

struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    retries: Retries,
    cache: Cache,
    companions: Vec<Arc<dyn InlineProjector>>,
}

impl Annals {
    /// States kept in memory by default.
    pub const CACHED_STATES: usize = 10_000;

    /// On this store, with the system's clock and random ids.
    pub fn on(store: Arc<dyn Store>) -> Annals {
        let shared = Shared {
            store,
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            retries: Retries::default(),
            cache: Cache::new(Annals::CACHED_STATES),
            companions: Vec::new(),
        };
        Annals {
            shared: Arc::new(shared),
            metadata: Arc::default(),
        }
    }

    /// On a log that other programs write: read models follow it, and every append is refused with
    /// [`Failure::ReadOnly`](crate::Failure).
    pub fn following(log: Arc<dyn Log>) -> Annals {
        Annals::on(Arc::new(ReadOnly::new(log)))
    }

    /// On a fresh [`MemoryStore`].
    pub fn in_memory() -> Annals {
        Annals::on(Arc::new(MemoryStore::new()))
    }

    /// The same store with another clock: it says when events happened unless the command does.
    /// What it recorded is told by the store's own clock. Say it before the handle is cloned, as
    /// with the other settings: the cache starts empty.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Annals {
        self.with(|shared| shared.clock = clock)
    }

    /// The same store with another source of event ids.
    #[must_use]
    pub fn with_ids(self, ids: Arc<dyn IdSource>) -> Annals {
        self.with(|shared| shared.ids = ids)
    }

    /// The same store with other retries.
    #[must_use]
    pub fn with_retries(self, retries: Retries) -> Annals {
        self.with(|shared| shared.retries = retries)
    }

    /// The same store with room for the states of `count` aggregates; the one that was not used for
    /// longest makes way.
    ///
    /// Default: [`Annals::CACHED_STATES`]. With 0 nothing is kept, and every command reads its
    /// stream.
    #[must_use]
    pub fn with_cached_states(self, count: usize) -> Annals {
        self.with(|shared| shared.cache = Cache::new(count))
    }

    /// The same store with one more inline projector: it prepares rows that are written with what
    /// commands and decisions append.
    #[must_use]
    pub fn with_companion(self, inline_projector: Arc<dyn InlineProjector>) -> Annals {
        self.with(|shared| shared.companions.push(inline_projector))
    }

    fn with(self, change: impl FnOnce(&mut Shared)) -> Annals {
        let mut shared = Shared {
            store: Arc::clone(&self.shared.store),
            clock: Arc::clone(&self.shared.clock),
            ids: Arc::clone(&self.shared.ids),
            retries: self.shared.retries,
            cache: self.shared.cache.empty(),
            companions: self.shared.companions.clone(),
        };
        change(&mut shared);
        Annals {
            shared: Arc::new(shared),
            metadata: self.metadata,
        }
    }

    /// The same handle, whose commands carry `metadata` where they do not say otherwise.
    ///
    /// ```
    /// use annals_core::{Annals, Metadata};
    ///
    /// let for_ada = Annals::in_memory().with_metadata(Metadata::default().actor("ada"));
    /// ```
    #[must_use]
    pub fn with_metadata(&self, metadata: Metadata) -> Annals {
        Annals {
            shared: Arc::clone(&self.shared),
            metadata: Arc::new(metadata.within(&self.metadata)),
        }
    }

    /// The same handle, whose commands name `cause` as what led to them and keep its correlation.
    #[must_use]
    pub fn caused_by(&self, cause: &RecordedEvent) -> Annals {
        self.with_metadata(Metadata::caused_by(cause))
    }

    /// The aggregate of this id: the stream `category-id`.
    ///
    /// An id that is no legal name is an error when something is asked of the aggregate.
    pub fn aggregate<A: Aggregate>(&self, id: impl fmt::Display) -> AggregateRef<A> {
        AggregateRef::new(self.clone(), A::at(id))
    }

    /// A decision over several aggregates and queries, consistent as a whole.
    ///
    /// ```
    /// # use annals_core::*;
    /// # async fn example<A: Aggregate, X: IntoEvents<A::Event>>(
    /// #     db: Annals, transfer: fn(&A, &A) -> Result<(X, X), String>,
    /// # )
    /// # -> Result<(), CommandError<String>> {
    /// db.decide((A::at("alice"), A::at("bob")), |(a, b)| transfer(a, b)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn decide<B, F, D, E>(&self, boundary: B, decide: F) -> Decide<'_, B, F, D, E>
    where
        B: Boundary,
        F: FnMut(&B::State) -> Result<D, E> + Send,
        D: IntoDecision<B>,
        E: Send,
    {
        Decide::new(self, boundary, decide)
    }

    /// A decision over `first` and over what its state says to look at next: a cart, and the stock
    /// of each of its products. Consistent as a whole; when the first look would lead elsewhere by
    /// now, it is taken again.
    ///
    /// The idempotency key belongs to `first`.
    pub fn decide_in_two_looks<P, Q, S, F, D, E>(
        &self,
        first: P,
        second: S,
        decide: F,
    ) -> DecideInTwoLooks<'_, P, S, F, D, E>
    where
        P: Part + Clone,
        Q: Part,
        S: Fn(&P::State) -> Q + Send + Sync,
        F: FnMut(&(P::State, Q::State)) -> Result<D, E> + Send,
        D: IntoDecision<(P, Q)>,
        E: Send,
    {
        DecideInTwoLooks::new(self, first, second, decide)
    }

    /// The log, oldest event first: what is there now, or followed as it grows.
    pub fn events(&self) -> Events {
        Events::of(Arc::clone(&self.shared.store))
    }

    /// The store underneath, for reading its log and its streams as bytes.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// What it calls the present moment.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    pub(crate) fn ids(&self) -> &dyn IdSource {
        &*self.shared.ids
    }

    pub(crate) fn companions(&self) -> &[Arc<dyn InlineProjector>] {
        &self.shared.companions
    }

    pub(crate) fn retries(&self) -> Retries {
        self.shared.retries
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.shared.cache
    }

    /// What a command carries: what it says itself, then what the handle says, then what the task
    /// says.
    pub(crate) fn metadata_for(&self, own: Metadata) -> Metadata {
        own.within(&self.metadata).within(&ambient())
    }
}

impl fmt::Debug for Annals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Annals")
            .field("store", &self.shared.store)
            .finish_non_exhaustive()
    }
}

/// An error of a command: what its builder could not know to be wrong.
pub(crate) fn duplicate(stream: &crate::StreamId) -> Invalid {
    Invalid::new(format!("`{stream}` appears twice in one decision"))
}
