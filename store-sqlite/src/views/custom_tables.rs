//! The application's own tables, in the transactions of its read models.
//!
//! The work runs on the writer thread, inside a savepoint: what fails leaves nothing and does not
//! fail the commits of others.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use annals_core::{
    AppendError, CommitError, CustomTables, Failure, GenerationId, InTransaction, StoreError,
    ViewCommit,
};
use async_trait::async_trait;
use rusqlite::Connection;

use super::{Abort, generation, outcome, step, written};
use crate::append_in::{Ran, guarded};
use crate::error::StoreFault;
use crate::store::SqliteStore;
use crate::write_tx::{Stop, WriteTx};

type Work<S> = Box<dyn InTransaction<Connection, S>>;

/// Runs the work; the thread is its own, so there is nothing to wait for.
fn run<S: 'static>(
    work: &mut Work<S>,
    connection: &mut Connection,
    about: &mut S,
) -> Result<(), Abort> {
    let ran = pin!(work.run(connection, about)).poll(&mut Context::from_waker(Waker::noop()));
    match ran {
        Poll::Ready(done) => done.map_err(|error| Abort::Refused(error.into())),
        Poll::Pending => {
            let what = "the work awaited something inside a SQLite transaction, which delays every \
                other write: await it before or after";
            Err(Abort::Refused(
                StoreError::new(Failure::Invalid, what).into(),
            ))
        }
    }
}

fn inside<R>(
    write_tx: &mut WriteTx,
    work: impl FnOnce(&mut Connection) -> Result<R, Abort>,
) -> Result<Result<R, CommitError>, Stop> {
    match guarded(write_tx, |write_tx, _| work(&mut write_tx.connection))? {
        Ran::Committed(done) => Ok(Ok(done)),
        Ran::Failed(abort) => outcome(Err(abort)).map_err(Stop::Broken),
    }
}

fn refused_by_panic(error: AppendError) -> CommitError {
    CommitError::Store(written(error))
}

#[async_trait]
impl CustomTables for SqliteStore {
    type Connection = Connection;

    async fn commit_with(
        &self,
        commit: ViewCommit,
        mut work: Work<ViewCommit>,
    ) -> Result<(), CommitError> {
        let size = step::size(&commit);
        let take = move |write_tx: &mut WriteTx| {
            inside(write_tx, |connection| {
                step::check(connection, &commit)?;
                let mut commit = commit.clone();
                run(&mut work, connection, &mut commit)?;
                step::write(connection, &step::prepare(connection, commit)?)
            })
        };
        self.writer()?
            .run(size, take)
            .await
            .map_err(refused_by_panic)?
    }

    async fn switch_with(&self, id: GenerationId, mut work: Work<()>) -> Result<(), CommitError> {
        let switch = move |write_tx: &mut WriteTx| {
            inside(write_tx, |connection| {
                generation::switch_to(connection, id)?;
                run(&mut work, connection, &mut ())
            })
        };
        self.writer()?
            .run((1, 0), switch)
            .await
            .map_err(refused_by_panic)?
    }

    async fn drop_with(&self, id: GenerationId, mut work: Work<()>) -> Result<(), CommitError> {
        let drop = move |write_tx: &mut WriteTx| {
            let dropped = inside(write_tx, |connection| {
                match generation::by_id(connection, id) {
                    Err(Abort::Refused(CommitError::Gone(_))) => return Ok(()),
                    found => found?,
                };
                generation::drop(connection, id)?;
                run(&mut work, connection, &mut ())
            });
            write_tx.has_waste = true;
            dropped
        };
        self.writer()?
            .run((1, 0), drop)
            .await
            .map_err(refused_by_panic)?
    }

    async fn mark(connection: &mut Connection) -> Result<(), StoreError> {
        part(connection, "savepoint annals_part")
    }

    async fn keep(connection: &mut Connection) -> Result<(), StoreError> {
        part(connection, "release annals_part")
    }

    async fn undo(connection: &mut Connection) -> Result<(), StoreError> {
        part(connection, "rollback to annals_part")?;
        part(connection, "release annals_part")
    }
}

fn part(connection: &Connection, statement: &str) -> Result<(), StoreError> {
    let done = connection
        .prepare_cached(statement)
        .and_then(|mut statement| statement.execute([]));
    done.map(|_| ()).map_err(|error| {
        StoreFault::of(&error, "changing tables", "the application's tables").error()
    })
}
