//! Rows that travel with appends, inside the transaction of the append.

use std::collections::HashSet;

use annals_core::{
    Append, History, InlineRow, Placed, RowChange, RowOutcome, Version, VersionedRow, ViewCommit,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension};

use super::step::{change_indexed_rows, change_rows, keep_versions, touch};
use super::{Abort, generation, stored};
use crate::statements as sql;
use crate::streams::number;
use crate::write_tx::{Refused, Stop};

/// A row that travels, and what is needed to write it.
pub(crate) struct Carried<'a> {
    row: &'a InlineRow,
    to: Version,
    has_indexes: bool,
    keeps: History,
}

/// The rows of an append that are to be written with it: those that stand where they were found.
pub(crate) fn carried<'a>(
    connection: &Connection,
    append: &'a Append,
) -> Result<Vec<Carried<'a>>, Stop> {
    let mut carried = Vec::with_capacity(append.rows.len());
    for row in &append.rows {
        let generation = match generation::by_id(connection, row.generation) {
            Ok(generation) => generation,
            Err(Abort::Refused(_)) => continue,
            Err(Abort::Broken(error)) => return Err(error.into()),
        };
        row.check(&generation).map_err(Refused)?;
        let Some(to) = append.version_after(&row.stream) else {
            continue;
        };
        if stands_at(connection, stored(row.generation.0), &row.key)? == row.from {
            let has_indexes = !generation.spec.indexes.is_empty();
            let keeps = generation.spec.history;
            carried.push(Carried {
                row,
                to,
                has_indexes,
                keeps,
            });
        }
    }
    Ok(carried)
}

impl Carried<'_> {
    /// Writes it, now that the events of its append are.
    pub(crate) fn write(
        &self,
        connection: &Connection,
        placed: &[Placed],
        recorded_at: DateTime<Utc>,
    ) -> Result<(), rusqlite::Error> {
        let Carried {
            row,
            to,
            has_indexes,
            keeps,
        } = self;
        let generation = stored(row.generation.0);
        let InlineRow {
            key,
            value,
            indexed,
            ..
        } = (*row).clone();
        let touched = row
            .touched(placed)
            .into_iter()
            .filter(|_| *keeps == History::Bitemporal);
        touch(
            connection,
            generation,
            touched.map(|position| (key.as_str(), position)),
        )?;
        keep_versions(connection, generation, &row.versions(placed, recorded_at))?;
        save_stand(connection, generation, &key, *to)?;
        let change = [RowChange {
            key,
            value,
            indexed,
        }];
        let write = if *has_indexes {
            change_indexed_rows
        } else {
            change_rows
        };
        write(connection, generation, &change)
    }
}

/// The rows of an inline view that appends brought as far as a step would.
pub(super) fn known_already(
    connection: &Connection,
    commit: &ViewCommit,
) -> Result<HashSet<String>, Abort> {
    let mut known = HashSet::new();
    for step in &commit.stands {
        let stands = stands_at(connection, stored(commit.generation.0), &step.key)?;
        match step.against(stands) {
            RowOutcome::Apply => {}
            RowOutcome::AlreadyApplied => _ = known.insert(step.key.clone()),
            RowOutcome::Fenced => return Err(commit.row_moved(step, stands).into()),
        }
    }
    Ok(known)
}

fn stands_at(
    connection: &Connection,
    generation: i64,
    key: &str,
) -> Result<Version, rusqlite::Error> {
    let mut statement = connection.prepare_cached(sql::ROW_STREAM_VERSION)?;
    let stands = statement
        .query_row((generation, key), |row| number(row, 0))
        .optional()?;
    Ok(stands.map_or(Version::NONE, Version::new))
}

pub(super) fn save_stand(
    connection: &Connection,
    generation: i64,
    key: &str,
    at: Version,
) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(sql::SAVE_ROW_STREAM_VERSION)?
        .execute((generation, key, stored(at.get())))
        .map(|_| ())
}

/// Rows of these keys, which are sorted, and where they stand.
pub(super) fn standing(
    connection: &Connection,
    generation: i64,
    keys: Vec<String>,
) -> Result<Vec<VersionedRow>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(sql::VERSIONED_ROW)?;
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let row = statement.query_row((generation, &key), |row| {
            Ok((
                Version::new(number(row, 0)?),
                row.get::<_, Option<Vec<u8>>>(1)?.map(Bytes::from),
            ))
        });
        if let Some((at, value)) = row.optional()? {
            found.push(VersionedRow { key, value, at });
        }
    }
    Ok(found)
}
