//! Why a program does not start.

use annals_core::{Invalid, StoreError};

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The store keeps no read models, and no other was named.
    #[error("this store keeps no read models; name one that does with `views_in`")]
    NoViews,
    /// Two projections of one name and version.
    #[error("two projections are called `{0}` and have the same version")]
    Twice(&'static str),
    /// Two reactors or process managers of one name.
    #[error("two reactors are called `{0}`")]
    TwiceReactor(&'static str),
    /// A view is named as the framework names what it keeps of others.
    #[error(
        "view `{0}` begins with `$`, as what is kept of reactors and process managers does; give \
         it another name"
    )]
    Reserved(&'static str),
    /// It was built from another log.
    #[error(
        "`{name}` was built from another log than this; open the log it belongs to, or give it \
         another name or version, which builds it from this one"
    )]
    OtherLog {
        /// The view, tables, reactor or process manager.
        name: &'static str,
    },
    /// It could not work with one of its settings.
    #[error("`{name}` cannot run with its settings: {reason}")]
    Setting {
        /// The view, tables, reactor or process manager.
        name: &'static str,
        /// Which setting, what it is, and what it may be.
        reason: Invalid,
    },
    /// The view cannot be inline, or not be folded by stream.
    #[error("view `{view}` cannot be {lifecycle}: {reason}")]
    Lifecycle {
        /// The view.
        view: &'static str,
        /// What was asked for.
        lifecycle: &'static str,
        /// Why not.
        reason: String,
    },
    /// A view that only pipelines write was registered by itself.
    #[error(
        "view `{0}` names no events, so nothing is folded into it; name them with `events(…)`, \
         or register the pipeline that writes it"
    )]
    NoEvents(&'static str),
    /// A pipeline cannot run as it is written.
    #[error("pipeline `{name}` cannot run: {reason}")]
    Pipeline {
        /// Its name.
        name: &'static str,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A projection stopped before it was complete.
    #[error(
        "`{name}` cannot be built: {reason}. To repair it in a running program, start it with \
         `start_in_background`"
    )]
    Stopped {
        /// The view, tables, reactor or process manager.
        name: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}
