//! The application's own tables, in the transactions of its read models.
//!
//! The work runs in a task that is not dropped, on a pooled connection whose transaction it is
//! given; what fails leaves nothing.

use annals_core::{
    CommitError, CustomTables, Failure, Generation, GenerationId, InTransaction, StoreError,
    ViewCommit,
};
use async_trait::async_trait;
use sqlx::{Error, PgConnection, Postgres, Transaction, query_scalar, raw_sql};

use super::generation;
use super::step::{self, Step};
use crate::database::{Database, to_its_end};
use crate::error::{StoreFault, refused};
use crate::statements as sql;
use crate::store::PostgresStore;

type Work<S> = Box<dyn InTransaction<PgConnection, S>>;

#[async_trait]
impl CustomTables for PostgresStore {
    type Connection = PgConnection;

    async fn commit_with(
        &self,
        commit: ViewCommit,
        mut work: Work<ViewCommit>,
    ) -> Result<(), CommitError> {
        let database = self.writable()?;
        let made_of = self.made_of(commit.generation).await?;
        to_its_end(async move {
            let mut transaction = begun(&database).await?;
            let step = match worked(&database, &mut transaction, commit, &made_of, &mut work).await
            {
                Ok(step) => step,
                refused => return ended(&database, transaction, refused.map(drop)).await,
            };
            match step.end(&database, &mut transaction).await {
                Ok(done) => ended(&database, transaction, done).await,
                Err(error) => {
                    undone(transaction).await;
                    Err(step.failed(&database, error).await)
                }
            }
        })
        .await
    }

    async fn switch_with(&self, id: GenerationId, mut work: Work<()>) -> Result<(), CommitError> {
        let database = self.writable()?;
        to_its_end(async move {
            let mut transaction = begun(&database).await?;
            let done = async {
                let switched = generation::switch_to(&database, &mut transaction, id).await;
                switched.map_err(|error| database.writing(&error))??;
                run(&database, &mut transaction, &mut work, &mut ()).await
            };
            let done = done.await;
            ended(&database, transaction, done).await
        })
        .await
    }

    async fn drop_with(&self, id: GenerationId, mut work: Work<()>) -> Result<(), CommitError> {
        let database = self.writable()?;
        let dropped = match self.generation_now(id).await {
            Err(CommitError::Gone(_)) => return Ok(()),
            found => found?,
        };
        let done = to_its_end(async move {
            let mut transaction = begun(&database).await?;
            let done = async {
                let was_there = generation::drop(&database, &mut transaction, &dropped).await;
                match was_there.map_err(|error| database.writing(&error))?? {
                    true => run(&database, &mut transaction, &mut work, &mut ()).await,
                    false => Ok(()),
                }
            };
            let done = done.await;
            ended(&database, transaction, done).await
        })
        .await;
        self.views_of().sweep();
        done
    }

    async fn mark(connection: &mut PgConnection) -> Result<(), StoreError> {
        part(connection, "savepoint annals_part").await
    }

    async fn keep(connection: &mut PgConnection) -> Result<(), StoreError> {
        part(connection, "release savepoint annals_part").await
    }

    async fn undo(connection: &mut PgConnection) -> Result<(), StoreError> {
        part(
            connection,
            "rollback to savepoint annals_part; release savepoint annals_part",
        )
        .await
    }
}

/// A transaction on a connection that is alive: a server that was restarted leaves a pool full of
/// dead ones.
async fn begun(database: &Database) -> Result<Transaction<'static, Postgres>, StoreError> {
    let mut tries = 0;
    loop {
        match database.pool.begin().await {
            Ok(transaction) => return Ok(transaction),
            Err(error) if database.asks_again(&error, &mut tries) => {}
            Err(error) => return Err(database.not_written(error).await),
        }
    }
}

/// Commits what went well, and undoes everything else.
async fn ended(
    database: &Database,
    transaction: Transaction<'static, Postgres>,
    done: Result<(), CommitError>,
) -> Result<(), CommitError> {
    match done {
        Ok(()) => transaction
            .commit()
            .await
            .map_err(|error| database.writing(&error).into()),
        Err(refused) => {
            undone(transaction).await;
            Err(refused)
        }
    }
}

async fn undone(transaction: Transaction<'static, Postgres>) {
    if let Err(error) = transaction.rollback().await {
        tracing::debug!(%error, "a transaction was not rolled back; it ends with its connection");
    }
}

/// Runs the work of a step that is not refused so far: the step as the work has left it.
///
/// Nothing is locked meanwhile that a renewal of the lease needs, so work may take longer than the
/// lease lasts.
async fn worked(
    database: &Database,
    connection: &mut PgConnection,
    mut commit: ViewCommit,
    made_of: &Generation,
    work: &mut Work<ViewCommit>,
) -> Result<Step, CommitError> {
    step::look(database, connection, &commit)
        .await
        .map_err(|error| database.writing(&error))??;
    run(database, connection, work, &mut commit).await?;
    Ok(Step::prepare(commit, made_of)?)
}

/// Runs the work, and checks that the transaction is the same after it, and can go on.
async fn run<S: Send + 'static>(
    database: &Database,
    connection: &mut PgConnection,
    work: &mut Work<S>,
    about: &mut S,
) -> Result<(), CommitError> {
    let before = transaction_of(database, connection).await?;
    work.run(connection, about).await?;
    if transaction_of(database, connection).await? != before {
        return Err(StoreError::new(Failure::Invalid, ENDED).into());
    }
    Ok(())
}

async fn transaction_of(
    database: &Database,
    connection: &mut PgConnection,
) -> Result<String, StoreError> {
    let asked = query_scalar(database.text(sql::TRANSACTION))
        .fetch_one(connection)
        .await;
    asked.map_err(|error| misused(&error).unwrap_or_else(|| database.writing(&error)))
}

/// Without being prepared: also where a statement has failed.
async fn part(connection: &mut PgConnection, statement: &'static str) -> Result<(), StoreError> {
    let done = raw_sql(statement).execute(connection).await;
    let failed = |error: Error| {
        let other =
            || StoreFault::of(&error, "changing tables", "the application's tables").error();
        misused(&error).unwrap_or_else(other)
    };
    done.map(drop).map_err(failed)
}

const ENDED: &str = "the application's work ended the transaction that it was given";

/// What the application's work did to the transaction that cannot go on with it: trying again would
/// not help.
fn misused(error: &Error) -> Option<StoreError> {
    let what = match refused(error)?.code() {
        // There is no transaction, or another one, which does not know the mark.
        "25P01" | "3B001" => ENDED,
        "25P02" => {
            "a statement of the application's work failed, and the work went on in the transaction \
             as if it had not"
        }
        _ => return None,
    };
    Some(StoreError::new(Failure::Invalid, what))
}
