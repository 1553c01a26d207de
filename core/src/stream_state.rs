//! What became of a stream: how far it goes, and what was hidden or removed.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::append::{Expected, IdClash};
use crate::error::Invalid;
use crate::event::EventId;
use crate::position::Position;
use crate::stream::{StreamId, Version};

/// Whether a stream is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Status {
    /// It never had an event.
    #[default]
    Absent,
    /// It has events to read.
    Active,
    /// It was deleted; writing to it makes it active again, its numbering goes on.
    Deleted,
    /// It was tombstoned: deleted for good.
    Tombstoned,
}

/// One deletion of a stream: from here on its state is that of an absent one, until new events
/// come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::exhaustive_structs)]
pub struct Deletion {
    /// The version that the stream had.
    pub version: Version,
    /// How far the partition's log went.
    pub position: Position,
    /// When.
    pub recorded_at: DateTime<Utc>,
}

/// What a store knows of a stream.
///
/// ```
/// use annals_core::{Status, StreamState, Version};
///
/// let absent = StreamState::absent();
/// assert_eq!((absent.status, absent.version), (Status::Absent, Version::NONE));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamState {
    /// Whether it is there.
    pub status: Status,
    /// How many events it has had; deleting and truncating do not change it.
    pub version: Version,
    /// Ordinary reads show nothing below this version.
    pub truncated_before: Version,
    /// Everything below this version was removed for good.
    pub archived_before: Version,
    /// Every deletion, oldest first; a tombstone is the last.
    pub deletions: Vec<Deletion>,
}

impl StreamState {
    /// A stream that never had an event.
    pub fn absent() -> StreamState {
        StreamState::default()
    }

    /// A stream with `version` events.
    pub fn active(version: Version) -> StreamState {
        StreamState {
            status: Status::Active,
            version,
            ..StreamState::default()
        }
    }

    /// The first version that ordinary reads show.
    pub fn first_visible(&self) -> Version {
        let deleted = self
            .deletions
            .last()
            .map_or(Version::NONE, |deletion| deletion.version);
        deleted
            .next()
            .max(self.truncated_before)
            .max(self.archived_before)
    }

    /// The version up to which deletions that count have emptied the state: folds start after it.
    pub fn emptied_at(&self, counts: impl Fn(&Deletion) -> bool) -> Version {
        self.deletions
            .iter()
            .rev()
            .find(|deletion| counts(deletion))
            .map_or(Version::NONE, |deletion| deletion.version)
    }
}

impl fmt::Display for StreamState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Status::Absent => f.write_str("absent"),
            Status::Active => write!(f, "at {}", self.version),
            Status::Deleted => write!(f, "deleted at {}", self.version),
            Status::Tombstoned => write!(f, "tombstoned at {}", self.version),
        }
    }
}

/// What can be done to a stream besides appending to it. None of it changes a version or a
/// position.
///
/// ```
/// use annals_core::{StreamChange, Version};
///
/// let change = StreamChange::Truncate { before: Version::new(100) };
/// assert_ne!(change, StreamChange::Delete);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamChange {
    /// Hides every event from ordinary reads and empties its state; appending makes it active
    /// again. Deleting an absent or a deleted stream changes nothing.
    Delete,
    /// As [`StreamChange::Delete`], and for ever: no append is accepted any more. Also an absent
    /// stream can be tombstoned.
    Tombstone,
    /// Hides events below `before` from ordinary reads. At most one more than the stream's version.
    Truncate {
        /// The first version that stays visible.
        before: Version,
    },
    /// Removes events below `before` for good. Their ids stay known, their positions stay empty.
    /// The event at `before` must be one from which folds can start: a summary of what is removed.
    Archive {
        /// The first version that stays.
        before: Version,
    },
}

/// A change of a stream that is asked for.
///
/// ```
/// use annals_core::{ChangeStream, Expected, StreamChange, StreamId};
///
/// let account = StreamId::new("account-7")?;
/// let close = ChangeStream::new(&account, StreamChange::Delete).expecting(Expected::Exists);
/// assert_eq!(close.clone().id, close.id);
/// # Ok::<_, annals_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChangeStream {
    /// What makes a repetition known as one; unique among the changes of the stream's partition.
    pub id: EventId,
    /// The stream.
    pub stream: StreamId,
    /// What must be true of it.
    pub expected: Expected,
    /// What to do.
    pub change: StreamChange,
}

impl ChangeStream {
    /// A new request, whatever the state of the stream.
    pub fn new(stream: &StreamId, change: StreamChange) -> ChangeStream {
        ChangeStream {
            id: EventId::random(),
            stream: stream.clone(),
            expected: Expected::Any,
            change,
        }
    }

    /// The same, only if `expected` holds.
    #[must_use]
    pub fn expecting(mut self, expected: Expected) -> ChangeStream {
        self.expected = expected;
        self
    }

    /// Compares it with the change that has its id: what a store asks before it repeats one.
    ///
    /// # Errors
    ///
    /// [`IdClash`] when that one changed another stream, or something else of it.
    pub fn check_repeats(&self, done: &ChangeStream) -> Result<(), IdClash> {
        if done.stream != self.stream {
            return Err(IdClash::OtherStream {
                index: 0,
                id: self.id,
                stream: done.stream.clone(),
            });
        }
        if done.change != self.change {
            return Err(IdClash::OtherContent {
                index: 0,
                id: self.id,
            });
        }
        Ok(())
    }

    /// The request of this id.
    #[must_use]
    pub fn id(mut self, id: EventId) -> ChangeStream {
        self.id = id;
        self
    }
}

impl StreamState {
    /// What a change makes of this state; the rules that every store shares.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when the change names a version that the stream does not have.
    pub fn changed(
        &self,
        stream: &StreamId,
        change: StreamChange,
        head: Position,
        recorded_at: DateTime<Utc>,
    ) -> Result<StreamState, Invalid> {
        let mut after = self.clone();
        let version = self.version;
        let emptied = Deletion {
            version,
            position: head,
            recorded_at,
        };
        match change {
            StreamChange::Delete if self.status != Status::Active => {}
            StreamChange::Delete => {
                after.status = Status::Deleted;
                after.deletions.push(emptied);
            }
            StreamChange::Tombstone => {
                after.status = Status::Tombstoned;
                after.deletions.push(emptied);
            }
            StreamChange::Truncate { before } | StreamChange::Archive { before }
                if self.status != Status::Active =>
            {
                return Err(Invalid::new(format!(
                    "stream `{stream}` is {self}, nothing before version {before} can be hidden or \
                     removed"
                )));
            }
            StreamChange::Truncate { before } if before > version.next() => {
                return Err(Invalid::new(format!(
                    "stream `{stream}` is {self}, it cannot be truncated before version {before}"
                )));
            }
            StreamChange::Archive { before } if before > version || before == Version::NONE => {
                return Err(Invalid::new(format!(
                    "stream `{stream}` is {self}, it has no event at version {before} to start from"
                )));
            }
            StreamChange::Truncate { before } => after.truncated_before = before,
            StreamChange::Archive { before } => {
                after.archived_before = after.archived_before.max(before);
            }
        }
        Ok(after)
    }
}
