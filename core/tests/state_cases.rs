//! Each case about the state of slots fails on a store that breaks its promise.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod broken;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use annals_core::conformance::faulty::StoreFault;
use annals_core::conformance::state;
use annals_core::{CommitError, GenerationId, ViewCommit, ViewStore};
use async_trait::async_trait;
use bytes::Bytes;

use broken::fails_on;

type Page = Result<Vec<(Bytes, Bytes)>, CommitError>;

fails_on! {
    a_store_that_writes_state_before_its_rows_is_noticed:
        state::is_written_with_the_rows_or_not_at_all on BeforeTheRows;
    a_store_that_loses_state_is_noticed:
        state::is_written_with_the_rows_or_not_at_all on Spoils(|step| step.state.clear());
    a_store_that_takes_any_epoch_is_noticed:
        state::is_fenced_by_the_epoch on TakesAnyEpoch;
    a_store_that_orders_by_length_is_noticed:
        state::is_read_in_the_order_of_bytes on ByLength;
    a_store_that_mixes_slots_is_noticed:
        state::is_read_in_the_order_of_bytes on OneForAll;
    a_store_that_ignores_the_size_of_pages_is_noticed:
        state::is_read_in_pages_by_bytes on WholePages;
    a_store_that_cuts_large_values_is_noticed:
        state::holds_a_value_of_a_mebibyte on Spoils(cut);
    a_store_that_calls_dropped_state_empty_is_noticed:
        state::is_gone_with_its_generation on EmptyWhenGone;
    a_store_that_keeps_state_in_memory_is_noticed:
        state::is_there_after_reopening on InThisProcess::default();
}

fn cut(step: &mut ViewCommit) {
    for (_, value) in &mut step.state {
        *value = value
            .take()
            .map(|value| value.slice(..value.len().min(65_535)));
    }
}

struct Spoils(fn(&mut ViewCommit));

impl fmt::Debug for Spoils {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spoils")
    }
}

#[async_trait]
impl StoreFault for Spoils {
    async fn commit_view(
        &self,
        views: &dyn ViewStore,
        mut step: ViewCommit,
    ) -> Result<(), CommitError> {
        (self.0)(&mut step);
        views.commit_view(step).await
    }
}

#[derive(Debug)]
struct BeforeTheRows;

#[async_trait]
impl StoreFault for BeforeTheRows {
    async fn commit_view(
        &self,
        views: &dyn ViewStore,
        mut step: ViewCommit,
    ) -> Result<(), CommitError> {
        let mut first = step.clone();
        first.rows.clear();
        first.versions.clear();
        first.to.position = first.from;
        first.state.dedup_by(|next, before| next.0 == before.0);
        if views.commit_view(first).await.is_ok() {
            step.state.clear();
        }
        views.commit_view(step).await
    }
}

#[derive(Debug)]
struct TakesAnyEpoch;

#[async_trait]
impl StoreFault for TakesAnyEpoch {
    async fn commit_view(
        &self,
        views: &dyn ViewStore,
        mut step: ViewCommit,
    ) -> Result<(), CommitError> {
        let held = views.leases(&step.lease.name).await?;
        step.lease = held[0].lease.clone();
        views.commit_view(step).await
    }
}

/// A store that reads state otherwise.
macro_rules! reads {
    ($name:ident: ($views:ident, $of:ident, $after:ident, $bytes_max:ident) => $page:expr) => {
        #[derive(Debug)]
        struct $name;

        #[async_trait]
        impl StoreFault for $name {
            async fn read_state(
                &self,
                $views: &dyn ViewStore,
                $of: (GenerationId, u16),
                $after: Option<&[u8]>,
                $bytes_max: usize,
            ) -> Page {
                $page
            }
        }
    };
}

reads!(ByLength: (views, of, after, _bytes_max) => {
    let mut all = views.read_state(of.0, of.1, None, usize::MAX).await?;
    all.sort_by_key(|(key, _)| (key.len(), key.clone()));
    all.retain(|(key, _)| after.is_none_or(|after| (key.len(), &key[..]) > (after.len(), after)));
    Ok(all)
});
reads!(OneForAll: (views, of, after, bytes_max) => {
    views.read_state(of.0, 0, after, bytes_max).await
});
reads!(WholePages: (views, of, after, _bytes_max) => {
    views.read_state(of.0, of.1, after, usize::MAX).await
});
reads!(EmptyWhenGone: (views, of, after, bytes_max) => {
    match views.read_state(of.0, of.1, after, bytes_max).await {
        Err(CommitError::Gone(_)) => Ok(Vec::new()),
        answer => answer,
    }
});

/// Keeps state beside the store.
#[derive(Debug, Default)]
struct InThisProcess(Mutex<BTreeMap<Bytes, Bytes>>);

#[async_trait]
impl StoreFault for InThisProcess {
    async fn commit_view(
        &self,
        views: &dyn ViewStore,
        mut step: ViewCommit,
    ) -> Result<(), CommitError> {
        let state = std::mem::take(&mut step.state);
        views.commit_view(step).await?;
        let mut kept = self.0.lock().unwrap();
        for (key, value) in state {
            match value {
                Some(value) => kept.insert(key, value),
                None => kept.remove(&key),
            };
        }
        Ok(())
    }

    async fn read_state(
        &self,
        _: &dyn ViewStore,
        _: (GenerationId, u16),
        after: Option<&[u8]>,
        _: usize,
    ) -> Page {
        let kept = self.0.lock().unwrap();
        let all = kept
            .iter()
            .filter(|(key, _)| after.is_none_or(|after| key[..] > *after));
        Ok(all
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }
}
