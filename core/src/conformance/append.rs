//! Appending: expectation × stream state, what comes back, and what is never accepted.

mod content;
mod limits;
mod writers;

use std::sync::Arc;

use super::Fixture;
use super::words::*;
use crate::append::{Append, AppendError, Expected};
use crate::event::NewEvent;
use crate::position::Position;
use crate::read::{ReadLog, ReadStream};
use crate::store::Store;
use crate::stream::{StreamId, Version};
use crate::stream_state::{ChangeStream, StreamChange};

pub use self::content::{
    gives_back_every_byte, is_recorded_at_the_time_of_the_clock,
    keeps_the_event_time_to_the_microsecond, records_no_earlier_time_when_the_clock_goes_back,
    survives_reopening,
};
pub use self::limits::{
    accepts_every_legal_name, beyond_a_limit_is_invalid_and_names_the_limit,
    naming_one_id_twice_is_invalid, up_to_its_limits_is_accepted,
    with_rows_is_refused_by_a_store_without_inline_views, without_events_is_invalid,
};
pub use self::writers::{
    keeps_the_order_of_each_of_four_writers, of_a_new_stream_by_many_succeeds_exactly_once,
    of_a_thousand_events_is_contiguous_and_seen_whole,
    under_a_version_lets_exactly_one_of_four_writers_win,
};

/// A stream before it is written to: each has had `CURRENT` events but the absent one and the last.
pub(super) const STATES: [(&str, &[StreamChange], bool); 5] = [
    ("absent", &[], false),
    ("active", &[], true),
    ("deleted", &[StreamChange::Delete], true),
    ("tombstoned", &[StreamChange::Tombstone], true),
    ("tombstoned while absent", &[StreamChange::Tombstone], false),
];

const CURRENT: u64 = 3;

/// For each expectation the version of the first event that is written, or nothing where it is
/// refused, in each of `STATES`.
pub(super) fn writing() -> Vec<(Expected, [Option<u64>; 5])> {
    let first = Some(1);
    let next = Some(CURRENT + 1);
    let no = None;
    let active_at = |number| Expected::ActiveAt(Version::new(number));
    vec![
        (Expected::Any, [first, next, next, no, no]),
        (Expected::NoStream, [first, no, next, no, no]),
        (Expected::Exists, [no, next, no, no, no]),
        (version(CURRENT), [no, next, next, no, no]),
        (version(CURRENT - 1), [no, no, no, no, no]),
        (version(CURRENT + 1), [no, no, no, no, no]),
        (version(u64::MAX), [no, no, no, no, no]),
        (version(0), [first, no, no, no, no]),
        (active_at(CURRENT), [no, next, no, no, no]),
        (active_at(CURRENT - 1), [no, no, no, no, no]),
        (active_at(CURRENT + 1), [no, no, no, no, no]),
        (active_at(0), [no, no, no, no, no]),
    ]
}

pub(super) async fn prepare(
    store: &dyn Store,
    stream: &StreamId,
    changes: &[StreamChange],
    has_events: bool,
) {
    if has_events {
        append(store, stream, events(CURRENT as usize)).await;
    }
    for change in changes {
        store
            .change_stream(ChangeStream::new(stream, *change))
            .await
            .unwrap();
    }
}

pub async fn happens_exactly_when_its_expectation_holds(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for (row, (expected, outcomes)) in writing().into_iter().enumerate() {
        for (column, ((state, changes, has_events), first)) in
            STATES.into_iter().zip(outcomes).enumerate()
        {
            let to = stream(format!("cell-{row}-{column}"));
            prepare(&*store, &to, changes, has_events).await;
            let given = events(2);
            let before = head(&*store, store.partition_of(&to)).await;
            let outcome = try_append(&*store, &to, expected, given.clone()).await;
            let Some(first) = first else {
                assert!(
                    matches!(outcome, Err(AppendError::Conflict(_))),
                    "{expected} × {state}: {outcome:?}"
                );
                continue;
            };
            let appended = outcome.unwrap_or_else(|error| panic!("{expected} × {state}: {error}"));
            assert_eq!(
                versions_of(&appended),
                [first, first + 1],
                "{expected} × {state}"
            );
            let places: Vec<_> = appended
                .events()
                .iter()
                .map(|placed| placed.position)
                .collect();
            assert_eq!(
                places,
                [before.plus(1), before.plus(2)],
                "{expected} × {state}"
            );
            assert!(!appended.was_repeated());
            assert_recorded(
                &appended,
                &given,
                &read_stream(&*store, ReadStream::of(to).from(Version::new(first))).await,
            );
        }
    }
}

pub async fn that_is_refused_writes_nothing_and_says_what_it_found(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for (row, (expected, outcomes)) in writing().into_iter().enumerate() {
        for (column, ((state, changes, has_events), first)) in
            STATES.into_iter().zip(outcomes).enumerate()
        {
            if first.is_some() {
                continue;
            }
            let to = stream(format!("cell-{row}-{column}"));
            prepare(&*store, &to, changes, has_events).await;
            let given = events(2);
            let error = refused(
                &*store,
                &[&to],
                try_append(&*store, &to, expected, given.clone()),
            )
            .await;
            let found = store.stream_state(&to).await.unwrap();
            assert_eq!(
                conflicts(&error),
                [(0, found.status, found.version.get())],
                "{expected} × {state}"
            );
            assert_eq!(found.version.get(), if has_events { CURRENT } else { 0 });
            assert!(
                error.to_string().contains(to.as_str()),
                "`{error}` does not name the stream"
            );
            let known = store
                .find(store.partition_of(&to), &ids_of(&given))
                .await
                .unwrap();
            assert_eq!(
                known,
                [None, None],
                "{expected} × {state}: the ids of a refused append are known"
            );
        }
    }
}

pub async fn of_a_refused_request_succeeds_once_its_expectation_holds(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("later-1");
    let given = events(2);
    refused(
        &*store,
        &[&to],
        try_append(&*store, &to, version(1), given.clone()),
    )
    .await;
    append(&*store, &to, events(1)).await;
    let appended = try_append(&*store, &to, version(1), given).await.unwrap();
    assert_eq!(
        (versions_of(&appended), appended.was_repeated()),
        (vec![2, 3], false)
    );
}

pub async fn of_many_events_numbers_them_one_after_another(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for count in [1, 99, 100, 101] {
        let to = stream(format!("many-{count}"));
        let partition = store.partition_of(&to);
        let before = head(&*store, partition).await;
        let given = events(count);
        let appended = append(&*store, &to, given.clone()).await;
        let expected: Vec<u64> = (1..=count as u64).collect();
        assert_eq!(versions_of(&appended), expected);
        let after: Vec<u64> = appended
            .events()
            .iter()
            .map(|placed| placed.position.get() - before.get())
            .collect();
        assert_eq!(after, expected, "positions are consecutive");
        assert_eq!(appended.last().version, Version::new(count as u64));
        assert_eq!(
            appended.token().position(partition),
            appended.last().position
        );
        assert_eq!(appended.token().log(), store.id());
        assert_recorded(&appended, &given, &whole_stream(&*store, &to).await);
        assert_recorded(
            &appended,
            &given,
            &read_log(&*store, ReadLog::after(before).partition(partition)).await,
        );
    }
}

pub async fn returns_the_position_after_which_the_next_one_is_read(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for partition in partitions(&*store) {
        let a = stream_in(&*store, partition, "seen");
        let b = stream_in(&*store, partition, "next");
        let mut last = Position::START;
        for _ in 0..5 {
            let seen = append(&*store, &a, events(2)).await.last().position;
            assert!(seen > last, "{seen} is not after {last}");
            assert!(
                head(&*store, partition).await >= seen,
                "the head is before an append that has returned"
            );
            let next = append(&*store, &b, events(1)).await;
            let found = read_log(&*store, ReadLog::after(seen).partition(partition)).await;
            assert_eq!(
                ids(&found),
                [next.last().id],
                "a reader that starts after an append sees the next one"
            );
            last = next.last().position;
        }
    }
}

pub async fn that_is_refused_leaves_no_gap(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("holes-1");
    let known = event("known");
    append(&*store, &to, [known.clone()]).await;
    let changed = NewEvent::json("changed", "1").id(known.id);
    at_once((0..8).map(|writer| {
        let store = Arc::clone(&store);
        let to = to.clone();
        let changed = changed.clone();
        async move {
            for n in 0..20 {
                match (writer + n) % 4 {
                    0 => drop(
                        try_append(&*store, &to, Expected::NoStream, events(3))
                            .await
                            .unwrap_err(),
                    ),
                    1 => drop(
                        try_append(&*store, &to, Expected::Any, [changed.clone()])
                            .await
                            .unwrap_err(),
                    ),
                    2 => drop(
                        try_append(&*store, &to, Expected::Any, [])
                            .await
                            .unwrap_err(),
                    ),
                    _ => drop(
                        store
                            .append(Append::new(to.clone(), events(2)))
                            .await
                            .unwrap(),
                    ),
                }
            }
        }
    }))
    .await;
    let expected: Vec<u64> = (1..=1 + 8 * 5 * 2).collect();
    assert_eq!(shown(&*store, &to).await, expected);
    assert_eq!(
        positions(&whole_log(&*store, store.partition_of(&to)).await),
        expected
    );
}
