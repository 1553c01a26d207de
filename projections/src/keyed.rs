//! The rows of named keys, all of them: a page of a store may end before, by its bytes.

use std::collections::HashMap;

use annals_core::{Checkpoint, CommitError, GenerationId, ReadRows, RowsBy, ViewStore};
use bytes::Bytes;

/// What was read of some keys.
pub(crate) struct KeyedRows {
    /// Those that have a row.
    pub(crate) rows: HashMap<String, Bytes>,
    /// How far the generation had come; nothing when it went on between two pages, so that the rows
    /// are not those of one moment.
    pub(crate) checkpoints: Option<Vec<Checkpoint>>,
}

impl KeyedRows {
    pub(crate) async fn read(
        views: &dyn ViewStore,
        generation: GenerationId,
        keys: &[String],
    ) -> Result<KeyedRows, CommitError> {
        let mut after = None;
        let mut found = HashMap::new();
        let mut checkpoints: Option<Vec<Checkpoint>> = None;
        let mut is_one_moment = true;
        loop {
            let read = ReadRows::of(generation, RowsBy::Keys(keys.to_vec()))
                .after(after)
                .limit(keys.len().max(1));
            let page = views.read_rows(read).await?;
            found.extend(page.rows.into_iter().map(|row| (row.key, row.value)));
            match &checkpoints {
                None => checkpoints = Some(page.checkpoints),
                Some(first) => is_one_moment &= *first == page.checkpoints,
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(KeyedRows {
            rows: found,
            checkpoints: checkpoints.filter(|_| is_one_moment),
        })
    }
}
