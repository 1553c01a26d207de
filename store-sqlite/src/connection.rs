//! Opening connections: the file, the journal, and what is refused before anything is touched.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use annals_core::{Failure, StoreError};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use uuid::Uuid;

use crate::error::{StoreFault, is_busy, name_of};
use crate::options::Options;

/// The first SQLite without the bug by which a checkpoint could lose a commit.
const LIBRARY_MIN: i32 = 3_051_003;

/// Statements that one connection keeps ready: all of ours.
const STATEMENTS: usize = 192;

/// Pages of the journal after which a commit copies it into the file: 8 MiB.
const CHECKPOINT_PAGES: u32 = 2_048;

/// The journal file is cut back to so many bytes once it was copied.
const JOURNAL_BYTES: u32 = 64 << 20;

/// How every connection of a store is opened.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    location: Location,
    create: bool,
    read_only: bool,
    relaxed_durability: bool,
    busy_timeout: Duration,
    page_cache_bytes: usize,
    file_bytes_max: Option<u64>,
    /// How messages call the file.
    pub(crate) name: String,
}

#[derive(Clone, Debug)]
enum Location {
    File(PathBuf),
    /// A name that the connections of one store share and no other does.
    Memory(String),
}

impl Opener {
    pub(crate) fn new(options: &Options) -> Result<Opener, StoreError> {
        let location = match &options.path {
            Some(path) => Location::File(absolute(path)?),
            None => Location::Memory(format!(
                "file:/annals-{}?vfs=memdb",
                Uuid::now_v7().as_simple()
            )),
        };
        Ok(Opener {
            location,
            create: options.create,
            read_only: options.read_only,
            relaxed_durability: options.relaxed_durability,
            busy_timeout: options.busy_timeout,
            page_cache_bytes: options.page_cache_bytes,
            file_bytes_max: options.file_bytes_max,
            name: name_of(options.path()),
        })
    }

    /// The file; none in memory.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.location {
            Location::File(path) => Some(path),
            Location::Memory(_) => None,
        }
    }

    pub(crate) fn is_memory(&self) -> bool {
        matches!(self.location, Location::Memory(_))
    }

    /// The connection that writes; makes the file when it may.
    pub(crate) fn writer(&self) -> Result<Connection, StoreError> {
        let opening = |error: rusqlite::Error| self.fault(&error).error();
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        flags.set(OpenFlags::SQLITE_OPEN_CREATE, self.create);
        let connection = self.open(flags, self.page_cache_bytes).map_err(opening)?;
        if connection.is_readonly("main").map_err(opening)? {
            let context = format!("`{}` may not be written; open it read-only", self.name);
            return Err(StoreError::new(Failure::ReadOnly, context));
        }
        self.journal(&connection)?;
        let synchronous = if self.relaxed_durability {
            "normal"
        } else {
            "full"
        };
        // What moves from page to page leaves no copy that archiving would miss. The last
        // two matter on platforms whose ordinary flush stops at the disk's own cache.
        let settings = format!(
            "pragma synchronous = {synchronous};
             pragma wal_autocheckpoint = {CHECKPOINT_PAGES};
             pragma journal_size_limit = {JOURNAL_BYTES};
             pragma secure_delete = fast;
             pragma fullfsync = on;
             pragma checkpoint_fullfsync = on;"
        );
        connection.execute_batch(&settings).map_err(opening)?;
        if let Some(bytes) = self.file_bytes_max {
            let pages = i64::try_from(bytes.div_ceil(4_096)).unwrap_or(i64::MAX);
            connection
                .pragma_update(None, "max_page_count", pages)
                .map_err(opening)?;
        }
        Ok(connection)
    }

    /// A connection that only reads; never makes a file.
    pub(crate) fn reader(&self) -> Result<Connection, rusqlite::Error> {
        let flags = match self.location {
            Location::File(_) => OpenFlags::SQLITE_OPEN_READ_ONLY,
            // The one that made it is writable, and so all are.
            Location::Memory(_) => {
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
            }
        };
        // An eighth of what the writer keeps: it looks up ids and versions all over the file,
        // readers mostly go along it.
        let connection = self.open(flags, self.page_cache_bytes / 8)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    fn open(&self, flags: OpenFlags, cache_bytes: usize) -> Result<Connection, rusqlite::Error> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match &self.location {
            Location::File(path) => Connection::open_with_flags(path, flags)?,
            Location::Memory(uri) => {
                Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?
            }
        };
        connection.busy_timeout(self.busy_timeout)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        // A statement keeps its plan. Else SQLite plans it again whenever another number is bound
        // to a `limit`: with every page.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        let kibibytes = i64::try_from(cache_bytes >> 10).unwrap_or(i64::MAX);
        connection.pragma_update(None, "cache_size", -kibibytes)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        Ok(connection)
    }

    /// Readers and the writer do not wait for each other with a write-ahead log; a store in memory
    /// has none.
    fn journal(&self, connection: &Connection) -> Result<(), StoreError> {
        if self.is_memory() {
            return Ok(());
        }
        let deadline = Instant::now() + self.busy_timeout;
        loop {
            let mode = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| {
                row.get::<_, String>(0)
            });
            match mode {
                Ok(mode) if mode == "wal" => return Ok(()),
                Ok(mode) => {
                    let context = format!(
                        "`{}` cannot have a write-ahead log, its journal is `{mode}`",
                        self.name
                    );
                    return Err(StoreError::new(Failure::Incompatible, context));
                }
                // Two processes that make the file at once: SQLite does not wait here, so this loop
                // does.
                Err(error) if is_busy(&error) && Instant::now() < deadline => {
                    std::thread::park_timeout(Duration::from_millis(2));
                }
                Err(error) => return Err(self.fault(&error).error()),
            }
        }
    }

    pub(crate) fn fault(&self, error: &rusqlite::Error) -> StoreFault {
        let fault = StoreFault::of(error, "opening", &self.name);
        let Some(path) = self.path() else {
            return fault;
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)
                if self.read_only && path.is_file() =>
            {
                fault.explained(
                    "reading needs the files of its write-ahead log: this user must be allowed to \
                     write in the directory, or another program must have the file open",
                )
            }
            Some(ErrorCode::CannotOpen) if path.parent().is_some_and(|parent| !parent.is_dir()) => {
                fault.explained("its directory does not exist")
            }
            _ => fault,
        }
    }
}

/// The path as SQLite shall take it: no name of a file is a URI or has a meaning of its own, and
/// connections that are opened later find the same file, wherever the process has moved to.
fn absolute(path: &Path) -> Result<PathBuf, StoreError> {
    std::path::absolute(path).map_err(|error| {
        let context = format!("`{}` is no path of a file", path.display());
        StoreError::new(Failure::Invalid, context).because(error)
    })
}

/// Refuses a SQLite library, given as `3051003` for 3.51.3, that may lose commits.
pub(crate) fn check_library(version: i32) -> Result<(), StoreError> {
    if version >= LIBRARY_MIN {
        return Ok(());
    }
    let dotted = |version: i32| {
        format!(
            "{}.{}.{}",
            version / 1_000_000,
            version / 1_000 % 1_000,
            version % 1_000
        )
    };
    let context = format!(
        "the SQLite library is {}, older than {}, and may lose commits during a checkpoint; update \
         the crate `libsqlite3-sys`",
        dotted(version),
        dotted(LIBRARY_MIN)
    );
    Err(StoreError::new(Failure::Incompatible, context))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_planned_once_whatever_is_bound_to_it() {
        let connection = Opener::new(&Options::in_memory())
            .unwrap()
            .reader()
            .unwrap();
        let mut statement = connection
            .prepare("select name from sqlite_schema limit ?1")
            .unwrap();
        for limit in [10, 20, 30] {
            assert!(!statement.exists([limit]).unwrap());
        }
        assert_eq!(
            statement.get_status(rusqlite::StatementStatus::RePrepare),
            0
        );
    }

    #[test]
    fn a_library_that_may_lose_commits_is_refused() {
        for version in [3_007_000, 3_046_000, 3_051_002] {
            assert_eq!(
                check_library(version).unwrap_err().failure(),
                Failure::Incompatible,
                "{version}"
            );
        }
        assert!(
            check_library(3_051_002)
                .unwrap_err()
                .to_string()
                .contains("3.51.2, older than 3.51.3")
        );
        for version in [3_051_003, 3_053_002, rusqlite::version_number()] {
            assert!(check_library(version).is_ok(), "{version}");
        }
    }
}
