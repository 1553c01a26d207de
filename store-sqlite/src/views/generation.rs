//! Generations: their specification and their phase.

use annals_core::{
    CommitError, Generation, GenerationId, GenerationSpec, History, Invalid, LogId, Phase,
    Position, to_microseconds,
};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row};
use uuid::Uuid;

use super::{Abort, stored};
use crate::error::corrupt;
use crate::statements as sql;
use crate::streams::{moment, number};

const LIVE: i64 = 1;
const DROPPED: i64 = 3;

/// Begins a generation of a specification that was checked.
pub(super) fn begin(
    connection: &Connection,
    spec: &GenerationSpec,
    now: DateTime<Utc>,
) -> Result<Generation, rusqlite::Error> {
    let id = connection
        .prepare_cached(sql::NEXT_GENERATION)?
        .query_row([], |row| number(row, 0))?;
    let (history, history_since) = match spec.history {
        History::None => (0, Position::MAX),
        History::Versions => (1, Position::START),
        // A kind of history that this store does not know cannot come from a core of the same
        // version.
        _ => (2, Position::START),
    };
    let begun_at = to_microseconds(now);
    connection
        .prepare_cached(sql::INSERT_GENERATION)?
        .execute((
            stored(id),
            &spec.view,
            spec.version,
            history,
            spec.partitions,
            spec.slots,
            spec.log.as_uuid().as_bytes(),
            begun_at.timestamp_micros(),
            stored(history_since.get()),
            as_json(&spec.handles),
            as_json(&spec.indexes),
            spec.inline,
        ))?;
    Ok(Generation::new(
        GenerationId(id),
        spec.clone(),
        Phase::Building,
        begun_at,
        history_since,
    ))
}

/// The generation, when it was not dropped.
pub(super) fn by_id(connection: &Connection, id: GenerationId) -> Result<Generation, Abort> {
    let found = connection
        .prepare_cached(sql::GENERATION)?
        .query_row([stored(id.0)], generation)
        .optional()?;
    found.ok_or(Abort::Refused(CommitError::Gone(id)))
}

pub(super) fn of_view(
    connection: &Connection,
    view: &str,
) -> Result<Vec<Generation>, rusqlite::Error> {
    connection
        .prepare_cached(sql::GENERATIONS_OF_VIEW)?
        .query_map([view], generation)?
        .collect()
}

pub(super) fn view_names(connection: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    connection
        .prepare_cached(sql::VIEW_NAMES)?
        .query_map([], |row| row.get(0))?
        .collect()
}

pub(super) fn switch_to(connection: &Connection, id: GenerationId) -> Result<(), Abort> {
    let GenerationSpec { view, version, .. } = by_id(connection, id)?.spec;
    connection
        .prepare_cached(sql::RETIRE_LIVE)?
        .execute((view, version))?;
    connection
        .prepare_cached(sql::SET_PHASE)?
        .execute((stored(id.0), LIVE))?;
    Ok(())
}

/// Hides the generation; what it holds is purged later.
pub(super) fn drop(connection: &Connection, id: GenerationId) -> Result<(), Abort> {
    let dropped = match by_id(connection, id) {
        Err(Abort::Refused(CommitError::Gone(_))) => return Ok(()),
        found => found?,
    };
    dropped.check_drop(&of_view(connection, &dropped.spec.view)?)?;
    let mut delete = connection.prepare_cached(sql::DELETE_LEASE)?;
    for lease in dropped.lease_names() {
        delete.execute([lease])?;
    }
    connection
        .prepare_cached(sql::DELETE_VIEW_CHECKPOINTS)?
        .execute([stored(id.0)])?;
    connection
        .prepare_cached(sql::SET_PHASE)?
        .execute((stored(id.0), DROPPED))?;
    Ok(())
}

/// Hides the history before `since`; it is purged later.
pub(super) fn forget(
    connection: &Connection,
    id: GenerationId,
    since: Position,
) -> Result<(), Abort> {
    by_id(connection, id)?;
    connection
        .prepare_cached(sql::FORGET_HISTORY)?
        .execute((stored(id.0), stored(since.get())))?;
    Ok(())
}

fn generation(row: &Row<'_>) -> Result<Generation, rusqlite::Error> {
    let log = LogId::from_uuid(Uuid::from_bytes(row.get(7)?));
    let mut spec = GenerationSpec::new(row.get::<_, String>(1)?, row.get(2)?, log);
    spec.history = match row.get(4)? {
        0 => History::None,
        1 => History::Versions,
        2 => History::Bitemporal,
        other => {
            return Err(corrupt(format!(
                "a generation has history {other}, which has no meaning"
            )));
        }
    };
    spec.partitions = row.get(5)?;
    spec.slots = row.get(6)?;
    spec.handles = from_json(row.get_ref(10)?.as_str()?)?;
    spec.indexes = from_json(row.get_ref(11)?.as_str()?)?;
    spec.inline = row.get(12)?;
    let phase = match row.get(3)? {
        0 => Phase::Building,
        LIVE => Phase::Live,
        2 => Phase::Kept,
        other => {
            return Err(corrupt(format!(
                "a generation is in phase {other}, which has no meaning"
            )));
        }
    };
    let id = GenerationId(number(row, 0)?);
    let since = Position::new(number(row, 9)?);
    Ok(Generation::new(
        id,
        spec,
        phase,
        moment(row.get(8)?)?,
        since,
    ))
}

/// The number of an index in the generation.
pub(super) fn index_of(generation: &Generation, name: &str) -> Result<i64, Invalid> {
    let number = generation
        .spec
        .indexes
        .iter()
        .position(|known| known == name);
    number
        .and_then(|number| i64::try_from(number).ok())
        .ok_or_else(|| {
            Invalid::new(format!(
                "view `{}` has no index `{}`",
                generation.spec.view,
                name.escape_debug()
            ))
        })
}

fn as_json(names: &[String]) -> String {
    serde_json::Value::from(names).to_string()
}

fn from_json(text: &str) -> Result<Vec<String>, rusqlite::Error> {
    serde_json::from_str(text)
        .map_err(|error| corrupt(format!("names of a generation that are no JSON: {error}")))
}
