//! Stores whose partitions have owners: one process takes the appends of a partition, others read
//! it and say who that is.

use std::sync::Arc;
use std::time::Duration;

use super::OwnedFixture;
use super::words::*;
use crate::append::{AppendError, Appended, Expected};
use crate::position::{Partition, Position};
use crate::read::ReadLog;
use crate::store::Store;
use crate::stream::StreamId;
use crate::stream_state::{ChangeStream, StreamChange};

/// Events in each append that a reader must see whole.
const TOGETHER: usize = 5;

/// Appends of each of two that want to own the same.
const CONTENDED: usize = 6;

pub async fn an_append_to_a_foreign_partition_names_the_owner(fixture: &dyn OwnedFixture) {
    let owner = fixture.open_owner("one").await;
    let reader = fixture.open_reader().await;
    for partition in partitions(&*owner) {
        let to = stream_in(&*owner, partition, "owned");
        let first = append(&*owner, &to, events(2)).await;
        follow(&*reader, &first).await;
        let attempt = try_append(&*reader, &to, Expected::Any, events(1));
        let error = refused(&*reader, &[&to], attempt).await;
        assert_owner(&error, "one");
        let change = ChangeStream::new(&to, StreamChange::Delete);
        let error = refused(&*reader, &[&to], reader.change_stream(change)).await;
        assert_owner(&error, "one");
        assert_eq!(shown(&*owner, &to).await, [1, 2]);
    }
}

pub async fn a_new_owner_goes_on_at_the_next_version(fixture: &dyn OwnedFixture) {
    let one = fixture.open_owner("one").await;
    let to = stream("handed-over");
    let given = events(3);
    let first = append(&*one, &to, given.clone()).await;
    drop(one);
    let two = fixture.open_owner("two").await;
    let more = try_append(&*two, &to, version(3), events(2)).await.unwrap();
    assert_eq!(versions_of(&more), [4, 5]);
    assert_eq!(shown(&*two, &to).await, [1, 2, 3, 4, 5]);
    let log = whole_log(&*two, two.partition_of(&to)).await;
    assert_eq!(positions(&log), [1, 2, 3, 4, 5]);
    let again = try_append(&*two, &to, Expected::NoStream, given).await;
    let again = again.unwrap();
    assert_eq!((&again, again.was_repeated()), (&first, true));
    let reader = fixture.open_reader().await;
    follow(&*reader, &more).await;
    let error = try_append(&*reader, &to, Expected::Any, events(1)).await;
    assert_owner(&error.unwrap_err(), "two");
}

pub async fn an_owner_that_was_shut_out_acknowledges_nothing(fixture: &dyn OwnedFixture) {
    let one = fixture.open_owner("one").await;
    let to = stream("taken-over");
    append(&*one, &to, events(1)).await;
    let two = fixture.open_owner("two").await;
    try_append(&*two, &to, version(1), events(1)).await.unwrap();
    // It may not have heard of it.
    let given = events(2);
    let outcome = try_append(&*one, &to, version(1), given.clone()).await;
    assert!(outcome.is_err(), "{outcome:?}");
    drop((one, two));
    let three = fixture.open_owner("three").await;
    assert_eq!(shown(&*three, &to).await, [1, 2]);
    let partition = three.partition_of(&to);
    let known = three.find(partition, &ids_of(&given)).await.unwrap();
    assert_eq!(known, [None, None]);
}

pub async fn of_two_that_own_at_once_what_is_acknowledged_stays(fixture: &dyn OwnedFixture) {
    let to = stream("contended");
    let (one, two) = tokio::join!(fixture.open_owner("one"), fixture.open_owner("two"));
    let outcomes = at_once([&one, &two].map(|store| {
        let (store, to) = (Arc::clone(store), to.clone());
        async move {
            let mut outcomes = Vec::new();
            for _ in 0..CONTENDED {
                let given = events(2);
                let outcome = try_append(&*store, &to, Expected::Any, given.clone()).await;
                outcomes.push((given, outcome));
            }
            outcomes
        }
    }));
    let outcomes = outcomes.await.into_iter().flatten();
    drop((one, two));
    let three = fixture.open_owner("three").await;
    let partition = three.partition_of(&to);
    let log = whole_log(&*three, partition).await;
    assert_eq!(positions(&log), (1..=log.len() as u64).collect::<Vec<_>>());
    assert_eq!(versions(&log), positions(&log));
    for (given, outcome) in outcomes {
        let found: Vec<_> = log
            .iter()
            .filter(|event| ids_of(&given).contains(&event.id))
            .cloned()
            .collect();
        match outcome {
            Ok(appended) => assert_recorded(&appended, &given, &found),
            Err(AppendError::Unknown(_)) => assert!([0, 2].contains(&found.len()), "{found:?}"),
            Err(error) => assert_eq!(found, [], "refused, and there: {error}"),
        }
    }
}

pub async fn a_reader_sees_appends_soon_and_whole(fixture: &dyn OwnedFixture) {
    let owner = fixture.open_owner("one").await;
    let reader = fixture.open_reader().await;
    let to = stream("followed-1");
    let partition = owner.partition_of(&to);
    let last = Position::new(10 * TOGETHER as u64);
    let writes = {
        let to = to.clone();
        async move {
            for _ in 0..10 {
                append(&*owner, &to, events(TOGETHER)).await;
            }
        }
    };
    let reads = async {
        let mut seen = Vec::new();
        let mut hint = reader.hint();
        loop {
            let after = seen.len() as u64;
            let read = ReadLog::after(Position::new(after)).partition(partition);
            let found = read_log(&*reader, read).await;
            seen.extend(positions(&found));
            assert!(
                seen.len().is_multiple_of(TOGETHER),
                "a part of an append: {seen:?}"
            );
            if seen.last() == Some(&last.get()) {
                break seen;
            }
            hint.wait(Duration::from_millis(50)).await;
        }
    };
    let ((), seen) = tokio::join!(writes, reads);
    assert_eq!(seen, (1..=last.get()).collect::<Vec<_>>());
}

pub async fn a_lost_local_copy_is_made_again(fixture: &dyn OwnedFixture) {
    let owner = fixture.open_owner("one").await;
    let mut streams = Vec::new();
    for partition in partitions(&*owner) {
        let to = stream_in(&*owner, partition, "kept");
        append(&*owner, &to, events(3)).await;
        streams.push(to);
    }
    let truncate = StreamChange::Truncate {
        before: crate::stream::Version::new(3),
    };
    let change = ChangeStream::new(&streams[0], truncate);
    owner.change_stream(change.clone()).await.unwrap();
    let all: Vec<&StreamId> = streams.iter().collect();
    let before = Picture::of(&*owner, &all).await;
    drop(owner);
    fixture.lose_copies().await;
    let owner = fixture.open_owner("one").await;
    assert_eq!(Picture::of(&*owner, &all).await, before);
    owner.change_stream(change).await.unwrap();
    assert_eq!(
        Picture::of(&*owner, &all).await,
        before,
        "a change is known by its id"
    );
    for to in &streams {
        let more = try_append(&*owner, to, version(3), events(1)).await;
        assert_eq!(versions_of(&more.unwrap()), [4]);
    }
}

pub async fn an_id_is_known_after_the_copy_was_lost(fixture: &dyn OwnedFixture) {
    let owner = fixture.open_owner("one").await;
    let to = stream("known-1");
    let given = events(2);
    let first = append(&*owner, &to, given.clone()).await;
    append(&*owner, &to, events(2)).await;
    drop(owner);
    fixture.lose_copies().await;
    let owner = fixture.open_owner("two").await;
    let again = try_append(&*owner, &to, Expected::NoStream, given).await;
    let again = again.unwrap();
    assert_eq!((&again, again.was_repeated()), (&first, true));
    assert_eq!(shown(&*owner, &to).await, [1, 2, 3, 4]);
}

/// Waits until a reader has everything of an append.
async fn follow(reader: &dyn Store, appended: &Appended) {
    let mut hint = reader.hint();
    let last = appended.last();
    while !has(reader, last.partition, last.position).await {
        hint.wait(Duration::from_millis(50)).await;
    }
}

async fn has(reader: &dyn Store, partition: Partition, position: Position) -> bool {
    head(reader, partition).await >= position
}

#[track_caller]
fn assert_owner(error: &AppendError, name: &str) {
    let AppendError::NotOwner { owner } = error else {
        panic!("this process does not own the partition, but it is {error:?}")
    };
    assert_eq!(owner.as_deref(), Some(name));
}
