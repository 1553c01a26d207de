//! What SQLite reports, as a failure of the contract: what the caller can do, and about which file.

use std::path::Path;

use annals_core::{Failure, StoreError};
use rusqlite::ErrorCode;
use rusqlite::ffi;

/// A failure that is reported to several callers.
#[derive(Clone, Debug)]
pub(crate) struct StoreFault {
    pub(crate) failure: Failure,
    context: String,
    cause: Option<String>,
}

impl StoreFault {
    pub(crate) fn new(failure: Failure, context: impl Into<String>) -> StoreFault {
        StoreFault {
            failure,
            context: context.into(),
            cause: None,
        }
    }

    /// What `error` means while `doing` something with the file called `name`.
    pub(crate) fn of(error: &rusqlite::Error, doing: &str, name: &str) -> StoreFault {
        let failure = failure_of(error);
        let context = match failure {
            Failure::Full => format!("no room left while {doing} `{name}`; make room, then retry"),
            Failure::Corrupt if is_no_database(error) => {
                format!("`{name}` is not a SQLite database")
            }
            Failure::Corrupt => {
                format!("`{name}` is damaged, found while {doing} it; restore a backup")
            }
            Failure::ReadOnly => format!("`{name}` may not be written"),
            Failure::Unavailable if is_busy(error) => {
                format!("`{name}` is locked by another process, timed out {doing} it")
            }
            _ => format!("failed {doing} `{name}`"),
        };
        StoreFault {
            failure,
            context,
            cause: Some(error.to_string()),
        }
    }

    /// A deferred constraint of the application's own does not hold.
    pub(crate) fn refused_at_commit(error: &rusqlite::Error) -> StoreFault {
        StoreFault {
            failure: Failure::Invalid,
            context: "the transaction was refused at its commit".into(),
            cause: Some(error.to_string()),
        }
    }

    /// The same fault, with its likely reason.
    pub(crate) fn explained(mut self, reason: &str) -> StoreFault {
        self.context.push_str(": ");
        self.context.push_str(reason);
        self
    }

    pub(crate) fn error(&self) -> StoreError {
        let error = StoreError::new(self.failure, self.context.clone());
        match &self.cause {
            Some(cause) => error.because(cause.clone()),
            None => error,
        }
    }

    /// The same fault, after which the store must be opened again.
    pub(crate) fn closing(mut self) -> StoreFault {
        self.failure = Failure::Closed;
        self.context
            .push_str("; the store is closed, open it again");
        self
    }
}

/// The error of a reader.
pub(crate) fn reading(error: &rusqlite::Error, name: &str) -> StoreError {
    StoreFault::of(error, "reading", name).error()
}

/// Something in the file is not what this program wrote.
pub(crate) fn corrupt(what: impl Into<String>) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), Some(what.into()))
}

/// Whether a unique index or a primary key refused a row.
pub(crate) fn is_duplicate(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

/// Whether the medium failed: what the file holds now is unknown.
pub(crate) fn is_medium(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
}

pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// Whether a statement was wrong: for ours, tables are missing or changed.
pub(crate) fn is_statement(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::Unknown)
}

fn is_no_database(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::NotADatabase)
}

fn failure_of(error: &rusqlite::Error) -> Failure {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Failure::Full,
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Failure::ReadOnly,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Failure::Corrupt,
        Some(ErrorCode::TooBig) => Failure::Invalid,
        // Our statements are right: tables are missing or changed.
        Some(ErrorCode::Unknown | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => {
            Failure::Corrupt
        }
        Some(_) => Failure::Unavailable,
        // A value that is not of the type that was written.
        None => Failure::Corrupt,
    }
}

/// How messages call the file.
pub(crate) fn name_of(path: Option<&Path>) -> String {
    path.map_or_else(|| ":memory:".into(), |path| path.display().to_string())
}
