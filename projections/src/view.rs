//! What programs write: a row, how events change it, and why an event cannot be folded.

use std::fmt;
use std::ops::{Deref, DerefMut};

use annals_core::{Event, History, Recorded};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::index::IndexType;
use crate::key::ViewKey;
use crate::step::Handlers;
use crate::view_setup::ViewSetup;

/// A read model: rows of this type, one for each key, folded from events. Usually
/// `#[derive(View)]`.
///
/// A row that no event has touched does not exist; the first event that touches it finds the
/// default.
pub trait View: Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name under which it is stored. Must never change.
    const NAME: &'static str;

    /// The version of the fold: raise it whenever `on`, the keys or the fields change, and a new
    /// generation is built.
    const VERSION: u32 = 1;

    /// How much of the past is kept.
    const HISTORY: History = History::None;

    /// The names of its indexed columns.
    const INDEXES: &'static [&'static str] = &[];

    /// What its rows are known by.
    type Key: ViewKey;

    /// The types of events that it is folded from.
    fn handlers() -> Handlers<Self>;

    /// The entry of each index, in the order of [`INDEXES`](View::INDEXES).
    fn indexed(&self) -> Vec<String> {
        Vec::new()
    }

    /// The types of its indexes, in the order of [`INDEXES`](View::INDEXES): a query by an index is
    /// refused with another one. Default: not known, and not checked.
    fn index_types() -> Vec<IndexType> {
        Vec::new()
    }

    /// What keeps it up to date, with the default options: for [`With::with`](crate::With::with).
    fn projection() -> ViewSetup<Self> {
        ViewSetup::new()
    }
}

/// How events of one type change a view.
///
/// ```
/// use annals_core::Recorded;
/// # use annals_macros::Event;
/// # use annals_projections::Handlers;
/// use annals_projections::{Poison, Project, Row, View};
/// use serde::{Deserialize, Serialize};
///
/// # #[derive(Event, Serialize, Deserialize)]
/// # #[event(category = "account", crate = "annals_core")]
/// # enum AccountEvent { Deposited { cents: i64 }, Closed }
/// #[derive(Default, Serialize, Deserialize)]
/// struct Balance {
///     cents: i64,
/// }
///
/// # impl View for Balance {
/// #     const NAME: &'static str = "balances";
/// #     type Key = String;
/// #     fn handlers() -> Handlers<Self> { Handlers::new().on::<AccountEvent>() }
/// # }
/// impl Project<AccountEvent> for Balance {
///     fn on(balance: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
///         match &**event {
///             AccountEvent::Deposited { cents } => balance.cents += cents,
///             AccountEvent::Closed => balance.remove(),
///         }
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "view `{Self}` does not say how an event `{E}` changes it",
    label = "no `impl Project<{E}> for {Self}`",
    note = "write `impl Project<{E}> for {Self}`, or take it out of `events(…)`"
)]
pub trait Project<E: Event>: View {
    /// The keys of the rows that an event changes: none, one or several. Default: the id of its
    /// stream.
    ///
    /// # Errors
    ///
    /// [`Poison`] when the key is unknown. Such an event stops the projection, because it is unknown
    /// what it would delay.
    fn keys(event: &Recorded<E>) -> Result<Vec<Self::Key>, Poison> {
        let id = event.record.stream.id();
        match Self::Key::from_stream_id(id) {
            Some(key) => Ok(vec![key]),
            None => Err(Poison::new(format!(
                "the stream id `{id}` is no key of view `{}`",
                Self::NAME
            ))),
        }
    }

    /// Takes in what happened. The same rows and events give the same rows: nothing else is looked
    /// at.
    ///
    /// # Errors
    ///
    /// [`Poison`] when the event cannot be folded. The row stays as it was, and the event and the
    /// later ones of its key become dead letters.
    fn on(row: &mut Row<'_, Self>, event: &Recorded<E>) -> Result<(), Poison>;
}

/// A row that an event changes. Derefs to the value.
pub struct Row<'a, V: View> {
    key: &'a str,
    value: &'a mut V,
    existed: bool,
    removed: bool,
}

impl<'a, V: View> Row<'a, V> {
    pub(crate) fn new(key: &'a str, value: &'a mut V, existed: bool) -> Row<'a, V> {
        Row {
            key,
            value,
            existed,
            removed: false,
        }
    }

    pub(crate) fn was_removed(&self) -> bool {
        self.removed
    }

    pub(crate) fn key_text(&self) -> &str {
        self.key
    }

    /// Its key.
    pub fn key(&self) -> Option<V::Key> {
        V::Key::from_key(self.key)
    }

    /// Whether it existed before this event.
    pub const fn existed(&self) -> bool {
        self.existed
    }

    /// Removes the row: it does not exist any more, until an event touches it again.
    pub fn remove(&mut self) {
        self.removed = true;
    }
}

impl<V: View> Deref for Row<'_, V> {
    type Target = V;

    fn deref(&self) -> &V {
        self.value
    }
}

impl<V: View> DerefMut for Row<'_, V> {
    fn deref_mut(&mut self) -> &mut V {
        self.value
    }
}

impl<V: View + fmt::Debug> fmt::Debug for Row<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row")
            .field("key", &self.key)
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}

/// Why an event cannot be folded: it, and all later ones of its key, become dead letters until an
/// operator decides.
///
/// Any error becomes one with `?`.
///
/// ```
/// use annals_projections::Poison;
///
/// fn parse(text: &str) -> Result<u8, Poison> {
///     Ok(text.parse()?)
/// }
/// assert_eq!(parse("x").unwrap_err().reason(), "invalid digit found in string");
/// ```
pub struct Poison(String);

impl Poison {
    /// With a reason for operators.
    pub fn new(reason: impl Into<String>) -> Poison {
        Poison(reason.into())
    }

    /// The reason.
    pub fn reason(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Poison").field(&self.0).finish()
    }
}

impl<E: std::error::Error> From<E> for Poison {
    fn from(error: E) -> Poison {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        Poison(reason)
    }
}
