//! How fast, beside sqlx doing the same work by hand. Prints; asserts nothing about time.
//!
//! `cargo test --release -p annals-postgres --test rates -- --ignored --nocapture --test-threads 1`

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)] // Numbers are what this is for.

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use annals_core::{
    Append, EventId, EventStore, Expected, Log, NewEvent, Position, ReadLog, StreamId, Version,
};
use annals_postgres::{PostgresStore, sqlx};
use server::{Schema, connection};
use sqlx::Row;

const PAYLOAD: &str = r#"{"cents":1250,"note":"a deposit like any other","by":"ada"}"#;

/// One table as anyone would write it: the same columns and the same three indexes.
async fn bare_table(schema: &Schema) {
    let create =
        "create schema if not exists annals.x".replace("annals.x", &format!("\"{}\"", schema.name));
    sqlx::raw_sql(sqlx::AssertSqlSafe(create))
        .execute(&mut connection().await)
        .await
        .unwrap();
    let create = schema.sql(
        "create table annals.bare (
            position bigint generated always as identity primary key, stream bigint not null, version bigint not null, kind integer not null,
            occurred_at bigint not null, recorded_at bigint not null, id uuid not null unique, payload bytea not null, unique (stream, version))",
    );
    sqlx::raw_sql(create)
        .execute(&mut connection().await)
        .await
        .unwrap();
}

fn insert(schema: &Schema) -> sqlx::SqlStr {
    let text = schema.sql(
        "insert into annals.bare (stream, version, kind, occurred_at, \
        recorded_at, id, payload) values ($1, $2, 1, $3, $3, $4, $5)",
    );
    sqlx::SqlSafeStr::into_sql_str(sqlx::AssertSqlSafe(Arc::<str>::from(text.0)))
}

async fn bare_inserts(schema: &Schema, clients: usize, lasting: Duration) -> f64 {
    let statement = insert(schema);
    let done = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut tasks = Vec::new();
    for client in 0..clients {
        let statement = statement.clone();
        let done = Arc::clone(&done);
        tasks.push(tokio::spawn(async move {
            let mut connection = connection().await;
            for version in 1.. {
                if began.elapsed() >= lasting {
                    break;
                }
                let id = *EventId::random().as_uuid();
                let insert = sqlx::query(statement.clone())
                    .bind(client as i64)
                    .bind(version)
                    .bind(1_i64)
                    .bind(id);
                insert
                    .bind(PAYLOAD.as_bytes())
                    .execute(&mut connection)
                    .await
                    .unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
}

async fn appends(store: &PostgresStore, tasks: usize, lasting: Duration) -> f64 {
    let done = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let store = store.clone();
            let done = Arc::clone(&done);
            tokio::spawn(async move {
                let stream =
                    StreamId::new(format!("account-{task}-{}", EventId::random())).unwrap();
                for version in 0.. {
                    if began.elapsed() >= lasting {
                        break;
                    }
                    let event = NewEvent::json("account.deposited", PAYLOAD.as_bytes());
                    let append = Append::new(stream.clone(), [event])
                        .expecting(Expected::Version(Version::new(version)));
                    store.append(append).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in running {
        task.await.unwrap();
    }
    done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: see the top of this file"]
async fn appending() {
    let schema = Schema::new();
    bare_table(&schema).await;
    let store = schema.store().await;
    let lasting = Duration::from_secs(4);
    for round in 1..=2 {
        println!("round {round}");
        for clients in [1, 32] {
            println!(
                "  bare inserts, {clients} clients: {:.0}/s",
                bare_inserts(&schema, clients, lasting).await
            );
            sqlx::raw_sql(schema.sql("truncate annals.bare"))
                .execute(&mut connection().await)
                .await
                .unwrap();
        }
        for tasks in [1, 8, 32, 256, 1024] {
            println!(
                "  appends under a version, {tasks} tasks: {:.0}/s",
                appends(&store, tasks, lasting).await
            );
        }
    }
}

/// One client that does the one and the other by turns, so that whatever else the machine does
/// weighs on both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: see the top of this file"]
async fn one_client_by_turns() {
    let schema = Schema::new();
    bare_table(&schema).await;
    let store = schema.store().await;
    let statement = insert(&schema);
    let mut connection = connection().await;
    let stream = StreamId::new("account-1").unwrap();
    let mut bare = Vec::new();
    let mut ours = Vec::new();
    for version in 0..4_000_u32 {
        let began = Instant::now();
        let id = *EventId::random().as_uuid();
        let insert = sqlx::query(statement.clone())
            .bind(1_i64)
            .bind(i64::from(version))
            .bind(1_i64)
            .bind(id);
        insert
            .bind(PAYLOAD.as_bytes())
            .execute(&mut connection)
            .await
            .unwrap();
        bare.push(began.elapsed());
        let began = Instant::now();
        let event = NewEvent::json("account.deposited", PAYLOAD.as_bytes());
        let expected = Expected::Version(Version::new(u64::from(version)));
        store
            .append(Append::new(stream.clone(), [event]).expecting(expected))
            .await
            .unwrap();
        ours.push(began.elapsed());
    }
    for (name, mut all) in [("bare insert", bare), ("append under a version", ours)] {
        all.sort();
        println!(
            "{name}: median {:?}, 90th of a hundred {:?}",
            all[all.len() / 2],
            all[all.len() * 9 / 10]
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures: see the top of this file"]
async fn appending_in_batches_and_reading() {
    let schema = Schema::new();
    let store = schema.store().await;
    let count = 300_000;
    let began = Instant::now();
    for batch in 0..count / 1_000 {
        let stream = StreamId::new(format!("account-{}", batch % 100)).unwrap();
        let events = (0..1_000).map(|_| NewEvent::json("account.deposited", PAYLOAD.as_bytes()));
        store.append(Append::new(stream, events)).await.unwrap();
    }
    println!(
        "batches of 1,000: {:.0} events/s",
        f64::from(count) / began.elapsed().as_secs_f64()
    );
    sqlx::raw_sql(schema.sql("vacuum analyze annals.event"))
        .execute(&mut connection().await)
        .await
        .unwrap();
    for _ in 0..3 {
        let began = Instant::now();
        let mut read = 0;
        let mut cents = 0;
        let mut ask = ReadLog::after(Position::START).limit(1_000);
        loop {
            let page = store.read(ask.clone()).await.unwrap();
            for event in &page.events {
                let value: Deposited = serde_json::from_slice(&event.payload).unwrap();
                cents += value.cents;
                read += 1;
            }
            if page.end {
                break;
            }
            ask.after = page.scanned;
        }
        println!(
            "read and decoded: {:.0} events/s ({cents})",
            f64::from(read) / began.elapsed().as_secs_f64()
        );
        let began = Instant::now();
        let mut connection = connection().await;
        let mut read = 0;
        let mut cents = 0;
        let text = schema.sql(
            "select position, stream, version, kind, occurred_at, recorded_at, \
            id, payload from annals.event order by position",
        );
        let mut rows = sqlx::query(text).fetch(&mut connection);
        while let Some(row) = next(&mut rows).await {
            let _: (i64, i64, i64, i32) = (row.get(0), row.get(1), row.get(2), row.get(3));
            let _: (i64, i64, uuid::Uuid) = (row.get(4), row.get(5), row.get(6));
            let value: Deposited = serde_json::from_slice(row.get::<&[u8], _>(7)).unwrap();
            cents += value.cents;
            read += 1;
        }
        println!(
            "bare cursor: {:.0} events/s ({cents})",
            f64::from(read) / began.elapsed().as_secs_f64()
        );
    }
}

#[derive(serde::Deserialize)]
#[allow(dead_code)]
struct Deposited {
    cents: i64,
    note: String,
    by: String,
}

async fn next<S>(rows: &mut S) -> Option<sqlx::postgres::PgRow>
where
    S: futures_core::Stream<Item = Result<sqlx::postgres::PgRow, sqlx::Error>> + Unpin,
{
    std::future::poll_fn(|context| std::pin::Pin::new(&mut *rows).poll_next(context))
        .await
        .transpose()
        .unwrap()
}
