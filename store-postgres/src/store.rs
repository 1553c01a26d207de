//! The store: what is shared by its handles, and how it is opened.

use std::sync::Arc;

use annals_core::{Append, AppendError, Appended};
use annals_core::{
    ChangeStream, Clock, EventId, EventStore, Failure, Found, Head, Hint, Incarnation, InlineViews,
    Limits, Log, LogId, LogPage, Partition, Position, ReadLog, ReadQuery, ReadStream,
    SnapshotStore, Store, StoreError, StreamId, StreamPage, StreamState, TaggedStore, ViewStore,
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::append_in::Kinds;
use crate::append_session::{AppendSession, busy};
use crate::batch::UNCHECKED_MAX;
use crate::database::{Database, ask, to_its_end};
use crate::job::{Answer, ChangeJob};
use crate::known::{PARTITION, durably_known};
use crate::options::Options;
use crate::recheck::{Recheck, recheck};
use crate::request::Request;
use crate::views::Views;
use crate::watcher::{Moves, Watcher};
use crate::writer::Writer;
use crate::{page, schema, streams};

/// How many times an append goes back to the writer because others were faster.
const TRIES_MAX: usize = 64;

/// A store in one schema of a PostgreSQL database.
///
/// It needs a Tokio runtime with its clock and its I/O. Handles are cheap to clone. Any number of
/// processes may have the schema open at once, and write.
///
/// ```no_run
/// # async fn example() -> Result<(), annals_core::StoreError> {
/// let store = annals_postgres::PostgresStore::connect("postgres://app@localhost/bank").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PostgresStore {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    lease_clock: Option<Arc<dyn Clock>>,
}

#[derive(Debug)]
struct Shared {
    log: LogId,
    limits: Limits,
    database: Arc<Database>,
    kinds: Kinds,
    views: Views,
    moves: Moves,
    /// None when it was opened read-only.
    writer: Option<Writer>,
    #[allow(dead_code, reason = "it is kept so that its tasks end with the store")]
    watcher: Watcher,
}

impl PostgresStore {
    /// Opens the store at `url`: `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with options after
    /// a `?`. Makes the schema and its tables when they are not there, and upgrades older ones.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](annals_core::Failure) for another url, a database or a role that is not
    /// there, and a server whose settings would lose acknowledged appends;
    /// [`Failure::Incompatible`](annals_core::Failure) for tables made by a newer Annals;
    /// [`Failure::ReadOnly`](annals_core::Failure) when the role may not make tables;
    /// [`Failure::Unavailable`](annals_core::Failure) when the server does not answer.
    pub async fn connect(url: &str) -> Result<PostgresStore, StoreError> {
        PostgresStore::connect_with(url.parse()?).await
    }

    /// Opens the store as the options say.
    ///
    /// # Errors
    ///
    /// As [`PostgresStore::connect`].
    ///
    /// ```no_run
    /// use annals_postgres::{Options, PostgresStore};
    ///
    /// # async fn example() -> Result<(), annals_core::StoreError> {
    /// let options: Options = "postgres://app@localhost/bank".parse()?;
    /// let store = PostgresStore::connect_with(options.readers(4)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect_with(options: Options) -> Result<PostgresStore, StoreError> {
        let clock = Arc::clone(&options.clock);
        let lease_clock = options.lease_clock.clone();
        let shared = Shared::open(options).await?;
        Ok(PostgresStore {
            shared: Arc::new(shared),
            clock,
            lease_clock,
        })
    }

    /// Makes or upgrades the tables, and does nothing else: for a deployment that does so by a role
    /// of its own before its programs start with [`Options::without_migration`].
    ///
    /// # Errors
    ///
    /// As [`PostgresStore::connect`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), annals_core::StoreError> {
    /// annals_postgres::PostgresStore::migrate("postgres://owner@localhost/bank".parse()?).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn migrate(options: Options) -> Result<(), StoreError> {
        let migrated = to_its_end(async move {
            let database = Database::new(&options);
            let mut connection = database
                .opening_connection()
                .await
                .map_err(|error| database.reading(&error))?;
            schema::upgrade(&database, &mut connection, &options).await
        });
        migrated.await
    }

    /// The same store; what this handle appends is recorded at the times of `clock`, and by
    /// it leases end.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// # fn example(store: annals_postgres::PostgresStore) {
    /// let held = store.on_clock(Arc::new(annals_core::ManualClock::default()));
    /// # }
    /// ```
    #[must_use]
    pub fn on_clock(mut self, clock: Arc<dyn Clock>) -> PostgresStore {
        self.lease_clock = Some(Arc::clone(&clock));
        self.clock = clock;
        self
    }

    pub(crate) fn database(&self) -> &Arc<Database> {
        &self.shared.database
    }

    pub(crate) fn views_of(&self) -> &Views {
        &self.shared.views
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The moment at which leases are looked at, in microseconds; nothing: that of the server.
    pub(crate) fn lease_moment(&self) -> Option<i64> {
        self.lease_clock
            .as_ref()
            .map(|clock| clock.now().timestamp_micros())
    }

    /// The database, for a change of something beside the log.
    ///
    /// # Errors
    ///
    /// When the store was opened read-only.
    pub(crate) fn writable(&self) -> Result<Arc<Database>, StoreError> {
        self.writer().map(|_| Arc::clone(self.database()))
    }

    fn writer(&self) -> Result<&Writer, StoreError> {
        self.shared.writer.as_ref().ok_or_else(|| {
            StoreError::new(
                Failure::ReadOnly,
                format!("`{}` was opened read-only", self.database().name),
            )
        })
    }

    pub(crate) fn log_id(&self) -> LogId {
        self.shared.log
    }

    pub(crate) fn kinds(&self) -> &Kinds {
        &self.shared.kinds
    }

    /// Wakes who waits for the head to move, here and elsewhere.
    pub(crate) fn appended_to(&self, head: Position) {
        self.shared.moves.appended(head.get());
    }

    /// An append, checked and encoded; refused when this store may only read.
    pub(crate) fn request(&self, append: Arc<Append>) -> Result<Request, AppendError> {
        self.writer()?;
        Request::new(append, &self.shared.limits, Arc::clone(&self.clock))
    }

    async fn write(&self, append: Arc<Append>) -> Result<Appended, AppendError> {
        let database = self.database();
        let writer = self.writer()?;
        let mut request = self.request(append)?;
        for (place, row) in request.append.rows.iter().enumerate() {
            request.rows.extend(
                self.carried(place, row, request.append.version_after(&row.stream))
                    .await?,
            );
        }
        let request = Arc::new(request);
        let mut checked_to = 0;
        let mut is_fresh = false;
        // What was decided on another incarnation may be a repetition.
        let outdated = request.append.check_incarnation(self.incarnation());
        let mut is_doubtful = outdated.is_err();
        if let Some(conditional) = &request.condition {
            checked_to = conditional.after().get();
            // A condition that lags far is checked here, so that the writer has little left to
            // check.
            if writer.head().saturating_sub(checked_to) > UNCHECKED_MAX {
                let after = conditional.after();
                let (found, head) = ask!(
                    database,
                    page::first_match(database, &conditional.condition, after)
                )?;
                is_doubtful |= found.is_some();
                checked_to = head.max(checked_to);
            }
        }
        let mut fault = None;
        for _ in 0..TRIES_MAX {
            let mut is_lost = false;
            if !is_doubtful {
                match writer.append(&request, checked_to, is_fresh).await {
                    Answer::Committed(placed) => {
                        return Ok(Appended::new(self.shared.log, placed, false));
                    }
                    Answer::Failed(error) => return Err(error),
                    Answer::Doubtful => {}
                    Answer::Lost(of) => (is_lost, fault) = (true, Some(of)),
                }
            }
            let rechecked = ask!(database, recheck(database, self.shared.log, &request));
            let rechecked = rechecked.map_err(|error| match &fault {
                Some(fault) if is_lost => AppendError::Unknown(fault.error()),
                _ => error.into(),
            })?;
            match rechecked {
                Recheck::Repeated(appended) => return Ok(appended),
                Recheck::Refused(error) => return Err(error),
                Recheck::Clear(checked) => {
                    (checked_to, is_fresh, is_doubtful) = (checked, true, false);
                }
            }
        }
        Err(busy(&request.streams[0].stream, fault.as_ref()).into())
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

impl Shared {
    async fn open(options: Options) -> Result<Shared, StoreError> {
        let opened = to_its_end(async move {
            let database = Database::new(&options);
            let mut connection = database
                .opening_connection()
                .await
                .map_err(|error| database.reading(&error))?;
            if !options.read_only && options.migrate {
                schema::upgrade(&database, &mut connection, &options).await?;
            }
            let log = schema::accept(&database, &mut connection, &options).await?;
            let head = database
                .incarnation
                .check(&database, &mut connection, !options.read_only)
                .await
                .map_err(|error| database.reading(&error))?;
            let moves = database.moves.clone();
            moves.saw(head);
            let writer = (!options.read_only).then(|| {
                let section = AppendSession::new(
                    Arc::clone(&database),
                    log,
                    connection,
                    options.listen,
                    options.connect_timeout,
                );
                Writer::start(section, &database, &options, moves.clone())
            });
            let channel = format!("annals_{}", log.as_uuid().simple());
            let watcher = Watcher::start(&database, &options, channel, &moves);
            let views = Views::start(&database, options.read_only);
            let kinds = Kinds::default();
            Ok(Shared {
                log,
                limits: options.limits,
                database,
                kinds,
                views,
                moves,
                writer,
                watcher,
            })
        });
        opened.await
    }
}

#[async_trait]
impl EventStore for PostgresStore {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.write(Arc::new(append)).await
    }

    async fn append_shared(&self, append: &Arc<Append>) -> Result<Appended, AppendError> {
        self.write(Arc::clone(append)).await
    }

    async fn read_stream(&self, read: ReadStream) -> Result<StreamPage, StoreError> {
        ask!(self.database(), page::of_stream(self.database(), &read))
    }

    async fn find(
        &self,
        partition: Partition,
        ids: &[EventId],
    ) -> Result<Vec<Option<Found>>, StoreError> {
        PostgresStore::check_partition(partition)?;
        let database = self.database();
        let known = ask!(database, durably_known(database, ids))?;
        Ok(known
            .into_iter()
            .map(|known| known.map(|known| known.found))
            .collect())
    }

    async fn stream_state(&self, stream: &StreamId) -> Result<StreamState, StoreError> {
        let database = self.database();
        let seen = ask!(database, async {
            let history = database.incarnation.number();
            let seen = streams::see(database, &database.pool, stream).await?;
            database.until_durable(history, seen.last).await?;
            Ok(seen)
        })?;
        Ok(seen.state)
    }

    async fn change_stream(&self, change: ChangeStream) -> Result<StreamState, AppendError> {
        let clock = Arc::clone(&self.clock);
        self.writer()?
            .change(|reply| ChangeJob {
                change,
                clock,
                reply,
            })
            .await
    }

    fn limits(&self) -> Limits {
        self.shared.limits
    }
}

#[async_trait]
impl Log for PostgresStore {
    fn id(&self) -> LogId {
        self.shared.log
    }

    fn partitions(&self) -> u32 {
        1
    }

    async fn read(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        read.filter.check()?;
        PostgresStore::check_partition(read.partition)?;
        ask!(self.database(), page::of_log(self.database(), &read))
    }

    async fn head(&self, partition: Partition) -> Result<Head, StoreError> {
        PostgresStore::check_partition(partition)?;
        let head = ask!(self.database(), page::durable_head(self.database()))?;
        Ok(Head::at(Position::new(head)))
    }

    async fn position_at(
        &self,
        partition: Partition,
        moment: DateTime<Utc>,
    ) -> Result<Position, StoreError> {
        PostgresStore::check_partition(partition)?;
        let database = self.database();
        let position = ask!(database, async {
            let history = database.incarnation.number();
            let micros = moment.timestamp_micros();
            let (position, _) = page::position_at(database, micros).await?;
            database.until_durable(history, position).await?;
            Ok(position)
        })?;
        Ok(Position::new(position))
    }

    fn hint(&self) -> Hint {
        Hint::new(self.shared.moves.subscribe())
    }

    fn incarnation(&self) -> Incarnation {
        Incarnation::numbered(self.id(), self.database().incarnation.number())
    }
}

#[async_trait]
impl TaggedStore for PostgresStore {
    async fn read_query(&self, read: ReadQuery) -> Result<LogPage, StoreError> {
        read.query.check()?;
        ask!(self.database(), page::of_query(self.database(), &read))
    }
}

impl Store for PostgresStore {
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
