//! The same work by hand: rusqlite with prepared statements, on a file that Annals made, with the
//! same tables, indexes, columns and settings. What Annals computes on the way (digests, checks)
//! was computed before the clock starts.

mod append;
mod command;
mod live;
mod past;
mod read;
mod view;

use std::path::Path;

use annals_sqlite::{Options, SqliteStore};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::Outcome;
pub(crate) use read::Content;

/// A connection to a file with the tables of Annals.
#[derive(Debug)]
pub struct Baseline {
    connection: Connection,
}

impl Baseline {
    /// Opens the file, which Annals makes first when it is not there, with the settings that Annals
    /// itself uses.
    ///
    /// # Errors
    ///
    /// Those of SQLite.
    pub async fn open(path: &Path) -> Outcome<Baseline> {
        drop(SqliteStore::open_with(Options::file(path)).await?);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.execute_batch(include_str!("sql/settings.sql"))?;
        connection.set_prepared_statement_cache_capacity(32);
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(Baseline { connection })
    }
}
