//! The cases about the ends of ranges, names and neighbours fail on stores that are wrong in these
//! ways.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod broken;

use std::ops::Bound;

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::conformance::edges;
use annals_core::conformance::faulty::StoreFault;
use annals_core::{
    Append, AppendError, Appended, Direction, Expected, LogPage, ReadLog, Store, StoreError,
};
use async_trait::async_trait;

use broken::fails_on;

fails_on! {
    a_store_that_takes_a_large_limit_for_none_is_noticed:
        edges::reads_from_and_to_both_ends_are_answered on LargeLimits;
    a_store_that_looks_for_prefixes_without_case_is_noticed:
        edges::a_prefix_is_taken_sign_by_sign on WithoutCase;
    a_store_that_trims_the_names_of_types_is_noticed:
        edges::types_and_tags_that_differ_in_one_sign_are_apart on Trims;
    a_store_that_cuts_times_before_1970_upwards_is_noticed:
        edges::moments_before_1970_are_found_to_the_microsecond on CutsUpwards;
    a_store_that_ends_at_a_page_of_removed_events_is_noticed:
        edges::the_last_event_is_found_after_thousands_of_removed_ones on EndsEmpty;
    a_store_that_looks_for_so_many_names_only_is_noticed:
        edges::a_request_of_many_names_is_answered on FewNames;
    a_store_that_takes_one_stream_for_any_is_noticed:
        edges::what_neighbours_are_answered_was_true_at_their_place on Existing;
    a_store_that_forgets_the_ends_of_long_names_is_noticed:
        edges::a_stream_name_of_maximum_length_works_everywhere on ShortNames;
}

macro_rules! reads {
    ($fault:ident, |$read:ident, $store:ident| $answer:expr) => {
        #[derive(Debug)]
        struct $fault;

        #[async_trait]
        impl StoreFault for $fault {
            async fn read_log(
                &self,
                $store: &dyn Store,
                $read: ReadLog,
            ) -> Result<LogPage, StoreError> {
                $answer
            }
        }
    };
}

reads!(LargeLimits, |read, store| {
    let mut read = read;
    if i64::try_from(read.limit).is_err() {
        read.limit = 0;
    }
    store.read(read).await
});

reads!(WithoutCase, |read, store| {
    let mut read = read;
    let prefixes = std::mem::take(&mut read.filter.stream_prefixes);
    let mut page = store.read(read).await?;
    page.events.retain(|event| {
        let name = event.stream.as_str().to_ascii_lowercase();
        prefixes.is_empty()
            || prefixes
                .iter()
                .any(|prefix| name.starts_with(&prefix.to_ascii_lowercase()))
    });
    Ok(page)
});

reads!(Trims, |read, store| {
    let mut read = read;
    let types = std::mem::take(&mut read.filter.types);
    let mut page = store.read(read).await?;
    let wanted = |name: &str| types.iter().any(|of| of.trim() == name.trim());
    page.events
        .retain(|event| types.is_empty() || wanted(&event.event_type));
    Ok(page)
});

reads!(CutsUpwards, |read, store| {
    let mut read = read;
    let up = |at: DateTime<Utc>| match at.timestamp_subsec_nanos() % 1_000 {
        0 => at,
        _ if at.timestamp() < 0 => at + TimeDelta::microseconds(1),
        _ => at,
    };
    let (from, to): (Bound<DateTime<Utc>>, _) = read.filter.recorded;
    read.filter.recorded = (from.map(up), to);
    store.read(read).await
});

reads!(EndsEmpty, |read, store| {
    let mut page = store.read(read.clone()).await?;
    page.end |= page.events.is_empty() && read.direction == Direction::Forward;
    Ok(page)
});

reads!(FewNames, |read, store| {
    let mut read = read;
    read.filter.categories.truncate(32_766);
    store.read(read).await
});

reads!(ShortNames, |read, store| {
    let mut page = store.read(read.clone()).await?;
    let is_long = read.filter.stream_prefixes.iter().any(|of| of.len() > 250);
    page.events.retain(|_| !is_long);
    Ok(page)
});

#[derive(Debug)]
struct Existing;

#[async_trait]
impl StoreFault for Existing {
    async fn append(&self, store: &dyn Store, append: Append) -> Result<Appended, AppendError> {
        let is_exists = |expected: Expected| expected == Expected::Exists;
        match append.expectations.first() {
            Some((_, expected)) if is_exists(*expected) => {
                store.append(append.expecting(Expected::NoStream)).await
            }
            _ => store.append(append).await,
        }
    }
}
