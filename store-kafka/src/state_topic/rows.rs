//! Rows that are to be published, read in parts that are bounded in bytes.

use std::collections::BTreeSet;

use annals_core::{
    CommitError, GenerationId, PAGE_BYTES_MAX, ReadRows, RowPlace, RowsBy, ViewStore,
};
use annals_runner::BatchLimit;
use bytes::Bytes;

/// Keys of one read.
pub(super) const ROWS: usize = 1_000;

/// Keys whose rows are still to be read.
#[derive(Debug)]
pub(super) struct KeysLeft {
    keys: Vec<String>,
    /// Those that are being read, and the ones of them that were not found so far.
    reading: Vec<String>,
    missing: BTreeSet<String>,
    after: Option<RowPlace>,
}

impl KeysLeft {
    pub(super) fn of(keys: impl IntoIterator<Item = String>) -> KeysLeft {
        KeysLeft {
            keys: keys.into_iter().collect(),
            reading: Vec::new(),
            missing: BTreeSet::new(),
            after: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.reading.is_empty()
    }

    /// The next rows as they are now, and nothing for keys without one: up to a page more than may
    /// be in a batch.
    pub(super) async fn next(
        &mut self,
        views: &dyn ViewStore,
        generation: GenerationId,
        limit: &BatchLimit,
    ) -> Result<Vec<(String, Option<Bytes>)>, CommitError> {
        let rows_max = limit.of(ROWS);
        let bytes_max = limit.of(PAGE_BYTES_MAX);
        let mut rows = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max && !self.is_empty() {
            if self.reading.is_empty() {
                let rest = self.keys.len().saturating_sub(rows_max);
                self.reading = self.keys.split_off(rest);
                self.missing = self.reading.iter().cloned().collect();
            }
            let by = RowsBy::Keys(self.reading.clone());
            let read = ReadRows::of(generation, by)
                .after(self.after.take())
                .limit(rows_max);
            let page = views.read_rows(read).await?;
            for row in page.rows {
                self.missing.remove(&row.key);
                bytes += row.key.len() + row.value.len();
                rows.push((row.key, Some(row.value)));
            }
            self.after = page.next;
            if self.after.is_none() {
                self.reading.clear();
                for key in std::mem::take(&mut self.missing) {
                    bytes += key.len();
                    rows.push((key, None));
                }
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use annals_core::{
        Acquired, Checkpoint, GenerationSpec, GenerationStore as _, Leases as _, Log as _,
        MemoryStore, Partition, Position, RowChange, RowStore as _, ViewCommit,
    };

    use super::*;

    /// A generation with these rows.
    async fn with_rows(store: &MemoryStore, rows: Vec<RowChange>) -> GenerationId {
        let spec = GenerationSpec::new("balances", 1, store.id());
        let generation = store.begin_generation(spec).await.unwrap();
        let name = generation.lease_name(0);
        let asked = store.acquire_lease(&name, "worker", Duration::from_secs(60));
        let Acquired::Granted(lease) = asked.await.unwrap() else {
            panic!("a new lease is free");
        };
        let start = Checkpoint::start(0, Partition(0));
        let mut commit = ViewCommit::new(generation.id, lease, Position::START, start);
        commit.rows = rows;
        store.commit_view(commit).await.unwrap();
        generation.id
    }

    /// What is read of these keys, part by part.
    async fn parts(
        store: &MemoryStore,
        generation: GenerationId,
        keys: &[String],
    ) -> Vec<Vec<(String, Option<Bytes>)>> {
        let limit = BatchLimit::default();
        let mut left = KeysLeft::of(keys.iter().cloned());
        let mut parts = Vec::new();
        while !left.is_empty() {
            parts.push(left.next(store, generation, &limit).await.unwrap());
        }
        parts
    }

    #[tokio::test]
    async fn large_rows_come_in_parts_each_once() {
        let store = MemoryStore::new();
        let large = PAGE_BYTES_MAX / 4 * 3;
        let rows = (0..5_u8).map(|number| RowChange {
            key: format!("key-{number}"),
            value: Some(vec![number; large].into()),
            indexed: Vec::new(),
        });
        let generation = with_rows(&store, rows.collect()).await;
        let keys: Vec<String> = (0..7).map(|number| format!("key-{number}")).collect();
        let parts = parts(&store, generation, &keys).await;
        let values = |part: &[(String, Option<Bytes>)]| {
            let values = part.iter().filter_map(|(_, value)| value.as_ref());
            values.map(Bytes::len).sum::<usize>()
        };
        for part in &parts {
            assert!(values(part) <= 2 * PAGE_BYTES_MAX, "{}", values(part));
        }
        let mut found = parts.concat();
        found.sort();
        assert_eq!(found.len(), keys.len());
        for (number, (key, value)) in (0..).zip(&found) {
            assert_eq!(*key, keys[usize::from(number)]);
            let expected = (number < 5).then(|| Bytes::from(vec![number; large]));
            assert!(*value == expected, "another row of {key}");
        }
    }

    #[tokio::test]
    async fn small_rows_come_together_whatever_their_number() {
        let store = MemoryStore::new();
        let generation = with_rows(&store, Vec::new()).await;
        let keys: Vec<String> = (0..2 * ROWS + 1).map(|number| number.to_string()).collect();
        let parts = parts(&store, generation, &keys).await;
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [keys.len()]);
    }
}
