//! Appending: expectation × stream state, what comes back, and what is never accepted.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::words::*;
use super::{Dice, Fixture};
use crate::append::{Append, AppendError, Expected, Limits};
use crate::chrono::{DateTime, TimeDelta, Utc};
use crate::clock::{Clock, ManualClock};
use crate::event::{EventId, Metadata, NewEvent};
use crate::generation::GenerationId;
use crate::inline::InlineRow;
use crate::position::Position;
use crate::read::{ReadLog, ReadStream};
use crate::store::Store;
use crate::stream::{StreamId, Version};
use crate::stream_state::{ChangeStream, Status, StreamChange};

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

pub async fn of_a_refused_request_may_be_repeated_when_its_expectation_holds(
    fixture: &dyn Fixture,
) {
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

pub async fn without_events_is_invalid(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let absent = stream("empty-1");
    let active = stream("empty-2");
    append(&*store, &active, events(1)).await;
    for to in [&absent, &active] {
        for expected in [
            Expected::Any,
            Expected::NoStream,
            Expected::Exists,
            version(0),
        ] {
            let error = refused(&*store, &[to], try_append(&*store, to, expected, [])).await;
            assert_invalid(&error, "without events");
        }
    }
    assert_eq!(
        store.stream_state(&absent).await.unwrap().status,
        Status::Absent
    );
}

pub async fn naming_one_id_twice_is_invalid(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("twice-1");
    let first = event("1");
    let same = event("2").id(first.id);
    let id = first.id.to_string();
    for given in [
        vec![first.clone(), same.clone()],
        vec![first.clone(), event("3"), first.clone()],
    ] {
        assert_invalid(
            &refused(
                &*store,
                &[&to],
                try_append(&*store, &to, Expected::Any, given),
            )
            .await,
            &id,
        );
    }
}

pub async fn beyond_a_limit_is_invalid_and_names_what_is_too_much(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("limits-1");
    append(&*store, &to, events(1)).await;
    let limits = store.limits();
    let long = "n".repeat(Limits::NAME_BYTES_MAX + 1);
    let large = NewEvent::json(
        "large",
        vec![b'x'; (20 << 20).max(limits.payload_bytes_max + 1)],
    );
    let full = vec![b'x'; limits.payload_bytes_max];
    let whole = (0..limits.append_bytes_max / limits.payload_bytes_max + 1)
        .map(|_| bytes::Bytes::from(full.clone()));
    let tags =
        (0..=Limits::TAGS_MAX).fold(event("1"), |event, n| event.tag(tag(&format!("n:{n}"))));
    let metadata = Metadata::default().key("k", "v".repeat(Limits::METADATA_BYTES_MAX));
    let rows = [
        (vec![event("1"), large], "event 1"),
        (
            whole
                .map(|payload| NewEvent::json("full", payload))
                .collect(),
            "bytes",
        ),
        (events(limits.append_events_max + 1), "events"),
        (
            vec![event("1"), NewEvent::json(long.clone(), "1")],
            "event 1",
        ),
        (vec![NewEvent::json("", "1")], "event 0"),
        (vec![NewEvent::json("line\nbreak", "1")], "event 0"),
        (vec![NewEvent::new("named", long, "1")], "event 0"),
        (vec![NewEvent::new("named", "", "1")], "event 0"),
        (vec![event("1"), event("2"), tags], "event 2"),
        (vec![event("1").metadata(metadata)], "event 0"),
    ];
    for (given, names) in rows {
        assert_invalid(
            &refused(
                &*store,
                &[&to],
                try_append(&*store, &to, Expected::Any, given),
            )
            .await,
            names,
        );
    }
}

pub async fn up_to_its_limits_is_accepted(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("limits-2");
    let limits = store.limits();
    let name = "n".repeat(Limits::NAME_BYTES_MAX);
    let tags =
        (0..Limits::TAGS_MAX).fold(event("1"), |event, n| event.tag(tag(&format!("n:{n:03}"))));
    let longest_tag = event("1").tag(tag(&format!("k:{}", "v".repeat(253))));
    let metadata = Metadata::default().key("k", "v".repeat(Limits::METADATA_BYTES_MAX - 1));
    let rows = [
        vec![NewEvent::json(
            "large",
            vec![b'x'; limits.payload_bytes_max],
        )],
        events(limits.append_events_max),
        vec![NewEvent::new(name.clone(), name, "1"), tags, longest_tag],
        vec![event("1").metadata(metadata)],
    ];
    let mut next = Version::FIRST;
    for given in rows {
        let appended = append(&*store, &to, given.clone()).await;
        assert_recorded(
            &appended,
            &given,
            &read_stream(&*store, ReadStream::of(to.clone()).from(next)).await,
        );
        next = next.plus(given.len() as u64);
    }
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

pub async fn leaves_nothing_behind_the_position_that_it_returns(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for partition in partitions(&*store) {
        let a = stream_in(&*store, partition, "seen");
        let b = stream_in(&*store, partition, "next");
        let mut last = Position::START;
        for _ in 0..5 {
            let seen = append(&*store, &a, events(2)).await.last().position;
            assert!(seen > last, "{seen} is not behind {last}");
            assert!(
                head(&*store, partition).await >= seen,
                "the head is behind an append that has returned"
            );
            let next = append(&*store, &b, events(1)).await;
            let found = read_log(&*store, ReadLog::after(seen).partition(partition)).await;
            assert_eq!(
                ids(&found),
                [next.last().id],
                "a reader that starts behind an append sees the next one"
            );
            last = next.last().position;
        }
    }
}

pub async fn keeps_the_order_of_each_of_four_writers(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("writers-1");
    at_once((0..4).map(|writer| {
        let store = Arc::clone(&store);
        let to = to.clone();
        async move {
            for n in 0..100 {
                append(&*store, &to, [event(format!("[{writer},{n}]"))]).await;
            }
        }
    }))
    .await;
    let all = whole_stream(&*store, &to).await;
    assert_eq!(versions(&all), (1..=400).collect::<Vec<u64>>());
    let mut next = [0; 4];
    for event in &all {
        let [writer, n]: [usize; 2] = serde_json::from_slice(&event.payload).unwrap();
        assert_eq!(next[writer], n, "writer {writer}");
        next[writer] += 1;
    }
    assert_eq!(
        positions(&whole_log(&*store, store.partition_of(&to)).await),
        (1..=400).collect::<Vec<u64>>()
    );
}

pub async fn under_a_version_lets_one_of_four_writers_win_and_refuses_only_what_was_stale(
    fixture: &dyn Fixture,
) {
    let store = open(fixture).await;
    let to = stream("counter-1");
    let won = at_once((0..4).map(|_| {
        let store = Arc::clone(&store);
        let to = to.clone();
        async move {
            let mut won = Vec::new();
            let mut read = 0;
            for _ in 0..50 {
                match try_append(&*store, &to, version(read), events(1)).await {
                    Ok(appended) => {
                        assert_eq!(appended.last().version.get(), read + 1);
                        won.push(read + 1);
                        read += 1;
                    }
                    Err(error) => {
                        let [(0, Status::Active, found)] = conflicts(&error)[..] else {
                            panic!("{error:?}")
                        };
                        assert!(
                            found > read,
                            "refused at {read} although the stream was at {found}"
                        );
                        read = found;
                    }
                }
            }
            won
        }
    }))
    .await;
    let mut won = won.concat();
    won.sort_unstable();
    assert_eq!(
        won,
        (1..=won.len() as u64).collect::<Vec<u64>>(),
        "every version was won once"
    );
    assert_eq!(shown(&*store, &to).await, won);
}

pub async fn of_a_new_stream_by_many_lets_exactly_one_begin_it(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for (row, expected) in [Expected::NoStream, version(0)].into_iter().enumerate() {
        let to = stream(format!("begun-{row}"));
        let outcomes = at_once((0..16).map(|_| {
            let store = Arc::clone(&store);
            let to = to.clone();
            async move { try_append(&*store, &to, expected, events(3)).await }
        }))
        .await;
        assert_eq!(
            outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
            1,
            "{expected}"
        );
        for error in outcomes.into_iter().filter_map(Result::err) {
            assert_eq!(conflicts(&error), [(0, Status::Active, 3)], "{expected}");
        }
        assert_eq!(shown(&*store, &to).await, [1, 2, 3]);
    }
}

pub async fn of_a_thousand_events_does_not_mix_with_another_and_is_seen_whole(
    fixture: &dyn Fixture,
) {
    let store = open(fixture).await;
    for partition in partitions(&*store) {
        let before = head(&*store, partition).await;
        let writers: Vec<StreamId> = (0..2)
            .map(|n| stream_in(&*store, partition, &format!("block{n}")))
            .collect();
        let reader = {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                loop {
                    let seen = head(&*store, partition).await.get() - before.get();
                    assert_eq!(seen % 1_000, 0, "a part of an append is visible");
                    if seen == 2_000 {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            })
        };
        at_once(writers.iter().map(|to| {
            let store = Arc::clone(&store);
            let to = to.clone();
            async move { append(&*store, &to, events(1_000)).await }
        }))
        .await;
        reader.await.expect("the reader sees whole appends");
        let found = read_log(&*store, ReadLog::after(before).partition(partition)).await;
        for block in found.chunks(1_000) {
            assert!(
                block.iter().all(|event| event.stream == block[0].stream),
                "two appends are mixed"
            );
            assert_eq!(versions(block), (1..=1_000).collect::<Vec<u64>>());
        }
    }
}

pub async fn gives_back_every_byte(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let mut dice = Dice::new(7);
    let noise: Vec<u8> = (0..1 << 20).map(|_| dice.roll(256) as u8).collect();
    let keys = Metadata::default()
        .correlation(Uuid::from_u128(u128::MAX))
        .causation(EventId::random())
        .actor("Zoë \"the\" actor\\")
        .tenant("nord")
        .key("", "an empty key")
        .key("schlüssel", "wert\u{0}\n\u{10ffff}");
    let given = vec![
        event(vec![]),
        event(vec![0]),
        event((0..=255).collect::<Vec<u8>>()),
        event(b"\xff\xfe\xc3\x28 not UTF-8".to_vec()),
        event(b"{ \"b\" : 1.0, \"a\" : 12345678901234567890123, \"a\": 1e400 }\n".to_vec()),
        event(noise),
        NewEvent::new("Größe.geändert '\"\\%_`", "application/x.my-codec+v2", "1")
            .schema_version(u32::MAX),
        event("1")
            .tag(tag("b:2"))
            .tag(tag("a:ä'\"%_\\"))
            .tag(tag("b:1"))
            .tag(tag("b:2"))
            .tag(tag("url:http://x")),
        event("1").metadata(keys),
        event(i64::MIN.to_string()),
    ];
    let to = stream("bytes-1");
    let appended = append(&*store, &to, given.clone()).await;
    assert_recorded(&appended, &given, &whole_stream(&*store, &to).await);
    let partition = store.partition_of(&to);
    assert_recorded(&appended, &given, &whole_log(&*store, partition).await);
    let store = reopen(fixture, store).await;
    assert_recorded(&appended, &given, &whole_stream(&*store, &to).await);
    assert_recorded(&appended, &given, &whole_log(&*store, partition).await);
}

pub async fn keeps_the_event_time_to_the_microsecond(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let moments = [
        "1970-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "1969-12-31T23:59:59.000001Z",
        "1582-10-04T12:00:00.123456Z",
        "0001-01-01T00:00:00Z",
        "2026-03-31T12:00:00.000001Z",
        "9999-12-31T23:59:59.999999Z",
    ];
    let given: Vec<NewEvent> = moments
        .iter()
        .map(|moment| event("1").at(moment.parse().unwrap()))
        .collect();
    let to = stream("times-1");
    append(&*store, &to, given).await;
    let found: Vec<DateTime<Utc>> = whole_stream(&*store, &to)
        .await
        .iter()
        .map(|event| event.occurred_at)
        .collect();
    assert_eq!(
        found,
        moments.map(|moment| moment.parse::<DateTime<Utc>>().unwrap())
    );
    // What is finer than a microsecond is cut, towards the past, also when nobody did so before.
    let mut fine = event("1");
    fine.occurred_at = DateTime::from_timestamp_nanos(-1_500);
    append(&*store, &to, [fine]).await;
    let cut = read_stream(&*store, ReadStream::of(to).backward().limit(1)).await[0].occurred_at;
    assert_eq!(cut.timestamp_nanos_opt(), Some(-2_000));
}

pub async fn is_recorded_at_the_moment_that_the_clock_tells(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::at(
        "2026-03-31T12:00:00.123456Z".parse().unwrap(),
    ));
    let store = open_at(fixture, &clock).await;
    for partition in partitions(&*store) {
        let to = stream_in(&*store, partition, "told");
        append(&*store, &to, events(2)).await;
        let first = clock.now();
        clock.advance(TimeDelta::microseconds(1));
        append(&*store, &to, events(1)).await;
        let found: Vec<_> = whole_stream(&*store, &to)
            .await
            .iter()
            .map(|event| event.recorded_at)
            .collect();
        assert_eq!(found, [first, first, clock.now()]);
        let state = store
            .change_stream(ChangeStream::new(&to, StreamChange::Delete))
            .await
            .unwrap();
        assert_eq!(state.deletions[0].recorded_at, clock.now());
    }
}

pub async fn never_records_an_earlier_time_than_before_also_when_the_clock_runs_back(
    fixture: &dyn Fixture,
) {
    let noon: DateTime<Utc> = "2026-03-31T12:00:00Z".parse().unwrap();
    let clock = Arc::new(ManualClock::at(noon));
    let mut store = open_at(fixture, &clock).await;
    let names: Vec<(StreamId, StreamId)> = partitions(&*store)
        .map(|partition| {
            (
                stream_in(&*store, partition, "flows"),
                stream_in(&*store, partition, "gone"),
            )
        })
        .collect();
    for (hours, reopened) in [
        (0, false),
        (-1, false),
        (-2, true),
        (1, false),
        (-9, true),
        (2, true),
    ] {
        clock.set(noon + TimeDelta::hours(hours));
        if reopened {
            drop(store);
            store = open_at(fixture, &clock).await;
        }
        for (to, gone) in &names {
            append(&*store, to, events(2)).await;
            append(&*store, gone, events(1)).await;
            store
                .change_stream(ChangeStream::new(gone, StreamChange::Delete))
                .await
                .unwrap();
        }
    }
    for (partition, (to, gone)) in partitions(&*store).zip(&names) {
        let all = whole_log(&*store, partition).await;
        let times: Vec<_> = all.iter().map(|event| event.recorded_at).collect();
        assert!(times.is_sorted(), "recorded times go backwards: {times:?}");
        let latest = (times.first().copied(), times.last().copied());
        assert_eq!(
            latest,
            (Some(noon), Some(noon + TimeDelta::hours(2))),
            "a time runs on with the clock"
        );
        // A deletion is recorded behind the events before it, and before those behind it.
        for deletion in store.stream_state(gone).await.unwrap().deletions {
            let (before, behind) = all.split_at(deletion.position.get() as usize);
            assert!(
                before
                    .iter()
                    .all(|event| event.recorded_at <= deletion.recorded_at)
            );
            assert!(
                behind
                    .iter()
                    .all(|event| event.recorded_at >= deletion.recorded_at)
            );
        }
        assert!(shown(&*store, gone).await.is_empty());
        assert_eq!(shown(&*store, to).await.len(), 12);
    }
}

pub async fn accepts_every_legal_name(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let longest = "l".repeat(StreamId::BYTES_MAX);
    let long_letters = "ä".repeat(StreamId::BYTES_MAX / 2);
    let names = [
        "journal",
        "account-1",
        "account-2026-03-31",
        "Account-1",
        "account-1 ",
        "-starts-with-a-dash",
        "ends-",
        "konto-Ärö-1",
        "konto-A\u{308}ro\u{308}-1",
        "списък-№-七",
        "🦀-🦀🦀",
        "q'uote-\"x\"\\y",
        "percent-%_*?",
        "dollar-$x",
        "slash/..-/a:b;c",
        &longest,
        &long_letters,
    ];
    let mut appended = BTreeMap::new();
    for name in names {
        let to = stream(name);
        appended.insert(
            name,
            try_append(&*store, &to, Expected::NoStream, events(1))
                .await
                .unwrap(),
        );
    }
    let store = reopen(fixture, store).await;
    for name in names {
        let found = whole_stream(&*store, &stream(name)).await;
        assert_eq!(ids(&found), [appended[name].last().id], "{name}");
        assert_eq!(found[0].stream.as_str(), name);
    }
    // Annals' own streams are the same to a store.
    let own = StreamId::any("$own-1").unwrap();
    append(&*store, &own, events(1)).await;
    assert_eq!(shown(&*store, &own).await, [1]);
    // What is no name never reaches a store.
    for name in [
        "",
        "$own-1",
        "a\u{0}b",
        "line-\n",
        &"l".repeat(StreamId::BYTES_MAX + 1),
    ] {
        assert!(StreamId::new(name).is_err(), "{name:?}");
    }
}

pub async fn survives_reopening(fixture: &dyn Fixture) {
    let mut store = open(fixture).await;
    let log = store.id();
    let partitions_then = store.partitions();
    let names: Vec<StreamId> = partitions(&*store)
        .map(|partition| stream_in(&*store, partition, "kept"))
        .collect();
    for round in 0..3 {
        for to in &names {
            let appended = try_append(&*store, to, version(round * 2), events(2))
                .await
                .unwrap();
            assert_eq!(
                appended.last().position.get(),
                round * 2 + 2,
                "positions go on"
            );
        }
        store = reopen(fixture, store).await;
        assert_eq!((store.id(), store.partitions()), (log, partitions_then));
        for to in &names {
            let expected: Vec<u64> = (1..=round * 2 + 2).collect();
            assert_eq!(shown(&*store, to).await, expected);
            assert_eq!(
                positions(&whole_log(&*store, store.partition_of(to)).await),
                expected
            );
        }
    }
}

pub async fn that_is_refused_leaves_no_hole(fixture: &dyn Fixture) {
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

pub async fn that_carries_rows_is_refused_by_a_store_that_keeps_no_inline_views(
    fixture: &dyn Fixture,
) {
    let store = open(fixture).await;
    let to = stream("account-1");
    let mut append = Append::new(to.clone(), events(1)).expecting(Expected::Version(Version::NONE));
    append.rows.push(InlineRow::new(
        GenerationId(u64::MAX >> 1),
        to.clone(),
        "1",
        Version::NONE,
    ));
    let appended = store.append(append).await;
    // One that keeps them leaves out the rows of a generation that there is not.
    assert_eq!(
        appended.is_ok(),
        store.inline_views().is_some(),
        "{appended:?}"
    );
    assert_eq!(
        whole_stream(&*store, &to).await.len(),
        usize::from(appended.is_ok())
    );
}
