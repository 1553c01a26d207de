//! Earlier rows. What is forgotten and not cleared away yet is not shown.

use annals_core::{CommitError, GenerationId, PastRow, Position, RowVersion};
use bytes::Bytes;
use sqlx::postgres::PgRow;
use sqlx::{Error, query};

use super::rows::Keys;
use super::{limited, listed, owned_text, stored};
use crate::database::Database;
use crate::row::{bytes, int8, moment, number, optional_int8};
use crate::statements as sql;

/// An outcome for the one who asked, or nothing to be had from the server.
type Answer<T> = Result<Result<T, CommitError>, Error>;

/// Refuses a question about a moment before what is kept; the first column says since when that is.
fn kept_at(found: &[PgRow], generation: GenerationId, moment: Position) -> Answer<()> {
    let since = found
        .first()
        .map_or(Ok(0), |row| number(row, 0))
        .map(Position::new)?;
    Ok(if moment < since {
        Err(CommitError::BeforeHistory {
            generation,
            moment,
            since,
        })
    } else {
        Ok(())
    })
}

/// What is known of these keys just after `moment`.
pub(super) async fn at(
    database: &Database,
    generation: GenerationId,
    keys: &[&[u8]],
    moment: Position,
) -> Answer<Vec<PastRow>> {
    let found = query(database.text(sql::ROWS_AS_OF))
        .bind(stored(generation.0))
        .bind(keys)
        .bind(stored(moment.get()))
        .fetch_all(&database.pool)
        .await?;
    if let Err(refused) = kept_at(&found, generation, moment)? {
        return Ok(Err(refused));
    }
    listed(generation, &found, |row| {
        let key = owned_text(row, 1)?;
        let base = if optional_int8(row, 2)?.is_some() {
            Some(version(row, 2, &key)?)
        } else {
            None
        };
        let next = optional_int8(row, 6)?.map(|after| Position::new(after.cast_unsigned()));
        Ok(PastRow {
            key,
            base,
            refold_after: next.filter(|after| *after < moment),
        })
    })
}

/// A version whose columns begin at `first`.
fn version(row: &PgRow, first: usize, key: &str) -> Result<RowVersion, Error> {
    Ok(RowVersion {
        key: key.to_owned(),
        up_to: Position::new(number(row, first)?),
        after: Position::new(number(row, first + 1)?),
        recorded_at: moment(int8(row, first + 2)?)?,
        value: bytes(row, first + 3)?.map(Bytes::copy_from_slice),
    })
}

/// Keys in the range that have a row or a version, in order.
pub(super) async fn keys(
    database: &Database,
    generation: GenerationId,
    range: &Keys,
    limit: usize,
) -> Answer<Vec<String>> {
    let found = query(database.text(sql::HISTORY_KEYS))
        .bind(stored(generation.0))
        .bind(&range.from)
        .bind(&range.to)
        .bind(limited(limit))
        .fetch_all(&database.pool)
        .await?;
    listed(generation, &found, |row| owned_text(row, 1))
}

/// The versions of a key that end after the first position, at or before the second.
pub(super) async fn versions(
    database: &Database,
    generation: GenerationId,
    key: &str,
    between: (Position, Position),
    limit: usize,
) -> Answer<Vec<RowVersion>> {
    let found = of_key(database, sql::ROW_VERSIONS, generation, key, between, limit).await?;
    listed(generation, &found, |row| version(row, 1, key))
}

/// Keys after another with a version that ends after the first position, at or before the
/// second, in order.
pub(super) async fn keys_changed(
    database: &Database,
    generation: GenerationId,
    between: (Position, Position),
    range: &Keys,
    limit: usize,
) -> Answer<Vec<String>> {
    let found = query(database.text(sql::KEYS_CHANGED))
        .bind(stored(generation.0))
        .bind(stored(between.0.get()))
        .bind(stored(between.1.get()))
        .bind(&range.from)
        .bind(limited(limit))
        .fetch_all(&database.pool)
        .await?;
    if let Err(refused) = kept_at(&found, generation, between.0)? {
        return Ok(Err(refused));
    }
    listed(generation, &found, |row| owned_text(row, 1))
}

/// The positions of the events that touched a key after the first position, at or before the
/// second.
pub(super) async fn touched(
    database: &Database,
    generation: GenerationId,
    key: &str,
    between: (Position, Position),
    limit: usize,
) -> Answer<Vec<Position>> {
    let found = of_key(database, sql::TOUCHED, generation, key, between, limit).await?;
    listed(generation, &found, |row| Ok(Position::new(number(row, 1)?)))
}

/// What a slot keeps for itself after a key, until so many bytes.
pub(super) async fn state(
    database: &Database,
    generation: GenerationId,
    slot: u16,
    after: Option<&[u8]>,
    bytes_max: usize,
) -> Answer<Vec<(Bytes, Bytes)>> {
    let found = query(database.text(sql::SLOT_STATE))
        .bind(stored(generation.0))
        .bind(i64::from(slot))
        .bind(after)
        .bind(limited(bytes_max))
        .fetch_all(&database.pool)
        .await?;
    listed(generation, &found, |row| {
        let of = |column| {
            Ok::<_, Error>(Bytes::copy_from_slice(
                bytes(row, column)?.unwrap_or_default(),
            ))
        };
        Ok((of(1)?, of(2)?))
    })
}

async fn of_key(
    database: &Database,
    statement: &'static str,
    generation: GenerationId,
    key: &str,
    between: (Position, Position),
    limit: usize,
) -> Result<Vec<PgRow>, Error> {
    query(database.text(statement))
        .bind(stored(generation.0))
        .bind(key.as_bytes())
        .bind(stored(between.0.get()))
        .bind(stored(between.1.get()))
        .bind(limited(limit))
        .fetch_all(&database.pool)
        .await
}
