//! Snapshots, beside the log.

use annals_core::{FoldId, Snapshot, SnapshotStore, StoreError, StreamId, Version};
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::query;

use crate::database::{ask, to_its_end};
use crate::row::number;
use crate::statements as sql;
use crate::store::PostgresStore;
use crate::views::{owned_bytes, owned_text, stored};

#[async_trait]
impl SnapshotStore for PostgresStore {
    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), StoreError> {
        let database = self.writable()?;
        to_its_end(async move {
            ask!(
                &database,
                query(database.text(sql::SAVE_SNAPSHOT))
                    .bind(snapshot.stream.as_str())
                    .bind(snapshot.fold.name.as_bytes())
                    .bind(i64::from(snapshot.fold.version))
                    .bind(stored(snapshot.version.get()))
                    .bind(snapshot.codec.as_bytes())
                    .bind(&*snapshot.payload)
                    .execute(&database.pool)
            )
            .map(|_| ())
        })
        .await
    }

    async fn newest_snapshot(
        &self,
        stream: &StreamId,
        fold: &FoldId,
        at_most: Version,
    ) -> Result<Option<Snapshot>, StoreError> {
        let database = self.database();
        let found = ask!(
            database,
            query(database.text(sql::NEWEST_SNAPSHOT))
                .bind(stream.as_str())
                .bind(fold.name.as_bytes())
                .bind(i64::from(fold.version))
                .bind(stored(at_most.get()))
                .fetch_optional(&database.pool)
        )?;
        let snapshot = found.map(|row| {
            let version = Version::new(number(&row, 0)?);
            let codec = owned_text(&row, 1)?;
            Ok(Snapshot::new(
                stream.clone(),
                fold.clone(),
                version,
                codec,
                Bytes::from(owned_bytes(&row, 2)?),
            ))
        });
        snapshot
            .transpose()
            .map_err(|error| database.reading(&error))
    }

    async fn delete_snapshot(
        &self,
        stream: &StreamId,
        fold: &FoldId,
        version: Version,
    ) -> Result<(), StoreError> {
        let database = self.writable()?;
        ask!(
            &database,
            query(database.text(sql::DELETE_SNAPSHOT))
                .bind(stream.as_str())
                .bind(fold.name.as_bytes())
                .bind(i64::from(fold.version))
                .bind(stored(version.get()))
                .execute(&database.pool)
        )
        .map(|_| ())
    }
}
