//! The cases about limits, identity, neighbours, clocks and archives fail on stores that are wrong
//! in these ways.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod broken;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use annals_core::chrono::{DateTime, Utc};
use annals_core::conformance::faulty::StoreFault;
use annals_core::conformance::{
    append, bounds, faults, identity, shared, snapshots, steps, streams,
};
use annals_core::{
    Append, AppendError, Appended, ChangeStream, CommitError, EventId, Expected, Failure, FoldId,
    IdClash, LogPage, ReadLog, Snapshot, Store, StoreError, StreamState, Version, ViewCommit,
    ViewStore, to_microseconds,
};
use async_trait::async_trait;

use broken::fails_on;

fails_on! {
    a_store_that_looks_at_some_names_only_misses_streams_after_tombstones:
        bounds::a_prefix_finds_streams_after_many_tombstones on SomeNamesOnly::default();
    a_store_that_looks_at_some_names_only_misses_streams_after_refusals:
        bounds::a_prefix_finds_streams_after_many_refused_appends on SomeNamesOnly::default();
    a_store_that_cuts_time_bounds_to_microseconds_is_noticed:
        bounds::a_time_bound_within_a_microsecond_is_exact on CutsTimes;
    a_store_that_repeats_changes_is_noticed:
        identity::a_change_that_is_repeated_is_made_once on ChangesAgain;
    a_store_that_drops_what_is_new_beside_the_known_is_noticed:
        identity::a_known_id_beside_a_new_one_is_refused on DropsWhatIsNew;
    a_store_that_counts_refused_neighbours_is_noticed:
        shared::a_neighbour_that_is_refused_supports_no_expectation on CountsNeighbours::default();
    a_store_that_ends_with_its_clock_is_noticed:
        faults::a_clock_that_panics_fails_its_own_requests_only on EndsWithItsClock::default();
    a_store_that_keeps_snapshots_of_the_archived_is_noticed:
        snapshots::of_an_archived_stream_are_removed_with_its_events on KeepsSnapshots;
    a_store_that_names_no_more_than_a_page_of_removals_is_noticed:
        streams::that_are_archived_at_length_are_reported_over_several_pages on EndsEarly;
    a_store_that_says_of_a_limit_that_it_passes_is_noticed:
        append::beyond_a_limit_is_invalid_and_names_the_limit on LimitsPass;
    a_store_that_says_of_a_wrong_step_that_it_passes_is_noticed:
        steps::that_can_never_succeed_change_nothing on WrongStepsPass;
    a_store_that_keeps_reasons_of_the_archived_is_noticed:
        steps::forget_the_reason_of_what_is_archived on KeepsReasons;
}

/// Looks for a prefix among the first names only, those without events included.
#[derive(Debug, Default)]
struct SomeNamesOnly(Mutex<BTreeSet<String>>);

impl SomeNamesOnly {
    fn knows(&self, name: &str) {
        self.0.lock().unwrap().insert(name.to_owned());
    }
}

#[async_trait]
impl StoreFault for SomeNamesOnly {
    async fn append(&self, store: &dyn Store, append: Append) -> Result<Appended, AppendError> {
        append
            .events
            .iter()
            .for_each(|(stream, _)| self.knows(stream.as_str()));
        store.append(append).await
    }

    async fn change_stream(
        &self,
        store: &dyn Store,
        change: ChangeStream,
    ) -> Result<StreamState, AppendError> {
        self.knows(change.stream.as_str());
        store.change_stream(change).await
    }

    async fn read_log(&self, store: &dyn Store, read: ReadLog) -> Result<LogPage, StoreError> {
        let prefix = read
            .filter
            .stream_prefixes
            .first()
            .cloned()
            .unwrap_or_default();
        let mut page = store.read(read).await?;
        let known = self.0.lock().unwrap();
        let looked_at: BTreeSet<_> = known
            .iter()
            .filter(|name| name.starts_with(&prefix))
            .take(256)
            .collect();
        page.events
            .retain(|event| looked_at.contains(&event.stream.to_string()));
        Ok(page)
    }
}

#[derive(Debug)]
struct CutsTimes;

#[async_trait]
impl StoreFault for CutsTimes {
    async fn read_log(&self, store: &dyn Store, mut read: ReadLog) -> Result<LogPage, StoreError> {
        let cut = |bound: Bound<DateTime<Utc>>| bound.map(to_microseconds);
        for span in [&mut read.filter.occurred, &mut read.filter.recorded] {
            *span = (cut(span.0), cut(span.1));
        }
        store.read(read).await
    }
}

#[derive(Debug)]
struct ChangesAgain;

#[async_trait]
impl StoreFault for ChangesAgain {
    async fn change_stream(
        &self,
        store: &dyn Store,
        change: ChangeStream,
    ) -> Result<StreamState, AppendError> {
        store.change_stream(change.id(EventId::random())).await
    }
}

#[derive(Debug)]
struct DropsWhatIsNew;

#[async_trait]
impl StoreFault for DropsWhatIsNew {
    async fn append(&self, store: &dyn Store, mut append: Append) -> Result<Appended, AppendError> {
        match store.append(append.clone()).await {
            Err(AppendError::IdClash(IdClash::PartlyKnown { first_unknown })) => {
                append.events.remove(first_unknown);
                store.append(append).await
            }
            answer => answer,
        }
    }
}

/// Takes a stream for one that exists as soon as an append to it was tried.
#[derive(Debug, Default)]
struct CountsNeighbours(Mutex<BTreeSet<String>>);

#[async_trait]
impl StoreFault for CountsNeighbours {
    async fn append(&self, store: &dyn Store, mut append: Append) -> Result<Appended, AppendError> {
        let stream = append.events[0].0.clone();
        let expects =
            |append: &Append, expected| append.expectations.contains(&(stream.clone(), expected));
        if expects(&append, Expected::Exists) {
            // Both are in one batch.
            while !self.0.lock().unwrap().contains(stream.as_str()) {
                tokio::task::yield_now().await;
            }
            append = append.expecting(Expected::Any);
        } else {
            self.0.lock().unwrap().insert(stream.to_string());
        }
        store.append(append).await
    }
}

#[derive(Debug, Default)]
struct EndsWithItsClock(AtomicBool);

#[async_trait]
impl StoreFault for EndsWithItsClock {
    async fn append(&self, store: &dyn Store, append: Append) -> Result<Appended, AppendError> {
        if self.0.load(Ordering::SeqCst) {
            return Err(StoreError::new(Failure::Closed, "the writer has ended").into());
        }
        let answer = store.append(append).await;
        self.0.store(answer.is_err(), Ordering::SeqCst);
        answer
    }
}

#[derive(Debug)]
struct KeepsSnapshots;

#[async_trait]
impl StoreFault for KeepsSnapshots {
    async fn change_stream(
        &self,
        store: &dyn Store,
        change: ChangeStream,
    ) -> Result<StreamState, AppendError> {
        let snapshots = store.snapshots().unwrap();
        let fold = FoldId::new("bank::Account", 2);
        let kept: Option<Snapshot> = snapshots
            .newest_snapshot(&change.stream, &fold, Version::MAX)
            .await?;
        let state = store.change_stream(change).await?;
        if let Some(kept) = kept {
            snapshots.save_snapshot(kept).await?;
        }
        Ok(state)
    }
}

#[derive(Debug)]
struct EndsEarly;

#[async_trait]
impl StoreFault for EndsEarly {
    async fn read_log(&self, store: &dyn Store, read: ReadLog) -> Result<LogPage, StoreError> {
        let mut page = store.read(read).await?;
        page.end |= !page.removed.is_empty();
        Ok(page)
    }
}

#[derive(Debug)]
struct LimitsPass;

#[async_trait]
impl StoreFault for LimitsPass {
    async fn append(&self, store: &dyn Store, append: Append) -> Result<Appended, AppendError> {
        store.append(append).await.map_err(|error| match error {
            AppendError::Invalid(said) => {
                StoreError::new(Failure::Unavailable, said.to_string()).into()
            }
            error => error,
        })
    }
}

#[derive(Debug)]
struct WrongStepsPass;

#[async_trait]
impl StoreFault for WrongStepsPass {
    async fn commit_view(
        &self,
        views: &dyn ViewStore,
        step: ViewCommit,
    ) -> Result<(), CommitError> {
        views.commit_view(step).await.map_err(|error| match error {
            CommitError::Invalid(said) => {
                StoreError::new(Failure::Unavailable, said.to_string()).into()
            }
            error => error,
        })
    }
}

/// Does not know which events its dead letters are.
#[derive(Debug)]
struct KeepsReasons;

#[async_trait]
impl StoreFault for KeepsReasons {
    async fn commit_view(
        &self,
        views: &dyn ViewStore,
        mut step: ViewCommit,
    ) -> Result<(), CommitError> {
        for letter in &mut step.dead_letters {
            letter.event = EventId::random();
        }
        views.commit_view(step).await
    }
}
