//! Why a worker does not go on, and why a reader has no answer.

use std::time::Duration;

use annals_core::{
    CommitError, Failure, GenerationId, Invalid, Position, Removed, StoreError, Token,
};

/// An error with all its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    annals_core::with_causes(error).to_string()
}

/// Why a worker gives up its lease.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkError {
    /// Another worker has the slot, or the store did not answer: start again after a back-off.
    #[error(transparent)]
    Retry(CommitError),
    /// What it knows may no longer hold: start again at once.
    #[error("an operator decided meanwhile")]
    Restart,
    /// It needs an operator, or another program.
    #[error("{0}")]
    Stopped(String),
}

impl From<CommitError> for WorkError {
    fn from(error: CommitError) -> WorkError {
        match error {
            // It can never succeed as written, so trying again would only hide it.
            CommitError::Invalid(invalid) => invalid.into(),
            CommitError::Store(error) => error.into(),
            error => WorkError::Retry(error),
        }
    }
}

impl From<Invalid> for WorkError {
    fn from(invalid: Invalid) -> WorkError {
        WorkError::Stopped(invalid.to_string())
    }
}

impl From<StoreError> for WorkError {
    fn from(error: StoreError) -> WorkError {
        match error.failure() {
            Failure::Unavailable | Failure::Full => WorkError::Retry(CommitError::Store(error)),
            _ => WorkError::Stopped(chain(&error)),
        }
    }
}

impl WorkError {
    /// For callers that know of stores only.
    pub fn into_store(self) -> StoreError {
        match self {
            WorkError::Retry(CommitError::Store(error)) => error,
            WorkError::Stopped(reason) => StoreError::new(Failure::Invalid, reason),
            error => StoreError::new(Failure::Unavailable, chain(&error)),
        }
    }

    /// That another worker has the slot.
    pub(crate) fn fenced(generation: GenerationId, slot: u16, found: &str) -> WorkError {
        WorkError::Retry(CommitError::Fenced {
            generation,
            slot,
            found: found.into(),
        })
    }

    /// Whether another worker has taken the slot.
    pub fn is_fenced(&self) -> bool {
        matches!(self, WorkError::Retry(CommitError::Fenced { .. }))
    }
}

/// Why a read model, a reactor or a process manager did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// It is being built for the first time in this version; nothing of it is shown before it is
    /// complete.
    #[error("it is being built: {done} of {total} events")]
    Building {
        /// Events that were read.
        done: u64,
        /// Events there are.
        total: u64,
    },
    /// It has not come as far as was asked for in time.
    #[error("{token} was not reached within {waited:?}: {held}")]
    NotYet {
        /// What was asked for.
        token: Token,
        /// How long was waited.
        waited: Duration,
        /// What holds it.
        held: String,
    },
    /// Events that were asked for are dead letters of this row, which lacks them until an operator
    /// has decided.
    #[error(
        "row `{key}` lacks its events from position {position} on, which are dead letters: \
         {reason}; retry, skip or discard them"
    )]
    DeadLetters {
        /// The key of the row.
        key: String,
        /// The position of the first one.
        position: Position,
        /// Why it is one.
        reason: String,
    },
    /// A worker stopped and will not come so far before an operator has acted: waiting longer is of
    /// no use.
    #[error("it has stopped: {reason}")]
    Stopped {
        /// Why, and what to do.
        reason: String,
    },
    /// The question is older than what is kept.
    #[error("the past is kept since position {since} only; ask about that or later")]
    BeforeHistory {
        /// The first position that can be asked for.
        since: Position,
    },
    /// The answer would need events that were removed for good.
    #[error("the answer needs position {removed}, and that was archived: ask about a later moment")]
    Archived {
        /// The first of them.
        removed: Removed,
    },
    /// The question can never be answered as put.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A row, or an event that has to be folded again, cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The store could not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ViewError {
    /// An event or a row that cannot be read.
    pub fn unreadable(error: impl std::error::Error) -> ViewError {
        ViewError::Unreadable(chain(&error))
    }
}

impl From<CommitError> for ViewError {
    fn from(error: CommitError) -> ViewError {
        match error {
            CommitError::Store(error) => ViewError::Store(error),
            CommitError::Invalid(invalid) => ViewError::Invalid(invalid),
            CommitError::BeforeHistory { since, .. } => ViewError::BeforeHistory { since },
            // It passes: another generation serves by now, or the next call gets the slot.
            error => ViewError::Store(StoreError::new(Failure::Unavailable, error.to_string())),
        }
    }
}

impl From<WorkError> for ViewError {
    fn from(error: WorkError) -> ViewError {
        match error {
            WorkError::Retry(error) => error.into(),
            error => ViewError::Unreadable(chain(&error)),
        }
    }
}
