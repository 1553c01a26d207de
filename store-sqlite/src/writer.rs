//! The writer thread's callers: a queue that is bounded in bytes, and the outcome of each job.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;

use annals_core::{AppendError, Failure, StoreError};
use tokio::sync::{Semaphore, watch};

use crate::error::StoreFault;
use crate::identity::LogIdentity;
use crate::job::{Job, task};
use crate::options::Options;
use crate::write_tx::{Stop, WriteTx};
use crate::writer_loop::WriterLoop;

/// The writer thread, and the queue in front of it.
#[derive(Debug)]
pub(crate) struct Writer {
    // None once it is closing.
    jobs: Option<Sender<Box<dyn Job>>>,
    room: Arc<Semaphore>,
    room_kibibytes: u32,
    thread: Option<JoinHandle<()>>,
    identity: Arc<LogIdentity>,
}

impl Writer {
    /// Starts the thread, which owns `write_tx` until the writer is dropped.
    pub(crate) fn start(
        write_tx: WriteTx,
        options: &Options,
        turns: Option<Arc<RwLock<()>>>,
        moved: watch::Sender<u64>,
    ) -> Result<Writer, StoreError> {
        let (jobs, queue) = channel();
        let identity = Arc::clone(&write_tx.identity);
        let writer_loop = WriterLoop::new(write_tx, queue, options, turns, moved);
        let thread = std::thread::Builder::new()
            .name("annals-sqlite-writer".into())
            .spawn(move || writer_loop.run())
            .map_err(|error| {
                StoreError::new(Failure::Unavailable, "the writer thread cannot be started")
                    .because(error)
            })?;
        let room_kibibytes = u32::try_from(options.queue_bytes_max >> 10)
            .unwrap_or(u32::MAX)
            .min(1 << 28);
        let room = Arc::new(Semaphore::new(room_kibibytes as usize));
        Ok(Writer {
            jobs: Some(jobs),
            room,
            room_kibibytes,
            thread: Some(thread),
            identity,
        })
    }

    /// Queues work for a write transaction and waits for its outcome, which comes after the commit.
    ///
    /// Once it is queued it is done, also when the future is dropped.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        size: (usize, usize),
        work: impl FnMut(&mut WriteTx) -> Result<R, Stop> + Send + 'static,
    ) -> Result<R, AppendError> {
        self.queue(size, false, work).await
    }

    /// [`run`](Writer::run) for work that cannot run twice: it has a transaction of its own.
    pub(crate) async fn run_once<R: Send + 'static>(
        &self,
        size: (usize, usize),
        work: impl FnMut(&mut WriteTx) -> Result<R, Stop> + Send + 'static,
    ) -> Result<R, AppendError> {
        self.queue(size, true, work).await
    }

    async fn queue<R: Send + 'static>(
        &self,
        size: (usize, usize),
        runs_once: bool,
        work: impl FnMut(&mut WriteTx) -> Result<R, Stop> + Send + 'static,
    ) -> Result<R, AppendError> {
        let kibibytes = u32::try_from(size.1.div_ceil(1 << 10))
            .unwrap_or(u32::MAX)
            .clamp(1, self.room_kibibytes);
        let permit = Arc::clone(&self.room)
            .acquire_many_owned(kibibytes)
            .await
            .map_err(|_| AppendError::Store(self.ended()))?;
        let (job, outcome) = task(size, runs_once, permit, work);
        let sent = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err(AppendError::Store(self.ended()));
        }
        // Without an answer the thread ended in the middle of it.
        outcome
            .await
            .unwrap_or_else(|_| Err(AppendError::Unknown(self.ended())))
    }

    fn ended(&self) -> StoreError {
        let name = self.identity.name();
        let closed = || StoreFault::new(Failure::Closed, format!("`{name}` was closed")).error();
        self.identity.fault().map_or_else(closed, StoreFault::error)
    }
}

/// What waits is done, the journal is copied into the file, and the thread has ended.
impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            // The last handle may be dropped by a job of the writer itself.
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!(name = self.identity.name(), "the writer thread panicked");
        }
    }
}
