//! Reading the whole log without missing or repeating anything, while others append.

mod filters;
mod pages;
mod race;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Fixture;
use super::words::*;
use crate::chrono::{DateTime, TimeDelta};
use crate::clock::{Clock, ManualClock};
use crate::error::Failure;
use crate::event::RecordedEvent;
use crate::position::{Head, Partition, Position};
use crate::read::{ReadLog, ReadStream};
use crate::store::{Hint, Store};
use crate::stream::{StreamId, Version};
use crate::stream_state::{ChangeStream, StreamChange};

pub use self::filters::{
    filters_by_type_category_prefix_tags_and_times,
    is_filtered_without_missing_what_is_appended_meanwhile, refuses_names_that_no_event_has,
};
pub use self::pages::{
    honours_range_limit_and_direction, loses_and_repeats_nothing_at_the_borders_of_pages,
    says_in_long_pages_what_it_says_in_short_ones, tells_how_far_a_filtered_page_has_looked,
};
pub use self::race::is_the_same_for_every_reader_while_ten_writers_append;
pub(in crate::conformance) use self::race::race;

/// How long a reader of the cases waits for a hint before it looks: whether one comes must not
/// matter.
const LOOKS_AFTER: Duration = Duration::from_millis(5);

pub async fn that_is_empty_ends_where_it_starts(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for partition in partitions(&*store) {
        assert_eq!(
            store.head(partition).await.unwrap(),
            Head::at(Position::START)
        );
        let read = ReadLog::after(Position::START).partition(partition);
        for read in [
            read.clone(),
            read.clone().backward(),
            read.up_to(Position::new(7)),
        ] {
            let page = store.read(read).await.unwrap();
            assert!(page.events.is_empty() && page.end);
            assert_eq!(page.head, Head::at(Position::START));
        }
        assert_eq!(
            store
                .position_at(partition, DateTime::UNIX_EPOCH)
                .await
                .unwrap(),
            Position::START
        );
    }
}

pub async fn has_only_its_partitions(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    assert!(store.partitions() > 0);
    let beyond = Partition(store.partitions());
    let errors = [
        store.head(beyond).await.unwrap_err(),
        store
            .read(ReadLog::after(Position::START).partition(beyond))
            .await
            .unwrap_err(),
        store
            .position_at(beyond, DateTime::UNIX_EPOCH)
            .await
            .unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.failure(), Failure::Invalid, "{error}");
    }
    for n in 0..50 {
        let to = stream(format!("placed-{n}"));
        let partition = store.partition_of(&to);
        assert!(partition < beyond);
        assert_eq!(
            append(&*store, &to, events(1)).await.last().partition,
            partition
        );
    }
    for partition in partitions(&*store) {
        let all = whole_log(&*store, partition).await;
        assert!(
            all.iter()
                .all(|event| store.partition_of(&event.stream) == partition)
        );
    }
}

pub async fn is_dense_and_holds_appends_in_commit_order(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for partition in partitions(&*store) {
        let names: Vec<StreamId> = ["a", "b", "c"]
            .map(|label| stream_in(&*store, partition, label))
            .into();
        let mut expected = Vec::new();
        for n in 0..30 {
            let appended = append(&*store, &names[n % 3], events(1 + n % 4)).await;
            expected.extend(
                appended
                    .events()
                    .iter()
                    .map(|placed| (placed.id, placed.position.get())),
            );
        }
        let all = whole_log(&*store, partition).await;
        let found: Vec<_> = all
            .iter()
            .map(|event| (event.id, event.position.get()))
            .collect();
        assert_eq!(found, expected);
        assert_eq!(
            positions(&all),
            (1..=all.len() as u64).collect::<Vec<u64>>()
        );
        for name in &names {
            let of_stream: Vec<RecordedEvent> = all
                .iter()
                .filter(|event| event.stream == *name)
                .cloned()
                .collect();
            assert_eq!(
                whole_stream(&*store, name).await,
                of_stream,
                "a stream and the log tell the same"
            );
        }
    }
}

/// Every way to learn how far the log goes: asked between two heads, each answers with something
/// between them.
pub async fn has_one_head_for_all_who_ask(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let partition = store.partition_of(&stream("asked-1"));
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let store = Arc::clone(&store);
        let done = Arc::clone(&done);
        tokio::spawn(async move {
            while !done.load(Ordering::SeqCst) {
                append(&*store, &stream("asked-1"), events(2)).await;
                tokio::task::yield_now().await;
            }
        })
    };
    let far = "9999-01-01T00:00:00Z".parse().unwrap();
    let mut before = head(&*store, partition).await;
    for _ in 0..50 {
        for way in ["live", "catch-up", "stream", "query", "as of"] {
            let answer = match way {
                "live" => {
                    store
                        .read(ReadLog::after(before).partition(partition))
                        .await
                        .unwrap()
                        .head
                        .visible
                }
                "catch-up" => {
                    let read = ReadLog::after(Position::START)
                        .partition(partition)
                        .backward()
                        .limit(1);
                    let page = store.read(read).await.unwrap();
                    assert!(
                        page.events
                            .iter()
                            .all(|newest| newest.position == page.head.visible)
                    );
                    page.head.visible
                }
                "stream" => {
                    let read = ReadStream::of(stream("asked-1")).backward().limit(1);
                    let page = store.read_stream(read).await.unwrap();
                    assert!(
                        page.events
                            .iter()
                            .all(|newest| newest.position == page.head),
                        "events beyond the head"
                    );
                    page.head
                }
                "query" => match store.tagged() {
                    Some(tagged) => {
                        let read = crate::ReadQuery::of(crate::Query::all())
                            .backward()
                            .limit(1);
                        let page = tagged.read_query(read).await.unwrap();
                        assert!(
                            page.events
                                .iter()
                                .all(|newest| newest.position == page.head.visible)
                        );
                        page.head.visible
                    }
                    None => continue,
                },
                _ => store.position_at(partition, far).await.unwrap(),
            };
            let after = head(&*store, partition).await;
            assert!(
                before <= answer && answer <= after,
                "{way}: {answer}, between the heads {before} and {after}"
            );
            assert_eq!(answer.get() % 2, 0, "{way}: a part of an append is visible");
            before = after;
        }
    }
    done.store(true, Ordering::SeqCst);
    writer.await.expect("the writer ends well");
}

pub async fn wakes_who_waits_for_its_first_event(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for partition in partitions(&*store) {
        let waiting = tokio::spawn(next_after(
            Arc::clone(&store),
            store.hint(),
            partition,
            Position::START,
        ));
        let appended = append(&*store, &stream_in(&*store, partition, "first"), events(1)).await;
        assert_eq!(ids(&waiting.await.unwrap()), [appended.last().id]);
    }
}

pub async fn gives_who_starts_at_the_head_exactly_what_comes_later(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for partition in partitions(&*store) {
        let to = stream_in(&*store, partition, "later");
        append(&*store, &to, events(3)).await;
        let at = head(&*store, partition).await;
        assert!(
            store
                .read(ReadLog::after(at).partition(partition))
                .await
                .unwrap()
                .events
                .is_empty()
        );
        let waiting = tokio::spawn(next_after(Arc::clone(&store), store.hint(), partition, at));
        let given = events(2);
        append(&*store, &to, given.clone()).await;
        assert_eq!(ids(&waiting.await.unwrap()), ids_of(&given));
    }
}

/// The events of the first page after `after` that is not empty.
pub(super) async fn next_after(
    store: Arc<dyn Store>,
    mut hint: Hint,
    partition: Partition,
    after: Position,
) -> Vec<RecordedEvent> {
    loop {
        let page = store
            .read(ReadLog::after(after).partition(partition))
            .await
            .unwrap();
        if !page.events.is_empty() {
            return page.events;
        }
        hint.wait(LOOKS_AFTER).await;
    }
}

pub async fn knows_its_position_at_every_moment(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::default());
    let begun = clock.now();
    let store = open_at(fixture, &clock).await;
    let at = |micros: i64| begun + TimeDelta::microseconds(micros);
    for partition in partitions(&*store) {
        clock.set(begun);
        let to = stream_in(&*store, partition, "timed");
        // Recorded at 0: one; at 10: five, in two appends; at 20: one; at 20 by a clock that went
        // back: one; at 30: three.
        for (micros, count) in [(0, 1), (10, 2), (10, 3), (20, 1), (5, 1), (30, 3)] {
            clock.set(at(micros));
            append(&*store, &to, events(count)).await;
        }
        let rows = [
            (-1, 0),
            (0, 1),
            (1, 1),
            (9, 1),
            (10, 6),
            (11, 6),
            (19, 6),
            (20, 8),
            (29, 8),
            (30, 11),
            (31, 11),
        ];
        for (micros, position) in rows {
            let found = store.position_at(partition, at(micros)).await.unwrap();
            assert_eq!(found, Position::new(position), "at {micros}");
        }
        for moment in ["1900-01-01T00:00:00Z", "9999-01-01T00:00:00Z"] {
            let found = store
                .position_at(partition, moment.parse().unwrap())
                .await
                .unwrap();
            assert_eq!(
                found.get(),
                if moment.starts_with('1') { 0 } else { 11 },
                "{moment}"
            );
        }
        // What is removed for good keeps its positions, and so no moment moves.
        store
            .change_stream(ChangeStream::new(
                &to,
                StreamChange::Archive {
                    before: Version::new(5),
                },
            ))
            .await
            .unwrap();
        for (micros, position) in rows {
            let found = store.position_at(partition, at(micros)).await.unwrap();
            assert_eq!(
                found,
                Position::new(position),
                "at {micros}, after archiving"
            );
        }
    }
}

pub async fn keeps_its_identity(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let names: Vec<StreamId> = (0..20).map(|n| stream(format!("placed-{n}"))).collect();
    let places: Vec<Partition> = names.iter().map(|name| store.partition_of(name)).collect();
    let id = store.id();
    let count = store.partitions();
    let store = reopen(fixture, store).await;
    assert_eq!((store.id(), store.partitions()), (id, count));
    assert_eq!(
        names
            .iter()
            .map(|name| store.partition_of(name))
            .collect::<Vec<_>>(),
        places
    );
}
