//! Tables of the application's own change with the steps of a worker, or not at all.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use annals_core::{
    Acquired, Checkpoint, CommitError, Failure, Generation, GenerationSpec, Lease, Leases, Log, OwnTables, Partition,
    Phase, Position, StoreError, TableWork, ViewCommit, ViewStore,
};
use annals_sqlite::SqliteStore;
use annals_sqlite::rusqlite::Connection;
use async_trait::async_trait;

/// Runs these statements as one part each; a part whose statement fails is undone.
#[derive(Clone, Debug, Default)]
struct Statements {
    parts: Vec<&'static str>,
    then: Then,
}

#[derive(Clone, Copy, Debug, Default)]
enum Then {
    #[default]
    Succeed,
    Fail,
    Panic,
    Wait,
    /// Says that it went only so far.
    StopAt(u64),
}

impl Statements {
    async fn run(&self, connection: &mut Connection) -> Result<(), StoreError> {
        for statement in &self.parts {
            SqliteStore::mark(connection).await?;
            match connection.execute_batch(statement) {
                Ok(()) => SqliteStore::keep(connection).await?,
                Err(_) => SqliteStore::undo(connection).await?,
            }
        }
        match self.then {
            Then::Fail => Err(StoreError::new(Failure::Invalid, "changed my mind")),
            Then::Panic => panic!("out of lamps"),
            Then::Wait => std::future::pending().await,
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl TableWork<Connection, ViewCommit> for Statements {
    async fn run(&mut self, connection: &mut Connection, step: &mut ViewCommit) -> Result<(), StoreError> {
        if let Then::StopAt(position) = self.then {
            step.to.position = Position::new(position);
        }
        Statements::run(self, connection).await
    }
}

#[async_trait]
impl TableWork<Connection> for Statements {
    async fn run(&mut self, connection: &mut Connection, (): &mut ()) -> Result<(), StoreError> {
        Statements::run(self, connection).await
    }
}

fn doing(parts: &[&'static str], then: Then) -> Box<Statements> {
    Box::new(Statements { parts: parts.to_vec(), then })
}

struct Worker {
    store: SqliteStore,
    generation: Generation,
    lease: Lease,
}

impl Worker {
    async fn begin() -> Worker {
        let store = SqliteStore::open("sqlite::memory:").await.unwrap();
        let generation = store.begin_generation(GenerationSpec::new("totals", 1, store.id())).await.unwrap();
        let ttl = std::time::Duration::from_secs(3600);
        let asked = store.acquire_lease(&generation.lease_name(0), "worker-a", ttl).await.unwrap();
        let Acquired::Granted(lease) = asked else { panic!("nobody else works here") };
        let worker = Worker { store, generation, lease };
        worker.step(0, 0, &["create table totals (n integer primary key)"], Then::Succeed).await.unwrap();
        worker
    }

    async fn step(&self, from: u64, to: u64, parts: &[&'static str], then: Then) -> Result<(), CommitError> {
        let to = Checkpoint { position: Position::new(to), ..Checkpoint::start(0, Partition(0)) };
        let step = ViewCommit::new(self.generation.id, self.lease.clone(), Position::new(from), to);
        self.store.commit_with(step, doing(parts, then)).await
    }

    /// The rows of the table, and where the slot stands.
    async fn found(&self) -> (i64, u64) {
        let count = |transaction: &mut annals_sqlite::InTransaction<'_>| {
            let count = transaction.connection().query_row("select count(*) from totals", [], |row| row.get(0));
            Ok::<_, annals_core::AppendError>(count.unwrap_or(-1))
        };
        let rows = self.store.append_in(count).await.unwrap();
        let checkpoints = self.store.checkpoints(self.generation.id).await.unwrap();
        (rows, checkpoints[0].position.get())
    }
}

#[tokio::test]
async fn tables_and_the_checkpoint_change_together() {
    let worker = Worker::begin().await;
    worker
        .step(0, 3, &["insert into totals values (1)", "insert into totals values (2)"], Then::Succeed)
        .await
        .unwrap();
    assert_eq!(worker.found().await, (2, 3));
}

#[tokio::test]
async fn a_part_that_fails_is_undone_alone() {
    let worker = Worker::begin().await;
    let parts =
        ["insert into totals values (1)", "insert into totals values (2); insert into totals values (1)", "nonsense"];
    worker.step(0, 3, &parts, Then::Succeed).await.unwrap();
    assert_eq!(worker.found().await, (1, 3));
}

#[tokio::test]
async fn work_that_fails_panics_or_waits_changes_nothing() {
    let worker = Worker::begin().await;
    for (then, says) in [(Then::Fail, "changed my mind"), (Then::Panic, "out of lamps"), (Then::Wait, "waited")] {
        let error = worker.step(0, 3, &["insert into totals values (1)"], then).await.unwrap_err();
        assert!(matches!(error, CommitError::Store(_)) && error.to_string().contains(says), "{then:?}: {error}");
        assert_eq!(worker.found().await, (0, 0), "{then:?}");
    }
    worker.step(0, 3, &["insert into totals values (1)"], Then::Succeed).await.unwrap();
    assert_eq!(worker.found().await, (1, 3));
}

#[tokio::test]
async fn work_of_somebody_who_should_not_work_here_is_not_run() {
    let worker = Worker::begin().await;
    worker.step(0, 3, &["insert into totals values (1)"], Then::Succeed).await.unwrap();
    let error = worker.step(0, 4, &["insert into totals values (2)"], Then::Succeed).await.unwrap_err();
    assert!(matches!(error, CommitError::Fenced { .. }), "{error:?}");
    worker.store.release_lease(&worker.lease).await.unwrap();
    let error = worker.step(3, 4, &["insert into totals values (2)"], Then::Succeed).await.unwrap_err();
    assert!(matches!(error, CommitError::Fenced { .. }), "{error:?}");
    assert_eq!(worker.found().await, (1, 3));
}

#[tokio::test]
async fn work_says_how_far_it_went() {
    let worker = Worker::begin().await;
    worker.step(0, 9, &["insert into totals values (1)"], Then::StopAt(5)).await.unwrap();
    assert_eq!(worker.found().await, (1, 5));
}

#[tokio::test]
async fn work_that_ends_the_transaction_is_an_error_and_harms_nobody() {
    let worker = Worker::begin().await;
    let error = worker.step(0, 3, &["insert into totals values (1)", "rollback"], Then::Succeed).await.unwrap_err();
    assert!(matches!(error, CommitError::Store(_)), "{error:?}");
    assert_eq!(worker.found().await, (0, 0));
}

#[tokio::test]
async fn a_switch_and_a_drop_take_their_tables_along() {
    let worker = Worker::begin().await;
    let (store, id) = (&worker.store, worker.generation.id);
    let publish = ["create view published as select * from totals"];
    assert!(store.switch_with(id, doing(&publish, Then::Fail)).await.is_err());
    assert_eq!(store.live_generation("totals", 1).await.unwrap(), None);
    store.switch_with(id, doing(&publish, Then::Succeed)).await.unwrap();
    assert_eq!(store.live_generation("totals", 1).await.unwrap().map(|of| of.phase), Some(Phase::Live));
    worker
        .step(0, 1, &["insert into published values (1)", "insert into totals values (1)"], Then::Succeed)
        .await
        .unwrap();
    let error = store.drop_with(id, doing(&["drop table totals"], Then::Succeed)).await.unwrap_err();
    assert!(matches!(error, CommitError::Invalid(_)), "readers depend on it: {error:?}");
    assert_eq!(worker.found().await, (1, 1));
    let other = store.begin_generation(GenerationSpec::new("totals", 1, store.id())).await.unwrap();
    store.switch_with(other.id, doing(&[], Then::Succeed)).await.unwrap();
    store.drop_with(id, doing(&["drop view published; drop table totals"], Then::Succeed)).await.unwrap();
    // Dropping what is gone changes nothing.
    store.drop_with(id, doing(&["create table totals (n)"], Then::Succeed)).await.unwrap();
    assert!(matches!(store.checkpoints(id).await, Err(CommitError::Gone(_))));
}
