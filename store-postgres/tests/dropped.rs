//! Callers that are cancelled at any of their awaits: 2,400 of them (10,000 with
//! `ANNALS_TEST_LONG=1`), with a pool of one connection and with a pool of four.

// What must not fail is unwrapped, and the figures are shown.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod server;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use annals_core::conformance::{drop_after, rounds};
use annals_core::{
    Acquired, Append, Checkpoint, CommitError, EventId, EventStore, Generation, GenerationSpec,
    GenerationStore, History, Lease, Leases, Log, NewEvent, Partition, Position, ReadLog, ReadRows,
    ReadStream, RowChange, RowStore, RowVersion, RowsBy, StreamId, ViewCommit,
};
use annals_postgres::{PostgresStore, sqlx};
use server::{Schema, connection};

const TASKS: u16 = 8;
/// How many calls of each task are cancelled.
fn cancelled_calls() -> usize {
    rounds(300, 1_250) as usize
}

/// A call is cancelled at its first await, its second, and so on up to this one.
const AWAITS: usize = 4;
const TTL: Duration = Duration::from_secs(3_600);

/// A worker on one slot whose calls are cancelled, and what was acknowledged.
struct Worker {
    store: PostgresStore,
    generation: Generation,
    slot: u16,
    lease: Lease,
    /// The last step that was acknowledged.
    acknowledged: Position,
}

impl Worker {
    async fn on(store: &PostgresStore, generation: &Generation, slot: u16) -> Worker {
        let lease = acquire(store, &generation.lease_name(slot)).await;
        Worker {
            store: store.clone(),
            generation: generation.clone(),
            slot,
            lease,
            acknowledged: Position::START,
        }
    }

    fn row(&self) -> String {
        format!("row-{:02}", self.slot)
    }

    /// The step from one position to the next: the row is the position, and its history the one
    /// before.
    fn step(&self, from: Position) -> ViewCommit {
        let position = from.next();
        let value = from.next().to_string();
        let to = Checkpoint {
            position,
            ..Checkpoint::start(self.slot, Partition(0))
        };
        let mut step = ViewCommit::new(self.generation.id, self.lease.clone(), from, to);
        step.rows.push(RowChange {
            key: self.row(),
            value: Some(value.into()),
            indexed: Vec::new(),
        });
        if from > Position::START {
            step.versions.push(RowVersion {
                key: self.row(),
                after: from.minus(1),
                up_to: from,
                recorded_at: annals_core::Clock::now(&annals_core::SystemClock),
                value: Some(from.to_string().into()),
            });
        }
        step
    }

    async fn checkpoint(&self) -> Position {
        let checkpoints = self.store.checkpoints(self.generation.id).await.unwrap();
        checkpoints
            .iter()
            .find(|of| of.slot == self.slot)
            .map_or(Position::START, |of| of.position)
    }

    /// Takes a step and is cancelled; what became of it is found out by asking again. Says whether
    /// it was answered.
    async fn cancelled_step(&mut self, polls: usize) -> bool {
        let from = self.checkpoint().await;
        assert!(
            from >= self.acknowledged,
            "it is at {from} after {} was acknowledged",
            self.acknowledged
        );
        let answer = drop_after(polls, self.store.commit_view(self.step(from))).await;
        if let Some(Ok(())) = answer {
            self.acknowledged = from.next();
        }
        match self.store.commit_view(self.step(from)).await {
            Ok(()) => assert!(answer.is_none(), "it was taken twice"),
            // Taken already, though the caller may not know.
            Err(CommitError::Fenced { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert_eq!(self.checkpoint().await, from.next());
        self.acknowledged = from.next();
        answer.is_some()
    }

    /// Asks about its lease and is cancelled. Says whether it was answered.
    async fn cancelled_lease(&mut self, polls: usize, round: usize) -> bool {
        let name = self.generation.lease_name(self.slot);
        let is_answered = match round % 4 {
            0 => drop_after(polls, self.store.renew_lease(&self.lease, TTL))
                .await
                .is_some(),
            1 => drop_after(polls, self.store.leases("dropped"))
                .await
                .is_some(),
            2 => drop_after(polls, self.store.release_lease(&self.lease))
                .await
                .is_some(),
            _ => drop_after(polls, self.store.acquire_lease(&name, "cancelled", TTL))
                .await
                .is_some(),
        };
        // Whatever came of it: it can be had again.
        self.lease = acquire(&self.store, &name).await;
        is_answered
    }
}

/// Takes a lease from its owner.
async fn acquire(store: &PostgresStore, name: &str) -> Lease {
    loop {
        match store.acquire_lease(name, "worker", TTL).await.unwrap() {
            Acquired::Granted(lease) => return lease,
            Acquired::Held(other) => store.release_lease(&other.lease).await.unwrap(),
        }
    }
}

/// Follows the log from its beginning, as a subscriber does.
async fn follow(store: &PostgresStore) {
    let mut hint = store.hint();
    let mut read = ReadLog::after(Position::START).limit(50);
    loop {
        hint.reset();
        let page = store.read(read.clone()).await.unwrap();
        read.after = page.scanned;
        if page.end {
            hint.wait(Duration::from_secs(60)).await;
        }
    }
}

/// What one task got until enough of its calls were cancelled: the events that were
/// acknowledged, and how many calls were answered.
async fn cancelled(mut worker: Worker) -> (Vec<EventId>, usize) {
    let store = worker.store.clone();
    let stream = StreamId::new(format!("dropped-{}", worker.slot)).unwrap();
    let mut acknowledged = Vec::new();
    let mut answered = 0;
    let calls = cancelled_calls();
    for round in 0.. {
        if round - answered == calls {
            break;
        }
        let polls = 1 + round / 8 % AWAITS;
        answered += usize::from(match round % 8 {
            0 => drop_after(polls, store.read(ReadLog::after(Position::START).limit(10)))
                .await
                .is_some(),
            1 => drop_after(polls, store.read_stream(ReadStream::of(stream.clone())))
                .await
                .is_some(),
            2 => drop_after(polls, store.find(Partition(0), &[EventId::random()]))
                .await
                .is_some(),
            3 => drop_after(polls, follow(&store)).await.is_some(),
            4 => worker.cancelled_step(polls).await,
            5 => worker.cancelled_lease(polls, round / 8).await,
            _ => {
                let event = NewEvent::json("thing.happened", b"{}".as_slice());
                let append =
                    drop_after(polls, store.append(Append::new(stream.clone(), [event]))).await;
                let known = append.map(|appended| appended.unwrap().last().id);
                acknowledged.extend(known);
                known.is_some()
            }
        });
    }
    (acknowledged, answered)
}

async fn leave_nothing_open(readers: u32) {
    let began = Instant::now();
    let schema = Schema::new();
    let (options, name) = schema.named(readers);
    let store = PostgresStore::connect_with(options).await.unwrap();
    let mut spec = GenerationSpec::new("dropped", 1, store.id());
    spec.slots = TASKS;
    spec.history = History::Versions;
    let generation = store.begin_generation(spec).await.unwrap();
    let mut tasks = Vec::new();
    for slot in 0..TASKS {
        tasks.push(tokio::spawn(cancelled(
            Worker::on(&store, &generation, slot).await,
        )));
    }
    let mut acknowledged = Vec::new();
    let mut answered = 0;
    for task in tasks {
        let (events, count) = task.await.unwrap();
        acknowledged.extend(events);
        answered += count;
    }
    // Everything that was handed over comes before this one.
    let last = NewEvent::json("thing.happened", b"{}".as_slice());
    let last = store
        .append(Append::new(StreamId::new("last-1").unwrap(), [last]))
        .await
        .unwrap()
        .last()
        .position;
    let mut observer = connection().await;
    let open = "select count(*) from pg_stat_activity where application_name = $1 and state like \
        'idle in transaction%'";
    let open: i64 = sqlx::query_scalar(open)
        .bind(&name)
        .fetch_one(&mut observer)
        .await
        .unwrap();
    assert_eq!(open, 0, "a connection was left in a transaction");

    let mut stored = Vec::new();
    let mut read = ReadLog::after(Position::START);
    while read.after < last {
        let page = store.read(read.clone()).await.unwrap();
        read.after = page.scanned;
        stored.extend(
            page.events
                .into_iter()
                .map(|event| (event.position.get(), event.id)),
        );
    }
    assert!(
        stored
            .iter()
            .map(|(position, _)| *position)
            .eq(1..=stored.len() as u64)
    );
    let stored: HashSet<EventId> = stored.into_iter().map(|(_, id)| id).collect();
    assert!(!acknowledged.is_empty() && acknowledged.iter().all(|id| stored.contains(id)));

    let everything = RowsBy::KeyRange(std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let page = store
        .read_rows(ReadRows::of(generation.id, everything))
        .await
        .unwrap();
    assert_eq!(page.rows.len(), usize::from(TASKS));
    for (row, at) in page.rows.iter().zip(&page.checkpoints) {
        assert_eq!(row.value, at.position.to_string(), "{}", row.key);
        let whole = (Position::START, at.position);
        let versions = store
            .row_versions(generation.id, &row.key, whole, 10_000)
            .await
            .unwrap();
        assert_eq!(versions.len() as u64, at.position.get() - 1, "{}", row.key);
    }
    println!(
        "{} calls cancelled, {answered} answered before, with {readers} connections, {:.1} s",
        usize::from(TASKS) * cancelled_calls(),
        began.elapsed().as_secs_f64()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cancelled_callers_leave_nothing_open_with_one_connection() {
    leave_nothing_open(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cancelled_callers_leave_nothing_open_with_four_connections() {
    leave_nothing_open(4).await;
}
