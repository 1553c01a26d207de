//! Which events of the log a filter lets through.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::LOOKS_AFTER;
use crate::chrono::{DateTime, TimeDelta, Utc};
use crate::clock::{Clock, ManualClock};
use crate::conformance::Fixture;
use crate::conformance::words::*;
use crate::error::Failure;
use crate::event::{NewEvent, RecordedEvent};
use crate::position::{Partition, Position};
use crate::query::Filter;
use crate::read::ReadLog;
use crate::store::Store;
use crate::stream::StreamId;
use crate::tag::Tag;

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

pub async fn refuses_names_that_no_event_has(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    append(&*store, &stream("account-1"), events(1)).await;
    let all = Filter::default;
    for (filter, named) in [
        (all().types(["a\0b"]), "the type `a\\0b`"),
        (all().types(["opened", "a\nb"]), "the type `a\\nb`"),
        (all().category("a\0b"), "the category `a\\0b`"),
        (all().stream_prefix("\0"), "the start of streams `\\0`"),
    ] {
        for backward in [false, true] {
            let read = ReadLog::after(Position::START).filter(filter.clone());
            let read = if backward { read.backward() } else { read };
            let refused = store.read(read).await.unwrap_err();
            assert_eq!(refused.failure(), Failure::Invalid, "{filter:?}");
            let said = format!(
                "the filter names {named}, which holds a control character: no \
                 event has one"
            );
            assert_eq!(refused.to_string(), said);
        }
    }
    // A stream and a tag of such a name cannot even be made.
    assert!(StreamId::new("account-\0").is_err() && Tag::new("k", "\0").is_err());
}
