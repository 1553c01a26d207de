//! Reading a stream: ranges, directions, limits and pages.

use std::sync::Arc;

use super::Fixture;
use super::words::*;
use crate::event::NewEvent;
use crate::position::Position;
use crate::read::{PAGE_BYTES_MAX, ReadLog, ReadStream};
use crate::stream::{StreamId, Version};
use crate::stream_state::{ChangeStream, Status, StreamChange};

pub async fn of_an_unknown_stream_is_empty(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let unknown = stream("unknown-1");
    let known = stream("unknown-10");
    append(&*store, &known, events(1)).await;
    for read in [
        ReadStream::of(unknown.clone()),
        ReadStream::of(unknown.clone()).backward().everything(),
    ] {
        let page = store.read_stream(read).await.unwrap();
        assert!(page.events.is_empty() && page.next.is_none());
        assert_eq!(
            (page.state.status, page.state.version),
            (Status::Absent, Version::NONE)
        );
    }
    assert_eq!(
        store.stream_state(&unknown).await.unwrap().status,
        Status::Absent
    );
}

pub async fn says_what_the_stream_is(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("state-1");
    append(&*store, &to, events(3)).await;
    let changes = [
        StreamChange::Truncate {
            before: Version::new(2),
        },
        StreamChange::Delete,
        StreamChange::Tombstone,
    ];
    let read = || async {
        store
            .read_stream(ReadStream::of(to.clone()).limit(1))
            .await
            .unwrap()
    };
    for (change, status) in
        changes
            .into_iter()
            .zip([Status::Active, Status::Deleted, Status::Tombstoned])
    {
        let state = store
            .change_stream(ChangeStream::new(&to, change))
            .await
            .unwrap();
        let page = read().await;
        assert_eq!(page.state, state);
        assert_eq!(
            (page.state.status, page.state.version),
            (status, Version::new(3))
        );
        assert_eq!(page.head, head(&*store, store.partition_of(&to)).await);
    }
}

/// From, to, limit, backward, and the versions that the first page must show of a journal of five.
const RANGES: [(u64, u64, usize, bool, &[u64]); 20] = [
    (1, 99, 9, false, &[1, 2, 3, 4, 5]),
    (0, 99, 9, false, &[1, 2, 3, 4, 5]),
    (3, 99, 9, false, &[3, 4, 5]),
    (1, 3, 9, false, &[1, 2, 3]),
    (2, 5, 2, false, &[2, 3]),
    (3, 2, 9, false, &[]),
    (5, 5, 9, false, &[5]),
    (6, 99, 9, false, &[]),
    (90, u64::MAX, 9, false, &[]),
    (1, 0, 9, false, &[]),
    // At least one is asked for, else a page would get nowhere.
    (1, 99, 0, false, &[1]),
    (1, 99, 1, false, &[1]),
    (1, u64::MAX, usize::MAX, false, &[1, 2, 3, 4, 5]),
    (1, 99, 9, true, &[5, 4, 3, 2, 1]),
    (2, 4, 9, true, &[4, 3, 2]),
    (1, 99, 1, true, &[5]),
    (1, 4, 2, true, &[4, 3]),
    (6, 99, 9, true, &[]),
    (3, 2, 9, true, &[]),
    (1, 99, 0, true, &[5]),
];

fn range(
    of: &StreamId,
    (from, to, limit, backward, _): (u64, u64, usize, bool, &[u64]),
) -> ReadStream {
    let read = ReadStream::of(of.clone())
        .from(Version::new(from))
        .to(Version::new(to))
        .limit(limit);
    if backward { read.backward() } else { read }
}

pub async fn honours_range_limit_and_direction(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let journal = stream("journal");
    append(&*store, &journal, events(5)).await;
    append(&*store, &stream("journal-2"), events(5)).await;
    for row in RANGES {
        let page = store.read_stream(range(&journal, row)).await.unwrap();
        assert_eq!(versions(&page.events), row.4, "{row:?}");
        assert_eq!(page.state.version, Version::new(5));
    }
}

pub async fn shows_of_a_range_what_truncation_and_deletion_left(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let journal = stream("journal");
    append(&*store, &journal, events(5)).await;
    let changes = [
        (
            StreamChange::Truncate {
                before: Version::new(3),
            },
            3,
        ),
        (StreamChange::Delete, 6),
    ];
    for (change, first) in changes {
        store
            .change_stream(ChangeStream::new(&journal, change))
            .await
            .unwrap();
        for row in RANGES {
            let (from, to, limit, backward, everything) = row;
            let mut visible: Vec<u64> = (from.max(first)..=to.min(5)).collect();
            if backward {
                visible.reverse();
            }
            visible.truncate(limit.max(1));
            let page = store.read_stream(range(&journal, row)).await.unwrap();
            assert_eq!(versions(&page.events), visible, "{row:?} after {change:?}");
            assert_eq!(
                page.state.version,
                Version::new(5),
                "the highest version stays"
            );
            let page = store
                .read_stream(range(&journal, row).everything())
                .await
                .unwrap();
            assert_eq!(versions(&page.events), everything, "{row:?} of everything");
        }
    }
}

pub async fn loses_and_repeats_nothing_at_the_borders_of_pages(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for size in [1_u64, 99, 100, 101] {
        let of = stream(format!("pages-{size}"));
        append(&*store, &of, events(size as usize)).await;
        let forward: Vec<u64> = (1..=size).collect();
        let backward: Vec<u64> = (1..=size).rev().collect();
        for limit in [1, 7, 99, 100, 101, 1_000] {
            let read = ReadStream::of(of.clone()).limit(limit);
            assert_eq!(
                versions(&read_stream(&*store, read.clone()).await),
                forward,
                "{size} by {limit}"
            );
            assert_eq!(
                versions(&read_stream(&*store, read.backward()).await),
                backward,
                "{size} by {limit}"
            );
        }
    }
}

pub async fn of_large_events_comes_in_pages_that_fit_into_memory(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let of = stream("large-1");
    let label = "large.thing";
    let partition = store.partition_of(&of);
    let payload = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    let mut given = Vec::new();
    for _ in 0..5 {
        let ten: Vec<NewEvent> = (0..10)
            .map(|_| NewEvent::json(label, payload.clone()).tag(tag("size:large")))
            .collect();
        append(&*store, &of, ten.clone()).await;
        given.extend(ten);
    }
    // One that is larger than a page comes alone, and is not skipped.
    let huge = vec![b'y'; store.limits().payload_bytes_max.min(PAGE_BYTES_MAX + 1)];
    let huge = NewEvent::json(label, huge).tag(tag("size:large"));
    append(
        &*store,
        &of,
        [huge.clone(), huge.clone().id(crate::EventId::random())],
    )
    .await;
    let expected: Vec<u64> = (1..=52).collect();
    let first = store.read_stream(ReadStream::of(of.clone())).await.unwrap();
    assert!(
        first.next.is_some() && !first.events.is_empty() && first.events.len() < 50,
        "several pages"
    );
    assert_eq!(versions(&whole_stream(&*store, &of).await), expected);
    let mut backward = versions(&read_stream(&*store, ReadStream::of(of.clone()).backward()).await);
    backward.reverse();
    assert_eq!(backward, expected);
    let all = ReadLog::after(Position::START).partition(partition);
    assert!(!store.read(all.clone()).await.unwrap().end, "several pages");
    assert_eq!(positions(&read_log(&*store, all.clone()).await), expected);
    let mut backward = positions(&read_log(&*store, all.backward()).await);
    backward.reverse();
    assert_eq!(backward, expected);
    assert_eq!(ids(&whole_stream(&*store, &of).await)[..50], ids_of(&given));
    if store.tagged().is_some() {
        let read = crate::ReadQuery::of(crate::Query::tagged([tag("size:large")]));
        assert_eq!(positions(&read_query(&*store, read).await), expected);
    }
}

pub async fn shows_one_moment(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let of = stream("moment-1");
    let writer = {
        let store = Arc::clone(&store);
        let of = of.clone();
        tokio::spawn(async move {
            for n in 0..60 {
                append(&*store, &of, events(3)).await;
                if n % 10 == 9 {
                    store
                        .change_stream(ChangeStream::new(&of, StreamChange::Delete))
                        .await
                        .unwrap();
                }
            }
        })
    };
    let mut last_head = Position::START;
    let mut last_version = Version::NONE;
    loop {
        let done = writer.is_finished();
        let page = store
            .read_stream(ReadStream::of(of.clone()).everything())
            .await
            .unwrap();
        let count = page.events.len() as u64;
        assert_eq!(page.next, None);
        assert_eq!(
            page.state.version.get(),
            count,
            "the events and the state are of two moments"
        );
        assert_eq!(count % 3, 0, "a part of an append is visible");
        assert!(
            page.events
                .last()
                .is_none_or(|event| event.position <= page.head),
            "the head is older than the events"
        );
        assert!(
            page.state
                .deletions
                .iter()
                .all(|deletion| deletion.version <= page.state.version)
        );
        assert!(
            page.head >= last_head && page.state.version >= last_version,
            "time runs backwards"
        );
        last_head = page.head;
        last_version = page.state.version;
        if done {
            break;
        }
        tokio::task::yield_now().await;
    }
    writer.await.expect("the writer ends well");
    assert_eq!(last_version, Version::new(180));
}
