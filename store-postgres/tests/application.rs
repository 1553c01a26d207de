//! An application's own rows and its events in one transaction.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod server;

use std::time::Duration;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    Append, AppendError, ChangeStream, Clock, Condition, EventStore, Expected, Failure,
    GenerationSpec, GenerationStore, InlineRow, InlineViews, Log, NewEvent, Position, Query,
    ReadLog, Status, StreamChange, StreamId, Version, Violation,
};
use annals_postgres::{PostgresStore, sqlx};
use server::{Schema, connection};
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};

fn stream(name: &str) -> StreamId {
    StreamId::new(name).unwrap()
}

fn event(n: u32) -> NewEvent {
    NewEvent::json("order.placed", n.to_string().into_bytes())
}

fn to(name: &str, n: u32) -> Append {
    Append::default().event(stream(name), event(n))
}

async fn with_orders() -> (Schema, PostgresStore, PgPool) {
    let schema = Schema::new();
    let store = schema.store().await;
    let pool = PgPoolOptions::new().connect(&server::url()).await.unwrap();
    sqlx::raw_sql(schema.sql("create table annals.orders (name text primary key)"))
        .execute(&pool)
        .await
        .unwrap();
    (schema, store, pool)
}

async fn order(schema: &Schema, connection: &mut PgConnection, name: &str) {
    let insert = schema.sql("insert into annals.orders values ($1)");
    sqlx::query(insert)
        .bind(name)
        .execute(connection)
        .await
        .unwrap();
}

async fn orders(schema: &Schema) -> Vec<String> {
    let all = schema.sql("select name from annals.orders order by name");
    sqlx::query_scalar(all)
        .fetch_all(&mut connection().await)
        .await
        .unwrap()
}

async fn log(store: &PostgresStore) -> Vec<(u64, String, u64)> {
    let page = store.read(ReadLog::after(Position::START)).await.unwrap();
    page.events
        .iter()
        .map(|event| {
            (
                event.position.get(),
                event.stream.to_string(),
                event.version.get(),
            )
        })
        .collect()
}

#[tokio::test]
async fn rows_and_events_are_committed_together_or_not_at_all() {
    let (schema, store, pool) = with_orders().await;
    let mut transaction = pool.begin().await.unwrap();
    order(&schema, &mut transaction, "lost").await;
    let staged = store
        .append_in(&mut transaction, to("order-lost", 1))
        .await
        .unwrap();
    drop((transaction, staged));

    let mut transaction = pool.begin().await.unwrap();
    order(&schema, &mut transaction, "kept").await;
    let tagged = event(2).tag("who:ada".parse().unwrap());
    let append = to("order-kept", 1)
        .event(stream("order-kept"), tagged)
        .event(stream("stock-1"), event(3));
    let staged = store.append_in(&mut transaction, append).await.unwrap();
    let second = store
        .append_in(&mut transaction, to("order-kept", 4))
        .await
        .unwrap();
    assert_eq!(log(&store).await, [], "nothing is seen before the commit");
    let appended = store.commit(transaction, [staged, second]).await.unwrap();
    let positions: Vec<Vec<u64>> = appended
        .iter()
        .map(|appended| {
            appended
                .events()
                .iter()
                .map(|placed| placed.position.get())
                .collect()
        })
        .collect();
    assert_eq!(positions, [vec![1, 2, 3], vec![4]]);
    assert_eq!(orders(&schema).await, ["kept"]);
    let all = ["order-kept", "order-kept", "stock-1", "order-kept"].map(String::from);
    let expected: Vec<_> = (1..)
        .zip(all)
        .zip([1, 2, 1, 3])
        .map(|((p, s), v)| (p, s, v))
        .collect();
    assert_eq!(log(&store).await, expected);
    let next = store
        .append(Append::new(stream("order-kept"), [event(5)]))
        .await
        .unwrap();
    assert_eq!(
        (next.last().position.get(), next.last().version.get()),
        (5, 4)
    );
}

#[tokio::test]
async fn expectations_are_checked_when_the_transaction_commits() {
    let (schema, store, pool) = with_orders().await;
    let rows = [
        Expected::NoStream,
        Expected::Version(Version::NONE),
        Expected::ActiveAt(Version::new(1)),
        Expected::Exists,
    ];
    for (n, expected) in rows.into_iter().enumerate() {
        let name = format!("order-{n}");
        let needs_one = matches!(expected, Expected::ActiveAt(_) | Expected::Exists);
        if needs_one {
            store
                .append(Append::new(stream(&name), [event(0)]))
                .await
                .unwrap();
        }
        let mut transaction = pool.begin().await.unwrap();
        order(&schema, &mut transaction, &name).await;
        let append = to("audit-1", 1)
            .requiring(stream(&name), expected)
            .event(stream(&name), event(2));
        let staged = store.append_in(&mut transaction, append).await.unwrap();
        // Another writer is faster.
        match expected {
            Expected::Exists => {
                store
                    .change_stream(ChangeStream::new(&stream(&name), StreamChange::Delete))
                    .await
                    .unwrap();
            }
            _ => {
                store
                    .append(Append::new(stream(&name), [event(3)]))
                    .await
                    .unwrap();
            }
        }
        let before = log(&store).await;
        let error = store.commit(transaction, [staged]).await.unwrap_err();
        let AppendError::Conflict(violations) = error else {
            panic!("{error:?}")
        };
        let [
            Violation::Stream {
                index: 0,
                stream: of,
                expected: was,
                found,
            },
        ] = &violations[..]
        else {
            panic!("{violations:?}")
        };
        assert_eq!((of.as_str(), *was), (&*name, expected));
        let there = if expected == Expected::Exists {
            Status::Deleted
        } else {
            Status::Active
        };
        assert_eq!(
            (found.status, found.version.get()),
            (
                there,
                1 + u64::from(matches!(expected, Expected::ActiveAt(_)))
            )
        );
        assert_eq!(log(&store).await, before);
    }
    assert_eq!(orders(&schema).await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_condition_is_checked_again_when_the_transaction_commits() {
    let (_schema, store, pool) = with_orders().await;
    let free = || Condition::none_matches(Query::tagged(["name:ada".parse().unwrap()]));
    let named =
        || Append::default().event(stream("user-1"), event(1).tag("name:ada".parse().unwrap()));
    let mut one = pool.begin().await.unwrap();
    let mut two = pool.begin().await.unwrap();
    let first = store
        .append_in(&mut one, named().under(free()))
        .await
        .unwrap();
    let second = store
        .append_in(&mut two, named().under(free()))
        .await
        .unwrap();
    store.commit(one, [first]).await.unwrap();
    let error = store.commit(two, [second]).await.unwrap_err();
    let is_at_1 = |violation: &Violation| {
        *violation
            == Violation::Condition {
                position: Position::new(1),
            }
    };
    assert!(
        matches!(&error, AppendError::Conflict(found) if found.iter().all(is_at_1)),
        "{error:?}"
    );
    let mut three = pool.begin().await.unwrap();
    let error = store
        .append_in(&mut three, named().under(free()))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, AppendError::Conflict(found) if found.iter().all(is_at_1)),
        "{error:?}"
    );
    three.rollback().await.unwrap();
}

#[tokio::test]
async fn a_repetition_is_known_before_anything_is_staged() {
    let (_schema, store, pool) = with_orders().await;
    let append = to("order-1", 1);
    let mut transaction = pool.begin().await.unwrap();
    let staged = store
        .append_in(&mut transaction, append.clone())
        .await
        .unwrap();
    assert!(staged.repeated().is_none());
    let first = store.commit(transaction, [staged]).await.unwrap();
    let mut transaction = pool.begin().await.unwrap();
    let again = store.append_in(&mut transaction, append).await.unwrap();
    assert_eq!(again.repeated(), first.first());
    let again = store.commit(transaction, [again]).await.unwrap();
    assert_eq!(again, first);
    assert_eq!(log(&store).await.len(), 1);
}

#[tokio::test]
async fn ids_staged_twice_in_a_transaction_are_written_once() {
    let (_schema, store, pool) = with_orders().await;
    let append = to("order-1", 1);
    let mut transaction = pool.begin().await.unwrap();
    let first = store
        .append_in(&mut transaction, append.clone())
        .await
        .unwrap();
    let second = store
        .append_in(&mut transaction, to("order-1", 2))
        .await
        .unwrap();
    let expecting = append
        .clone()
        .requiring(stream("order-1"), Expected::NoStream);
    let again = store.append_in(&mut transaction, expecting).await.unwrap();
    assert_eq!(again.repeated(), None, "it has no place yet");
    let id = append.events[0].1.id;
    let other = Append::default().event(stream("order-1"), event(3).id(id));
    let clash = store.append_in(&mut transaction, other).await.unwrap_err();
    assert!(matches!(clash, AppendError::IdClash(_)), "{clash:?}");
    let half = to("order-1", 4).event(stream("order-1"), append.events[0].1.clone());
    let clash = store.append_in(&mut transaction, half).await.unwrap_err();
    assert!(matches!(clash, AppendError::IdClash(_)), "{clash:?}");

    let done = store
        .commit(transaction, [first, second, again])
        .await
        .unwrap();
    let places: Vec<_> = done
        .iter()
        .map(|appended| (appended.last().position.get(), appended.was_repeated()))
        .collect();
    assert_eq!(places, [(1, false), (2, false), (1, true)]);
    assert_eq!(log(&store).await.len(), 2);
}

#[tokio::test]
async fn a_long_transaction_delays_none_and_is_numbered_at_commit() {
    let (schema, store, pool) = with_orders().await;
    let mut transaction = pool.begin().await.unwrap();
    order(&schema, &mut transaction, "slow").await;
    let staged = store
        .append_in(&mut transaction, to("order-slow", 1))
        .await
        .unwrap();
    for n in 1..=20 {
        let appending = store.append(Append::new(stream("order-fast"), [event(n)]));
        let appended = tokio::time::timeout(Duration::from_secs(30), appending)
            .await
            .expect("an append waits for an open transaction")
            .unwrap();
        assert_eq!(appended.last().position.get(), u64::from(n));
    }
    let appended = store.commit(transaction, [staged]).await.unwrap();
    assert_eq!(appended[0].last().position.get(), 21);
    let recorded: Vec<_> = store
        .read(ReadLog::after(Position::START))
        .await
        .unwrap()
        .events
        .iter()
        .map(|event| event.recorded_at)
        .collect();
    assert!(recorded.is_sorted());
}

#[tokio::test]
async fn inline_rows_are_refused_in_staged_appends() {
    let (schema, store, pool) = with_orders().await;
    let mut spec = GenerationSpec::new("orders", 1, store.id());
    spec.inline = true;
    let generation = store.begin_generation(spec).await.unwrap().id;
    let carrying = || {
        let mut append =
            to("order-1", 1).requiring(stream("order-1"), Expected::Version(Version::NONE));
        let mut row = InlineRow::new(generation, stream("order-1"), "1", Version::NONE);
        row.value = Some("1".into());
        append.rows.push(row);
        append
    };
    let mut transaction = pool.begin().await.unwrap();
    order(&schema, &mut transaction, "kept").await;
    let error = store
        .append_in(&mut transaction, carrying())
        .await
        .unwrap_err();
    assert!(matches!(error, AppendError::Invalid(_)), "{error:?}");
    let free = Condition::none_matches(Query::tagged(["name:ada".parse().unwrap()]));
    let error = store
        .append_in(&mut transaction, carrying().under(free))
        .await
        .unwrap_err();
    assert!(matches!(error, AppendError::Invalid(_)), "{error:?}");
    // The transaction can go on as if nothing had been asked.
    let staged = store
        .append_in(&mut transaction, to("order-1", 1))
        .await
        .unwrap();
    store.commit(transaction, [staged]).await.unwrap();
    assert_eq!(
        (orders(&schema).await, log(&store).await.len()),
        (vec!["kept".to_owned()], 1)
    );
    assert_eq!(
        store
            .read_versioned(generation, &["1".into()])
            .await
            .unwrap(),
        []
    );
    store
        .append(carrying())
        .await
        .expect_err("the stream is at 1 by now");
}

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> DateTime<Utc> {
        panic!("no time")
    }
}

#[tokio::test]
async fn a_clock_that_panics_stages_nothing() {
    let (schema, store, pool) = with_orders().await;
    let stopped = store.clone().on_clock(std::sync::Arc::new(Stopped));
    let mut transaction = pool.begin().await.unwrap();
    order(&schema, &mut transaction, "kept").await;
    let error = stopped
        .append_in(&mut transaction, to("order-1", 1))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no time"), "{error}");
    // The transaction can go on.
    let staged = store.append_in(&mut transaction, to("order-1", 1)).await;
    store.commit(transaction, [staged.unwrap()]).await.unwrap();
    assert_eq!(orders(&schema).await, ["kept"]);
    assert_eq!(log(&store).await, [(1, "order-1".to_owned(), 1)]);
}

#[tokio::test]
async fn only_read_committed_transactions_are_accepted() {
    let (_schema, store, pool) = with_orders().await;
    for isolation in ["repeatable read", "serializable"] {
        let mut transaction = pool.begin().await.unwrap();
        let set = format!("set transaction isolation level {isolation}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(set))
            .execute(&mut *transaction)
            .await
            .unwrap();
        let error = store
            .append_in(&mut transaction, to("order-1", 1))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, AppendError::Store(error) if error.failure() == Failure::Invalid),
            "{error:?}"
        );
        assert!(error.to_string().contains(isolation), "{error}");
    }
}

#[tokio::test]
async fn what_was_rolled_back_to_a_savepoint_is_named() {
    let (schema, store, pool) = with_orders().await;
    let mut transaction = pool.begin().await.unwrap();
    order(&schema, &mut transaction, "order-1").await;
    let run = |statement: &'static str| sqlx::raw_sql(statement);
    run("savepoint here")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let staged = store.append_in(&mut transaction, to("order-1", 1)).await;
    run("rollback to savepoint here")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let error = store
        .commit(transaction, [staged.unwrap()])
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("was committed without a staged append"),
        "{error}"
    );
    assert_eq!(orders(&schema).await, ["order-1"]);
    assert_eq!(log(&store).await, []);
}

#[tokio::test]
async fn a_failed_transaction_with_a_repetition_is_no_success() {
    let (schema, store, pool) = with_orders().await;
    let append = to("order-1", 1);
    store.append(append.clone()).await.unwrap();
    let mut transaction = pool.begin().await.unwrap();
    let staged = store.append_in(&mut transaction, append).await.unwrap();
    assert!(staged.repeated().is_some());
    order(&schema, &mut transaction, "order-1").await;
    let failed = sqlx::raw_sql("select 1 / 0").execute(&mut *transaction);
    failed.await.unwrap_err();
    store.commit(transaction, [staged]).await.unwrap_err();
    assert_eq!(orders(&schema).await, [] as [&str; 0]);
    assert_eq!(log(&store).await, [(1, "order-1".to_owned(), 1)]);
}

#[tokio::test]
async fn a_transaction_with_staged_events_cannot_be_prepared() {
    let (schema, store, pool) = with_orders().await;
    let mut transaction = pool.acquire().await.unwrap();
    sqlx::raw_sql("begin")
        .execute(&mut *transaction)
        .await
        .unwrap();
    order(&schema, &mut transaction, "order-1").await;
    let staged = store.append_in(&mut transaction, to("order-1", 1)).await;
    let _staged = staged.unwrap();
    let name = &schema.name;
    let prepare = sqlx::AssertSqlSafe(format!("prepare transaction '{name}'"));
    sqlx::raw_sql(prepare)
        .execute(&mut *transaction)
        .await
        .unwrap_err();
    // No append waits for it.
    store.append(to("order-2", 1)).await.unwrap();
    assert_eq!(log(&store).await, [(1, "order-2".to_owned(), 1)]);
    assert_eq!(orders(&schema).await, [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn transactions_and_ordinary_appends_share_one_dense_order() {
    let (schema, store, pool) = with_orders().await;
    let mut tasks = Vec::new();
    for task in 0..6_u32 {
        let store = schema.store().await;
        let pool = pool.clone();
        tasks.push(tokio::spawn(async move {
            for n in 0..20 {
                if task % 2 == 0 {
                    store
                        .append(Append::new(stream("shared-1"), [event(n)]))
                        .await
                        .unwrap();
                    continue;
                }
                let mut transaction = pool.begin().await.unwrap();
                let append = to("shared-1", n).event(stream(&format!("own-{task}")), event(n));
                let staged = store.append_in(&mut transaction, append).await.unwrap();
                store.commit(transaction, [staged]).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let all = log(&store).await;
    assert_eq!(
        all.iter()
            .map(|(position, ..)| *position)
            .collect::<Vec<_>>(),
        (1..=180).collect::<Vec<_>>()
    );
    let shared = all
        .iter()
        .filter(|(_, stream, _)| stream == "shared-1")
        .map(|(.., version)| *version);
    assert_eq!(shared.collect::<Vec<_>>(), (1..=120).collect::<Vec<_>>());
}
