//! Why a view is not rebuilt.

use annals_core::{CommitError, Partition, Position, StoreError};

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
    /// The log does not go back as far as it may have when the generation that serves was built.
    #[error(
        "view `{view}` would be built from less than the generation that serves may have seen: the \
         log has forgotten {}. `Rebuild::from_what_is_left` builds it all the same",
        forgotten(partitions)
    )]
    Shorter {
        /// The view.
        view: &'static str,
        /// Partitions, and the last position of each that cannot be read any more.
        partitions: Vec<(Partition, Position)>,
    },
    /// The generation to go back to does not come as far as the one that serves.
    #[error(
        "view `{view}` is not rolled back, because the generation that is kept lags the one that \
         serves and does not come as far: {reason}; build a new generation with `begin`"
    )]
    Lags {
        /// The view.
        view: &'static str,
        /// Why it does not come as far.
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

fn forgotten(partitions: &[(Partition, Position)]) -> String {
    let each = partitions.iter();
    let each: Vec<_> = each
        .map(|(partition, up_to)| format!("positions up to {up_to} of partition {partition}"))
        .collect();
    each.join(", ")
}
