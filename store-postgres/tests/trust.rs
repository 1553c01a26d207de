//! What may be foreign: the search path, the name of the schema, texts in a query, other databases;
//! and what must stay hidden: the password.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod server;

use annals_core::{
    Append, Condition, EventStore, Failure, Filter, Log, NewEvent, Position, Query, ReadLog,
    ReadQuery, StreamId,
};
use annals_postgres::{Options, PostgresStore, sqlx};
use server::{Schema, connection};
use sqlx::postgres::PgConnectOptions;

fn tagged(stream: &str, tags: &[&str]) -> Append {
    let mut event = NewEvent::json("thing.happened", b"{}".as_slice());
    for tag in tags {
        event = event.tag(tag.parse().unwrap());
    }
    Append::new(StreamId::new(stream).unwrap(), [event])
}

fn none_of(tag: &str, after: u64) -> Condition {
    let mut condition = Condition::none_matches(Query::tagged([tag.parse().unwrap()]));
    condition.after = Some(Position::new(after));
    condition
}

/// Two writers, so that conditions and versions are checked by the server as well.
async fn works(options: Options) {
    let one = PostgresStore::connect_with(options.clone()).await.unwrap();
    let two = PostgresStore::connect_with(options).await.unwrap();
    for n in 0..5 {
        let stream = format!("thing-{n}");
        one.append(tagged(&stream, &["a:1", "b:2"])).await.unwrap();
        two.append(tagged(&stream, &["a:1"])).await.unwrap();
        let held = tagged(&stream, &["c:3"]).under(none_of("d:4", n));
        one.append(held).await.unwrap();
        let refused = tagged(&stream, &[]).under(none_of("b:2", n));
        two.append(refused).await.unwrap_err();
    }
    let both = Query::tagged(["a:1".parse().unwrap(), "b:2".parse().unwrap()]);
    let read = ReadQuery::of(both);
    assert_eq!(
        annals_core::TaggedStore::read_query(&one, read)
            .await
            .unwrap()
            .events
            .len(),
        5
    );
    let page = two.read(ReadLog::after(Position::START)).await.unwrap();
    assert_eq!(page.events.len(), 15);
}

#[tokio::test]
async fn functions_and_operators_of_the_search_path_are_not_run() {
    let foreign = Schema::new();
    let schema = Schema::new();
    let mut statements =
        "create schema annals.x;".replace("annals.x", &format!("\"{}\"", foreign.name));
    let body = "returns boolean language plpgsql as 'begin raise exception ''foreign''; end'";
    for of in ["bigint", "integer", "text", "bytea", "uuid"] {
        for function in ["cardinality", "unnest", "array_agg"] {
            statements += &format!("create function annals.{function}({of}[]) {body};");
        }
        statements += &format!("create function annals.array_position({of}[], {of}) {body};");
        statements += &format!("create function annals.run({of}[], {of}[]) {body};");
        for operator in ["@>", "<@", "&&", "||", "=", "<>"] {
            statements += &format!(
                "create operator annals.{operator} (
                     leftarg = {of}[], rightarg = {of}[], function = annals.run
                 );"
            );
        }
    }
    sqlx::raw_sql(foreign.sql(&statements))
        .execute(&mut connection().await)
        .await
        .unwrap();
    let connect: PgConnectOptions = server::url().parse().unwrap();
    let connect = connect.options([("search_path", &foreign.name)]);
    works(Options::new(connect).schema(&schema.name).unwrap()).await;
}

#[tokio::test]
async fn a_schema_may_have_any_sign_that_options_allow() {
    let mut schema = Schema::new();
    schema.name += "%s %I .x-";
    works(schema.options()).await;
}

#[tokio::test]
async fn a_nul_in_a_filter_is_invalid() {
    let schema = Schema::new();
    let store = schema.store().await;
    let read = ReadLog::after(Position::START).filter(Filter::default().types(["a\0b"]));
    let refused = store.read(read).await.unwrap_err();
    assert_eq!(refused.failure(), Failure::Invalid);
    assert!(
        refused.to_string().contains("control character"),
        "{refused}"
    );
}

#[tokio::test]
async fn no_password_is_shown() {
    let schema = Schema::new();
    let options = schema.options();
    let password = server::url()
        .split(['/', ':', '@'])
        .nth(4)
        .unwrap()
        .to_owned();
    assert!(!password.is_empty());
    let store = PostgresStore::connect_with(options.clone()).await.unwrap();
    for shown in [format!("{options:?}"), format!("{store:?}")] {
        assert!(!shown.contains(&password), "{shown}");
    }
    for url in [
        "postgres://me:hidden/word@host/db",
        "postgres://me:hidden?mode=word@host/db",
        "postgres://me:hid#den@host:none/db",
        "postgres://me:hidden@host/db?sslmode=hidden",
        "postgres://me:hidden@host:99999/db",
    ] {
        let error = url.parse::<Options>().unwrap_err().to_string();
        assert!(
            !error.contains("hid") && !error.contains("word@"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_server_that_takes_no_more_connections_is_named() {
    let schema = Schema::new();
    let (_role, options) = limited(&schema).await;
    let store = PostgresStore::connect_with(options).await.unwrap();
    let error = store.head(annals_core::Partition(0)).await.unwrap_err();
    assert!(
        format!("{error:?}").contains("too many connections"),
        "{error:?}"
    );
}

/// A role that gets one connection, which the writer has.
async fn limited(schema: &Schema) -> (DroppedRole, Options) {
    PostgresStore::migrate(schema.options()).await.unwrap();
    let role = format!("role_{}", schema.name);
    let statements = format!(
        "create role {role} login password 'word' connection limit 1;
         grant usage on schema annals.x to {role};
         grant all on all tables in schema annals.x to {role};
         grant all on all sequences in schema annals.x to {role}"
    );
    let statements = statements.replace("annals.x", &format!("\"{}\"", schema.name));
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
        .execute(&mut connection().await)
        .await
        .unwrap();
    let connect: PgConnectOptions = server::url().parse().unwrap();
    let options = Options::new(connect.username(&role).password("word"))
        .schema(&schema.name)
        .unwrap()
        .without_migration()
        .without_listening()
        .connect_timeout(std::time::Duration::from_secs(2));
    (DroppedRole(role), options)
}

struct DroppedRole(String);

impl Drop for DroppedRole {
    fn drop(&mut self) {
        let forget = format!("drop owned by {0}; drop role {0}", self.0);
        server::in_the_end("the role is left over", async move {
            sqlx::raw_sql(sqlx::AssertSqlSafe(forget))
                .execute(&mut connection().await)
                .await?;
            Ok(())
        });
    }
}

#[tokio::test]
async fn a_database_of_another_encoding_is_refused() {
    let name = format!("latin_{}", Schema::new().name);
    let run = async |statement: String| {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&mut connection().await)
            .await
            .unwrap()
    };
    run(format!(
        "create database {name} encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0"
    ))
    .await;
    let connect: PgConnectOptions = server::url().parse().unwrap();
    let open = || PostgresStore::connect_with(Options::new(connect.clone().database(&name)));
    let refused = open().await;
    run(format!("drop database {name} with (force)")).await;
    // As the text says.
    run(format!(
        "create database {name} encoding 'UTF8' template template0"
    ))
    .await;
    let opened = open().await;
    run(format!("drop database {name} with (force)")).await;
    let error = refused.unwrap_err();
    assert_eq!(error.failure(), Failure::Invalid);
    assert!(error.to_string().contains("LATIN1"), "{error}");
    let says = "create the database with `encoding 'UTF8'`";
    assert!(error.to_string().contains(says), "{error}");
    opened.unwrap();
}
