//! Decisions of operators that are handed to the worker which holds the slot: it takes them up
//! between two steps, so they touch their keys alone.

use annals_core::DeadLetter;
use tokio::sync::{mpsc, oneshot};

use crate::error::WorkError;

/// Decisions that wait for one worker; more wait with their callers.
const WAITING: usize = 64;

/// What came of draining queues.
#[derive(Debug, Default)]
#[allow(clippy::exhaustive_structs)]
pub struct DrainResult {
    /// Events that were handled or skipped.
    pub settled: u64,
    /// The first dead letter of a key now.
    pub still: Option<DeadLetter>,
}

/// Keys whose dead letters are to be tried again, under the lease of the worker.
#[derive(Debug)]
pub struct Task {
    /// The keys, all of the worker's slot.
    pub keys: Vec<String>,
    answer: oneshot::Sender<Result<DrainResult, WorkError>>,
}

impl Task {
    /// Answers the operator.
    pub fn answer(self, drained: Result<DrainResult, WorkError>) {
        // It is no error when the operator has gone meanwhile.
        let _ = self.answer.send(drained);
    }
}

/// The decisions for the worker of a slot.
#[derive(Debug)]
pub struct Tasks(mpsc::Receiver<Task>);

impl Tasks {
    pub(crate) fn channel() -> (TaskSender, Tasks) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (TaskSender(sender), Tasks(receiver))
    }

    /// The next one, if there is one.
    pub fn try_next(&mut self) -> Option<Task> {
        self.0.try_recv().ok()
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Task {
        match self.0.recv().await {
            Some(task) => task,
            None => std::future::pending().await,
        }
    }
}

/// The sending end.
#[derive(Clone, Debug)]
pub(crate) struct TaskSender(mpsc::Sender<Task>);

impl TaskSender {
    /// What the worker answers; nothing when it gave up its lease before.
    pub(crate) async fn ask(&self, keys: Vec<String>) -> Option<Result<DrainResult, WorkError>> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Task { keys, answer }).await.ok()?;
        answered.await.ok()
    }
}
