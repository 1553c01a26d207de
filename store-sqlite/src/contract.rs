//! The traits of the contract: each call is a request to the writer thread or to a reader.

use std::sync::Arc;

use annals_core::{
    Append, AppendError, Appended, ChangeStream, EventId, EventStore, Failure, FoldId, Found, Head,
    Hint, InlineViews, Limits, Log, LogId, LogPage, Partition, Position, ReadLog, ReadQuery,
    ReadStream, Snapshot, SnapshotStore, Store, StoreError, StreamId, StreamPage, StreamState,
    TaggedStore, Version, ViewStore,
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::known::{PARTITION, known};
use crate::store::SqliteStore;
use crate::{page, snapshot};

fn check_partition(partition: Partition) -> Result<(), StoreError> {
    if partition == PARTITION {
        return Ok(());
    }
    Err(StoreError::new(
        Failure::Invalid,
        format!("there is no partition {partition}, the log has 1"),
    ))
}

#[async_trait]
impl EventStore for SqliteStore {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.write(Arc::new(append)).await
    }

    async fn append_shared(&self, append: &Arc<Append>) -> Result<Appended, AppendError> {
        self.write(Arc::clone(append)).await
    }

    async fn read_stream(&self, read: ReadStream) -> Result<StreamPage, StoreError> {
        self.readers()?
            .read(move |connection, names| page::of_stream(connection, names, &read))
            .await
    }

    async fn find(
        &self,
        partition: Partition,
        ids: &[EventId],
    ) -> Result<Vec<Option<Found>>, StoreError> {
        check_partition(partition)?;
        let ids = ids.to_vec();
        let find = move |connection: &rusqlite::Connection, id: EventId| {
            Ok(known(connection, id)?.map(|known| known.found))
        };
        self.readers()?
            .read(move |connection, _| ids.into_iter().map(|id| find(connection, id)).collect())
            .await
    }

    async fn stream_state(&self, stream: &StreamId) -> Result<StreamState, StoreError> {
        let stream = stream.clone();
        self.readers()?
            .read(move |connection, names| Ok(names.state(connection, &stream)?.1))
            .await
    }

    async fn change_stream(&self, change: ChangeStream) -> Result<StreamState, AppendError> {
        let clock = Arc::clone(self.clock());
        self.writer()?
            .run((1, 0), move |write_tx| write_tx.change(&change, &*clock))
            .await
    }

    fn limits(&self) -> Limits {
        self.limits_of_appends()
    }
}

#[async_trait]
impl Log for SqliteStore {
    fn id(&self) -> LogId {
        self.log_id()
    }

    fn partitions(&self) -> u32 {
        1
    }

    async fn read(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        read.filter.check()?;
        check_partition(read.partition)?;
        self.readers()?
            .read(move |connection, names| page::of_log(connection, names, &read))
            .await
    }

    async fn head(&self, partition: Partition) -> Result<Head, StoreError> {
        check_partition(partition)?;
        let head = self
            .readers()?
            .read(|connection, _| page::head(connection))
            .await?;
        Ok(Head::at(Position::new(head)))
    }

    async fn position_at(
        &self,
        partition: Partition,
        moment: DateTime<Utc>,
    ) -> Result<Position, StoreError> {
        check_partition(partition)?;
        self.readers()?
            .read(move |connection, _| page::at_moment(connection, moment))
            .await
    }

    fn hint(&self) -> Hint {
        self.hint_of_commits()
    }
}

#[async_trait]
impl TaggedStore for SqliteStore {
    async fn read_query(&self, read: ReadQuery) -> Result<LogPage, StoreError> {
        read.query.check()?;
        self.readers()?
            .read(move |connection, names| page::of_query(connection, names, &read))
            .await
    }
}

#[async_trait]
impl SnapshotStore for SqliteStore {
    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), StoreError> {
        let size = (1, snapshot.payload.len());
        let saved = self
            .writer()?
            .run(size, move |write_tx| snapshot::save(write_tx, &snapshot))
            .await;
        saved.map_err(AppendError::into_store_error)
    }

    async fn newest_snapshot(
        &self,
        stream: &StreamId,
        fold: &FoldId,
        at_most: Version,
    ) -> Result<Option<Snapshot>, StoreError> {
        let stream = stream.clone();
        let fold = fold.clone();
        self.readers()?
            .read(move |connection, _| snapshot::newest(connection, stream, fold, at_most))
            .await
    }

    async fn delete_snapshot(
        &self,
        stream: &StreamId,
        fold: &FoldId,
        version: Version,
    ) -> Result<(), StoreError> {
        let stream = stream.clone();
        let fold = fold.clone();
        let deleted = self
            .writer()?
            .run((1, 0), move |write_tx| {
                snapshot::delete(write_tx, &stream, &fold, version)
            })
            .await;
        deleted.map_err(AppendError::into_store_error)
    }
}

impl Store for SqliteStore {
    fn atomic(&self) -> bool {
        true
    }

    fn tagged(&self) -> Option<&dyn TaggedStore> {
        Some(self)
    }

    fn snapshots(&self) -> Option<&dyn SnapshotStore> {
        Some(self)
    }

    fn views(&self) -> Option<&dyn ViewStore> {
        Some(self)
    }

    fn inline_views(&self) -> Option<&dyn InlineViews> {
        Some(self)
    }
}
