//! What the writer thread is given to do: something inside a write transaction, and someone who
//! waits for its outcome.

use annals_core::AppendError;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::StoreFault;
use crate::write_tx::{Stop, WriteTx};

/// What became of the transaction that a job was done in.
#[derive(Clone, Debug)]
pub(crate) enum TxOutcome {
    Committed,
    /// Nothing of it was written.
    RolledBack(StoreFault),
    /// It was written, or it was not.
    Unknown(StoreFault),
}

/// Something to do inside a write transaction.
pub(crate) trait Job: Send {
    /// Events and bytes that it writes.
    fn size(&self) -> (usize, usize);

    /// Does it inside the open transaction. It may be called again when the transaction was undone.
    ///
    /// # Errors
    ///
    /// When the transaction cannot go on; what was asked for and refused is kept as the outcome.
    fn run(&mut self, write_tx: &mut WriteTx) -> Result<(), rusqlite::Error>;

    /// Tells the outcome, now that it is known what became of the transaction.
    fn settle(self: Box<Self>, fate: &TxOutcome);
}

/// A job made of a function.
struct Task<R, F> {
    size: (usize, usize),
    work: F,
    outcome: Option<Result<R, AppendError>>,
    reply: oneshot::Sender<Result<R, AppendError>>,
    /// Its share of the queue's bound, until it is settled.
    _permit: OwnedSemaphorePermit,
}

/// Something to do, as a job, and where its outcome will arrive.
pub(crate) fn task<R, F>(
    size: (usize, usize),
    permit: OwnedSemaphorePermit,
    work: F,
) -> (Box<dyn Job>, oneshot::Receiver<Result<R, AppendError>>)
where
    R: Send + 'static,
    F: FnMut(&mut WriteTx) -> Result<R, Stop> + Send + 'static,
{
    let (reply, outcome) = oneshot::channel();
    (
        Box::new(Task {
            size,
            work,
            outcome: None,
            reply,
            _permit: permit,
        }),
        outcome,
    )
}

impl<R, F> Job for Task<R, F>
where
    R: Send + 'static,
    F: FnMut(&mut WriteTx) -> Result<R, Stop> + Send + 'static,
{
    fn size(&self) -> (usize, usize) {
        self.size
    }

    fn run(&mut self, write_tx: &mut WriteTx) -> Result<(), rusqlite::Error> {
        self.outcome = None;
        let outcome = match (self.work)(write_tx) {
            Ok(done) => Ok(done),
            Err(Stop::Refused(refused)) => Err(refused),
            Err(Stop::Broken(error)) => return Err(error),
        };
        self.outcome = Some(outcome);
        Ok(())
    }

    fn settle(self: Box<Self>, fate: &TxOutcome) {
        let outcome = match (fate, self.outcome) {
            (TxOutcome::Committed, Some(outcome)) => outcome,
            // What was refused is refused whatever became of the others; but it may have been
            // judged by what was undone.
            (TxOutcome::Unknown(trouble), _) => Err(AppendError::Unknown(trouble.error())),
            (TxOutcome::RolledBack(trouble), _) => Err(AppendError::Store(trouble.error())),
            (TxOutcome::Committed, None) => Err(AppendError::Store(
                StoreFault::new(
                    annals_core::Failure::Unavailable,
                    "the writer did not come to this",
                )
                .error(),
            )),
        };
        // Nobody waits any more: the caller dropped the future, and asking again with the same ids
        // tells.
        let _ = self.reply.send(outcome);
    }
}
