//! Opening: the schema is made once, settings that would lose events and tables of a newer program
//! are refused.

#![allow(clippy::unwrap_used)]

mod server;

use std::time::Duration;

use annals_core::{Append, EventStore as _, Failure, Log as _, NewEvent, StreamId};
use annals_postgres::{PostgresStore, sqlx};
use server::{Schema, connection};
use sqlx::Connection as _;

#[tokio::test]
async fn a_schema_is_made_once_by_many_at_once() {
    let schema = Schema::new();
    let opening: Vec<_> = (0..8)
        .map(|_| tokio::spawn(PostgresStore::connect_with(schema.options())))
        .collect();
    for opened in opening {
        opened.await.unwrap().unwrap();
    }
    let mut connection = connection().await;
    let logs: i64 = sqlx::query_scalar(schema.sql("select count(*) from annals.log"))
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(logs, 1);
}

#[tokio::test]
async fn tables_of_a_newer_program_are_refused() {
    let schema = Schema::new();
    schema.store().await;
    let newer = schema.sql("insert into annals.migration (version, applied_at) values (1000, 0)");
    sqlx::raw_sql(newer)
        .execute(&mut connection().await)
        .await
        .unwrap();
    let error = PostgresStore::connect_with(schema.options())
        .await
        .unwrap_err();
    assert_eq!(error.failure(), Failure::Incompatible);
    assert!(error.to_string().contains("version 1000"), "{error}");
}

#[tokio::test]
async fn missing_tables_are_only_made_when_asked_for() {
    let schema = Schema::new();
    for options in [
        schema.options().without_migration(),
        schema.options().read_only(),
    ] {
        let error = PostgresStore::connect_with(options).await.unwrap_err();
        assert_eq!(error.failure(), Failure::Incompatible);
        assert!(error.to_string().contains("migrate it first"), "{error}");
    }
    PostgresStore::migrate(schema.options()).await.unwrap();
    PostgresStore::connect_with(schema.options().without_migration())
        .await
        .unwrap();
}

#[tokio::test]
async fn weak_durability_is_refused_unless_it_was_asked_for() {
    let schema = Schema::new();
    for weak in ["off", "local", "remote_write"] {
        let url = format!(
            "{}{}options[synchronous_commit]={weak}",
            server::url(),
            if server::url().contains('?') {
                "&"
            } else {
                "?"
            }
        );
        let options = url
            .parse::<annals_postgres::Options>()
            .unwrap()
            .schema(&schema.name)
            .unwrap();
        let error = PostgresStore::connect_with(options.clone())
            .await
            .unwrap_err();
        assert_eq!(error.failure(), Failure::Invalid);
        assert!(
            error
                .to_string()
                .contains(&format!("synchronous_commit={weak}")),
            "{error}"
        );
        let says = "change the setting, or ask for `relaxed_durability`";
        assert!(error.to_string().contains(says), "{error}");
        PostgresStore::connect_with(options.relaxed_durability())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_missing_server_is_unavailable_and_a_missing_database_invalid() {
    let error = PostgresStore::connect("postgres://somebody@127.0.0.1:1/nothing")
        .await
        .unwrap_err();
    assert_eq!(error.failure(), Failure::Unavailable);
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    // One that is silent, too: it accepts no connection.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "postgres://somebody@{}/nothing",
        silent.local_addr().unwrap()
    );
    let options: annals_postgres::Options = url.parse().unwrap();
    let options = options.connect_timeout(std::time::Duration::from_millis(200));
    let error = PostgresStore::connect_with(options).await.unwrap_err();
    assert_eq!(error.failure(), Failure::Unavailable);
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    let server: sqlx::postgres::PgConnectOptions = server::url().parse().unwrap();
    let elsewhere = annals_postgres::Options::new(server.database("annals_is_not_there"));
    let error = PostgresStore::connect_with(elsewhere).await.unwrap_err();
    assert_eq!(error.failure(), Failure::Invalid);
}
/// How many sessions say that they listen for appends to this log.
async fn listening(schema: &Schema) -> i64 {
    let locks = schema.sql(
        "select count(*) from pg_locks where locktype = 'advisory' and classid = 1095650894 \
         and objid = 'annals.event'::regclass::oid and mode = 'ShareLock' and granted",
    );
    sqlx::query_scalar(locks)
        .fetch_one(&mut connection().await)
        .await
        .unwrap()
}

#[tokio::test]
async fn one_that_asks_who_listens_is_no_listener() {
    let schema = Schema::new();
    drop(schema.store().await);
    let ask = || schema.sql(include_str!("../src/sql/notify.sql"));
    let mut first = connection().await;
    let mut second = connection().await;
    let mut listener = connection().await;
    let mut open = first.begin().await.unwrap();
    let mut notified = Vec::new();
    for listens in [false, true] {
        if listens {
            sqlx::query(schema.sql(include_str!("../src/sql/listens.sql")))
                .execute(&mut listener)
                .await
                .unwrap();
        }
        for asker in [&mut *open, &mut second] {
            let row = sqlx::query(ask())
                .bind("channel")
                .bind("1")
                .fetch_optional(asker)
                .await
                .unwrap();
            notified.push(row.is_some());
        }
    }
    assert_eq!(notified, [false, false, true, true]);
}

#[tokio::test]
async fn only_a_store_whose_log_is_waited_for_listens() {
    let schema = Schema::new();
    let appends = schema.store().await;
    let follows = schema.store().await;
    let mut hint = follows.hint();
    let heard = async {
        while listening(&schema).await == 0 {
            tokio::task::yield_now().await;
        }
        // The one that listens hears of what the other one appends.
        let stream = StreamId::new("account-1").unwrap();
        let event = NewEvent::json("opened", b"{}".as_slice());
        appends.append(Append::new(stream, [event])).await.unwrap();
        hint.wait(Duration::MAX).await;
    };
    tokio::time::timeout(Duration::from_secs(60), heard)
        .await
        .expect("it does not listen");
    assert_eq!(listening(&schema).await, 1, "the one that appends listens");
}
