//! What the server and the driver say, in the words of the contract: what the caller can do about
//! it, and which database it is about.

use std::time::Duration;
use std::{fmt, io};

use annals_core::{Failure, StoreError};
use sqlx::Error;
use sqlx::postgres::PgDatabaseError;

/// What failed, as often as it must be reported.
#[derive(Clone, Debug)]
pub(crate) struct StoreFault {
    pub(crate) failure: Failure,
    context: String,
    cause: Option<String>,
}

impl StoreFault {
    /// What `error` means for a caller that was `doing` something with the database `name`.
    pub(crate) fn of(error: &Error, doing: &str, name: &str) -> StoreFault {
        let failure = failure_of(error);
        let context = match failure {
            Failure::Full => format!("no room left on the server while {doing} `{name}`"),
            Failure::ReadOnly if is_read_only(error) => format!(
                "`{name}` takes no writes: it is a standby, or `default_transaction_read_only` is \
                 set for it or for this role"
            ),
            Failure::ReadOnly => format!("`{name}` may not be written by this role"),
            _ if lost_its_statements(error) => format!(
                "the connection pooler in front of `{name}` drops prepared statements; let it keep \
                 them, or connect to the server itself"
            ),
            _ if let Error::Configuration(what) = error => {
                format!("`{name}` cannot be used: {what}")
            }
            _ if is_out_of_reach(error) => format!(
                "the server of `{name}` cannot be reached: it is down, or its address in the URL \
                 is another one"
            ),
            _ if matches!(error, Error::PoolTimedOut) => format!(
                "no connection to `{name}` was free in time: all of them were in use; `readers` is \
                 how many there are"
            ),
            _ if holds_no_such_text(error) => {
                format!("a text was given to `{name}` that it cannot hold, such as a NUL")
            }
            Failure::Corrupt => {
                format!("`{name}` holds what this program did not write, found while {doing} it")
            }
            _ => format!("failed {doing} `{name}`"),
        };
        let is_whole = matches!(error, Error::Configuration(_));
        StoreFault {
            failure,
            context,
            cause: (!is_whole).then(|| error.to_string()),
        }
    }

    pub(crate) fn error(&self) -> StoreError {
        let error = StoreError::new(self.failure, self.context.clone());
        match &self.cause {
            Some(cause) => error.because(cause.clone()),
            None => error,
        }
    }
}

/// Why no connection could be made.
#[derive(Debug)]
struct OutOfReach(io::Error);

impl fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for OutOfReach {}

/// What became of an attempt to connect, when that is no answer of the server.
pub(crate) fn out_of_reach(error: Error) -> Error {
    match error {
        Error::Io(error) => Error::Io(io::Error::new(error.kind(), OutOfReach(error))),
        error => error,
    }
}

/// The same, of a server that is silent.
pub(crate) fn silent_for(time: Duration) -> Error {
    let error = format!("it has not answered for {time:?}");
    out_of_reach(Error::Io(io::Error::new(io::ErrorKind::TimedOut, error)))
}

fn is_out_of_reach(error: &Error) -> bool {
    match error {
        Error::Io(error) => error.get_ref().is_some_and(|of| of.is::<OutOfReach>()),
        _ => false,
    }
}

/// Whether the server does not know what was prepared a moment ago on this connection, or knows it
/// from another client: a pooler serves the connection from several sessions.
fn lost_its_statements(error: &Error) -> bool {
    refused(error).is_some_and(|refused| matches!(refused.code(), "26000" | "42P05"))
}

/// Whether the transaction may not write, under any role.
fn is_read_only(error: &Error) -> bool {
    refused(error).is_some_and(|refused| refused.code() == "25006")
}

/// Whether the server was given a text that its encoding cannot hold.
fn holds_no_such_text(error: &Error) -> bool {
    refused(error).is_some_and(|refused| matches!(refused.code(), "22021" | "22P05"))
}

/// Something stored is not what this program wrote.
pub(crate) fn corrupt(what: impl Into<String>) -> Error {
    Error::Decode(what.into().into())
}

/// The code and the constraint that the server names, when it was the server that refused.
pub(crate) fn refused(error: &Error) -> Option<&PgDatabaseError> {
    match error {
        Error::Database(refused) => refused.try_downcast_ref(),
        _ => None,
    }
}

/// Whether the server may have done what was asked although it did not say so: the connection
/// ended, or was ended, in the middle.
pub(crate) fn may_have_happened(error: &Error) -> bool {
    match refused(error) {
        // Class 08: connection exceptions. 57P0x: the server is shutting down or crashed; it says
        // so also after a commit.
        Some(refused) => refused.code().starts_with("08") || refused.code().starts_with("57P0"),
        None => matches!(
            error,
            Error::Io(_) | Error::Protocol(_) | Error::Tls(_) | Error::WorkerCrashed
        ),
    }
}

fn failure_of(error: &Error) -> Failure {
    if lost_its_statements(error) {
        return Failure::Incompatible;
    }
    let Some(refused) = refused(error) else {
        return match error {
            Error::Configuration(_) | Error::InvalidArgument(_) => Failure::Invalid,
            Error::PoolClosed => Failure::Closed,
            Error::ColumnDecode { .. }
            | Error::Decode(_)
            | Error::RowNotFound
            | Error::TypeNotFound { .. } => Failure::Corrupt,
            _ => Failure::Unavailable,
        };
    };
    match (refused.code().get(..2).unwrap_or(""), refused.code()) {
        (_, "53100") => Failure::Full,
        // A role without rights, and a server that is a standby.
        (_, "42501" | "25006") => Failure::ReadOnly,
        _ if holds_no_such_text(error) => Failure::Invalid,
        // Who we say we are, and which database: nothing that trying again would change.
        ("28" | "3D" | "54", _) => Failure::Invalid,
        // Statements that were right when they were written fail: tables are missing or changed, or
        // a page is damaged.
        ("22" | "23" | "3F" | "42", _) | (_, "XX001" | "XX002") => Failure::Corrupt,
        (_, "0A000") => Failure::Incompatible,
        _ => Failure::Unavailable,
    }
}
