//! What a program is made of, as a value: tools can read its events, show its states and fold its
//! rows without knowing its types.

use std::collections::BTreeMap;
use std::fmt;

use annals_core::{
    Aggregate, AggregateKind, Annals, Event, EventKind, Generation, GenerationSpec, History,
    JsonText, Phase, RecordedEvent, ShowError, ShownEvent, ShownState, StreamId, Version,
};
use serde::Serialize;

use crate::generation::serving;
use crate::kind::Kind;

/// The events, aggregates, views, reactors and process managers of a program. A program that runs
/// [has one](crate::Program::registry), and one can be made without a store.
///
/// ```
/// # use annals_core::{Aggregate, Annals, RecordedEvent, ShowError};
/// # use annals_runner::Registry;
/// # async fn example<Account>(db: Annals, record: RecordedEvent) -> Result<(), ShowError>
/// # where Account: Aggregate + serde::Serialize {
/// let registry = Registry::new().aggregate::<Account>();
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
    /// What its rows are made of beside these events, as its generations record it.
    #[serde(skip)]
    pub make: Vec<String>,
    #[serde(skip)]
    keys: KeysOf,
    #[serde(skip)]
    fold: FoldRow,
}

/// Gives the keys of the rows that an event changes.
pub type KeysOf = fn(&RecordedEvent) -> Result<Vec<String>, ShowError>;

/// Folds events onto a row.
pub type FoldRow =
    fn(&str, Option<&JsonText>, &[RecordedEvent]) -> Result<Option<JsonText>, ShowError>;

/// A reactor of a program, or the process managers of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReactorKind {
    /// Which of the two.
    pub kind: Kind,
    /// The name that users gave.
    pub name: &'static str,
    /// The stored names of the event types that it reacts to.
    pub handles: Vec<String>,
}

impl ReactorKind {
    /// Of this name, with these stored names of event types.
    pub fn new(kind: Kind, name: &'static str, handles: Vec<String>) -> ReactorKind {
        ReactorKind {
            kind,
            name,
            handles,
        }
    }
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
    pub fn with_view(
        mut self,
        view: ViewKind,
        events: impl IntoIterator<Item = EventKind>,
    ) -> Registry {
        self.views.insert((view.name, view.version), view);
        events
            .into_iter()
            .fold(self, |registry, kind| registry.with_events(&kind))
    }

    /// With a reactor or the process managers of a kind, and their events.
    pub fn with_reactor(
        mut self,
        mut reactor: ReactorKind,
        events: impl IntoIterator<Item = EventKind>,
    ) -> Registry {
        reactor.handles.sort_unstable();
        reactor.handles.dedup();
        self.reactors.insert((reactor.name, reactor.kind), reactor);
        events
            .into_iter()
            .fold(self, |registry, kind| registry.with_events(&kind))
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

    /// The reactors and process managers, by name.
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
    /// Of this name and version, with what gives keys and folds rows. It keeps no past, and has no
    /// indexes and no events yet.
    pub fn new(name: &'static str, version: u32, keys: KeysOf, fold: FoldRow) -> ViewKind {
        ViewKind {
            name,
            version,
            history: History::None,
            key: "",
            indexes: &[],
            handles: Vec::new(),
            make: Vec::new(),
            keys,
            fold,
        }
    }

    /// The generation that readers of this view see.
    ///
    /// ```
    /// # use annals_core::{StoreError, ViewStore};
    /// # use annals_runner::ViewKind;
    /// # async fn example(view: &ViewKind, views: &dyn ViewStore) -> Result<(), StoreError> {
    /// let generations = views.generations(view.name).await?;
    /// if let Some(serving) = view.serving(&generations) {
    ///     println!("since {}", serving.begun_at);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn serving<'a>(&self, generations: &'a [Generation]) -> Option<&'a Generation> {
        let of = |inline| {
            let log = generations.first()?.spec.log;
            let mut spec = GenerationSpec::new(self.name, self.version, log);
            spec.handles = [&*self.handles, &*self.make].concat();
            spec.history = self.history;
            spec.indexes = self.indexes.iter().map(|name| (*name).into()).collect();
            spec.inline = inline;
            serving(generations, &spec)
        };
        let is_live = |of: &&Generation| of.phase == Phase::Live;
        let found = [of(true), of(false)];
        let live = found.into_iter().flatten().find(is_live);
        live.or_else(|| found.into_iter().flatten().max_by_key(|of| of.id))
    }

    /// The texts of the keys of the rows that an event changes; none when the view does not handle
    /// its type.
    ///
    /// # Errors
    ///
    /// [`ShowError::Unshowable`] when the event cannot be read or its keys are unknown.
    pub fn keys(&self, record: &RecordedEvent) -> Result<Vec<String>, ShowError> {
        (self.keys)(record)
    }

    /// What becomes of a row (nothing: there is none) with these events, in their order; those of
    /// other keys are ignored.
    ///
    /// # Errors
    ///
    /// [`ShowError::Unshowable`] when the row or an event cannot be read, or an event cannot be
    /// folded onto it.
    pub fn fold(
        &self,
        key: &str,
        row: Option<&JsonText>,
        events: &[RecordedEvent],
    ) -> Result<Option<JsonText>, ShowError> {
        (self.fold)(key, row, events)
    }
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
