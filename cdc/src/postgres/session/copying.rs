//! The beginning of a session without a mark: a publication, a slot, and the rows of its snapshot.

use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;

use super::super::control::{Control, Published};
use super::super::errors::{retry, stop};
use super::super::snapshot::Snapshot;
use super::super::transport::Lives;
use super::{Heartbeat, Phase, Session, now};
use crate::ingest::{Chunk, Resume, SnapshotMark, Snapshotting, SourceError};
use crate::lsn::Lsn;
use crate::record::{At, Body, Record, RowRecord};
use crate::schema::{TableName, quoted};

impl Session {
    /// A new slot, whose snapshot is read.
    pub(super) async fn make_slot(
        &mut self,
        published: Vec<Published>,
    ) -> Result<Chunk, SourceError> {
        let slot = self.slot.clone();
        if let Some(found) = self.control.slot(&slot).await? {
            if found.active {
                return Err(retry(format!("slot `{slot}` is used by another session")));
            }
            let drop = format!("select pg_drop_replication_slot('{slot}')");
            let doing = format!("cannot drop the slot `{slot}`");
            self.control.run(&doing, drop).await?;
        }
        let made = self.transport.create_slot(&slot, Lives::ForEver);
        let Ok(made) = tokio::time::timeout(self.settings.slot_timeout, made).await else {
            return Err(retry(format!(
                "slot `{slot}` was not made within {:?}: it waits for every transaction that was \
                 open and has written; `select pid, xact_start, query from pg_stat_activity where \
                 backend_xid is not null` shows them",
                self.settings.slot_timeout
            )));
        };
        let (point, name) = made?;
        let tables: &[Published] = if self.settings.snapshot {
            &published
        } else {
            &[]
        };
        if let Some(held) = &self.settings.hold_snapshot {
            held.notified().await;
        }
        let about = tables.iter().map(|of| of.rows_about).sum();
        self.status.snapshot_rows_about = Some(about).filter(|about| *about > 0);
        let time = now();
        self.status.snapshot_of = Some(time);
        self.phase = Phase::Reads {
            snapshot: Snapshot::read(&self.address.control, &name, tables, self.settings.readers),
            point,
            rows: 0,
            time,
        };
        let begun = SnapshotMark {
            point: Some(point),
            ..SnapshotMark::default()
        };
        Ok(self.chunk(Snapshotting::Rows(begun)))
    }

    /// Some rows of the snapshot; after the last ones the stream begins.
    pub(super) async fn read(&mut self) -> Result<Chunk, SourceError> {
        if self.heartbeat.due().now_or_never().is_some() {
            self.measure().await?;
        }
        let Phase::Reads {
            snapshot,
            point,
            rows,
            time,
        } = &mut self.phase
        else {
            return Err(retry("no snapshot is read"));
        };
        let (point, time) = (*point, *time);
        if let Some(read) = snapshot.next().await? {
            let first = *rows;
            *rows += read.len() as u64;
            let so_far = SnapshotMark {
                point: Some(point),
                rows: *rows,
                ..SnapshotMark::default()
            };
            self.status.snapshot_rows = Some(*rows);
            let mut chunk = self.chunk(Snapshotting::Rows(so_far));
            chunk.records = records_of(read, "snapshot", point, first, time);
            return Ok(chunk);
        }
        // Another slot of the name begins later: what was written in between would be lost.
        self.is_the_slot_that_was_made(point).await?;
        self.transport.start().await?;
        self.is_the_slot_that_was_made(point).await?;
        self.phase = Phase::Streams;
        let missed_max = self.heartbeat.next_missed_max();
        self.heartbeat = Heartbeat::every(self.settings.heartbeat, missed_max);
        self.resume = point;
        self.idle = point;
        self.status.snapshot_of = None;
        self.status.snapshot_rows = None;
        self.status.snapshot_rows_about = None;
        self.status.known_to = self.status.known_to.max(Some(time));
        let mut chunk = self.chunk(Snapshotting::Complete);
        chunk.resume = Some(Resume::Lsn(point));
        Ok(chunk)
    }
}

impl Session {
    /// Checks that the slot still begins where the copy was taken: nothing was confirmed to it.
    async fn is_the_slot_that_was_made(&mut self, point: Lsn) -> Result<(), SourceError> {
        let found = self.control.slot(&self.slot).await?;
        match found.and_then(|slot| slot.confirmed) {
            Some(confirmed) if confirmed == point => Ok(()),
            _ => Err(retry(format!(
                "slot `{}` was dropped or made again while the tables were copied: the copy begins \
                 again",
                self.slot
            ))),
        }
    }
}

/// Rows that were read under a snapshot, as records.
pub(super) fn records_of(
    rows: Vec<RowRecord>,
    what: &str,
    point: Lsn,
    first: u64,
    time: DateTime<Utc>,
) -> Vec<Record> {
    let numbered = rows.into_iter().zip(first..);
    let records = numbered.map(|(row, ordinal)| Record {
        // The same row of the same snapshot is the same event, in whatever order it comes.
        repeat_key: (!row.key.is_empty())
            .then(|| format!("{what} {point} {} {:?}", row.table, row.key).into()),
        body: Body::Row(row),
        at: At {
            lsn: point,
            ordinal,
            time: Some(time),
            ..At::default()
        },
        origin: None,
    });
    records.collect()
}

pub(super) async fn make_publication(
    control: &mut Control,
    name: &str,
    tables: &[TableName],
) -> Result<(), SourceError> {
    if tables.is_empty() {
        return Err(stop("no tables were named: say `tables` or `publication`"));
    }
    if let Some(lacking) = control.lacks_table(tables).await? {
        return Err(stop(lacking));
    }
    let tables: Vec<_> = tables.iter().map(TableName::quoted).collect();
    let create = format!(
        "create publication {} for table {}",
        quoted(name),
        tables.join(", ")
    );
    let doing = format!(
        "cannot make the publication: a role that owns the tables can do it (`{create}`), and then \
         say `publication(\"{name}\")`"
    );
    control.run(&doing, create).await
}
