//! Reading the whole log without missing or repeating anything, whoever appends meanwhile.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use super::Fixture;
use super::words::*;
use crate::chrono::{DateTime, TimeDelta, Utc};
use crate::clock::{Clock, ManualClock};
use crate::error::Failure;
use crate::event::{EventId, Metadata, NewEvent, RecordedEvent};
use crate::position::{Head, Partition, Position};
use crate::query::Filter;
use crate::read::{ReadLog, ReadStream};
use crate::store::{Hint, Store};
use crate::stream::{StreamId, Version};
use crate::stream_state::{ChangeStream, StreamChange};

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

pub async fn is_dense_and_holds_every_append_in_the_order_of_commits(fixture: &dyn Fixture) {
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

pub async fn honours_range_limit_and_direction(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for partition in partitions(&*store) {
        append(&*store, &stream_in(&*store, partition, "range"), events(6)).await;
        let rows: [(u64, u64, usize, &[u64]); 11] = [
            (0, 99, 9, &[1, 2, 3, 4, 5, 6]),
            (0, u64::MAX, usize::MAX, &[1, 2, 3, 4, 5, 6]),
            (3, 99, 9, &[4, 5, 6]),
            (0, 3, 9, &[1, 2, 3]),
            (2, 4, 9, &[3, 4]),
            (2, 3, 9, &[3]),
            (3, 3, 9, &[]),
            (4, 2, 9, &[]),
            (6, 99, 9, &[]),
            (123, 200, 9, &[]),
            (u64::MAX, u64::MAX, 9, &[]),
        ];
        for (after, up_to, limit, expected) in rows {
            let read = ReadLog::after(Position::new(after))
                .up_to(Position::new(up_to))
                .partition(partition);
            for limit in [limit, 1, 2, 0] {
                let first: Vec<u64> = expected.iter().copied().take(limit).collect();
                let page = store.read(read.clone().limit(limit)).await.unwrap();
                assert_eq!(
                    positions(&page.events),
                    first,
                    "after {after} up to {up_to} limit {limit}"
                );
                let first: Vec<u64> = expected.iter().rev().copied().take(limit).collect();
                let page = store
                    .read(read.clone().limit(limit).backward())
                    .await
                    .unwrap();
                assert_eq!(
                    positions(&page.events),
                    first,
                    "after {after} up to {up_to} limit {limit} backward"
                );
                if limit > 0 {
                    let all = read_log(&*store, read.clone().limit(limit)).await;
                    assert_eq!(positions(&all), expected);
                    let mut all =
                        positions(&read_log(&*store, read.clone().limit(limit).backward()).await);
                    all.reverse();
                    assert_eq!(all, expected);
                }
            }
        }
    }
}

pub async fn loses_and_repeats_nothing_at_the_borders_of_pages(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for partition in partitions(&*store) {
        append(
            &*store,
            &stream_in(&*store, partition, "pages"),
            events(101),
        )
        .await;
        for limit in [1, 7, 99, 100, 101, 1_000] {
            for up_to in [1, 99, 100, 101] {
                let read = ReadLog::after(Position::START)
                    .up_to(Position::new(up_to))
                    .partition(partition)
                    .limit(limit);
                let forward: Vec<u64> = (1..=up_to).collect();
                assert_eq!(
                    positions(&read_log(&*store, read.clone()).await),
                    forward,
                    "{up_to} by {limit}"
                );
                let mut backward = positions(&read_log(&*store, read.backward()).await);
                backward.reverse();
                assert_eq!(backward, forward, "{up_to} by {limit} backward");
            }
        }
    }
}

/// Events `[writer, number of its append, index in it, size of it]`.
fn numbered(writer: usize, number: usize, size: usize) -> Vec<NewEvent> {
    (0..size)
        .map(|index| event(json!([writer, number, index, size]).to_string()))
        .collect()
}

fn read_number(event: &RecordedEvent) -> [usize; 4] {
    serde_json::from_slice(&event.payload).unwrap()
}

/// Follows a partition from its start, and checks at every page that nothing is missed, repeated,
/// torn or out of order. Ends when nothing is left after `done` was set.
async fn follow(
    store: Arc<dyn Store>,
    partition: Partition,
    limit: usize,
    done: Arc<AtomicBool>,
) -> Vec<EventId> {
    let mut seen = Vec::new();
    let mut at = Position::START;
    let mut last_head = Position::START;
    let mut hint = store.hint();
    loop {
        let last_look = done.load(Ordering::SeqCst);
        let read = ReadLog::after(at).partition(partition).limit(limit);
        let page = store.read(read.clone()).await.unwrap();
        check_page(&page, limit, at, read.up_to, read.direction);
        assert!(
            page.head.visible >= last_head,
            "the head went back from {last_head} to {:?}",
            page.head
        );
        last_head = page.head.visible;
        for event in &page.events {
            assert_eq!(event.position, at.next(), "a hole, or an event twice");
            at = event.position;
            seen.push(event.id);
        }
        if let (true, Some(last)) = (page.end, page.events.last()) {
            let [_, _, index, size] = read_number(last);
            assert_eq!(index + 1, size, "a part of an append is visible");
            assert_eq!(at, last_head, "a page that ends is read up to the head");
        }
        if page.end && page.events.is_empty() {
            if last_look {
                return seen;
            }
            hint.wait(LOOKS_AFTER).await;
        }
    }
}

/// Reads the newest part of the partition again and again, and checks that what was seen once stays
/// as it was.
async fn look_again(store: Arc<dyn Store>, partition: Partition, done: Arc<AtomicBool>) {
    let mut seen: Vec<EventId> = Vec::new();
    while !done.load(Ordering::SeqCst) {
        let up_to = head(&*store, partition).await;
        let after = Position::new(seen.len() as u64).minus(50).min(up_to);
        let mut found = read_log(
            &*store,
            ReadLog::after(after)
                .up_to(up_to)
                .partition(partition)
                .backward()
                .limit(40),
        )
        .await;
        found.reverse();
        assert_eq!(
            positions(&found),
            (after.next().get()..=up_to.get()).collect::<Vec<u64>>(),
            "all up to the head"
        );
        let (known, new) = found.split_at((seen.len() as u64 - after.get()) as usize);
        assert_eq!(
            ids(known),
            seen[after.get() as usize..],
            "what was seen once has changed"
        );
        seen.extend(ids(new));
        tokio::task::yield_now().await;
    }
}

pub async fn says_in_long_pages_what_it_says_in_short_ones(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let quoted = r"it's \ 100 % $1";
    let foreign = "häufig, 事件";
    let rare = "thing.rare";
    for partition in partitions(&*store) {
        let names: Vec<StreamId> = ["a", "b", "removed"]
            .map(|label| stream_in(&*store, partition, label))
            .into();
        let mut events = (0..1_500_u32).map(|n| {
            let event_type = if n % 700 == 0 {
                rare
            } else {
                [quoted, foreign][n as usize % 2]
            };
            let payload = if n == 900 {
                vec![b' '; 20_000]
            } else {
                n.to_string().into_bytes()
            };
            let event = NewEvent::json(event_type, payload);
            match n % 10 {
                3 => event.tag(tag("of:three")).tag(tag("n:3")),
                5 => event.metadata(Metadata::default().key("five", n.to_string())),
                _ => event,
            }
        });
        for n in 0..15 {
            append(&*store, &names[n % 3], events.by_ref().take(100)).await;
        }
        let archived = StreamChange::Archive {
            before: Version::new(401),
        };
        store
            .change_stream(ChangeStream::new(&names[2], archived))
            .await
            .unwrap();
        for types in [
            &[][..],
            &[quoted, "no.such"],
            &[foreign, rare],
            &[rare],
            &["no.such"],
        ] {
            let read = ReadLog::after(Position::START)
                .partition(partition)
                .filter(Filter::default().types(types.iter().copied()));
            let expected = read_log(&*store, read.clone().limit(7)).await;
            for (limit, after, up_to) in [
                (512, 0, 1_500),
                (1_000, 0, u64::MAX),
                (5_000, 250, 1_400),
                (5_000, 899, 950),
            ] {
                let range = Position::new(after + 1)..=Position::new(up_to);
                let expected: Vec<&RecordedEvent> = expected
                    .iter()
                    .filter(|event| range.contains(&event.position))
                    .collect();
                let read = read.clone().limit(limit).up_to(Position::new(up_to));
                let found = read_log(
                    &*store,
                    ReadLog {
                        after: Position::new(after),
                        ..read
                    },
                )
                .await;
                assert_eq!(
                    found.iter().collect::<Vec<_>>(),
                    expected,
                    "{types:?}, {limit} in {range:?}"
                );
            }
        }
        assert_eq!(
            whole_log(&*store, partition).await.len(),
            1_100,
            "what was archived is gone"
        );
        // At once, and under names that no page had to know before.
        let later = stream_in(&*store, partition, "later");
        append(
            &*store,
            &later,
            (0..600).map(|n| NewEvent::json(rare, n.to_string().into_bytes())),
        )
        .await;
        let read = ReadLog::after(Position::START)
            .partition(partition)
            .filter(Filter::default().types([rare]));
        let found = read_log(&*store, read.clone().limit(5_000)).await;
        assert_eq!(found, read_log(&*store, read.limit(7)).await);
        assert_eq!(
            found.iter().filter(|event| event.stream == later).count(),
            600
        );
    }
}

/// Ten writers, a hundred appends each, of one to a hundred events, over all partitions; and
/// readers of every kind meanwhile.
pub async fn is_the_same_for_every_reader_while_ten_writers_append(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    race(&store, &store).await;
}

/// The writers append through one handle, the readers read through the other.
pub(super) async fn race(writing: &Arc<dyn Store>, reading: &Arc<dyn Store>) {
    let done = Arc::new(AtomicBool::new(false));
    let mut followers = Vec::new();
    let mut lookers = Vec::new();
    for partition in partitions(&**reading) {
        for limit in [1, 7, 1_000] {
            followers.push((
                partition,
                tokio::spawn(follow(
                    Arc::clone(reading),
                    partition,
                    limit,
                    Arc::clone(&done),
                )),
            ));
        }
        lookers.push(tokio::spawn(look_again(
            Arc::clone(reading),
            partition,
            Arc::clone(&done),
        )));
    }
    let counts = at_once((0..10).map(|writer| {
        let store = Arc::clone(writing);
        async move {
            let mut count = 0;
            for number in 0..100 {
                let partition = Partition((writer + number) as u32 % store.partitions());
                let to = stream_in(&*store, partition, &format!("writer{writer}"));
                let size = if number % 20 == 19 {
                    100
                } else {
                    1 + (writer + number) % 3
                };
                let appended = append(&*store, &to, numbered(writer, number, size)).await;
                let seen = head(&*store, partition).await;
                assert!(
                    seen >= appended.last().position,
                    "an append has returned and is not visible"
                );
                count += size;
            }
            count
        }
    }))
    .await;
    done.store(true, Ordering::SeqCst);
    for looker in lookers {
        looker.await.expect("what was seen stays");
    }
    let mut logs = Vec::new();
    for partition in partitions(&**reading) {
        logs.push(whole_log(&**reading, partition).await);
    }
    assert_eq!(
        logs.iter().map(Vec::len).sum::<usize>(),
        counts.iter().sum::<usize>(),
        "every append is there once"
    );
    for (partition, follower) in followers {
        assert_eq!(
            follower.await.expect("the reader misses nothing"),
            ids(&logs[partition.0 as usize])
        );
    }
    for log in &logs {
        let mut next = [0; 10];
        for append in log.chunk_by(|_, event| event.append_index > 0) {
            let [writer, number, _, size] = read_number(&append[0]);
            let found: Vec<[usize; 4]> = append.iter().map(read_number).collect();
            let expected: Vec<[usize; 4]> = (0..size)
                .map(|index| [writer, number, index, size])
                .collect();
            assert_eq!(found, expected, "an append is in one piece");
            assert!(
                number >= next[writer],
                "the appends of one writer are in order"
            );
            next[writer] = number + 1;
        }
        assert!(
            log.is_sorted_by(|a, b| a.recorded_at <= b.recorded_at),
            "recorded times go backwards"
        );
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

/// The events of the first page behind `after` that is not empty.
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

/// Events in which every part of a filter finds something, and near misses beside it.
async fn population(store: &dyn Store, clock: &ManualClock) {
    let names = [
        "account-1",
        "account-10",
        "account-2",
        "accounts-1",
        "Account-1",
        "account",
        "acc%unt-1",
        "acc_unt-1",
        "accXunt-1",
        "konto-ä1",
        "konto-\u{10ffff}",
        "konto-",
        "a\\b-1",
    ];
    for (n, name) in names.into_iter().enumerate() {
        for (m, kind) in ["opened", "Opened", "opened.twice", "closed"]
            .into_iter()
            .enumerate()
        {
            let happened = DateTime::UNIX_EPOCH + TimeDelta::microseconds((n * 4 + m) as i64 - 20);
            let mut event = NewEvent::json(kind, "1").at(happened);
            for (bit, text) in ["k:a", "k:ab", "k:b", "kk:a"].into_iter().enumerate() {
                if (n + m) >> bit & 1 == 1 {
                    event = event.tag(tag(text));
                }
            }
            append(store, &stream(name), [event]).await;
            clock.advance(TimeDelta::microseconds(1));
        }
    }
}

/// Filters, and how many of the population each lets through.
fn filters(begun: DateTime<Utc>) -> Vec<(Filter, usize)> {
    let all = Filter::default;
    let happened = |micros| DateTime::UNIX_EPOCH + TimeDelta::microseconds(micros);
    let recorded = |micros| begun + TimeDelta::microseconds(micros);
    vec![
        (all().types(["opened"]), 13),
        (all().types(["opened", "closed"]), 26),
        (all().types(["open%", "o_ened"]), 0),
        (all().types(["nothing"]), 0),
        (all().category("account"), 16),
        (all().category("account").category("konto"), 28),
        (all().category("acc%unt"), 4),
        (all().category("acc_unt"), 4),
        (all().category("none"), 0),
        (all().stream_prefix("account-1"), 8),
        (all().stream_prefix("account"), 20),
        (all().stream_prefix("acc%"), 4),
        (all().stream_prefix("acc_"), 4),
        (all().stream_prefix("a\\"), 4),
        (all().stream_prefix("konto-\u{10ffff}"), 4),
        (all().stream_prefix("konto-").stream_prefix("Account"), 16),
        (all().stream_prefix(""), 52),
        (all().tag(tag("k:a")), 26),
        (all().tag(tag("k:a")).tag(tag("k:b")), 12),
        (all().tag(tag("kk:a")).tag(tag("kk:a")), 26),
        (all().tag(tag("k:none")), 0),
        (all().occurred(happened(-3)..happened(4)), 7),
        (all().occurred(happened(-3)..=happened(4)), 8),
        (
            all().occurred((Bound::Excluded(happened(-3)), Bound::Unbounded)),
            34,
        ),
        (all().occurred(..happened(0)), 20),
        (all().recorded(recorded(5)..recorded(9)), 4),
        (all().recorded(recorded(5)..=recorded(9)), 5),
        (
            all().recorded((Bound::Excluded(recorded(5)), Bound::Included(recorded(5)))),
            0,
        ),
        (
            all()
                .types(["opened"])
                .category("account")
                .tag(tag("k:a"))
                .occurred(happened(-20)..)
                .recorded(begun..),
            2,
        ),
        (
            all()
                .types(["opened"])
                .category("account")
                .stream_prefix("account-1"),
            2,
        ),
        (all().category("account").stream_prefix("konto"), 0),
        (all(), 52),
    ]
}

pub async fn filters_by_type_category_prefix_tags_and_times(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::default());
    let begun = clock.now();
    let store = open_at(fixture, &clock).await;
    population(&*store, &clock).await;
    for (filter, count) in filters(begun) {
        let mut found = 0;
        for partition in partitions(&*store) {
            let read = ReadLog::after(Position::START)
                .partition(partition)
                .filter(filter.clone());
            let all = read_log(&*store, read.clone()).await;
            assert!(all.iter().all(|event| filter.matches(event)), "{filter:?}");
            found += all.len();
            let all = positions(&all);
            for limit in [1, 3] {
                let read = read.clone().limit(limit);
                assert_eq!(
                    positions(&read_log(&*store, read.clone()).await),
                    all,
                    "{filter:?} by {limit}"
                );
                let mut backward = positions(&read_log(&*store, read.clone().backward()).await);
                backward.reverse();
                assert_eq!(backward, all, "{filter:?} by {limit} backward");
                let after = Position::new(3);
                let up_to = Position::new(11);
                let part = read_log(
                    &*store,
                    ReadLog {
                        after,
                        up_to,
                        ..read
                    },
                )
                .await;
                let in_part: Vec<u64> = all
                    .iter()
                    .copied()
                    .filter(|position| (4..=11).contains(position))
                    .collect();
                assert_eq!(
                    positions(&part),
                    in_part,
                    "{filter:?} by {limit} in (3, 11]"
                );
            }
        }
        assert_eq!(found, count, "{filter:?}");
    }
}

pub async fn tells_how_far_a_filtered_page_has_looked(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for partition in partitions(&*store) {
        let noise = stream_in(&*store, partition, "noise");
        let wanted = stream_in(&*store, partition, "wanted");
        let read = || {
            ReadLog::after(Position::START)
                .partition(partition)
                .filter(Filter::default().category("wanted"))
        };
        append(&*store, &noise, events(50)).await;
        let mut at = Position::START;
        for round in 0..3 {
            // Nothing matches: the reader comes to the head all the same, and keeps its checkpoint
            // there.
            loop {
                let page = store
                    .read(ReadLog {
                        after: at,
                        ..read()
                    })
                    .await
                    .unwrap();
                assert!(page.events.is_empty(), "round {round}");
                assert!(page.scanned >= at);
                at = page.scanned;
                if page.end {
                    break;
                }
            }
            assert_eq!(
                at,
                head(&*store, partition).await,
                "everything was looked at"
            );
            let given = events(2);
            append(&*store, &noise, events(7)).await;
            append(&*store, &wanted, given.clone()).await;
            append(&*store, &noise, events(7)).await;
            // What matches now stands behind the checkpoint; a page that is full has not looked
            // further than its last event.
            let page = store
                .read(ReadLog {
                    after: at,
                    ..read().limit(1)
                })
                .await
                .unwrap();
            if let [first] = &page.events[..] {
                assert!(
                    page.scanned >= first.position && page.scanned < first.position.next(),
                    "{}",
                    page.scanned
                );
                assert!(!page.end);
            }
            assert_eq!(
                ids(&read_log(
                    &*store,
                    ReadLog {
                        after: at,
                        ..read().limit(1)
                    }
                )
                .await),
                ids_of(&given)
            );
            at = head(&*store, partition).await;
        }
    }
}

pub async fn is_filtered_without_missing_what_is_appended_meanwhile(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let done = Arc::new(AtomicBool::new(false));
    let reader = |partition| {
        let store = Arc::clone(&store);
        let done = Arc::clone(&done);
        async move {
            let filter = Filter::default().types(["wanted"]);
            let mut seen = Vec::new();
            let mut at = Position::START;
            let mut hint = store.hint();
            loop {
                let last_look = done.load(Ordering::SeqCst);
                let read = ReadLog::after(at)
                    .partition(partition)
                    .filter(filter.clone())
                    .limit(3);
                let page = store.read(read.clone()).await.unwrap();
                check_page(&page, 3, at, read.up_to, read.direction);
                seen.extend(ids(&page.events));
                // Only what was scanned is kept, as a checkpoint does.
                at = page.scanned;
                match (page.end, last_look) {
                    (true, true) => return seen,
                    (true, false) => hint.wait(LOOKS_AFTER).await,
                    _ => {}
                }
            }
        }
    };
    let readers: Vec<_> = partitions(&*store)
        .map(|partition| tokio::spawn(reader(partition)))
        .collect();
    at_once((0..6).map(|writer| {
        let store = Arc::clone(&store);
        async move {
            for n in 0..60 {
                let partition = Partition(n % store.partitions());
                let kind = if (writer + n) % 7 == 0 {
                    "wanted"
                } else {
                    "other"
                };
                append(
                    &*store,
                    &stream_in(&*store, partition, &format!("w{writer}")),
                    [NewEvent::json(kind, "1")],
                )
                .await;
            }
        }
    }))
    .await;
    done.store(true, Ordering::SeqCst);
    for (partition, reader) in partitions(&*store).zip(readers) {
        let wanted = |event: &RecordedEvent| &*event.event_type == "wanted";
        let expected: Vec<_> = whole_log(&*store, partition)
            .await
            .into_iter()
            .filter(wanted)
            .collect();
        assert_eq!(reader.await.unwrap(), ids(&expected));
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
        // A moment between is not moved by what is removed for good far before it.
        store
            .change_stream(ChangeStream::new(
                &to,
                StreamChange::Archive {
                    before: Version::new(5),
                },
            ))
            .await
            .unwrap();
        for (micros, position) in [(10, 6), (19, 6), (20, 8), (30, 11)] {
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
