//! One append over several streams, with streams that are only checked.

use std::sync::Arc;

use super::Fixture;
use super::append::{STATES, prepare};
use super::words::*;
use crate::append::{Append, AppendError, Appended, Expected, IdClash};
use crate::event::NewEvent;
use crate::position::{Partition, Position};
use crate::query::Filter;
use crate::read::ReadLog;
use crate::store::Store;
use crate::stream::{StreamId, Version};
use crate::stream_state::{ChangeStream, Status, StreamChange};

async fn append_streams(store: &dyn Store, append: Append) -> Result<Appended, AppendError> {
    store.append(append).await
}

/// For each expectation whether it holds for a stream that gets no event, in each of `STATES`.
fn checking() -> Vec<(Expected, [bool; 5])> {
    vec![
        (Expected::NoStream, [true, false, true, true, true]),
        (Expected::Exists, [false, true, false, false, false]),
        (version(0), [true, false, false, false, false]),
        (version(2), [false, false, false, false, false]),
        (version(3), [false, true, true, false, false]),
        (version(4), [false, false, false, false, false]),
        (
            Expected::ActiveAt(Version::new(3)),
            [false, true, false, false, false],
        ),
        (
            Expected::ActiveAt(Version::new(0)),
            [false, false, false, false, false],
        ),
    ]
}

pub async fn checks_streams_that_get_no_event(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for (row, (expected, outcomes)) in checking().into_iter().enumerate() {
        for (column, ((state, changes, has_events), holds)) in
            STATES.into_iter().zip(outcomes).enumerate()
        {
            let checked = stream(format!("cell-{row}-{column}"));
            let written = stream(format!("to-{row}-{column}"));
            prepare(&*store, &checked, changes, has_events).await;
            let request = to_streams([(&written, event("1"))])
                .requiring(checked.clone(), expected)
                .requiring(written.clone(), Expected::NoStream);
            if holds {
                let attempt = append_streams(&*store, request);
                let before = Picture::of(&*store, &[]).await;
                let appended = attempt
                    .await
                    .unwrap_or_else(|error| panic!("{expected} × {state}: {error}"));
                assert_ne!(Picture::of(&*store, &[]).await, before);
                assert_eq!(versions_of(&appended), [1]);
            } else {
                let error = refused(
                    &*store,
                    &[&checked, &written],
                    append_streams(&*store, request),
                )
                .await;
                let found = store.stream_state(&checked).await.unwrap();
                let found = [(0, found.status, found.version.get())];
                assert_eq!(conflicts(&error), found, "{expected} × {state}");
            }
        }
    }
}

pub async fn leaves_a_stream_that_is_only_checked_as_it_was(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let checked = stream("checked-1");
    let written = stream("written-1");
    append(&*store, &checked, events(3)).await;
    let before = store.stream_state(&checked).await.unwrap();
    let request = to_streams([(&written, event("1"))]).requiring(checked.clone(), version(3));
    append_streams(&*store, request).await.unwrap();
    assert_eq!(store.stream_state(&checked).await.unwrap(), before);
    let absent = stream("checked-2");
    let request = to_streams([(&written, event("1"))]).requiring(absent.clone(), version(0));
    append_streams(&*store, request).await.unwrap();
    assert_eq!(
        store.stream_state(&absent).await.unwrap().status,
        Status::Absent,
        "a check creates nothing"
    );
}

pub async fn reports_every_violation_with_its_index_and_writes_nothing(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let [a, b, c, d, e] = ["a-1", "b-1", "c-1", "d-1", "e-1"].map(stream);
    append(&*store, &b, events(2)).await;
    append(&*store, &c, events(3)).await;
    append(&*store, &d, events(1)).await;
    store
        .change_stream(ChangeStream::new(&d, StreamChange::Tombstone))
        .await
        .unwrap();
    let request = to_streams([
        (&a, event("1")),
        (&b, event("1")),
        (&d, event("1")),
        (&e, event("1")),
    ])
    .requiring(a.clone(), Expected::Exists)
    .requiring(b.clone(), version(2))
    .requiring(c.clone(), version(9))
    .requiring(d.clone(), Expected::Any)
    .requiring(e.clone(), Expected::NoStream);
    let error = refused(
        &*store,
        &[&a, &b, &c, &d, &e],
        append_streams(&*store, request),
    )
    .await;
    let expected = [
        (0, Status::Absent, 0),
        (2, Status::Active, 3),
        (3, Status::Tombstoned, 1),
    ];
    assert_eq!(conflicts(&error), expected);
    // One without an expectation may be in any state but tombstoned; it is reported once,
    // after what was expected.
    let request = to_streams([(&a, event("1")), (&d, event("1")), (&d, event("2"))])
        .requiring(a.clone(), version(0));
    let error = refused(&*store, &[&a, &d], append_streams(&*store, request)).await;
    assert_eq!(conflicts(&error), [(1, Status::Tombstoned, 1)]);
}

pub async fn refuses_what_can_never_succeed(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let [a, b, c] = ["a-1", "b-1", "c-1"].map(stream);
    append(&*store, &b, events(1)).await;
    let twice = event("twice");
    let large = NewEvent::json("large", vec![b'x'; store.limits().payload_bytes_max + 1]);
    let rows = [
        (Append::default(), "without events"),
        (
            Append::default().requiring(a.clone(), Expected::NoStream),
            "without events",
        ),
        (
            to_streams([(&a, event("1"))]).requiring(b.clone(), Expected::Any),
            "b-1",
        ),
        (
            to_streams([(&a, event("1"))]).requiring(c.clone(), Expected::Any),
            "c-1",
        ),
        (
            to_streams([(&a, event("1"))])
                .requiring(a.clone(), Expected::Any)
                .requiring(a.clone(), version(0)),
            "a-1",
        ),
        (
            to_streams([(&a, event("1"))])
                .requiring(b.clone(), version(1))
                .requiring(b.clone(), version(1)),
            "b-1",
        ),
        (
            to_streams([(&a, twice.clone()), (&b, twice.clone())]),
            &twice.id.to_string(),
        ),
        (
            to_streams([(&a, event("1")), (&b, event("2")), (&a, large)]),
            "event 2",
        ),
    ];
    for (request, names) in rows {
        assert_invalid(
            &refused(&*store, &[&a, &b, &c], append_streams(&*store, request)).await,
            names,
        );
    }
}

pub async fn keeps_the_order_of_the_request_over_its_streams(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let a = stream("a-1");
    let b = stream("b-1");
    append(&*store, &stream("before-1"), events(2)).await;
    let before = head(&*store, Partition(0)).await;
    let given = events(5);
    let request = to_streams([&a, &b, &a, &b, &a].into_iter().zip(given.clone()))
        .requiring(b.clone(), Expected::NoStream)
        .requiring(a.clone(), Expected::NoStream);
    let appended = append_streams(&*store, request).await.unwrap();
    assert_eq!(versions_of(&appended), [1, 1, 2, 2, 3]);
    let places: Vec<u64> = appended
        .events()
        .iter()
        .map(|placed| placed.position.get() - before.get())
        .collect();
    assert_eq!(places, [1, 2, 3, 4, 5]);
    assert_recorded(
        &appended,
        &given,
        &read_log(&*store, ReadLog::after(before)).await,
    );
    assert_eq!(
        (shown(&*store, &a).await, shown(&*store, &b).await),
        (vec![1, 2, 3], vec![1, 2])
    );
    assert_eq!(appended.token().position(Partition(0)), before.plus(5));
}

pub async fn keeps_the_categories_of_its_streams_apart(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let streams = ["a-1", "a-2", "b-1", "b-2", "a-3"].map(stream);
    let request = to_streams(streams.iter().zip(events(5)));
    append_streams(&*store, request).await.unwrap();
    for (category, expected) in [("a", vec![1, 2, 5]), ("b", vec![3, 4])] {
        let filter = Filter::default().category(category);
        let read = ReadLog::after(Position::START).filter(filter);
        assert_eq!(
            positions(&read_log(&*store, read).await),
            expected,
            "{category}"
        );
    }
}

pub async fn revives_a_deleted_stream_and_counts_on(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let a = stream("a-1");
    let b = stream("b-1");
    append(&*store, &a, events(2)).await;
    store
        .change_stream(ChangeStream::new(&a, StreamChange::Delete))
        .await
        .unwrap();
    let request = to_streams([(&a, event("1")), (&b, event("2")), (&a, event("3"))])
        .requiring(a.clone(), Expected::NoStream)
        .requiring(b.clone(), version(0));
    append_streams(&*store, request).await.unwrap();
    assert_eq!(
        (shown(&*store, &a).await, shown(&*store, &b).await),
        (vec![3, 4], vec![1])
    );
}

pub async fn is_recognised_when_it_is_repeated(fixture: &dyn Fixture) {
    let mut store = open(fixture).await;
    let a = stream("a-1");
    let b = stream("b-1");
    let e1 = event("1");
    let e2 = event("2");
    let e3 = event("3");
    let new = event("new");
    let whole = || to_streams([(&a, e1.clone()), (&b, e2.clone()), (&a, e3.clone())]);
    let first = append_streams(&*store, whole().requiring(a.clone(), Expected::NoStream))
        .await
        .unwrap();
    let places = |indexes: &[usize]| {
        indexes
            .iter()
            .map(|index| first.events()[*index].clone())
            .collect::<Vec<_>>()
    };
    for reopened in [false, true] {
        if reopened {
            append(&*store, &a, events(50)).await;
            store
                .change_stream(ChangeStream::new(&b, StreamChange::Tombstone))
                .await
                .unwrap();
            store = reopen(fixture, store).await;
        }
        let known: [(Append, &[usize]); 5] = [
            (whole(), &[0, 1, 2]),
            (
                whole()
                    .requiring(a.clone(), version(77))
                    .requiring(b.clone(), Expected::NoStream),
                &[0, 1, 2],
            ),
            (to_streams([(&a, e1.clone())]), &[0]),
            (to_streams([(&b, e2.clone()), (&a, e3.clone())]), &[1, 2]),
            (to_streams([(&a, e1.clone()), (&a, e3.clone())]), &[0, 2]),
        ];
        for (request, indexes) in known {
            let again = unchanged(&*store, &[&a, &b], append_streams(&*store, request))
                .await
                .unwrap();
            assert_eq!(
                (again.events(), again.was_repeated()),
                (&places(indexes)[..], true)
            );
        }
        let single = unchanged(
            &*store,
            &[&a],
            try_append(&*store, &a, version(9), [e1.clone(), e3.clone()]),
        )
        .await;
        assert_eq!(single.unwrap().events(), places(&[0, 2]));

        let clashes = [
            (
                to_streams([(&a, e1.clone()), (&b, new.clone())]),
                IdClash::PartlyKnown { first_unknown: 1 },
            ),
            (
                to_streams([(&b, new.clone()), (&a, e1.clone())]),
                IdClash::PartlyKnown { first_unknown: 0 },
            ),
            (
                to_streams([(&b, e2.clone()), (&a, e1.clone())]),
                IdClash::OtherOrder,
            ),
            (
                to_streams([(&b, e1.clone()), (&b, e2.clone())]),
                IdClash::OtherStream {
                    index: 0,
                    id: e1.id,
                    stream: a.clone(),
                },
            ),
            (
                to_streams([(&a, e1.clone()), (&b, event("other").id(e2.id))]),
                IdClash::OtherContent {
                    index: 1,
                    id: e2.id,
                },
            ),
        ];
        for (request, expected) in clashes {
            match refused(&*store, &[&a, &b], append_streams(&*store, request)).await {
                AppendError::IdClash(clash) => assert_eq!(clash, expected),
                error => panic!("{expected}, but it is {error:?}"),
            }
        }
    }
}

/// A checks `b` and writes `a`, B checks `a` and writes `b`: what each relied on would be gone if
/// both went through.
pub async fn lets_only_one_of_two_crosswise_decisions_through(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for round in 0..25 {
        let pair = [
            stream(format!("left-{round}")),
            stream(format!("right-{round}")),
        ];
        let outcomes = at_once((0..2).map(|side| {
            let store = Arc::clone(&store);
            let pair = pair.clone();
            async move {
                let request = to_streams([(&pair[side], event("1"))])
                    .requiring(pair[1 - side].clone(), version(0));
                append_streams(&*store, request).await
            }
        }))
        .await;
        assert_eq!(
            outcomes.iter().filter(|outcome| outcome.is_ok()).count(),
            1,
            "{outcomes:?}"
        );
        for error in outcomes.into_iter().filter_map(Result::err) {
            assert_eq!(conflicts(&error), [(0, Status::Active, 1)]);
        }
    }
}

/// Transfers between two accounts by racers, and readers that look at the log: one leg is never
/// there without the other.
pub async fn is_never_seen_in_part(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let names: Vec<StreamId> = (0..3).map(|n| stream(format!("account-{n}"))).collect();
    let racing = at_once((0..6_usize).map(|racer| {
        let store = Arc::clone(&store);
        let names = names.clone();
        async move {
            let mut won = 0;
            for n in 0..25 {
                let from = &names[(racer + n) % 3];
                let to = &names[(racer + n + 1 + n % 2) % 3];
                let at = async |of| store.stream_state(of).await.unwrap().version;
                let at_from = at(from).await;
                let at_to = at(to).await;
                let request = to_streams([(from, event("-1")), (to, event("+1"))])
                    .requiring(from.clone(), Expected::Version(at_from))
                    .requiring(to.clone(), Expected::Version(at_to));
                match append_streams(&*store, request).await {
                    Ok(_) => won += 1,
                    Err(AppendError::Conflict(_)) => {}
                    Err(error) => panic!("{error:?}"),
                }
                assert_eq!(
                    head(&*store, Partition(0)).await.get() % 2,
                    0,
                    "one leg is visible without the other"
                );
            }
            won
        }
    }));
    let won: usize = racing.await.iter().sum();
    let all = whole_log(&*store, Partition(0)).await;
    assert_eq!(all.len(), won * 2);
    for legs in all.chunks(2) {
        assert_eq!(
            (&legs[0].payload[..], &legs[1].payload[..]),
            (&b"-1"[..], &b"+1"[..])
        );
        assert_ne!(legs[0].stream, legs[1].stream);
    }
    for name in &names {
        let found = shown(&*store, name).await;
        assert_eq!(found, (1..=found.len() as u64).collect::<Vec<u64>>());
    }
}

pub async fn is_whole_or_absent_wherever_its_future_is_dropped(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    drop_everywhere(&*store, async |round, given| {
        let a = stream(format!("a-{round}"));
        let b = stream(format!("b-{round}"));
        let request = to_streams([&a, &b, &a].into_iter().zip(given))
            .requiring(b.clone(), Expected::NoStream);
        append_streams(&*store, request).await
    })
    .await;
}
