//! The store: the traits of the contract, each a request to the writer thread or to a reader.

use std::sync::{Arc, RwLock};

use annals_core::{
    Append, AppendError, Appended, ChangeStream, Clock, EventId, EventStore, Failure, FoldId,
    Found, Head, Hint, InlineViews, Limits, Log, LogId, LogPage, Partition, Position, ReadLog,
    ReadQuery, ReadStream, Snapshot, SnapshotStore, Store, StoreError, StreamId, StreamPage,
    StreamState, TaggedStore, Version, ViewStore,
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::watch;

use crate::append_in::{self, AppendTransaction, Ran};
use crate::change::Change;
use crate::connection::{Opener, check_library};
use crate::known::{PARTITION, known};
use crate::options::Options;
use crate::reader::Readers;
use crate::request::Request;
use crate::watcher::Watcher;
use crate::write_tx::WriteTx;
use crate::writer::Writer;
use crate::{page, schema, snapshot, streams};

/// A store in one SQLite file.
///
/// It needs a Tokio runtime. Handles are cheap to clone; when the last one is dropped, what was
/// handed over is finished, the journal is copied into the file, and the file is closed. Several
/// processes, or several stores in one process, may have the file open at once.
///
/// ```
/// use annals_core::{Append, EventStore, NewEvent, StreamId};
/// use annals_sqlite::SqliteStore;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = SqliteStore::open("sqlite::memory:").await?;
/// let append = Append::new(StreamId::new("note-1")?, [NewEvent::json("noted", b"{}".as_slice())]);
/// let appended = store.append(append).await?;
/// assert_eq!(appended.last().version.get(), 1);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SqliteStore {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct Shared {
    log: LogId,
    limits: Limits,
    name: String,
    moved: watch::Sender<u64>,
    readers: Readers,
    access: Access,
}

#[derive(Debug)]
enum Access {
    Write(Writer),
    /// Only looks whether others have written.
    Read(#[allow(dead_code, reason = "it is kept so that it is joined")] Watcher),
}

impl SqliteStore {
    /// Opens the store at `url`: `sqlite:PATH`, `sqlite://PATH` or `sqlite::memory:`, with options
    /// after a `?`.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`] for another url, [`Failure::Incompatible`] for a file made by a newer
    /// Annals, [`Failure::Corrupt`] for something that is not a database, [`Failure::ReadOnly`] for
    /// a file that may not be written and was not opened with `?mode=ro`.
    pub async fn open(url: &str) -> Result<SqliteStore, StoreError> {
        SqliteStore::open_with(url.parse()?).await
    }

    /// Opens the store as the options say.
    ///
    /// # Errors
    ///
    /// As [`SqliteStore::open`].
    ///
    /// ```
    /// use annals_sqlite::{Options, SqliteStore};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let store = SqliteStore::open_with(Options::in_memory().readers(1)).await?;
    /// # Ok::<_, annals_core::StoreError>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub async fn open_with(options: Options) -> Result<SqliteStore, StoreError> {
        tokio::task::spawn_blocking(move || open(&options))
            .await
            .unwrap_or_else(|panicked| {
                Err(
                    StoreError::new(Failure::Unavailable, "the store could not be opened")
                        .because(panicked),
                )
            })
    }

    /// The same store; what this handle appends is recorded at the times that `clock` tells.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// # fn example(store: annals_sqlite::SqliteStore) {
    /// let held = store.on_clock(Arc::new(annals_core::ManualClock::default()));
    /// # }
    /// ```
    #[must_use]
    pub fn on_clock(mut self, clock: Arc<dyn Clock>) -> SqliteStore {
        self.clock = clock;
        self
    }

    /// Runs `work` in one transaction with the application's own tables in the same file: what it
    /// writes there and what it appends is committed together, durable when this returns `Ok`, or
    /// not at all.
    ///
    /// It runs on the writer thread, so every other append waits for it: keep it short, and do not
    /// wait for anything in it. When it returns an error or panics, all that it did is undone. It
    /// must not end the transaction itself.
    ///
    /// # Errors
    ///
    /// What `work` returns, and what the store has to say ([`AppendError::Unknown`] when the
    /// outcome is not known: what was appended tells, by [`find`](EventStore::find)).
    ///
    /// ```
    /// use annals_core::{AppendError, Append, NewEvent, StreamId};
    /// use annals_sqlite::SqliteStore;
    ///
    /// # #[derive(Debug, thiserror::Error)]
    /// # enum Failed {
    /// #     #[error(transparent)]
    /// #     Append(#[from] AppendError),
    /// #     #[error(transparent)]
    /// #     Sqlite(#[from] annals_sqlite::rusqlite::Error),
    /// # }
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let store = SqliteStore::open("sqlite::memory:").await?;
    /// let stream = StreamId::new("order-7")?;
    /// let appended = store
    ///     .append_in(move |transaction| {
    ///         transaction.connection().execute("create table if not exists my_orders (name text)", [])?;
    ///         transaction.connection().execute("insert into my_orders values ('order-7')", [])?;
    ///         let event = NewEvent::json("order.placed", b"{}".as_slice());
    ///         Ok::<_, Failed>(transaction.append(Append::default().event(stream, event))?)
    ///     })
    ///     .await?;
    /// assert_eq!(appended.last().version.get(), 1);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub async fn append_in<R, E>(
        &self,
        work: impl FnOnce(&mut AppendTransaction<'_>) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<AppendError> + Send + 'static,
    {
        let limits = self.shared.limits;
        let clock = Arc::clone(&self.clock);
        let mut work = Some(work);
        let run =
            move |write_tx: &mut WriteTx| append_in::run(write_tx, &limits, &clock, work.take());
        let writer = self.writer().map_err(AppendError::from)?;
        match writer.run((1, 0), run).await? {
            Ran::Committed(done) => Ok(done),
            Ran::Failed(error) => Err(error),
        }
    }

    pub(crate) fn writer(&self) -> Result<&Writer, StoreError> {
        match &self.shared.access {
            Access::Write(writer) => writer.failed().map_or(Ok(writer), Err),
            Access::Read(_) => {
                let context = format!("`{}` was opened read-only", self.shared.name);
                Err(StoreError::new(Failure::ReadOnly, context))
            }
        }
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(crate) fn readers(&self) -> Result<&Readers, StoreError> {
        match &self.shared.access {
            Access::Write(writer) => writer.failed().map_or(Ok(&self.shared.readers), Err),
            Access::Read(_) => Ok(&self.shared.readers),
        }
    }

    async fn write(&self, append: Append) -> Result<Appended, AppendError> {
        let request = Request::new(append, &self.shared.limits, Arc::clone(&self.clock))?;
        let size = (request.events.len(), request.bytes);
        self.writer()?
            .run(size, move |write_tx| write_tx.append(&request))
            .await
    }

    fn check_partition(partition: Partition) -> Result<(), StoreError> {
        if partition == PARTITION {
            return Ok(());
        }
        Err(StoreError::new(
            Failure::Invalid,
            format!("there is no partition {partition}, the log has 1"),
        ))
    }
}

fn open(options: &Options) -> Result<SqliteStore, StoreError> {
    check_library(rusqlite::version_number())?;
    let opener = Opener::new(options);
    let turns = opener.is_memory().then(|| Arc::new(RwLock::new(())));
    let (moved, _) = watch::channel(0);
    let (log, access) = if options.read_only {
        let connection = opener
            .reader()
            .map_err(|error| opener.fault(&error).error())?;
        let log = schema::accept(&connection, &opener)?;
        (
            log,
            Access::Read(Watcher::start(
                connection,
                options.poll_interval,
                moved.clone(),
            )?),
        )
    } else {
        let mut connection = opener.writer()?;
        let log = schema::upgrade(&mut connection, &opener, &*options.clock)?;
        let write_tx = WriteTx::new(connection, log);
        let writer = Writer::start(
            write_tx,
            options,
            opener.name.clone(),
            turns.clone(),
            moved.clone(),
        )?;
        (log, Access::Write(writer))
    };
    let name = opener.name.clone();
    let readers = Readers::new(opener, options.readers, turns);
    let shared = Shared {
        log,
        limits: options.limits,
        name,
        moved,
        readers,
        access,
    };
    Ok(SqliteStore {
        shared: Arc::new(shared),
        clock: Arc::clone(&options.clock),
    })
}

/// Readers go first, so that the writer's connection is the last one and takes the journal with it.
impl Drop for Shared {
    fn drop(&mut self) {
        self.readers.close();
    }
}

#[async_trait]
impl EventStore for SqliteStore {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.write(append).await
    }

    async fn read_stream(&self, read: ReadStream) -> Result<StreamPage, StoreError> {
        self.readers()?
            .read(move |connection, names| page::of_stream(connection, names, &read))
            .await
    }

    async fn find(
        &self,
        partition: Partition,
        ids: &[EventId],
    ) -> Result<Vec<Option<Found>>, StoreError> {
        SqliteStore::check_partition(partition)?;
        let ids = ids.to_vec();
        let find = move |connection: &rusqlite::Connection, id: EventId| {
            Ok(known(connection, id)?.map(|known| known.found))
        };
        self.readers()?
            .read(move |connection, _| ids.into_iter().map(|id| find(connection, id)).collect())
            .await
    }

    async fn stream_state(&self, stream: &StreamId) -> Result<StreamState, StoreError> {
        let stream = stream.clone();
        self.readers()?
            .read(move |connection, _| Ok(streams::state(connection, &stream)?.1))
            .await
    }

    async fn change_stream(&self, change: ChangeStream) -> Result<StreamState, AppendError> {
        let wanted = Change {
            stream: change.stream,
            expected: change.expected,
            change: change.change,
            clock: Arc::clone(&self.clock),
        };
        self.writer()?
            .run((1, 0), move |write_tx| write_tx.change(&wanted))
            .await
    }

    fn limits(&self) -> Limits {
        self.shared.limits
    }
}

#[async_trait]
impl Log for SqliteStore {
    fn id(&self) -> LogId {
        self.shared.log
    }

    fn partitions(&self) -> u32 {
        1
    }

    async fn read(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        SqliteStore::check_partition(read.partition)?;
        self.readers()?
            .read(move |connection, names| page::of_log(connection, names, &read))
            .await
    }

    async fn head(&self, partition: Partition) -> Result<Head, StoreError> {
        SqliteStore::check_partition(partition)?;
        let head = self
            .readers()?
            .read(|connection, _| streams::head(connection))
            .await?
            .0;
        Ok(Head::at(Position::new(head)))
    }

    async fn position_at(
        &self,
        partition: Partition,
        moment: DateTime<Utc>,
    ) -> Result<Position, StoreError> {
        SqliteStore::check_partition(partition)?;
        self.readers()?
            .read(move |connection, _| page::at_moment(connection, moment))
            .await
    }

    fn hint(&self) -> Hint {
        Hint::new(self.shared.moved.subscribe())
    }
}

#[async_trait]
impl TaggedStore for SqliteStore {
    async fn read_query(&self, read: ReadQuery) -> Result<LogPage, StoreError> {
        read.query.check()?;
        self.readers()?
            .read(move |connection, names| page::of_query(connection, names, &read))
            .await
    }
}

#[async_trait]
impl SnapshotStore for SqliteStore {
    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), StoreError> {
        let size = (1, snapshot.payload.len());
        let saved = self
            .writer()?
            .run(size, move |write_tx| snapshot::save(write_tx, &snapshot))
            .await;
        saved.map_err(AppendError::into_store_error)
    }

    async fn newest_snapshot(
        &self,
        stream: &StreamId,
        fold: &FoldId,
        at_most: Version,
    ) -> Result<Option<Snapshot>, StoreError> {
        let stream = stream.clone();
        let fold = fold.clone();
        self.readers()?
            .read(move |connection, _| snapshot::newest(connection, stream, fold, at_most))
            .await
    }

    async fn delete_snapshot(
        &self,
        stream: &StreamId,
        fold: &FoldId,
        version: Version,
    ) -> Result<(), StoreError> {
        let stream = stream.clone();
        let fold = fold.clone();
        let deleted = self
            .writer()?
            .run((1, 0), move |write_tx| {
                snapshot::delete(write_tx, &stream, &fold, version)
            })
            .await;
        deleted.map_err(AppendError::into_store_error)
    }
}

impl Store for SqliteStore {
    fn atomic(&self) -> bool {
        true
    }

    fn tagged(&self) -> Option<&dyn TaggedStore> {
        Some(self)
    }

    fn snapshots(&self) -> Option<&dyn SnapshotStore> {
        Some(self)
    }

    fn views(&self) -> Option<&dyn ViewStore> {
        Some(self)
    }

    fn inline_views(&self) -> Option<&dyn InlineViews> {
        Some(self)
    }
}
