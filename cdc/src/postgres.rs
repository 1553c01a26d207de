//! A PostgreSQL server as a source: a slot, a publication, a snapshot, and the stream after it.

mod address;
mod checks;
mod control;
mod copy;
mod errors;
mod heartbeat;
mod pgwire;
mod pump;
mod session;
mod snapshot;
mod spool;
mod transaction;
mod transport;

use std::time::Duration;

use annals_core::Backoff;
use async_trait::async_trait;
use tokio::sync::Notify;

use crate::ingest::{Chunk, Mark, Resume, Source, SourceError, SourceFailure, SourceStatus};
use crate::schema::TableName;
use address::ServerUrl;
use errors::retry;
use heartbeat::MissedMax;
use session::{COPY_BACKOFF, Session};

/// The least time that the checks before a stream may take: tests have quick heartbeats.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Tables of a PostgreSQL server, through logical replication: version 15 or newer, with
/// `wal_level = logical`.
///
/// ```
/// use annals_cdc::Postgres;
///
/// let orders = Postgres::at("postgres://reader@db/shop").tables(["public.orders"]);
/// # let _ = orders;
/// ```
#[derive(Debug)]
#[must_use = "it does nothing before an ingest has it"]
pub struct Postgres {
    settings: Settings,
    session: Option<Session>,
    status: SourceStatus,
    wants_snapshot: bool,
    read_again: Vec<TableName>,
    missed_max: MissedMax,
    copy_backoff: Backoff,
}

/// What was said of the source.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) url: ServerUrl,
    pub(crate) tables: Vec<TableName>,
    pub(crate) publication: Option<String>,
    pub(crate) slot: Option<String>,
    pub(crate) snapshot: bool,
    pub(crate) readers: usize,
    pub(crate) heartbeat: Duration,
    pub(crate) status_interval: Duration,
    pub(crate) slot_timeout: Duration,
    pub(crate) follows_failover: bool,
    pub(crate) spool_bytes: usize,
    pub(crate) part_records: usize,
    pub(crate) note_bytes: u64,
    pub(crate) hold_snapshot: Option<std::sync::Arc<tokio::sync::Notify>>,
}

impl Postgres {
    /// The server and the database that a URL names: `postgres://user:password@host:5432/database`,
    /// with `?sslmode=verify-full` for an encrypted connection. The role needs `REPLICATION`, and
    /// the right to read the tables.
    pub fn at(url: &str) -> Postgres {
        Postgres {
            settings: Settings {
                url: ServerUrl(url.to_owned()),
                tables: Vec::new(),
                publication: None,
                slot: None,
                snapshot: true,
                readers: 4,
                heartbeat: Duration::from_secs(10),
                status_interval: Duration::from_secs(1),
                slot_timeout: Duration::from_secs(60),
                follows_failover: false,
                spool_bytes: 4 << 20,
                part_records: 4_500,
                note_bytes: 64 << 10,
                hold_snapshot: None,
            },
            session: None,
            status: SourceStatus::default(),
            wants_snapshot: false,
            read_again: Vec::new(),
            missed_max: MissedMax::default(),
            copy_backoff: COPY_BACKOFF,
        }
    }

    /// These tables: `orders` or `public.orders`. Without a publication of yours, one is made of
    /// them: `annals_NAME`, which takes a role that owns the tables. A partitioned table is taken
    /// in under its own name. With a publication, each has to be in it.
    pub fn tables<'a>(mut self, tables: impl IntoIterator<Item = &'a str>) -> Postgres {
        let tables = tables.into_iter().map(TableName::parse);
        self.settings.tables.extend(tables);
        self
    }

    /// The tables of this publication, which is there already: all of them, also where
    /// [`tables`](Postgres::tables) does not name one, which is warned of.
    pub fn publication(mut self, name: &str) -> Postgres {
        self.settings.publication = Some(name.to_owned());
        self
    }

    /// The slot has this name: `annals_NAME` unless said otherwise.
    pub fn slot(mut self, name: &str) -> Postgres {
        self.settings.slot = Some(name.to_owned());
        self
    }

    /// Only what changes from now on: no copy of what the tables hold. A
    /// [`resync_all`](crate::IngestHandle::resync_all) makes a new slot, and compares nothing.
    pub fn without_snapshot(mut self) -> Postgres {
        self.settings.snapshot = false;
        self
    }

    /// So many connections copy tables at once: 4 unless said otherwise.
    pub fn snapshot_readers(mut self, readers: usize) -> Postgres {
        self.settings.readers = readers.max(1);
        self
    }

    /// A heartbeat is sent through the log of the server so often: every 10 s unless said
    /// otherwise. A link is given up after three that the server has sent and that did not arrive,
    /// or when the server answers nothing for as long; after twice as many when the link before
    /// brought nothing.
    pub fn heartbeat(mut self, every: Duration) -> Postgres {
        self.settings.heartbeat = every.max(Duration::from_millis(10));
        self
    }

    /// What is durable is confirmed to the server at most so often: every second unless said
    /// otherwise.
    pub fn status_interval(mut self, every: Duration) -> Postgres {
        self.settings.status_interval = every.max(Duration::from_millis(10));
        self
    }

    /// How long a new slot may wait for transactions that are open: a minute unless said otherwise.
    pub fn slot_timeout(mut self, at_most: Duration) -> Postgres {
        self.settings.slot_timeout = at_most;
        self
    }

    /// Goes on when a standby with the slot was promoted (PostgreSQL 17, `failover` slots).
    pub fn follows_failover(mut self) -> Postgres {
        self.settings.follows_failover = true;
        self
    }

    /// A transaction of more bytes than this is kept in a temporary file until its commit, and is
    /// taken in by parts: 4 MiB unless said otherwise.
    pub fn spool_bytes(mut self, bytes: usize) -> Postgres {
        self.settings.spool_bytes = bytes;
        self
    }

    /// So many records of a large transaction in one part: 4,500 unless said otherwise.
    pub fn part_records(mut self, records: usize) -> Postgres {
        self.settings.part_records = records.clamp(1, 4_500);
        self
    }

    /// The copy waits after its snapshot was taken, until it is told: for tests of what happens
    /// meanwhile.
    #[doc(hidden)]
    pub fn hold_snapshot(mut self, until: std::sync::Arc<tokio::sync::Notify>) -> Postgres {
        self.settings.hold_snapshot = Some(until);
        self
    }

    async fn next_of(&mut self, answered: Option<&Notify>) -> Result<Chunk, SourceError> {
        let session = self.session()?;
        let next = session.next(answered).await;
        let missed_max = session.next_missed_max();
        let copy_backoff = session.copy_backoff();
        self.status = session.status();
        self.missed_max = missed_max;
        self.copy_backoff = copy_backoff;
        next
    }

    fn session(&mut self) -> Result<&mut Session, SourceError> {
        self.session.as_mut().ok_or_else(|| {
            SourceError::new(
                SourceFailure::Retry,
                "the session with the server has ended",
            )
        })
    }
}

#[async_trait]
impl Source for Postgres {
    async fn begin(&mut self, ingest: &str, last: Option<&Mark>) -> Result<(), SourceError> {
        self.session = None;
        let wants_snapshot = std::mem::take(&mut self.wants_snapshot);
        let missed_max = self.missed_max;
        let session = Session::begin(&self.settings, ingest, last, wants_snapshot, missed_max);
        let at_most = missed_max.timeout(self.settings.heartbeat);
        let at_most = at_most.max(BEGIN_TIMEOUT);
        let Ok(session) = tokio::time::timeout(at_most, session).await else {
            self.missed_max = missed_max.doubled();
            // What was asked for is asked for again.
            self.wants_snapshot = wants_snapshot;
            return Err(retry(format!(
                "the server did not answer in {at_most:?} before the stream began"
            )));
        };
        let session = session.inspect_err(|error| {
            if error.failure() == SourceFailure::Stop {
                // What was said of a slot before it was lost or dropped is not so any more.
                self.status.lacks_slot();
                self.status.warnings.clear();
            }
        })?;
        self.session = Some(session.reading_again(&self.read_again, self.copy_backoff));
        Ok(())
    }

    async fn next(&mut self) -> Result<Chunk, SourceError> {
        self.next_of(None).await
    }

    async fn next_until(&mut self, answered: &Notify) -> Result<Chunk, SourceError> {
        self.next_of(Some(answered)).await
    }

    async fn confirm(&mut self, up_to: &Mark) -> Result<(), SourceError> {
        self.session()?.confirm(up_to);
        Ok(())
    }

    fn idle_at(&self) -> Option<Resume> {
        let idle = self.session.as_ref()?.idle_at()?;
        Some(Resume::Lsn(idle))
    }

    async fn end(&mut self) {
        if let Some(session) = self.session.take() {
            session.end().await;
        }
    }

    fn abandon(&mut self) {
        if let Some(session) = self.session.take() {
            self.status = session.status();
            session.abandon();
        }
    }

    fn resync(&mut self) {
        self.wants_snapshot = true;
    }

    fn tables(&self) -> Vec<TableName> {
        self.settings.tables.clone()
    }

    fn can_resync(&self) -> bool {
        true
    }

    fn read_again(&mut self, tables: &[TableName]) {
        self.read_again = tables.to_vec();
    }

    fn stops_reading_again(&mut self, why: &str) {
        if let Some(session) = &mut self.session {
            session.stops_reading_again(why);
        }
    }

    fn status(&self) -> SourceStatus {
        match &self.session {
            Some(session) => session.status(),
            None => self.status.clone(),
        }
    }
}
