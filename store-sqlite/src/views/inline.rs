//! Rows of inline views, written in the transaction of the append that changes them.

use std::collections::HashSet;

use annals_core::{
    Append, History, InlineRow, Placed, RowChange, RowOutcome, Version, VersionedRow, ViewCommit,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension};

use super::step::{change_indexed_rows, change_rows, insert_new_versions, touch};
use super::{Abort, generation, stored};
use crate::statements as sql;
use crate::streams::number;
use crate::write_tx::{Refused, Stop};

/// A row of an append, and what is needed to write it.
pub(crate) struct InlineWrite<'a> {
    row: &'a InlineRow,
    to: Version,
    has_indexes: bool,
    history: History,
}

/// The rows of an append to write with it: those whose stream version is still the one that they
/// were folded from.
pub(crate) fn inline_rows<'a>(
    connection: &Connection,
    append: &'a Append,
) -> Result<Vec<InlineWrite<'a>>, Stop> {
    let mut writes = Vec::with_capacity(append.rows.len());
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
        if stream_version(connection, stored(row.generation.0), &row.key)? == row.from {
            let has_indexes = !generation.spec.indexes.is_empty();
            let history = generation.spec.history;
            writes.push(InlineWrite {
                row,
                to,
                has_indexes,
                history,
            });
        }
    }
    Ok(writes)
}

impl InlineWrite<'_> {
    /// Writes it, now that the events of its append are.
    pub(crate) fn write(
        &self,
        connection: &Connection,
        placed: &[Placed],
        recorded_at: DateTime<Utc>,
    ) -> Result<(), rusqlite::Error> {
        let InlineWrite {
            row,
            to,
            has_indexes,
            history,
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
            .filter(|_| *history == History::Bitemporal);
        touch(
            connection,
            generation,
            touched.map(|position| (key.as_str(), position)),
        )?;
        insert_new_versions(connection, generation, &row.versions(placed, recorded_at))?;
        save_stream_version(connection, generation, &key, *to)?;
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

/// The keys that appends brought as far as the commit would.
pub(super) fn already_applied(
    connection: &Connection,
    commit: &ViewCommit,
) -> Result<HashSet<String>, Abort> {
    let mut applied = HashSet::new();
    for step in &commit.advances {
        let version = stream_version(connection, stored(commit.generation.0), &step.key)?;
        match step.against(version) {
            RowOutcome::Apply => {}
            RowOutcome::AlreadyApplied => _ = applied.insert(step.key.clone()),
            RowOutcome::Fenced => return Err(commit.row_moved(step, version).into()),
        }
    }
    Ok(applied)
}

fn stream_version(
    connection: &Connection,
    generation: i64,
    key: &str,
) -> Result<Version, rusqlite::Error> {
    let mut statement = connection.prepare_cached(sql::ROW_STREAM_VERSION)?;
    let version = statement
        .query_row((generation, key), |row| number(row, 0))
        .optional()?;
    Ok(version.map_or(Version::NONE, Version::new))
}

pub(super) fn save_stream_version(
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

/// Rows of these keys, which are sorted, with the stream versions that they include.
pub(super) fn versioned_rows(
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
