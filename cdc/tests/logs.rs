//! A log of another program as a source: it was restored, has other partitions, lacks archived
//! events, cannot be read, or holds what the log of this program refuses.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod world;

use std::collections::BTreeSet;
use std::sync::Arc;

use annals::cdc::{IngestState, Ingests as _, Records, Source as _};
use annals::prelude::*;
use annals::store::{
    Append, ChangeStream, EventStore as _, Head, Hint, Log, LogId, LogPage, NewEvent, ReadLog,
    StreamChange,
};
use annals_core::{EventId, Failure, MemoryStore, Partition, StoreError};
use async_trait::async_trait;
use world::{events, status, stopped, until};

/// A log of which so many partitions are shown.
#[derive(Debug)]
struct Shown {
    log: MemoryStore,
    partitions: u32,
    grown_from: Option<u32>,
    fails: Option<Failure>,
}

impl Shown {
    fn of(log: &MemoryStore, partitions: u32) -> Shown {
        Shown {
            log: log.clone(),
            partitions,
            grown_from: None,
            fails: None,
        }
    }
}

#[async_trait]
impl Log for Shown {
    fn id(&self) -> LogId {
        self.log.id()
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn grown_from(&self) -> Option<u32> {
        self.grown_from
    }

    async fn read(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        match self.fails {
            Some(failure) => Err(StoreError::new(failure, "the cable is loose")),
            None => self.log.read(read).await,
        }
    }

    async fn head(&self, partition: Partition) -> Result<Head, StoreError> {
        self.log.head(partition).await
    }

    fn hint(&self) -> Hint {
        self.log.hint()
    }
}

fn records(log: Shown) -> Records {
    Records::of(&Annals::following(Arc::new(log)))
}

/// Appends an event to each of these streams.
async fn note(log: &MemoryStore, streams: &[&str]) {
    for stream in streams {
        let stream = StreamId::any(*stream).unwrap();
        let append = Append::new(stream, [NewEvent::json("noted", "{}")]);
        log.append(append).await.unwrap();
    }
}

/// Waits until so many events are there, and says of which streams.
async fn noted(db: &Annals, count: usize) -> Vec<String> {
    until(&format!("{count} events are there"), || async {
        let found = events(db).await;
        let streams = found.iter().map(|event| event.stream.to_string());
        (found.len() >= count).then(|| streams.collect())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_log_that_was_restored_stops() {
    let folder = tempfile::tempdir().unwrap();
    let log = MemoryStore::new();
    note(&log, &["a-1", "a-2"]).await;
    let program = world::start(folder.path(), records(Shown::of(&log, 1))).await;
    noted(&program, 2).await;
    program.stop().await;
    drop(program);
    log.rewind(Position::new(1));
    let ends = "partition 0: the log ends at 1 and the checkpoint is at 2";
    let differs = "partition 0: the event at 2 is not the one that was read there";
    for (more, wanted) in [(&[][..], ends), (&["b-1", "b-2"][..], differs)] {
        note(&log, more).await;
        let program = world::start(folder.path(), records(Shown::of(&log, 1))).await;
        let why = stopped(&program).await;
        assert!(why.contains(wanted), "{why}");
        assert!(
            why.contains("open the log that was read, or give this ingest another name"),
            "{why}"
        );
        assert_eq!(noted(&program, 2).await, ["a-1", "a-2"]);
        program.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_partitions_of_a_source_log_need_acceptance() {
    let folder = tempfile::tempdir().unwrap();
    let log = MemoryStore::with_partitions(3);
    let streams: Vec<_> = (0..30).map(|n| format!("a-{n}")).collect();
    let streams: Vec<&str> = streams.iter().map(String::as_str).collect();
    note(&log, &streams).await;
    let mut shown = 0;
    for partition in (0..2).map(Partition) {
        shown += log.head(partition).await.unwrap().visible.get() as usize;
    }
    assert!(0 < shown && shown < streams.len());
    let program = world::start(folder.path(), records(Shown::of(&log, 2))).await;
    noted(&program, shown).await;
    program.stop().await;
    drop(program);
    for (count, grown_from, wanted) in [
        (3, None, "go on with `Topic::accept_more_partitions(2, 3)`"),
        (1, Some(1), "has read 2 partitions of its log, and it has 1"),
    ] {
        let mut other = Shown::of(&log, count);
        other.grown_from = grown_from;
        let program = world::start(folder.path(), records(other)).await;
        let why = stopped(&program).await;
        assert!(why.contains(wanted), "{why}");
        assert_eq!(events(&program).await.len(), shown);
        program.stop().await;
    }
    let mut accepted = Shown::of(&log, 3);
    accepted.grown_from = Some(2);
    let program = world::start(folder.path(), records(accepted)).await;
    noted(&program, streams.len()).await;
    program.stop().await;
    drop(program);
    // Then it is as it is.
    note(&log, &["b-1"]).await;
    let program = world::start(folder.path(), records(Shown::of(&log, 3))).await;
    noted(&program, streams.len() + 1).await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archived_events_of_a_source_log_are_no_silent_gap() {
    let folder = tempfile::tempdir().unwrap();
    let log = MemoryStore::new();
    note(&log, &["$own", "$own", "a-1", "b-1", "b-1", "a-2"]).await;
    for stream in ["$own", "b-1"] {
        let stream = StreamId::any(stream).unwrap();
        let before = Version::new(2);
        let change = ChangeStream::new(&stream, StreamChange::Archive { before });
        log.change_stream(change).await.unwrap();
    }
    let program = world::start(folder.path(), records(Shown::of(&log, 1))).await;
    let why = stopped(&program).await;
    let wanted =
        "has not read position 4 of `b-1` in partition 0 of the log, and that was archived";
    assert!(why.contains(wanted), "{why}");
    // What comes before it is in.
    assert_eq!(noted(&program, 1).await, ["a-1"]);
    program.stop().await;
    drop(program);
    let source = records(Shown::of(&log, 1)).skip_archived();
    let program = world::start(folder.path(), source).await;
    assert_eq!(noted(&program, 3).await, ["a-1", "b-1", "a-2"]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_may_pass_is_tried_again() {
    for (failure, needs_operator) in [(Failure::Unavailable, false), (Failure::Invalid, true)] {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Shown::of(&MemoryStore::new(), 1);
        log.fails = Some(failure);
        let program = world::start(folder.path(), records(log)).await;
        let (stopped, why) = until("it says why", || async {
            match status(&program).state {
                IngestState::Stopped(why) => Some((true, why)),
                IngestState::Retrying(why) => Some((false, why)),
                _ => None,
            }
        })
        .await;
        assert_eq!(stopped, needs_operator, "{why}");
        assert!(why.contains("the cable is loose"), "{why}");
        program.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_refused_keeps_no_other_out() {
    let folder = tempfile::tempdir().unwrap();
    let log = MemoryStore::new();
    let known = EventId::random();
    let event = || NewEvent::json("noted", "{}").id(known);
    note(&log, &["a-1", "a-2"]).await;
    let to = StreamId::new("a-3").unwrap();
    log.append(Append::new(to, [event()])).await.unwrap();
    note(&log, &["a-4"]).await;
    let db = world::open(folder.path()).await;
    let other = StreamId::new("other-1").unwrap();
    let append = Append::new(other, [event()]);
    db.store().append(append).await.unwrap();
    drop(db);
    let program = world::start(folder.path(), records(Shown::of(&log, 1))).await;
    let why = stopped(&program).await;
    let wanted = "position 3 of partition 0: skip it with `skip_message(0, 3, reason)`";
    assert!(why.contains(wanted), "{why}");
    assert_eq!(noted(&program, 3).await, ["other-1", "a-1", "a-2"]);
    let shop = program.ingest("shop").unwrap();
    shop.skip_message(0, 3, "it is there").await.unwrap();
    assert_eq!(noted(&program, 4).await, ["other-1", "a-1", "a-2", "a-4"]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_of_an_older_program_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let log = MemoryStore::new();
    note(&log, &["a-1", "a-2"]).await;
    let mark = format!(
        r#"{{"source":"records of log {}","resume":{{"0":1}}}}"#,
        log.id()
    );
    let db = world::open(folder.path()).await;
    let stream = annals::cdc::mark_stream("shop").unwrap();
    let append = Append::new(stream, [NewEvent::json("cdc.mark", mark)]);
    db.store().append(append).await.unwrap();
    drop(db);
    let program = world::start(folder.path(), records(Shown::of(&log, 1))).await;
    assert_eq!(noted(&program, 1).await, ["a-2"]);
    program.stop().await;
}

#[tokio::test]
async fn each_partition_has_its_turn_while_all_have_much() {
    let log = MemoryStore::with_partitions(2);
    // A few of them are as much as is read at once.
    let payload = format!("\"{}\"", "x".repeat(1 << 20));
    let mut number = 0;
    for partition in (0..2).map(Partition) {
        while log.head(partition).await.unwrap().visible.get() < 10 {
            number += 1;
            let stream = StreamId::any(format!("large-{number}")).unwrap();
            let event = NewEvent::json("noted", payload.clone());
            log.append(Append::new(stream, [event])).await.unwrap();
        }
    }
    let mut source = records(Shown::of(&log, 2));
    source.begin("copy", None).await.unwrap();
    let mut turns = Vec::new();
    for _ in 0..3 {
        let chunk = source.next().await.unwrap();
        let of = chunk.records.iter().map(|record| record.at.message);
        let of: BTreeSet<u32> = of.map(|message| message.unwrap().0).collect();
        turns.push(of);
    }
    assert_eq!(turns, [0_u32, 1, 0].map(|of| BTreeSet::from([of])));
}
