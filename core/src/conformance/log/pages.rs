//! How the log is read in pages.

use crate::conformance::Fixture;
use crate::conformance::words::*;
use crate::event::{Metadata, NewEvent, RecordedEvent};
use crate::position::Position;
use crate::query::Filter;
use crate::read::ReadLog;
use crate::stream::{StreamId, Version};
use crate::stream_state::{ChangeStream, StreamChange};

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
                // At least one is asked for, else a page would get nowhere.
                let most = limit.max(1);
                let first: Vec<u64> = expected.iter().copied().take(most).collect();
                let page = store.read(read.clone().limit(limit)).await.unwrap();
                assert_eq!(
                    positions(&page.events),
                    first,
                    "after {after} up to {up_to} limit {limit}"
                );
                let first: Vec<u64> = expected.iter().rev().copied().take(most).collect();
                let page = store
                    .read(read.clone().limit(limit).backward())
                    .await
                    .unwrap();
                assert_eq!(
                    positions(&page.events),
                    first,
                    "after {after} up to {up_to} limit {limit} backward"
                );
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
            // What matches now is after the checkpoint; a page that is full has not looked
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
