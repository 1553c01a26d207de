//! Snapshots in memory.

use std::sync::PoisonError;

use async_trait::async_trait;

use super::MemoryStore;
use crate::error::StoreError;
use crate::snapshot::{FoldId, Snapshot};
use crate::store::SnapshotStore;
use crate::stream::{StreamId, Version};

#[async_trait]
impl SnapshotStore for MemoryStore {
    async fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), StoreError> {
        let key = (
            snapshot.stream.clone(),
            snapshot.fold.name.clone(),
            snapshot.fold.version,
            snapshot.version,
        );
        self.shared
            .snapshots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, snapshot);
        Ok(())
    }

    async fn newest_snapshot(
        &self,
        stream: &StreamId,
        fold: &FoldId,
        at_most: Version,
    ) -> Result<Option<Snapshot>, StoreError> {
        let key = |version| (stream.clone(), fold.name.clone(), fold.version, version);
        let snapshots = self
            .shared
            .snapshots
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(snapshots
            .range(key(Version::NONE)..=key(at_most))
            .next_back()
            .map(|(_, snapshot)| snapshot.clone()))
    }

    async fn delete_snapshot(
        &self,
        stream: &StreamId,
        fold: &FoldId,
        version: Version,
    ) -> Result<(), StoreError> {
        let key = (stream.clone(), fold.name.clone(), fold.version, version);
        self.shared
            .snapshots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
        Ok(())
    }
}
