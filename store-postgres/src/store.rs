//! The store: what is shared by its handles, and how it is opened.

use std::sync::Arc;

use annals_core::{Clock, LogId, StoreError};

use crate::database::{Database, to_its_end};
use crate::options::Options;
use crate::{schema, settings};

/// A store in one schema of a PostgreSQL database.
///
/// It needs a Tokio runtime with its clock and its I/O. Handles are cheap to clone. Any number of processes may have the schema open at
/// once, and write.
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
}

#[derive(Debug)]
struct Shared {
    log: LogId,
    database: Arc<Database>,
}

impl PostgresStore {
    /// Opens the store at `url`: `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, with options after a `?`. Makes the schema and its
    /// tables when they are not there, and upgrades older ones.
    ///
    /// # Errors
    ///
    /// [`Failure::Invalid`](annals_core::Failure) for another url, a database or a role that is not there, and a server whose settings
    /// would lose acknowledged appends; [`Failure::Incompatible`](annals_core::Failure) for tables made by a newer Annals;
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
        let shared = Shared::open(options).await?;
        Ok(PostgresStore { shared: Arc::new(shared), clock })
    }

    /// Makes or upgrades the tables, and does nothing else: for a deployment that does so by a role of its own before its programs
    /// start with [`Options::without_migration`].
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
            let mut connection = database.connection().await.map_err(|error| database.reading(&error))?;
            schema::upgrade(&database, &mut connection, &options).await
        });
        migrated.await
    }

    /// The same store; what this handle appends is recorded at the times that `clock` tells.
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
        self.clock = clock;
        self
    }

    pub(crate) fn database(&self) -> &Arc<Database> {
        &self.shared.database
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

impl Shared {
    async fn open(options: Options) -> Result<Shared, StoreError> {
        let opened = to_its_end(async move {
            let database = Arc::new(Database::new(&options));
            let mut connection = database.connection().await.map_err(|error| database.reading(&error))?;
            if !options.read_only {
                if !options.relaxed_durability {
                    settings::check(&database, &mut connection).await?;
                }
                if options.migrate {
                    schema::upgrade(&database, &mut connection, &options).await?;
                }
            }
            let log = schema::accept(&database, &mut connection, &options).await?;
            Ok(Shared { log, database })
        });
        opened.await
    }
}
