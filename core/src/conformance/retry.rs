//! Retries: an append is deduplicated by its ids, and gets what the first one got.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Fixture;
use super::words::*;
use crate::append::{Append, AppendError, Appended, Expected, IdClash, Placed};
use crate::clock::ManualClock;
use crate::event::{Digest, EventId, Metadata, NewEvent};
use crate::position::Partition;
use crate::store::Store;
use crate::stream::{StreamId, Version};
use crate::stream_state::{ChangeStream, StreamChange};

#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// Nothing is written, the answer is where the events are.
    Repeats,
    PartlyKnown(usize),
    OtherOrder,
}

use Outcome::{OtherOrder, PartlyKnown, Repeats};

/// What was stored before (`12 3`: events 1 and 2 in one append, then 3), what is sent now, and
/// what comes of it, whatever is expected of the stream.
const ROWS: [(&str, &str, Outcome); 16] = [
    ("1 2 3 4 5 6", "1", Repeats),
    ("1 2 3 4 5 6", "6", Repeats),
    ("1 2 3 4 5 6", "345", Repeats),
    ("1 2 3", "2", Repeats),
    ("12", "1", Repeats),
    ("12", "2", Repeats),
    ("12", "12", Repeats),
    ("12 3", "23", Repeats),
    ("1 2", "12", Repeats),
    ("12", "123", PartlyKnown(2)),
    ("12", "31", PartlyKnown(0)),
    ("12 3", "1432", PartlyKnown(1)),
    ("12", "21", OtherOrder),
    ("1 2", "21", OtherOrder),
    ("1 2 3", "13", OtherOrder),
    ("123", "132", OtherOrder),
];

const EXPECTATIONS: [Expected; 10] = [
    Expected::Any,
    Expected::NoStream,
    Expected::Exists,
    Expected::Version(Version::NONE),
    Expected::Version(Version::new(1)),
    Expected::Version(Version::new(4)),
    Expected::Version(Version::new(6)),
    Expected::Version(Version::new(7)),
    Expected::ActiveAt(Version::new(2)),
    Expected::ActiveAt(Version::new(9)),
];

/// The events of a row by their digit, and where those are that were stored.
struct Stored {
    to: StreamId,
    events: BTreeMap<char, NewEvent>,
    places: BTreeMap<char, Placed>,
}

impl Stored {
    fn events(&self, digits: &str) -> Vec<NewEvent> {
        digits
            .chars()
            .map(|digit| self.events[&digit].clone())
            .collect()
    }
}

async fn store_rows(store: &dyn Store) -> Vec<Stored> {
    let mut all = Vec::new();
    for (row, (before, retry, _)) in ROWS.into_iter().enumerate() {
        let digits = before
            .chars()
            .chain(retry.chars())
            .filter(char::is_ascii_digit);
        let events = digits
            .map(|digit| (digit, event(digit.to_string())))
            .collect();
        let mut stored = Stored {
            to: stream(format!("row-{row}")),
            events,
            places: BTreeMap::new(),
        };
        for digits in before.split(' ') {
            let appended = append(store, &stored.to, stored.events(digits)).await;
            stored
                .places
                .extend(digits.chars().zip(appended.events().iter().cloned()));
        }
        all.push(stored);
    }
    all
}

async fn check_rows(store: &dyn Store, rows: &[Stored]) {
    for ((before, retry, outcome), stored) in ROWS.into_iter().zip(rows) {
        for expected in EXPECTATIONS {
            let row = format!("stored {before}, sent {retry} @ {expected}");
            let attempt = try_append(store, &stored.to, expected, stored.events(retry));
            match (unchanged(store, &[&stored.to], attempt).await, outcome) {
                (Ok(again), Repeats) => {
                    let places: Vec<Placed> = retry
                        .chars()
                        .map(|digit| stored.places[&digit].clone())
                        .collect();
                    assert_eq!(again, Appended::new(store.id(), places, true), "{row}");
                    assert!(again.was_repeated(), "{row}");
                }
                (
                    Err(AppendError::IdClash(IdClash::PartlyKnown { first_unknown })),
                    PartlyKnown(index),
                ) => {
                    assert_eq!(first_unknown, index, "{row}");
                }
                (Err(AppendError::IdClash(IdClash::OtherOrder)), OtherOrder) => {}
                (found, _) => panic!("{row}: {found:?}"),
            }
        }
    }
}

pub async fn gets_what_the_first_append_got_whatever_is_expected(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let rows = store_rows(&*store).await;
    check_rows(&*store, &rows).await;
}

pub async fn is_recognised_after_reopening(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let rows = store_rows(&*store).await;
    let store = reopen(fixture, store).await;
    check_rows(&*store, &rows).await;
}

pub async fn is_recognised_after_many_other_appends(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let rows = store_rows(&*store).await;
    for n in 0..30 {
        for stored in &rows {
            // Also to other streams of the same partition.
            append(
                &*store,
                &stream_in(
                    &*store,
                    store.partition_of(&stored.to),
                    &format!("other{n}"),
                ),
                events(10),
            )
            .await;
        }
    }
    check_rows(&*store, &rows).await;
}

/// One of the requests was appended, and all were answered alike.
#[track_caller]
pub(super) fn assert_appended_once(answers: &[Appended]) {
    let new = answers.iter().filter(|answer| !answer.was_repeated());
    assert_eq!(new.count(), 1, "{answers:?}");
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
}

pub async fn by_eight_tasks_writes_once_and_answers_all_alike(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for (row, expected) in [Expected::Any, Expected::NoStream, version(0)]
        .into_iter()
        .enumerate()
    {
        let to = stream(format!("at-once-{row}"));
        let given = events(5);
        let answers = at_once((0..8).map(|_| {
            let store = Arc::clone(&store);
            let to = to.clone();
            let given = given.clone();
            async move { try_append(&*store, &to, expected, given).await.unwrap() }
        }))
        .await;
        assert_appended_once(&answers);
        assert_recorded(&answers[0], &given, &whole_stream(&*store, &to).await);
    }
}

pub async fn with_other_content_is_refused(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("content-1");
    let first = NewEvent::json("noted", "1").tag(tag("k:a")).tag(tag("k:b"));
    append(&*store, &to, [event("0"), first.clone()]).await;
    let with = |change: &dyn Fn(&mut NewEvent)| {
        let mut other = first.clone();
        change(&mut other);
        other
    };
    let changed = [
        with(&|event| event.payload = "2".into()),
        with(&|event| event.payload = "".into()),
        with(&|event| event.event_type = "noticed".into()),
        with(&|event| event.schema_version = 2),
        with(&|event| event.codec = "cbor".into()),
        with(&|event| event.tags.truncate(1)),
        with(&|event| event.tags.push(tag("k:c"))),
        with(&|event| event.tags[1] = tag("k:bb")),
        with(&|event| event.own_digest = Some(Digest([7; 16]))),
    ];
    for other in changed {
        for expected in EXPECTATIONS {
            let error = refused(
                &*store,
                &[&to],
                try_append(&*store, &to, expected, [other.clone()]),
            )
            .await;
            let AppendError::IdClash(IdClash::OtherContent { index: 0, id }) = error else {
                panic!("{other:?} @ {expected}: {error:?}")
            };
            assert_eq!(id, first.id);
        }
    }
}

pub async fn is_compared_by_its_content_and_keeps_the_first_metadata(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("content-2");
    let first = event("1")
        .tag(tag("k:a"))
        .tag(tag("k:b"))
        .metadata(Metadata::default().actor("first"));
    let appended = append(&*store, &to, [first.clone()]).await;
    let mut again = first.clone().metadata(Metadata::default().actor("second"));
    again.occurred_at = "2026-03-31T00:00:00Z".parse().unwrap();
    again.tags = vec![tag("k:b"), tag("k:a"), tag("k:b")];
    let answer = unchanged(&*store, &[&to], append(&*store, &to, [again])).await;
    assert_eq!((&answer, answer.was_repeated()), (&appended, true));
    assert_recorded(&appended, &[first], &whole_stream(&*store, &to).await);
}

pub async fn is_compared_by_the_callers_digest_where_one_was_given(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("content-3");
    let first = event("encrypted with one nonce").own_digest(Digest([1; 16]));
    let appended = append(&*store, &to, [first.clone()]).await;
    let store = reopen(fixture, store).await;
    let mut again = first.clone();
    again.payload = "encrypted with another".into();
    assert_eq!(
        unchanged(&*store, &[&to], append(&*store, &to, [again.clone()])).await,
        appended
    );
    again.own_digest = Some(Digest([2; 16]));
    let error = refused(
        &*store,
        &[&to],
        try_append(&*store, &to, Expected::Any, [again]),
    )
    .await;
    assert!(
        matches!(error, AppendError::IdClash(IdClash::OtherContent { .. })),
        "{error:?}"
    );
}

pub async fn in_another_stream_is_refused_and_names_the_first_stream(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for partition in partitions(&*store) {
        let a = stream_in(&*store, partition, "owner");
        let b = stream_in(&*store, partition, "thief");
        let known = event("1");
        append(&*store, &a, [known.clone()]).await;
        for expected in [Expected::Any, Expected::NoStream, Expected::Exists] {
            let error = refused(
                &*store,
                &[&a, &b],
                try_append(&*store, &b, expected, [known.clone()]),
            )
            .await;
            let AppendError::IdClash(IdClash::OtherStream {
                index: 0,
                id,
                stream,
            }) = error
            else {
                panic!("{error:?}")
            };
            assert_eq!((id, stream), (known.id, a.clone()));
        }
    }
}

/// What can befall a stream after its events 1, 2, 3 were appended.
const CHANGES: [(&str, StreamChange); 4] = [
    ("deleted", StreamChange::Delete),
    ("tombstoned", StreamChange::Tombstone),
    (
        "truncated",
        StreamChange::Truncate {
            before: Version::new(4),
        },
    ),
    (
        "archived",
        StreamChange::Archive {
            before: Version::new(3),
        },
    ),
];

pub async fn of_events_since_hidden_or_removed_gets_the_original_places(fixture: &dyn Fixture) {
    let mut store = open(fixture).await;
    let mut rows = Vec::new();
    for (name, change) in CHANGES {
        let to = stream(format!("{name}-1"));
        let given = events(3);
        let appended = append(&*store, &to, given.clone()).await;
        store
            .change_stream(ChangeStream::new(&to, change))
            .await
            .unwrap();
        rows.push((name, to, given, appended));
    }
    for reopened in [false, true] {
        if reopened {
            store = reopen(fixture, store).await;
        }
        for (name, to, given, appended) in &rows {
            for expected in EXPECTATIONS {
                let again = try_append(&*store, to, expected, given.clone());
                let again = unchanged(&*store, &[to], again)
                    .await
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(
                    (&again, again.was_repeated()),
                    (appended, true),
                    "{name} @ {expected}"
                );
                let first = try_append(&*store, to, expected, [given[0].clone()]);
                let first = unchanged(&*store, &[to], first)
                    .await
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(
                    first.events(),
                    &appended.events()[..1],
                    "{name} @ {expected}"
                );
            }
            let mut other = given[0].clone();
            other.payload = "other".into();
            let error = refused(
                &*store,
                &[to],
                try_append(&*store, to, Expected::Any, [other]),
            )
            .await;
            assert!(
                matches!(error, AppendError::IdClash(IdClash::OtherContent { .. })),
                "{name}: {error:?}"
            );
        }
    }
}

/// The events that a request decides, with ids derived from it.
fn decided(to: &StreamId, key: &str, contents: &[&str]) -> Vec<NewEvent> {
    let with_id = |(index, content): (u32, &&str)| {
        event(content.to_string()).id(EventId::derived(to, key, index))
    };
    (0..).zip(contents).map(with_id).collect()
}

pub async fn of_a_shared_append_gets_the_first_result(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("shared-1");
    let kept = Arc::new(Append::new(to.clone(), events(2)));
    let first = store.append_shared(&kept).await.unwrap();
    assert_eq!(versions_of(&first), [1, 2]);
    assert!(!first.was_repeated());
    append(&*store, &to, events(1)).await;
    let again = store.append_shared(&kept).await.unwrap();
    assert_eq!(again, first);
    assert!(again.was_repeated());
    assert_eq!(shown(&*store, &to).await.len(), 3);
}

pub async fn of_a_request_gets_the_first_result(fixture: &dyn Fixture) {
    let mut store = open(fixture).await;
    let to = stream("request-1");
    append(&*store, &to, events(2)).await;
    let first = append(&*store, &to, decided(&to, "req", &["a", "b"])).await;
    assert!(!first.was_repeated());
    append(&*store, &to, events(2)).await;
    for (name, change) in [("untouched", None)]
        .into_iter()
        .chain(CHANGES.map(|(name, change)| (name, Some(change))))
    {
        // Archiving needs a stream that is active; the tombstone comes last.
        if let Some(change) = change.filter(|change| !matches!(change, StreamChange::Tombstone)) {
            store
                .change_stream(ChangeStream::new(&to, change))
                .await
                .unwrap();
            append(&*store, &to, events(1)).await;
        }
        store = reopen(fixture, store).await;
        for contents in [
            &["a", "b"][..],
            &["other", "b"],
            &["a"],
            &["a", "b", "c"],
            &["x", "y", "z", "u"],
        ] {
            for expected in EXPECTATIONS {
                let again = try_append(&*store, &to, expected, decided(&to, "req", contents));
                let again = unchanged(&*store, &[&to], again)
                    .await
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(
                    (&again, again.was_repeated()),
                    (&first, true),
                    "{name}: {contents:?} @ {expected}"
                );
            }
        }
        // Partly new: only an event in the middle of the first append is known.
        let partly = vec![
            decided(&to, "new", &["n"]).remove(0),
            decided(&to, "req", &["a", "b"]).remove(1),
        ];
        let again = unchanged(&*store, &[&to], append(&*store, &to, partly)).await;
        assert_eq!(
            (&again, again.was_repeated()),
            (&first, true),
            "{name}: partly new"
        );
    }
    store
        .change_stream(ChangeStream::new(&to, StreamChange::Tombstone))
        .await
        .unwrap();
    let again = unchanged(
        &*store,
        &[&to],
        append(&*store, &to, decided(&to, "req", &["z"])),
    )
    .await;
    assert_eq!(again, first, "tombstoned");
    let new = try_append(&*store, &to, Expected::Any, decided(&to, "another", &["z"]));
    assert!(matches!(
        refused(&*store, &[&to], new).await,
        AppendError::Conflict(_)
    ));
}

pub async fn of_a_request_by_racers_keeps_the_first_result(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("request-2");
    let answers = at_once((0..8_usize).map(|racer| {
        let store = Arc::clone(&store);
        let to = to.clone();
        async move {
            let contents = ["x", "y", "z", "u"].map(|content| format!("{content}{racer}"));
            let contents: Vec<&str> = contents
                .iter()
                .take(1 + racer % 4)
                .map(String::as_str)
                .collect();
            try_append(
                &*store,
                &to,
                Expected::NoStream,
                decided(&to, "req", &contents),
            )
            .await
            .unwrap()
        }
    }))
    .await;
    assert_appended_once(&answers);
    let found: Vec<EventId> = answers[0].events().iter().map(|placed| placed.id).collect();
    assert_eq!(ids(&whole_stream(&*store, &to).await), found);
}

pub async fn is_answered_without_asking_the_clock(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::default());
    let store = open_at(fixture, &clock).await;
    let to = stream("clock-1");
    let given = events(2);
    append(&*store, &to, given.clone()).await;
    clock.advance(crate::chrono::TimeDelta::hours(1));
    unchanged(&*store, &[&to], append(&*store, &to, given)).await;
    let next = append(&*store, &to, events(1)).await;
    assert_eq!(next.last().version, Version::new(3));
}

pub async fn that_asks_first_is_told_what_became_of_each_id(fixture: &dyn Fixture) {
    let mut store = open(fixture).await;
    for partition in partitions(&*store) {
        let to = stream_in(&*store, partition, "asked");
        assert_eq!(store.find(partition, &[]).await.unwrap(), []);
        let one = event("1");
        let many = events(3);
        let first = append(&*store, &to, [one.clone()]).await;
        let second = append(&*store, &to, many.clone()).await;
        let unknown = EventId::random();
        store
            .change_stream(ChangeStream::new(
                &to,
                StreamChange::Archive {
                    before: Version::new(4),
                },
            ))
            .await
            .unwrap();
        store = reopen(fixture, store).await;
        let asked = [many[2].id, unknown, one.id, many[0].id, many[2].id];
        let found = store.find(partition, &asked).await.unwrap();
        let found: Vec<_> = found
            .into_iter()
            .map(|found| found.map(|found| (found.placed, found.append_first, found.append_events)))
            .collect();
        let begin = second.events()[0].position;
        let places = |index: usize| Some((second.events()[index].clone(), begin, 3));
        let only = first.last().clone();
        let only = Some((only.clone(), only.position, 1));
        assert_eq!(found, [places(2), None, only, places(0), places(2)]);
    }
    let beyond = Partition(store.partitions());
    assert!(
        store.find(beyond, &[EventId::random()]).await.is_err(),
        "there is no such partition"
    );
}

pub async fn of_a_thousand_ids_is_found(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let to = stream("large-1");
    let given = events(1_000);
    let first = append(&*store, &to, given.clone()).await;
    assert_eq!(
        unchanged(&*store, &[&to], append(&*store, &to, given.clone())).await,
        first
    );
    let mut longer = given.clone();
    longer.insert(777, event("new"));
    let error = refused(
        &*store,
        &[&to],
        try_append(&*store, &to, Expected::Any, longer),
    )
    .await;
    assert!(
        matches!(
            error,
            AppendError::IdClash(IdClash::PartlyKnown { first_unknown: 777 })
        ),
        "{error:?}"
    );
    let found = store
        .find(store.partition_of(&to), &ids_of(&given))
        .await
        .unwrap();
    let found: Vec<Placed> = found
        .into_iter()
        .flatten()
        .map(|found| found.placed)
        .collect();
    assert_eq!(found, first.events());
}
