//! An application's own writes and its events, in one transaction.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use annals_core::{Append, AppendError, Appended, Clock, Failure, Limits, StoreError};
use rusqlite::{Connection, ErrorCode};

use crate::request::Request;
use crate::write_tx::{Stop, WriteTx};

/// The open transaction, as [`SqliteStore::append_in`](crate::SqliteStore::append_in) hands it out.
///
/// ```
/// # fn example(transaction: &mut annals_sqlite::AppendTransaction<'_>) -> annals_sqlite::rusqlite::Result<()> {
/// transaction.connection().execute("update my_stock set left = left - 1 where item = ?1", ["lamp"])?;
/// # Ok(())
/// # }
/// ```
pub struct AppendTransaction<'a> {
    write_tx: &'a mut WriteTx,
    limits: &'a Limits,
    clock: &'a Arc<dyn Clock>,
    /// Set when the transaction cannot go on, whatever the application makes of it.
    broken: &'a mut Option<rusqlite::Error>,
}

impl fmt::Debug for AppendTransaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppendTransaction")
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl AppendTransaction<'_> {
    /// The connection that writes, for the application's own tables. Tables whose names begin with
    /// `annals_` are not among them, and the transaction is not to be ended here.
    ///
    /// ```
    /// # fn example(transaction: &mut annals_sqlite::AppendTransaction<'_>) -> annals_sqlite::rusqlite::Result<()> {
    /// transaction.connection().execute_batch("create table if not exists my_stock (item text, left integer)")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connection(&self) -> &Connection {
        &self.write_tx.connection
    }

    /// Appends, when the expectations and the condition hold; what was refused leaves the rest of the transaction as
    /// it is.
    ///
    /// # Errors
    ///
    /// As [`EventStore::append`](annals_core::EventStore::append).
    ///
    /// ```
    /// use annals_core::{Append, AppendError, NewEvent, StreamId};
    ///
    /// # fn example(transaction: &mut annals_sqlite::AppendTransaction<'_>) -> Result<(), AppendError> {
    /// let event = NewEvent::json("order.placed", b"{}".as_slice());
    /// transaction.append(Append::new(StreamId::new("order-7")?, [event]))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn append(&mut self, append: Append) -> Result<Appended, AppendError> {
        if self.broken.is_some() {
            return Err(undone().into());
        }
        let request = Request::new(append, self.limits, Arc::clone(self.clock))?;
        match self.write_tx.append(&request) {
            Ok(appended) => Ok(appended),
            Err(Stop::Refused(refused)) => Err(refused),
            Err(Stop::Broken(error)) => {
                *self.broken = Some(error);
                Err(undone().into())
            }
        }
    }
}

fn undone() -> StoreError {
    StoreError::new(
        Failure::Unavailable,
        "the transaction failed and was undone",
    )
}

/// How the application's function came to its end.
pub(crate) enum Ran<R, E> {
    Committed(R),
    Failed(E),
}

/// Runs the application's function inside a savepoint of the open transaction.
pub(crate) fn run<R, E>(
    write_tx: &mut WriteTx,
    limits: &Limits,
    clock: &Arc<dyn Clock>,
    work: Option<impl FnOnce(&mut AppendTransaction<'_>) -> Result<R, E>>,
) -> Result<Ran<R, E>, Stop> {
    // It ran before, in a transaction that was undone through no fault of its own, and cannot run
    // twice.
    let work = work.ok_or_else(|| Stop::Refused(undone().into()))?;
    guarded(write_tx, |write_tx, broken| {
        work(&mut AppendTransaction {
            write_tx,
            limits,
            clock,
            broken,
        })
    })
}

/// Runs something of the application's inside a savepoint of the open transaction: it is whole, or
/// undone when it fails or panics. What is told to be broken ends the whole transaction.
pub(crate) fn guarded<R, E>(
    write_tx: &mut WriteTx,
    work: impl FnOnce(&mut WriteTx, &mut Option<rusqlite::Error>) -> Result<R, E>,
) -> Result<Ran<R, E>, Stop> {
    write_tx
        .connection
        .prepare_cached("savepoint annals_application")?
        .execute([])?;
    let head = write_tx.head;
    let recorded = write_tx.recorded;
    let mut broken = None;
    let ran = catch_unwind(AssertUnwindSafe(|| work(write_tx, &mut broken)));
    if write_tx.connection.is_autocommit() {
        // SQLite undid everything (there was no room), or the application ended the transaction.
        return Err(Stop::Broken(broken.unwrap_or_else(ended)));
    }
    if let Some(error) = broken {
        return Err(Stop::Broken(error));
    }
    let failed = match ran {
        Ok(Ok(done)) => {
            write_tx
                .connection
                .prepare_cached("release annals_application")?
                .execute([])?;
            return Ok(Ran::Committed(done));
        }
        Ok(Err(error)) => Ok(Ran::Failed(error)),
        Err(panic) => {
            let context = format!(
                "the application's part of a transaction panicked: {}",
                said(&*panic)
            );
            Err(Stop::Refused(
                StoreError::new(Failure::Invalid, context).into(),
            ))
        }
    };
    write_tx
        .connection
        .prepare_cached("rollback to annals_application")?
        .execute([])?;
    write_tx
        .connection
        .prepare_cached("release annals_application")?
        .execute([])?;
    write_tx.head = head;
    write_tx.recorded = recorded;
    write_tx.dictionary.clear();
    failed
}

fn said(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("?")
}

fn ended() -> rusqlite::Error {
    let error = rusqlite::ffi::Error {
        code: ErrorCode::OperationAborted,
        extended_code: rusqlite::ffi::SQLITE_ABORT,
    };
    rusqlite::Error::SqliteFailure(
        error,
        Some("the transaction was ended by the application's part of it".into()),
    )
}
