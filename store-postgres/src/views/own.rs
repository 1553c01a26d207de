//! The application's own tables, in the transactions of its read models.
//!
//! The work runs in a task that is not dropped, on a pooled connection whose transaction it is given; what fails leaves nothing behind.

use annals_core::{CommitError, Failure, Generation, GenerationId, OwnTables, StoreError, TableWork, ViewCommit};
use async_trait::async_trait;
use sqlx::{Error, PgConnection, Postgres, Transaction, query_scalar, raw_sql};

use super::generation;
use super::step::{self, Step};
use crate::database::{Database, to_its_end};
use crate::error::Trouble;
use crate::statements as sql;
use crate::store::PostgresStore;

type Work<S> = Box<dyn TableWork<PgConnection, S>>;

#[async_trait]
impl OwnTables for PostgresStore {
    type Connection = PgConnection;

    async fn commit_with(&self, commit: ViewCommit, mut work: Work<ViewCommit>) -> Result<(), CommitError> {
        let (database, made_of) = (self.writable()?, self.made_of(commit.generation).await?);
        to_its_end(async move {
            let mut transaction = begun(&database).await?;
            let done = take(&database, &mut transaction, commit, &made_of, &mut work).await;
            ended(&database, transaction, done).await
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
        part(connection, "rollback to savepoint annals_part; release savepoint annals_part").await
    }
}

/// A transaction on a connection that is alive: a server that was restarted leaves a pool full of dead ones.
async fn begun(database: &Database) -> Result<Transaction<'static, Postgres>, StoreError> {
    let mut tries = 0;
    loop {
        match database.pool.begin().await {
            Ok(transaction) => return Ok(transaction),
            Err(error) if database.asks_again(&error, &mut tries) => {}
            Err(error) => return Err(database.writing(&error)),
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
        Ok(()) => transaction.commit().await.map_err(|error| database.writing(&error).into()),
        Err(refused) => {
            if let Err(error) = transaction.rollback().await {
                tracing::debug!(%error, "a transaction was not rolled back; it ends with its connection");
            }
            Err(refused)
        }
    }
}

async fn take(
    database: &Database,
    connection: &mut PgConnection,
    mut commit: ViewCommit,
    made_of: &Generation,
    work: &mut Work<ViewCommit>,
) -> Result<(), CommitError> {
    let writing = |error: Error| database.writing(&error);
    step::look(database, connection, &commit).await.map_err(writing)??;
    run(database, connection, work, &mut commit).await?;
    let step = Step::prepare(commit, made_of)?;
    Ok(step.write(database, connection).await.map_err(writing)?)
}

/// Runs the work, and sees to it that the transaction is the same behind it.
async fn run<S: Send + 'static>(
    database: &Database,
    connection: &mut PgConnection,
    work: &mut Work<S>,
    about: &mut S,
) -> Result<(), CommitError> {
    let before = transaction_of(database, connection).await?;
    work.run(connection, about).await?;
    if transaction_of(database, connection).await? != before {
        let what = "the application's work ended the transaction that it was given";
        return Err(StoreError::new(Failure::Invalid, what).into());
    }
    Ok(())
}

async fn transaction_of(database: &Database, connection: &mut PgConnection) -> Result<String, StoreError> {
    let asked = query_scalar(database.text(sql::TRANSACTION)).fetch_one(connection).await;
    asked.map_err(|error| database.writing(&error))
}

/// Without being prepared: also where a statement has failed.
async fn part(connection: &mut PgConnection, statement: &'static str) -> Result<(), StoreError> {
    let done = raw_sql(statement).execute(connection).await;
    done.map(drop).map_err(|error| Trouble::of(&error, "changing tables", "the application's tables").error())
}
