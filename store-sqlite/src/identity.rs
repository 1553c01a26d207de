//! Which file and which log everything in memory comes from.
//!
//! A file can be replaced under a running store: a backup is moved into its place, or restored into
//! it by another process. Then appends would go to a file that no path leads to, and cached names
//! would be those of another log. So the store knows its files by device and inode, and its log by
//! id and last event; it compares them where that is cheap and closes when they differ.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use annals_core::{EventId, Failure, LogId, StoreError};
use rusqlite::Connection;

use crate::error::StoreFault;
use crate::statements as sql;

/// What the store was opened on, shared by everything that reads and writes.
#[derive(Debug)]
pub(crate) struct LogIdentity {
    log: LogId,
    name: String,
    /// None in memory: only this process has it.
    files: Option<Files>,
    last: Mutex<Option<LastEvent>>,
    closed: OnceLock<StoreFault>,
}

/// An event that the log must hold from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastEvent {
    pub(crate) position: u64,
    pub(crate) id: EventId,
}

impl LogIdentity {
    /// The log `log`, in the file at `path` that is open.
    pub(crate) fn new(log: LogId, path: Option<&Path>, name: String) -> LogIdentity {
        LogIdentity {
            log,
            name,
            files: path.and_then(Files::at),
            last: Mutex::new(None),
            closed: OnceLock::new(),
        }
    }

    pub(crate) fn log(&self) -> LogId {
        self.log
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether another process could replace the log.
    pub(crate) fn can_change(&self) -> bool {
        self.files.is_some()
    }

    /// The last event that was committed or read. Take it before a transaction begins: then the
    /// transaction must see it.
    pub(crate) fn last(&self) -> Option<LastEvent> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log holds this event.
    pub(crate) fn saw(&self, event: Option<LastEvent>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.map(|last| last.position) < event.map(|event| event.position) {
            *last = event;
        }
    }

    /// Why the store was closed, when it was.
    pub(crate) fn fault(&self) -> Option<&StoreFault> {
        self.closed.get()
    }

    /// As [`fault`](LogIdentity::fault), as an error.
    pub(crate) fn check_open(&self) -> Result<(), StoreError> {
        self.fault().map_or(Ok(()), |fault| Err(fault.error()))
    }

    /// Closes the store for everything that shares it; the first reason is kept.
    pub(crate) fn close(&self, fault: StoreFault) -> StoreFault {
        let first = self.closed.get_or_init(|| {
            tracing::error!(name = self.name, reason = ?fault, "the store is closed");
            fault
        });
        first.clone()
    }

    /// Closes the store when other files are at its paths.
    pub(crate) fn check_files(&self) -> Result<(), StoreFault> {
        match self.files.as_ref().and_then(Files::replaced) {
            None => Ok(()),
            Some(path) => Err(self.close(self.replaced(format!(
                "`{}` was removed or replaced while it was open",
                path.display()
            )))),
        }
    }

    /// Closes the store when the open transaction of `connection` sees another log, or one without
    /// the event `last`.
    pub(crate) fn check_log(
        &self,
        connection: &Connection,
        last: Option<LastEvent>,
    ) -> Result<Result<(), StoreFault>, rusqlite::Error> {
        let position = last.map_or(0, |last| last.position.cast_signed());
        let found = connection
            .prepare_cached(sql::LOG_IDENTITY)?
            .query_row([position], |row| {
                Ok((
                    row.get::<_, [u8; 16]>(0)?,
                    row.get::<_, Option<[u8; 16]>>(1)?,
                ))
            })?;
        let expected = last.map(|last| *last.id.as_uuid().as_bytes());
        if found == (*self.log.as_uuid().as_bytes(), expected) {
            return Ok(Ok(()));
        }
        // The likelier reason, and the better text.
        if let Err(fault) = self.check_files() {
            return Ok(Err(fault));
        }
        let context = match last {
            Some(LastEvent { position, id }) if found.0 == *self.log.as_uuid().as_bytes() => {
                format!(
                    "the log in `{}` was restored while it was open: it has another event than \
                     {id} at position {position}, or none",
                    self.name
                )
            }
            _ => format!(
                "another log was put into `{}` while it was open, not {}",
                self.name, self.log
            ),
        };
        Ok(Err(self.close(self.replaced(context))))
    }

    fn replaced(&self, what: String) -> StoreFault {
        StoreFault::new(
            Failure::Closed,
            format!(
                "{what}; the store is closed and writes nothing more: stop every program that has \
                 the file open, put the right file and no `-wal` or `-shm` of another one at its \
                 path, then start again"
            ),
        )
    }
}

/// The files of a store, as they were when it was opened.
#[derive(Debug)]
struct Files {
    main: (PathBuf, FileId),
    wal: PathBuf,
    /// Known once SQLite has made it; it stays the same one while the store is open.
    wal_id: OnceLock<FileId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId {
    /// Its major and minor number.
    device: (u32, u32),
    inode: u64,
}

impl Files {
    fn at(path: &Path) -> Option<Files> {
        let id = FileId::of(path).ok()?;
        // SQLite names the journal after the file that a symbolic link leads to.
        let mut wal = path.canonicalize().ok()?.into_os_string();
        wal.push("-wal");
        Some(Files {
            main: (path.to_owned(), id),
            wal: wal.into(),
            wal_id: OnceLock::new(),
        })
    }

    /// The path of a file that is gone, or another one.
    fn replaced(&self) -> Option<&Path> {
        let (path, id) = &self.main;
        if id.is_gone_from(path) {
            return Some(path);
        }
        let wal = match self.wal_id.get() {
            Some(id) => *id,
            None => {
                let found = FileId::of(&self.wal).ok()?;
                *self.wal_id.get_or_init(|| found)
            }
        };
        wal.is_gone_from(&self.wal).then_some(&*self.wal)
    }
}

impl FileId {
    /// Asks for nothing but the number. Where times are asked for too, Linux (6.13 and newer)
    /// stores the time of the next change exactly, so that the flush of each commit writes the inode
    /// too (the kernel's documentation, `filesystems/multigrain-ts`).
    #[cfg(target_os = "linux")]
    fn of(path: &Path) -> std::io::Result<FileId> {
        use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

        let found = statx(CWD, path, AtFlags::empty(), StatxFlags::INO)?;
        Ok(FileId {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
        })
    }

    #[cfg(all(unix, not(target_os = "linux")))]
    fn of(path: &Path) -> std::io::Result<FileId> {
        use std::os::unix::fs::MetadataExt;

        let found = std::fs::metadata(path)?;
        let device = found.dev();
        Ok(FileId {
            device: ((device >> 32) as u32, device as u32),
            inode: found.ino(),
        })
    }

    /// Elsewhere a file that is open cannot be replaced.
    #[cfg(not(unix))]
    fn of(_: &Path) -> std::io::Result<FileId> {
        Ok(FileId {
            device: (0, 0),
            inode: 0,
        })
    }

    /// Whether nothing is at the path, or something else. A path that cannot be looked at now says
    /// nothing.
    fn is_gone_from(self, path: &Path) -> bool {
        match FileId::of(path) {
            Ok(found) => found != self,
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }
}
