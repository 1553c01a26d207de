//! What programs write: a row, how events change it, and why an event cannot be folded.

mod index;
mod poison;
mod row;
mod setup;
mod shape;
pub(crate) mod step;

use annals_core::{Event, History, Recorded};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use index::IndexType;
pub use poison::Poison;
pub use row::Row;
pub use setup::ViewSetup;
pub(crate) use shape::make_of;
#[cfg(feature = "streams")]
pub(crate) use shape::output_make_of;
pub use step::Handlers;

use crate::key::ViewKey;

/// A read model: rows of this type, one for each key, folded from events. Usually
/// `#[derive(View)]`.
///
/// A row that no event has touched does not exist; the first event that touches it finds the
/// default.
pub trait View: Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The name under which it is stored. Must never change.
    const NAME: &'static str;

    /// The version of the fold: raise it whenever `on`, the keys or the fields change, and a new
    /// generation is built. One is also built when the fields of the default row, the type of the
    /// keys, the history, the indexes or their types are others than before: two programs that
    /// declare one version in two ways have rows of their own.
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
    /// Stored names of the events that replace everything before them in their stream, as
    /// [`archive`](annals_core::AggregateRef::archive) leaves them: folded onto any row, one of
    /// these gives what the row would be. A rebuild folds them in place of what was archived.
    /// Default: none, and a fold that lacks archived events stops.
    const SUMMARIES: &'static [&'static str] = &[];

    /// The keys of the rows that an event changes: none, one or several. Default: the id of its
    /// stream.
    ///
    /// # Errors
    ///
    /// [`Poison`] when the key is unknown. Such an event stops the projection, because it is
    /// unknown what it would delay.
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

    /// Takes in what happened. The same rows and events give the same rows: it depends on
    /// nothing else.
    ///
    /// # Errors
    ///
    /// [`Poison`] when the event cannot be folded. The row stays as it was, and the event and the
    /// later ones of its key become dead letters.
    fn on(row: &mut Row<'_, Self>, event: &Recorded<E>) -> Result<(), Poison>;
}
