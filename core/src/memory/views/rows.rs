//! Rows, history and dead letters in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;

use super::ranges::{after_key, narrowed};
use crate::error::StoreError;
use crate::inline::{InlineViews, VersionedRow};
use crate::memory::MemoryStore;
use crate::position::{Partition, Position};
use crate::read::Direction;
use crate::{
    CommitError, DeadLetter, DeadLetterStore, GenerationId, PastRow, ReadRows, RowStore,
    RowVersion, RowsPage, SkipDecision, ViewCommit,
};

#[async_trait]
impl RowStore for MemoryStore {
    async fn commit_view(&self, commit: ViewCommit) -> Result<(), CommitError> {
        self.read_models().commit(commit)
    }

    async fn read_rows(&self, read: ReadRows) -> Result<RowsPage, CommitError> {
        self.read_models().built(read.generation)?.page(&read)
    }

    async fn read_past(
        &self,
        generation: GenerationId,
        keys: &[String],
        moment: Position,
    ) -> Result<Vec<PastRow>, CommitError> {
        let views = self.read_models();
        let built = views.built(generation)?;
        built.kept_at(moment)?;
        let keys: BTreeSet<&String> = keys.iter().collect();
        Ok(keys
            .into_iter()
            .filter_map(|key| built.past(key, moment))
            .collect())
    }

    async fn past_keys(
        &self,
        generation: GenerationId,
        range: (Bound<String>, Bound<String>),
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, CommitError> {
        let views = self.read_models();
        let built = views.built(generation)?;
        let Some(range) = narrowed(range, after.map(str::to_owned), Direction::Forward) else {
            return Ok(Vec::new());
        };
        let rows = built
            .rows
            .range(range.clone())
            .take(limit)
            .map(|(key, _)| key);
        let versions = built.versions.range(range).take(limit).map(|(key, _)| key);
        let keys: BTreeSet<&String> = rows.chain(versions).collect();
        Ok(keys.into_iter().take(limit).cloned().collect())
    }

    async fn row_versions(
        &self,
        generation: GenerationId,
        key: &str,
        between: (Position, Position),
        limit: usize,
    ) -> Result<Vec<RowVersion>, CommitError> {
        let views = self.read_models();
        let of_key = views
            .built(generation)?
            .versions
            .get(key)
            .into_iter()
            .flat_map(BTreeMap::values);
        let ends_there =
            |version: &&RowVersion| between.0 < version.up_to && version.up_to <= between.1;
        Ok(of_key.filter(ends_there).take(limit).cloned().collect())
    }

    async fn keys_changed_between(
        &self,
        generation: GenerationId,
        between: (Position, Position),
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, CommitError> {
        let views = self.read_models();
        let built = views.built(generation)?;
        built.kept_at(between.0)?;
        let ends_there = |up_to: &Position| between.0 < *up_to && *up_to <= between.1;
        let keys = built.versions.range::<str, _>(after_key(after));
        let changed = keys.filter(|(_, versions)| versions.keys().any(ends_there));
        Ok(changed.take(limit).map(|(key, _)| key.clone()).collect())
    }

    async fn touched(
        &self,
        generation: GenerationId,
        key: &str,
        after: Position,
        up_to: Position,
        limit: usize,
    ) -> Result<Vec<Position>, CommitError> {
        let views = self.read_models();
        let of_key = views
            .built(generation)?
            .touched
            .get(key)
            .into_iter()
            .flatten();
        Ok(of_key
            .filter(|position| after < **position && **position <= up_to)
            .take(limit)
            .copied()
            .collect())
    }

    async fn read_state(
        &self,
        generation: GenerationId,
        slot: u16,
        after: Option<&[u8]>,
        bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, CommitError> {
        let views = self.read_models();
        Ok(views.built(generation)?.state_page(slot, after, bytes_max))
    }

    async fn forget_history(
        &self,
        generation: GenerationId,
        since: Position,
    ) -> Result<(), CommitError> {
        self.read_models().built_mut(generation)?.forget(since);
        Ok(())
    }
}

#[async_trait]
impl DeadLetterStore for MemoryStore {
    async fn dead_letters(
        &self,
        generation: GenerationId,
        after: Option<(&str, Partition, Position)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, CommitError> {
        let after = after.map(|(key, partition, position)| (key.to_owned(), partition, position));
        let views = self.read_models();
        let dead_letters = views
            .built(generation)?
            .dead_letters
            .range(after_key(after.as_ref()));
        Ok(dead_letters
            .take(limit)
            .map(|(_, dead_letters)| dead_letters.clone())
            .collect())
    }

    async fn save_skip_decision(&self, skip_decision: SkipDecision) -> Result<(), StoreError> {
        let place = (
            skip_decision.view.clone(),
            skip_decision.partition,
            skip_decision.position,
            skip_decision.key.clone(),
        );
        self.read_models()
            .skip_decisions
            .insert(place, skip_decision);
        Ok(())
    }

    async fn skip_decisions(&self, view: &str) -> Result<Vec<SkipDecision>, StoreError> {
        let views = self.read_models();
        Ok(views
            .skip_decisions
            .values()
            .filter(|skip_decision| skip_decision.view == view)
            .cloned()
            .collect())
    }
}

#[async_trait]
impl InlineViews for MemoryStore {
    async fn read_versioned(
        &self,
        generation: GenerationId,
        keys: &[String],
    ) -> Result<Vec<VersionedRow>, CommitError> {
        let views = self.read_models();
        let built = views.built(generation)?;
        let keys: BTreeSet<&String> = keys.iter().collect();
        let versions = keys
            .into_iter()
            .filter_map(|key| Some((key, *built.stream_versions.get(key)?)));
        let row = |key: &String| built.rows.get(key).map(|row| row.value.clone());
        Ok(versions
            .map(|(key, at)| VersionedRow {
                key: key.clone(),
                value: row(key),
                at,
            })
            .collect())
    }
}
