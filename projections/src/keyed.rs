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
        let by = RowsBy::Keys(keys.to_vec());
        let mut read = ReadRows::of(generation, by).limit(keys.len().max(1));
        let mut rows = HashMap::new();
        let mut checkpoints: Option<Vec<Checkpoint>> = None;
        let mut is_one_moment = true;
        loop {
            let page = views.read_rows(read.clone()).await?;
            rows.extend(page.rows.into_iter().map(|row| (row.key, row.value)));
            let first = checkpoints.get_or_insert_with(|| page.checkpoints.clone());
            is_one_moment &= *first == page.checkpoints;
            if page.next.is_none() {
                break;
            }
            read = read.after(page.next);
        }
        Ok(KeyedRows {
            rows,
            checkpoints: checkpoints.filter(|_| is_one_moment),
        })
    }
}
