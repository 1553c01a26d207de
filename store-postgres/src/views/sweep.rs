//! Clearing away what was dropped or forgotten, a little at a time, so that nobody waits long for
//! it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Error, query, query_scalar};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::owned_bytes;
use crate::database::Database;
use crate::row::optional_int8;
use crate::statements as sql;

/// So many rows are cleared away in one transaction, of a few milliseconds.
const ROWS: i32 = 2_000;
/// How long to wait when the server does not answer.
const PAUSE: Duration = Duration::from_secs(5);

/// A task that clears away, and ends when this is dropped. Two of them, in two processes, leave
/// each other's work alone.
#[derive(Debug)]
pub(super) struct Sweeper {
    task: JoinHandle<()>,
    wanted: Arc<Notify>,
}

impl Sweeper {
    /// Begins with what others left behind.
    pub(super) fn start(database: &Arc<Database>) -> Sweeper {
        let wanted = Arc::new(Notify::new());
        wanted.notify_one();
        let task = tokio::spawn(sweep(Arc::clone(database), Arc::clone(&wanted)));
        Sweeper { task, wanted }
    }

    /// Something was dropped or forgotten.
    pub(super) fn wake(&self) {
        self.wanted.notify_one();
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn sweep(database: Arc<Database>, wanted: Arc<Notify>) {
    loop {
        wanted.notified().await;
        while let Err(error) = clear_away(&database).await {
            tracing::debug!(%error, "what was dropped is not cleared away yet");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Clears away all that nobody else clears away.
async fn clear_away(database: &Database) -> Result<(), Error> {
    let mut behind = 0_i64;
    let dropped = |behind: i64| query_scalar(database.text(sql::DROPPED_GENERATION)).bind(behind);
    while let Some(generation) = dropped(behind).fetch_optional(&database.pool).await? {
        if clear_generation(database, generation).await? {
            query(database.text(sql::CLEAR_GENERATION))
                .bind(generation)
                .execute(&database.pool)
                .await?;
        }
        behind = generation;
    }
    while query_scalar(database.text(sql::CLEAR_HISTORY))
        .bind(ROWS)
        .fetch_one(&database.pool)
        .await?
    {}
    Ok(())
}

/// What each table is cleared by.
const TABLES: [&str; 6] = [
    sql::CLEAR_ROWS,
    sql::CLEAR_ENTRIES,
    sql::CLEAR_VERSIONS,
    sql::CLEAR_TOUCHED,
    sql::CLEAR_DEAD_LETTERS,
    sql::CLEAR_STANDS,
];

/// Clears away what a generation holds; `false` when another does it. Each time it goes on where it
/// was: rows that are gone stay in the way of whoever looks for the next ones from the beginning,
/// as long as anybody keeps an old snapshot.
async fn clear_generation(database: &Database, generation: i64) -> Result<bool, Error> {
    for table in TABLES {
        let mut place = (-1_i64, Vec::new(), Vec::new());
        loop {
            let (number, entry, key) = &place;
            let clear = query(database.text(table))
                .bind(generation)
                .bind(number)
                .bind(entry)
                .bind(key)
                .bind(ROWS);
            let Some(row) = clear.fetch_optional(&database.pool).await? else {
                return Ok(false);
            };
            let Some(number) = optional_int8(&row, 0)? else {
                break;
            };
            place = (number, owned_bytes(&row, 1)?, owned_bytes(&row, 2)?);
        }
    }
    Ok(true)
}
