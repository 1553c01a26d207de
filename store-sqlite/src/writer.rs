//! The writer thread: whatever waits is committed together, each with its own outcome.
//!
//! While one group is being flushed to the disk the next one gathers, so the more is going on, the
//! better each flush is used.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use annals_core::{AppendError, Failure, StoreError};
use tokio::sync::{Semaphore, watch};

use crate::error::{StoreFault, is_medium};
use crate::job::{Job, TxOutcome, task};
use crate::options::Options;
use crate::views;
use crate::write_tx::{Stop, WriteTx};

/// How many times the writer gives way to those whose appends it has just answered, before it
/// commits a much smaller group.
const YIELDS_MAX: usize = 32;

/// After so many groups something is cleared away although more is waiting.
const GROUPS_PER_SWEEP: usize = 16;

/// The writer thread, and the queue in front of it.
#[derive(Debug)]
pub(crate) struct Writer {
    // None once it is closing.
    jobs: Option<Sender<Box<dyn Job>>>,
    room: Arc<Semaphore>,
    room_kibibytes: u32,
    thread: Option<JoinHandle<()>>,
    failed: Arc<OnceLock<StoreFault>>,
    name: String,
}

impl Writer {
    /// Starts the thread, which owns the write_tx until the writer is dropped.
    pub(crate) fn start(
        write_tx: WriteTx,
        options: &Options,
        name: String,
        turns: Option<Arc<RwLock<()>>>,
        moved: watch::Sender<u64>,
    ) -> Result<Writer, StoreError> {
        let (jobs, queue) = channel();
        let failed = Arc::new(OnceLock::new());
        let desk = WriterLoop {
            write_tx,
            queue,
            turns,
            moved,
            failed: Arc::clone(&failed),
            events_max: options.group_events_max,
            bytes_max: options.group_bytes_max,
            // Nobody else can open a store that has no file.
            poll_interval: options.path().map(|_| options.poll_interval),
            last_group: 0,
            groups: 0,
            name: name.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("annals-sqlite-writer".into())
            .spawn(move || desk.work())
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
            failed,
            name,
        })
    }

    /// Hands over something to do inside a write transaction and waits for its outcome, which comes
    /// after the commit.
    ///
    /// Once it is handed over it is done, whether or not somebody still waits.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        size: (usize, usize),
        work: impl FnMut(&mut WriteTx) -> Result<R, Stop> + Send + 'static,
    ) -> Result<R, AppendError> {
        let kibibytes = u32::try_from(size.1.div_ceil(1 << 10))
            .unwrap_or(u32::MAX)
            .clamp(1, self.room_kibibytes);
        let permit = Arc::clone(&self.room)
            .acquire_many_owned(kibibytes)
            .await
            .map_err(|_| AppendError::Store(self.gone()))?;
        let (job, outcome) = task(size, permit, work);
        let sent = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(job).is_ok());
        if !sent {
            return Err(AppendError::Store(self.gone()));
        }
        // Without an answer the thread has ended in the middle of it.
        outcome
            .await
            .unwrap_or_else(|_| Err(AppendError::Unknown(self.gone())))
    }

    /// Why nothing more can be asked of this store, when that is so.
    pub(crate) fn failed(&self) -> Option<StoreError> {
        self.failed.get().map(StoreFault::error)
    }

    fn gone(&self) -> StoreError {
        self.failed().unwrap_or_else(|| {
            StoreFault::new(Failure::Closed, format!("`{}` was closed", self.name)).error()
        })
    }
}

/// What waits is done, the journal is copied into the file, and the thread has ended.
impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            // The last handle may be dropped by something that the writer itself was given to do.
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!(name = self.name, "the writer thread panicked");
        }
    }
}

/// What is committed together.
type Group = Vec<Box<dyn Job>>;

/// The thread's own side.
struct WriterLoop {
    write_tx: WriteTx,
    queue: Receiver<Box<dyn Job>>,
    turns: Option<Arc<RwLock<()>>>,
    moved: watch::Sender<u64>,
    failed: Arc<OnceLock<StoreFault>>,
    events_max: usize,
    bytes_max: usize,
    poll_interval: Option<Duration>,
    last_group: usize,
    groups: usize,
    name: String,
}

impl WriterLoop {
    fn work(mut self) {
        // From here on what others commit is noticed.
        let _ = self.write_tx.others_committed();
        let mut put_back = None;
        loop {
            let first = match put_back.take() {
                Some(job) => job,
                None => match self.next() {
                    Ok(Some(job)) => job,
                    Ok(None) => continue,
                    Err(()) => break,
                },
            };
            let (group, rest) = self.gather(first);
            put_back = rest;
            self.last_group = group.len();
            self.commit(group);
            self.groups = self.groups.wrapping_add(1);
        }
        self.close();
    }

    /// The next job; none after looking whether others have written, an error when there will be no
    /// more.
    fn next(&mut self) -> Result<Option<Box<dyn Job>>, ()> {
        while self.write_tx.has_waste {
            if self.groups.is_multiple_of(GROUPS_PER_SWEEP) {
                self.sweep();
            }
            match self.queue.try_recv() {
                Ok(job) => return Ok(Some(job)),
                Err(TryRecvError::Disconnected) => return Err(()),
                Err(TryRecvError::Empty) => self.sweep(),
            }
        }
        let Some(interval) = self.poll_interval else {
            return self.queue.recv().map(Some).map_err(|_| ());
        };
        match self.queue.recv_timeout(interval) {
            Ok(job) => Ok(Some(job)),
            Err(RecvTimeoutError::Disconnected) => Err(()),
            Err(RecvTimeoutError::Timeout) => {
                // A failure to look will show when something is asked for.
                if self.write_tx.others_committed().unwrap_or(false) {
                    self.hint();
                }
                Ok(None)
            }
        }
    }

    /// Clears away a little of what was dropped or forgotten. What fails here is tried again when
    /// the store is opened next.
    fn sweep(&mut self) {
        let turns = self.turns.clone();
        let _turn = turns
            .as_ref()
            .map(|turns| turns.write().unwrap_or_else(PoisonError::into_inner));
        let swept = views::has_waste(&self.write_tx.connection).and_then(|has_waste| {
            self.write_tx.has_waste = has_waste;
            if has_waste {
                self.write_tx.begin()?;
                views::sweep(&self.write_tx.connection)?;
                self.write_tx.commit()?;
            }
            Ok(())
        });
        if let Err(error) = swept {
            self.write_tx.has_waste = false;
            let broken = self.broken(&error, false);
            tracing::warn!(trouble = ?broken.trouble, "what was dropped or forgotten could not be \
                cleared away");
        }
    }

    /// What waits already, up to the bounds of a group; what would exceed them comes next.
    fn gather(&self, first: Box<dyn Job>) -> (Group, Option<Box<dyn Job>>) {
        let (mut events, mut bytes) = first.size();
        let mut group = vec![first];
        let mut yields = 0;
        loop {
            match self.queue.try_recv() {
                Ok(job) => {
                    let (more_events, more_bytes) = job.size();
                    events = events + more_events;
                    bytes = bytes + more_bytes;
                    if events > self.events_max || bytes > self.bytes_max {
                        return (group, Some(job));
                    }
                    group.push(job);
                }
                // Those who were answered just now are about to ask again; a flush for the first
                // few of them would make all the others wait.
                Err(TryRecvError::Empty)
                    if group.len() < self.last_group / 2 && yields < YIELDS_MAX =>
                {
                    yields += 1;
                    std::thread::yield_now();
                }
                Err(_) => return (group, None),
            }
        }
    }

    /// Commits the group together. When something unexpected happens in it, each is tried alone, so
    /// that one does not fail the others.
    fn commit(&mut self, mut group: Group) {
        let turns = self.turns.clone();
        let turn = turns
            .as_ref()
            .map(|turns| turns.write().unwrap_or_else(PoisonError::into_inner));
        let mut settled = Vec::with_capacity(group.len());
        match self.attempt(&mut group) {
            Err(Broken {
                alone: true,
                trouble,
                ..
            }) if group.len() > 1 => {
                tracing::debug!(?trouble, "a group of appends is tried one by one");
                for job in group {
                    let mut alone = vec![job];
                    let fate = fate_of(self.attempt(&mut alone));
                    settled.extend(alone.into_iter().map(|job| (job, fate.clone())));
                }
            }
            outcome => {
                let fate = fate_of(outcome);
                settled.extend(group.into_iter().map(|job| (job, fate.clone())));
            }
        }
        drop(turn);
        for (job, fate) in settled {
            job.settle(&fate);
        }
        self.hint();
    }

    fn attempt(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), Broken> {
        if let Some(trouble) = self.failed.get() {
            return Err(Broken {
                trouble: trouble.clone(),
                alone: false,
                unknown: false,
            });
        }
        if let Err(error) = self.write_tx.begin() {
            return Err(self.broken(&error, false));
        }
        for job in group {
            if let Err(error) = job.run(&mut self.write_tx) {
                return Err(self.broken(&error, true));
            }
        }
        let committed = self.write_tx.commit();
        committed.map_err(|error| {
            let mut broken = self.broken(&error, true);
            // The last flush failed: what the disk holds now is not known, and asking again would
            // be told a lie.
            broken.unknown = is_medium(&error);
            broken
        })
    }

    /// Undoes the transaction and says what that means.
    fn broken(&mut self, error: &rusqlite::Error, alone: bool) -> Broken {
        self.write_tx.rollback();
        let mut trouble = StoreFault::of(error, "writing", &self.name);
        if is_medium(error) {
            trouble = trouble.closing();
            tracing::error!(%error, name = self.name, "the medium failed, the store is closed");
            let _ = self.failed.set(trouble.clone());
        }
        Broken {
            alone: alone && !is_medium(error),
            trouble,
            unknown: false,
        }
    }

    fn hint(&self) {
        self.moved
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Copies the journal into the file, so that the file alone is the whole log.
    fn close(self) {
        let WriterLoop {
            write_tx,
            turns,
            failed,
            ..
        } = self;
        let _turn = turns
            .as_ref()
            .map(|turns| turns.write().unwrap_or_else(PoisonError::into_inner));
        if failed.get().is_none() && turns.is_none() {
            // Readers of another process may hold it back; then the last one to close does it.
            let copied = write_tx
                .connection
                .pragma_query(None, "wal_checkpoint(truncate)", |_| Ok(()));
            if let Err(error) = copied {
                tracing::debug!(%error, "the journal was not copied into the file on closing");
            }
        }
    }
}

/// Why a transaction did not happen, or may not have.
struct Broken {
    trouble: StoreFault,
    /// Whether trying its parts alone may help.
    alone: bool,
    unknown: bool,
}

fn fate_of(outcome: Result<(), Broken>) -> TxOutcome {
    match outcome {
        Ok(()) => TxOutcome::Committed,
        Err(Broken {
            trouble,
            unknown: true,
            ..
        }) => TxOutcome::Unknown(trouble),
        Err(Broken { trouble, .. }) => TxOutcome::RolledBack(trouble),
    }
}
