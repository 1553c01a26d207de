//! Several writers at once.

use std::sync::Arc;

use crate::append::Expected;
use crate::conformance::Fixture;
use crate::conformance::words::*;
use crate::read::ReadLog;
use crate::stream::StreamId;
use crate::stream_state::Status;

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

pub async fn under_a_version_lets_exactly_one_of_four_writers_win(fixture: &dyn Fixture) {
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

pub async fn of_a_new_stream_by_many_succeeds_exactly_once(fixture: &dyn Fixture) {
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

pub async fn of_a_thousand_events_is_contiguous_and_seen_whole(fixture: &dyn Fixture) {
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
