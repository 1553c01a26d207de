//! Rows of inline views, while a worker has hold of them, or their generation is dropped.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod server;

use std::time::Duration;

use annals_core::{
    Acquired, Append, AppendError, Checkpoint, CommitError, EventStore, Expected, Generation,
    GenerationSpec, GenerationStore, InlineRow, InlineViews, Lease, Leases, Log, NewEvent,
    Partition, Position, ReadRows, RowAdvance, RowChange, RowStore, RowsBy, StreamId, Version,
    ViewCommit,
};
use annals_postgres::{PostgresStore, sqlx};
use server::{Schema, connection};
use sqlx::PgConnection;
use tokio::task::JoinHandle;

const PATIENT: Duration = Duration::from_secs(60);
const TTL: Duration = Duration::from_secs(3_600);

/// What nothing may hold up.
async fn soon<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENT, answer)
        .await
        .expect("it waits for another transaction")
}

/// A view, who works on it, and a connection that takes no part in it.
struct LeasedView {
    store: PostgresStore,
    generation: Generation,
    lease: Lease,
    other: PgConnection,
    // Dropped last.
    schema: Schema,
}

impl LeasedView {
    async fn of(inline: bool, indexes: &[&str]) -> LeasedView {
        let schema = Schema::new();
        let store = PostgresStore::connect_with(schema.options().statement_timeout(PATIENT * 2))
            .await
            .unwrap();
        let mut spec = GenerationSpec::new("balances", 1, store.id());
        spec.inline = inline;
        spec.indexes = indexes.iter().map(|name| (*name).to_owned()).collect();
        let generation = store.begin_generation(spec).await.unwrap();
        let asked = store
            .acquire_lease(&generation.lease_name(0), "worker-a", TTL)
            .await
            .unwrap();
        let Acquired::Granted(lease) = asked else {
            panic!("{asked:?}")
        };
        LeasedView {
            store,
            generation,
            lease,
            other: connection().await,
            schema,
        }
    }

    /// Appends an event after a version of the stream of a key, with its row.
    fn append(&self, key: &str, version: u64) -> JoinHandle<Result<u64, AppendError>> {
        let stream = StreamId::new(format!("account-{key}")).unwrap();
        let event = NewEvent::json("account.deposited", version.to_string().into_bytes());
        let mut append = Append::new(stream.clone(), [event]);
        append.expectations[0].1 = Expected::Version(Version::new(version));
        let mut row = InlineRow::new(self.generation.id, stream, key, Version::new(version));
        row.value = Some(format!("by the append at {}", version + 1).into());
        append.rows.push(row);
        let store = self.store.clone();
        tokio::spawn(async move { Ok(store.append(append).await?.last().position.get()) })
    }

    /// Takes the row of a key, and of an inline view from nothing to the first event of its stream,
    /// in a step from the start.
    fn step(&self, key: &str) -> JoinHandle<Result<(), CommitError>> {
        let to = Checkpoint {
            position: Position::new(1),
            ..Checkpoint::start(0, Partition(0))
        };
        let mut step = ViewCommit::new(self.generation.id, self.lease.clone(), Position::START, to);
        let indexed = self.generation.spec.indexes.clone();
        step.rows = vec![RowChange {
            key: key.into(),
            value: Some("by the step".into()),
            indexed,
        }];
        if self.generation.spec.inline {
            step.advances = vec![RowAdvance {
                key: key.into(),
                from: Version::NONE,
                to: Version::FIRST,
            }];
        }
        let store = self.store.clone();
        tokio::spawn(async move { store.commit_view(step).await })
    }

    async fn run(&mut self, statements: &str) {
        sqlx::raw_sql(self.schema.sql(statements))
            .execute(&mut self.other)
            .await
            .unwrap();
    }

    async fn count(&self, select: &str) -> i64 {
        sqlx::query_scalar(self.schema.sql(select))
            .fetch_one(&mut connection().await)
            .await
            .unwrap()
    }

    /// Waits until it is so.
    async fn until(&self, question: &str) {
        let asked = self.schema.sql(question).0;
        let mut observer = connection().await;
        soon(async {
            while !sqlx::query_scalar::<_, bool>(sqlx::AssertSqlSafe(asked.clone()))
                .fetch_one(&mut observer)
                .await
                .unwrap()
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Waits until a session that calls this function of the schema waits for a lock.
    async fn until_waits(&self, function: &str) {
        let call = format!("\"{}\".{function}(", self.schema.name);
        self.until(&format!(
            "select exists (select from pg_stat_activity where wait_event_type = 'Lock' and \
             strpos(query, '{call}') > 0)"
        ))
        .await;
    }

    /// The version of a key's row, and its value.
    async fn version_of(&self, key: &str) -> Option<(u64, String)> {
        let found = self
            .store
            .read_versioned(self.generation.id, &[key.to_owned()])
            .await
            .unwrap()
            .pop()?;
        Some((
            found.at.get(),
            String::from_utf8(found.value.unwrap().to_vec()).unwrap(),
        ))
    }
}

#[tokio::test]
async fn an_append_skips_a_row_that_a_step_locks() {
    let mut fixture = LeasedView::of(true, &[]).await;
    fixture.append("other", 0).await.unwrap().unwrap();
    let stream = StreamId::new("account-1").unwrap();
    fixture
        .store
        .append(Append::new(
            stream,
            [NewEvent::json("account.deposited", "0")],
        ))
        .await
        .unwrap();
    // The step has written everything, and does not come to the end of its commit.
    fixture
        .run(
            "create function annals.wait_in_commit() returns trigger language plpgsql as
                 $$ begin
                     perform pg_advisory_xact_lock('annals.view_checkpoint'::regclass::oid::bigint);
                     return null;
                 end $$;
             create constraint trigger held after insert or update on annals.view_checkpoint
                 deferrable initially deferred
                 for each row execute function annals.wait_in_commit();
             select pg_advisory_lock('annals.view_checkpoint'::regclass::oid::bigint)",
        )
        .await;
    let step = fixture.step("1");
    fixture
        .until(
            "select exists (select from pg_locks where locktype = 'advisory' and not granted
                 and objid = 'annals.view_checkpoint'::regclass::oid)",
        )
        .await;
    assert_eq!(soon(fixture.append("1", 1)).await.unwrap().unwrap(), 3);
    assert_eq!(soon(fixture.append("other", 1)).await.unwrap().unwrap(), 4);
    assert_eq!(soon(fixture.append("new", 0)).await.unwrap().unwrap(), 5);
    assert_eq!(fixture.version_of("1").await, None);
    assert_eq!(
        fixture.version_of("other").await,
        Some((2, "by the append at 2".into()))
    );
    assert_eq!(
        fixture.version_of("new").await,
        Some((1, "by the append at 1".into()))
    );
    fixture
        .run("select pg_advisory_unlock('annals.view_checkpoint'::regclass::oid::bigint)")
        .await;
    soon(step).await.unwrap().unwrap();
    assert_eq!(
        fixture.version_of("1").await,
        Some((1, "by the step".into()))
    );
}

/// What is left of a generation that was dropped, when all is cleared away that is seen.
async fn nothing_is_left(fixture: &LeasedView) {
    fixture
        .until("select not exists (select from annals.view_generation)")
        .await;
    assert_eq!(
        fixture
            .count("select count(*) from annals.view_stream_version")
            .await,
        0,
        "a place in a generation that is gone"
    );
    assert_eq!(
        fixture.count("select count(*) from annals.view_row").await,
        0
    );
}

#[tokio::test]
async fn a_dropped_generation_leaves_no_versions_made_meanwhile() {
    let lease = "convert_to('LEASE', 'utf8')";
    for make in [
        "select annals.ensure_stream_versions(array[ID], array['1'::bytea])".to_owned(),
        format!("select annals.ensure_step_stream_versions(ID, {lease}, array['1'::bytea])"),
    ] {
        let mut fixture = LeasedView::of(true, &[]).await;
        let id = fixture.generation.id;
        let make = make
            .replace("ID", &id.to_string())
            .replace("LEASE", &fixture.lease.name);
        fixture.run(&format!("begin; {make}")).await;
        let store = fixture.store.clone();
        let dropping = tokio::spawn(async move { store.drop_generation(id).await });
        let call = format!("\"{}\".drop_generation(", fixture.schema.name);
        fixture
            .until(&format!(
                "select not exists (select from annals.view_generation) or exists (
                     select from pg_stat_activity
                     where wait_event_type = 'Lock' and strpos(query, '{call}') > 0
                 )"
            ))
            .await;
        fixture.run("commit").await;
        soon(dropping).await.unwrap().unwrap();
        nothing_is_left(&fixture).await;
    }
}

#[tokio::test]
async fn appends_do_not_wait_for_a_generation_being_dropped() {
    let mut fixture = LeasedView::of(true, &[]).await;
    let id = fixture.generation.id;
    let name = fixture.lease.name.clone();
    fixture
        .run(&format!(
            "begin; select annals.drop_generation({id}, array[convert_to('{name}', 'utf8')])"
        ))
        .await;
    assert_eq!(soon(fixture.append("1", 0)).await.unwrap().unwrap(), 1);
    let step = fixture.step("2");
    fixture.until_waits("ensure_step_stream_versions").await;
    fixture.run("commit").await;
    let gone = soon(step).await.unwrap().unwrap_err();
    assert!(
        matches!(gone, CommitError::Gone(of) if of == id),
        "{gone:?}"
    );
    // What wakes those who clear away in this process.
    let other = fixture
        .store
        .begin_generation(GenerationSpec::new("others", 1, fixture.store.id()))
        .await
        .unwrap();
    fixture.store.drop_generation(other.id).await.unwrap();
    nothing_is_left(&fixture).await;
}

#[tokio::test]
async fn steps_of_two_slots_on_one_row_are_both_applied() {
    for indexes in [&[][..], &["one"]] {
        let mut fixture = LeasedView::of(false, indexes).await;
        let id = fixture.generation.id;
        let insert = "insert into annals.view_row (generation, key, value) values";
        fixture
            .run(&format!("begin; {insert} ({id}, 'row', 'first')"))
            .await;
        let step = fixture.step("row");
        fixture.until_waits("commit_step").await;
        fixture.run("commit").await;
        soon(step).await.unwrap().unwrap();
        let page = fixture
            .store
            .read_rows(ReadRows::of(id, RowsBy::Keys(vec!["row".into()])))
            .await
            .unwrap();
        assert_eq!(page.rows[0].value.as_ref(), b"by the step");
    }
}
