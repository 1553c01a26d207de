//! Why an append wrote nothing: what to act on, and what to report.

use std::fmt;

use super::Expected;
use crate::error::{Failure, Invalid, StoreError};
use crate::event::EventId;
use crate::position::{Incarnation, Position};
use crate::stream::StreamId;
use crate::stream_state::StreamState;

/// One thing that was expected and did not hold.
///
/// ```
/// # fn example(violation: &annals_core::Violation) {
/// println!("{violation}");
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// A stream is not where the append thought.
    Stream {
        /// Which expectation, counted from 0 in the order of the request. Streams that get events
        /// without one come after them, in the order of their first events.
        index: usize,
        /// The stream.
        stream: StreamId,
        /// What was expected.
        expected: Expected,
        /// What the stream is, as far as a store tells it with a refusal: status and version.
        found: StreamState,
    },
    /// An event matches the condition's query.
    Condition {
        /// The first position after the condition's at which one does.
        position: Position,
    },
    /// The log was restored, swapped or failed over since the append was decided.
    Incarnation {
        /// The incarnation that was read.
        decided_on: Incarnation,
        /// The incarnation now.
        found: Incarnation,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Stream {
                stream,
                expected,
                found,
                ..
            } => {
                write!(
                    f,
                    "stream `{stream}` is {found}, the append expected {expected}"
                )
            }
            Violation::Condition { position } => {
                write!(f, "the event at {position} matches the append's condition")
            }
            Violation::Incarnation { .. } => f.write_str(
                "the log was restored, swapped or failed over since the append was decided",
            ),
        }
    }
}

/// What is wrong with ids that the store knows already.
///
/// ```
/// let clash = annals_core::IdClash::PartlyKnown { first_unknown: 2 };
/// assert_eq!(clash.to_string(), "some of the ids are known, that of event 2 is not");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdClash {
    /// Some are known and some are not: this is not a repetition of what was appended.
    #[error("some of the ids are known, that of event {first_unknown} is not")]
    PartlyKnown {
        /// The index of the first one that is not.
        first_unknown: usize,
    },
    /// All are known, but they were not appended one after another in this order.
    #[error("the ids are known in another order")]
    OtherOrder,
    /// The id belongs to an event with other content.
    #[error("the id {id} of event {index} is known with other content")]
    OtherContent {
        /// The index of the event.
        index: usize,
        /// Its id.
        id: EventId,
    },
    /// The id belongs to an event of another stream.
    #[error("the id {id} of event {index} belongs to stream `{stream}`")]
    OtherStream {
        /// The index of the event.
        index: usize,
        /// Its id.
        id: EventId,
        /// The stream that it belongs to.
        stream: StreamId,
    },
}

/// Why an append wrote nothing, or, for [`AppendError::Unknown`], why it is unknown.
///
/// ```
/// use annals_core::{AppendError, Failure};
///
/// fn next(error: &AppendError) -> &'static str {
///     match error {
///         AppendError::Conflict(_) => "read the new events, decide again",
///         AppendError::Unknown(_) => "append again with the same ids",
///         AppendError::Store(error) if error.failure() == Failure::Unavailable => "try later",
///         _ => "report it",
///     }
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// What was expected does not hold; every violation is listed. Read the new events, decide
    /// again.
    #[error("{}", first_of(.0))]
    Conflict(Vec<Violation>),
    /// The ids are known, and this is not a repetition of the append that brought them. A bug of
    /// the caller.
    #[error(transparent)]
    IdClash(IdClash),
    /// The request can never succeed as written.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The connection was lost during the commit: the events are stored, or they are not. Appending
    /// again with the same ids tells, and does what is missing.
    #[error("the outcome of the append is unknown")]
    Unknown(#[source] StoreError),
    /// This process does not own the partition of the stream. Send the command to the one that
    /// does.
    #[error("another process owns the stream's partition{}", owned_by(.owner.as_deref()))]
    NotOwner {
        /// The owner's name, where it is known.
        owner: Option<String>,
    },
    /// The partition of the stream moves from one process to another, and its owner is not known.
    /// Nothing was written; try again after a pause.
    #[error("ownership of the stream's partition is moving: try again in a moment")]
    OwnershipMoving,
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who owns a partition, and what to do.
fn owned_by(owner: Option<&str>) -> String {
    match owner {
        Some(owner) => format!(": {owner}; send the command there"),
        None => ", and it has not said who it is: try again in a moment".to_owned(),
    }
}

fn first_of(violations: &[Violation]) -> String {
    match violations {
        [] => "the append's expectation does not hold".into(),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

impl From<IdClash> for AppendError {
    fn from(clash: IdClash) -> AppendError {
        AppendError::IdClash(clash)
    }
}

impl AppendError {
    /// The error as that of a store, for callers that do not decide. Where another process owns the
    /// partition, or none does yet, that is unavailable here: nothing was written, and it may move.
    ///
    /// ```
    /// use annals_core::{AppendError, Failure};
    ///
    /// let moving = AppendError::OwnershipMoving.into_store_error();
    /// assert_eq!(moving.failure(), Failure::Unavailable);
    /// ```
    pub fn into_store_error(self) -> StoreError {
        match self {
            AppendError::Store(error) => error,
            AppendError::Invalid(invalid) => invalid.into(),
            AppendError::Unknown(source) => {
                StoreError::new(Failure::Unavailable, "the outcome of the append is unknown")
                    .because(source)
            }
            error @ (AppendError::NotOwner { .. } | AppendError::OwnershipMoving) => {
                StoreError::new(Failure::Unavailable, error.to_string())
            }
            error => StoreError::new(Failure::Invalid, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_of_another_process_is_unavailable_here() {
        let owned = AppendError::NotOwner {
            owner: Some("http://10.0.0.7".to_owned()),
        };
        for error in [owned, AppendError::OwnershipMoving] {
            let said = error.to_string();
            let as_store_error = error.into_store_error();
            assert_eq!(as_store_error.failure(), Failure::Unavailable, "{said}");
            assert_eq!(as_store_error.to_string(), said);
        }
    }

    #[test]
    fn an_owner_is_named_or_said_to_be_unknown() {
        let said = |owner: Option<&str>| {
            let owner = owner.map(str::to_owned);
            AppendError::NotOwner { owner }.to_string()
        };
        let known = said(Some("http://10.0.0.7"));
        let names = "partition: http://10.0.0.7; send the command there";
        assert!(known.ends_with(names), "{known}");
        let unknown = said(None);
        let waits = "it has not said who it is: try again in a moment";
        assert!(unknown.ends_with(waits), "{unknown}");
    }
}
