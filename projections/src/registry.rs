//! What tools may know of views, reactors and process managers, without their types.

use std::any::type_name;

use annals_core::{JsonText, RecordedEvent, ShowError};
use annals_runner::{Registry, ViewKind};
use bytes::Bytes;

use crate::fold::folded;
use crate::process::{self, Process};
use crate::reactor::{self, Reactor};
use crate::view::{View, make_of};

/// Adds read models, reactors and process managers to a [`Registry`] that is made without a
/// program.
///
/// ```
/// # use annals_projections::{Register, Registry, View};
/// # fn example<Balance: View>() -> Registry {
/// Registry::new().view::<Balance>()
/// # }
/// ```
pub trait Register: Sized {
    /// With a view, and the events that it is folded from.
    #[must_use]
    fn view<V: View>(self) -> Self;

    /// With a reactor, and its events.
    #[must_use]
    fn reactor<R: Reactor>(self) -> Self;

    /// With the process managers of a kind, their events and those that they react to.
    #[must_use]
    fn process<P: Process>(self) -> Self;
}

impl Register for Registry {
    fn view<V: View>(self) -> Registry {
        self.with_view(view_kind::<V>(), V::handlers().kinds().copied())
    }

    fn reactor<R: Reactor>(self) -> Registry {
        reactor::register::<R>(self)
    }

    fn process<P: Process>(self) -> Registry {
        process::register::<P>(self)
    }
}

/// A view, its type erased.
pub(crate) fn view_kind<V: View>() -> ViewKind {
    let mut view = ViewKind::new(V::NAME, V::VERSION, keys::<V>, fold::<V>);
    view.history = V::HISTORY;
    view.key = type_name::<V::Key>();
    view.indexes = V::INDEXES;
    view.handles = V::handlers().types();
    view.make = make_of::<V>();
    view
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
    row: Option<&JsonText>,
    events: &[RecordedEvent],
) -> Result<Option<JsonText>, ShowError> {
    let handlers = V::handlers();
    let mut steps = Vec::new();
    for record in events {
        steps.extend(handlers.prepare(record.clone()).map_err(unshowable)?);
    }
    let stored = row.map(|row| Bytes::copy_from_slice(row.as_str().as_bytes()));
    match folded::<V>(key, stored, &steps).map_err(unshowable)? {
        Ok(stored) => stored.map(|bytes| JsonText::parse(&bytes)).transpose(),
        Err((position, poison)) => Err(ShowError::Unshowable(format!(
            "the event at {position} cannot be folded: {}",
            poison.reason()
        ))),
    }
}

fn unshowable(error: impl std::error::Error) -> ShowError {
    ShowError::Unshowable(annals_runner::chain(&error))
}
