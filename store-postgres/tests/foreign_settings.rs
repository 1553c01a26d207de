//! The contract of a store whose role and database have settings of their own, as an administrator
//! may set them for other programs: no answer differs.

#![allow(clippy::unwrap_used)] // A fixture that cannot be made fails its test.

mod server;

use std::sync::Arc;

use annals_core::conformance::Fixture;
use annals_core::{Append, Clock, EventStore, Failure, NewEvent, Store, StreamId};
use annals_postgres::{Options, PostgresStore, sqlx};
use async_trait::async_trait;
use server::{Schema, connection};
use sqlx::postgres::PgConnectOptions;

/// What times, texts, bytes, floats and names look like, and what ends or refuses statements and
/// sessions.
const FOREIGN: [(&str, &str); 21] = [
    ("timezone", "'Asia/Kathmandu'"),
    ("datestyle", "'SQL, DMY'"),
    ("intervalstyle", "'iso_8601'"),
    ("standard_conforming_strings", "off"),
    ("backslash_quote", "off"),
    ("bytea_output", "escape"),
    ("extra_float_digits", "-15"),
    ("array_nulls", "off"),
    ("transform_null_equals", "on"),
    ("client_encoding", "LATIN1"),
    ("lc_numeric", "'C'"),
    ("lc_messages", "'C'"),
    ("search_path", "nowhere"),
    ("statement_timeout", "'1ms'"),
    ("lock_timeout", "'1ms'"),
    ("idle_session_timeout", "'1ms'"),
    ("idle_in_transaction_session_timeout", "'1ms'"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_deferrable", "on"),
    ("plan_cache_mode", "force_generic_plan"),
    ("row_security", "off"),
];

/// A role of its own, with these settings.
#[derive(Debug)]
struct Role {
    name: String,
    schema: Schema,
}

impl Role {
    async fn with(settings: &[(&str, &str)]) -> Role {
        let schema = Schema::new();
        let name = format!("role_{}", schema.name);
        let mut statements = format!("create role {name} login superuser password 'word';");
        for (setting, value) in settings {
            statements += &format!("alter role {name} set {setting} = {value};");
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
            .execute(&mut connection().await)
            .await
            .unwrap();
        Role { name, schema }
    }

    fn options(&self) -> Options {
        let connect: PgConnectOptions = server::url().parse().unwrap();
        Options::new(connect.username(&self.name).password("word"))
            .schema(&self.schema.name)
            .unwrap()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let schema = &self.schema.name;
        let forget = format!(
            "drop schema if exists \"{schema}\" cascade; drop owned by {0}; drop role {0}",
            self.name
        );
        server::in_the_end("the role is left over", async move {
            sqlx::raw_sql(sqlx::AssertSqlSafe(forget))
                .execute(&mut connection().await)
                .await?;
            Ok(())
        });
    }
}

#[async_trait]
impl Fixture for Role {
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        let options = self.options().clock(clock);
        Arc::new(PostgresStore::connect_with(options).await.unwrap())
    }
}

annals_core::conformance! {
    fixture: Role::with(&FOREIGN).await,
    traits: [atomic, tagged, snapshots, views, inline, shared],
}

#[tokio::test]
async fn a_read_only_default_is_named() {
    let role = Role::with(&[("default_transaction_read_only", "on")]).await;
    PostgresStore::migrate(role.schema.options()).await.unwrap();
    let store = PostgresStore::connect_with(role.options().without_migration()).await;
    let event = NewEvent::json("thing.happened", b"{}".as_slice());
    let append = Append::new(StreamId::new("thing-1").unwrap(), [event]);
    let error = match store {
        Ok(store) => match store.append(append).await.unwrap_err() {
            annals_core::AppendError::Store(error) => error,
            other => panic!("{other:?}"),
        },
        Err(error) => error,
    };
    assert_eq!(error.failure(), Failure::ReadOnly, "{error:?}");
    assert!(
        error.to_string().contains("default_transaction_read_only"),
        "{error}"
    );
}
