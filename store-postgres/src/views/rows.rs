//! Rows as they are: pages by key and by index, each from one moment.

use std::ops::Bound;

use annals_core::{
    Checkpoint, CommitError, Direction, Generation, GenerationId, Invalid, PAGE_BYTES_MAX,
    Partition, Position, ReadRows, RowPlace, RowsBy, RowsPage, ViewRow,
};
use bytes::Bytes;
use sqlx::postgres::PgRow;
use sqlx::{Error, query};

use super::generation::{index_of, small};
use super::{dead_letters, limited, owned_bytes, owned_text, stored};
use crate::database::Database;
use crate::row::{bytes, int8, number};
use crate::statements as sql;

/// After every text.
const END: &[u8] = &[u8::MAX];

/// Keys from one on, up to but without another: every range is one of these, because the text that
/// comes next after another one is that one and a zero.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) from: Vec<u8>,
    pub(super) to: Vec<u8>,
}

fn next(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

impl Keys {
    pub(super) fn all() -> Keys {
        Keys {
            from: Vec::new(),
            to: END.to_vec(),
        }
    }

    pub(super) fn of((from, to): &(Bound<String>, Bound<String>)) -> Keys {
        let from = match from {
            Bound::Included(key) => key.as_bytes().to_vec(),
            Bound::Excluded(key) => next(key),
            Bound::Unbounded => Vec::new(),
        };
        let to = match to {
            Bound::Included(key) => next(key),
            Bound::Excluded(key) => key.as_bytes().to_vec(),
            Bound::Unbounded => END.to_vec(),
        };
        Keys { from, to }
    }

    pub(super) fn after(mut self, key: Option<&str>) -> Keys {
        if let Some(key) = key {
            self.from = self.from.max(next(key));
        }
        self
    }

    fn turned(mut self, direction: Direction, after: Option<&str>) -> Keys {
        match (direction, after) {
            (Direction::Forward, _) => return self.after(after),
            (Direction::Backward, Some(key)) => self.to = self.to.min(key.as_bytes().to_vec()),
            (Direction::Backward, None) => {}
        }
        self
    }

    fn holds(&self, key: &[u8]) -> bool {
        self.from.as_slice() <= key && key < self.to.as_slice()
    }
}

/// The checkpoints of a generation.
pub(super) async fn checkpoints(
    database: &Database,
    generation: GenerationId,
) -> Result<Result<Vec<Checkpoint>, CommitError>, Error> {
    let found = query(database.text(sql::VIEW_STATE))
        .bind(stored(generation.0))
        .fetch_all(&database.pool)
        .await?;
    let page = page_of(generation, &found, usize::MAX)?;
    Ok(page.map(|page| page.checkpoints))
}

/// A page of rows, and how far the generation had come then.
pub(super) async fn page(
    database: &Database,
    generation: &Generation,
    read: &ReadRows,
) -> Result<Result<RowsPage, CommitError>, Error> {
    let id = stored(generation.id.0);
    let most = limited(read.limit.saturating_add(1));
    let bytes_most = limited(PAGE_BYTES_MAX);
    let after = read.after.as_ref().map(|place| place.key.as_str());
    let found = match &read.by {
        RowsBy::Keys(keys) => {
            let range = Keys::all().turned(read.direction, after);
            let mut keys: Vec<&[u8]> = keys
                .iter()
                .map(String::as_bytes)
                .filter(|key| range.holds(key))
                .collect();
            keys.sort_unstable();
            keys.dedup();
            let statement = sql::ROWS_BY_KEYS;
            query(database.ordered(statement, read.direction))
                .bind(id)
                .bind(keys)
                .bind(most)
                .bind(bytes_most)
        }
        RowsBy::KeyRange(from, to) => {
            let Keys { from, to } =
                Keys::of(&(from.clone(), to.clone())).turned(read.direction, after);
            let statement = sql::ROWS_BY_RANGE;
            query(database.ordered(statement, read.direction))
                .bind(id)
                .bind(from)
                .bind(to)
                .bind(most)
                .bind(bytes_most)
        }
        RowsBy::Index { name, range } => {
            let index = match index_of(&generation.spec, name) {
                Ok(index) => index,
                Err(unknown) => return Ok(Err(unknown.into())),
            };
            let entries = Keys::of(range);
            // Entry and key together, the empty key being the first of each entry.
            let mut from = (entries.from, Vec::new());
            let mut to = (entries.to, Vec::new());
            if let Some(RowPlace { entry, key }) = &read.after {
                let entry = entry.as_bytes().to_vec();
                match read.direction {
                    Direction::Backward => to = to.min((entry, key.as_bytes().to_vec())),
                    _ => from = from.max((entry, next(key))),
                }
            }
            let statement = sql::ROWS_BY_INDEX;
            let query = query(database.ordered(statement, read.direction))
                .bind(id)
                .bind(from.1)
                .bind(to.1)
                .bind(most)
                .bind(bytes_most);
            query.bind(index).bind(from.0).bind(to.0)
        }
        by => {
            return Ok(Err(Invalid::new(format!(
                "rows cannot be read by {by:?} here"
            ))
            .into()));
        }
    };
    page_of(
        generation.id,
        &found.fetch_all(&database.pool).await?,
        read.limit,
    )
}

/// A page from the generation, its checkpoints, and rows, of which there may be one more than fit.
fn page_of(
    id: GenerationId,
    found: &[PgRow],
    limit: usize,
) -> Result<Result<RowsPage, CommitError>, Error> {
    if found.is_empty() {
        return Ok(Err(CommitError::Gone(id)));
    }
    let mut page = RowsPage {
        rows: Vec::new(),
        next: None,
        checkpoints: Vec::new(),
    };
    let mut is_there = false;
    let mut is_over = false;
    let mut size = 0;
    let mut last = None;
    for row in found {
        match int8(row, 0)? {
            0 => is_there = true,
            1 => page.checkpoints.push(checkpoint(row)?),
            _ if page.rows.len() >= limit => is_over = true,
            _ => {
                let value = bytes(row, 2)?.unwrap_or_default();
                size += value.len();
                last = Some(row);
                page.rows.push(ViewRow {
                    key: owned_text(row, 1)?,
                    value: Bytes::copy_from_slice(value),
                });
            }
        }
    }
    if !is_there {
        return Ok(Err(CommitError::Gone(id)));
    }
    if let Some(row) = last.filter(|_| is_over || size >= PAGE_BYTES_MAX) {
        page.next = Some(RowPlace {
            entry: owned_text(row, 3)?,
            key: owned_text(row, 1)?,
        });
    }
    Ok(Ok(page))
}

fn checkpoint(row: &PgRow) -> Result<Checkpoint, Error> {
    Ok(Checkpoint {
        slot: small(row, 4)?,
        partition: Partition(small(row, 5)?),
        position: Position::new(number(row, 6)?),
        event: if bytes(row, 7)?.is_some() {
            Some(dead_letters::event(row, 7)?)
        } else {
            None
        },
        state: Bytes::from(owned_bytes(row, 2)?),
    })
}
