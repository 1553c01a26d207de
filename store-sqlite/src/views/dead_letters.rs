//! Dead letters, and the decisions of operators about events to skip.

use annals_core::{DeadLetter, EventId, Generation, Partition, Position, SkipDecision};
use rusqlite::{Connection, Row};
use uuid::Uuid;

use super::{limited, stored};
use crate::statements as sql;
use crate::streams::{moment, number};

pub(super) fn dead_letters(
    connection: &Connection,
    generation: &Generation,
    after: Option<&(String, Partition, Position)>,
    limit: usize,
) -> Result<Vec<DeadLetter>, rusqlite::Error> {
    // Before the first key, and before the first partition of it.
    let (key, partition, position) = after.map_or(("", -1, 0), |(key, partition, position)| {
        (key, i64::from(partition.0), stored(position.get()))
    });
    let mut statement = connection.prepare_cached(sql::DEAD_LETTERS)?;
    let wanted = (
        stored(generation.id.0),
        key,
        partition,
        position,
        limited(limit),
    );
    let dead_letters = statement.query_map(wanted, |row| {
        Ok(DeadLetter {
            key: row.get(0)?,
            partition: Partition(row.get(1)?),
            position: Position::new(number(row, 2)?),
            event: event(row, 3)?,
            attempts: row.get(4)?,
            dead_since: moment(row.get(5)?)?,
            reason: row.get(6)?,
        })
    })?;
    dead_letters.collect()
}

pub(super) fn save_skip_decision(
    connection: &Connection,
    skip_decision: &SkipDecision,
) -> Result<(), rusqlite::Error> {
    let row = (
        &skip_decision.view,
        skip_decision.partition.0,
        stored(skip_decision.position.get()),
        skip_decision.key.is_some(),
        skip_decision.key.as_deref().unwrap_or_default(),
        skip_decision.event.as_uuid().as_bytes(),
        skip_decision.decided_at.timestamp_micros(),
        &skip_decision.reason,
    );
    connection
        .prepare_cached(sql::SAVE_SKIP_DECISION)?
        .execute(row)
        .map(|_| ())
}

pub(super) fn skip_decisions(
    connection: &Connection,
    view: &str,
) -> Result<Vec<SkipDecision>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(sql::SKIP_DECISIONS)?;
    let skip_decisions = statement.query_map([view], |row| {
        Ok(SkipDecision {
            view: view.to_owned(),
            partition: Partition(row.get(0)?),
            position: Position::new(number(row, 1)?),
            key: if row.get(2)? { Some(row.get(3)?) } else { None },
            event: event(row, 4)?,
            decided_at: moment(row.get(5)?)?,
            reason: row.get(6)?,
        })
    })?;
    skip_decisions.collect()
}

/// The id of an event.
pub(super) fn event(row: &Row<'_>, column: usize) -> Result<EventId, rusqlite::Error> {
    Ok(EventId::from_uuid(Uuid::from_bytes(row.get(column)?)))
}
