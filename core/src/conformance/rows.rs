//! Rows as they are: by key, by range, by index, in pages of one moment.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Fixture;
use super::view_words::*;
use super::words::*;
use crate::read::{Direction, PAGE_BYTES_MAX};
use crate::{CommitError, ReadRows, RowPlace, RowsBy, ViewStore};

/// Texts whose order every database gets wrong that does not compare bytes.
const TEXTS: [&str; 16] = [
    "", "\0", " ", "%", "A", "B", "a", "a\0", "a ", "a-", "aa", "ab", "b", "z", "Ä", "ä",
];

type Range = (Bound<String>, Bound<String>);

fn holds(range: &Range, text: &str) -> bool {
    let begun = match &range.0 {
        Bound::Included(from) => text >= from.as_str(),
        Bound::Excluded(from) => text > from.as_str(),
        Bound::Unbounded => true,
    };
    let not_ended = match &range.1 {
        Bound::Included(to) => text <= to.as_str(),
        Bound::Excluded(to) => text < to.as_str(),
        Bound::Unbounded => true,
    };
    begun && not_ended
}

/// Every kind of bound at each of these places, ranges that hold nothing among them.
fn ranges(ends: &[&str]) -> Vec<Range> {
    let bounds = |end: &&str| {
        [
            Bound::Included((*end).to_owned()),
            Bound::Excluded((*end).to_owned()),
        ]
    };
    let mut bounds: Vec<Bound<String>> = ends.iter().flat_map(bounds).collect();
    bounds.push(Bound::Unbounded);
    bounds
        .iter()
        .flat_map(|from| bounds.iter().map(|to| (from.clone(), to.clone())))
        .collect()
}

/// Reads it in both directions by these limits, and compares with the keys that are due.
async fn check(views: &dyn ViewStore, read: ReadRows, expected: &[&str], limits: &[usize]) {
    for limit in limits {
        let forward = read_rows(views, read.clone().limit(*limit)).await;
        assert_eq!(keys_of(&forward), expected, "{:?} by {limit}", read.by);
        let backward = read_rows(views, read.clone().limit(*limit).backward()).await;
        let mut backward = keys_of(&backward);
        backward.reverse();
        assert_eq!(backward, expected, "{:?} by {limit}, backward", read.by);
    }
}

pub async fn by_keys_are_those_that_exist(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &[])).await;
    worker
        .change(
            views,
            ["carol", "alice", "ä", "Bob", ""].map(|key| set(key, format!("of {key}"), &[])),
        )
        .await;
    let rows: [(&[&str], &[&str]); 6] = [
        (&[], &[]),
        (&["missing"], &[]),
        (&["alice"], &["alice"]),
        (
            &["ä", "missing", "alice", "Bob", "alice", "bob"],
            &["Bob", "alice", "ä"],
        ),
        (&["", "carol", "carol "], &["", "carol"]),
        (&["ALICE", "a", "alic", "alice%", "a%"], &[]),
    ];
    for (keys, expected) in rows {
        let by = RowsBy::Keys(keys.iter().map(|key| (*key).to_owned()).collect());
        check(
            views,
            ReadRows::of(worker.id(), by.clone()),
            expected,
            &[1, 2, 99],
        )
        .await;
        let page = views
            .read_rows(ReadRows::of(worker.id(), by))
            .await
            .unwrap();
        assert!(
            page.rows
                .iter()
                .all(|row| row.value == format!("of {}", row.key)),
            "{page:?}"
        );
        assert_eq!((page.next, page.checkpoints[0].position), (None, at(1)));
    }
    let one = views
        .read_rows(ReadRows::of(worker.id(), every_key()).limit(0))
        .await
        .unwrap();
    assert_eq!(one.rows.len(), 1, "a page gets somewhere");
}

pub async fn by_a_range_of_keys_honour_every_kind_of_bound(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &[])).await;
    worker
        .change(views, TEXTS.into_iter().rev().map(|key| set(key, key, &[])))
        .await;
    for range in ranges(&["", "A", "a", "a!", "ab", "ä", "\u{10ffff}"]) {
        let expected: Vec<&str> = TEXTS.into_iter().filter(|key| holds(&range, key)).collect();
        let by = RowsBy::KeyRange(range.0, range.1);
        check(views, ReadRows::of(worker.id(), by), &expected, &[3, 1_000]).await;
    }
}

pub async fn by_an_index_are_ordered_by_entry_then_key(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &["one", "two", "One"])).await;
    // Each entry with three keys; the second index turns them round, the third has one entry for
    // all.
    let mut places: Vec<(String, String)> = Vec::new();
    for (number, entry) in TEXTS.into_iter().enumerate() {
        places.extend(
            ["Z", "k", "ü"].map(|key| (entry.to_owned(), format!("{key}{}", TEXTS.len() - number))),
        );
    }
    places.sort();
    let turned = |key: &str| key.chars().rev().collect::<String>();
    worker
        .change(
            views,
            places
                .iter()
                .map(|(entry, key)| set(key, entry.clone(), &[entry, &turned(key), ""])),
        )
        .await;
    for range in ranges(&["", "A", "a", "a!", "ab", "ä", "\u{10ffff}"]) {
        let due = places.iter().filter(|(entry, _)| holds(&range, entry));
        let expected: Vec<&str> = due.map(|(_, key)| key.as_str()).collect();
        let by = RowsBy::Index {
            name: "one".into(),
            range,
        };
        check(views, ReadRows::of(worker.id(), by), &expected, &[2, 1_000]).await;
    }
    let all = (Bound::Unbounded, Bound::Unbounded);
    for (name, entry_of) in [("two", Some(turned)), ("One", None)] {
        let mut expected: Vec<(String, &str)> = places
            .iter()
            .map(|(_, key)| {
                (
                    entry_of.map_or_else(String::new, |of| of(key)),
                    key.as_str(),
                )
            })
            .collect();
        expected.sort();
        let expected: Vec<&str> = expected.into_iter().map(|(_, key)| key).collect();
        let by = RowsBy::Index {
            name: name.into(),
            range: all.clone(),
        };
        check(views, ReadRows::of(worker.id(), by), &expected, &[7, 1_000]).await;
    }
    for name in ["", "ONE", "three"] {
        let by = RowsBy::Index {
            name: name.into(),
            range: all.clone(),
        };
        let error = views
            .read_rows(ReadRows::of(worker.id(), by))
            .await
            .unwrap_err();
        assert!(matches!(error, CommitError::Invalid(_)), "{error:?}");
    }
}

pub async fn are_found_by_their_newest_entries_only(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &["one", "two"])).await;
    worker
        .change(
            views,
            [
                set("a", "1", &["x", "p"]),
                set("b", "1", &["x", "p"]),
                set("c", "1", &["y", ""]),
            ],
        )
        .await;
    worker
        .change(
            views,
            [set("a", "2", &["y", "p"]), removed("b"), removed("missing")],
        )
        .await;
    worker
        .change(
            views,
            [set("b", "3", &["z", "q"]), set("c", "3", &["y", ""])],
        )
        .await;
    let rows: [(&str, &str, &[&str]); 7] = [
        ("one", "x", &[]),
        ("one", "y", &["a", "c"]),
        ("one", "z", &["b"]),
        ("two", "p", &["a"]),
        ("two", "q", &["b"]),
        ("two", "", &["c"]),
        ("two", "x", &[]),
    ];
    for (name, entry, expected) in rows {
        let range = (
            Bound::Included(entry.to_owned()),
            Bound::Included(entry.to_owned()),
        );
        let by = RowsBy::Index {
            name: name.into(),
            range,
        };
        check(views, ReadRows::of(worker.id(), by), expected, &[1, 99]).await;
    }
    let values: Vec<_> = read_rows(views, ReadRows::of(worker.id(), every_key())).await;
    assert_eq!(
        values.iter().map(|row| &row.value[..]).collect::<Vec<_>>(),
        [b"2", b"3", b"3"]
    );
}

pub async fn are_neither_lost_nor_repeated_at_the_borders_of_pages(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &["few", "many"])).await;
    let mut rows: BTreeMap<String, String> = BTreeMap::new();
    for n in 0..101 {
        rows.insert(
            format!("key-{}", n * 7 % 101),
            ["", "a", "ä"][n % 3].to_owned(),
        );
    }
    worker
        .change(
            views,
            rows.iter()
                .map(|(key, few)| set(key, key.clone(), &[few, key])),
        )
        .await;
    let by_key: Vec<&str> = rows.keys().map(String::as_str).collect();
    let mut by_few: Vec<(&str, &str)> = rows
        .iter()
        .map(|(key, few)| (few.as_str(), key.as_str()))
        .collect();
    by_few.sort_unstable();
    let by_few: Vec<&str> = by_few.into_iter().map(|(_, key)| key).collect();
    let all = (Bound::Unbounded, Bound::Unbounded);
    let keys = RowsBy::Keys(rows.keys().rev().cloned().collect());
    let few = RowsBy::Index {
        name: "few".into(),
        range: all.clone(),
    };
    let many = RowsBy::Index {
        name: "many".into(),
        range: all,
    };
    for (by, expected) in [
        (keys, &by_key),
        (every_key(), &by_key),
        (few, &by_few),
        (many, &by_key),
    ] {
        let read = ReadRows::of(worker.id(), by);
        check(
            views,
            read.clone(),
            expected,
            &[1, 2, 99, 100, 101, 102, 1_000],
        )
        .await;
        let whole = views.read_rows(read.limit(101)).await.unwrap();
        assert_eq!(whole.next, None, "nothing comes after the last row");
    }
    // A place without a row (any more) is a place all the same.
    let after = RowPlace {
        entry: String::new(),
        key: "key-1!".into(),
    };
    let page = views
        .read_rows(
            ReadRows::of(worker.id(), every_key())
                .after(Some(after.clone()))
                .limit(1),
        )
        .await
        .unwrap();
    assert_eq!(keys_of(&page.rows), ["key-10"]);
    let read = ReadRows::of(worker.id(), every_key())
        .after(Some(after))
        .limit(1)
        .backward();
    assert_eq!(
        keys_of(&views.read_rows(read).await.unwrap().rows),
        ["key-1"]
    );
    // One that lies outside of the range: everything is before it, or nothing is.
    let range = RowsBy::KeyRange(
        Bound::Included("key-5".into()),
        Bound::Excluded("key-6".into()),
    );
    let ends = [
        ("key-0", Direction::Forward, 11),
        ("key-7", Direction::Forward, 0),
    ];
    let turned = [
        ("key-7", Direction::Backward, 11),
        ("key-0", Direction::Backward, 0),
    ];
    for (key, direction, count) in ends.into_iter().chain(turned) {
        let mut read = ReadRows::of(worker.id(), range.clone());
        read.after = Some(RowPlace {
            entry: String::new(),
            key: key.into(),
        });
        read.direction = direction;
        assert_eq!(
            views.read_rows(read).await.unwrap().rows.len(),
            count,
            "after {key}, {direction:?}"
        );
    }
}

pub async fn that_are_large_come_in_pages_that_fit_into_memory(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let views = views(&*store);
    let mut worker = Worker::begin(views, spec("a", &["one"])).await;
    let large = vec![0; PAGE_BYTES_MAX / 3];
    worker
        .change(
            views,
            (0..7).map(|n| set(&format!("key-{n}"), large.clone(), &["x"])),
        )
        .await;
    worker
        .change(views, [set("key-7", vec![1; PAGE_BYTES_MAX + 1], &["x"])])
        .await;
    let index = RowsBy::Index {
        name: "one".into(),
        range: (Bound::Unbounded, Bound::Unbounded),
    };
    let keys = RowsBy::Keys((0..8).map(|n| format!("key-{n}")).collect());
    for by in [every_key(), index, keys] {
        for read in [
            ReadRows::of(worker.id(), by.clone()),
            ReadRows::of(worker.id(), by).backward(),
        ] {
            assert_eq!(read_rows(views, read.clone()).await.len(), 8);
            let page = views.read_rows(read).await.unwrap();
            let bytes: usize = page
                .rows
                .iter()
                .rev()
                .skip(1)
                .map(|row| row.value.len())
                .sum();
            assert!(
                bytes < PAGE_BYTES_MAX && page.next.is_some(),
                "{} rows in a page",
                page.rows.len()
            );
        }
    }
}

pub async fn of_a_page_belong_to_one_moment(fixture: &dyn Fixture) {
    let one = open(fixture).await;
    let two = another(fixture, &one).await;
    let mut worker = Worker::begin(views(&*one), spec("a", &["one"])).await;
    worker
        .change(views(&*one), ["a", "b"].map(|key| set(key, "1", &["x"])))
        .await;
    let done = Arc::new(AtomicBool::new(false));
    let id = worker.id();
    let finished = Arc::clone(&done);
    let reading = tokio::spawn(async move {
        let index = RowsBy::Index {
            name: "one".into(),
            range: (Bound::Unbounded, Bound::Unbounded),
        };
        let mut asked = 0;
        while !finished.load(Ordering::SeqCst) || asked < 10 {
            for by in [
                RowsBy::Keys(vec!["a".into(), "b".into()]),
                every_key(),
                index.clone(),
            ] {
                let page = views(&*two).read_rows(ReadRows::of(id, by)).await.unwrap();
                let position = page.checkpoints[0].position.to_string();
                assert_eq!(page.rows.len(), 2);
                assert!(
                    page.rows.iter().all(|row| row.value == position),
                    "{page:?}"
                );
            }
            asked += 1;
        }
    });
    for number in 2..60 {
        worker
            .change(
                views(&*one),
                ["a", "b"].map(|key| set(key, number.to_string(), &[&number.to_string()])),
            )
            .await;
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::SeqCst);
    reading.await.expect("the reader is content");
}
