//! The writer: one task that owns a connection and commits together whatever waits, each append
//! with its own outcome.
//!
//! While one batch is being flushed to the server's disk the next one gathers, so the more is going
//! on, the better each flush is used.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use annals_core::{AppendError, Failure, StoreError, StreamState};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::append_session::{AppendSession, Ended};
use crate::batch::{Admission, Batch};
use crate::database::Database;
use crate::error::StoreFault;
use crate::job::{Answer, AppendJob, ChangeJob, Job};
use crate::options::Options;
use crate::request::Request;
use crate::stream_cache::BATCH_STREAMS_MAX;
use crate::watcher::Moves;

/// How many times the writer gives way to those whose appends it has just answered, before it
/// commits a much smaller batch.
const YIELDS_MAX: usize = 32;

/// How many batches an append may be in that are not written, before it is rechecked.
const TRIES_MAX: u32 = 8;

/// The queue in front of the task.
#[derive(Debug)]
pub(crate) struct Writer {
    jobs: mpsc::UnboundedSender<Job>,
    room: Arc<Semaphore>,
    room_kibibytes: u32,
    /// The head, as the task knows it.
    head: Arc<AtomicU64>,
    name: String,
}

impl Writer {
    /// Starts the task, which ends when the writer is dropped and everything that was handed over
    /// is done.
    pub(crate) fn start(
        session: AppendSession,
        database: &Database,
        options: &Options,
        moves: Moves,
    ) -> Writer {
        let (jobs, queue) = mpsc::unbounded_channel();
        let head = Arc::new(AtomicU64::new(0));
        let writer_loop = WriterLoop {
            session,
            queue,
            moves,
            waiting: VecDeque::new(),
            head: Arc::clone(&head),
            events_max: options.group_events_max,
            bytes_max: options.group_bytes_max,
            last_batch: 0,
        };
        tokio::spawn(writer_loop.work());
        let room_kibibytes = u32::try_from(options.queue_bytes_max >> 10)
            .unwrap_or(u32::MAX)
            .clamp(1, 1 << 28);
        let room = Arc::new(Semaphore::new(room_kibibytes as usize));
        Writer {
            jobs,
            room,
            room_kibibytes,
            head,
            name: database.name.clone(),
        }
    }

    /// The head, as far as the writer knows.
    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// Hands over an append and waits for its outcome. Once it is handed over it may happen, also
    /// when the caller is dropped.
    pub(crate) async fn append(
        &self,
        request: &Arc<Request>,
        checked_to: u64,
        is_fresh: bool,
    ) -> Answer {
        let kibibytes = u32::try_from(request.bytes.div_ceil(1 << 10))
            .unwrap_or(u32::MAX)
            .clamp(1, self.room_kibibytes);
        let Ok(permit) = Arc::clone(&self.room).acquire_many_owned(kibibytes).await else {
            return Answer::Failed(self.gone().into());
        };
        let (reply, answer) = oneshot::channel();
        let request = Arc::clone(request);
        let job = AppendJob {
            request,
            checked_to,
            is_fresh,
            tries: 0,
            reply,
            _permit: permit,
        };
        if self.jobs.send(Job::Append(job)).is_err() {
            return Answer::Failed(self.gone().into());
        }
        // Without an answer the task has ended in the middle of it.
        answer
            .await
            .unwrap_or_else(|_| Answer::Failed(AppendError::Unknown(self.gone())))
    }

    /// Hands over a change of a stream and waits for its outcome.
    pub(crate) async fn change(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<StreamState, AppendError>>) -> ChangeJob,
    ) -> Result<StreamState, AppendError> {
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(Job::Change(job(reply))).is_err() {
            return Err(self.gone().into());
        }
        answer
            .await
            .unwrap_or_else(|_| Err(AppendError::Unknown(self.gone())))
    }

    fn gone(&self) -> StoreError {
        StoreError::new(
            Failure::Closed,
            format!("the writer of `{}` has ended with its runtime", self.name),
        )
    }
}

/// The task's own side.
struct WriterLoop {
    session: AppendSession,
    queue: mpsc::UnboundedReceiver<Job>,
    moves: Moves,
    /// What was taken from the queue and must wait for a later batch.
    waiting: VecDeque<Job>,
    head: Arc<AtomicU64>,
    events_max: usize,
    bytes_max: usize,
    last_batch: usize,
}

impl WriterLoop {
    async fn work(mut self) {
        while let Some(first) = self.next().await {
            match first {
                Job::Change(change) => {
                    let outcome = self.session.change(&change).await;
                    // The caller may have dropped the future.
                    let _ = change.reply.send(outcome);
                }
                Job::Append(first) => {
                    let batch = self.gather(first).await;
                    self.last_batch = batch.len();
                    self.commit(batch).await;
                }
            }
            self.hint();
        }
        self.session.close().await;
    }

    async fn next(&mut self) -> Option<Job> {
        match self.waiting.pop_front() {
            Some(job) => Some(job),
            None => self.queue.recv().await,
        }
    }

    /// What waits already, up to the bounds of a batch or the next change of a stream.
    async fn gather(&mut self, first: AppendJob) -> Vec<AppendJob> {
        let mut events = first.request.events.len();
        let mut bytes = first.request.bytes;
        let mut streams = first.request.streams.len();
        let mut batch = vec![first];
        let mut yields = 0;
        loop {
            let next = match self.waiting.pop_front() {
                Some(job) => Ok(job),
                None => self.queue.try_recv(),
            };
            match next {
                Ok(Job::Append(job)) => {
                    events += job.request.events.len();
                    bytes += job.request.bytes;
                    streams += job.request.streams.len();
                    if events > self.events_max
                        || bytes > self.bytes_max
                        || streams > BATCH_STREAMS_MAX
                    {
                        self.waiting.push_front(Job::Append(job));
                        return batch;
                    }
                    batch.push(job);
                }
                Ok(change) => {
                    self.waiting.push_front(change);
                    return batch;
                }
                // Those who were answered just now are about to ask again; a flush for the first
                // few of them would make all the others wait.
                Err(TryRecvError::Empty)
                    if batch.len() < self.last_batch / 2 && yields < YIELDS_MAX =>
                {
                    yields += 1;
                    tokio::task::yield_now().await;
                }
                Err(_) => return batch,
            }
        }
    }

    /// Commits the batch together, and answers each. What has to wait for another batch comes first
    /// in the next one.
    async fn commit(&mut self, jobs: Vec<AppendJob>) {
        if let Err(fault) = self.session.prepare(&jobs).await {
            for job in jobs {
                job.answer(Answer::Failed(fault.error().into()));
            }
            return;
        }
        let mut batch = Batch::new();
        let mut taken = Vec::new();
        let mut after_commit = Vec::new();
        let mut later = Vec::new();
        let mut lost = None;
        for job in jobs {
            // A repetition is known in each incarnation.
            if self.session.check_incarnation(&job).is_err() {
                job.answer(Answer::Doubtful);
                continue;
            }
            match self.session.admit(&mut batch, &job) {
                Ok(Admission::Taken) => taken.push(job),
                Ok(Admission::Later) => later.push(job),
                Ok(Admission::AfterCommit) => after_commit.push(job),
                Ok(Admission::Doubtful) => job.answer(Answer::Doubtful),
                Err(error) => job.answer(Answer::Failed(error.into())),
            }
        }
        if !batch.is_empty() {
            match self.session.append(batch).await {
                Ended::Written(settled) => {
                    for (job, placed) in taken.into_iter().zip(settled) {
                        job.answer(placed.map_or(Answer::Doubtful, Answer::Committed));
                    }
                }
                Ended::Again => again(taken, &mut later),
                Ended::StoredId(known) => {
                    // Those with known ids are repetitions, or clash; the others are innocent.
                    let is_known = |job: &AppendJob| {
                        job.request
                            .append
                            .events
                            .iter()
                            .any(|(_, event)| known.contains(&event.id))
                    };
                    let (doubtful, innocent) = taken.into_iter().partition(is_known);
                    after_commit.extend::<Vec<_>>(doubtful);
                    again(innocent, &mut later);
                }
                Ended::Failed(fault) => self.alone(taken, &fault).await,
                Ended::Lost(true, fault) => {
                    after_commit.extend(taken);
                    lost = Some(fault);
                }
                Ended::Lost(false, fault) => {
                    // Those that wait for its commit name ids of it.
                    for job in taken.into_iter().chain(after_commit.drain(..)) {
                        job.answer(Answer::Failed(AppendError::Unknown(fault.error())));
                    }
                }
            }
        }
        for job in after_commit {
            job.answer(lost.clone().map_or(Answer::Doubtful, Answer::Lost));
        }
        for job in later.into_iter().rev() {
            self.waiting.push_front(Job::Append(job));
        }
    }

    /// A batch failed for a reason of the server's: each is tried alone, so that one does not fail
    /// the others.
    async fn alone(&mut self, taken: Vec<AppendJob>, fault: &StoreFault) {
        let is_only = taken.len() == 1;
        tracing::debug!(?fault, appends = taken.len(), "a batch of appends failed");
        for job in taken {
            if is_only {
                job.answer(Answer::Failed(fault.error().into()));
                continue;
            }
            let mut batch = Batch::new();
            match self.session.admit(&mut batch, &job) {
                Ok(Admission::Taken) => {}
                Ok(_) => {
                    job.answer(Answer::Doubtful);
                    continue;
                }
                Err(error) => {
                    job.answer(Answer::Failed(error.into()));
                    continue;
                }
            }
            let answer = match self.session.append(batch).await {
                Ended::Written(settled) => settled
                    .into_iter()
                    .next()
                    .flatten()
                    .map_or(Answer::Doubtful, Answer::Committed),
                Ended::Again | Ended::StoredId(_) => Answer::Doubtful,
                Ended::Lost(true, fault) => Answer::Lost(fault),
                Ended::Failed(fault) => Answer::Failed(fault.error().into()),
                Ended::Lost(false, fault) => Answer::Failed(AppendError::Unknown(fault.error())),
            };
            job.answer(answer);
        }
    }

    /// Wakes what waits for the head to move.
    fn hint(&self) {
        let head = self.session.head();
        if self.head.swap(head, Ordering::Relaxed) != head {
            self.moves.appended(head);
        }
    }
}

fn again(jobs: Vec<AppendJob>, later: &mut Vec<AppendJob>) {
    for mut job in jobs {
        job.tries += 1;
        match job.tries < TRIES_MAX {
            true => later.push(job),
            false => job.answer(Answer::Doubtful),
        }
    }
}
