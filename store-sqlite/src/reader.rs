//! Reading without blocking the runtime: a small pool of connections, used on blocking threads, each read one transaction.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use annals_core::{Failure, StoreError};
use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::connection::Opener;
use crate::error::{Trouble, reading};
use crate::row::Names;

/// Connections for reading, opened when they are first needed; the one used last is used next, because it knows the most.
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    opener: Opener,
    idle: Mutex<Vec<Reader>>,
    free: Arc<Semaphore>,
    /// A store in memory has no journal beside which one could read; then reading and writing take turns.
    turns: Option<Arc<RwLock<()>>>,
}

#[derive(Debug)]
struct Reader {
    connection: Connection,
    names: Names,
}

impl Readers {
    pub(crate) fn new(opener: Opener, count: usize, turns: Option<Arc<RwLock<()>>>) -> Readers {
        let free = Arc::new(Semaphore::new(count));
        Readers { pool: Arc::new(Pool { opener, idle: Mutex::default(), free, turns }) }
    }

    /// Runs `work` in a read transaction. Dropping the future gives the connection back all the same, when the work is done.
    pub(crate) async fn read<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &mut Names) -> Result<R, rusqlite::Error> + Send + 'static,
    ) -> Result<R, StoreError> {
        let pool = Arc::clone(&self.pool);
        let permit = Arc::clone(&pool.free).acquire_owned().await.map_err(|_| closed(&pool.opener.name))?;
        let done = tokio::task::spawn_blocking(move || {
            let result = pool.read(work);
            drop(permit);
            result
        });
        done.await.unwrap_or_else(|panicked| {
            Err(StoreError::new(Failure::Unavailable, "a read did not come to an end").because(panicked))
        })
    }

    /// Closes the idle connections; no further read begins.
    pub(crate) fn close(&self) {
        self.pool.free.close();
        self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn closed(name: &str) -> StoreError {
    Trouble::new(Failure::Closed, format!("`{name}` was closed")).error()
}

impl Pool {
    fn read<R>(
        &self,
        work: impl FnOnce(&Connection, &mut Names) -> Result<R, rusqlite::Error>,
    ) -> Result<R, StoreError> {
        let _turn = self.turns.as_ref().map(|turns| turns.read().unwrap_or_else(PoisonError::into_inner));
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => {
                let connection = self.opener.reader().map_err(|error| self.opener.trouble(&error).error())?;
                Reader { connection, names: Names::default() }
            }
        };
        let result = reader.transaction(work);
        match result {
            Ok(found) => {
                if !self.free.is_closed() {
                    self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
                }
                Ok(found)
            }
            // A connection that failed is not used again.
            Err(error) => Err(reading(&error, &self.opener.name)),
        }
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
