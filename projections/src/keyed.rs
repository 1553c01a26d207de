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
        let last = keys.iter().max();
        let mut after = None;
        let mut found = HashMap::new();
        let mut checkpoints: Option<Vec<Checkpoint>> = None;
        let mut is_one_moment = true;
        loop {
            let read = ReadRows::of(generation, RowsBy::Keys(keys.to_vec()))
                .after(after)
                .limit(keys.len().max(1));
            let page = views.read_rows(read).await?;
            // A page that is full may say that more follows where nothing does.
            let is_last = page.rows.last().map(|row| &row.key) == last;
            found.extend(page.rows.into_iter().map(|row| (row.key, row.value)));
            match &checkpoints {
                None => checkpoints = Some(page.checkpoints),
                Some(first) => is_one_moment &= *first == page.checkpoints,
            }
            after = page.next;
            if is_last || after.is_none() {
                break;
            }
        }
        Ok(KeyedRows {
            rows: found,
            checkpoints: checkpoints.filter(|_| is_one_moment),
        })
    }

    /// The row of a key, if it has one, and how far the generation had come then: a row alone is a
    /// page.
    pub(crate) async fn one(
        views: &dyn ViewStore,
        generation: GenerationId,
        key: &str,
    ) -> Result<(Option<Bytes>, Vec<Checkpoint>), CommitError> {
        let read = ReadRows::of(generation, RowsBy::Keys(vec![key.to_owned()])).limit(1);
        let page = views.read_rows(read).await?;
        let row = page.rows.into_iter().next();
        Ok((row.map(|row| row.value), page.checkpoints))
    }
}
