//! Several handles on the same data at once, as several processes have them.

use std::sync::Arc;

use super::Fixture;
use super::retry::assert_appended_once;
use super::words::*;
use crate::append::{Append, AppendError, Expected};
use crate::chrono::TimeDelta;
use crate::clock::{Clock, ManualClock};
use crate::position::Position;
use crate::stream_state::{ChangeStream, Status, StreamChange};

pub async fn handles_see_each_others_commits(fixture: &dyn Fixture) {
    let one = open(fixture).await;
    let two = open(fixture).await;
    assert_eq!((one.id(), one.partitions()), (two.id(), two.partitions()));
    for partition in partitions(&*one) {
        let to = stream_in(&*one, partition, "seen");
        for round in 0..5 {
            let (writing, reading) = if round % 2 == 0 {
                (&one, &two)
            } else {
                (&two, &one)
            };
            let appended = try_append(&**writing, &to, version(round * 2), events(2))
                .await
                .unwrap();
            assert_eq!(head(&**reading, partition).await, appended.last().position);
            assert_eq!(shown(&**reading, &to).await.len() as u64, round * 2 + 2);
        }
        one.change_stream(ChangeStream::new(&to, StreamChange::Delete))
            .await
            .unwrap();
        assert_eq!(two.stream_state(&to).await.unwrap().status, Status::Deleted);
        assert!(shown(&*two, &to).await.is_empty());
    }
}

pub async fn handles_refuse_what_the_other_made_stale(fixture: &dyn Fixture) {
    let one = open(fixture).await;
    let two = open(fixture).await;
    let to = stream("stale-1");
    append(&*one, &to, events(1)).await;
    append(&*two, &to, events(1)).await;
    let error = refused(&*one, &[&to], try_append(&*one, &to, version(1), events(1))).await;
    assert_eq!(conflicts(&error), [(0, Status::Active, 2)]);
    two.change_stream(ChangeStream::new(&to, StreamChange::Tombstone))
        .await
        .unwrap();
    let error = refused(
        &*one,
        &[&to],
        try_append(&*one, &to, Expected::Any, events(1)),
    )
    .await;
    assert_eq!(conflicts(&error), [(0, Status::Tombstoned, 2)]);
}

pub async fn handles_recognise_what_the_other_appended(fixture: &dyn Fixture) {
    let one = open(fixture).await;
    let two = open(fixture).await;
    let to = stream("again-1");
    let given = events(3);
    let first = append(&*one, &to, given.clone()).await;
    let again = unchanged(
        &*two,
        &[&to],
        try_append(&*two, &to, Expected::NoStream, given.clone()),
    )
    .await
    .unwrap();
    assert_eq!((&again, again.was_repeated()), (&first, true));
    for round in 0..10 {
        let to = stream(format!("at-once-{round}"));
        let given = events(3);
        let answers = at_once((0..8).map(|task| {
            let store = Arc::clone(if task % 2 == 0 { &one } else { &two });
            let to = to.clone();
            let given = given.clone();
            async move {
                try_append(&*store, &to, Expected::NoStream, given)
                    .await
                    .unwrap()
            }
        }))
        .await;
        assert_appended_once(&answers);
    }
}

pub async fn handles_let_one_writer_win_each_version(fixture: &dyn Fixture) {
    let one = open(fixture).await;
    let two = open(fixture).await;
    let to = stream("counter-1");
    let won = at_once((0..4).map(|task| {
        let store = Arc::clone(if task % 2 == 0 { &one } else { &two });
        let to = to.clone();
        async move {
            let mut won = Vec::new();
            let mut read = 0;
            for _ in 0..25 {
                match try_append(&*store, &to, version(read), events(1)).await {
                    Ok(_) => {
                        won.push(read + 1);
                        read += 1;
                    }
                    Err(error) => read = conflicts(&error)[0].2,
                }
            }
            won
        }
    }))
    .await;
    let mut won = won.concat();
    won.sort_unstable();
    assert_eq!(won, (1..=won.len() as u64).collect::<Vec<u64>>());
    assert_eq!(shown(&*one, &to).await, won);
}

pub async fn handles_with_clocks_that_differ_never_record_an_earlier_time(fixture: &dyn Fixture) {
    let early = Arc::new(ManualClock::default());
    let late = Arc::new(ManualClock::default());
    late.advance(TimeDelta::hours(1));
    let one = open_at(fixture, &early).await;
    let two = open_at(fixture, &late).await;
    for partition in partitions(&*one) {
        let to = stream_in(&*one, partition, "told");
        for store in [&one, &two, &one, &one, &two] {
            append(&**store, &to, events(1)).await;
        }
        let times: Vec<_> = whole_log(&*one, partition)
            .await
            .iter()
            .map(|event| event.recorded_at)
            .collect();
        assert_eq!(
            times,
            [early.now(), late.now(), late.now(), late.now(), late.now()]
        );
        assert_eq!(
            one.position_at(partition, early.now()).await.unwrap(),
            Position::new(1)
        );
    }
}

pub async fn handles_read_the_same_log_while_the_other_appends(fixture: &dyn Fixture) {
    let one = open(fixture).await;
    let two = open(fixture).await;
    super::log::race(&one, &two).await;
}

pub async fn a_handle_stays_usable_when_the_other_is_dropped(fixture: &dyn Fixture) {
    let one = open(fixture).await;
    let two = open(fixture).await;
    let to = stream("left-1");
    append(&*one, &to, events(1)).await;
    drop(one);
    append(&*two, &to, events(1)).await;
    let three = open(fixture).await;
    append(&*three, &to, events(1)).await;
    assert_eq!(shown(&*two, &to).await, [1, 2, 3]);
}

/// What one handle cannot know makes the first of two appends a conflict, and the second expects
/// what only the first would have made true.
pub async fn a_neighbour_that_is_refused_supports_no_expectation(fixture: &dyn Fixture) {
    let one = open(fixture).await;
    let two = open(fixture).await;
    if !one.atomic() {
        return;
    }
    for n in 0..10 {
        let known = stream(format!("known-{n}"));
        let absent = stream(format!("absent-{n}"));
        append(&*one, &known, events(1)).await;
        append(&*two, &known, events(1)).await;
        let first = Append::new(absent.clone(), events(1)).requiring(known.clone(), version(1));
        let second = Append::new(absent.clone(), events(1)).expecting(Expected::Exists);
        let answers = at_once([first, second].into_iter().map(|request| {
            let store = Arc::clone(&one);
            async move { store.append(request).await }
        }));
        for answer in answers.await {
            assert!(
                matches!(answer, Err(AppendError::Conflict(_))),
                "{answer:?}"
            );
        }
        assert!(shown(&*one, &absent).await.is_empty());
    }
}
