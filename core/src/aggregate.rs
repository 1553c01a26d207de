//! Aggregates: state folded from one stream, with methods that decide.

pub(crate) mod cache;
mod change;
pub(crate) mod commit;
pub(crate) mod fold;
mod followers;
mod history;
mod load;
pub(crate) mod run;

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use commit::{CommandError, Committed};
pub use fold::LoadError;
pub use followers::FollowerAt;
pub use history::{HistoryEntry, HistoryPage, LoadHistory};
pub use load::{Load, Loaded};
pub use run::Run;

use crate::annals::Annals;
use crate::codec::{Codec, CodecError, Json};
use crate::decide::Each;
use crate::error::Invalid;
use crate::snapshot::FoldId;
use crate::stream::StreamId;
use crate::typed::{Event, IntoEvents};

/// State folded from the events of one stream, with methods that decide.
///
/// A command is a plain method that looks at the state and returns events or a refusal:
///
/// ```
/// # use annals_core::{Aggregate, Event};
/// # fn example<AccountEvent: Event>() {
/// #[derive(Default)]
/// struct Account { cents: i64 }
///
/// # struct Deposited; struct Overdraft;
/// impl Account {
///     fn withdraw(&self, cents: i64) -> Result<Deposited, Overdraft> {
///         if self.cents < cents { Err(Overdraft) } else { Ok(Deposited) }
///     }
/// }
/// # }
/// ```
pub trait Aggregate: Default + Send + Sync + 'static {
    /// What happens to it.
    type Event: Event;

    /// Takes in what happened. Never fails and never looks at anything but its arguments: the same
    /// events give the same state.
    fn apply(&mut self, event: &Self::Event);

    /// Whether and how snapshots of it are kept. Default: none.
    ///
    /// ```
    /// # use annals_core::{Aggregate, Event, Snapshots};
    /// # use serde::{Serialize, Deserialize};
    /// #[derive(Default, Serialize, Deserialize)]
    /// struct Account { cents: i64 }
    ///
    /// # trait Of { type Event: Event; }
    /// impl Account {
    ///     // In `impl Aggregate for Account`:
    ///     fn snapshots() -> Option<Snapshots<Account>> {
    ///         Some(Snapshots::every(1_000).fold_version(2))
    ///     }
    /// }
    /// ```
    fn snapshots() -> Option<Snapshots<Self>> {
        None
    }

    /// The aggregates of these ids, as one part of a decision: each once.
    fn at_each(ids: impl IntoIterator<Item = impl fmt::Display>) -> Each<Self> {
        Each::new(ids)
    }

    /// The aggregate of this id, as a part of a decision over several.
    fn at(id: impl fmt::Display) -> At<Self> {
        At {
            stream: StreamId::of(Self::Event::CATEGORY, id),
            aggregate: PhantomData,
        }
    }
}

/// Commands as messages, for queues, HTTP and process managers: [`AggregateRef::execute`] takes
/// them through the same loop as closures.
pub trait Handle<C>: Aggregate {
    /// A refusal.
    type Error: Send;

    /// Decides.
    ///
    /// # Errors
    ///
    /// The refusal.
    fn handle(&self, command: &C) -> Result<impl IntoEvents<Self::Event>, Self::Error>;
}

/// How snapshots of an aggregate are kept. They only save time: an old, missing or unreadable one
/// is passed over.
///
/// ```
/// use annals_core::Snapshots;
///
/// let snapshots: Snapshots<Vec<u8>> = Snapshots::every(100);
/// ```
pub struct Snapshots<A> {
    pub(crate) every: u64,
    fold_version: u32,
    pub(crate) write: fn(&A) -> Result<Vec<u8>, CodecError>,
    pub(crate) read: fn(&[u8]) -> Result<A, CodecError>,
}

impl<A: Serialize + DeserializeOwned> Snapshots<A> {
    /// One at the first commit at which the last one is `events` old, as JSON.
    pub fn every(events: u64) -> Snapshots<A> {
        Snapshots {
            every: events.max(1),
            fold_version: 1,
            write: |state| Json::encode(state),
            read: |bytes| Json::decode(bytes, PhantomData::<A>),
        }
    }
}

impl<A> Snapshots<A> {
    /// The version of the fold, 1 until said otherwise: raise it whenever `apply` or the state's
    /// shape changes, and older snapshots are passed over.
    #[must_use]
    pub fn fold_version(mut self, version: u32) -> Snapshots<A> {
        self.fold_version = version;
        self
    }

    pub(crate) fn fold(&self) -> FoldId {
        FoldId::new(std::any::type_name::<A>(), self.fold_version)
    }
}

impl<A> fmt::Debug for Snapshots<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots")
            .field("every", &self.every)
            .field("fold_version", &self.fold_version)
            .finish_non_exhaustive()
    }
}

/// Names one aggregate: a part of a decision over several.
///
/// ```
/// # use annals_core::Aggregate;
/// # fn example<Account: Aggregate>() {
/// let boundary = (Account::at("alice"), Account::at("bob"));
/// # }
/// ```
pub struct At<A> {
    stream: Result<StreamId, Invalid>,
    aggregate: PhantomData<fn() -> A>,
}

impl<A> At<A> {
    pub(crate) fn stream(&self) -> Result<&StreamId, Invalid> {
        self.stream.as_ref().map_err(Invalid::clone)
    }
}

impl<A> Clone for At<A> {
    fn clone(&self) -> At<A> {
        At {
            stream: self.stream.clone(),
            aggregate: PhantomData,
        }
    }
}

impl<A> fmt::Debug for At<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("At").field(&self.stream).finish()
    }
}

/// One aggregate of a store: what commands are given to and states are read from.
///
/// ```
/// # use annals_core::{Aggregate, Annals, IntoEvents};
/// # async fn example<Account: Aggregate, X: IntoEvents<Account::Event>>(
/// #     db: Annals, deposit: fn(&Account, i64) -> Result<X, String>,
/// # )
/// # -> Result<(), Box<dyn std::error::Error>> {
/// let alice = db.aggregate::<Account>("alice");
/// let done = alice.run(|a| deposit(a, 1_250)).idempotency_key("req-42").await?;
/// let then = alice.load().at_version(1).await?;
/// # Ok(())
/// # }
/// ```
pub struct AggregateRef<A> {
    db: Annals,
    at: At<A>,
}

impl<A: Aggregate> AggregateRef<A> {
    pub(crate) fn new(db: Annals, at: At<A>) -> AggregateRef<A> {
        AggregateRef { db, at }
    }

    pub(crate) fn db(&self) -> &Annals {
        &self.db
    }

    /// The stream that its events are in.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the id that it was asked by is no legal name.
    pub fn stream(&self) -> Result<&StreamId, Invalid> {
        self.at.stream()
    }

    /// Loads the state, decides, and appends what was decided; when others got there first, decides
    /// again on the newer state.
    ///
    /// The closure may be called several times. A refusal is final only when it was decided on the
    /// real tail of the stream.
    pub fn run<F, D, E>(&self, decide: F) -> Run<'_, A, F, D, E>
    where
        F: FnMut(&A) -> Result<D, E> + Send,
        D: IntoEvents<A::Event>,
        E: Send,
    {
        Run::new(self, decide)
    }

    /// As [`run`](AggregateRef::run), when the aggregate does not exist yet (or was deleted): else
    /// [`CommandError::AlreadyExists`].
    pub fn create<F, D, E>(&self, decide: F) -> Run<'_, A, F, D, E>
    where
        F: FnMut(&A) -> Result<D, E> + Send,
        D: IntoEvents<A::Event>,
        E: Send,
    {
        Run::new(self, decide).when_absent()
    }

    /// As [`run`](AggregateRef::run), when the aggregate exists: else [`CommandError::NotFound`].
    pub fn update<F, D, E>(&self, decide: F) -> Run<'_, A, F, D, E>
    where
        F: FnMut(&A) -> Result<D, E> + Send,
        D: IntoEvents<A::Event>,
        E: Send,
    {
        Run::new(self, decide).when_present()
    }

    /// Gives it a command that is a message.
    #[allow(clippy::type_complexity)]
    pub fn execute<C>(
        &self,
        command: C,
    ) -> Run<
        '_,
        A,
        impl FnMut(&A) -> Result<Vec<A::Event>, <A as Handle<C>>::Error> + Send,
        Vec<A::Event>,
        <A as Handle<C>>::Error,
    >
    where
        A: Handle<C>,
        C: Send + Sync,
    {
        Run::new(self, move |state: &A| {
            state.handle(&command).map(IntoEvents::into_events)
        })
    }

    /// Reads the state: now, or as of a moment.
    pub fn load(&self) -> Load<'_, A> {
        Load::new(self)
    }

    /// Looks at the present state without copying it, through the cache: cheap for a busy
    /// aggregate, whatever its length.
    ///
    /// # Errors
    ///
    /// As [`load`](AggregateRef::load).
    pub async fn query<T>(&self, look: impl FnOnce(&A) -> T + Send) -> Result<T, LoadError> {
        load::query(self, look).await
    }

    /// Its events, for display: also those that a deletion hides, and those that cannot be read.
    pub fn history(&self) -> LoadHistory<'_, A> {
        LoadHistory::new(self)
    }
}

impl<A> Clone for AggregateRef<A> {
    fn clone(&self) -> AggregateRef<A> {
        AggregateRef {
            db: self.db.clone(),
            at: self.at.clone(),
        }
    }
}

impl<A> fmt::Debug for AggregateRef<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AggregateRef")
            .field(&self.at.stream)
            .finish()
    }
}
