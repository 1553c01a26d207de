//! What the writer is given to do: an append or a change of a stream, and someone who waits for its
//! outcome.

use std::sync::Arc;

use annals_core::{AppendError, ChangeStream, Clock, Placed, StreamState};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::StoreFault;
use crate::request::Request;

/// What the writer says of an append.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It was written, and is on the disk.
    Committed(Vec<Placed>),
    /// It was not written by this attempt, and may have been before: its ids and its streams must
    /// be rechecked.
    Doubtful,
    /// The connection was lost while it was written: it must be rechecked, and what is seen then is
    /// final. Until then its outcome is unknown.
    Lost(StoreFault),
    /// It did not happen, or (for an unknown outcome) may not have.
    Failed(AppendError),
}

/// Something to do.
#[derive(Debug)]
pub(crate) enum Job {
    Append(AppendJob),
    Change(ChangeJob),
}

/// An append on its way.
#[derive(Debug)]
pub(crate) struct AppendJob {
    pub(crate) request: Arc<Request>,
    /// The position up to which its condition is known to hold.
    pub(crate) checked_to: u64,
    /// What is known of its streams is not to be trusted.
    pub(crate) is_fresh: bool,
    /// How many times it was in a batch that did not come to pass.
    pub(crate) tries: u32,
    pub(crate) reply: oneshot::Sender<Answer>,
    /// Its share of the queue's bound, until it is answered.
    pub(crate) _permit: OwnedSemaphorePermit,
}

impl AppendJob {
    /// Sends the outcome. A caller that dropped its future asks again with the same ids.
    pub(crate) fn answer(self, answer: Answer) {
        let _ = self.reply.send(answer);
    }
}

/// A change of a stream on its way.
#[derive(Debug)]
pub(crate) struct ChangeJob {
    pub(crate) change: ChangeStream,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) reply: oneshot::Sender<Result<StreamState, AppendError>>,
}
