//! An application's own writes and its events, in one transaction.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use annals_core::{Append, AppendError, Appended, Clock, Failure, Limits, StoreError, panic_text};
use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::error::is_statement;
use crate::replica::Replica;
use crate::request::Request;
use crate::write_tx::{Stop, WriteTx};

/// The open transaction, as [`SqliteStore::append_in`](crate::SqliteStore::append_in) hands it out.
///
/// ```
/// # use annals_sqlite::{AppendTransaction, rusqlite};
/// # fn example(transaction: &mut AppendTransaction<'_>) -> rusqlite::Result<()> {
/// let sold = "update my_stock set left = left - 1 where item = ?1";
/// transaction.connection().execute(sold, ["lamp"])?;
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
    /// `annals_` are not among them. Savepoints of your own are allowed; `begin`, `commit` and
    /// `rollback` are refused, and undo all that was done.
    ///
    /// ```
    /// # use annals_sqlite::{AppendTransaction, rusqlite};
    /// # fn example(transaction: &mut AppendTransaction<'_>) -> rusqlite::Result<()> {
    /// let create = "create table if not exists my_stock (item text, left integer)";
    /// transaction.connection().execute_batch(create)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn connection(&self) -> &Connection {
        &self.write_tx.connection
    }

    /// Appends, when the expectations and the condition hold; what was refused leaves the rest of
    /// the transaction as it is.
    ///
    /// # Errors
    ///
    /// As [`EventStore::append`](annals_core::EventStore::append).
    ///
    /// ```
    /// use annals_core::{Append, AppendError, NewEvent, StreamId};
    ///
    /// # use annals_sqlite::AppendTransaction;
    /// # fn example(transaction: &mut AppendTransaction<'_>) -> Result<(), AppendError> {
    /// let event = NewEvent::json("order.placed", b"{}".as_slice());
    /// transaction.append(Append::new(StreamId::new("order-7")?, [event]))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn append(&mut self, append: Append) -> Result<Appended, AppendError> {
        if self.broken.is_some() {
            return Err(undone().into());
        }
        let request = Request::new(Arc::new(append), self.limits, Arc::clone(self.clock))?;
        let appended = {
            let _ours = self.write_tx.end_guard.set(Control::Annals);
            self.write_tx.append(&request)
        };
        match appended {
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

/// How the application's function ended.
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
    // It cannot run twice, and has a transaction of its own, which is not tried again.
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

/// Runs code of the application inside a savepoint of the open transaction: it is whole, or undone
/// when it fails, panics or tries to end the transaction. An error in `broken` ends the whole
/// transaction.
pub(crate) fn guarded<R, E>(
    write_tx: &mut WriteTx,
    work: impl FnOnce(&mut WriteTx, &mut Option<rusqlite::Error>) -> Result<R, E>,
) -> Result<Ran<R, E>, Stop> {
    control(&write_tx.connection, "savepoint annals_application")?;
    let tail = write_tx.tail;
    let written = write_tx.replica.as_ref().map(Replica::mark);
    let mut broken = None;
    let end_guard = write_tx.end_guard.clone();
    let (ran, tried_to_end) = {
        let application = end_guard.set(Control::Application);
        let ran = catch_unwind(AssertUnwindSafe(|| work(write_tx, &mut broken)));
        (ran, application.was_refused())
    };
    if let Some(error) = broken {
        return Err(Stop::Broken(error));
    }
    // Others' requests went with it: SQLite rolls back by itself when there is no room, and for a
    // conflict clause of the application.
    if write_tx.connection.is_autocommit() {
        return Err(Stop::Broken(rolled_back()));
    }
    let refused = |context: String| {
        let error = StoreError::new(Failure::Invalid, context);
        Err(Stop::Refused(error.into()))
    };
    let outcome = match ran {
        _ if tried_to_end => refused(
            "the application's part of a transaction ran `begin`, `commit` or `rollback`; it was \
             undone: remove the statement, Annals ends the transaction"
                .into(),
        ),
        Ok(Ok(done)) => {
            control(&write_tx.connection, "release annals_application")?;
            return Ok(Ran::Committed(done));
        }
        Ok(Err(error)) => Ok(Ran::Failed(error)),
        Err(panic) => refused(format!(
            "the application's part of a transaction panicked: {}",
            panic_text(&*panic)
        )),
    };
    control(&write_tx.connection, "rollback to annals_application")?;
    control(&write_tx.connection, "release annals_application")?;
    write_tx.tail = tail;
    write_tx.stream_cache.clear();
    if let (Some(replica), Some(mark)) = (&mut write_tx.replica, written) {
        replica.undo(mark);
    }
    outcome
}

fn control(connection: &Connection, statement: &str) -> Result<(), Stop> {
    let done = connection
        .prepare_cached(statement)
        .and_then(|mut statement| statement.execute([]));
    match done {
        Ok(_) => Ok(()),
        // There is no such savepoint: the application ended the transaction all the same.
        Err(error) if is_statement(&error) => Err(Stop::Broken(rolled_back())),
        Err(error) => Err(error.into()),
    }
}

fn rolled_back() -> rusqlite::Error {
    let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT);
    let cause = "the application's part of the transaction ended it";
    rusqlite::Error::SqliteFailure(error, Some(cause.into()))
}

/// Whose code prepares statements.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Control {
    Annals = 0,
    Application = 1,
}

/// What the flag says after a statement of the application was refused.
const REFUSED: u8 = 2;

/// Refuses to prepare statements that would end the transaction while the application's code runs:
/// a `commit` in it would also commit the requests of others, and then they could not be answered
/// truly.
#[derive(Clone, Debug)]
pub(crate) struct EndGuard {
    control: Arc<AtomicU8>,
}

impl EndGuard {
    /// Guards the connection for as long as it is open. It is set once, because SQLite prepares
    /// every statement again whenever it is set.
    pub(crate) fn on(connection: &Connection) -> Result<EndGuard, rusqlite::Error> {
        let control = Arc::new(AtomicU8::new(Control::Annals as u8));
        let seen = Arc::clone(&control);
        connection.authorizer(Some(move |context: AuthContext<'_>| {
            let ends = match context.action {
                AuthAction::Transaction { .. } => true,
                AuthAction::Savepoint { savepoint_name, .. } => {
                    ["annals_application", "annals_append"].contains(&savepoint_name)
                }
                _ => false,
            };
            if ends && seen.load(Ordering::Relaxed) != Control::Annals as u8 {
                seen.store(REFUSED, Ordering::Relaxed);
                return Authorization::Deny;
            }
            Authorization::Allow
        }))?;
        Ok(EndGuard { control })
    }

    /// Hands control over until the returned value is dropped.
    pub(crate) fn set(&self, control: Control) -> InControl {
        let before = self.control.swap(control as u8, Ordering::Relaxed);
        InControl {
            control: Arc::clone(&self.control),
            before,
        }
    }
}

/// Gives control back when it is dropped.
pub(crate) struct InControl {
    control: Arc<AtomicU8>,
    before: u8,
}

impl InControl {
    fn was_refused(&self) -> bool {
        self.control.load(Ordering::Relaxed) == REFUSED
    }
}

impl Drop for InControl {
    fn drop(&mut self) {
        self.control.store(self.before, Ordering::Relaxed);
    }
}
