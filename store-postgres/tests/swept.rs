//! What was dropped is cleared away, also while a transaction keeps an old snapshot: then the
//! server cannot forget a row that is gone, and a search for the next one from the beginning
//! against all of those again.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

mod server;

use std::time::Duration;

use annals_core::{GenerationSpec, GenerationStore, Log};
use annals_postgres::sqlx;
use server::{Schema, connection};

const ROWS: i64 = 50_000;

/// Tables of a generation with the index by which they are cleared, and how they are filled.
const TABLES: [(&str, &str, &str); 7] = [
    (
        "view_row",
        "view_row_pkey",
        "select id, key, null, '1' from annals.view_generation, keys",
    ),
    (
        "view_index_entry",
        "view_index_entry_pkey",
        "select id, 0, '', key from annals.view_generation, keys",
    ),
    (
        "view_row_version",
        "view_row_version_by_key",
        "select id, 'one', n, n - 1, n, null from annals.view_generation, keys",
    ),
    (
        "view_touched",
        "view_touched_pkey",
        "select id, 'one', n from annals.view_generation, keys",
    ),
    (
        "view_dead_letter",
        "view_dead_letter_pkey",
        "select id, key, 0, n, gen_random_uuid(), 1, 0, null from annals.view_generation, keys",
    ),
    (
        "view_stream_version",
        "view_stream_version_pkey",
        "select id, key, n from annals.view_generation, keys",
    ),
    (
        "view_state",
        "view_state_pkey",
        "select id, 0, key, '1' from annals.view_generation, keys",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn sweeping_reads_little_more_than_it_clears() {
    let schema = Schema::new();
    let store = schema.store().await;
    let mut observer = connection().await;
    let dropped = store
        .begin_generation(GenerationSpec::new("dropped", 1, store.id()))
        .await
        .unwrap();
    for (table, _, select) in TABLES {
        let fill = format!(
            "with keys as (select n, convert_to('key-' || n, 'utf8') as key from \
             generate_series(1, {ROWS}) as n)
             insert into annals.{table} {select};
             analyze annals.{table}"
        );
        sqlx::raw_sql(schema.sql(&fill))
            .execute(&mut observer)
            .await
            .unwrap();
    }
    let kept = store
        .begin_generation(GenerationSpec::new("kept", 1, store.id()))
        .await
        .unwrap();
    let keep = format!(
        "insert into annals.view_row (generation, key, value) values ({}, 'row', '1')",
        kept.id
    );
    sqlx::raw_sql(schema.sql(&keep))
        .execute(&mut observer)
        .await
        .unwrap();

    let mut unrelated = connection().await;
    sqlx::raw_sql("begin isolation level repeatable read")
        .execute(&mut unrelated)
        .await
        .unwrap();
    sqlx::raw_sql(schema.sql("select count(*) from annals.view_row"))
        .execute(&mut unrelated)
        .await
        .unwrap();
    store.drop_generation(dropped.id).await.unwrap();

    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let is_there = schema
        .sql("select exists (select from annals.view_generation where phase = 3)")
        .0;
    while sqlx::query_scalar::<_, bool>(sqlx::AssertSqlSafe(is_there.clone()))
        .fetch_one(&mut observer)
        .await
        .unwrap()
    {
        pace.tick().await;
    }
    for (table, index, _) in TABLES {
        // A session reports its counts a little later.
        let counted =
            "select n_tup_del from pg_stat_user_tables where schemaname = $1 and relname = $2";
        let counted = || {
            sqlx::query_scalar::<_, i64>(counted)
                .bind(&schema.name)
                .bind(table)
        };
        while counted().fetch_one(&mut observer).await.unwrap() < ROWS {
            pace.tick().await;
        }
        let read = "select idx_tup_read from pg_stat_user_indexes where schemaname = $1 and \
            indexrelname = $2";
        let read = sqlx::query_scalar::<_, i64>(read)
            .bind(&schema.name)
            .bind(index);
        let read = read.fetch_one(&mut observer).await.unwrap();
        assert!(
            read <= 5 * ROWS,
            "{read} entries of {table} were read to clear {ROWS}"
        );
    }
    let left: i64 = sqlx::query_scalar(schema.sql("select count(*) from annals.view_row"))
        .fetch_one(&mut observer)
        .await
        .unwrap();
    assert_eq!(left, 1, "what belongs to others stays");
}
