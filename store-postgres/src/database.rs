//! The database as the rest of the crate sees it: connections, the schema's name in every
//! statement, and how messages call it.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use annals_core::{Direction, Failure, StoreError, panic_text};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Error, SqlStr};
use tokio::task::JoinError;

use crate::copied::Horizon;
use crate::durable::Durable;
use crate::error::{StoreFault, may_have_happened, out_of_reach, silent_for};
use crate::events::Names;
use crate::incarnation::{Cached, Incarnation};
use crate::options::Options;
use crate::settings;
use crate::watcher::Moves;

/// How long an unused connection is kept.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// One database, and the schema in it that holds the tables.
pub(crate) struct Database {
    /// Connections for everything but appending and listening. Statements on them are transactions
    /// of their own; a longer one runs in a task that cannot be dropped ([`to_its_end`]), because a
    /// dropped `begin` would leave it open in the pool.
    pub(crate) pool: PgPool,
    /// How messages call the database.
    pub(crate) name: String,
    /// The schema's name as statements have it, quotes included.
    quoted: String,
    /// Whether the last page of the log had payloads that are not small.
    pub(crate) reads_large_payloads: AtomicBool,
    /// The types, as a hash, that were asked for last and are rare in the log.
    pub(crate) rare_types: AtomicU64,
    /// The head of the log when it was read last.
    pub(crate) seen_head: AtomicU64,
    /// What the last long page was read by.
    pub(crate) horizon: Cached<Option<Arc<Horizon>>>,
    /// The names that readers know and do not use just now.
    pub(crate) names: Cached<Vec<Names>>,
    /// Which incarnation everything cached was read from.
    pub(crate) incarnation: Incarnation,
    pub(crate) durable: Durable,
    pub(crate) moves: Moves,
    /// Whether this store may write.
    writes: bool,
    connect: PgConnectOptions,
    connect_timeout: Duration,
    /// Whether what is acknowledged must survive a power cut.
    is_durable: bool,
    /// Whether it need not, because that was asked for.
    pub(crate) is_relaxed: bool,
    /// How many connections may have to be found dead before one is alive.
    tries: u32,
    texts: RwLock<HashMap<(usize, Direction), SqlStr>>,
}

/// Without the connect options, which hold the password.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Database {
    pub(crate) fn new(options: &Options) -> Arc<Database> {
        let schema = &options.schema;
        let timeout = options.statement_timeout.as_millis().to_string();
        let connect = options
            .connect
            .clone()
            .options([
                ("statement_timeout", timeout.as_str()),
                // A session that is idle in a transaction keeps its locks no longer than one that
                // runs a statement.
                ("idle_in_transaction_session_timeout", timeout.as_str()),
                ("default_transaction_isolation", "read committed"),
                // What a role or a database says otherwise would end connections that only wait,
                // and appends that wait for their turn.
                ("idle_session_timeout", "0"),
                ("lock_timeout", "0"),
                // Compiling a statement takes longer than any of ours runs. Poolers may drop this,
                // and applications call functions on connections of their own: those say it too.
                ("jit", "off"),
            ])
            .disable_statement_logging();
        let of = &options.connect;
        let name = format!(
            "{}:{}/{} ({schema})",
            of.get_host(),
            of.get_port(),
            of.get_database().unwrap_or(of.get_username())
        );
        let quoted = format!("\"{schema}\"");
        Arc::new_cyclic(|weak: &Weak<Database>| Database {
            pool: pool(options, connect.clone(), Weak::clone(weak)),
            name,
            quoted,
            reads_large_payloads: AtomicBool::new(false),
            rare_types: AtomicU64::new(0),
            seen_head: AtomicU64::new(0),
            horizon: Cached::default(),
            names: Cached::default(),
            incarnation: Incarnation::default(),
            durable: Durable::default(),
            moves: Moves::new(),
            writes: !options.read_only,
            connect,
            connect_timeout: options.connect_timeout,
            is_durable: !options.read_only && !options.relaxed_durability,
            is_relaxed: options.relaxed_durability,
            tries: options.readers + 1,
            texts: RwLock::default(),
        })
    }

    /// Forgets what was seen of an incarnation that is not there any more.
    pub(crate) fn forget(&self) {
        self.seen_head.store(0, Ordering::Relaxed);
        self.rare_types.store(0, Ordering::Relaxed);
    }

    /// Asks which incarnation the server has, on any connection, and gives the head.
    pub(crate) async fn check_history(&self) -> Result<u64, Error> {
        self.look(false).await
    }

    /// As [`Database::check_history`]; when it `flushes`, all that it saw is durable.
    pub(crate) async fn look(&self, flushes: bool) -> Result<u64, Error> {
        let mut connection = self.pool.acquire().await?;
        let connection = &mut *connection;
        let incarnation = &self.incarnation;
        match flushes {
            true => incarnation.flush(self, connection).await,
            false => incarnation.check(self, connection, self.writes).await,
        }
    }

    /// How connections are made.
    pub(crate) fn connect_options(&self) -> PgConnectOptions {
        self.connect.clone()
    }

    /// Whether what was asked should be asked once more: the connection was lost, and others in the
    /// pool may be alive. Counts in `tries`.
    pub(crate) fn asks_again(&self, error: &Error, tries: &mut u32) -> bool {
        *tries += 1;
        may_have_happened(error) && *tries <= self.tries
    }

    /// A connection outside the pool, to append on: the server may have been started with other
    /// settings since the last one, and may have another incarnation.
    pub(crate) async fn connection(&self) -> Result<PgConnection, Error> {
        let mut connection = self.opening_connection().await?;
        self.incarnation
            .check(self, &mut connection, self.writes)
            .await?;
        Ok(connection)
    }

    /// As [`Database::connection`], while the schema may not be there yet.
    pub(crate) async fn opening_connection(&self) -> Result<PgConnection, Error> {
        let connecting = tokio::time::timeout(self.connect_timeout, self.connect.connect());
        let connected = match connecting.await {
            Ok(connected) => connected.map_err(out_of_reach),
            Err(_) => Err(silent_for(self.connect_timeout)),
        };
        let mut connection = connected?;
        settings::check(self, &mut connection, self.is_durable).await?;
        Ok(connection)
    }

    /// Why no connection was to be had in time: the server cannot be reached or gives none, or all
    /// were in use.
    pub(crate) async fn reason(&self, error: Error) -> Error {
        if !matches!(error, Error::PoolTimedOut) {
            return error;
        }
        match self.connection().await {
            Err(reason) => reason,
            // All of the pool's were in use.
            Ok(_) => error,
        }
    }

    /// The error of one who asked for a connection of the pool to change something beside the log.
    pub(crate) async fn not_written(&self, error: Error) -> StoreError {
        self.writing(&self.reason(error).await)
    }

    /// The statement with the name of the schema where it says `annals.`
    pub(crate) fn text(&self, statement: &'static str) -> SqlStr {
        self.ordered(statement, Direction::Forward)
    }

    /// As [`Database::text`], descending where the statement says `/*desc*/`.
    pub(crate) fn ordered(&self, statement: &'static str, direction: Direction) -> SqlStr {
        let at = (statement.as_ptr() as usize, direction);
        if let Some(text) = self
            .texts
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&at)
        {
            return text.clone();
        }
        let text = match direction {
            Direction::Forward => self.named(statement),
            Direction::Backward => self.named(&statement.replace("/*desc*/", "desc")),
        };
        self.texts
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(at, text.clone());
        text
    }

    /// As [`Database::text`], for a text that is made when it is needed. Nothing of a user's may be
    /// in it but the schema's name.
    pub(crate) fn named(&self, statement: &str) -> SqlStr {
        let text: Arc<str> = statement
            .replace("annals.", &format!("{}.", self.quoted))
            .into();
        sqlx::SqlSafeStr::into_sql_str(AssertSqlSafe(text))
    }

    /// The error of a reader.
    pub(crate) fn reading(&self, error: &Error) -> StoreError {
        StoreFault::of(error, "reading", &self.name).error()
    }

    /// The error of one who changes something beside the log.
    pub(crate) fn writing(&self, error: &Error) -> StoreError {
        StoreFault::of(error, "writing", &self.name).error()
    }
}

/// Connections that read the incarnation that is known, or have it noticed that they do not.
fn pool(options: &Options, connect: PgConnectOptions, database: Weak<Database>) -> PgPool {
    PgPoolOptions::new()
        .max_connections(options.readers)
        .acquire_timeout(options.connect_timeout)
        .idle_timeout(IDLE_MAX)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let database = database.upgrade();
            Box::pin(async move {
                let Some(database) = database else {
                    return Ok(());
                };
                let writes = database.writes;
                let checked = database.incarnation.check(&database, connection, writes);
                checked.await.map(drop)
            })
        })
        .connect_lazy_with(connect)
}

/// Runs `work` to its end, also when the caller is dropped: what was begun is committed or rolled
/// back, never left open.
pub(crate) async fn to_its_end<T, E>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    tokio::spawn(work)
        .await
        .unwrap_or_else(|lost| Err(cut_short(lost).into()))
}

/// Why a task did not come to its end. What it had begun is rolled back when its connection comes
/// back to the pool.
fn cut_short(lost: JoinError) -> StoreError {
    match lost.try_into_panic() {
        Ok(panic) => {
            let said = panic_text(&*panic);
            let context = format!("what was done in a transaction panicked: {said}");
            StoreError::new(Failure::Invalid, context)
        }
        Err(lost) => {
            StoreError::new(Failure::Unavailable, "a task did not come to its end").because(lost)
        }
    }
}

/// Asks something of a pooled connection, and again when that one turns out to be dead: a server
/// that was restarted leaves a pool full of them. For reads, which may be repeated.
macro_rules! ask {
    ($database:expr, $question:expr) => {{
        let database: &$crate::database::Database = $database;
        let mut tries = 0;
        loop {
            match $question.await {
                Err(error) if database.asks_again(&error, &mut tries) => {}
                Err(error) => break Err(database.reading(&database.reason(error).await)),
                Ok(answer) => break Ok(answer),
            }
        }
    }};
}
pub(crate) use ask;
