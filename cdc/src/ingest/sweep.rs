//! Rows that go without a record of their own: of a table that was truncated, and of one that was
//! compared with a new snapshot.

use std::sync::Arc;

use annals_core::Partition;
use annals_runner::WorkError;

use super::Placed;
use super::chunk::{before_record, bytes_of, is_full};
use super::live::{LiveRows, TooMany};
use super::mark::{Mark, copy_tried_after};
use super::source::Chunk;
use super::work::{Run, Taking};
use crate::columns::Columns;
use crate::payload::{Because, TruncatePayload};
use crate::record::{At, BeforeImage, Body, Record, RowOp, RowRecord};
use crate::schema::TableName;

impl Taking<'_> {
    /// A truncate, and the deletion of each row that was there.
    pub(super) async fn truncate(
        &mut self,
        run: &mut Run<'_>,
        record: &Record,
        table: &TableName,
        events: &mut Vec<Placed>,
        mark: &Mark,
    ) -> Result<(), WorkError> {
        let Body::Truncate(truncate) = &record.body else {
            return Ok(());
        };
        let store = Arc::clone(self.db.store());
        let store = store.as_ref();
        let mut payload = TruncatePayload {
            cascade: truncate.cascade,
            restart_identity: truncate.restart_identity,
            rows: None,
        };
        let mut keys = Vec::new();
        run.appends.settle().await?;
        let id = run.maker.truncated(record, table, payload)?.1.id;
        let is_here = events.iter().any(|(_, event)| event.id == id);
        let known = store.find(Partition(0), &[id]).await?;
        let is_known = is_here || known.first().is_some_and(Option::is_some);
        if is_known && run.may_be_known {
            // Said again: what the table has now is newer. But a crash may have left a part of it.
            if is_here || !run.unfinished.contains(&id) {
                return Ok(());
            }
        }
        if self.settings.expand_truncates {
            let max = self.settings.sweep_rows_max;
            let live = LiveRows::of(self.db, &run.maker, table, events, None, max).await?;
            let live =
                live.map_err(|TooMany| too_many(table, max, ", or say `truncates_unexpanded`"))?;
            payload.rows = Some(live.len() as u64);
            keys = live.keys(self.db, &run.maker, table, events).await?;
        }
        // A part of it may be in since before a crash.
        if !is_known {
            events.push(run.maker.truncated(record, table, payload)?);
        }
        let bytes_max = self.append_bytes();
        let mut bytes = bytes_of(events);
        for key in keys {
            if is_full(events, bytes, bytes_max) {
                run.unfinished.insert(id);
                // Its own record is not complete with this part, which is not its last.
                self.part(run, events, mark, before_record(record.at))
                    .await?;
                bytes = 0;
            }
            let gone = deleted(table, key, Because::Truncate);
            let gone = run.maker.row(record, &gone, 0, None)?;
            bytes += bytes_of(&gone);
            events.extend(gone);
        }
        run.unfinished.remove(&id);
        Ok(())
    }

    /// Which rows the log has of tables that are read again.
    pub(super) async fn look_for_missing(
        &self,
        run: &mut Run<'_>,
        tables: &[TableName],
    ) -> Result<(), WorkError> {
        run.missing.clear();
        let max = self.settings.sweep_rows_max;
        let store = self.db.store().as_ref();
        let tried_after = copy_tried_after(store, self.name, run.decisions.resync).await?;
        for table in tables {
            let live = LiveRows::of(self.db, &run.maker, table, &[], tried_after, max).await?;
            let live = live.map_err(|TooMany| too_many_rows(table, max))?;
            if !live.is_empty() {
                run.missing.insert(table.clone(), live);
            }
        }
        Ok(())
    }

    /// Whether a row of a snapshot is one that the log has: of a table without a key, as many as
    /// it has of the same content. Nothing else tells such a row from one that was read before.
    pub(super) fn is_known_without_key(&self, run: &mut Run<'_>, record: &Record) -> bool {
        let Body::Row(row) = &record.body else {
            return false;
        };
        if row.op != RowOp::Read || !row.key.is_empty() {
            return false;
        }
        let row = &*self.settings.digests.of(row);
        match (run.missing.get_mut(&row.table), &row.after) {
            (Some(missing), Some(after)) => missing.take_equal(after),
            _ => false,
        }
    }

    /// Whether a row of a snapshot was read by a try of the same copy that did not come to its end,
    /// and is as it was then.
    pub(super) fn was_copied(&self, run: &mut Run<'_>, record: &Record) -> Result<bool, WorkError> {
        let Body::Row(row) = &record.body else {
            return Ok(false);
        };
        if row.op != RowOp::Read || row.key.is_empty() {
            return Ok(false);
        }
        let missing = run.missing.get_mut(&row.table);
        let Some(missing) = missing.filter(|of| of.has_copied()) else {
            return Ok(false);
        };
        let row = &*self.settings.digests.of(row);
        let Some(after) = &row.after else {
            return Ok(false);
        };
        let stream = run.maker.row_stream(&row.table, &row.key)?;
        let was_copied = missing.was_copied(&stream, after);
        if was_copied {
            missing.seen(&stream);
        }
        Ok(was_copied)
    }

    /// Rows that the log has and the snapshot does not are gone.
    pub(super) async fn sweep(
        &mut self,
        run: &mut Run<'_>,
        chunk: &Chunk,
        events: &mut Vec<Placed>,
        mark: &Mark,
    ) -> Result<(), WorkError> {
        let missing = std::mem::take(&mut run.missing);
        let at = At {
            lsn: chunk
                .resume
                .as_ref()
                .and_then(|r| r.lsn())
                .unwrap_or_default(),
            time: Some(self.db.clock().now()),
            ..At::default()
        };
        for (table, live) in missing {
            self.delete(run, &table, &live, at, events, mark).await?;
        }
        Ok(())
    }

    /// Rows of a table that are gone.
    pub(super) async fn delete(
        &mut self,
        run: &mut Run<'_>,
        table: &TableName,
        live: &LiveRows,
        at: At,
        events: &mut Vec<Placed>,
        mark: &Mark,
    ) -> Result<(), WorkError> {
        if live.is_empty() {
            return Ok(());
        }
        let bytes_max = self.append_bytes();
        let mut bytes = bytes_of(events);
        for key in live.keys(self.db, &run.maker, table, &[]).await? {
            // The last deletion is never in a part: it says that it is the last.
            if is_full(events, bytes, bytes_max) {
                bytes = 0;
                let mut part = mark.clone();
                part.snapshot = run.mark.as_ref().and_then(|mark| mark.snapshot);
                self.part(run, events, &part, at).await?;
            }
            let row = deleted(table, key, Because::Sweep);
            // No row of a transaction that was committed there is the same.
            let repeat_key = format!("sweep {} {table} {:?}", at.lsn, row.key);
            let record = Record {
                body: Body::Row(row.clone()),
                at,
                origin: None,
                repeat_key: Some(repeat_key.into()),
            };
            let gone = run.maker.row(&record, &row, 0, None)?;
            bytes += bytes_of(&gone);
            events.extend(gone);
        }
        Ok(())
    }
}

fn deleted(table: &TableName, key: Columns, because: Because) -> RowRecord {
    RowRecord {
        op: RowOp::Delete,
        table: table.clone(),
        before: BeforeImage::Key(key.clone()),
        key,
        after: None,
        unchanged: Vec::new(),
        schema: None,
        because,
        snapshot: None,
    }
}

/// The rows of a table that is compared are too many.
pub(super) fn too_many_rows(table: &TableName, max: usize) -> WorkError {
    too_many(table, max, "")
}

fn too_many(table: &TableName, max: usize, or_else: &str) -> WorkError {
    WorkError::Stopped(format!(
        "table `{table}` has more than {max} rows in the log: raise `sweep_rows_max`{or_else}"
    ))
}
