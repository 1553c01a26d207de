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

/// Cases of the contract, each under these settings.
macro_rules! under_foreign_settings {
    ($($module:ident: $($case:ident),+;)+) => {$(
        mod $module {
            use annals_core::conformance::{$module, run};

            $(
                #[test]
                fn $case() {
                    run(async { $module::$case(&super::Role::with(&super::FOREIGN).await).await });
                }
            )+
        }
    )+};
}

under_foreign_settings! {
    append: gives_back_every_byte, is_recorded_at_the_time_of_the_clock,
        keeps_the_event_time_to_the_microsecond, keeps_the_order_of_each_of_four_writers;
    bounds: a_time_bound_within_a_microsecond_is_exact;
    leases: are_held_by_one_until_the_store_clock_ends_them;
    log: filters_by_type_category_prefix_tags_and_times, knows_its_position_at_every_moment,
        says_in_long_pages_what_it_says_in_short_ones;
    past: is_known_before_at_inside_and_after_each_run, has_keys_that_are_or_were,
        tells_which_keys_changed_between_two_positions;
    rows: by_a_range_of_keys_honour_every_kind_of_bound,
        by_an_index_are_ordered_by_entry_then_key;
    snapshots: come_back_byte_for_byte_after_reopening;
    streams: that_are_archived_lose_events_and_reuse_no_position;
    tagged: queries_match_by_type_stream_and_all_of_the_tags;
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
