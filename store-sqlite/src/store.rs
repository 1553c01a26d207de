//! The store: how it is opened, and what it shares with its handles.

use std::sync::{Arc, RwLock};

use annals_core::{Append, AppendError, Appended, Clock, Failure, Hint, Limits, LogId, StoreError};
use tokio::sync::watch;

use crate::append_in::{self, AppendTransaction, Ran};
use crate::connection::{Opener, check_library};
use crate::identity::LogIdentity;
use crate::options::Options;
use crate::reader::Readers;
use crate::replica::{self, Replica};
use crate::request::Request;
use crate::schema;
use crate::watcher::Watcher;
use crate::write_tx::{Tail, WriteTx};
use crate::writer::Writer;

/// A store in one SQLite file.
///
/// It needs a Tokio runtime. Handles are cheap to clone; when the last one is dropped, what was
/// queued is finished, the journal is copied into the file, and the file is closed. Several
/// processes, or several stores in one process, may have the file open at once. When the file is
/// replaced while it is open, every further call fails with [`Failure::Closed`].
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
    identity: Arc<LogIdentity>,
    limits: Limits,
    moved: watch::Sender<u64>,
    readers: Readers,
    access: Access,
}

#[derive(Debug)]
enum Access {
    Write(Writer),
    /// Only polls for the commits of others, until it is dropped.
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

    /// The same store; what this handle appends is recorded at the times of `clock`.
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
    /// wait for anything in it. When it returns an error, panics or tries to end the transaction,
    /// all that it did is undone. Because it cannot run twice, its transaction and its flush are
    /// its own, and no other request can undo it.
    ///
    /// # Errors
    ///
    /// What `work` returns, and the errors of the store. After [`AppendError::Unknown`] the ids of
    /// what was appended resolve it, by [`find`](annals_core::EventStore::find).
    ///
    /// ```
    /// use annals_core::{Append, AppendError, NewEvent, StreamId};
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
    ///         transaction.connection().execute_batch(
    ///             "create table if not exists my_orders (name text);
    ///              insert into my_orders values ('order-7')",
    ///         )?;
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
        match writer.run_once((1, 0), run).await? {
            Ran::Committed(done) => Ok(done),
            Ran::Failed(error) => Err(error),
        }
    }

    pub(crate) fn writer(&self) -> Result<&Writer, StoreError> {
        match &self.shared.access {
            Access::Write(writer) => self.shared.identity.check_open().map(|()| writer),
            Access::Read(_) => {
                let name = self.shared.identity.name();
                let context = format!("`{name}` was opened read-only; open it without `mode=ro`");
                Err(StoreError::new(Failure::ReadOnly, context))
            }
        }
    }

    pub(crate) fn log_id(&self) -> LogId {
        self.shared.identity.log()
    }

    pub(crate) fn limits_of_appends(&self) -> Limits {
        self.shared.limits
    }

    pub(crate) fn hint_of_commits(&self) -> Hint {
        Hint::new(self.shared.moved.subscribe())
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(crate) fn readers(&self) -> Result<&Readers, StoreError> {
        self.shared
            .identity
            .check_open()
            .map(|()| &self.shared.readers)
    }

    pub(crate) async fn write(&self, append: Arc<Append>) -> Result<Appended, AppendError> {
        let request = Request::new(append, &self.shared.limits, Arc::clone(&self.clock))?;
        let size = (request.events.len(), request.bytes);
        self.writer()?
            .run(size, move |write_tx| write_tx.append(&request))
            .await
    }
}

fn open(options: &Options) -> Result<SqliteStore, StoreError> {
    check_library(rusqlite::version_number())?;
    let opener = Opener::new(options)?;
    let turns = opener.is_memory().then(|| Arc::new(RwLock::new(())));
    let (moved, _) = watch::channel(0);
    let failed = |error: rusqlite::Error| opener.fault(&error).error();
    let identity = |connection: &rusqlite::Connection, log| {
        let identity = LogIdentity::new(log, opener.path(), opener.name.clone());
        identity.saw(Tail::read(connection).map_err(failed)?.event());
        Ok::<_, StoreError>(Arc::new(identity))
    };
    let (identity, access) = if options.read_only {
        let connection = opener.reader().map_err(failed)?;
        let log = schema::accept(&connection, &opener)?;
        let identity = identity(&connection, log)?;
        let watcher = Watcher::start(
            connection,
            Arc::clone(&identity),
            options.poll_interval,
            moved.clone(),
        )?;
        (identity, Access::Read(watcher))
    } else {
        let mut connection = opener.writer()?;
        let new = options.replica_of.unwrap_or_else(LogId::random);
        let log = schema::upgrade(&mut connection, &opener, &*options.clock, new)?;
        accept_replica(&connection, options, &opener, log)?;
        let identity = identity(&connection, log)?;
        let mut write_tx = WriteTx::new(connection, Arc::clone(&identity)).map_err(failed)?;
        write_tx.replica = options.replica_of.map(|_| Replica::default());
        let writer = Writer::start(write_tx, options, turns.clone(), moved.clone())?;
        (identity, Access::Write(writer))
    };
    let readers = Readers::new(opener, Arc::clone(&identity), options.readers, turns);
    let shared = Shared {
        identity,
        limits: options.limits,
        moved,
        readers,
        access,
    };
    Ok(SqliteStore {
        shared: Arc::new(shared),
        clock: Arc::clone(&options.clock),
    })
}

/// A replica is written as one and in no other way: what is appended to it directly would be
/// missing from its log.
fn accept_replica(
    connection: &rusqlite::Connection,
    options: &Options,
    opener: &Opener,
    found: LogId,
) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| opener.fault(&error).error();
    let name = &opener.name;
    let refused = |context: String| Err(StoreError::new(Failure::Invalid, context));
    match options.replica_of {
        Some(wanted) if found != wanted => refused(format!(
            "`{name}` is of log {found}, not of {wanted}; remove it to copy that one, or name \
             another place"
        )),
        Some(_) => replica::prepare(connection).map_err(failed),
        None if replica::is_replica(connection).map_err(failed)? => refused(format!(
            "`{name}` is the local copy of a log that is kept elsewhere; open that one, or this \
             with `mode=ro`"
        )),
        None => Ok(()),
    }
}

/// Readers close first, so that the writer's connection is the last one and removes the journal.
impl Drop for Shared {
    fn drop(&mut self) {
        self.readers.close();
    }
}
