//! Tables of the application's own change with the steps of a worker, or not at all.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod server;

use std::sync::Arc;
use std::time::Duration;

use annals_core::chrono::TimeDelta;
use annals_core::conformance::TablesFixture;
use annals_core::{
    Acquired, Checkpoint, Clock, CommitError, CustomTables, Failure, Generation, GenerationSpec,
    GenerationStore, InTransaction, Lease, Leases, Log, ManualClock, Partition, Position,
    StoreError, ViewCommit,
};
use annals_postgres::{PostgresStore, sqlx};
use async_trait::async_trait;
use server::{Schema, connection};
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

#[async_trait]
impl TablesFixture for Schema {
    type Store = PostgresStore;

    async fn open(&self) -> PostgresStore {
        PostgresStore::connect_with(server::options_within(&self.name))
            .await
            .unwrap()
    }

    async fn run(connection: &mut PgConnection, statements: &str) -> Result<(), String> {
        let statements = AssertSqlSafe(statements.to_owned());
        sqlx::raw_sql(statements)
            .execute(connection)
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    }

    async fn rows(&self, _: &PostgresStore, table: &str) -> Option<i64> {
        let count = self.sql(&format!("select count(*) from annals.{table}"));
        sqlx::query_scalar(count)
            .fetch_one(&mut connection().await)
            .await
            .ok()
    }
}

annals_core::conformance_of_custom_tables! { fixture: crate::Schema::new() }

/// Runs its first statements, says so, waits until it may go on, and runs its last ones.
struct Slow {
    statements: [String; 2],
    began: Option<oneshot::Sender<()>>,
    goes_on: Option<oneshot::Receiver<()>>,
}

#[async_trait]
impl<S: Send + 'static> InTransaction<PgConnection, S> for Slow {
    async fn run(&mut self, connection: &mut PgConnection, _: &mut S) -> Result<(), StoreError> {
        sqlx::raw_sql(AssertSqlSafe(self.statements[0].clone()))
            .execute(&mut *connection)
            .await
            .unwrap();
        let _ = self.began.take().unwrap().send(());
        // It goes on, too, when the test is gone.
        let _ = self.goes_on.take().unwrap().await;
        // Work whose connection was ended sees that at the end.
        let _ = sqlx::raw_sql(AssertSqlSafe(self.statements[1].clone()))
            .execute(connection)
            .await;
        Ok(())
    }
}

/// Work of these statements, a signal that it began, and one that lets it go on.
fn slow(
    schema: &Schema,
    statements: [&str; 2],
) -> (Box<Slow>, oneshot::Receiver<()>, oneshot::Sender<()>) {
    let (began, has_begun) = oneshot::channel();
    let (go_on, goes_on) = oneshot::channel();
    let statements = statements.map(|statement| schema.sql(statement).0);
    (
        Box::new(Slow {
            statements,
            began: Some(began),
            goes_on: Some(goes_on),
        }),
        has_begun,
        go_on,
    )
}

/// Work that need not be let go on.
fn quick(schema: &Schema, statement: &str) -> Box<Slow> {
    slow(schema, [statement, "select"]).0
}

/// A slot, and a table with one row that steps count in.
struct Slot {
    schema: Schema,
    store: PostgresStore,
    clock: Arc<ManualClock>,
    generation: Generation,
}

async fn open(schema: &Schema, clock: &Arc<ManualClock>, timeout: Duration) -> PostgresStore {
    let options = schema
        .options()
        .clock(Arc::clone(clock) as Arc<dyn Clock>)
        .statement_timeout(timeout);
    PostgresStore::connect_with(options).await.unwrap()
}

impl Slot {
    async fn new(timeout: Duration) -> Slot {
        let schema = Schema::new();
        let clock = Arc::new(ManualClock::default());
        let store = open(&schema, &clock, timeout).await;
        let generation = store
            .begin_generation(GenerationSpec::new("totals", 1, store.id()))
            .await
            .unwrap();
        let create = schema
            .sql("create table annals.totals (n integer); insert into annals.totals values (0)");
        sqlx::raw_sql(create)
            .execute(&mut connection().await)
            .await
            .unwrap();
        Slot {
            schema,
            store,
            clock,
            generation,
        }
    }

    async fn lease(&self, owner: &str) -> Lease {
        match self
            .store
            .acquire_lease(&self.generation.lease_name(0), owner, TTL)
            .await
            .unwrap()
        {
            Acquired::Granted(lease) => lease,
            Acquired::Held(other) => panic!("{other:?}"),
        }
    }

    /// A step from the start to the first position, begun.
    fn step(&self, lease: &Lease, work: Box<Slow>) -> JoinHandle<Result<(), CommitError>> {
        self.step_in(&self.store, lease, work)
    }

    /// The same, by a program that has the store open as well.
    fn step_in(
        &self,
        store: &PostgresStore,
        lease: &Lease,
        work: Box<Slow>,
    ) -> JoinHandle<Result<(), CommitError>> {
        let to = Checkpoint {
            position: Position::new(1),
            ..Checkpoint::start(0, Partition(0))
        };
        let store = store.clone();
        let step = ViewCommit::new(self.generation.id, lease.clone(), Position::START, to);
        tokio::spawn(async move { store.commit_with(step, work).await })
    }

    /// The step of a first worker, whose work has counted and is stopped.
    async fn counts_and_stands_still(
        &self,
    ) -> (JoinHandle<Result<(), CommitError>>, oneshot::Sender<()>) {
        let lease = self.lease("worker-a").await;
        let (work, began, go_on) = slow(&self.schema, [COUNT, "select"]);
        let step = self.step(&lease, work);
        began.await.unwrap();
        (step, go_on)
    }

    /// The lease of a second worker, when the first one has not renewed its own.
    async fn lease_of_the_next(&self) -> Lease {
        self.clock.advance(TimeDelta::seconds(20));
        soon(self.lease("worker-b")).await
    }

    async fn counted(&self) -> i32 {
        let select = self.schema.sql("select n from annals.totals");
        sqlx::query_scalar(select)
            .fetch_one(&mut connection().await)
            .await
            .unwrap()
    }
}

const TTL: Duration = Duration::from_secs(10);
const PATIENT: Duration = Duration::from_secs(60);
const COUNT: &str = "update annals.totals set n = n + 1";

/// What must come to its end while other work is stopped.
async fn soon<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENT, answer)
        .await
        .expect("it waits for stopped work")
}

#[tokio::test]
async fn a_lease_is_renewed_while_long_work_runs() {
    let slot = Slot::new(PATIENT * 2).await;
    let lease = slot.lease("worker-a").await;
    let (work, began, go_on) = slow(&slot.schema, [COUNT, "select"]);
    let step = slot.step(&lease, work);
    began.await.unwrap();
    for _ in 0..5 {
        slot.clock.advance(TimeDelta::seconds(5));
        assert!(soon(slot.store.renew_lease(&lease, TTL)).await.unwrap());
        let asked = soon(slot.store.acquire_lease(&lease.name, "worker-b", TTL))
            .await
            .unwrap();
        assert!(
            matches!(&asked, Acquired::Held(other) if other.lease == lease),
            "{asked:?}"
        );
    }
    go_on.send(()).unwrap();
    step.await.unwrap().unwrap();
    assert_eq!(slot.counted().await, 1);
}

#[tokio::test]
async fn work_under_a_lease_that_was_taken_meanwhile_is_undone() {
    let slot = Slot::new(PATIENT * 2).await;
    let (step, go_on) = slot.counts_and_stands_still().await;
    let second = slot.lease_of_the_next().await;
    let other = "create table annals.others ()";
    soon(slot.step(&second, quick(&slot.schema, other)))
        .await
        .unwrap()
        .unwrap();
    go_on.send(()).unwrap();
    let fenced = step.await.unwrap().unwrap_err();
    assert!(matches!(fenced, CommitError::Fenced { .. }), "{fenced:?}");
    assert_eq!(slot.counted().await, 0);
}

/// Waits until a statement that calls this function of the schema waits for a lock.
async fn waits_for_a_lock(schema: &Schema, function: &str) {
    let waiting = "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and \
        strpos(query, $1) > 0)";
    let call = format!("\"{}\".{function}(", schema.name);
    let mut observer = connection().await;
    soon(async {
        while !sqlx::query_scalar::<_, bool>(waiting)
            .bind(&call)
            .fetch_one(&mut observer)
            .await
            .unwrap()
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_generation_is_dropped_after_the_work_running_in_it() {
    let slot = Slot::new(PATIENT * 2).await;
    let lease = slot.lease("worker-a").await;
    let (work, began, go_on) = slow(&slot.schema, ["select", COUNT]);
    let step = slot.step(&lease, work);
    began.await.unwrap();
    let store = slot.store.clone();
    let id = slot.generation.id;
    let drop = "drop table annals.totals";
    let work = quick(&slot.schema, drop);
    let dropping = tokio::spawn(async move { store.drop_with(id, work).await });
    waits_for_a_lock(&slot.schema, "drop_generation").await;
    go_on.send(()).unwrap();
    soon(step).await.unwrap().unwrap();
    soon(dropping).await.unwrap().unwrap();
    assert!(matches!(
        slot.store.checkpoints(id).await,
        Err(CommitError::Gone(_))
    ));
    assert_eq!(
        TablesFixture::rows(&slot.schema, &slot.store, "totals").await,
        None
    );
}

#[tokio::test]
async fn hung_work_does_not_keep_the_next_worker_out() {
    let slot = Slot::new(Duration::from_secs(2)).await;
    let (step, go_on) = slot.counts_and_stands_still().await;
    let second = slot.lease_of_the_next().await;
    // It waits until the server ends the work that is hung, longer than its own time would be.
    let patient = open(&slot.schema, &slot.clock, PATIENT * 2).await;
    soon(slot.step_in(&patient, &second, quick(&slot.schema, COUNT)))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(slot.counted().await, 1);
    go_on.send(()).unwrap();
    let ended = step.await.unwrap().unwrap_err();
    assert!(
        matches!(&ended, CommitError::Store(error) if error.failure() == Failure::Unavailable),
        "{ended:?}"
    );
    assert_eq!(slot.counted().await, 1);
}

#[tokio::test]
async fn work_that_breaks_its_transaction_is_refused() {
    let slot = Slot::new(PATIENT).await;
    let lease = slot.lease("worker-a").await;
    for (last, says) in [
        ("nonsense", "a statement of the application's work failed"),
        ("rollback", "the application's work ended the transaction"),
        (
            "rollback; begin",
            "the application's work ended the transaction",
        ),
    ] {
        let (work, _began, go_on) = slow(&slot.schema, [COUNT, last]);
        go_on.send(()).unwrap();
        let error = slot.step(&lease, work).await.unwrap().unwrap_err();
        let CommitError::Store(error) = error else {
            panic!("{last}: {error:?}")
        };
        assert_eq!(
            error.failure(),
            Failure::Invalid,
            "{last}: trying again would not help"
        );
        assert!(error.to_string().contains(says), "{last}: {error}");
        assert_eq!(slot.counted().await, 0);
    }
}

#[tokio::test]
async fn connections_in_use_are_told_from_a_server_that_is_down() {
    let slot = Slot::new(Duration::from_secs(30)).await;
    let options = slot.schema.options().readers(1);
    let options = options.connect_timeout(Duration::from_millis(200));
    let store = PostgresStore::connect_with(options).await.unwrap();
    let lease = slot.lease("worker").await;
    let (work, began, go_on) = slow(&slot.schema, ["select", "select"]);
    let step = slot.step_in(&store, &lease, work);
    began.await.unwrap();
    let spec = GenerationSpec::new("totals", 2, store.id());
    let error = store.begin_generation(spec.clone()).await.unwrap_err();
    assert!(
        error.to_string().contains("all of them were in use"),
        "{error}"
    );
    let error = store.head(Partition(0)).await.unwrap_err();
    assert!(
        error.to_string().contains("all of them were in use"),
        "{error}"
    );
    go_on.send(()).unwrap();
    // The lease is of another clock: whether the step is taken is not the question.
    let _ = step.await.unwrap();
    store.begin_generation(spec).await.unwrap();
}
