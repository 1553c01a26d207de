//! Earlier versions of rows. What is forgotten and not purged yet is hidden.

use std::collections::BTreeSet;

use annals_core::{CommitError, Generation, PastRow, Position, RowVersion};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row};

use super::rows::{Keys, next_text};
use super::{Abort, limited, stored};
use crate::statements as sql;
use crate::streams::{moment, number};

/// So many versions are examined in the order of their ends, before going key by key is better.
const EXAMINED_MAX: usize = 16_384;

fn kept_at(generation: &Generation, moment: Position) -> Result<(), CommitError> {
    let id = generation.id;
    let since = generation.history_since;
    if moment < since {
        Err(CommitError::BeforeHistory {
            generation: id,
            moment,
            since,
        })
    } else {
        Ok(())
    }
}

/// The versions of these keys, which are sorted, just after `moment`.
pub(super) fn at(
    connection: &Connection,
    generation: &Generation,
    keys: Vec<String>,
    moment: Position,
) -> Result<Vec<PastRow>, Abort> {
    kept_at(generation, moment)?;
    let mut next = connection.prepare_cached(sql::NEXT_VERSION_OF_ROW)?;
    let mut found = Vec::new();
    for key in keys {
        let base = newest(connection, generation, &key, moment)?;
        let place = (stored(generation.id.0), &key, stored(moment.get()));
        let next = next
            .query_row(place, |row| number(row, 0))
            .optional()?
            .map(Position::new);
        if base.is_some() || next.is_some() {
            found.push(PastRow {
                key,
                base,
                refold_after: next.filter(|after| *after < moment),
            });
        }
    }
    Ok(found)
}

/// The newest version of a key that ends at or before `moment`, when it is not forgotten.
fn newest(
    connection: &Connection,
    generation: &Generation,
    key: &str,
    moment: Position,
) -> Result<Option<RowVersion>, rusqlite::Error> {
    let place = (stored(generation.id.0), key, stored(moment.get()));
    let mut statement = connection.prepare_cached(sql::NEWEST_VERSION_OF_ROW)?;
    let newest = statement
        .query_row(place, |row| version(row, key))
        .optional()?;
    // A key that had been removed before the history starts is forgotten.
    let is_shown =
        |version: &RowVersion| version.value.is_some() || version.up_to > generation.history_since;
    Ok(newest.filter(is_shown))
}

fn version(row: &Row<'_>, key: &str) -> Result<RowVersion, rusqlite::Error> {
    Ok(RowVersion {
        key: key.to_owned(),
        up_to: Position::new(number(row, 0)?),
        after: Position::new(number(row, 1)?),
        recorded_at: moment(row.get(2)?)?,
        value: row.get::<_, Option<Vec<u8>>>(3)?.map(Bytes::from),
    })
}

/// Keys in the range that have a row or a version, in order.
pub(super) fn keys(
    connection: &Connection,
    generation: &Generation,
    mut range: Keys,
    limit: usize,
) -> Result<Vec<String>, rusqlite::Error> {
    let mut found = Vec::new();
    while found.len() < limit {
        let row = next_key(connection, sql::NEXT_ROW, generation, &range)?;
        let with_history = next_key(connection, sql::NEXT_KEY_WITH_HISTORY, generation, &range)?;
        let has_row = row.is_some() && (with_history.is_none() || row <= with_history);
        let Some(key) = (if has_row { row } else { with_history }) else {
            break;
        };
        range.from = next_text(&key);
        if has_row || has_history(connection, generation, &key)? {
            found.push(key);
        }
    }
    Ok(found)
}

fn next_key(
    connection: &Connection,
    statement: &str,
    generation: &Generation,
    range: &Keys,
) -> Result<Option<String>, rusqlite::Error> {
    let place = (stored(generation.id.0), &range.from, &range.to);
    connection
        .prepare_cached(statement)?
        .query_row(place, |row| row.get(0))
        .optional()
}

/// Whether a key with a version has one that is not forgotten.
fn has_history(
    connection: &Connection,
    generation: &Generation,
    key: &str,
) -> Result<bool, rusqlite::Error> {
    let since = generation.history_since;
    if since == Position::START || newest(connection, generation, key, since)?.is_some() {
        return Ok(true);
    }
    connection
        .prepare_cached(sql::NEXT_VERSION_OF_ROW)?
        .exists((stored(generation.id.0), key, stored(since.get())))
}

/// The versions of a key that end in (position, position].
pub(super) fn versions(
    connection: &Connection,
    generation: &Generation,
    key: &str,
    between: (Position, Position),
    limit: usize,
) -> Result<Vec<RowVersion>, rusqlite::Error> {
    let since = generation.history_since;
    // The newest version that ends before the history starts is shown: it holds at the start.
    let shown_after = match newest(connection, generation, key, since)? {
        Some(base) => base.up_to.minus(1),
        None => since,
    };
    let after = between.0.max(shown_after);
    let wanted = (
        stored(generation.id.0),
        key,
        stored(after.get()),
        stored(between.1.get()),
        limited(limit),
    );
    connection
        .prepare_cached(sql::VERSIONS_OF_ROW)?
        .query_map(wanted, |row| version(row, key))?
        .collect()
}

/// Keys of the range with a version that ends in (position, position], in order.
pub(super) fn keys_changed(
    connection: &Connection,
    generation: &Generation,
    between: (Position, Position),
    mut range: Keys,
    limit: usize,
) -> Result<Vec<String>, Abort> {
    kept_at(generation, between.0)?;
    let id = stored(generation.id.0);
    let after = stored(between.0.get());
    let up_to = stored(between.1.get());
    let mut statement = connection.prepare_cached(sql::VERSIONS_ENDING)?;
    let mut ending = statement.query((id, after, up_to))?;
    let mut changed = BTreeSet::new();
    for _ in 0..EXAMINED_MAX {
        let Some(row) = ending.next()? else {
            return Ok(changed.into_iter().take(limit).collect());
        };
        let key = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        if range.holds(key) && !changed.contains(key) {
            changed.insert(key.to_owned());
        }
    }
    // So many that a page fills soon.
    let mut ends_there = connection.prepare_cached(sql::VERSIONS_OF_ROW)?;
    let mut found = Vec::new();
    while found.len() < limit {
        let Some(key) = next_key(connection, sql::NEXT_KEY_WITH_HISTORY, generation, &range)?
        else {
            break;
        };
        range.from = next_text(&key);
        if ends_there.exists((id, &key, after, up_to, 1))? {
            found.push(key);
        }
    }
    Ok(found)
}

/// The positions in (position, position] of the events that touched a key.
pub(super) fn touched(
    connection: &Connection,
    generation: &Generation,
    key: &str,
    between: (Position, Position),
    limit: usize,
) -> Result<Vec<Position>, rusqlite::Error> {
    let wanted = (
        stored(generation.id.0),
        key,
        stored(between.0.get()),
        stored(between.1.get()),
        limited(limit),
    );
    let mut statement = connection.prepare_cached(sql::TOUCHED)?;
    statement
        .query_map(wanted, |row| Ok(Position::new(number(row, 0)?)))?
        .collect()
}
