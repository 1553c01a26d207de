//! Values at the ends of their ranges, names that differ in one sign, and requests of many names.

use std::sync::Arc;

use super::words::*;
use super::{Dice, Fixture, rounds};
use crate::append::{Append, AppendError, Appended, Expected, Violation};
use crate::chrono::{DateTime, TimeDelta, Utc};
use crate::clock::{Clock, ManualClock};
use crate::event::{EventId, NewEvent, RecordedEvent};
use crate::position::{Partition, Position};
use crate::query::Filter;
use crate::read::{ReadLog, ReadStream};
use crate::store::Store;
use crate::stream::{StreamId, Version};
use crate::stream_state::{ChangeStream, Status, StreamChange};

/// More names than any database takes as parameters of one statement.
const MANY: usize = 40_000;

/// The events that a filter finds in all partitions.
async fn found(store: &dyn Store, filter: &Filter) -> Vec<RecordedEvent> {
    let mut found = Vec::new();
    for partition in partitions(store) {
        let read = ReadLog::after(Position::START).partition(partition);
        found.extend(read_log(store, read.filter(filter.clone())).await);
    }
    found
}

fn streams_of(events: &[RecordedEvent]) -> Vec<&str> {
    let mut streams: Vec<_> = events.iter().map(|event| event.stream.as_str()).collect();
    streams.sort_unstable();
    streams
}

pub async fn reads_from_and_to_both_ends_are_answered(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let name = stream("edges-1");
    let partition = store.partition_of(&name);
    append(&*store, &name, events(5)).await;
    let ends = [0, 1, 2, 4, 5, 6, u64::MAX];
    for (from, to) in ends.iter().flat_map(|a| ends.map(|b| (*a, b))) {
        for limit in [0, 1, 2, usize::MAX] {
            let wanted =
                |first: u64| -> Vec<u64> { (1..=5).filter(|n| (first..=to).contains(n)).collect() };
            let cut = |mut all: Vec<u64>, is_backward: bool| {
                if is_backward {
                    all.reverse();
                }
                all.truncate(limit.max(1));
                all
            };
            let said = format!("{from} to {to}, at most {limit}");
            let of = ReadStream::of(name.clone()).limit(limit);
            let of = of.from(Version::new(from)).to(Version::new(to));
            let log = ReadLog::after(Position::new(from)).partition(partition);
            let log = log.up_to(Position::new(to)).limit(limit);
            for is_backward in [false, true] {
                let (mut of, mut log) = (of.clone(), log.clone());
                if is_backward {
                    of = of.backward();
                    log = log.backward();
                }
                let page = store.read_stream(of).await.unwrap();
                let expected = cut(wanted(from), is_backward);
                assert_eq!(versions(&page.events), expected, "versions {said}");
                let page = store.read(log).await.unwrap();
                let expected = cut(wanted(from.saturating_add(1)), is_backward);
                assert_eq!(positions(&page.events), expected, "positions after {said}");
            }
        }
    }
}

pub async fn a_prefix_is_taken_sign_by_sign(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let names = [
        "a%b-1",
        "a_b-1",
        "aXb-1",
        "A%B-1",
        "a*b-1",
        "a?b-1",
        "a[b-1",
        "a\\b-1",
        "a'b-1",
        "a\"b-1",
        "ä-1",
        "a\u{308}-1",
        "\u{d7ff}-1",
        "\u{e000}-1",
        "\u{10ffff}-1",
        "\u{10ffff}\u{10ffff}-2",
        " a-1",
        "a -1",
        "a",
    ];
    for name in names {
        append(&*store, &stream(name), events(1)).await;
    }
    let mut prefixes: Vec<String> = vec![String::new(), "b".into(), "\u{10fffe}".into()];
    for name in names {
        let ends = name.char_indices().map(|(at, sign)| at + sign.len_utf8());
        prefixes.extend(ends.map(|end| name[..end].to_owned()));
    }
    for prefix in prefixes {
        let filter = Filter::default().stream_prefix(&prefix);
        let mut expected = names.to_vec();
        expected.retain(|name| name.starts_with(&prefix));
        expected.sort_unstable();
        let events = found(&*store, &filter).await;
        assert_eq!(streams_of(&events), expected, "prefix {prefix:?}");
    }
    for name in names {
        let category = StreamId::new(name).unwrap().category().to_owned();
        let filter = Filter::default().category(&category);
        let mut expected = names.to_vec();
        expected.retain(|name| stream(name).category() == category);
        expected.sort_unstable();
        let events = found(&*store, &filter).await;
        assert_eq!(streams_of(&events), expected, "category {category:?}");
    }
}

pub async fn types_and_tags_that_differ_in_one_sign_are_apart(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let words = [
        "a",
        "A",
        "a ",
        " a",
        "a\u{200b}",
        "ä",
        "a\u{308}",
        "a%",
        "a_",
        "a'",
        "a\\",
        "a:b",
        "a,b",
        "{a}",
        "\u{10ffff}",
        "\u{2028}",
    ];
    let to = stream("words-1");
    for word in words {
        let named = NewEvent::json(word.to_owned(), "1").tag(tag(&format!("k:{word}")));
        append(&*store, &to, [named]).await;
    }
    let one = |filter: Filter| {
        let store = &store;
        async move {
            let events = found(&**store, &filter).await;
            events
                .iter()
                .map(|of| of.event_type.to_string())
                .collect::<Vec<_>>()
        }
    };
    for word in words {
        assert_eq!(one(Filter::default().types([word])).await, [word], "type");
        let tagged = Filter::default().tag(tag(&format!("k:{word}")));
        assert_eq!(one(tagged).await, [word], "tag");
    }
}

pub async fn moments_before_1970_are_found_to_the_microsecond(fixture: &dyn Fixture) {
    for begin in ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999997Z"] {
        let begin: DateTime<Utc> = begin.parse().unwrap();
        let clock = Arc::new(ManualClock::at(begin));
        let store = open_at(fixture, &clock).await;
        let name = stream(format!("old{}-1", begin.timestamp().unsigned_abs()));
        let partition = store.partition_of(&name);
        let earlier = head(&*store, partition).await;
        let mut recorded = Vec::new();
        for occurred in [
            DateTime::<Utc>::MIN_UTC,
            DateTime::<Utc>::MAX_UTC,
            begin,
            begin,
            begin,
        ] {
            append(&*store, &name, [event("1").at(occurred)]).await;
            let read = ReadStream::of(name.clone()).backward().limit(1);
            let last = read_stream(&*store, read).await.remove(0);
            assert_eq!(last.occurred_at, crate::to_microseconds(occurred));
            assert_eq!(last.recorded_at, clock.now());
            recorded.push((last.recorded_at, last.position));
            clock.advance(TimeDelta::microseconds(1));
        }
        for (at, _) in recorded.clone() {
            for moment in [-1_500, -500, 0, 500].map(|ns| at + TimeDelta::nanoseconds(ns)) {
                let before = recorded.iter().rfind(|(of, _)| *of <= moment);
                let expected = before.map_or(earlier, |(_, position)| *position);
                let position = store.position_at(partition, moment).await.unwrap();
                assert_eq!(position, expected, "{moment}");
                let events = found(&*store, &Filter::default().recorded(moment..)).await;
                let expected = recorded.iter().filter(|(of, _)| *of >= moment).count();
                assert_eq!(events.len(), expected, "from {moment}");
            }
        }
        let last = head(&*store, partition).await;
        let ends = [
            (DateTime::<Utc>::MIN_UTC, Position::START),
            (DateTime::<Utc>::MAX_UTC, last),
        ];
        for (moment, expected) in ends {
            let position = store.position_at(partition, moment).await.unwrap();
            assert_eq!(position, expected, "{moment}");
        }
        let whole = DateTime::<Utc>::MIN_UTC..=DateTime::<Utc>::MAX_UTC;
        let filter = Filter::default().occurred(whole.clone()).recorded(whole);
        let events = found(&*store, &filter.stream_prefix(name.as_str())).await;
        assert_eq!(events.len(), 5);
    }
}

pub async fn the_last_event_is_found_after_thousands_of_removed_ones(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let name = stream("long-1");
    let partition = store.partition_of(&name);
    let first = NewEvent::json("first", "1").tag(tag("k:v"));
    append(&*store, &name, [first]).await;
    append(
        &*store,
        &name,
        (0..5_000).map(|_| event("1").tag(tag("k:v"))),
    )
    .await;
    append(
        &*store,
        &name,
        [NewEvent::json("last", "1").tag(tag("k:v"))],
    )
    .await;
    let before = Version::new(5_002);
    let archive = ChangeStream::new(&name, StreamChange::Archive { before });
    store.change_stream(archive).await.unwrap();
    for (filter, said) in [
        (Filter::default(), "all"),
        (Filter::default().category("long"), "category"),
        (Filter::default().stream_prefix("long-"), "prefix"),
        (Filter::default().tag(tag("k:v")), "tag"),
        (Filter::default().types(["first", "last"]), "types"),
    ] {
        for is_backward in [false, true] {
            let mut read = ReadLog::after(Position::START)
                .partition(partition)
                .limit(1);
            read = read.filter(filter.clone());
            read = if is_backward { read.backward() } else { read };
            let events = read_log(&*store, read).await;
            assert_eq!(
                versions(&events),
                [5_002],
                "{said}, backward: {is_backward}"
            );
        }
    }
    for read in [
        ReadStream::of(name.clone()),
        ReadStream::of(name.clone()).backward(),
    ] {
        for read in [read.clone().limit(1), read.limit(1).everything()] {
            assert_eq!(versions(&read_stream(&*store, read).await), [5_002]);
        }
    }
}

pub async fn a_request_of_many_names_is_answered(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let given = NewEvent::json("name-7", "1").tag(tag("k:7"));
    let to = stream("name-7");
    append(&*store, &to, [given.clone()]).await;
    append(&*store, &stream("other-1"), events(1)).await;
    let names = || (0..MANY).map(|n| format!("name-{n}"));
    let categories = (0..MANY).map(|n| format!("c{n}")).chain(["name".into()]);
    let by_category = Filter {
        categories: categories.collect(),
        ..Filter::default()
    };
    let by_prefix = Filter {
        stream_prefixes: names().collect(),
        ..Filter::default()
    };
    for (filter, said) in [
        (Filter::default().types(names()), "types"),
        (by_category, "categories"),
        (by_prefix, "prefixes"),
    ] {
        assert_eq!(
            streams_of(&found(&*store, &filter).await),
            ["name-7"],
            "{said}"
        );
    }
    let mut ids: Vec<EventId> = (0..MANY).map(|_| EventId::random()).collect();
    ids.push(given.id);
    let known = store.find(store.partition_of(&to), &ids).await.unwrap();
    assert_eq!(known.len(), ids.len());
    assert_eq!(known.iter().flatten().count(), 1);
    assert!(known.last().unwrap().is_some());
}

/// One append of a random batch, and what came of it.
struct Tried {
    on: StreamId,
    expected: Expected,
    answer: Result<Appended, AppendError>,
}

pub async fn what_neighbours_are_answered_was_true_at_their_place(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let names = ["near-1", "near-2", "near-3"].map(stream);
    let mut dice = Dice::new(41);
    let mut tried = Vec::new();
    for _ in 0..rounds(12, 100) {
        let mut known = Vec::new();
        for name in &names {
            known.push(store.stream_state(name).await.unwrap().version.get());
        }
        let tasks: Vec<_> = (0..12)
            .map(|_| {
                let which = dice.roll(3) as usize;
                let near = version(known[which] + dice.roll(3));
                let expected = match dice.roll(6) {
                    0 => Expected::Any,
                    1 => Expected::NoStream,
                    2 => Expected::Exists,
                    3 => Expected::ActiveAt(Version::new(known[which] + dice.roll(2))),
                    _ => near,
                };
                let on = names[which].clone();
                let store = Arc::clone(&store);
                let count = 1 + dice.roll(2) as usize;
                async move {
                    let answer = try_append(&*store, &on, expected, events(count)).await;
                    Tried {
                        on,
                        expected,
                        answer,
                    }
                }
            })
            .collect();
        tried.extend(at_once(tasks).await);
    }
    for name in &names {
        let log = whole_stream(&*store, name).await;
        let of_stream = || tried.iter().filter(|of| of.on == *name);
        let mut written = 0;
        for Tried {
            expected, answer, ..
        } in of_stream()
        {
            match answer {
                Ok(appended) => {
                    let first = appended.events()[0].version.get();
                    let was = match first {
                        1 => Status::Absent,
                        _ => Status::Active,
                    };
                    let holds = expected_holds(*expected, was, first - 1);
                    assert!(holds, "{expected:?} before version {first} of {name}");
                    written += appended.events().len();
                }
                Err(AppendError::Conflict(violations)) => {
                    let [Violation::Stream { found, .. }] = &violations[..] else {
                        panic!("{violations:?}");
                    };
                    let version = found.version.get();
                    assert!(version <= log.len() as u64, "{found:?} of {name}");
                    let holds = expected_holds(*expected, found.status, version);
                    assert!(!holds, "{expected:?} was refused at {found:?} of {name}");
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(log.len(), written, "events of {name}");
    }
}

fn expected_holds(expected: Expected, status: Status, version: u64) -> bool {
    let is_active = status == Status::Active;
    match expected {
        Expected::Any => true,
        Expected::NoStream => !is_active,
        Expected::Exists => is_active,
        Expected::Version(of) => of.get() == version,
        Expected::ActiveAt(of) => is_active && of.get() == version,
    }
}

pub async fn a_stream_name_of_maximum_length_works_everywhere(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let name = stream(format!("{}'\"\\", "\u{10ffff}".repeat(63)));
    assert_eq!(name.as_str().len(), StreamId::BYTES_MAX);
    let partition = store.partition_of(&name);
    append(&*store, &name, [event("")]).await;
    append(&*store, &name, [event(""), event("")]).await;
    for change in [
        StreamChange::Truncate {
            before: Version::new(2),
        },
        StreamChange::Archive {
            before: Version::new(3),
        },
        StreamChange::Delete,
    ] {
        store
            .change_stream(ChangeStream::new(&name, change))
            .await
            .unwrap();
    }
    let revive = Append::new(name.clone(), [event("")]).expecting(Expected::NoStream);
    store.append(revive).await.unwrap();
    assert_eq!(shown(&*store, &name).await, [4]);
    let filter = Filter::default().stream_prefix(name.as_str());
    let read = ReadLog::after(Position::START).partition(partition);
    let events = read_log(&*store, read.filter(filter)).await;
    assert_eq!(versions(&events), [3, 4]);
    let store = reopen(fixture, store).await;
    let state = store.stream_state(&name).await.unwrap();
    assert_eq!((state.status, state.version.get()), (Status::Active, 4));
    assert_eq!(head(&*store, Partition(partition.0)).await.get(), 4);
}
