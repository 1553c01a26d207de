//! Tables that are read again while the stream goes on: what the stream said of a row since the
//! point of the copy is newer than what the copy says.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use annals_core::{Annals, Invalid, Position, StreamId, Version};
use annals_runner::WorkError;

use super::events::EventMaker;
use super::live::{LiveRows, Short, TooMany, short};
use crate::columns::Columns;
use crate::lsn::Lsn;
use crate::record::{Body, Record, RowOp, RowRecord};
use crate::schema::TableName;

/// The tables that are read again.
#[derive(Debug)]
pub(super) struct TablesAgain {
    tables: BTreeMap<TableName, TableAgain>,
    /// The version of the newest of the requests that it answers.
    pub(super) version: Version,
    /// The LSN that the copy shows, once it is known.
    point: Option<Lsn>,
    /// What the stream said before the point was known.
    early: Vec<(Lsn, TableName, Touch)>,
    rows_max: usize,
}

/// One of them.
#[derive(Debug, Default)]
struct TableAgain {
    /// Rows of the log that neither the copy nor the stream has mentioned.
    missing: LiveRows,
    /// Keys of which the stream spoke after the point.
    touched: HashSet<Short>,
    /// By the key at the point: rows of which the stream did not say every column since.
    waiting: HashMap<Short, Waiting>,
    /// By the key that it has now: the key at the point of a row that waits.
    origins: HashMap<Short, Short>,
    is_emptied: bool,
}

/// A row that changed after the point, of which the copy has what did not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Where its events are now.
    pub(super) stream: StreamId,
    /// The key that it has now.
    pub(super) key: Columns,
    /// What did not change since the point, and was not sent.
    pub(super) columns: Vec<Arc<str>>,
}

/// What a record does to the rows of a table.
#[derive(Clone, Debug)]
enum Touch {
    /// A row is known in whole, or is gone.
    Known(Short),
    /// A row is another, perhaps under another key.
    Changed { from: Short, to: Box<Waiting> },
    /// No row is left.
    Emptied,
}

/// What the stream made of a row of the copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing: it is as the copy says.
    Untouched,
    /// All of it: the copy says nothing new.
    Known,
    /// It lacks some columns, which are as the copy says.
    Waiting(Waiting),
}

impl TablesAgain {
    /// Before the point of the copy is known. A table is named with the position of the request to
    /// read it: a row that was read since then is not appended again.
    pub(super) async fn of(
        db: &Annals,
        maker: &EventMaker,
        tables: &[(TableName, Position)],
        version: Version,
        rows_max: usize,
    ) -> Result<TablesAgain, WorkError> {
        let mut again = TablesAgain {
            tables: BTreeMap::new(),
            version,
            point: None,
            early: Vec::new(),
            rows_max,
        };
        for (table, requested) in tables {
            let live = LiveRows::of(db, maker, table, &[], Some(*requested), rows_max).await?;
            let missing = live.map_err(|TooMany| super::sweep::too_many_rows(table, rows_max))?;
            let of_table = TableAgain {
                missing,
                ..TableAgain::default()
            };
            again.tables.insert(table.clone(), of_table);
        }
        Ok(again)
    }

    /// The copy shows these tables at this point.
    pub(super) fn begins(&mut self, point: Lsn, tables: &[TableName]) {
        self.tables.retain(|table, _| tables.contains(table));
        self.point = Some(point);
        for (lsn, table, touch) in std::mem::take(&mut self.early) {
            if lsn >= point
                && let Some(of_table) = self.tables.get_mut(&table)
            {
                of_table.touch(touch);
            }
        }
    }

    /// Takes note of what the stream says. A truncate has deleted the rows of the log, or has not.
    pub(super) fn note(
        &mut self,
        maker: &EventMaker,
        record: &Record,
        truncates_delete: bool,
    ) -> Result<(), WorkError> {
        match &record.body {
            Body::Row(row) if self.tables.contains_key(&row.table) => {
                for touch in touches(maker, row)? {
                    self.touch(record.at.lsn, &row.table, touch);
                }
            }
            Body::Truncate(truncate) => {
                for table in &truncate.tables {
                    if truncates_delete && let Some(of_table) = self.tables.get_mut(table) {
                        of_table.missing = LiveRows::default();
                    }
                    if self.tables.contains_key(table) {
                        self.touch(record.at.lsn, table, Touch::Emptied);
                    }
                }
            }
            _ => return Ok(()),
        }
        let kept = |of: &TableAgain| of.touched.len().max(of.missing.len());
        let kept = self.early.len().max(self.tables.values().map(kept).sum());
        let table = self.tables.keys().next();
        match table.filter(|_| kept > self.rows_max) {
            Some(table) => Err(super::sweep::too_many_rows(table, self.rows_max)),
            None => Ok(()),
        }
    }

    fn touch(&mut self, lsn: Lsn, table: &TableName, touch: Touch) {
        let Some(of_table) = self.tables.get_mut(table) else {
            return;
        };
        match &touch {
            Touch::Known(row) => of_table.missing.seen_short(row),
            Touch::Changed { from, to } => {
                of_table.missing.seen_short(from);
                of_table.missing.seen(&to.stream);
            }
            Touch::Emptied => {}
        }
        match self.point {
            None => self.early.push((lsn, table.clone(), touch)),
            Some(_) => of_table.touch(touch),
        }
    }

    /// The LSN that the copy shows.
    pub(super) fn point(&self) -> Option<Lsn> {
        self.point
    }

    /// A row of the copy.
    pub(super) fn read(&mut self, table: &TableName, stream: &StreamId) -> Found {
        match self.tables.get_mut(table) {
            Some(of_table) => of_table.read(stream),
            None => Found::Known,
        }
    }

    /// What the log has of a table, when an earlier try has read rows of it.
    pub(super) fn copied(&self, table: &TableName) -> Option<&LiveRows> {
        let missing = self.tables.get(table).map(|of| &of.missing);
        missing.filter(|of| of.has_copied())
    }

    /// The rows of each table that are gone.
    pub(super) fn missing(&mut self) -> Vec<(TableName, LiveRows)> {
        let tables = std::mem::take(&mut self.tables).into_iter();
        tables.map(|(table, of)| (table, of.missing)).collect()
    }
}

/// What a change of a row does.
fn touches(maker: &EventMaker, row: &RowRecord) -> Result<Vec<Touch>, Invalid> {
    if row.key.is_empty() {
        return Ok(Vec::new());
    }
    let stream = maker.row_stream(&row.table, &row.key)?;
    let to = short(stream.as_str());
    Ok(match row.op {
        RowOp::Read => Vec::new(),
        RowOp::Insert | RowOp::Delete => vec![Touch::Known(to)],
        RowOp::Update => {
            let from = match row.moved_from() {
                Some(old) => short(maker.row_stream(&row.table, &old)?.as_str()),
                None => to,
            };
            let to = Box::new(Waiting {
                stream,
                key: row.key.clone(),
                columns: row.unchanged.clone(),
            });
            vec![Touch::Changed { from, to }]
        }
    })
}

impl TableAgain {
    fn touch(&mut self, touch: Touch) {
        match touch {
            Touch::Known(row) => self.known(row),
            Touch::Emptied => {
                self.touched.clear();
                self.waiting.clear();
                self.origins.clear();
                self.is_emptied = true;
            }
            Touch::Changed { from, mut to } => {
                let now = short(to.stream.as_str());
                let origin = match self.origins.get(&from) {
                    Some(origin) => Some(*origin),
                    // Everything since the point is known of it already, or nothing is.
                    None => (!self.touched.contains(&from) && !self.is_emptied).then_some(from),
                };
                if let Some(before) = origin.and_then(|origin| self.waiting.get(&origin)) {
                    to.columns.retain(|name| before.columns.contains(name));
                }
                self.known(from);
                self.known(now);
                if let Some(origin) = origin.filter(|_| !to.columns.is_empty()) {
                    self.origins.insert(now, origin);
                    self.waiting.insert(origin, *to);
                }
            }
        }
    }

    /// What this key has now needs nothing of the copy.
    fn known(&mut self, row: Short) {
        self.touched.insert(row);
        if let Some(origin) = self.origins.remove(&row) {
            self.waiting.remove(&origin);
        }
    }

    fn read(&mut self, stream: &StreamId) -> Found {
        let row = short(stream.as_str());
        self.missing.seen_short(&row);
        if let Some(waiting) = self.waiting.remove(&row) {
            self.origins.remove(&short(waiting.stream.as_str()));
            return Found::Waiting(waiting);
        }
        match self.is_emptied || self.touched.contains(&row) {
            true => Found::Known,
            false => Found::Untouched,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Because;
    use crate::record::{At, BeforeImage, Truncate};

    const POINT: Lsn = Lsn::new(100);

    fn table() -> TableName {
        TableName::new("public", "t")
    }

    fn key(id: u32) -> Columns {
        Columns::default().with("id", Some(&id.to_string()))
    }

    fn maker() -> EventMaker {
        EventMaker::new("postgres 7", "")
    }

    fn record(lsn: u64, body: Body) -> Record {
        let at = At {
            lsn: Lsn::new(lsn),
            ..At::default()
        };
        Record {
            body,
            at,
            origin: None,
            repeat_key: None,
        }
    }

    /// `insert 1`, `delete 1`, `update 1 2 a b`: from key 1 to key 2, without columns a and b.
    fn row(lsn: u64, text: &str) -> Record {
        let words: Vec<&str> = text.split(' ').collect();
        let id = |at: usize| key(words[at].parse().unwrap());
        let (op, before, after, unchanged) = match words[0] {
            "insert" => (RowOp::Insert, BeforeImage::None, id(1), &[][..]),
            "delete" => (RowOp::Delete, BeforeImage::Key(id(1)), id(1), &[][..]),
            _ => (RowOp::Update, BeforeImage::Key(id(1)), id(2), &words[3..]),
        };
        let row = RowRecord {
            op,
            table: table(),
            key: after.clone(),
            before,
            after: Some(after),
            unchanged: unchanged.iter().map(|name| (*name).into()).collect(),
            schema: None,
            because: Because::Deleted,
            snapshot: None,
        };
        record(lsn, Body::Row(row))
    }

    /// What the copy finds of a row, after the point became known between `early` and `late`.
    fn found(early: &[(u64, &str)], late: &[(u64, &str)], id: u32) -> String {
        let mut again = TablesAgain {
            tables: BTreeMap::from([(table(), TableAgain::default())]),
            version: Version::NONE,
            point: None,
            early: Vec::new(),
            rows_max: 100,
        };
        let say = |again: &mut TablesAgain, (lsn, text): &(u64, &str)| {
            let said = match *text {
                "truncate" => record(
                    *lsn,
                    Body::Truncate(Truncate {
                        tables: vec![table()],
                        cascade: None,
                        restart_identity: None,
                    }),
                ),
                text => row(*lsn, text),
            };
            again.note(&maker(), &said, true).unwrap();
        };
        early.iter().for_each(|said| say(&mut again, said));
        again.begins(POINT, &[table()]);
        late.iter().for_each(|said| say(&mut again, said));
        let stream = maker().row_stream(&table(), &key(id)).unwrap();
        match again.read(&table(), &stream) {
            Found::Untouched => "untouched".into(),
            Found::Known => "known".into(),
            Found::Waiting(waiting) => format!("{} lacks {:?}", waiting.stream, waiting.columns),
        }
    }

    #[test]
    fn what_the_stream_said_after_the_point_is_newer() {
        let rows: [(&[(u64, &str)], &str); 12] = [
            (&[], "untouched"),
            (&[(100, "insert 1")], "known"),
            (&[(100, "delete 1")], "known"),
            (&[(100, "update 1 1")], "known"),
            (
                &[(100, "update 1 1 a b")],
                "public.t-1 lacks [\"a\", \"b\"]",
            ),
            (
                &[(100, "update 1 1 a b"), (101, "update 1 1 b c")],
                "public.t-1 lacks [\"b\"]",
            ),
            (&[(100, "update 1 1 a"), (101, "update 1 1 b")], "known"),
            (
                &[(100, "update 1 2 a b"), (101, "update 2 3 a")],
                "public.t-3 lacks [\"a\"]",
            ),
            (&[(100, "update 1 1 a"), (101, "delete 1")], "known"),
            (&[(100, "update 1 2 a"), (101, "delete 2")], "known"),
            (
                &[
                    (100, "update 1 2 a"),
                    (101, "insert 1"),
                    (102, "update 1 1 b"),
                ],
                "public.t-2 lacks [\"a\"]",
            ),
            (&[(100, "update 1 1 a"), (101, "truncate")], "known"),
        ];
        for (said, wanted) in rows {
            assert_eq!(found(said, &[], 1), wanted, "{said:?} before it was known");
            assert_eq!(found(&[], said, 1), wanted, "{said:?} after it was known");
        }
    }

    #[test]
    fn changes_before_the_point_are_in_the_copy() {
        for said in ["insert 1", "update 1 1 a", "update 2 1 a", "truncate"] {
            assert_eq!(found(&[(99, said)], &[], 1), "untouched", "{said}");
        }
    }

    #[test]
    fn a_key_that_another_row_took_waits_for_that_row() {
        let said = [(100, "delete 2"), (101, "update 1 2 a")];
        assert_eq!(found(&[], &said, 1), "public.t-2 lacks [\"a\"]");
        assert_eq!(found(&[], &said, 2), "known");
        let swapped = [
            (100, "update 1 3 a"),
            (101, "update 2 1 a"),
            (102, "update 3 2 a"),
        ];
        assert_eq!(found(&[], &swapped, 1), "public.t-2 lacks [\"a\"]");
        assert_eq!(found(&[], &swapped, 2), "public.t-1 lacks [\"a\"]");
    }
}
