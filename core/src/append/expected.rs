//! What must be true of a stream for an append to happen.

use std::fmt;

use crate::stream::Version;
use crate::stream_state::{Status, StreamState};

/// What must be true of a stream for an append to happen.
///
/// ```
/// use annals_core::{Expected, StreamState, Version};
///
/// let absent = StreamState::absent();
/// assert!(Expected::NoStream.allows_writing(&absent));
/// assert!(!Expected::Version(Version::new(3)).allows_writing(&absent));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Expected {
    /// Nothing, but that the stream is not tombstoned.
    Any,
    /// The stream is absent or deleted.
    NoStream,
    /// The stream is active.
    Exists,
    /// The stream has had exactly so many events, also when it was deleted since. `Version(0)`: it
    /// never had one.
    Version(Version),
    /// The stream is active and has had exactly so many events: what a decision on its state relies
    /// on, because a deletion changes the state and not the version.
    ActiveAt(Version),
}

impl Expected {
    /// Whether events may be written to a stream in `state`.
    pub fn allows_writing(self, state: &StreamState) -> bool {
        state.status != Status::Tombstoned && self.holds(state)
    }

    /// Whether a stream in `state` passes a check without being written to. [`Expected::Any`]
    /// checks nothing, so an append that asks it of a stream that gets no event is invalid.
    pub fn passes_check(self, state: &StreamState) -> bool {
        match self {
            Expected::NoStream => state.status != Status::Active,
            _ => self.allows_writing(state),
        }
    }

    fn holds(self, state: &StreamState) -> bool {
        match self {
            Expected::Any => true,
            Expected::NoStream => state.status != Status::Active,
            Expected::Exists => state.status == Status::Active,
            Expected::Version(Version::NONE) => state.status == Status::Absent,
            Expected::Version(version) => state.version == version,
            Expected::ActiveAt(version) => {
                state.status == Status::Active && state.version == version
            }
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Any => f.write_str("anything"),
            Expected::NoStream => f.write_str("no stream"),
            Expected::Exists => f.write_str("an existing stream"),
            Expected::Version(version) => write!(f, "version {version}"),
            Expected::ActiveAt(version) => write!(f, "an active stream at version {version}"),
        }
    }
}
