//! When a view is folded: after the append, with it, or when it is asked.

/// When the rows of a view are folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lifecycle {
    /// By workers that follow the log.
    #[default]
    Async,
    /// Before the append, and written with it.
    Inline,
    /// When they are asked for, from the log.
    Live,
    /// When they are asked for, each from one stream.
    LiveByStream,
}

impl Lifecycle {
    /// Whether nothing is kept.
    pub(crate) fn is_live(self) -> bool {
        matches!(self, Lifecycle::Live | Lifecycle::LiveByStream)
    }
}
