//! Readers of the log while others append.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::LOOKS_AFTER;
use crate::conformance::Fixture;
use crate::conformance::words::*;
use crate::event::{EventId, NewEvent, RecordedEvent};
use crate::position::{Partition, Position};
use crate::read::ReadLog;
use crate::store::Store;

/// Events `[writer, number of its append, index in it, size of it]`.
fn numbered(writer: usize, number: usize, size: usize) -> Vec<NewEvent> {
    (0..size)
        .map(|index| event(json!([writer, number, index, size]).to_string()))
        .collect()
}

fn read_number(event: &RecordedEvent) -> [usize; 4] {
    serde_json::from_slice(&event.payload).unwrap()
}

/// Follows a partition from its start, and checks at every page that nothing is missed, repeated,
/// torn or out of order. Ends when nothing is left after `done` was set.
async fn follow(
    store: Arc<dyn Store>,
    partition: Partition,
    limit: usize,
    done: Arc<AtomicBool>,
) -> Vec<EventId> {
    let mut seen = Vec::new();
    let mut at = Position::START;
    let mut last_head = Position::START;
    let mut hint = store.hint();
    loop {
        let last_look = done.load(Ordering::SeqCst);
        let read = ReadLog::after(at).partition(partition).limit(limit);
        let page = store.read(read.clone()).await.unwrap();
        check_page(&page, limit, at, read.up_to, read.direction);
        assert!(
            page.head.visible >= last_head,
            "the head went back from {last_head} to {:?}",
            page.head
        );
        last_head = page.head.visible;
        for event in &page.events {
            assert_eq!(event.position, at.next(), "a hole, or an event twice");
            at = event.position;
            seen.push(event.id);
        }
        if let (true, Some(last)) = (page.end, page.events.last()) {
            let [_, _, index, size] = read_number(last);
            assert_eq!(index + 1, size, "a part of an append is visible");
            assert_eq!(at, last_head, "a page that ends is read up to the head");
        }
        if page.end && page.events.is_empty() {
            if last_look {
                return seen;
            }
            hint.wait(LOOKS_AFTER).await;
        }
    }
}

/// Reads the newest part of the partition again and again, and checks that what was seen once stays
/// as it was.
async fn look_again(store: Arc<dyn Store>, partition: Partition, done: Arc<AtomicBool>) {
    let mut seen: Vec<EventId> = Vec::new();
    while !done.load(Ordering::SeqCst) {
        let up_to = head(&*store, partition).await;
        let after = Position::new(seen.len() as u64).minus(50).min(up_to);
        let mut found = read_log(
            &*store,
            ReadLog::after(after)
                .up_to(up_to)
                .partition(partition)
                .backward()
                .limit(40),
        )
        .await;
        found.reverse();
        assert_eq!(
            positions(&found),
            (after.next().get()..=up_to.get()).collect::<Vec<u64>>(),
            "all up to the head"
        );
        let (known, new) = found.split_at((seen.len() as u64 - after.get()) as usize);
        assert_eq!(
            ids(known),
            seen[after.get() as usize..],
            "what was seen once has changed"
        );
        seen.extend(ids(new));
        tokio::task::yield_now().await;
    }
}

/// Ten writers, a hundred appends each, of one to a hundred events, over all partitions; and
/// readers of every kind meanwhile.
pub async fn is_the_same_for_every_reader_while_ten_writers_append(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    race(&store, &store).await;
}

/// The writers append through one handle, the readers read through the other.
pub(in crate::conformance) async fn race(writing: &Arc<dyn Store>, reading: &Arc<dyn Store>) {
    let done = Arc::new(AtomicBool::new(false));
    let mut followers = Vec::new();
    let mut lookers = Vec::new();
    for partition in partitions(&**reading) {
        for limit in [1, 7, 1_000] {
            followers.push((
                partition,
                tokio::spawn(follow(
                    Arc::clone(reading),
                    partition,
                    limit,
                    Arc::clone(&done),
                )),
            ));
        }
        lookers.push(tokio::spawn(look_again(
            Arc::clone(reading),
            partition,
            Arc::clone(&done),
        )));
    }
    let counts = at_once((0..10).map(|writer| {
        let store = Arc::clone(writing);
        async move {
            let mut count = 0;
            for number in 0..100 {
                let partition = Partition((writer + number) as u32 % store.partitions());
                let to = stream_in(&*store, partition, &format!("writer{writer}"));
                let size = if number % 20 == 19 {
                    100
                } else {
                    1 + (writer + number) % 3
                };
                let appended = append(&*store, &to, numbered(writer, number, size)).await;
                let seen = head(&*store, partition).await;
                assert!(
                    seen >= appended.last().position,
                    "an append has returned and is not visible"
                );
                count += size;
            }
            count
        }
    }))
    .await;
    done.store(true, Ordering::SeqCst);
    for looker in lookers {
        looker.await.expect("what was seen stays");
    }
    let mut logs = Vec::new();
    for partition in partitions(&**reading) {
        logs.push(whole_log(&**reading, partition).await);
    }
    assert_eq!(
        logs.iter().map(Vec::len).sum::<usize>(),
        counts.iter().sum::<usize>(),
        "every append is there once"
    );
    for (partition, follower) in followers {
        assert_eq!(
            follower.await.expect("the reader misses nothing"),
            ids(&logs[partition.0 as usize])
        );
    }
    for log in &logs {
        let mut next = [0; 10];
        for append in log.chunk_by(|_, event| event.append_index > 0) {
            let [writer, number, _, size] = read_number(&append[0]);
            let found: Vec<[usize; 4]> = append.iter().map(read_number).collect();
            let expected: Vec<[usize; 4]> = (0..size)
                .map(|index| [writer, number, index, size])
                .collect();
            assert_eq!(found, expected, "an append is in one piece");
            assert!(
                number >= next[writer],
                "the appends of one writer are in order"
            );
            next[writer] = number + 1;
        }
        assert!(
            log.is_sorted_by(|a, b| a.recorded_at <= b.recorded_at),
            "recorded times go backwards"
        );
    }
}
