//! Changes of streams that are no appends: deleting, truncating, archiving. Each has an id, so that
//! one whose answer was lost is found instead of made twice.

use std::sync::Arc;

use annals_core::{AppendError, Position, StreamChange, StreamState, Version, Violation};
use chrono::{DateTime, Utc};
use sqlx::postgres::PgConnection;
use sqlx::{Error, Row, query};
use uuid::Uuid;

use crate::append_session::{AppendSession, busy, resolve};
use crate::database::Database;
use crate::error::{corrupt, may_have_happened};
use crate::events::tags_of;
use crate::job::ChangeJob;
use crate::query_plan::hash;
use crate::row::{bytes, int8, moment, number, text};
use crate::statements as sql;
use crate::streams::{self, see};

/// How many times a change is decided again because others were faster.
const TRIES_MAX: usize = 64;

/// A change as it is stored.
struct MadeChange {
    is_deletion: bool,
    position: Position,
    recorded_at: DateTime<Utc>,
}

impl MadeChange {
    /// Puts the moment of the change where a state that was planned could not know it.
    fn complete(&self, after: &mut StreamState) {
        if self.is_deletion
            && let Some(deletion) = after.deletions.last_mut()
        {
            deletion.position = self.position;
            deletion.recorded_at = self.recorded_at;
        }
    }
}

/// The change of this id, when it was made.
async fn made(
    database: &Database,
    connection: &mut PgConnection,
    id: Uuid,
) -> Result<Option<MadeChange>, Error> {
    let found = query(database.text(sql::CHANGE_BY_ID))
        .bind(id)
        .fetch_optional(connection)
        .await?;
    let Some(row) = found else { return Ok(None) };
    Ok(Some(MadeChange {
        is_deletion: row.try_get(0)?,
        position: Position::new(number(&row, 1)?),
        recorded_at: moment(int8(&row, 2)?)?,
    }))
}

impl AppendSession {
    /// Changes a stream when the expectation holds; the rules are those of
    /// [`StreamState::changed`].
    pub(crate) async fn change(&mut self, job: &ChangeJob) -> Result<StreamState, AppendError> {
        let id = Uuid::now_v7();
        let mut planned = None;
        for _ in 0..TRIES_MAX {
            match self.try_change(job, id, &mut planned).await {
                Ok(Some(outcome)) => return outcome,
                Ok(None) => {}
                Err((error, was_called)) => {
                    let trouble = self.trouble(&error);
                    self.lost(&error);
                    self.is_informed = false;
                    if !may_have_happened(&error) {
                        return Err(trouble.error().into());
                    }
                    // A change that was made is found by its id.
                    if was_called && !self.is_over().await {
                        return Err(AppendError::Unknown(trouble.error()));
                    }
                    if self.connected().await.is_err() {
                        return Err(trouble.error().into());
                    }
                }
            }
        }
        Err(busy(&job.stream).into())
    }

    /// None when the stream was changed by another in between.
    async fn try_change(
        &mut self,
        job: &ChangeJob,
        id: Uuid,
        planned: &mut Option<StreamState>,
    ) -> Result<Option<Result<StreamState, AppendError>>, (Error, bool)> {
        let not_called = |error| (error, false);
        let database = Arc::clone(&self.database);
        self.inform().await.map_err(not_called)?;
        let incarnation = self.log.incarnation;
        let connection = self.connected().await.map_err(not_called)?;
        if let Some(mut after) = planned.take()
            && let Some(made) = made(&database, &mut *connection, id)
                .await
                .map_err(not_called)?
        {
            made.complete(&mut after);
            self.is_informed = false;
            self.places.forget(&job.stream);
            return Ok(Some(Ok(after)));
        }
        let seen = see(&database, &mut *connection, &job.stream)
            .await
            .map_err(not_called)?;
        let found = seen.state;
        let expected = job.expected;
        if !expected.allows_writing(&found) {
            let violation = Violation::Stream {
                index: 0,
                stream: job.stream.clone(),
                expected,
                found,
            };
            return Ok(Some(Err(AppendError::Conflict(vec![violation]))));
        }
        let now = job.clock.now();
        let mut after = match found.changed(&job.stream, job.change, Position::new(seen.head), now)
        {
            Ok(after) if after != found => after,
            unchanged => return Ok(Some(unchanged.map_err(AppendError::from))),
        };
        let key = match seen.key {
            Some(key) => key,
            None => resolve(
                &database,
                &mut *connection,
                std::slice::from_ref(&job.stream),
                true,
            )
            .await
            .map_err(not_called)?
            .first()
            .map(|(_, key, _)| *key)
            .ok_or_else(|| not_called(corrupt("a stream that got no key")))?,
        };
        let (hashes, positions) = match job.change {
            StreamChange::Archive { before } => archived(&database, connection, key, before)
                .await
                .map_err(not_called)?,
            _ => (Vec::new(), Vec::new()),
        };
        *planned = Some(after.clone());
        let empties = after.deletions.len() > found.deletions.len();
        let row = query(database.text(sql::CHANGE_STREAM))
            .bind(id)
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
        let made = MadeChange {
            is_deletion: empties,
            position: Position::new(head),
            recorded_at,
        };
        made.complete(&mut after);
        if changes == self.log.changes + 1 {
            self.log.changes = changes;
        } else {
            self.is_informed = false;
        }
        self.places.forget(&job.stream);
        Ok(Some(Ok(after)))
    }
}

/// Under which numbers the events that an archiving removes are found, and where they stand.
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
