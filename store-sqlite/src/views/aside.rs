//! What is set aside, and what people decided about it.

use annals_core::{EventId, Generation, Parked, Partition, Position, Verdict};
use rusqlite::{Connection, Row};
use uuid::Uuid;

use super::{limited, stored};
use crate::statements as sql;
use crate::streams::{moment, number};

pub(super) fn parked(
    connection: &Connection,
    generation: &Generation,
    after: Option<&(String, Partition, Position)>,
    limit: usize,
) -> Result<Vec<Parked>, rusqlite::Error> {
    // Before the first key, and before the first partition of it.
    let (key, partition, position) = after.map_or(("", -1, 0), |(key, partition, position)| {
        (key, i64::from(partition.0), stored(position.get()))
    });
    let mut statement = connection.prepare_cached(sql::PARKED)?;
    let wanted = (
        stored(generation.id.0),
        key,
        partition,
        position,
        limited(limit),
    );
    let parked = statement.query_map(wanted, |row| {
        Ok(Parked {
            key: row.get(0)?,
            partition: Partition(row.get(1)?),
            position: Position::new(number(row, 2)?),
            event: event(row, 3)?,
            attempts: row.get(4)?,
            parked_at: moment(row.get(5)?)?,
            cause: row.get(6)?,
        })
    })?;
    parked.collect()
}

pub(super) fn keep_verdict(
    connection: &Connection,
    verdict: &Verdict,
) -> Result<(), rusqlite::Error> {
    let row = (
        &verdict.view,
        verdict.partition.0,
        stored(verdict.position.get()),
        verdict.key.is_some(),
        verdict.key.as_deref().unwrap_or_default(),
        verdict.event.as_uuid().as_bytes(),
        verdict.decided_at.timestamp_micros(),
        &verdict.reason,
    );
    connection
        .prepare_cached(sql::SAVE_VERDICT)?
        .execute(row)
        .map(|_| ())
}

pub(super) fn verdicts(
    connection: &Connection,
    view: &str,
) -> Result<Vec<Verdict>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(sql::VERDICTS)?;
    let verdicts = statement.query_map([view], |row| {
        Ok(Verdict {
            view: view.to_owned(),
            partition: Partition(row.get(0)?),
            position: Position::new(number(row, 1)?),
            key: if row.get(2)? { Some(row.get(3)?) } else { None },
            event: event(row, 4)?,
            decided_at: moment(row.get(5)?)?,
            reason: row.get(6)?,
        })
    })?;
    verdicts.collect()
}

/// The id of an event.
pub(super) fn event(row: &Row<'_>, column: usize) -> Result<EventId, rusqlite::Error> {
    Ok(EventId::from_uuid(Uuid::from_bytes(row.get(column)?)))
}
