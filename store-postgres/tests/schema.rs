//! A schema that version 1 wrote is opened by this program, and everything in it is read back: the
//! beginning of migrations that only go forward.
//!
//! `tests/fixtures/schema-1.sql` is a dump of what [`fill`] wrote. A new version of the tables gets
//! a fixture of its own (`ANNALS_UPDATE=1` writes it), and the older ones stay.

#![allow(clippy::unwrap_used)] // A fixture that cannot be read fails its test.

mod server;

use std::sync::Arc;
use std::time::Duration;

use annals_core::{
    Acquired, Append, ChangeStream, Checkpoint, DeadLetter, DeadLetterStore, EventId, EventStore,
    FoldId, GenerationSpec, GenerationStore, History, Leases, Log, ManualClock, Metadata, NewEvent,
    Partition, Phase, Position, ReadLog, ReadQuery, ReadRows, ReadStream, RowChange, RowStore,
    RowVersion, RowsBy, SkipDecision, Snapshot, SnapshotStore, Status, StreamChange, StreamId,
    TaggedStore, Version, ViewCommit,
};
use annals_postgres::{PostgresStore, sqlx};
use chrono::{DateTime, Utc};
use server::{Schema, connection};
use sqlx::AssertSqlSafe;

/// The schema that the dump names.
const NAME: &str = "annals_fixture_1";

const DUMP: &str = include_str!("fixtures/schema-1.sql");

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

fn id(n: u128) -> EventId {
    EventId::from_uuid(uuid(n))
}

fn uuid(n: u128) -> sqlx::types::Uuid {
    sqlx::types::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 | n)
}

fn stream(name: &str) -> StreamId {
    StreamId::new(name).unwrap()
}

fn event(n: u128, name: &'static str, payload: &'static str) -> NewEvent {
    let mut event = NewEvent::json(name, payload.as_bytes()).tag("owner:ada".parse().unwrap());
    event.id = id(n);
    event.occurred_at = at(n as i64);
    event.metadata = Metadata::default().actor("ada");
    event
}

/// Everything that a schema can hold, at least once.
async fn fill(store: &PostgresStore) {
    let append = Append::default()
        .event(stream("account-1"), event(1, "account.opened", "{\"n\":1}"))
        .event(
            stream("account-1"),
            event(2, "account.credited", "{\"n\":2}"),
        )
        .event(stream("account-2"), event(3, "account.opened", "{\"n\":3}"));
    store.append(append).await.unwrap();
    let append = Append::default()
        .event(stream("cart-1"), event(4, "cart.opened", "{}"))
        .event(stream("cart-2"), event(5, "cart.opened", "{}"))
        .event(
            stream("account-1"),
            event(6, "account.credited", "{\"n\":6}"),
        );
    store.append(append).await.unwrap();
    let before = Version::new(2);
    for (name, change) in [
        ("account-1", StreamChange::Archive { before }),
        ("cart-1", StreamChange::Delete),
        ("cart-2", StreamChange::Tombstone),
    ] {
        store
            .change_stream(ChangeStream::new(&stream(name), change))
            .await
            .unwrap();
    }
    let fold = FoldId::new("account", 1);
    let snapshot = Snapshot::new(
        stream("account-1"),
        fold,
        Version::new(3),
        "json",
        "{\"n\":9}",
    );
    store.save_snapshot(snapshot).await.unwrap();

    let mut spec = GenerationSpec::new("balances", 1, store.id());
    spec.history = History::Bitemporal;
    spec.indexes = vec!["total".into()];
    let generation = store.begin_generation(spec).await.unwrap();
    let lease = match store
        .acquire_lease(&generation.lease_name(0), "worker", Duration::from_secs(60))
        .await
        .unwrap()
    {
        Acquired::Granted(lease) => lease,
        held => panic!("{held:?}"),
    };
    let to = Checkpoint {
        position: Position::new(6),
        event: Some(id(6)),
        ..Checkpoint::start(0, Partition(0))
    };
    let mut step = ViewCommit::new(generation.id, lease, Position::START, to);
    step.rows.push(RowChange {
        key: "account-1".into(),
        value: Some("8".into()),
        indexed: vec!["08".into()],
    });
    step.versions.push(RowVersion {
        key: "account-1".into(),
        after: Position::new(1),
        up_to: Position::new(2),
        recorded_at: at(2),
        value: Some("1".into()),
    });
    step.touched.push(("account-1".into(), Position::new(2)));
    step.dead_letters.push(DeadLetter {
        key: "account-2".into(),
        partition: Partition(0),
        position: Position::new(3),
        event: id(3),
        attempts: 4,
        dead_since: at(3),
        reason: Some("no such currency".into()),
    });
    store.commit_view(step).await.unwrap();
    store.switch_to(generation.id).await.unwrap();
    store
        .save_skip_decision(SkipDecision {
            view: "balances".into(),
            partition: Partition(0),
            position: Position::new(5),
            key: Some("cart-2".into()),
            event: id(5),
            decided_at: at(5),
            reason: "tested".into(),
        })
        .await
        .unwrap();
}

async fn check(store: &PostgresStore) {
    let page = store.read(ReadLog::after(Position::START)).await.unwrap();
    let read: Vec<_> = page
        .events
        .iter()
        .map(|event| {
            let name = event.stream.as_str();
            (
                event.position.get(),
                name,
                event.version.get(),
                &*event.event_type,
            )
        })
        .collect();
    assert_eq!(
        read,
        [
            (2, "account-1", 2, "account.credited"),
            (3, "account-2", 1, "account.opened"),
            (4, "cart-1", 1, "cart.opened"),
            (5, "cart-2", 1, "cart.opened"),
            (6, "account-1", 3, "account.credited"),
        ]
    );
    let first = &page.events[0];
    assert_eq!((first.id, first.occurred_at), (id(2), at(2)));
    assert_eq!(
        (&first.payload[..], first.recorded_at),
        (&b"{\"n\":2}"[..], at(0))
    );
    assert_eq!(first.metadata, Metadata::default().actor("ada"));
    let tagged = annals_core::Query::tagged(["owner:ada".parse().unwrap()]);
    let tagged = store.read_query(ReadQuery::of(tagged)).await.unwrap();
    assert_eq!(tagged.events.len(), 5);
    let read = ReadStream::of(stream("account-1"));
    assert_eq!(store.read_stream(read).await.unwrap().events.len(), 2);
    for (name, status, version) in [
        ("account-1", Status::Active, 3),
        ("account-2", Status::Active, 1),
        ("cart-1", Status::Deleted, 1),
        ("cart-2", Status::Tombstoned, 1),
    ] {
        let state = store.stream_state(&stream(name)).await.unwrap();
        assert_eq!(
            (state.status, state.version.get()),
            (status, version),
            "{name}"
        );
    }
    let known = store.find(Partition(0), &[id(1), id(9)]).await.unwrap();
    assert!(known[0].is_some() && known[1].is_none());
    let fold = FoldId::new("account", 1);
    let found = store
        .newest_snapshot(&stream("account-1"), &fold, Version::MAX)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&found.payload[..], b"{\"n\":9}");

    let generations = store.generations("balances").await.unwrap();
    let [generation] = &generations[..] else {
        panic!("{generations:?}")
    };
    assert_eq!(generation.phase, Phase::Live);
    assert_eq!(generation.spec.history, History::Bitemporal);
    let read = ReadRows::of(generation.id, RowsBy::Keys(vec!["account-1".into()]));
    let page = store.read_rows(read).await.unwrap();
    assert_eq!(&page.rows[0].value[..], b"8");
    assert_eq!(page.checkpoints[0].position, Position::new(6));
    assert_eq!(page.checkpoints[0].event, Some(id(6)));
    let whole = (Position::START, Position::MAX);
    let versions = store
        .row_versions(generation.id, "account-1", whole, 10)
        .await
        .unwrap();
    assert_eq!(versions.len(), 1);
    assert_eq!(versions[0].value.as_deref(), Some(&b"1"[..]));
    let touched = store
        .touched(
            generation.id,
            "account-1",
            Position::START,
            Position::MAX,
            10,
        )
        .await
        .unwrap();
    assert_eq!(touched, [Position::new(2)]);
    let letters = store.dead_letters(generation.id, None, 10).await.unwrap();
    assert_eq!(letters[0].key, "account-2");
    assert_eq!(letters[0].reason.as_deref(), Some("no such currency"));
    let decisions = store.skip_decisions("balances").await.unwrap();
    assert_eq!(decisions[0].reason, "tested");
}

/// The dump, in a schema of the test's own.
async fn restored() -> Schema {
    let schema = Schema::new();
    // Words of `pg_dump` to `psql` begin with a backslash.
    let statements: String = DUMP
        .lines()
        .filter(|line| !line.starts_with('\\'))
        .map(|line| line.replace(NAME, &schema.name) + "\n")
        .collect();
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(&mut connection().await)
        .await
        .unwrap();
    schema
}

fn frozen() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(at(0)))
}

#[tokio::test]
async fn a_schema_of_version_1_is_opened_and_read_back() {
    if std::env::var_os("ANNALS_UPDATE").is_some() {
        return write_dump().await;
    }
    let schema = restored().await;
    let options = schema.options().clock(frozen());
    let store = PostgresStore::connect_with(options).await.unwrap();
    check(&store).await;
    let more = Append::default().event(stream("cart-3"), event(7, "cart.opened", "{}"));
    let appended = store.append(more).await.unwrap();
    assert_eq!(appended.last().position, Position::new(7));
    check_names(&store).await;
}

/// What was written before keeps its type beside what is written now.
async fn check_names(store: &PostgresStore) {
    let page = store.read(ReadLog::after(Position::new(3))).await.unwrap();
    let types: Vec<&str> = page.events.iter().map(|event| &*event.event_type).collect();
    assert_eq!(
        types,
        [
            "cart.opened",
            "cart.opened",
            "account.credited",
            "cart.opened"
        ]
    );
}

/// Forbidding whole tables makes a plan look dear where there is no other way to read a table, and
/// a dear plan is compiled at each run, which takes longer than running it.
#[tokio::test]
async fn no_function_that_forbids_whole_tables_is_compiled() {
    let schema = Schema::new();
    drop(schema.store().await);
    let query = "select proc.proname::text from pg_catalog.pg_proc as proc
        where proc.pronamespace = $1::regnamespace
            and proc.proconfig @> '{enable_seqscan=off}' and not proc.proconfig @> '{jit=off}'";
    let compiled: Vec<String> = sqlx::query_scalar(query)
        .bind(&schema.name)
        .fetch_all(&mut connection().await)
        .await
        .unwrap();
    assert_eq!(compiled, Vec::<String>::new());
}

#[tokio::test]
async fn functions_whose_text_differs_are_replaced_unless_newer() {
    let schema = Schema::new();
    let store = schema.store().await;
    let mut connection = connection().await;
    let break_it = "update annals.function set checksum = 'other' where name = 'now_micros';
        create or replace function annals.now_micros() returns bigint language sql
        as 'select 7::bigint'";
    let now = "select annals.now_micros()";
    sqlx::raw_sql(schema.sql(break_it))
        .execute(&mut connection)
        .await
        .unwrap();
    drop(store);
    let options = || schema.options().without_migration();
    let error = PostgresStore::connect_with(options()).await.unwrap_err();
    let says = "has functions of an older Annals; migrate it first";
    assert!(error.to_string().contains(says), "{error}");
    PostgresStore::migrate(schema.options()).await.unwrap();
    PostgresStore::connect_with(options()).await.unwrap();
    let moment: i64 = sqlx::query_scalar(schema.sql(now))
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(moment > 7, "the function was not replaced");

    sqlx::raw_sql(schema.sql(break_it))
        .execute(&mut connection)
        .await
        .unwrap();
    let newer = "update annals.function set release = array[999, 0, 0] where name = 'now_micros'";
    sqlx::raw_sql(schema.sql(newer))
        .execute(&mut connection)
        .await
        .unwrap();
    schema.store().await;
    let moment: i64 = sqlx::query_scalar(schema.sql(now))
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(moment, 7, "a newer release's function was replaced");
}

/// Writes the fixture of the newest version.
async fn write_dump() {
    let drop = format!("drop schema if exists {NAME} cascade");
    let mut connection = connection().await;
    sqlx::raw_sql(AssertSqlSafe(drop.clone()))
        .execute(&mut connection)
        .await
        .unwrap();
    let url = server::url();
    let options: annals_postgres::Options = url.parse().unwrap();
    let options = options.schema(NAME).unwrap().clock(frozen());
    let store = PostgresStore::connect_with(options).await.unwrap();
    fill(&store).await;
    check(&store).await;
    let dumped = std::process::Command::new(server::binaries().join("pg_dump"))
        .args([
            "--inserts",
            "--no-owner",
            "--no-privileges",
            "--schema",
            NAME,
        ])
        .args(["--dbname", &url])
        .output()
        .unwrap();
    assert!(dumped.status.success(), "{dumped:?}");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/schema-1.sql");
    std::fs::write(path, dumped.stdout).unwrap();
    sqlx::raw_sql(AssertSqlSafe(drop))
        .execute(&mut connection)
        .await
        .unwrap();
}
