//! Dead letters, and what operators decided about them.

use annals_core::{
    CommitError, DeadLetter, EventId, GenerationId, Partition, Position, SkipDecision,
};
use sqlx::postgres::PgRow;
use sqlx::{Error, Row, query};
use uuid::Uuid;

use super::generation::small;
use super::{limited, listed, optional_text, owned_text, stored};
use crate::database::Database;
use crate::row::{int8, moment, number, sixteen};
use crate::statements as sql;

/// Dead letters after a key, partition and position.
pub(super) async fn dead_letters(
    database: &Database,
    generation: GenerationId,
    after: Option<(&str, Partition, Position)>,
    limit: usize,
) -> Result<Result<Vec<DeadLetter>, CommitError>, Error> {
    // Before the first key, and before the first partition of it.
    let (key, partition, position) = after.map_or(("", -1, 0), |(key, partition, position)| {
        (key, i64::from(partition.0), stored(position.get()))
    });
    let found = query(database.text(sql::DEAD_LETTERS))
        .bind(stored(generation.0))
        .bind(key.as_bytes())
        .bind(partition)
        .bind(position)
        .bind(limited(limit))
        .fetch_all(&database.pool)
        .await?;
    listed(generation, &found, |row| {
        Ok(DeadLetter {
            key: owned_text(row, 1)?,
            partition: Partition(small(row, 2)?),
            position: Position::new(number(row, 3)?),
            event: event(row, 4)?,
            attempts: small(row, 5)?,
            dead_since: moment(int8(row, 6)?)?,
            reason: optional_text(row, 7)?,
        })
    })
}

pub(super) async fn save_skip_decision(
    database: &Database,
    skip_decision: &SkipDecision,
) -> Result<(), Error> {
    let key = skip_decision.key.as_deref();
    query(database.text(sql::SAVE_SKIP_DECISION))
        .bind(skip_decision.view.as_bytes())
        .bind(i64::from(skip_decision.partition.0))
        .bind(stored(skip_decision.position.get()))
        .bind(key.is_some())
        .bind(key.unwrap_or_default().as_bytes())
        .bind(skip_decision.event.as_uuid())
        .bind(skip_decision.decided_at.timestamp_micros())
        .bind(skip_decision.reason.as_bytes())
        .execute(&database.pool)
        .await?;
    Ok(())
}

pub(super) async fn skip_decisions(
    database: &Database,
    view: &str,
) -> Result<Vec<SkipDecision>, Error> {
    let found = query(database.text(sql::SKIP_DECISIONS))
        .bind(view.as_bytes())
        .fetch_all(&database.pool)
        .await?;
    let skip_decision = |row: &PgRow| {
        Ok(SkipDecision {
            view: view.to_owned(),
            partition: Partition(small(row, 0)?),
            position: Position::new(number(row, 1)?),
            key: if row.try_get(2)? {
                Some(owned_text(row, 3)?)
            } else {
                None
            },
            event: event(row, 4)?,
            decided_at: moment(int8(row, 5)?)?,
            reason: owned_text(row, 6)?,
        })
    };
    found.iter().map(skip_decision).collect()
}

/// The id of an event.
pub(super) fn event(row: &PgRow, column: usize) -> Result<EventId, Error> {
    Ok(EventId::from_uuid(Uuid::from_bytes(sixteen(row, column)?)))
}
