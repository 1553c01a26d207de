//! Generations: what they are made of and what they are for.

use annals_core::{
    CommitError, Generation, GenerationId, GenerationSpec, History, Invalid, LogId, Phase,
    Position, to_microseconds,
};
use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{Error, PgConnection, Row, query, query_scalar};
use uuid::Uuid;

use super::{owned_text, stored};
use crate::database::Database;
use crate::error::corrupt;
use crate::row::{int8, moment, number, sixteen, text};
use crate::statements as sql;

/// Begins a generation of a specification that was checked.
pub(super) async fn begin(
    database: &Database,
    spec: GenerationSpec,
    now: DateTime<Utc>,
) -> Result<Generation, Error> {
    let (keeps, history_since) = match spec.history {
        History::None => (0_i64, Position::MAX),
        History::Versions => (1, Position::START),
        // A way of keeping more of the past than this store knows of cannot come from a core of the
        // same version.
        _ => (2, Position::START),
    };
    let begun_at = to_microseconds(now);
    let id: i64 = query_scalar(database.text(sql::BEGIN_GENERATION))
        .bind(spec.view.as_bytes())
        .bind(i64::from(spec.version))
        .bind(keeps)
        .bind(spec.inline)
        .bind(i64::from(spec.partitions))
        .bind(i64::from(spec.slots))
        .bind(spec.log.as_uuid())
        .bind(begun_at.timestamp_micros())
        .bind(stored(history_since.get()))
        .bind(as_json(&spec.handles))
        .bind(as_json(&spec.indexes))
        .fetch_one(&database.pool)
        .await?;
    Ok(Generation::new(
        GenerationId(id.cast_unsigned()),
        spec,
        Phase::Building,
        begun_at,
        history_since,
    ))
}

/// The generation, when it is not gone.
pub(super) async fn by_id(
    database: &Database,
    id: GenerationId,
) -> Result<Option<Generation>, Error> {
    let found = query(database.text(sql::GENERATION))
        .bind(stored(id.0))
        .fetch_optional(&database.pool)
        .await?;
    found.as_ref().map(generation).transpose()
}

pub(super) async fn of_view(database: &Database, view: &str) -> Result<Vec<Generation>, Error> {
    let found = query(database.text(sql::GENERATIONS_OF_VIEW))
        .bind(view.as_bytes())
        .fetch_all(&database.pool)
        .await?;
    found.iter().map(generation).collect()
}

pub(super) async fn view_names(database: &Database) -> Result<Vec<String>, Error> {
    let found = query(database.text(sql::VIEW_NAMES))
        .fetch_all(&database.pool)
        .await?;
    found.iter().map(|row| owned_text(row, 0)).collect()
}

pub(super) async fn switch_to(
    database: &Database,
    connection: &mut PgConnection,
    id: GenerationId,
) -> Result<Result<(), CommitError>, Error> {
    let switch = query_scalar(database.text(sql::SWITCH_GENERATION)).bind(stored(id.0));
    Ok(if switch.fetch_one(connection).await? {
        Ok(())
    } else {
        Err(CommitError::Gone(id))
    })
}

/// Puts a generation out of sight; what it holds is cleared away later. `false`: it was gone
/// already.
pub(super) async fn drop(
    database: &Database,
    connection: &mut PgConnection,
    dropped: &Generation,
) -> Result<Result<bool, CommitError>, Error> {
    let leases: Vec<Vec<u8>> = dropped.lease_names().map(String::into_bytes).collect();
    let drop = query_scalar(database.text(sql::DROP_GENERATION))
        .bind(stored(dropped.id.0))
        .bind(leases);
    Ok(match drop.fetch_one(connection).await? {
        0_i64 => Ok(true),
        1 => Ok(false),
        _ => {
            let mut live = dropped.clone();
            live.phase = Phase::Live;
            live.check_drop([&live])
                .map(|()| false)
                .map_err(CommitError::from)
        }
    })
}

pub(super) fn generation(row: &PgRow) -> Result<Generation, Error> {
    let log = LogId::from_uuid(Uuid::from_bytes(sixteen(row, 8)?));
    let mut spec = GenerationSpec::new(owned_text(row, 1)?, small(row, 2)?, log);
    spec.history = match int8(row, 4)? {
        0 => History::None,
        1 => History::Versions,
        2 => History::Bitemporal,
        other => {
            return Err(corrupt(format!(
                "a generation keeps {other}, which has no meaning"
            )));
        }
    };
    spec.inline = row.try_get(5)?;
    spec.partitions = small(row, 6)?;
    spec.slots = small(row, 7)?;
    spec.handles = from_json(text(row, 11)?)?;
    spec.indexes = from_json(text(row, 12)?)?;
    let phase = match int8(row, 3)? {
        0 => Phase::Building,
        1 => Phase::Live,
        2 => Phase::Kept,
        other => {
            return Err(corrupt(format!(
                "a generation is in phase {other}, which has no meaning"
            )));
        }
    };
    let id = GenerationId(number(row, 0)?);
    let since = Position::new(number(row, 10)?);
    Ok(Generation::new(
        id,
        spec,
        phase,
        moment(int8(row, 9)?)?,
        since,
    ))
}

/// A number of a type that is smaller than the column.
pub(super) fn small<T: TryFrom<u64>>(row: &PgRow, column: usize) -> Result<T, Error> {
    let found = number(row, column)?;
    T::try_from(found).map_err(|_| corrupt(format!("{found} in column {column} is too large")))
}

/// The place of an index among those of the generation.
pub(super) fn index_of(spec: &GenerationSpec, name: &str) -> Result<i64, Invalid> {
    let place = spec.indexes.iter().position(|known| known == name);
    place
        .and_then(|place| i64::try_from(place).ok())
        .ok_or_else(|| {
            Invalid::new(format!(
                "view `{}` has no index `{}`",
                spec.view,
                name.escape_debug()
            ))
        })
}

fn as_json(names: &[String]) -> String {
    serde_json::Value::from(names).to_string()
}

fn from_json(text: &str) -> Result<Vec<String>, Error> {
    serde_json::from_str(text)
        .map_err(|error| corrupt(format!("names of a generation that are no JSON: {error}")))
}
