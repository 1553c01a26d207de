//! Reading without blocking the runtime: a small pool of connections, used on blocking threads,
//! each read one transaction.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use annals_core::{Failure, StoreError};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::connection::Opener;
use crate::error::{StoreFault, reading};
use crate::row::Names;

/// Connections for reading, opened when they are first needed; the one used last is used next,
/// because it knows the most.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    opener: Opener,
    count: usize,
    desk: Mutex<ReaderQueue>,
    /// Tells when a worker has signed off.
    signed_off: Condvar,
    /// A store in memory has no journal beside which one could read; then reading and writing take
    /// turns.
    turns: Option<Arc<RwLock<()>>>,
}

/// How long closing waits for a read that has begun; a page takes some milliseconds.
const READ_ENDS_MAX: Duration = Duration::from_secs(5);

/// How long a worker without work gives way before it signs off: whoever was answered often asks
/// again at once, and then finds it awake and its connection warm. About as long as waking a thread
/// takes.
const REST: Duration = Duration::from_micros(50);

/// Reads that wait, and who is at work. A worker goes on while something waits: waking a thread
/// costs more than most reads.
#[derive(Default)]
struct ReaderQueue {
    waiting: VecDeque<Job>,
    working: usize,
    /// Of those at work, the ones that are about to look for something to do.
    resting: usize,
    idle: Vec<Reader>,
    closed: bool,
}

type Job = Box<dyn FnOnce(&Pool, &mut Option<Reader>) + Send>;

#[derive(Debug)]
struct Reader {
    connection: Connection,
    names: Names,
}

impl Readers {
    pub(crate) fn new(opener: Opener, count: usize, turns: Option<Arc<RwLock<()>>>) -> Readers {
        Readers {
            pool: Arc::new(Pool {
                opener,
                count: count.max(1),
                desk: Mutex::default(),
                signed_off: Condvar::new(),
                turns,
            }),
        }
    }

    /// Runs `work` in a read transaction. Dropping the future gives the connection back all the
    /// same, when the work is done.
    pub(crate) async fn read<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &mut Names) -> Result<R, rusqlite::Error> + Send + 'static,
    ) -> Result<R, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job = move |pool: &Pool, reader: &mut Option<Reader>| {
            // Nobody listens when the future was dropped.
            let _ = answer.send(pool.read(reader, work));
        };
        let needs_a_worker = {
            let mut desk = self.pool.desk();
            if desk.closed {
                return Err(closed(&self.pool.opener.name));
            }
            desk.waiting.push_back(Box::new(job));
            let needs_a_worker =
                desk.working < self.pool.count && desk.waiting.len() > desk.resting;
            desk.working += usize::from(needs_a_worker);
            needs_a_worker
        };
        if needs_a_worker {
            let worker = Worker {
                pool: Arc::clone(&self.pool),
                signed_off: false,
            };
            tokio::task::spawn_blocking(move || worker.work());
        }
        let lost = |_| {
            Err(StoreError::new(
                Failure::Unavailable,
                "a read did not come to an end",
            ))
        };
        answered.await.unwrap_or_else(lost)
    }

    /// Closes the connections; no further read begins. Waits for those that have begun, because the
    /// writer, which closes last, leaves one file only when nobody else has it open.
    pub(crate) fn close(&self) {
        let mut desk = self.pool.desk();
        desk.closed = true;
        desk.waiting.clear();
        desk.idle.clear();
        let at_work = |desk: &mut ReaderQueue| desk.working > 0;
        let waited = self
            .pool
            .signed_off
            .wait_timeout_while(desk, READ_ENDS_MAX, at_work);
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

fn closed(name: &str) -> StoreError {
    StoreFault::new(Failure::Closed, format!("`{name}` was closed")).error()
}

impl Pool {
    fn desk(&self) -> MutexGuard<'_, ReaderQueue> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut used = match reader.take() {
            Some(reader) => reader,
            None => {
                let connection = self
                    .opener
                    .reader()
                    .map_err(|error| self.opener.fault(&error).error())?;
                Reader {
                    connection,
                    names: Names::default(),
                }
            }
        };
        let found = used
            .transaction(work)
            .map_err(|error| reading(&error, &self.opener.name))?;
        // A connection that failed is not used again.
        *reader = Some(used);
        Ok(found)
    }
}

/// One who takes what waits, one read after the other on one connection, until nothing does.
struct Worker {
    pool: Arc<Pool>,
    signed_off: bool,
}

impl Worker {
    fn work(mut self) {
        let mut reader = None;
        while let Some(job) = self.next(&mut reader) {
            // A read that panics drops its answer, which is told; its connection is not used again.
            let mut used = reader.take();
            if catch_unwind(AssertUnwindSafe(|| job(&self.pool, &mut used))).is_ok() {
                reader = used;
            }
        }
    }

    /// The next read. When there is none, signs off in the same breath, so that whoever comes then
    /// asks for another worker.
    fn next(&mut self, reader: &mut Option<Reader>) -> Option<Job> {
        let mut desk = self.pool.desk();
        let began = Instant::now();
        while desk.waiting.is_empty() && !desk.closed && began.elapsed() < REST {
            desk.resting += 1;
            drop(desk);
            std::thread::yield_now();
            desk = self.pool.desk();
            desk.resting -= 1;
        }
        if let Some(job) = desk.waiting.pop_front() {
            if reader.is_none() {
                *reader = desk.idle.pop();
            }
            return Some(job);
        }
        // A connection is closed before its worker is counted off.
        match reader.take() {
            Some(reader) if !desk.closed => desk.idle.push(reader),
            closed => drop(closed),
        }
        desk.working -= 1;
        self.signed_off = true;
        self.pool.signed_off.notify_all();
        None
    }
}

impl Drop for Worker {
    /// A runtime that shuts down may drop a worker that never began. When no other is left, what
    /// waits is told so.
    fn drop(&mut self) {
        if self.signed_off {
            return;
        }
        let mut desk = self.pool.desk();
        desk.working -= 1;
        if desk.working == 0 {
            desk.waiting.clear();
        }
        self.pool.signed_off.notify_all();
    }
}

impl fmt::Debug for ReaderQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaderQueue")
            .field("waiting", &self.waiting.len())
            .field("working", &self.working)
            .field("resting", &self.resting)
            .field("idle", &self.idle.len())
            .field("closed", &self.closed)
            .finish()
    }
}

impl Reader {
    fn transaction<R>(
        &mut self,
        work: impl FnOnce(&Connection, &mut Names) -> Result<R, rusqlite::Error>,
    ) -> Result<R, rusqlite::Error> {
        self.connection.prepare_cached("begin")?.execute([])?;
        let found = work(&self.connection, &mut self.names)?;
        self.connection.prepare_cached("commit")?.execute([])?;
        Ok(found)
    }
}
