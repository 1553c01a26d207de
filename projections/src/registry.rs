//! What a program is made of, as a value: tools can read its events, show its states and fold its
//! rows without knowing its types.

use std::any::type_name;
use std::collections::BTreeMap;
use std::fmt;

use annals_core::{
    Aggregate, AggregateKind, Annals, Event, EventKind, History, RecordedEvent, ShowError,
    ShownEvent, ShownState, StreamId, Version,
};
use serde::Serialize;
use serde_json::Value;

use crate::process::Process;
use crate::reactor::Reactor;
use crate::rows::folded;
use crate::status::Kind;
use crate::view::View;
use crate::worker::chain;

/// The events, aggregates, views, reactors and processes of a program. A program that runs [has
/// one](crate::Program::registry), and one can be made without a store.
///
/// ```
/// # use annals_core::{Aggregate, Annals, RecordedEvent, ShowError};
/// # use annals_projections::{Registry, View};
/// # async fn example<Account, Balance>(db: Annals, record: RecordedEvent) -> Result<(), ShowError>
/// # where Account: Aggregate + serde::Serialize, Balance: View {
/// let registry = Registry::new().aggregate::<Account>().view::<Balance>();
/// for event in registry.show(&record)? {
///     println!("{}: {}", event.event_type, event.payload);
/// }
/// let before = registry.state(&db, &record.stream, Some(record.version)).await?;
/// println!("{}", before.state);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Registry {
    // By their stored names.
    events: BTreeMap<&'static str, EventKind>,
    // By their categories.
    aggregates: BTreeMap<&'static str, AggregateKind>,
    views: BTreeMap<(&'static str, u32), ViewKind>,
    reactors: BTreeMap<(&'static str, Kind), ReactorKind>,
}

/// A view of a program, its Rust type forgotten. Serialises as what it is, without what it can do.
#[derive(Clone, Serialize)]
#[non_exhaustive]
pub struct ViewKind {
    /// The name under which it is stored.
    pub name: &'static str,
    /// The version of its fold.
    pub version: u32,
    /// How much of the past it keeps.
    pub history: History,
    /// The Rust type of its keys.
    pub key: &'static str,
    /// The names of its indexes.
    pub indexes: &'static [&'static str],
    /// The stored names of the event types that it handles.
    pub handles: Vec<String>,
    #[serde(skip)]
    keys: fn(&RecordedEvent) -> Result<Vec<String>, ShowError>,
    #[serde(skip)]
    fold: FoldRow,
}

type FoldRow = fn(&str, Option<&Value>, &[RecordedEvent]) -> Result<Option<Value>, ShowError>;

/// A reactor of a program, or the processes of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReactorKind {
    /// Which of the two.
    pub kind: Kind,
    /// The name under which its place is kept.
    pub name: &'static str,
    /// The stored names of the event types that it reacts to.
    pub handles: Vec<String>,
}

impl Registry {
    /// Of nothing yet.
    pub fn new() -> Registry {
        Registry::default()
    }

    /// With an aggregate and its events.
    pub fn aggregate<A: Aggregate + Serialize>(mut self) -> Registry {
        let kind = AggregateKind::of::<A>();
        self.aggregates.insert(kind.category(), kind);
        self.events::<A::Event>()
    }

    /// With the events of a type, through all their shapes. A stored name that is known already
    /// keeps its meaning.
    pub fn events<E: Event>(self) -> Registry {
        self.with_events(&EventKind::of::<E>())
    }

    /// With a view, and the events that it is folded from.
    pub fn view<V: View>(mut self) -> Registry {
        let handlers = V::handlers();
        let view = ViewKind {
            name: V::NAME,
            version: V::VERSION,
            history: V::HISTORY,
            key: type_name::<V::Key>(),
            indexes: V::INDEXES,
            handles: handlers.types(),
            keys: keys::<V>,
            fold: fold::<V>,
        };
        self.views.insert((V::NAME, V::VERSION), view);
        handlers.kinds().fold(self, Registry::with_events)
    }

    /// With a reactor, and its events.
    pub fn reactor<R: Reactor>(self) -> Registry {
        let handles = R::Event::shapes()
            .iter()
            .map(|shape| shape.event_type.into())
            .collect();
        self.with_reactor(Kind::Reactor, R::NAME, handles)
            .events::<R::Event>()
    }

    /// With the processes of a kind, their events and those that they react to.
    pub fn process<P: Process>(self) -> Registry {
        let listens = P::listens();
        let registry = self.with_reactor(Kind::Process, P::NAME, listens.types());
        listens
            .kinds()
            .fold(registry, |registry, kind| registry.with_events(&kind))
    }

    fn with_reactor(
        mut self,
        kind: Kind,
        name: &'static str,
        mut handles: Vec<String>,
    ) -> Registry {
        handles.sort_unstable();
        handles.dedup();
        self.reactors.insert(
            (name, kind),
            ReactorKind {
                kind,
                name,
                handles,
            },
        );
        self
    }

    fn with_events(mut self, kind: &EventKind) -> Registry {
        for shape in kind.shapes() {
            self.events.entry(shape.event_type).or_insert(*kind);
        }
        self
    }

    /// The event types by their stored names, in order; a type may have several shapes
    /// ([`EventKind::shapes`]).
    pub fn event_types(&self) -> impl Iterator<Item = (&'static str, &EventKind)> {
        self.events.iter().map(|(name, kind)| (*name, kind))
    }

    /// The aggregates, by category.
    pub fn aggregates(&self) -> impl Iterator<Item = &AggregateKind> {
        self.aggregates.values()
    }

    /// The views, by name and version.
    pub fn views(&self) -> impl Iterator<Item = &ViewKind> {
        self.views.values()
    }

    /// The newest version of a view.
    pub fn view_called(&self, name: &str) -> Option<&ViewKind> {
        self.views.values().rev().find(|view| view.name == name)
    }

    /// The reactors and processes, by name.
    pub fn reactors(&self) -> impl Iterator<Item = &ReactorKind> {
        self.reactors.values()
    }

    /// What a stored event reads as today, through upcasters.
    ///
    /// # Errors
    ///
    /// [`ShowError::Unknown`] for an event type that was not registered; else as
    /// [`EventKind::show`].
    pub fn show(&self, record: &RecordedEvent) -> Result<Vec<ShownEvent>, ShowError> {
        match self.events.get(&*record.event_type) {
            Some(kind) => kind.show(record),
            None => Err(unknown("event type", &record.event_type)),
        }
    }

    /// The state that a stream folds to: now, or just after its event `version`.
    ///
    /// # Errors
    ///
    /// [`ShowError::Unknown`] for a stream whose category belongs to no registered aggregate; else
    /// as [`AggregateKind::state`].
    pub async fn state(
        &self,
        db: &Annals,
        stream: &StreamId,
        version: Option<Version>,
    ) -> Result<ShownState, ShowError> {
        match self.aggregates.get(stream.category()) {
            Some(kind) => kind.state(db, stream.id(), version).await,
            None => Err(unknown("aggregate", stream.category())),
        }
    }
}

fn unknown(what: &'static str, name: &str) -> ShowError {
    ShowError::Unknown {
        what,
        name: name.into(),
    }
}

impl ViewKind {
    /// The texts of the keys of the rows that an event changes; none when the view does not handle
    /// its type.
    ///
    /// # Errors
    ///
    /// [`ShowError::Unshowable`] when the event cannot be read or its keys cannot be told.
    pub fn keys(&self, record: &RecordedEvent) -> Result<Vec<String>, ShowError> {
        (self.keys)(record)
    }

    /// What becomes of a row (nothing: there is none) with these events, in their order; those of
    /// other keys are left out of account.
    ///
    /// # Errors
    ///
    /// [`ShowError::Unshowable`] when the row or an event cannot be read, or an event makes no
    /// sense for the row.
    pub fn fold(
        &self,
        key: &str,
        row: Option<&Value>,
        events: &[RecordedEvent],
    ) -> Result<Option<Value>, ShowError> {
        (self.fold)(key, row, events)
    }
}

fn keys<V: View>(record: &RecordedEvent) -> Result<Vec<String>, ShowError> {
    let steps = V::handlers().prepare(record.clone()).map_err(unshowable)?;
    let mut keys: Vec<_> = steps.into_iter().flat_map(|step| step.keys).collect();
    keys.sort_unstable();
    keys.dedup();
    Ok(keys)
}

fn fold<V: View>(
    key: &str,
    row: Option<&Value>,
    events: &[RecordedEvent],
) -> Result<Option<Value>, ShowError> {
    let handlers = V::handlers();
    let mut steps = Vec::new();
    for record in events {
        steps.extend(handlers.prepare(record.clone()).map_err(unshowable)?);
    }
    let stored = row
        .map(serde_json::to_vec)
        .transpose()
        .map_err(unshowable)?;
    match folded::<V>(key, stored.map(Into::into), &steps).map_err(unshowable)? {
        Ok(stored) => stored
            .map(|bytes| serde_json::from_slice(&bytes))
            .transpose()
            .map_err(unshowable),
        Err((position, poison)) => Err(ShowError::Unshowable(format!(
            "the event at {position} makes no sense: {}",
            poison.reason()
        ))),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn unshowable(error: impl std::error::Error) -> ShowError {
    ShowError::Unshowable(chain(&error))
}

impl fmt::Debug for ViewKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format_args!("{} v{}", self.name, self.version).to_string();
        f.debug_struct("ViewKind")
            .field("name", &name)
            .field("handles", &self.handles)
            .finish_non_exhaustive()
    }
}
