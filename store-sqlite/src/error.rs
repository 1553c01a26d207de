//! What SQLite says, in the words of the contract: what the caller can do about it, and which file
//! it is about.

use std::path::Path;

use annals_core::{Failure, StoreError};
use rusqlite::ErrorCode;
use rusqlite::ffi;

/// What failed, as often as it must be told.
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

    /// What `error` means for whoever was `doing` something with the file called `name`.
    pub(crate) fn of(error: &rusqlite::Error, doing: &str, name: &str) -> StoreFault {
        let failure = failure_of(error);
        let context = match failure {
            Failure::Full => format!("no room left while {doing} `{name}`"),
            Failure::Corrupt if is_no_database(error) => {
                format!("`{name}` is not a SQLite database")
            }
            Failure::Corrupt => format!("`{name}` is damaged, noticed while {doing} it"),
            Failure::ReadOnly => format!("`{name}` may not be written"),
            Failure::Unavailable if is_busy(error) => {
                format!("`{name}` is busy, given up {doing} it")
            }
            _ => format!("failed {doing} `{name}`"),
        };
        StoreFault {
            failure,
            context,
            cause: Some(error.to_string()),
        }
    }

    pub(crate) fn error(&self) -> StoreError {
        let error = StoreError::new(self.failure, self.context.clone());
        match &self.cause {
            Some(cause) => error.because(cause.clone()),
            None => error,
        }
    }

    /// The same trouble, from which the store does not come back by itself.
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

/// Whether the medium failed: what the file holds now is anybody's guess.
pub(crate) fn is_medium(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
}

pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
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
        // A statement that was right when it was written fails: tables are missing or changed.
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
