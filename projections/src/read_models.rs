//! The read models, reactors and process managers of a running program.

use annals_runner::Program;

use crate::process::{Process, ProcessHandle};
use crate::query::ViewHandle;
use crate::reactor::{Reactor, ReactorHandle};
use crate::rebuild::Rebuild;
use crate::sql::{SqlProjection, SqlProjectionHandle};
use crate::view::View;

/// Asks a [`Program`] for what it follows the log with: in the prelude, so that
/// `db.view::<Balance>()` reads as one.
pub trait ReadModels {
    /// The rows of a view.
    ///
    /// # Panics
    ///
    /// When the program has no projection of this view: it was not registered with
    /// [`With::with`](crate::With::with).
    #[track_caller]
    fn view<V: View>(&self) -> ViewHandle<V>;

    /// Builds a new generation of a view from the log, beside the one that serves, and switches to
    /// it when it is complete.
    ///
    /// # Panics
    ///
    /// When the program has no projection of this view.
    #[track_caller]
    fn rebuild<V: View>(&self) -> Rebuild<V>;

    /// Custom tables that a projection keeps up to date.
    ///
    /// # Panics
    ///
    /// When the program has no such projection: it was not registered with
    /// [`With::with`](crate::With::with).
    #[track_caller]
    fn tables<P: SqlProjection>(&self) -> SqlProjectionHandle<P>;

    /// How far a reactor has come, and its dead letters.
    ///
    /// # Panics
    ///
    /// When the program has no such reactor: it was not registered with
    /// [`With::with`](crate::With::with).
    #[track_caller]
    fn reactor<R: Reactor>(&self) -> ReactorHandle;

    /// The process managers of a kind: their states, and their dead letters.
    ///
    /// # Panics
    ///
    /// When the program has no such processes: they were not registered with
    /// [`With::with`](crate::With::with).
    #[track_caller]
    fn process<P: Process>(&self) -> ProcessHandle<P>;
}

impl ReadModels for Program {
    fn view<V: View>(&self) -> ViewHandle<V> {
        self.handle::<V, ViewHandle<V>>()
            .unwrap_or_else(|| panic!("the program has no projection of view `{}`", V::NAME))
    }

    fn rebuild<V: View>(&self) -> Rebuild<V> {
        self.view::<V>().rebuild()
    }

    fn tables<P: SqlProjection>(&self) -> SqlProjectionHandle<P> {
        self.handle::<P, SqlProjectionHandle<P>>()
            .unwrap_or_else(|| panic!("the program has no projection into tables `{}`", P::NAME))
    }

    fn reactor<R: Reactor>(&self) -> ReactorHandle {
        self.handle::<R, ReactorHandle>()
            .unwrap_or_else(|| panic!("the program has no reactor `{}`", R::NAME))
    }

    fn process<P: Process>(&self) -> ProcessHandle<P> {
        let handle = self
            .handle::<P, ReactorHandle>()
            .unwrap_or_else(|| panic!("the program has no process `{}`", P::NAME));
        ProcessHandle::new((**self).clone(), handle)
    }
}
