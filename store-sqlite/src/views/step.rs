//! A commit of a worker: checked, then written, inside the writer's transaction.

use std::borrow::Cow;

use annals_core::{CommitError, Invalid, Position, RowChange, RowVersion, ViewCommit};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Abort, generation, inline, lease, stored};
use crate::error::{corrupt, is_duplicate};
use crate::statements as sql;
use crate::streams::number;

/// A commit that can succeed on its generation, sorted as the tables are.
#[derive(Debug)]
pub(super) struct Step {
    commit: ViewCommit,
    has_indexes: bool,
}

impl Step {
    /// Rows and bytes that it writes.
    pub(super) fn size(&self) -> (usize, usize) {
        size(&self.commit)
    }
}

/// Rows and bytes that a commit writes.
pub(super) fn size(commit: &ViewCommit) -> (usize, usize) {
    let ViewCommit {
        rows,
        versions,
        touched,
        dead_letters,
        settled_letters,
        advances,
        state,
        ..
    } = commit;
    let of_value = |value: &Option<bytes::Bytes>| value.as_ref().map_or(0, bytes::Bytes::len);
    let of_row = |row: &RowChange| {
        row.key.len() + of_value(&row.value) + row.indexed.iter().map(String::len).sum::<usize>()
    };
    let of_version = |version: &RowVersion| version.key.len() + of_value(&version.value);
    let of_entry =
        |(key, value): &(bytes::Bytes, Option<bytes::Bytes>)| key.len() + of_value(value);
    let bytes = rows.iter().map(of_row).sum::<usize>()
        + versions.iter().map(of_version).sum::<usize>()
        + state.iter().map(of_entry).sum::<usize>()
        + commit.to.state.len();
    let changes = rows.len() + versions.len() + touched.len() + state.len();
    let letters = dead_letters.len() + settled_letters.len();
    (1 + changes + letters + advances.len(), bytes)
}

/// Refuses what can never succeed, and sorts what is written: neighbours share a page of the file.
pub(super) fn prepare(connection: &Connection, mut commit: ViewCommit) -> Result<Step, Abort> {
    let generation = generation::by_id(connection, commit.generation)?;
    commit
        .rows
        .sort_unstable_by(|one, other| one.key.cmp(&other.key));
    commit.check(&generation)?;
    commit
        .versions
        .sort_by(|one, other| one.key.cmp(&other.key));
    commit.touched.sort_unstable();
    commit
        .state
        .sort_unstable_by(|one, other| one.0.cmp(&other.0));
    Ok(Step {
        commit,
        has_indexes: !generation.spec.indexes.is_empty(),
    })
}

/// Checks and writes; when it is refused nothing was changed.
pub(super) fn apply(connection: &Connection, step: &Step) -> Result<(), Abort> {
    check(connection, &step.commit)?;
    write(connection, step)
}

/// Writes a commit that passed its check; only its rows and versions may still refuse it.
pub(super) fn write(connection: &Connection, step: &Step) -> Result<(), Abort> {
    let mut commit = Cow::Borrowed(&step.commit);
    let applied = inline::already_applied(connection, &commit)?;
    if !applied.is_empty() {
        commit.to_mut().without_keys(&applied);
    }
    let commit = &*commit;
    // What may still be refused comes first.
    save_versions(connection, commit)?;
    let generation = stored(commit.generation.0);
    if step.has_indexes {
        change_indexed_rows(connection, generation, &commit.rows)?;
    } else {
        change_rows(connection, generation, &commit.rows)?;
    }
    touch(
        connection,
        generation,
        commit
            .touched
            .iter()
            .map(|(key, position)| (key.as_str(), *position)),
    )?;
    for advance in &commit.advances {
        inline::save_stream_version(connection, generation, &advance.key, advance.to)?;
    }
    save_dead_letters(connection, commit)?;
    save_state(connection, commit)?;
    let to = &commit.to;
    connection
        .prepare_cached(sql::SAVE_VIEW_CHECKPOINT)?
        .execute((
            generation,
            to.slot,
            to.partition.0,
            stored(to.position.get()),
            to.event.as_ref().map(|event| event.as_uuid().as_bytes()),
            &*to.state,
        ))?;
    Ok(())
}

/// Refuses the commit of a worker that lost its lease, or whose checkpoint is another one.
pub(super) fn check(connection: &Connection, commit: &ViewCommit) -> Result<(), Abort> {
    // It may have been dropped since the commit was prepared.
    generation::by_id(connection, commit.generation)?;
    let generation = commit.generation;
    let slot = commit.to.slot;
    let partition = commit.to.partition.0;
    let fenced = |found: String| {
        Err(CommitError::Fenced {
            generation,
            slot,
            found,
        }
        .into())
    };
    match lease::find(connection, &commit.lease.name)? {
        Some(kept) if kept.released => return fenced("the lease was released".into()),
        Some(kept) if kept.lease == commit.lease => {}
        Some(kept) => {
            return fenced(format!(
                "`{}` has epoch {}",
                kept.lease.owner, kept.lease.epoch
            ));
        }
        None => return fenced("the lease is gone".into()),
    }
    let place = (stored(generation.0), slot, partition);
    let checkpoint = connection
        .prepare_cached(sql::VIEW_CHECKPOINT)?
        .query_row(place, |row| number(row, 0))
        .optional()?;
    let checkpoint = checkpoint.map_or(Position::START, Position::new);
    if checkpoint != commit.from {
        return fenced(format!(
            "the checkpoint is {checkpoint}, the commit starts from {}",
            commit.from
        ));
    }
    Ok(())
}

/// Saves versions of rows, or none of them when one is there already.
fn save_versions(connection: &Connection, commit: &ViewCommit) -> Result<(), Abort> {
    let generation = stored(commit.generation.0);
    let (error, count) = match insert_versions(connection, generation, &commit.versions) {
        Ok(()) => return Ok(()),
        Err(failed) => failed,
    };
    if !is_duplicate(&error) {
        return Err(error.into());
    }
    // A savepoint would copy every page that is written, each time, for what almost never happens.
    let mut delete = connection.prepare_cached(sql::DELETE_VERSION_OF_ROW)?;
    for RowVersion { key, up_to, .. } in &commit.versions[..count] {
        delete.execute((generation, stored(up_to.get()), key))?;
    }
    let RowVersion { key, up_to, .. } = &commit.versions[count];
    Err(Invalid::new(format!(
        "key `{}` has a version that ends at {up_to} already",
        key.escape_debug()
    ))
    .into())
}

/// Saves versions of rows; none of them is there already.
pub(super) fn insert_new_versions(
    connection: &Connection,
    generation: i64,
    versions: &[RowVersion],
) -> Result<(), rusqlite::Error> {
    insert_versions(connection, generation, versions).map_err(|(error, _)| error)
}

/// Inserts versions; else the error, and how many were inserted before it.
fn insert_versions(
    connection: &Connection,
    generation: i64,
    versions: &[RowVersion],
) -> Result<(), (rusqlite::Error, usize)> {
    if versions.is_empty() {
        return Ok(());
    }
    let mut insert = connection
        .prepare_cached(sql::INSERT_VERSION_OF_ROW)
        .map_err(|error| (error, 0))?;
    for (count, version) in versions.iter().enumerate() {
        let RowVersion {
            key,
            after,
            up_to,
            recorded_at,
            value,
        } = version;
        let row = params![
            generation,
            key,
            stored(up_to.get()),
            stored(after.get()),
            recorded_at.timestamp_micros(),
            value.as_deref(),
        ];
        insert.execute(row).map_err(|error| (error, count))?;
    }
    Ok(())
}

/// Saves which events touched which key.
pub(super) fn touch<'a>(
    connection: &Connection,
    generation: i64,
    touched: impl Iterator<Item = (&'a str, Position)>,
) -> Result<(), rusqlite::Error> {
    let mut touched = touched.peekable();
    if touched.peek().is_none() {
        return Ok(());
    }
    let mut insert = connection.prepare_cached(sql::INSERT_TOUCHED)?;
    touched.try_for_each(|(key, position)| {
        insert
            .execute((generation, key, stored(position.get())))
            .map(|_| ())
    })
}

pub(super) fn change_rows(
    connection: &Connection,
    generation: i64,
    rows: &[RowChange],
) -> Result<(), rusqlite::Error> {
    let mut save = connection.prepare_cached(sql::SAVE_VIEW_ROW)?;
    let mut delete = connection.prepare_cached(sql::DELETE_VIEW_ROW)?;
    for RowChange { key, value, .. } in rows {
        match value {
            Some(value) => save.execute((generation, key, rusqlite::types::Null, &**value))?,
            None => delete.execute((generation, key))?,
        };
    }
    Ok(())
}

/// As [`change_rows`], with the index entries of the rows: only those that differ are written.
pub(super) fn change_indexed_rows(
    connection: &Connection,
    generation: i64,
    rows: &[RowChange],
) -> Result<(), rusqlite::Error> {
    let mut save = connection.prepare_cached(sql::SAVE_VIEW_ROW)?;
    let mut delete = connection.prepare_cached(sql::DELETE_VIEW_ROW)?;
    let mut entries = connection.prepare_cached(sql::VIEW_ROW_ENTRIES)?;
    let mut insert_entry = connection.prepare_cached(sql::INSERT_VIEW_ENTRY)?;
    let mut delete_entry = connection.prepare_cached(sql::DELETE_VIEW_ENTRY)?;
    let mut before = Vec::new();
    let mut after = Vec::new();
    for RowChange {
        key,
        value,
        indexed,
    } in rows
    {
        before.clear();
        let mut found = entries.query((generation, key))?;
        if let Some(row) = found.next()? {
            before.extend_from_slice(row.get_ref(0)?.as_blob_or_null()?.unwrap_or_default());
        }
        drop(found);
        after.clear();
        indexed.iter().for_each(|entry| pack(&mut after, entry));
        if before != after {
            let mut indexed = indexed.iter();
            let mut known = Packed(&before);
            for index in 0_i64.. {
                let old = known.next().transpose()?;
                let new = indexed.next().map(String::as_str);
                if old.is_none() && new.is_none() {
                    break;
                }
                if old == new {
                    continue;
                }
                if let Some(old) = old {
                    delete_entry.execute((generation, index, old, key))?;
                }
                if let Some(new) = new {
                    insert_entry.execute((generation, index, new, key))?;
                }
            }
        }
        match value {
            Some(value) => save.execute((generation, key, &after, &**value))?,
            None => delete.execute((generation, key))?,
        };
    }
    Ok(())
}

/// Adds an entry to those of a row.
fn pack(entries: &mut Vec<u8>, entry: &str) {
    // An entry was checked to be short.
    entries.extend_from_slice(&(entry.len() as u32).to_le_bytes());
    entries.extend_from_slice(entry.as_bytes());
}

/// The entries of a row.
struct Packed<'a>(&'a [u8]);

impl<'a> Iterator for Packed<'a> {
    type Item = Result<&'a str, rusqlite::Error>;

    fn next(&mut self) -> Option<Result<&'a str, rusqlite::Error>> {
        if self.0.is_empty() {
            return None;
        }
        let entry = self.0.split_first_chunk().and_then(|(length, rest)| {
            let (entry, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            self.0 = rest;
            std::str::from_utf8(entry).ok()
        });
        Some(entry.ok_or_else(|| corrupt("index entries of a row that cannot be decoded")))
    }
}

/// Writes what the slot keeps for itself.
fn save_state(connection: &Connection, commit: &ViewCommit) -> Result<(), rusqlite::Error> {
    if commit.state.is_empty() {
        return Ok(());
    }
    let generation = stored(commit.generation.0);
    let slot = commit.to.slot;
    let mut save = connection.prepare_cached(sql::SAVE_VIEW_STATE)?;
    let mut delete = connection.prepare_cached(sql::DELETE_VIEW_STATE)?;
    for (key, value) in &commit.state {
        match value {
            Some(value) => save.execute((generation, slot, &**key, &**value))?,
            None => delete.execute((generation, slot, &**key))?,
        };
    }
    Ok(())
}

/// Removes the dead letters that were settled, and saves new ones.
fn save_dead_letters(connection: &Connection, commit: &ViewCommit) -> Result<(), rusqlite::Error> {
    let generation = stored(commit.generation.0);
    let partition = commit.to.partition.0;
    for (key, position) in &commit.settled_letters {
        let place = (generation, key, partition, stored(position.get()));
        connection
            .prepare_cached(sql::DELETE_DEAD_LETTER)?
            .execute(place)?;
    }
    for dead_letter in &commit.dead_letters {
        connection
            .prepare_cached(sql::SAVE_DEAD_LETTER)?
            .execute(params![
                generation,
                dead_letter.key,
                partition,
                stored(dead_letter.position.get()),
                dead_letter.event.as_uuid().as_bytes(),
                dead_letter.attempts,
                dead_letter.dead_since.timestamp_micros(),
                dead_letter.reason,
            ])?;
    }
    Ok(())
}
