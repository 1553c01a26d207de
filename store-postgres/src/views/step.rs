//! A step of a worker: looked at, then written, in one call of the server.

use annals_core::{
    CommitError, Failure, Generation, GenerationId, Invalid, RowChange, RowVersion, StoreError,
    Version, ViewCommit,
};
use sqlx::postgres::{PgArguments, PgExecutor, PgRow};
use sqlx::query::Query;
use sqlx::{Error, PgConnection, Postgres, Row, query};

use super::stored;
use crate::database::Database;
use crate::error::{corrupt, refused};
use crate::row::{int8, number, text};
use crate::statements as sql;

/// How often a step is taken again because a step of another slot wrote the same row first.
const RACES_MAX: u32 = 8;

type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// A step that can succeed on its generation, in the order in which the server takes it best.
#[derive(Debug)]
pub(super) struct Step {
    commit: ViewCommit,
    has_indexes: bool,
    is_inline: bool,
}

impl Step {
    /// Refuses what can never succeed, and sorts what is to be written: neighbours share a page,
    /// and two steps lock in one order.
    pub(super) fn prepare(
        mut commit: ViewCommit,
        generation: &Generation,
    ) -> Result<Step, Invalid> {
        commit.check(generation)?;
        commit
            .rows
            .sort_unstable_by(|one, other| one.key.cmp(&other.key));
        commit
            .versions
            .sort_by(|one, other| one.key.cmp(&other.key));
        commit.touched.sort_unstable();
        commit
            .state
            .sort_unstable_by(|one, other| one.0.cmp(&other.0));
        commit.dead_letters.sort_unstable_by(|one, other| {
            (&one.key, one.position).cmp(&(&other.key, other.position))
        });
        let has_indexes = !generation.spec.indexes.is_empty();
        let is_inline = generation.spec.inline;
        Ok(Step {
            commit,
            has_indexes,
            is_inline,
        })
    }

    /// Takes the step; when it is refused nothing was changed. One that moves its slot is asked for
    /// again when the connection was lost.
    pub(super) async fn take(&self, database: &Database) -> Result<(), CommitError> {
        let moves = self.commit.to.position > self.commit.from;
        let mut lost = 0;
        let mut raced = 0;
        loop {
            match self.call(database).await {
                Ok(row) => {
                    return outcome(&row, &self.commit, lost > 0)
                        .map_err(|error| database.writing(&error))?;
                }
                Err(error) if moves && database.asks_again(&error, &mut lost) => {}
                // Nothing was written, and now it is there for all to see.
                Err(error) if is_raced(&error) && raced < RACES_MAX => raced += 1,
                Err(error) => return Err(self.failed(database, error).await),
            }
        }
    }

    async fn call(&self, database: &Database) -> Result<PgRow, Error> {
        self.ensure_stream_versions(database, &database.pool)
            .await?;
        self.whole(database).fetch_one(&database.pool).await
    }

    /// Takes the step in a transaction in which it was [looked at](look) before.
    pub(super) async fn end(
        &self,
        database: &Database,
        connection: &mut PgConnection,
    ) -> Result<Result<(), CommitError>, Error> {
        self.ensure_stream_versions(database, &mut *connection)
            .await?;
        outcome(
            &self.whole(database).fetch_one(connection).await?,
            &self.commit,
            false,
        )
    }

    /// Of an inline view: makes a record for the version of each row that has none.
    async fn ensure_stream_versions<'c>(
        &self,
        database: &Database,
        executor: impl PgExecutor<'c>,
    ) -> Result<(), Error> {
        let ViewCommit {
            generation,
            lease,
            advances,
            ..
        } = &self.commit;
        if advances.is_empty() {
            return Ok(());
        }
        let make = query(database.text(sql::ENSURE_STEP_STREAM_VERSIONS))
            .bind(stored(generation.0))
            .bind(lease.name.as_bytes());
        make.bind(list(advances, |step| step.key.as_bytes()))
            .execute(executor)
            .await
            .map(drop)
    }

    /// The one call: checks, and writes what is not refused.
    fn whole(&self, database: &Database) -> Statement<'_> {
        let state = &self.commit.state;
        let text = if self.is_inline {
            sql::COMMIT_INLINE_STEP
        } else if state.is_empty() {
            sql::COMMIT_STEP
        } else {
            sql::COMMIT_STEP_WITH_STATE
        };
        let mut statement = self.written(looked(query(database.text(text)), &self.commit));
        if !self.is_inline && !state.is_empty() {
            statement = statement
                .bind(list(state, |(key, _)| &**key))
                .bind(list(state, |(_, value)| value.as_deref()));
        }
        if !self.is_inline {
            return statement;
        }
        let advances = &self.commit.advances;
        statement
            .bind(list(advances, |step| step.key.as_bytes()))
            .bind(list(advances, |step| stored(step.from.get())))
            .bind(list(advances, |step| stored(step.to.get())))
    }

    /// Everything that is written, after the slot and the partition.
    fn written<'q>(&self, statement: Statement<'q>) -> Statement<'q> {
        let ViewCommit {
            to,
            rows,
            versions,
            touched,
            dead_letters,
            settled_letters,
            ..
        } = &self.commit;
        let entries = || {
            rows.iter().flat_map(|row| {
                (0_i64..)
                    .zip(&row.indexed)
                    .map(|at| (row.key.as_bytes(), at))
            })
        };
        statement
            .bind(stored(to.position.get()))
            .bind(to.event.as_ref().map(annals_core::EventId::as_uuid))
            .bind(to.state.to_vec())
            .bind(list(rows, |row| row.key.as_bytes()))
            .bind(list(rows, |row: &RowChange| row.value.as_deref()))
            .bind(self.has_indexes)
            .bind(entries().map(|(key, _)| key).collect::<Vec<_>>())
            .bind(entries().map(|(_, (index, _))| index).collect::<Vec<_>>())
            .bind(
                entries()
                    .map(|(_, (_, entry))| entry.as_bytes())
                    .collect::<Vec<_>>(),
            )
            .bind(list(versions, |version| version.key.as_bytes()))
            .bind(list(versions, |version| stored(version.after.get())))
            .bind(list(versions, |version| stored(version.up_to.get())))
            .bind(list(versions, |version| {
                version.recorded_at.timestamp_micros()
            }))
            .bind(list(versions, |version: &RowVersion| {
                version.value.as_deref()
            }))
            .bind(list(touched, |(key, _)| key.as_bytes()))
            .bind(list(touched, |(_, position)| stored(position.get())))
            .bind(list(settled_letters, |(key, _)| key.as_bytes()))
            .bind(list(settled_letters, |(_, position)| {
                stored(position.get())
            }))
            .bind(list(dead_letters, |letter| letter.key.as_bytes()))
            .bind(list(dead_letters, |letter| stored(letter.position.get())))
            .bind(list(dead_letters, |letter| letter.event.as_uuid()))
            .bind(list(dead_letters, |letter| i64::from(letter.attempts)))
            .bind(list(dead_letters, |letter| {
                letter.dead_since.timestamp_micros()
            }))
            .bind(list(dead_letters, |letter: &annals_core::DeadLetter| {
                letter.reason.as_deref().map(str::as_bytes)
            }))
    }

    /// What a failure of the step means, now that its transaction is over.
    pub(super) async fn failed(&self, database: &Database, error: Error) -> CommitError {
        if is_raced(&error) {
            let what = "another transaction wrote the same row at the same moment";
            return StoreError::new(Failure::Unavailable, what)
                .because(error)
                .into();
        }
        // The name of a constraint comes only with a violation of it.
        if refused(&error).and_then(|refused| refused.constraint())
            == Some("view_row_version_by_key")
        {
            match self.taken_version(database).await {
                Ok(Some(taken)) => return taken.into(),
                Ok(None) => {}
                Err(error) => return database.reading(&database.reason(error).await).into(),
            }
        }
        database.not_written(error).await.into()
    }

    /// One of the versions that ends where one ends already.
    async fn taken_version(&self, database: &Database) -> Result<Option<Invalid>, Error> {
        let versions = &self.commit.versions;
        let taken = query(database.text(sql::DUPLICATE_VERSION))
            .bind(stored(self.commit.generation.0))
            .bind(list(versions, |version| version.key.as_bytes()))
            .bind(list(versions, |version| stored(version.up_to.get())))
            .fetch_optional(&database.pool)
            .await?;
        let Some(row) = taken else { return Ok(None) };
        let key = text(&row, 0)?.escape_debug();
        let up_to = number(&row, 1)?;
        Ok(Some(Invalid::new(format!(
            "key `{key}` has a version that ends at {up_to} already"
        ))))
    }
}

/// Whether a row that was not there when the step looked for it was written meanwhile, by a step of
/// another slot.
fn is_raced(error: &Error) -> bool {
    refused(error).is_some_and(|refused| {
        (refused.code(), refused.constraint()) == ("23505", Some("view_row_pkey"))
    })
}

/// Why a step is refused, before anything is done for it. Until the transaction ends its
/// generation is not dropped; who has the lease is looked at once more at the end of the step.
pub(super) async fn look(
    database: &Database,
    connection: &mut PgConnection,
    commit: &ViewCommit,
) -> Result<Result<(), CommitError>, Error> {
    let row = looked(query(database.text(sql::CHECK_STEP)), commit)
        .fetch_one(connection)
        .await?;
    outcome(&row, commit, false)
}

fn list<'a, T, C>(all: &'a [T], column: impl Fn(&'a T) -> C) -> Vec<C> {
    all.iter().map(column).collect()
}

/// The slot and the partition.
fn place<'q>(statement: Statement<'q>, commit: &ViewCommit) -> Statement<'q> {
    statement
        .bind(i64::from(commit.to.slot))
        .bind(i64::from(commit.to.partition.0))
}

/// What is looked at.
fn looked<'q>(statement: Statement<'q>, commit: &ViewCommit) -> Statement<'q> {
    let statement = statement
        .bind(stored(commit.generation.0))
        .bind(commit.lease.name.as_bytes().to_vec())
        .bind(commit.lease.owner.as_bytes().to_vec())
        .bind(stored(commit.lease.epoch));
    place(statement, commit).bind(stored(commit.from.get()))
}

fn outcome(
    row: &PgRow,
    commit: &ViewCommit,
    asked_again: bool,
) -> Result<Result<(), CommitError>, Error> {
    let generation: GenerationId = commit.generation;
    let slot: u16 = commit.to.slot;
    let found = match int8(row, 0)? {
        0 => return Ok(Ok(())),
        1 => return Ok(Err(CommitError::Gone(generation))),
        2 => "the lease is gone".to_owned(),
        3 => "the lease was given back".to_owned(),
        4 => {
            let owner: Vec<u8> = row.try_get(1)?;
            format!(
                "`{}` has epoch {}",
                String::from_utf8_lossy(&owner),
                int8(row, 2)?
            )
        }
        6 => {
            let key = text(row, 1)?;
            let version = Version::new(number(row, 2)?);
            let moved = commit.advances.iter().find(|step| step.key == key);
            let moved = moved
                .ok_or_else(|| corrupt("a step is refused for a row that it does not change"))?;
            return Ok(Err(commit.row_moved(moved, version)));
        }
        // Under the same lease no other worker moves the slot: the step was taken, and its answer
        // was lost.
        _ if asked_again && number(row, 2)? == commit.to.position.get() => return Ok(Ok(())),
        _ => format!(
            "the checkpoint is {}, the step goes from {}",
            int8(row, 2)?,
            commit.from
        ),
    };
    Ok(Err(CommitError::Fenced {
        generation,
        slot,
        found,
    }))
}
