//! Purging what was dropped or forgotten, a little at a time, so that no append waits long for it.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension};

use super::rows::next_text;
use crate::statements as sql;

/// One sweep ends soon after this.
const SWEEP_TAKES_MAX: Duration = Duration::from_millis(4);
/// So many rows are purged before it reads the time.
const ROWS: i64 = 128;

/// Whether something was dropped or forgotten that is not purged yet.
pub(crate) fn has_waste(connection: &Connection) -> Result<bool, rusqlite::Error> {
    let dropped = connection
        .prepare_cached(sql::DROPPED_GENERATION)?
        .exists([])?;
    Ok(dropped
        || connection
            .prepare_cached(sql::FORGOTTEN_HISTORY)?
            .exists([])?)
}

/// Purges a little, in the open transaction.
pub(crate) fn sweep(connection: &Connection) -> Result<(), rusqlite::Error> {
    let until = Instant::now() + SWEEP_TAKES_MAX;
    if let Some(id) = connection
        .prepare_cached(sql::DROPPED_GENERATION)?
        .query_row([], |row| row.get(0))
        .optional()?
    {
        return purge(connection, id, until);
    }
    let forgotten = connection
        .prepare_cached(sql::FORGOTTEN_HISTORY)?
        .query_row([], |row| {
            Ok(Forgotten {
                id: row.get(0)?,
                to: row.get(1)?,
                key: row.get(2)?,
                since: row.get(3)?,
            })
        })
        .optional()?;
    forgotten.map_or(Ok(()), |forgotten| forgotten.purge(connection, until))
}

/// Purges what a dropped generation holds, and at last the generation.
fn purge(connection: &Connection, id: i64, until: Instant) -> Result<(), rusqlite::Error> {
    let tables = [
        sql::PURGE_ROWS,
        sql::PURGE_ENTRIES,
        sql::PURGE_VERSIONS,
        sql::PURGE_TOUCHED,
        sql::PURGE_DEAD_LETTERS,
        sql::PURGE_STREAM_VERSIONS,
        sql::PURGE_STATE,
    ];
    for table in tables {
        let mut purge = connection.prepare_cached(table)?;
        while purge.execute((id, ROWS))? > 0 {
            if Instant::now() >= until {
                return Ok(());
            }
        }
    }
    connection
        .prepare_cached(sql::DELETE_GENERATION)?
        .execute([id])
        .map(|_| ())
}

/// Forgotten history, and how far it is purged.
struct Forgotten {
    id: i64,
    to: i64,
    key: String,
    since: i64,
}

impl Forgotten {
    fn purge(mut self, connection: &Connection, until: Instant) -> Result<(), rusqlite::Error> {
        while Instant::now() < until && self.to < self.since {
            self.purge_some(connection)?;
        }
        connection
            .prepare_cached(sql::SET_PURGED)?
            .execute((self.id, self.to, self.key))
            .map(|_| ())
    }

    /// Of each key the newest version that ends before the history starts stays, unless it says
    /// that there was no row.
    fn purge_some(&mut self, connection: &Connection) -> Result<(), rusqlite::Error> {
        let versions: Vec<(i64, String)> = connection
            .prepare_cached(sql::VERSIONS_TO_PURGE)?
            .query_map((self.id, self.to, &self.key, self.since, ROWS), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
        let mut newest = connection.prepare_cached(sql::NEWEST_VERSION_OF_ROW)?;
        let mut delete_before = connection.prepare_cached(sql::DELETE_VERSIONS_BEFORE)?;
        let mut delete_removal = connection.prepare_cached(sql::DELETE_REMOVAL)?;
        for (up_to, key) in &versions {
            delete_before.execute((self.id, key, up_to))?;
            let newest = newest
                .query_row((self.id, key, self.since), |row| row.get::<_, i64>(0))
                .optional()?;
            if newest == Some(*up_to) {
                delete_removal.execute((self.id, key, up_to))?;
            }
        }
        (self.to, self.key) = match versions.into_iter().next_back() {
            Some((up_to, key)) => (up_to - 1, next_text(&key)),
            None => (self.since, String::new()),
        };
        Ok(())
    }
}
