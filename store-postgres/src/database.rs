//! The database as the rest of the crate sees it: connections, the schema's name in every
//! statement, and how messages call it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use annals_core::{Direction, Failure, StoreError};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Error, SqlStr};
use tokio::task::JoinError;

use crate::copied::Horizon;
use crate::error::{StoreFault, may_have_happened};
use crate::events::AllNames;
use crate::options::Options;
use crate::settings;

/// How long a connection that nobody uses is kept.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// One database, and the schema in it that holds the tables.
#[derive(Debug)]
pub(crate) struct Database {
    /// Connections for everything but appending and listening. Statements on them stand alone;
    /// whoever needs a transaction runs it in a task that cannot be dropped ([`to_its_end`]),
    /// because a dropped `begin` would leave it open in the pool.
    pub(crate) pool: PgPool,
    /// How messages call the database.
    pub(crate) name: String,
    /// The schema's name as it stands in statements, quotes included.
    quoted: String,
    /// Whether the last page of the log had payloads that are not small.
    pub(crate) reads_large_payloads: AtomicBool,
    /// The types, as a hash, that were asked for last and are rare in the log.
    pub(crate) rare_types: AtomicU64,
    /// How far the log went when somebody read it last.
    pub(crate) seen_head: AtomicU64,
    /// What the last long page was read by.
    pub(crate) horizon: Mutex<Option<Arc<Horizon>>>,
    /// What readers know of names.
    pub(crate) names: Arc<AllNames>,
    connect: PgConnectOptions,
    connect_timeout: Duration,
    /// Whether what is acknowledged must survive a power cut.
    is_durable: bool,
    /// How many connections may have to be found dead before one is alive.
    tries: u32,
    texts: RwLock<HashMap<(usize, Direction), SqlStr>>,
}

impl Database {
    pub(crate) fn new(options: &Options) -> Database {
        let schema = &options.schema;
        let timeout = options.statement_timeout.as_millis().to_string();
        let connect = options
            .connect
            .clone()
            .options([
                ("statement_timeout", timeout.as_str()),
                // Whoever stands still in a transaction holds up the next one no longer than
                // whoever runs a statement.
                ("idle_in_transaction_session_timeout", timeout.as_str()),
                ("default_transaction_isolation", "read committed"),
            ])
            .disable_statement_logging();
        let of = &options.connect;
        let name = format!(
            "{}:{}/{} ({schema})",
            of.get_host(),
            of.get_port(),
            of.get_database().unwrap_or(of.get_username())
        );
        let pool = PgPoolOptions::new()
            .max_connections(options.readers)
            .acquire_timeout(options.connect_timeout)
            .idle_timeout(IDLE_MAX)
            .test_before_acquire(false)
            .connect_lazy_with(connect.clone());
        let quoted = format!("\"{schema}\"");
        Database {
            pool,
            name,
            quoted,
            reads_large_payloads: AtomicBool::new(false),
            rare_types: AtomicU64::new(0),
            seen_head: AtomicU64::new(0),
            horizon: Mutex::default(),
            names: Arc::default(),
            connect,
            connect_timeout: options.connect_timeout,
            is_durable: !options.read_only && !options.relaxed_durability,
            tries: options.readers + 1,
            texts: RwLock::default(),
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

    /// A connection of one's own, outside the pool, to append on: the server may have been started
    /// with other settings since the last one.
    pub(crate) async fn connection(&self) -> Result<PgConnection, Error> {
        let mut connection = self.unchecked_connection().await?;
        if self.is_durable {
            settings::check(self, &mut connection).await?;
        }
        Ok(connection)
    }

    /// As [`Database::connection`], for whoever does not append.
    pub(crate) async fn unchecked_connection(&self) -> Result<PgConnection, Error> {
        let connecting = tokio::time::timeout(self.connect_timeout, self.connect.connect());
        connecting.await.unwrap_or(Err(Error::PoolTimedOut))
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
            let said = panic
                .downcast_ref::<&str>()
                .copied()
                .or(panic.downcast_ref::<String>().map(String::as_str));
            let context = format!(
                "what was done in a transaction panicked: {}",
                said.unwrap_or("it did not say why")
            );
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
                answer => break answer.map_err(|error| database.reading(&error)),
            }
        }
    }};
}
pub(crate) use ask;
