//! Which rows of a table are there, as the log says: what a truncate deletes, and what a comparison
//! finds missing.

use std::collections::{BTreeMap, HashMap, HashSet};

use annals_core::{Annals, Filter, Position, RecordedEvent, Stored, StreamId};
use annals_runner::{WorkError, not_read_before_removal};
use sha2::{Digest as _, Sha256};

use super::Placed;
use super::events::EventMaker;
use crate::columns::Columns;
use crate::payload::{EventBody, body_of};
use crate::record::RowOp;
use crate::schema::TableName;

/// A stream, in 16 bytes.
pub(super) type Short = [u8; 16];

pub(super) fn short(stream: &str) -> Short {
    let mut short = [0; 16];
    short.copy_from_slice(&Sha256::digest(stream.as_bytes())[..16]);
    short
}

/// The content of a row, in 16 bytes.
fn short_row(row: &Columns) -> Short {
    short(&format!("{row:?}"))
}

/// The rows of a table that are there.
#[derive(Debug, Default)]
pub(super) struct LiveRows {
    rows: HashSet<Short>,
    /// Of a table without a key, how many rows there are of each content.
    equal_rows: HashMap<Short, u64>,
    /// Rows as a try of the same copy has read them that did not come to its end: by their keys,
    /// their content.
    copied: HashMap<Short, Short>,
}

/// What an event does to the row of its stream.
fn is_there_after(event_type: &str) -> Option<bool> {
    match event_type.rsplit_once('.')?.1 {
        "read" | "inserted" | "updated" => Some(true),
        "deleted" | "moved" => Some(false),
        _ => None,
    }
}

/// More rows than may be kept in memory.
#[derive(Debug)]
pub(super) struct TooMany;

impl LiveRows {
    /// Folds the log, then what is to be appended to it. Rows that were read after `tried_after`
    /// are of earlier tries of the same copy.
    pub(super) async fn of(
        db: &Annals,
        maker: &EventMaker,
        table: &TableName,
        pending: &[Placed],
        tried_after: Option<Position>,
        rows_max: usize,
    ) -> Result<Result<LiveRows, TooMany>, WorkError> {
        let mut live = LiveRows::default();
        let mut has_too_many = false;
        let stream = maker.table_stream(table)?;
        each(db, maker, table, |event| {
            live.take(&event.stream, &event.event_type);
            live.take_without_key(event);
            if tried_after.is_some_and(|tried| event.position > tried) {
                live.take_copied(event);
            }
            has_too_many |= live.kept() > rows_max;
            !has_too_many
        })
        .await?;
        for (to, event) in pending
            .iter()
            .filter(|(to, _)| to.category() == stream.as_str())
        {
            live.take(to, &event.event_type);
        }
        Ok(if has_too_many || live.kept() > rows_max {
            Err(TooMany)
        } else {
            Ok(live)
        })
    }

    fn take(&mut self, stream: &StreamId, event_type: &str) {
        // Rows of a table without a key are in the table's own stream.
        if stream.id().is_empty() || stream.id() == stream.as_str() {
            return;
        }
        match is_there_after(event_type) {
            Some(true) => drop(self.rows.insert(short(stream.as_str()))),
            Some(false) => drop(self.rows.remove(&short(stream.as_str()))),
            None => {}
        }
    }

    /// A row that an earlier try has read, or that is another since.
    fn take_copied(&mut self, event: &RecordedEvent) {
        let row = short(event.stream.as_str());
        self.copied.remove(&row);
        if let Ok(EventBody::Row(RowOp::Read, payload)) = body_of(Stored::from(event))
            && !payload.key.is_empty()
            && let Some(after) = &payload.after
        {
            self.copied.insert(row, short_row(after));
        }
    }

    /// Whether an earlier try of the same copy has read any row that is still as it was.
    pub(super) fn has_copied(&self) -> bool {
        !self.copied.is_empty()
    }

    /// Whether an earlier try of the same copy has read the row as it is now.
    pub(super) fn was_copied(&self, stream: &StreamId, row: &Columns) -> bool {
        let copied = self.copied.get(&short(stream.as_str()));
        copied.is_some_and(|copied| *copied == short_row(row))
    }

    /// What an event does to the rows of a table without a key.
    fn take_without_key(&mut self, event: &RecordedEvent) {
        if !event.stream.id().is_empty() && event.stream.id() != event.stream.as_str() {
            return;
        }
        if event.event_type.ends_with(".truncated") {
            self.equal_rows.clear();
        }
        let Ok(EventBody::Row(_, payload)) = body_of(Stored::from(event)) else {
            return;
        };
        if let Some(before) = payload.full_before() {
            self.take_equal(before);
        }
        if let Some(after) = &payload.after {
            *self.equal_rows.entry(short_row(after)).or_default() += 1;
        }
    }

    /// A row without a key: whether one of the same content was there, which is taken out.
    pub(super) fn take_equal(&mut self, row: &Columns) -> bool {
        let row = short_row(row);
        let Some(count) = self.equal_rows.get_mut(&row) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            self.equal_rows.remove(&row);
        }
        true
    }

    /// How many entries are in memory.
    fn kept(&self) -> usize {
        self.rows.len() + self.equal_rows.len()
    }

    /// A row was seen: it is not missing.
    pub(super) fn seen(&mut self, stream: &StreamId) {
        self.seen_short(&short(stream.as_str()));
    }

    /// As `seen`.
    pub(super) fn seen_short(&mut self, stream: &Short) {
        self.rows.remove(stream);
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept() == 0
    }

    /// The keys of these rows, in the order of their streams: by a second look at the log.
    pub(super) async fn keys(
        &self,
        db: &Annals,
        maker: &EventMaker,
        table: &TableName,
        pending: &[Placed],
    ) -> Result<Vec<Columns>, WorkError> {
        if self.rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut keys: HashMap<Short, (String, Columns)> = HashMap::new();
        let mut take = |stream: &StreamId, payload: &[u8]| {
            let short = short(stream.as_str());
            if self.rows.contains(&short)
                && let Some(key) = key_of(payload)
            {
                keys.insert(short, (stream.as_str().to_owned(), key));
            }
        };
        each(db, maker, table, |event| {
            if is_there_after(&event.event_type) == Some(true) {
                take(&event.stream, &event.payload);
            }
            true
        })
        .await?;
        for (stream, event) in pending {
            if is_there_after(&event.event_type) == Some(true) {
                take(stream, &event.payload);
            }
        }
        let ordered: BTreeMap<String, Columns> = keys.into_values().collect();
        Ok(ordered.into_values().collect())
    }
}

fn key_of(payload: &[u8]) -> Option<Columns> {
    #[derive(serde::Deserialize)]
    struct Keyed {
        key: Columns,
    }
    let keyed: Keyed = serde_json::from_slice(payload).ok()?;
    Some(keyed.key)
}

/// Each event of the rows of a table, until the function says that it has enough.
async fn each(
    db: &Annals,
    maker: &EventMaker,
    table: &TableName,
    mut take: impl FnMut(&RecordedEvent) -> bool,
) -> Result<(), WorkError> {
    let what = [
        "read",
        "inserted",
        "updated",
        "deleted",
        "moved",
        "truncated",
    ];
    let types = what.map(|what| maker.event_type(table, what));
    let mut pages = db.events().filter(Filter::default().types(types)).pages();
    while let Some(page) = pages.next().await? {
        if let Some(removed) = page.removed.first() {
            return Err(not_read_before_removal(
                &format!("the comparison of table `{table}`"),
                removed,
                "take the table in under another `prefix`",
            ));
        }
        for event in &page.events {
            if !take(event) {
                return Ok(());
            }
        }
    }
    Ok(())
}
