//! When things go wrong on the way: lost answers, calls that fail, futures that are dropped, hints
//! that never come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::faulty::{AnswerLost, Call, FailsOnce, FaultyStore, HintLost, Slow};
use super::log::next_after;
use super::words::*;
use super::{Fixture, drop_after};
use crate::append::{AppendError, Expected};
use crate::chrono::{DateTime, Utc};
use crate::clock::{Clock, SystemClock};
use crate::error::Failure;
use crate::position::Position;
use crate::read::{ReadLog, ReadStream};
use crate::store::Store;
use crate::stream::Version;
use crate::stream_state::{ChangeStream, Status, StreamChange};

pub async fn an_outcome_that_is_unknown_is_resolved_by_asking_again(fixture: &dyn Fixture) {
    let store = FaultyStore::new(open(fixture).await, AnswerLost::next(0));
    for (row, expected) in [Expected::Any, Expected::NoStream, version(0)]
        .into_iter()
        .enumerate()
    {
        let to = stream(format!("lost-{row}"));
        let given = events(3);
        store.fault().lose_next(2);
        for _ in 0..2 {
            let error = try_append(&*store, &to, expected, given.clone())
                .await
                .unwrap_err();
            assert!(matches!(error, AppendError::Unknown(_)), "{error:?}");
        }
        let resolved = try_append(&*store, &to, expected, given.clone())
            .await
            .unwrap();
        assert!(resolved.was_repeated());
        assert_recorded(&resolved, &given, &whole_stream(&*store, &to).await);
    }
}

pub async fn a_refusal_whose_answer_was_lost_is_refused_again(fixture: &dyn Fixture) {
    let store = FaultyStore::new(open(fixture).await, AnswerLost::next(0));
    let to = stream("lost-1");
    append(&*store, &to, events(1)).await;
    store.fault().lose_next(1);
    let given = events(1);
    let unknown = try_append(&*store, &to, Expected::NoStream, given.clone())
        .await
        .unwrap_err();
    assert!(matches!(unknown, AppendError::Unknown(_)));
    let error = refused(
        &*store,
        &[&to],
        try_append(&*store, &to, Expected::NoStream, given),
    )
    .await;
    assert_eq!(conflicts(&error), [(0, Status::Active, 1)]);
}

pub async fn an_append_that_was_never_sent_succeeds_on_retry(fixture: &dyn Fixture) {
    let store = FaultyStore::new(open(fixture).await, FailsOnce::at([Call::Append]));
    let to = stream("failed-1");
    let given = events(3);
    let error = refused(
        &*store,
        &[&to],
        try_append(&*store, &to, Expected::NoStream, given.clone()),
    )
    .await;
    assert!(
        matches!(&error, AppendError::Store(error) if error.failure() == Failure::Unavailable),
        "{error:?}"
    );
    let appended = try_append(&*store, &to, Expected::NoStream, given.clone())
        .await
        .unwrap();
    assert!(!appended.was_repeated());
    assert_recorded(&appended, &given, &whole_stream(&*store, &to).await);
}

pub async fn an_append_is_whole_or_absent_when_dropped(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    drop_everywhere(&*store, async |round, given| {
        try_append(
            &*store,
            &stream(format!("dropped-{round}")),
            Expected::NoStream,
            given,
        )
        .await
    })
    .await;
}

pub async fn a_stream_change_is_whole_or_absent_when_dropped(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    for polls in 0..1_000 {
        let of = stream(format!("dropped-{polls}"));
        append(&*store, &of, events(2)).await;
        let done = drop_after(
            polls,
            store.change_stream(ChangeStream::new(&of, StreamChange::Delete)),
        )
        .await;
        let state = store
            .change_stream(ChangeStream::new(&of, StreamChange::Delete))
            .await
            .unwrap();
        assert_eq!(
            (state.status, state.version, state.deletions.len()),
            (Status::Deleted, Version::new(2), 1)
        );
        assert!(shown(&*store, &of).await.is_empty());
        if done.is_some() {
            return;
        }
    }
    panic!("the change never ends");
}

pub async fn a_read_that_is_dropped_disturbs_no_other(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let of = stream("dropped-1");
    append(&*store, &of, events(50)).await;
    let partition = store.partition_of(&of);
    let mut done = false;
    for polls in 0..1_000 {
        let read = ReadLog::after(Position::START).partition(partition);
        // Many more than a pool of connections has, so that one that is leaked is missed.
        for _ in 0..20 {
            done = drop_after(polls, store.read_stream(ReadStream::of(of.clone())))
                .await
                .is_some();
            done &= drop_after(polls, store.read(read.clone())).await.is_some();
            done &= drop_after(polls, store.head(partition)).await.is_some();
            done &= drop_after(polls, store.stream_state(&of)).await.is_some();
            done &= drop_after(polls, store.find(partition, &[crate::EventId::random()]))
                .await
                .is_some();
            done &= drop_after(
                polls,
                store.position_at(partition, crate::chrono::DateTime::UNIX_EPOCH),
            )
            .await
            .is_some();
        }
        assert_eq!(shown(&*store, &of).await.len(), 50);
        append(&*store, &stream("others-1"), events(1)).await;
        if done {
            return;
        }
    }
    panic!("the reads never end");
}

/// Writers that are aborted in the middle of what they do: what they were told is there, and
/// nothing is there in part.
pub async fn tasks_that_are_aborted_lose_nothing_that_was_acknowledged(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let (acknowledge, mut acknowledgements) = tokio::sync::mpsc::channel(64);
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = Arc::clone(&store);
            let acknowledge = acknowledge.clone();
            tokio::spawn(async move {
                loop {
                    let appended =
                        append(&*store, &stream(format!("aborted-{writer}")), events(3)).await;
                    if acknowledge.send(appended).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    drop(acknowledge);
    let mut acknowledged = Vec::new();
    for writer in &writers {
        // Everyone is in full swing by now.
        for _ in 0..10 {
            acknowledged.push(acknowledgements.recv().await.expect("the writers go on"));
        }
        writer.abort();
    }
    for writer in writers {
        assert!(
            writer.await.is_err_and(|error| error.is_cancelled()),
            "a writer was refused"
        );
    }
    while let Some(appended) = acknowledgements.recv().await {
        acknowledged.push(appended);
    }
    // What was dropped may still happen: a later append, to each stream, and all of it is
    // settled.
    for writer in 0..8 {
        append(&*store, &stream(format!("aborted-{writer}")), events(3)).await;
    }
    let store = reopen(fixture, store).await;
    for writer in 0..8 {
        let of = stream(format!("aborted-{writer}"));
        let all = whole_stream(&*store, &of).await;
        assert_eq!(all.len() % 3, 0, "an append is there in part");
        for appended in acknowledged
            .iter()
            .filter(|appended| appended.last().stream == of)
        {
            for placed in appended.events() {
                let found = &all[placed.version.get() as usize - 1];
                assert_eq!(
                    (found.id, found.position),
                    (placed.id, placed.position),
                    "an acknowledged event is gone"
                );
            }
        }
    }
    for partition in partitions(&*store) {
        let all = positions(&whole_log(&*store, partition).await);
        assert_eq!(all, (1..=all.len() as u64).collect::<Vec<u64>>());
    }
}

pub async fn a_caller_stalled_after_its_append_blocks_no_other(fixture: &dyn Fixture) {
    let inner = open(fixture).await;
    let slow = FaultyStore::new(Arc::clone(&inner), Slow::after([Call::Append]));
    let to = stream("slow-1");
    let appending = {
        let slow = Arc::clone(&slow);
        let to = to.clone();
        tokio::spawn(async move { append(&*slow, &to, events(2)).await })
    };
    slow.fault().waiting(1).await;
    assert_eq!(
        shown(&*inner, &to).await,
        [1, 2],
        "it is there before its caller knows"
    );
    assert_eq!(versions_of(&append(&*inner, &to, events(1)).await), [3]);
    slow.fault().open();
    assert_eq!(versions_of(&appending.await.unwrap()), [1, 2]);
}

pub async fn a_lost_hint_delays_a_reader_until_its_next_poll(fixture: &dyn Fixture) {
    let store: Arc<dyn Store> = FaultyStore::new(open(fixture).await, HintLost);
    for partition in partitions(&*store) {
        let waiting = tokio::spawn(next_after(
            Arc::clone(&store),
            store.hint(),
            partition,
            Position::START,
        ));
        let appended = append(
            &*store,
            &stream_in(&*store, partition, "unheard"),
            events(1),
        )
        .await;
        assert_eq!(ids(&waiting.await.unwrap()), [appended.last().id]);
    }
}

/// Panics while it is told to.
#[derive(Debug, Default)]
struct BrokenClock(AtomicBool);

impl Clock for BrokenClock {
    fn now(&self) -> DateTime<Utc> {
        assert!(!self.0.load(Ordering::SeqCst), "the battery is empty");
        SystemClock.now()
    }
}

pub async fn a_clock_that_panics_fails_its_own_requests_only(fixture: &dyn Fixture) {
    let clock = Arc::new(BrokenClock::default());
    let store = fixture.open(Arc::<BrokenClock>::clone(&clock)).await;
    let to = stream("broken-1");
    append(&*store, &to, events(1)).await;
    clock.0.store(true, Ordering::SeqCst);
    let error = try_append(&*store, &to, Expected::Any, events(1))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("the battery is empty"),
        "{error}"
    );
    let delete = ChangeStream::new(&to, StreamChange::Delete);
    let error = store.change_stream(delete.clone()).await.unwrap_err();
    assert!(
        error.to_string().contains("the battery is empty"),
        "{error}"
    );
    // What was refused left nothing, and the store works as before.
    assert_eq!(shown(&*store, &to).await, [1]);
    clock.0.store(false, Ordering::SeqCst);
    assert_eq!(versions_of(&append(&*store, &to, events(1)).await), [2]);
    store.change_stream(delete).await.unwrap();
    assert!(shown(&*store, &to).await.is_empty());
}
