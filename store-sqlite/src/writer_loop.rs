//! The writer thread: what waits is committed together, each job with its own outcome.
//!
//! While one group is flushed to the disk the next one gathers, so the more is going on, the better
//! each flush is used.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use annals_core::Failure;
use tokio::sync::watch;

use crate::error::{StoreFault, is_duplicate, is_medium};
use crate::identity::LogIdentity;
use crate::job::{Job, TxOutcome};
use crate::options::Options;
use crate::replica::{Unrecorded, Upstream};
use crate::views;
use crate::write_tx::WriteTx;
use annals_core::panic_text;

/// How many times the writer yields to the callers that it has just answered, before it commits a
/// much smaller group.
const YIELDS_MAX: usize = 32;

/// After so many groups something is purged although more is waiting.
const GROUPS_PER_SWEEP: usize = 16;

/// What is committed together.
type Group = Vec<Box<dyn Job>>;

/// The writer thread's own side.
pub(crate) struct WriterLoop {
    write_tx: WriteTx,
    queue: Receiver<Box<dyn Job>>,
    turns: Option<Arc<RwLock<()>>>,
    moved: watch::Sender<u64>,
    identity: Arc<LogIdentity>,
    events_max: usize,
    bytes_max: usize,
    /// Events and bytes of the next group: less than the bounds after one was not recorded.
    group_max: (usize, usize),
    poll_interval: Option<Duration>,
    last_group: usize,
    groups: usize,
}

impl WriterLoop {
    pub(crate) fn new(
        write_tx: WriteTx,
        queue: Receiver<Box<dyn Job>>,
        options: &Options,
        turns: Option<Arc<RwLock<()>>>,
        moved: watch::Sender<u64>,
    ) -> WriterLoop {
        WriterLoop {
            identity: Arc::clone(&write_tx.identity),
            write_tx,
            queue,
            turns,
            moved,
            events_max: options.group_events_max,
            bytes_max: options.group_bytes_max,
            group_max: (options.group_events_max, options.group_bytes_max),
            // No other process can open a store that has no file.
            poll_interval: options.path().map(|_| options.poll_interval),
            last_group: 0,
            groups: 0,
        }
    }

    /// Works until every sender of jobs is gone.
    pub(crate) fn run(mut self) {
        // From here on commits of other processes are noticed.
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
            if !group[0].runs_once() {
                self.last_group = group.len();
            }
            self.commit(group);
            self.groups = self.groups.wrapping_add(1);
        }
        self.close();
    }

    /// The next job; none after a poll for commits of others, an error when there will be no more.
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
                self.poll();
                Ok(None)
            }
        }
    }

    /// Notices what other processes did to the file. A poll that fails shows in the next request.
    fn poll(&mut self) {
        if !self.is_closed() && self.write_tx.others_committed().unwrap_or(false) {
            self.hint();
        }
    }

    /// Whether the store is closed, also since just now: then its readers are woken to see it.
    fn is_closed(&self) -> bool {
        if self.identity.fault().is_some() {
            return true;
        }
        let was_replaced = self.identity.check_files().is_err();
        if was_replaced {
            self.hint();
        }
        was_replaced
    }

    /// Purges a little of what was dropped or forgotten. What fails here is tried again when the
    /// store is opened next.
    fn sweep(&mut self) {
        let turns = self.turns.clone();
        let _turn = turn(turns.as_deref());
        self.write_tx.has_waste = false;
        if self.is_closed() {
            return;
        }
        if let Err(broken) = self.try_sweep() {
            tracing::warn!(fault = ?broken.fault, "dropped generations were not purged");
        }
    }

    fn try_sweep(&mut self) -> Result<(), Broken> {
        let found = views::has_waste(&self.write_tx.connection);
        if !found.map_err(|error| self.broken(&error, false))? {
            return Ok(());
        }
        self.begin()?;
        views::sweep(&self.write_tx.connection)
            .and_then(|()| self.write_tx.commit())
            .map_err(|error| self.broken(&error, false))?;
        self.write_tx.has_waste = true;
        Ok(())
    }

    /// What waits already, up to the bounds of a group; what would exceed them comes next. What
    /// cannot run again is a group of its own.
    fn gather(&self, first: Box<dyn Job>) -> (Group, Option<Box<dyn Job>>) {
        if first.runs_once() {
            return (vec![first], None);
        }
        let (events_max, bytes_max) = self.group_max;
        let (mut events, mut bytes) = first.size();
        let mut group = vec![first];
        let mut yields = 0;
        loop {
            match self.queue.try_recv() {
                Ok(job) if job.runs_once() => return (group, Some(job)),
                Ok(job) => {
                    let (more_events, more_bytes) = job.size();
                    events += more_events;
                    bytes += more_bytes;
                    if events > events_max || bytes > bytes_max {
                        return (group, Some(job));
                    }
                    group.push(job);
                }
                // The callers that were answered just now are about to ask again; a flush for the
                // first few of them would make all the others wait.
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

    /// Commits the group together. When something unexpected happens in it, each job is tried
    /// alone, so that one does not fail the others.
    fn commit(&mut self, mut group: Group) {
        let turns = self.turns.clone();
        let turn = turn(turns.as_deref());
        let mut settled = Vec::with_capacity(group.len());
        match self.attempt(&mut group) {
            Err(Broken {
                alone: true, fault, ..
            }) if group.len() > 1 => {
                tracing::debug!(?fault, "a group of appends is tried one by one");
                for job in group {
                    let mut alone = vec![job];
                    let outcome = outcome_of(self.attempt(&mut alone));
                    settled.extend(alone.into_iter().map(|job| (job, outcome.clone())));
                }
            }
            attempted => {
                let outcome = outcome_of(attempted);
                settled.extend(group.into_iter().map(|job| (job, outcome.clone())));
            }
        }
        drop(turn);
        for (job, outcome) in settled {
            // An answer that its caller did not wait for is dropped here, and is the caller's code.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job.settle(&outcome))) {
                let panic = panic_text(&*panic);
                tracing::error!(panic, "dropping the answer of a request panicked");
            }
        }
        self.hint();
    }

    fn attempt(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), Broken> {
        if let Some(fault) = self.identity.fault() {
            return Err(Broken::closed(fault.clone()));
        }
        self.identity.check_files().map_err(Broken::closed)?;
        self.begin()?;
        for job in &mut *group {
            // A net for the application's code: clocks, and values that are dropped.
            let ran = catch_unwind(AssertUnwindSafe(|| job.run(&mut self.write_tx)));
            match ran {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(self.broken(&error, true)),
                Err(panic) => {
                    self.write_tx.rollback();
                    return Err(Broken::panicked(panic_text(&*panic)));
                }
            }
        }
        let upstream = match self.record() {
            Ok(upstream) => upstream,
            Err(broken) => {
                if broken.unknown && group.len() > 1 {
                    self.narrow(group);
                }
                return Err(broken);
            }
        };
        if upstream.is_some() {
            self.widen();
        }
        if let Err(error) = self.write_tx.commit() {
            let mut broken = self.broken(&error, true);
            // Annals defers no constraint; tables of the application may.
            if is_duplicate(&error) {
                broken.fault = StoreFault::refused_at_commit(&error);
            }
            // The last flush failed: what the disk holds now is not known, and another attempt
            // could be answered wrongly. What was recorded elsewhere has happened there.
            broken.unknown = is_medium(&error) || upstream.is_some();
            broken.alone &= upstream.is_none();
            return Err(broken);
        }
        if let Some(replica) = &mut self.write_tx.replica {
            replica.committed(upstream);
        }
        // A file that is at its path after the commit holds it.
        self.identity.check_files().map_err(|fault| Broken {
            unknown: true,
            ..Broken::closed(fault)
        })?;
        self.identity.saw(self.write_tx.tail.event());
        Ok(())
    }

    /// Records what the transaction has written where the log of a replica is kept.
    fn record(&mut self) -> Result<Option<Box<dyn Upstream>>, Broken> {
        let Some(replica) = &mut self.write_tx.replica else {
            return Ok(None);
        };
        let recorded = replica.record(&self.write_tx.connection);
        recorded.map_err(|unrecorded| {
            self.write_tx.rollback();
            let name = self.identity.name();
            let (fault, unknown) = match unrecorded {
                Unrecorded::Unknown(fault) => (fault, true),
                Unrecorded::Follows => {
                    let context = format!("`{name}` follows a log that it does not own");
                    (StoreFault::new(Failure::ReadOnly, context), false)
                }
            };
            Broken {
                fault,
                // Known ids are answered also by a replica that follows.
                alone: !unknown,
                unknown,
            }
        })
    }

    /// All callers of a group that was not recorded ask again at once. Where it was too large for
    /// what records it, or one of it is refused there, the same group would fail for ever.
    fn narrow(&mut self, group: &[Box<dyn Job>]) {
        let sizes = group.iter().map(|job| job.size());
        let (events, bytes) = sizes.fold((0, 0), |(events, bytes), (more_events, more_bytes)| {
            (events + more_events, bytes + more_bytes)
        });
        self.group_max = ((events / 2).max(1), (bytes / 2).max(1));
    }

    /// A group was recorded: the next one may be larger by an eighth.
    fn widen(&mut self) {
        let grown = |now: usize, max: usize| now.saturating_add((now / 8).max(1)).min(max);
        let (events, bytes) = self.group_max;
        self.group_max = (grown(events, self.events_max), grown(bytes, self.bytes_max));
    }

    fn begin(&mut self) -> Result<(), Broken> {
        let begun = self.write_tx.begin();
        begun
            .map_err(|error| self.broken(&error, false))?
            .map_err(|fault| {
                self.write_tx.rollback();
                Broken::closed(fault)
            })
    }

    /// Rolls the transaction back and says what that means.
    fn broken(&mut self, error: &rusqlite::Error, alone: bool) -> Broken {
        self.write_tx.rollback();
        let fault = StoreFault::of(error, "writing", self.identity.name());
        if is_medium(error) {
            return Broken::closed(self.identity.close(fault.closing()));
        }
        Broken {
            alone,
            fault,
            unknown: false,
        }
    }

    fn hint(&self) {
        self.moved
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Copies the journal into the file, so that the file alone is the whole log.
    fn close(self) {
        let _turn = turn(self.turns.as_deref());
        let replaced = || self.identity.check_files().is_err();
        if self.turns.is_some() || self.identity.fault().is_some() || replaced() {
            return;
        }
        // Readers of another process may hold it back; then the last one to close does it.
        let connection = &self.write_tx.connection;
        let copied = connection.pragma_query(None, "wal_checkpoint(truncate)", |_| Ok(()));
        if let Err(error) = copied {
            tracing::debug!(%error, "the journal was not copied into the file on closing");
        }
    }
}

fn turn(turns: Option<&RwLock<()>>) -> Option<RwLockWriteGuard<'_, ()>> {
    turns.map(|turns| turns.write().unwrap_or_else(PoisonError::into_inner))
}

/// Why a transaction did not happen, or may not have.
struct Broken {
    fault: StoreFault,
    /// Whether trying its jobs alone may help.
    alone: bool,
    unknown: bool,
}

impl Broken {
    fn closed(fault: StoreFault) -> Broken {
        Broken {
            fault,
            alone: false,
            unknown: false,
        }
    }

    fn panicked(panic: &str) -> Broken {
        let context = format!("a request panicked on the writer thread: {panic}");
        Broken {
            fault: StoreFault::new(Failure::Invalid, context),
            alone: true,
            unknown: false,
        }
    }
}

fn outcome_of(attempted: Result<(), Broken>) -> TxOutcome {
    match attempted {
        Ok(()) => TxOutcome::Committed,
        Err(Broken {
            fault,
            unknown: true,
            ..
        }) => TxOutcome::Unknown(fault),
        Err(Broken { fault, .. }) => TxOutcome::RolledBack(fault),
    }
}
