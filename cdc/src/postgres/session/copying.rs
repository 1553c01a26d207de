//! The beginning of a session without a mark: a publication, a slot, and the rows of its snapshot.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use tokio::runtime::Handle;

use super::super::control::Control;
use super::super::errors::{retry, stop};
use super::super::snapshot::Snapshot;
use super::super::transport::Lives;
use super::{Heartbeat, Phase, Session, now};
use crate::ingest::{Chunk, Resume, SnapshotMark, Snapshotting, SourceError};
use crate::lsn::Lsn;
use crate::record::{At, Body, Record, RowRecord};
use crate::schema::{TableName, quoted};

/// How long the server may take to end the session that makes a slot.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(5);

impl Session {
    /// A new slot, whose snapshot is read.
    pub(super) async fn make_slot(&mut self, tables: Vec<TableName>) -> Result<Chunk, SourceError> {
        let slot = self.slot.clone();
        // What is of an earlier try was dropped when the session began.
        if self.control.slot(&slot).await?.is_some() {
            return Err(retry(format!("slot `{slot}` is used by another session")));
        }
        self.is_making_slot = true;
        let made = self.transport.create_slot(&slot, Lives::ForEver);
        let Ok(made) = tokio::time::timeout(self.settings.slot_timeout, made).await else {
            self.gives_up_slot().await;
            return Err(retry(format!(
                "slot `{slot}` was not made within {:?}: it waits for every transaction that was \
                 open and has written; `select pid, xact_start, query from pg_stat_activity where \
                 backend_xid is not null` shows them",
                self.settings.slot_timeout
            )));
        };
        self.is_making_slot = false;
        let (point, snapshot) = made?;
        let time = now();
        self.status.snapshot_of = Some(time);
        self.phase = Phase::MadeSlot {
            tables,
            snapshot,
            point,
            time,
        };
        let begun = SnapshotMark {
            point: Some(point),
            ..SnapshotMark::default()
        };
        Ok(self.chunk(Snapshotting::Rows(begun)))
    }

    /// Ends the session that makes the slot. Else the server would create it later on, and no
    /// mark would name it.
    pub(super) async fn gives_up_slot(&mut self) {
        self.is_making_slot = false;
        let end = format!(
            "select pg_terminate_backend({}, 2000); \
             select pg_drop_replication_slot(slot_name) from pg_catalog.pg_replication_slots \
             where slot_name = '{}' and not active",
            self.transport.process(),
            self.slot
        );
        let ended = self.control.run("cannot give up a slot", end);
        // A server that does not answer is left.
        if !matches!(
            tokio::time::timeout(GIVE_UP_TIMEOUT, ended).await,
            Ok(Ok(()))
        ) {
            tracing::warn!(
                slot = self.slot,
                "a slot that no mark names may be left on the server"
            );
        }
    }

    /// Ends at once: its connections are closed, and with them what they hold on the server. A slot
    /// that is being made is given up meanwhile.
    pub(in super::super) fn abandon(self) {
        if self.is_making_slot
            && let Ok(runtime) = Handle::try_current()
        {
            drop(runtime.spawn(self.end()));
        }
    }

    /// The log knows the slot: its snapshot is read.
    pub(super) async fn begin_to_read(&mut self) -> Result<Chunk, SourceError> {
        let Phase::MadeSlot {
            tables,
            snapshot,
            point,
            time,
        } = &self.phase
        else {
            return Err(retry("no slot was made"));
        };
        let (point, time) = (*point, *time);
        // A transaction that was open when the session began may have changed columns and filters.
        let mut published = self.control.published(&self.publication).await?;
        if !published.iter().map(|of| &of.schema.table).eq(tables) {
            return Err(retry(format!(
                "publication `{}` got other tables before the slot was there: the copy begins \
                 again",
                self.publication
            )));
        }
        if !self.settings.snapshot {
            published.clear();
        }
        if let Some(held) = &self.settings.hold_snapshot {
            held.notified().await;
        }
        let address = &self.address.control;
        let readers = self.settings.readers;
        let snapshot = Snapshot::read(address, snapshot, &published, readers).await?;
        let about = published.iter().map(|of| of.rows_about).sum();
        self.status.snapshot_rows_about = Some(about).filter(|about| *about > 0);
        self.phase = Phase::Reads {
            snapshot,
            point,
            rows: 0,
            time,
        };
        self.read().await
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
    // What a partitioned table has is of its partitions.
    let create = format!(
        "create publication {} for table {} with (publish_via_partition_root = true)",
        quoted(name),
        tables.join(", ")
    );
    let doing = format!(
        "cannot make the publication: a role that owns the tables can do it (`{create}`), and then \
         say `publication(\"{name}\")`"
    );
    control.run(&doing, create).await
}
