//! Current rows: pages by key and by index, each from one transaction.

use std::ops::Bound;

use annals_core::{
    Checkpoint, Direction, EventId, Generation, Invalid, PAGE_BYTES_MAX, Partition, Position,
    ReadRows, RowPlace, RowsBy, RowsPage, ViewRow,
};
use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Rows, ToSql};
use uuid::Uuid;

use super::{Abort, generation, stored};
use crate::statements as sql;
use crate::streams::number;

/// Keys in [from, to): every range is one of these, because the next text after another one is that
/// one and a zero.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) from: String,
    pub(super) to: End<String>,
}

/// Where a range ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End<T> {
    Before(T),
    Never,
}

/// In SQLite every text comes before every blob.
impl ToSql for End<String> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            End::Before(text) => ValueRef::Text(text.as_bytes()),
            End::Never => ValueRef::Blob(&[]),
        }))
    }
}

pub(super) fn next_text(text: &str) -> String {
    format!("{text}\0")
}

impl Keys {
    pub(super) fn all() -> Keys {
        Keys {
            from: String::new(),
            to: End::Never,
        }
    }

    pub(super) fn of((from, to): (Bound<String>, Bound<String>)) -> Keys {
        let from = match from {
            Bound::Included(key) => key,
            Bound::Excluded(key) => next_text(&key),
            Bound::Unbounded => String::new(),
        };
        let to = match to {
            Bound::Included(key) => End::Before(next_text(&key)),
            Bound::Excluded(key) => End::Before(key),
            Bound::Unbounded => End::Never,
        };
        Keys { from, to }
    }

    pub(super) fn after(mut self, key: Option<&str>) -> Keys {
        if let Some(key) = key {
            self.from = self.from.max(next_text(key));
        }
        self
    }

    fn before(mut self, key: Option<&str>) -> Keys {
        if let Some(key) = key {
            self.to = self.to.min(End::Before(key.to_owned()));
        }
        self
    }

    fn turned(self, direction: Direction, after: Option<&str>) -> Keys {
        match direction {
            Direction::Forward => self.after(after),
            Direction::Backward => self.before(after),
        }
    }

    pub(super) fn holds(&self, key: &str) -> bool {
        let has_ended = matches!(&self.to, End::Before(to) if key >= to.as_str());
        key >= self.from.as_str() && !has_ended
    }
}

/// A page of what a slot keeps for itself.
pub(super) fn state(
    connection: &Connection,
    generation: &Generation,
    slot: u16,
    after: Option<&[u8]>,
    bytes_max: usize,
) -> Result<Vec<(Bytes, Bytes)>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(sql::VIEW_STATE)?;
    let from = after.unwrap_or_default();
    let id = stored(generation.id.0);
    let mut found = statement.query((id, slot, from, after.is_some()))?;
    let mut page = Vec::new();
    let mut bytes = 0;
    while bytes < bytes_max || page.is_empty() {
        let Some(row) = found.next()? else { break };
        let key = Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?);
        let value = Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?);
        bytes += key.len() + value.len();
        page.push((key, value));
    }
    Ok(page)
}

/// The checkpoints of a generation.
pub(super) fn checkpoints(
    connection: &Connection,
    generation: &Generation,
) -> Result<Vec<Checkpoint>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(sql::VIEW_CHECKPOINTS)?;
    let checkpoints = statement.query_map([stored(generation.id.0)], |row| {
        Ok(Checkpoint {
            slot: row.get(0)?,
            partition: Partition(row.get(1)?),
            position: Position::new(number(row, 2)?),
            event: row
                .get::<_, Option<[u8; 16]>>(3)?
                .map(|id| EventId::from_uuid(Uuid::from_bytes(id))),
            state: Bytes::from(row.get::<_, Vec<u8>>(4)?),
        })
    })?;
    checkpoints.collect()
}

/// The rows of a page while it is read.
struct Page<'a> {
    read: &'a ReadRows,
    rows: Vec<ViewRow>,
    bytes: usize,
    last: Option<RowPlace>,
    /// There is a row that does not fit any more.
    is_over: bool,
}

impl Page<'_> {
    /// Adds a row, unless the page is full.
    fn push(
        &mut self,
        place: impl FnOnce() -> Result<RowPlace, rusqlite::Error>,
        value: &[u8],
    ) -> Result<bool, rusqlite::Error> {
        if self.rows.len() >= self.read.limit || self.bytes >= PAGE_BYTES_MAX {
            self.is_over = true;
            return Ok(false);
        }
        let place = place()?;
        self.bytes += value.len();
        self.rows.push(ViewRow {
            key: place.key.clone(),
            value: Bytes::copy_from_slice(value),
        });
        self.last = Some(place);
        Ok(true)
    }

    /// Adds rows with the columns key, value, and perhaps entry.
    fn extend(&mut self, mut rows: Rows<'_>, with_entry: bool) -> Result<(), rusqlite::Error> {
        while let Some(row) = rows.next()? {
            let place = || {
                let entry = if with_entry {
                    row.get(2)?
                } else {
                    String::new()
                };
                Ok(RowPlace {
                    entry,
                    key: row.get(0)?,
                })
            };
            if !self.push(place, row.get_ref(1)?.as_blob()?)? {
                break;
            }
        }
        Ok(())
    }
}

/// A page of rows, and the checkpoints of the generation.
pub(super) fn page(
    connection: &Connection,
    generation: &Generation,
    read: &ReadRows,
) -> Result<RowsPage, Abort> {
    let mut page = Page {
        read,
        rows: Vec::new(),
        bytes: 0,
        last: read.after.clone(),
        is_over: false,
    };
    let id = stored(generation.id.0);
    let after = read.after.as_ref().map(|place| place.key.as_str());
    match &read.by {
        RowsBy::Keys(keys) => by_keys(connection, id, keys, &mut page)?,
        RowsBy::KeyRange(from, to) => {
            let keys = Keys::of((from.clone(), to.clone())).turned(read.direction, after);
            let statement = match read.direction {
                Direction::Forward => sql::ROWS_FORWARD,
                Direction::Backward => sql::ROWS_BACKWARD,
            };
            let mut statement = connection.prepare_cached(statement)?;
            page.extend(statement.query((id, &keys.from, &keys.to))?, false)?;
        }
        RowsBy::Index { name, range } => {
            let index = generation::index_of(generation, name)?;
            let entries = Keys::of(range.clone());
            // Entry and key together; the empty key is the first of each entry.
            let mut from = (entries.from, String::new());
            let mut to = (entries.to, String::new());
            let place = read.after.as_ref().map(|place| (&place.entry, &place.key));
            let statement = match read.direction {
                Direction::Forward => {
                    from = from.max(place.map_or_else(Default::default, |(entry, key)| {
                        (entry.clone(), next_text(key))
                    }));
                    sql::INDEXED_FORWARD
                }
                Direction::Backward => {
                    to = place.map_or(to.clone(), |(entry, key)| {
                        to.min((End::Before(entry.clone()), key.clone()))
                    });
                    sql::INDEXED_BACKWARD
                }
            };
            let mut statement = connection.prepare_cached(statement)?;
            page.extend(
                statement.query((id, index, &from.0, &from.1, &to.0, &to.1))?,
                true,
            )?;
        }
        by => return Err(Invalid::new(format!("rows cannot be read by {by:?} here")).into()),
    }
    let next = if page.is_over { page.last } else { None };
    Ok(RowsPage {
        rows: page.rows,
        next,
        checkpoints: checkpoints(connection, generation)?,
    })
}

fn by_keys(
    connection: &Connection,
    generation: i64,
    keys: &[String],
    page: &mut Page<'_>,
) -> Result<(), rusqlite::Error> {
    let after = page.read.after.as_ref().map(|place| place.key.as_str());
    let range = Keys::all().turned(page.read.direction, after);
    let mut keys: Vec<&str> = keys
        .iter()
        .map(String::as_str)
        .filter(|key| range.holds(key))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    if page.read.direction == Direction::Backward {
        keys.reverse();
    }
    let mut statement = connection.prepare_cached(sql::VIEW_ROW)?;
    for key in keys {
        let mut rows = statement.query((generation, key))?;
        let Some(row) = rows.next()? else { continue };
        let place = || {
            Ok(RowPlace {
                entry: String::new(),
                key: key.to_owned(),
            })
        };
        if !page.push(place, row.get_ref(0)?.as_blob()?)? {
            break;
        }
    }
    Ok(())
}
