//! Errors of the server by their SQLSTATE: what may pass, and what needs an operator.

use std::io::ErrorKind;

use pgwire_replication::PgWireError;

use crate::ingest::{SourceError, SourceFailure};

/// What a SQLSTATE says can be done.
fn failure_of(state: &str) -> SourceFailure {
    let may_pass = state.starts_with("08")
        || state.starts_with("40")
        || matches!(
            state,
            "57P01" | "57P02" | "57P03" | "53300" | "55006" | "55P03" | "57014" | "25P03" | "25P04"
        );
    if may_pass {
        SourceFailure::Retry
    } else {
        SourceFailure::Stop
    }
}

/// The SQLSTATE of a text of the replication client.
pub(super) fn state_in(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("SQLSTATE ")?;
    rest.get(..5)
}

/// An error of the replication session.
pub(super) fn of_replication(doing: &str, error: PgWireError) -> SourceError {
    let failure = match &error {
        PgWireError::Server(text) => state_in(text).map_or(SourceFailure::Retry, failure_of),
        PgWireError::Auth(_) | PgWireError::Tls(_) | PgWireError::MessageTooLarge { .. } => {
            SourceFailure::Stop
        }
        _ => SourceFailure::Retry,
    };
    let is_of =
        |state| matches!(&error, PgWireError::Server(text) if state_in(text) == Some(state));
    let doing = if is_of("42704") {
        format!(
            "{doing}: what is missing was made after the slot, or made again, and the slot cannot \
             see it; `resync_all` of the ingest makes a new slot and compares all tables"
        )
    } else if is_of(FORBIDDEN) {
        format!("{doing}: its role needs `alter role … replication`")
    } else {
        doing.to_owned()
    };
    SourceError::new(failure, doing).because(error)
}

/// The SQLSTATE of an error of the client for SQL.
pub(super) fn state_of(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    error.code().map(|code| code.into_owned())
}

/// The state of what a role has no right to.
const FORBIDDEN: &str = "42501";

/// Whether the role has no right to it.
pub(super) fn is_forbidden(error: &sqlx::Error) -> bool {
    state_of(error).as_deref() == Some(FORBIDDEN)
}

/// An error of the control connection.
pub(super) fn of_control(doing: &str, error: sqlx::Error) -> SourceError {
    let failure = match (&error, state_of(&error)) {
        (_, Some(state)) => failure_of(&state),
        (sqlx::Error::Configuration(_) | sqlx::Error::Tls(_), None) => SourceFailure::Stop,
        // A certificate that is refused while the connection is made.
        (sqlx::Error::Io(error), None) if error.kind() == ErrorKind::InvalidData => {
            SourceFailure::Stop
        }
        _ => SourceFailure::Retry,
    };
    let failed = SourceError::new(failure, doing.to_owned());
    match error.as_database_error() {
        // As the server says it: the client adds the line of the server's own source.
        Some(said) => failed.because(said.message().to_owned()),
        None => failed.because(error),
    }
}

/// What an operator has to do.
pub(super) fn stop(what: impl Into<String>) -> SourceError {
    SourceError::new(SourceFailure::Stop, what)
}

pub(super) fn retry(what: impl Into<String>) -> SourceError {
    SourceError::new(SourceFailure::Retry, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_say_what_may_pass() {
        for state in ["08006", "57P01", "57P03", "53300", "55006", "55P03"] {
            assert_eq!(failure_of(state), SourceFailure::Retry, "{state}");
        }
        for state in ["42704", "55000", "28P01", "42501"] {
            assert_eq!(failure_of(state), SourceFailure::Stop, "{state}");
        }
        assert_eq!(state_in("slot is gone (SQLSTATE 42704)"), Some("42704"));
    }
}
