//! A changed key: Debezium writes a delete under the old key and a create under the new one, and
//! here they become one update again.

use crate::columns::Columns;
use crate::record::{BeforeImage, Body, MovedRecord, Record, RowOp};

/// A half of a changed key, with the key of the other half.
pub(super) enum Half {
    /// The delete under the old key.
    Old(Columns),
    /// The create under the new key.
    New(Columns),
}

/// Halves that come one after another are put together; the rest goes on as it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Halves {
    waiting: Option<(Record, Columns)>,
}

impl Halves {
    /// A record that is no half.
    pub(super) fn whole(&mut self, record: Record) -> Vec<Record> {
        self.take(record, None)
    }

    pub(super) fn take(&mut self, record: Record, half: Option<Half>) -> Vec<Record> {
        let waiting = self.waiting.take();
        match (half, waiting) {
            (Some(Half::Old(to)), waiting) => {
                self.waiting = Some((record, to));
                waiting.map(alone).into_iter().collect()
            }
            (Some(Half::New(from)), Some((old, to))) if are_one(&old, &record, &from, &to) => {
                vec![together(old, record)]
            }
            (_, waiting) => waiting.map(alone).into_iter().chain([record]).collect(),
        }
    }

    pub(super) fn flush(&mut self) -> Vec<Record> {
        self.waiting.take().map(alone).into_iter().collect()
    }
}

fn are_one(old: &Record, new: &Record, from: &Columns, to: &Columns) -> bool {
    let (Body::Row(was), Body::Row(is)) = (&old.body, &new.body) else {
        return false;
    };
    let same_place = old.at.lsn == new.at.lsn && old.at.xid == new.at.xid;
    same_place && was.table == is.table && was.key == *from && is.key == *to
}

fn together(old: Record, mut new: Record) -> Record {
    if let (Body::Row(was), Body::Row(is)) = (old.body, &mut new.body) {
        is.op = RowOp::Update;
        is.before = match was.before {
            BeforeImage::None => BeforeImage::Key(was.key),
            before => before,
        };
    }
    new
}

/// A delete whose create is elsewhere: the row goes on, and is not gone.
fn alone((mut old, to): (Record, Columns)) -> Record {
    if let Body::Row(row) = &old.body {
        old.body = Body::Moved(MovedRecord {
            table: row.table.clone(),
            key: row.key.clone(),
            to,
        });
    }
    old
}
