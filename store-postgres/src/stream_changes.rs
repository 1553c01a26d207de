//! Changes of streams that are no appends: deleting, truncating, archiving. Each has an id, so that
//! one whose answer was lost is found instead of made twice.

use std::sync::Arc;

use annals_core::{
    AppendError, ChangeStream, EventId, Invalid, Position, StreamChange, StreamState, Version,
    Violation, time_of,
};
use sqlx::postgres::PgConnection;
use sqlx::{Error, Row, query};

use crate::append_session::{AppendSession, busy};
use crate::database::Database;
use crate::error::{StoreFault, corrupt, may_have_happened, refused};
use crate::events::tags_of;
use crate::job::ChangeJob;
use crate::query_plan::hash;
use crate::resolve::resolve;
use crate::row::{bytes, int8, moment, number, stream_id, text};
use crate::statements as sql;
use crate::streams::{self, see};

/// How many times a change is decided again because others were faster.
const TRIES_MAX: usize = 64;

/// The stored codes of changes.
const DELETE: i16 = 0;
const TOMBSTONE: i16 = 1;
const TRUNCATE: i16 = 2;
const ARCHIVE: i16 = 3;

/// The code of a change, and the version that it goes up to.
fn code_of(change: StreamChange) -> Result<(i16, i64), Invalid> {
    Ok(match change {
        StreamChange::Delete => (DELETE, 0),
        StreamChange::Tombstone => (TOMBSTONE, 0),
        StreamChange::Truncate { before } => (TRUNCATE, before.get().cast_signed()),
        StreamChange::Archive { before } => (ARCHIVE, before.get().cast_signed()),
        other => {
            return Err(Invalid::new(format!(
                "this store cannot make the change {other:?}"
            )));
        }
    })
}

/// The change that was made under an id.
async fn made(
    database: &Database,
    connection: &mut PgConnection,
    id: EventId,
) -> Result<Option<ChangeStream>, Error> {
    let found = query(database.text(sql::CHANGE_BY_ID))
        .bind(id.as_uuid())
        .fetch_optional(connection)
        .await?;
    let Some(row) = found else { return Ok(None) };
    let before = Version::new(number(&row, 2)?);
    let change = match row.try_get(1)? {
        DELETE => StreamChange::Delete,
        TOMBSTONE => StreamChange::Tombstone,
        TRUNCATE => StreamChange::Truncate { before },
        ARCHIVE => StreamChange::Archive { before },
        other => return Err(corrupt(format!("there is no change {other} of streams"))),
    };
    Ok(Some(ChangeStream::new(&stream_id(&row, 0)?, change).id(id)))
}

impl AppendSession {
    /// Changes a stream when the expectation holds; the rules are those of
    /// [`StreamState::changed`].
    pub(crate) async fn change(&mut self, job: &ChangeJob) -> Result<StreamState, AppendError> {
        // Why it is unknown whether a try before changed it.
        let mut lost: Option<StoreFault> = None;
        let mut last = None;
        for _ in 0..TRIES_MAX {
            let tried = match self.try_change(job).await {
                // An answer that wrote nothing waits for what it was decided on.
                Ok(Some((outcome, last))) => match self.until_durable(last).await {
                    Ok(()) => Ok(Some(outcome)),
                    Err(error) => Err((error, false)),
                },
                Ok(None) => Ok(None),
                Err(failed) => Err(failed),
            };
            match tried {
                Ok(Some(outcome)) => return outcome,
                // It looked for the id of the change.
                Ok(None) => lost = None,
                Err((error, was_called)) => {
                    let fault = self.fault(&error);
                    self.lost(&error);
                    self.is_informed = false;
                    // What the server refused did not happen, unless it was shutting down; and what
                    // it answered happened, also when the answer is not understood.
                    let may_have_happened = may_have_happened(&error);
                    if was_called && (may_have_happened || refused(&error).is_none()) {
                        lost.get_or_insert_with(|| fault.clone());
                    }
                    // A change that was made is found by its id, once nothing works at it.
                    let goes_on = may_have_happened
                        && (!was_called || self.is_over().await)
                        && self.connected().await.is_ok();
                    if !goes_on {
                        return Err(match lost {
                            Some(lost) => AppendError::Unknown(lost.error()),
                            None => fault.error().into(),
                        });
                    }
                    last = Some(fault);
                }
            }
        }
        Err(match lost {
            Some(lost) => AppendError::Unknown(lost.error()),
            None => busy(&job.change.stream, last.as_ref()).into(),
        })
    }

    async fn until_durable(&self, position: u64) -> Result<(), Error> {
        self.database
            .until_durable(self.incarnation, position)
            .await
    }

    /// The outcome, and the last position that it rests on when nothing was written; none when the
    /// stream was changed by another in between.
    async fn try_change(
        &mut self,
        job: &ChangeJob,
    ) -> Result<Option<(Result<StreamState, AppendError>, u64)>, (Error, bool)> {
        let not_called = |error| (error, false);
        let asked = &job.change;
        let database = Arc::clone(&self.database);
        self.inform().await.map_err(not_called)?;
        let incarnation = self.log.incarnation;
        let connection = self.connected().await.map_err(not_called)?;
        // After the look at the ids: what was made before shows in the state.
        let made = made(&database, &mut *connection, asked.id)
            .await
            .map_err(not_called)?;
        let seen = see(&database, &mut *connection, &asked.stream)
            .await
            .map_err(not_called)?;
        if let Some(made) = made {
            let found = asked.check_repeats(&made).map(|()| seen.state);
            return Ok(Some((found.map_err(AppendError::from), seen.last)));
        }
        let found = seen.state;
        let expected = asked.expected;
        if !expected.allows_writing(&found) {
            let violation = Violation::Stream {
                index: 0,
                stream: asked.stream.clone(),
                expected,
                found,
            };
            let conflict = AppendError::Conflict(vec![violation]);
            return Ok(Some((Err(conflict), seen.last)));
        }
        let now = match time_of(&*job.clock) {
            Ok(now) => now,
            Err(error) => return Ok(Some((Err(error.into()), 0))),
        };
        let (code, before) = match code_of(asked.change) {
            Ok(stored) => stored,
            Err(invalid) => return Ok(Some((Err(invalid.into()), 0))),
        };
        let head = Position::new(seen.head);
        let mut after = match found.changed(&asked.stream, asked.change, head, now) {
            Ok(after) => after,
            Err(refused) => return Ok(Some((Err(refused.into()), seen.last))),
        };
        let key = match seen.key {
            Some(key) => key,
            None => resolve(
                &database,
                &mut *connection,
                std::slice::from_ref(&asked.stream),
                true,
            )
            .await
            .map_err(not_called)?
            .first()
            .map(|(_, key, _)| *key)
            .ok_or_else(|| not_called(corrupt("a stream that got no key")))?,
        };
        let (hashes, positions) = match asked.change {
            StreamChange::Archive { before } => archived(&database, connection, key, before)
                .await
                .map_err(not_called)?,
            _ => (Vec::new(), Vec::new()),
        };
        let empties = after.deletions.len() > found.deletions.len();
        let row = query(database.text(sql::CHANGE_STREAM))
            .bind(asked.id.as_uuid())
            .bind(code)
            .bind(before)
            .bind(incarnation)
            .bind(key)
            .bind(seen.changes)
            .bind(found.version.get().cast_signed())
            .bind(streams::code(after.status))
            .bind(after.truncated_before.get().cast_signed())
            .bind(after.archived_before.get().cast_signed())
            .bind(empties)
            .bind(now.timestamp_micros())
            .bind(hashes)
            .bind(positions)
            .fetch_one(connection)
            .await
            .map_err(|error| (error, true))?;
        let changed = || -> Result<_, Error> {
            Ok((
                row.try_get::<bool, _>(0)?,
                number(&row, 1)?,
                int8(&row, 2)?,
                moment(int8(&row, 3)?)?,
            ))
        };
        let (is_done, head, changes, recorded_at) = changed().map_err(|error| (error, true))?;
        if !is_done {
            self.is_informed = false;
            return Ok(None);
        }
        if empties && let Some(deletion) = after.deletions.last_mut() {
            deletion.position = Position::new(head);
            deletion.recorded_at = recorded_at;
        }
        if changes == self.log.changes + 1 {
            self.log.changes = changes;
        } else {
            self.is_informed = false;
        }
        self.cache.forget(&asked.stream);
        Ok(Some((Ok(after), 0)))
    }
}

/// The tag hashes of the events that an archiving removes, each with its position.
async fn archived(
    database: &Database,
    connection: &mut PgConnection,
    stream: i64,
    before: Version,
) -> Result<(Vec<i64>, Vec<i64>), Error> {
    let before = before.get().cast_signed();
    let rows = query(database.text(sql::ARCHIVED_TAGS))
        .bind(stream)
        .bind(before)
        .fetch_all(connection)
        .await?;
    let mut hashes = Vec::new();
    let mut positions = Vec::new();
    for row in rows
        .iter()
        .filter(|row| bytes(*row, 1).is_ok_and(|tags| tags.is_some()))
    {
        for tag in tags_of(text(row, 1)?)? {
            hashes.push(hash(&tag));
            positions.push(int8(row, 0)?);
        }
    }
    Ok((hashes, positions))
}
