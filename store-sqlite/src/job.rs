//! What the writer thread is given to do: something inside a write transaction, and someone who waits for its outcome.

use annals_core::AppendError;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::Trouble;
use crate::ledger::{Ledger, Stop};

/// What became of the transaction that a job was done in.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    Committed,
    /// Nothing of it was written.
    RolledBack(Trouble),
    /// It was written, or it was not.
    Unknown(Trouble),
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
    fn run(&mut self, ledger: &mut Ledger) -> Result<(), rusqlite::Error>;

    /// Tells the outcome, now that it is known what became of the transaction.
    fn settle(self: Box<Self>, fate: &Fate);
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
    F: FnMut(&mut Ledger) -> Result<R, Stop> + Send + 'static,
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
    F: FnMut(&mut Ledger) -> Result<R, Stop> + Send + 'static,
{
    fn size(&self) -> (usize, usize) {
        self.size
    }

    fn run(&mut self, ledger: &mut Ledger) -> Result<(), rusqlite::Error> {
        self.outcome = None;
        let outcome = match (self.work)(ledger) {
            Ok(done) => Ok(done),
            Err(Stop::Refused(refused)) => Err(refused),
            Err(Stop::Broken(error)) => return Err(error),
        };
        self.outcome = Some(outcome);
        Ok(())
    }

    fn settle(self: Box<Self>, fate: &Fate) {
        let outcome = match (fate, self.outcome) {
            (Fate::Committed, Some(outcome)) => outcome,
            // What was refused is refused whatever became of the others; but it may have been judged by what was undone.
            (Fate::Unknown(trouble), _) => Err(AppendError::Unknown(trouble.error())),
            (Fate::RolledBack(trouble), _) => Err(AppendError::Store(trouble.error())),
            (Fate::Committed, None) => Err(AppendError::Store(
                Trouble::new(
                    annals_core::Failure::Unavailable,
                    "the writer did not come to this",
                )
                .error(),
            )),
        };
        // Nobody waits any more: the caller dropped the future, and asking again with the same ids tells.
        let _ = self.reply.send(outcome);
    }
}
