//! What the writer thread is given to do: work inside a write transaction, and a caller that waits
//! for its outcome.

use annals_core::AppendError;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::StoreFault;
use crate::write_tx::{Stop, WriteTx};

/// The outcome of the transaction that a job ran in.
#[derive(Clone, Debug)]
pub(crate) enum TxOutcome {
    Committed,
    /// Nothing of it was written.
    RolledBack(StoreFault),
    /// It was written, or it was not.
    Unknown(StoreFault),
}

/// Work inside a write transaction.
pub(crate) trait Job: Send {
    /// Events and bytes that it writes.
    fn size(&self) -> (usize, usize);

    /// Whether it cannot run again in another transaction: it is committed alone, so that nothing
    /// but itself undoes it.
    fn runs_once(&self) -> bool;

    /// Runs inside the open transaction, and again in another one when that was rolled back.
    ///
    /// # Errors
    ///
    /// When the transaction cannot go on. A refusal is no error: it is kept as the outcome.
    fn run(&mut self, write_tx: &mut WriteTx) -> Result<(), rusqlite::Error>;

    /// Answers the caller, now that the outcome of the transaction is known.
    fn settle(self: Box<Self>, transaction: &TxOutcome);
}

/// A job made of a function.
struct Task<R, F> {
    size: (usize, usize),
    runs_once: bool,
    work: F,
    outcome: Option<Result<R, AppendError>>,
    reply: oneshot::Sender<Result<R, AppendError>>,
    /// Its share of the queue's bound, until it is settled.
    _permit: OwnedSemaphorePermit,
}

/// Work as a job, and where its outcome will arrive.
pub(crate) fn task<R, F>(
    size: (usize, usize),
    runs_once: bool,
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
            runs_once,
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

    fn runs_once(&self) -> bool {
        self.runs_once
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

    fn settle(self: Box<Self>, transaction: &TxOutcome) {
        let outcome = match (transaction, self.outcome) {
            (TxOutcome::Committed, Some(outcome)) => outcome,
            // Also a refusal: it may rest on what was rolled back.
            (TxOutcome::Unknown(fault), _) => Err(AppendError::Unknown(fault.error())),
            (TxOutcome::RolledBack(fault), _) => Err(AppendError::Store(fault.error())),
            (TxOutcome::Committed, None) => {
                let context = "the writer did not run the request";
                let fault = StoreFault::new(annals_core::Failure::Unavailable, context);
                Err(AppendError::Store(fault.error()))
            }
        };
        // A caller that dropped its future asks again with the same ids.
        let _ = self.reply.send(outcome);
    }
}
