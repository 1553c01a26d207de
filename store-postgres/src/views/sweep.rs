//! Clearing away what was dropped or forgotten, a little at a time, so that other statements wait
//! briefly at most.

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
    /// Begins with what others left over.
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

/// Clears away all that no other process clears away.
async fn clear_away(database: &Database) -> Result<(), Error> {
    let mut after = 0_i64;
    let dropped = |after: i64| query_scalar(database.text(sql::DROPPED_GENERATION)).bind(after);
    while let Some(generation) = dropped(after).fetch_optional(&database.pool).await? {
        if clear_generation(database, generation).await? {
            query(database.text(sql::CLEAR_GENERATION))
                .bind(generation)
                .execute(&database.pool)
                .await?;
        }
        after = generation;
    }
    while query_scalar(database.text(sql::CLEAR_HISTORY))
        .bind(ROWS)
        .fetch_one(&database.pool)
        .await?
    {}
    Ok(())
}

/// Each table, the columns that order it within a generation, what comes next (a number, an
/// entry and a key), and the columns of a row for that.
const TABLES: [(&str, &str, &str, &str); 7] = [
    ("view_row", "key", "key >= $4", KEY),
    ("view_stream_version", "key", "key >= $4", KEY),
    (
        "view_index_entry",
        "index, entry, key",
        "(index, entry, key) > ($2, $3, $4)",
        "index as number, entry, key as next_key",
    ),
    (
        "view_row_version",
        "key, up_to",
        "(key, up_to) > ($4, $2)",
        "up_to as number, ''::bytea as entry, key as next_key",
    ),
    (
        "view_touched",
        "key, position",
        "(key, position) > ($4, $2)",
        "position as number, ''::bytea as entry, key as next_key",
    ),
    (
        "view_dead_letter",
        "key, partition, position",
        "key >= $4",
        "0::bigint as number, ''::bytea as entry, key as next_key",
    ),
    (
        "view_state",
        "slot, key",
        "(slot, key) > ($2, $4)",
        "slot as number, ''::bytea as entry, key as next_key",
    ),
];

/// Of a row whose key is all that orders it: the key that comes next.
const KEY: &str = "0::bigint as number, ''::bytea as entry, \
    key operator(pg_catalog.||) '\\x00'::bytea as next_key";

/// Clears away what a generation holds; `false` when another does it. Each time it goes on where it
/// was: dead rows are in the way of a search for the next ones from the beginning,
/// as long as anybody keeps an old snapshot.
async fn clear_generation(database: &Database, generation: i64) -> Result<bool, Error> {
    for (table, columns, after, next) in TABLES {
        let text = sql::CLEAR
            .replace("{table}", table)
            .replace("{columns}", columns)
            .replace("{after}", after)
            .replace("{next}", next);
        let mut place = (-1_i64, Vec::new(), Vec::new());
        loop {
            let (number, entry, key) = &place;
            let clear = query(database.named(&text))
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
