//! The case about removed events fails on a store that does not say where they were.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod broken;

use std::sync::OnceLock;

use annals_core::conformance::faulty::StoreFault;
use annals_core::conformance::streams;
use annals_core::{Direction, Filter, LogPage, ReadLog, Removed, Store, StoreError};
use async_trait::async_trait;

use broken::fails_on;

fails_on! {
    a_store_that_names_no_removed_events_is_noticed:
        streams::that_are_archived_are_reported_by_pages_of_the_log
            on Spoils(|page| page.removed.clear());
    a_store_that_names_only_the_first_of_a_run_is_noticed:
        streams::that_are_archived_are_reported_by_pages_of_the_log on Spoils(only_the_first);
    a_store_that_calls_an_event_of_the_page_removed_is_noticed:
        streams::that_are_archived_are_reported_by_pages_of_the_log on Spoils(one_too_many);
    a_store_that_names_what_cannot_have_matched_is_noticed:
        streams::that_are_archived_are_reported_by_pages_of_the_log on IgnoresTheFilter;
    a_store_that_forgets_what_was_removed_is_noticed:
        streams::that_are_archived_are_reported_by_pages_of_the_log
            on ForgetsWhenReopened::default();
}

/// Makes something else of every page.
#[derive(Debug)]
struct Spoils(fn(&mut LogPage));

#[async_trait]
impl StoreFault for Spoils {
    async fn read_log(&self, store: &dyn Store, read: ReadLog) -> Result<LogPage, StoreError> {
        let mut page = store.read(read).await?;
        (self.0)(&mut page);
        Ok(page)
    }
}

fn only_the_first(page: &mut LogPage) {
    for run in &mut page.removed {
        run.last = run.first;
    }
}

fn one_too_many(page: &mut LogPage) {
    let removed = page.events.first().map(|event| Removed {
        first: event.position,
        last: event.position,
        stream: event.stream.clone(),
    });
    page.removed.extend(removed);
}

/// Names what was removed whether it may have matched or not.
#[derive(Debug)]
struct IgnoresTheFilter;

#[async_trait]
impl StoreFault for IgnoresTheFilter {
    async fn read_log(&self, store: &dyn Store, read: ReadLog) -> Result<LogPage, StoreError> {
        let page = store.read(read.clone()).await?;
        let (after, up_to) = match read.direction {
            Direction::Forward => (read.after, page.scanned),
            Direction::Backward => (page.scanned.minus(1), read.up_to),
        };
        let mut all = read
            .up_to(up_to)
            .filter(Filter::default())
            .limit(usize::MAX);
        all.after = after;
        let removed = store.read(all).await?.removed;
        Ok(LogPage { removed, ..page })
    }
}

/// Names what was removed since it was opened.
#[derive(Debug, Default)]
struct ForgetsWhenReopened {
    reopened: OnceLock<bool>,
}

#[async_trait]
impl StoreFault for ForgetsWhenReopened {
    async fn read_log(&self, store: &dyn Store, read: ReadLog) -> Result<LogPage, StoreError> {
        let mut page = store.read(read).await?;
        if *self.reopened.get_or_init(|| !page.removed.is_empty()) {
            page.removed.clear();
        }
        Ok(page)
    }
}
