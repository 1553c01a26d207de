//! Deleting, tombstoning, truncating and archiving: what is hidden, what is removed, and what stays
//! as it was.

use chrono::{DateTime, Utc};

use super::Fixture;
use super::append::{STATES, prepare, writing};
use super::words::*;
use crate::append::{AppendError, Expected};
use crate::event::{NewEvent, RecordedEvent};
use crate::position::Position;
use crate::query::Filter;
use crate::read::{Direction, ReadLog, ReadStream};
use crate::removed::PAGE_REMOVED_MAX;
use crate::store::Store;
use crate::stream::{StreamId, Version};
use crate::stream_state::{ChangeStream, Status, StreamChange, StreamState};

fn truncate(before: u64) -> StreamChange {
    StreamChange::Truncate {
        before: Version::new(before),
    }
}

fn archive(before: u64) -> StreamChange {
    StreamChange::Archive {
        before: Version::new(before),
    }
}

async fn change(store: &dyn Store, stream: &StreamId, change: StreamChange) -> StreamState {
    let state = store
        .change_stream(ChangeStream::new(stream, change))
        .await
        .unwrap();
    assert_eq!(
        store.stream_state(stream).await.unwrap(),
        state,
        "the answer is what the stream is then"
    );
    state
}

pub async fn are_changed_exactly_when_the_expectation_holds(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let changes = [
        StreamChange::Delete,
        StreamChange::Tombstone,
        truncate(2),
        archive(2),
    ];
    for (row, (expected, outcomes)) in writing().into_iter().enumerate() {
        for (column, ((state, before, has_events), allowed)) in
            STATES.into_iter().zip(outcomes).enumerate()
        {
            for (way, wanted) in changes.into_iter().enumerate() {
                let name = stream(format!("cell-{row}-{column}-{way}"));
                prepare(&*store, &name, before, has_events).await;
                let found = store.stream_state(&name).await.unwrap();
                let attempt =
                    store.change_stream(ChangeStream::new(&name, wanted).expecting(expected));
                let cell = format!("{wanted:?} × {expected} × {state}");
                if allowed.is_none() {
                    let error = refused(&*store, &[&name], attempt).await;
                    assert_eq!(
                        conflicts(&error),
                        [(0, found.status, found.version.get())],
                        "{cell}"
                    );
                } else if found.status != Status::Active && way > 1 {
                    assert_invalid(&refused(&*store, &[&name], attempt).await, name.as_str());
                } else {
                    let after = attempt
                        .await
                        .unwrap_or_else(|error| panic!("{cell}: {error}"));
                    assert_eq!(store.stream_state(&name).await.unwrap(), after, "{cell}");
                    assert_eq!(after.version, found.version, "{cell}");
                    let status = match (wanted, found.status) {
                        (StreamChange::Tombstone, _) => Status::Tombstoned,
                        (StreamChange::Delete, Status::Active) => Status::Deleted,
                        (_, status) => status,
                    };
                    assert_eq!(after.status, status, "{cell}");
                }
            }
        }
    }
}

pub async fn that_are_deleted_are_empty_and_keep_counting(fixture: &dyn Fixture) {
    let mut store = open(fixture).await;
    let name = stream("reborn-1");
    append(&*store, &name, events(3)).await;
    change(&*store, &name, truncate(2)).await;
    let deleted = change(&*store, &name, StreamChange::Delete).await;
    assert_eq!(
        (deleted.status, deleted.version),
        (Status::Deleted, Version::new(3))
    );
    let [deletion] = deleted.deletions[..] else {
        panic!("{deleted:?}")
    };
    assert_eq!(
        (deletion.version, deletion.position),
        (
            Version::new(3),
            head(&*store, store.partition_of(&name)).await
        )
    );
    assert!(shown(&*store, &name).await.is_empty());
    assert_eq!(kept(&*store, &name).await, [1, 2, 3]);
    let again = unchanged(
        &*store,
        &[&name],
        store.change_stream(ChangeStream::new(&name, StreamChange::Delete)),
    )
    .await;
    assert_eq!(again.unwrap(), deleted, "deleting twice is deleting once");

    store = reopen(fixture, store).await;
    assert_eq!(store.stream_state(&name).await.unwrap(), deleted);
    let appended = try_append(&*store, &name, Expected::NoStream, events(2))
        .await
        .unwrap();
    assert_eq!(versions_of(&appended), [4, 5]);
    assert_eq!(shown(&*store, &name).await, [4, 5]);
    assert_eq!(kept(&*store, &name).await, [1, 2, 3, 4, 5]);
    let state = store.stream_state(&name).await.unwrap();
    assert_eq!(
        (state.status, state.version),
        (Status::Active, Version::new(5))
    );
    assert_eq!(
        state.truncated_before,
        Version::NONE,
        "the truncation mark does not survive"
    );
    assert_eq!(state.deletions, [deletion], "what was is not forgotten");

    let twice = change(&*store, &name, StreamChange::Delete).await;
    let ends: Vec<u64> = twice
        .deletions
        .iter()
        .map(|deletion| deletion.version.get())
        .collect();
    assert_eq!(ends, [3, 5]);
    append(&*store, &name, events(1)).await;
    assert_eq!(shown(&*store, &name).await, [6]);
    assert_eq!(
        change(&*store, &name, StreamChange::Tombstone).await.status,
        Status::Tombstoned
    );
}

pub async fn that_are_absent_stay_so_when_deleted(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let name = stream("never-1");
    for expected in [Expected::Any, Expected::NoStream, version(0)] {
        let attempt =
            store.change_stream(ChangeStream::new(&name, StreamChange::Delete).expecting(expected));
        assert_eq!(
            unchanged(&*store, &[&name], attempt).await.unwrap(),
            StreamState::absent()
        );
    }
    assert_eq!(
        versions_of(
            &try_append(&*store, &name, version(0), events(1))
                .await
                .unwrap()
        ),
        [1]
    );
}

pub async fn that_are_tombstoned_stay_so_for_ever(fixture: &dyn Fixture) {
    let mut store = open(fixture).await;
    let written = stream("ended-1");
    let absent = stream("ended-2");
    append(&*store, &written, events(2)).await;
    for name in [&written, &absent] {
        change(&*store, name, StreamChange::Tombstone).await;
    }
    for reopened in [false, true] {
        if reopened {
            store = reopen(fixture, store).await;
        }
        for (name, version) in [(&written, 2), (&absent, 0)] {
            let state = store.stream_state(name).await.unwrap();
            assert_eq!(
                (state.status, state.version),
                (Status::Tombstoned, Version::new(version))
            );
            for (expected, _) in writing() {
                let error = refused(
                    &*store,
                    &[name],
                    try_append(&*store, name, expected, events(1)),
                )
                .await;
                assert_eq!(
                    conflicts(&error),
                    [(0, Status::Tombstoned, version)],
                    "{expected}"
                );
            }
            for wanted in [
                StreamChange::Delete,
                StreamChange::Tombstone,
                truncate(1),
                archive(1),
            ] {
                let error = refused(
                    &*store,
                    &[name],
                    store.change_stream(ChangeStream::new(name, wanted)),
                )
                .await;
                assert_eq!(
                    conflicts(&error),
                    [(0, Status::Tombstoned, version)],
                    "{wanted:?}"
                );
            }
            assert!(shown(&*store, name).await.is_empty());
        }
        assert_eq!(kept(&*store, &written).await, [1, 2]);
    }
}

pub async fn that_are_truncated_hide_only_earlier_events(fixture: &dyn Fixture) {
    let mut store = open(fixture).await;
    let name = stream("short-1");
    let partition = store.partition_of(&name);
    append(&*store, &name, events(5)).await;
    let log = whole_log(&*store, partition).await;
    for (before, visible) in [(1, &[1, 2, 3, 4, 5][..]), (3, &[3, 4, 5]), (6, &[])] {
        let state = change(&*store, &name, truncate(before)).await;
        assert_eq!(
            (state.status, state.version),
            (Status::Active, Version::new(5))
        );
        assert_eq!(state.truncated_before, Version::new(before));
        assert_eq!(shown(&*store, &name).await, visible);
        assert_eq!(kept(&*store, &name).await, [1, 2, 3, 4, 5]);
        assert_eq!(
            whole_log(&*store, partition).await,
            log,
            "the log is what it was"
        );
    }
    assert_invalid(
        &refused(
            &*store,
            &[&name],
            store.change_stream(ChangeStream::new(&name, truncate(7))),
        )
        .await,
        name.as_str(),
    );
    store = reopen(fixture, store).await;
    assert!(shown(&*store, &name).await.is_empty());
    assert_eq!(
        versions_of(
            &try_append(&*store, &name, version(5), events(1))
                .await
                .unwrap()
        ),
        [6]
    );
    assert_eq!(shown(&*store, &name).await, [6]);
    let backward = ReadStream::of(name.clone()).backward();
    assert_eq!(versions(&read_stream(&*store, backward.clone()).await), [6]);
    assert_eq!(
        versions(&read_stream(&*store, backward.everything().limit(4)).await),
        [6, 5, 4, 3, 2, 1]
    );
}

pub async fn that_are_archived_lose_events_and_reuse_no_position(fixture: &dyn Fixture) {
    let mut store = open(fixture).await;
    let name = stream("archive-1");
    let other = stream("archive-2");
    let partition = store.partition_of(&name);
    let other = stream_in(&*store, partition, other.as_str());
    append(&*store, &name, events(3)).await;
    let between = append(&*store, &other, events(1))
        .await
        .last()
        .position
        .get();
    append(&*store, &name, events(2)).await;
    let end = head(&*store, partition).await;
    for wanted in [archive(0), archive(6)] {
        let error = refused(
            &*store,
            &[&name],
            store.change_stream(ChangeStream::new(&name, wanted)),
        )
        .await;
        assert_invalid(&error, name.as_str());
    }
    for (before, left) in [
        (1, &[1, 2, 3, 4, 5][..]),
        (3, &[3, 4, 5]),
        (2, &[3, 4, 5]),
        (5, &[5]),
    ] {
        let state = change(&*store, &name, archive(before)).await;
        assert_eq!(
            (state.status, state.version),
            (Status::Active, Version::new(5))
        );
        assert_eq!(
            state.archived_before.get(),
            left[0].max(1),
            "an archive is never put back"
        );
        for _ in 0..2 {
            assert_eq!(shown(&*store, &name).await, left);
            assert_eq!(kept(&*store, &name).await, left);
            // Versions 1 to 5 are at these positions, the other stream's event between them.
            let own = [1, 2, 3, 5, 6]
                .into_iter()
                .zip(1..)
                .filter(|(_, version)| left.contains(version));
            let mut expected: Vec<u64> =
                own.map(|(position, _)| position).chain([between]).collect();
            expected.sort_unstable();
            assert_eq!(positions(&whole_log(&*store, partition).await), expected);
            let backward = read_log(
                &*store,
                ReadLog::after(0.into())
                    .partition(partition)
                    .backward()
                    .limit(2),
            )
            .await;
            assert_eq!(backward.len(), expected.len());
            assert_eq!(head(&*store, partition).await, end, "the head stays");
            store = reopen(fixture, store).await;
        }
    }
    let next = try_append(&*store, &name, version(5), events(1))
        .await
        .unwrap();
    assert_eq!(
        (next.last().version, next.last().position),
        (Version::new(6), end.next())
    );
}

pub async fn are_changed_without_a_trace_in_the_log(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let name = stream("quiet-1");
    append(&*store, &name, events(3)).await;
    let log = whole_log(&*store, store.partition_of(&name)).await;
    let before = head(&*store, store.partition_of(&name)).await;
    for wanted in [truncate(2), StreamChange::Delete, StreamChange::Tombstone] {
        change(&*store, &name, wanted).await;
        assert_eq!(head(&*store, store.partition_of(&name)).await, before);
        assert_eq!(whole_log(&*store, store.partition_of(&name)).await, log);
    }
}

pub async fn are_deleted_or_written_but_not_both_under_one_version(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for round in 0..20 {
        let name = stream(format!("either-{round}"));
        append(&*store, &name, events(1)).await;
        let expected = Expected::ActiveAt(Version::FIRST);
        let outcomes = at_once((0..4).map(|racer| {
            let store = std::sync::Arc::clone(&store);
            let name = name.clone();
            async move {
                let outcome = if racer % 2 == 0 {
                    store
                        .change_stream(
                            ChangeStream::new(&name, StreamChange::Delete).expecting(expected),
                        )
                        .await
                        .map(drop)
                } else {
                    try_append(&*store, &name, expected, events(1))
                        .await
                        .map(drop)
                };
                match outcome {
                    Ok(()) => true,
                    Err(AppendError::Conflict(_)) => false,
                    Err(error) => panic!("{error:?}"),
                }
            }
        }))
        .await;
        assert_eq!(outcomes.iter().filter(|won| **won).count(), 1);
    }
}

pub async fn that_are_archived_are_reported_by_pages_of_the_log(fixture: &dyn Fixture) {
    let mut store = open(fixture).await;
    let first = stream("gone-1");
    let partition = store.partition_of(&first);
    let second = stream_in(&*store, partition, "gone-2");
    let whole = stream_in(&*store, partition, "whole-1");
    let named = |name: &'static str| [NewEvent::json(name, "1").tag(tag("of:it"))];
    // Positions 1, 2 and 5 are of the first, 3 and 6 of the second, 4 and 7 of the one that stays.
    for (to, name) in [
        (&first, "opened"),
        (&first, "moved"),
        (&second, "moved"),
        (&whole, "moved"),
        (&first, "moved"),
        (&second, "closed"),
        (&whole, "closed"),
    ] {
        append(&*store, to, named(name)).await;
    }
    let all = ReadLog::after(Position::START).partition(partition);
    assert!(
        removed(&*store, &all).await.is_empty(),
        "nothing was archived"
    );
    change(&*store, &first, archive(3)).await;
    change(&*store, &second, archive(2)).await;
    for _ in 0..2 {
        let of = |filter: Filter| all.clone().filter(filter);
        let prefix = first.as_str().to_owned();
        let since = DateTime::<Utc>::MAX_UTC;
        for (read, expected) in [
            (all.clone(), &[1, 2, 3][..]),
            (all.clone().up_to(Position::new(2)), &[1, 2]),
            (all.clone().backward(), &[1, 2, 3]),
            (
                ReadLog {
                    after: Position::new(1),
                    ..all.clone()
                },
                &[2, 3],
            ),
            (of(Filter::default().types(["moved"])), &[2, 3]),
            (of(Filter::default().types(["opened"])), &[1]),
            (of(Filter::default().types(["closed"])), &[]),
            (of(Filter::default().types(["never"])), &[]),
            (of(Filter::default().category("gone")), &[1, 2, 3]),
            (of(Filter::default().category("whole")), &[]),
            (of(Filter::default().stream_prefix(prefix)), &[1, 2]),
            (of(Filter::default().tag(tag("of:it"))), &[1, 2, 3]),
            (of(Filter::default().tag(tag("of:none"))), &[1, 2, 3]),
            (of(Filter::default().recorded(since..)), &[]),
            (of(Filter::default().occurred(since..)), &[]),
        ] {
            for limit in [1, 2, 100] {
                let read = read.clone().limit(limit);
                assert_eq!(removed(&*store, &read).await, expected, "{read:?}");
            }
        }
        store = reopen(fixture, store).await;
    }
    change(&*store, &first, archive(1)).await;
    change(&*store, &second, StreamChange::Delete).await;
    assert_eq!(removed(&*store, &all).await, [1, 2, 3], "once is for good");
}

pub async fn that_are_archived_at_length_are_reported_over_several_pages(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let of = stream("long-1");
    let partition = store.partition_of(&of);
    let count = PAGE_REMOVED_MAX as u64 + 904;
    let mut given = events(count as usize + 1).into_iter();
    while given.len() > 0 {
        append(&*store, &of, given.by_ref().take(1_000)).await;
    }
    change(&*store, &of, archive(count + 1)).await;
    let all = ReadLog::after(Position::START).partition(partition);
    for read in [all.clone(), all.backward()] {
        let found = removed(&*store, &read).await;
        assert!(found.into_iter().eq(1..=count), "{read:?}");
        assert_eq!(positions(&read_log(&*store, read).await), [count + 1]);
    }
}

/// The removed positions of all pages of a read, lowest first; each is named once, and none that
/// has an event.
async fn removed(store: &dyn Store, read: &ReadLog) -> Vec<u64> {
    let mut read = read.clone();
    let mut found = Vec::new();
    loop {
        let page = store.read(read.clone()).await.unwrap();
        let before = found.len();
        for removed in &page.removed {
            assert!(removed.first <= removed.last, "{removed:?}");
            for position in removed.first.get()..=removed.last.get() {
                let shown = |event: &RecordedEvent| event.position.get() == position;
                assert!(!page.events.iter().any(shown), "{position} has an event");
                found.push(position);
            }
        }
        assert!(found.len() - before <= PAGE_REMOVED_MAX);
        if page.end {
            found.sort_unstable();
            return found;
        }
        match read.direction {
            Direction::Forward => read.after = page.scanned,
            Direction::Backward => read.up_to = page.scanned.minus(1),
        }
    }
}
