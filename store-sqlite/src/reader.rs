//! Reading without blocking the runtime: a small pool of connections, used on blocking threads,
//! each read one transaction.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use annals_core::{Failure, StoreError};
use rusqlite::Connection;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::connection::Opener;
use crate::error::{StoreFault, reading};
use crate::identity::LogIdentity;
use crate::row::Names;

/// Connections for reading, opened when they are first needed; the one used last is used next,
/// because its caches are the warmest.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    opener: Opener,
    identity: Arc<LogIdentity>,
    count: usize,
    queue: Mutex<ReaderQueue>,
    room: Arc<Semaphore>,
    /// Notified when a thread ends.
    ended: Condvar,
    /// Notified when a thread that never began was dropped while reads wait.
    dropped: Notify,
    /// A store in memory has no journal beside which one could read; then reading and writing take
    /// turns.
    turns: Option<Arc<RwLock<()>>>,
}

/// Reads that wait for a thread; further ones wait before they are queued.
const WAITING_MAX: usize = 4_096;

/// How often a caller starts a thread for a read: its own runtime may be one that shuts down.
const STARTS_MAX: usize = 100;

/// How long closing waits for a read that has begun; a page takes some milliseconds.
const READ_ENDS_MAX: Duration = Duration::from_secs(5);

/// How long a thread without work yields before it ends: a caller that was answered often asks
/// again at once, and then finds it awake and its connection warm. About as long as waking a thread
/// takes.
const REST: Duration = Duration::from_micros(50);

/// Reads that wait, and the threads. A thread goes on while something waits: waking a thread costs
/// more than most reads.
#[derive(Default)]
struct ReaderQueue {
    waiting: VecDeque<Job>,
    threads: usize,
    /// Threads that are about to look for work.
    resting: usize,
    idle: Vec<Reader>,
    closed: bool,
}

type Run = Box<dyn FnOnce(&Pool, &mut Option<Reader>) + Send>;

/// A read that waits.
struct Job {
    run: Run,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Reader {
    connection: Connection,
    names: Names,
    /// SQLite's counter of commits by other connections when the log was last checked.
    checked_at: Option<i64>,
}

impl Readers {
    pub(crate) fn new(
        opener: Opener,
        identity: Arc<LogIdentity>,
        count: usize,
        turns: Option<Arc<RwLock<()>>>,
    ) -> Readers {
        Readers {
            pool: Arc::new(Pool {
                opener,
                identity,
                count: count.max(1),
                queue: Mutex::default(),
                room: Arc::new(Semaphore::new(WAITING_MAX)),
                ended: Condvar::new(),
                dropped: Notify::new(),
                turns,
            }),
        }
    }

    /// Runs `work` in a read transaction. When the future is dropped before it began, it does not
    /// run; else its connection is given back when it is done.
    pub(crate) async fn read<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &mut Names) -> Result<R, rusqlite::Error> + Send + 'static,
    ) -> Result<R, StoreError> {
        let closed = || closed(&self.pool.opener.name);
        let permit = Arc::clone(&self.pool.room).acquire_owned().await;
        let _permit = permit.map_err(|_| closed())?;
        let (answer, answered) = oneshot::channel();
        let run = Box::new(move |pool: &Pool, reader: &mut Option<Reader>| {
            // Work that no caller waits for is not done.
            if !answer.is_closed() {
                let _ = answer.send(pool.read(reader, work));
            }
        });
        // It also counts what is dropped before it is waited for.
        let mut dropped = pin!(self.pool.dropped.notified());
        {
            let mut queue = self.pool.queue();
            if queue.closed {
                return Err(closed());
            }
            queue.waiting.push_back(Job { run, _permit });
        }
        let mut answered = pin!(answered);
        for _ in 0..STARTS_MAX {
            self.start_thread();
            tokio::select! {
                biased;
                answer = &mut answered => return answer.unwrap_or_else(|_| cut_short()),
                () = &mut dropped => dropped.set(self.pool.dropped.notified()),
            }
        }
        cut_short()
    }

    /// Starts a thread in the runtime of the caller, if one more is of use.
    fn start_thread(&self) {
        {
            let mut queue = self.pool.queue();
            if queue.threads >= self.pool.count || queue.waiting.len() <= queue.resting {
                return;
            }
            queue.threads += 1;
        }
        let thread = ReaderThread {
            pool: Arc::clone(&self.pool),
            has_ended: false,
        };
        tokio::task::spawn_blocking(move || thread.run());
    }

    /// Closes the connections; no further read begins. Waits for those that have begun, because the
    /// writer, which closes last, leaves one file only when no other connection is open.
    pub(crate) fn close(&self) {
        let mut queue = self.pool.queue();
        queue.closed = true;
        queue.waiting.clear();
        queue.idle.clear();
        let at_work = |queue: &mut ReaderQueue| queue.threads > 0;
        let waited = self
            .pool
            .ended
            .wait_timeout_while(queue, READ_ENDS_MAX, at_work);
        if waited
            .map_or_else(|poisoned| poisoned.into_inner().1, |(_, waited)| waited)
            .timed_out()
        {
            tracing::warn!(
                name = self.pool.opener.name,
                "a read goes on after the store was closed"
            );
        }
    }
}

fn cut_short<R>() -> Result<R, StoreError> {
    Err(StoreError::new(
        Failure::Unavailable,
        "a read was cut short",
    ))
}

fn closed(name: &str) -> StoreError {
    StoreFault::new(Failure::Closed, format!("`{name}` was closed")).error()
}

impl Pool {
    fn queue(&self) -> MutexGuard<'_, ReaderQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<R>(
        &self,
        reader: &mut Option<Reader>,
        work: impl FnOnce(&Connection, &mut Names) -> Result<R, rusqlite::Error>,
    ) -> Result<R, StoreError> {
        let _turn = self
            .turns
            .as_ref()
            .map(|turns| turns.read().unwrap_or_else(PoisonError::into_inner));
        self.identity.check_open()?;
        let mut used = match reader.take() {
            Some(reader) => reader,
            None => Reader {
                connection: self
                    .opener
                    .reader()
                    .map_err(|error| self.opener.fault(&error).error())?,
                names: Names::default(),
                checked_at: None,
            },
        };
        let failed = |error: rusqlite::Error| reading(&error, &self.opener.name);
        used.begin(&self.identity).map_err(failed)??;
        let found = work(&used.connection, &mut used.names).map_err(failed)?;
        used.commit().map_err(failed)?;
        // What was read is the log when its file is still at its path.
        self.identity.check_files().map_err(|fault| fault.error())?;
        // A connection that failed is not used again.
        *reader = Some(used);
        Ok(found)
    }
}

impl Reader {
    /// Begins a read transaction; an error when it sees another log than before.
    fn begin(&mut self, identity: &LogIdentity) -> Result<Result<(), StoreError>, rusqlite::Error> {
        let last = identity.last();
        self.connection.prepare_cached("begin")?.execute([])?;
        if !identity.can_change() {
            return Ok(Ok(()));
        }
        let version = self
            .connection
            .prepare_cached("pragma data_version")?
            .query_row([], |row| row.get(0))?;
        if self.checked_at != Some(version) {
            if let Err(fault) = identity.check_log(&self.connection, last)? {
                return Ok(Err(fault.error()));
            }
            self.checked_at = Some(version);
        }
        Ok(Ok(()))
    }

    fn commit(&self) -> Result<(), rusqlite::Error> {
        self.connection
            .prepare_cached("commit")?
            .execute([])
            .map(|_| ())
    }
}

/// Runs what waits, one read after the other on one connection, until nothing does.
struct ReaderThread {
    pool: Arc<Pool>,
    has_ended: bool,
}

impl ReaderThread {
    fn run(mut self) {
        let mut reader = None;
        while let Some(job) = self.next(&mut reader) {
            // A read that panics drops its answer, which its caller sees; its connection is not
            // used again.
            let mut used = reader.take();
            if catch_unwind(AssertUnwindSafe(|| (job.run)(&self.pool, &mut used))).is_ok() {
                reader = used;
            }
        }
    }

    /// The next read. When there is none, ends under the same lock, so that the next caller starts
    /// another thread.
    fn next(&mut self, reader: &mut Option<Reader>) -> Option<Job> {
        let mut queue = self.pool.queue();
        let began = Instant::now();
        while queue.waiting.is_empty() && !queue.closed && began.elapsed() < REST {
            queue.resting += 1;
            drop(queue);
            std::thread::yield_now();
            queue = self.pool.queue();
            queue.resting -= 1;
        }
        if let Some(job) = queue.waiting.pop_front() {
            if reader.is_none() {
                *reader = queue.idle.pop();
            }
            return Some(job);
        }
        // A connection is closed before its thread is counted off.
        match reader.take() {
            Some(reader) if !queue.closed => queue.idle.push(reader),
            closed => drop(closed),
        }
        queue.threads -= 1;
        self.has_ended = true;
        self.pool.ended.notify_all();
        None
    }
}

impl Drop for ReaderThread {
    /// A runtime that shuts down may drop a thread that never began. What waits is of other
    /// runtimes, too: its callers start another thread there.
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let mut queue = self.pool.queue();
        queue.threads -= 1;
        drop(queue);
        self.pool.dropped.notify_waiters();
        self.pool.ended.notify_all();
    }
}

impl fmt::Debug for ReaderQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaderQueue")
            .field("waiting", &self.waiting.len())
            .field("threads", &self.threads)
            .field("resting", &self.resting)
            .field("idle", &self.idle.len())
            .field("closed", &self.closed)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Waker};

    use super::*;
    use crate::options::Options;

    /// Readers with one thread, and the connection that keeps what they read.
    fn one_reader() -> (Readers, Connection) {
        let opener = Opener::new(&Options::in_memory()).unwrap();
        let keeps_it = opener.writer().unwrap();
        let log = annals_core::LogId::random();
        let identity = Arc::new(LogIdentity::new(log, None, opener.name.clone()));
        (Readers::new(opener, identity, 1, None), keeps_it)
    }

    #[tokio::test]
    async fn a_runtime_that_ends_takes_no_read_of_another_along() {
        let (readers, _keeps_it) = one_reader();
        let other = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .build()
            .unwrap();
        // Its one thread for blocking work is taken, so that of the readers never begins.
        let (release, released) = std::sync::mpsc::channel::<()>();
        other.spawn_blocking(move || released.recv());
        let theirs = readers.clone();
        other.spawn(async move { theirs.read(|_, _| Ok(())).await });
        while readers.pool.queue().threads == 0 {
            tokio::task::yield_now().await;
        }
        let mut ours = pin!(readers.read(|_, _| Ok(7)));
        let polled = ours.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        other.shutdown_background();
        release.send(()).unwrap();
        assert_eq!(ours.await.unwrap(), 7);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn dropped_reads_are_not_read() {
        let (readers, _keeps_it) = one_reader();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (begun, began) = oneshot::channel();
        let first = tokio::spawn({
            let readers = readers.clone();
            async move {
                let work = move |_: &Connection, _: &mut Names| {
                    let _ = begun.send(());
                    let _ = released.recv();
                    Ok(())
                };
                readers.read(work).await
            }
        });
        began.await.unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        // More than may be queued: those beyond wait outside.
        for _ in 0..2 * WAITING_MAX {
            let runs = Arc::clone(&runs);
            let mut read = pin!(readers.read(move |_, _| {
                runs.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }));
            let polled = read.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
        }
        release.send(()).unwrap();
        first.await.unwrap().unwrap();
        readers.read(|_, _| Ok(())).await.unwrap();
        assert_eq!(runs.load(Ordering::Relaxed), 0);
    }
}
