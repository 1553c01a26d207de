//! Why a view is not rebuilt.

use annals_core::{CommitError, Position, StoreError};

/// Why a view is not rebuilt, or not rolled back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// It is being built already, by this program or another one.
    #[error("view `{0}` is being built already")]
    AlreadyBuilding(&'static str),
    /// The build was called off: its generation was dropped.
    #[error("the build of view `{0}` was called off")]
    CalledOff(&'static str),
    /// There are no earlier rows to begin with.
    #[error(
        "view `{view}` cannot be reset to position {to}: {reason}. Build it from the log with \
         `begin`, which gives the same rows"
    )]
    CannotReset {
        /// The view.
        view: &'static str,
        /// Where it would begin.
        to: Position,
        /// Why not.
        reason: String,
    },
    /// There is no generation to go back to.
    #[error("view `{0}` has no generation to go back to")]
    NothingKept(&'static str),
    /// The build needs an operator before it goes on.
    #[error("view `{view}` cannot be built: {reason}")]
    Stopped {
        /// The view.
        view: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// The generations cannot be changed.
    #[error(transparent)]
    Refused(#[from] CommitError),
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}
