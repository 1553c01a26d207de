//! Tables that leave the publication or get another name while the stream goes on.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use annals::prelude::*;

use super::procedures::{EX, INSERTED, shop};
use crate::world::{self, following, ids_of, source, start, status, stopped, until};

async fn warns(program: &Program, of: &str) {
    until(of, || async {
        let warnings = status(program).source.warnings;
        warnings
            .iter()
            .any(|warning| warning.contains(of))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_taken_out_while_streaming_is_warned_of() {
    let setup = format!("{EX} create publication cdc_pub for table ex");
    let (server, url, folder) = shop(&[], &setup);
    let tables = source(&url, &["ex"]).publication("cdc_pub");
    let program = start(folder.path(), tables).await;
    following(&program).await;
    server.psql("shop", "alter publication cdc_pub drop table ex");
    warns(&program, "publication `cdc_pub` lacks table `public.ex`").await;
    server.psql("shop", "insert into ex(v) values ('lost')");
    server.psql("shop", "alter publication cdc_pub add table ex");
    warns(&program, "lacked table `public.ex` for a while: `resync`").await;
    server.psql("shop", "insert into ex(v) values ('seen')");
    assert_eq!(ids_of(&program, INSERTED, 1).await, [2]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_renamed_while_streaming_is_warned_of() {
    let (server, url, folder) = shop(&[], EX);
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    server.psql(
        "shop",
        "alter table ex rename to old; insert into old(v) values ('a')",
    );
    ids_of(&program, "public.old.inserted", 1).await;
    warns(&program, "table `public.ex` is named `public.old` now").await;
    server.psql(
        "shop",
        "alter table old rename to ex; insert into ex(v) values ('b')",
    );
    assert_eq!(ids_of(&program, INSERTED, 1).await, [2]);
    until("it warns no more", || async {
        let warnings = status(&program).source.warnings;
        warnings.is_empty().then_some(())
    })
    .await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_table_that_is_not_named_is_warned_of() {
    let setup = format!(
        "{EX} create table other(id int primary key); insert into other values (7); \
         create publication cdc_pub for all tables"
    );
    let (_server, url, folder) = shop(&[], &setup);
    let tables = source(&url, &["ex"]).publication("cdc_pub");
    let program = start(folder.path(), tables).await;
    assert_eq!(ids_of(&program, "public.other.read", 1).await, [7]);
    let why = "publication `cdc_pub` has table `public.other`, which `tables` does not name";
    warns(&program, why).await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_of_thousands_of_tables_is_read_at_once() {
    let setup = format!(
        "{EX} do $$ begin for n in 1..3000 loop \
         execute format('create table t%s(a int)', n); end loop; end $$; \
         create publication cdc_pub for all tables"
    );
    let (server, url, folder) = shop(&["max_locks_per_transaction=256"], &setup);
    let tables = source(&url, &[]).publication("cdc_pub");
    let program = start(folder.path(), tables.without_snapshot()).await;
    following(&program).await;
    warns(&program, "more tables have no replica identity").await;
    assert!(status(&program).source.warnings.len() < 30);
    server.psql("shop", "insert into ex(v) values ('seen')");
    assert_eq!(ids_of(&program, INSERTED, 1).await, [1]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_without_columns_are_copied_and_followed() {
    let setup = format!(
        "{EX} create table bare(); insert into bare default values; \
         create table computed(a int generated always as (1) stored); \
         insert into computed default values; insert into computed default values; \
         create publication cdc_pub for table ex, bare, computed with (publish = 'insert')"
    );
    let (server, url, folder) = shop(&[], &setup);
    let tables = source(&url, &["ex", "bare", "computed"]).publication("cdc_pub");
    let program = start(folder.path(), tables).await;
    following(&program).await;
    server.psql(
        "shop",
        "insert into bare default values; insert into computed default values; \
         insert into ex(v) values ('last')",
    );
    assert_eq!(ids_of(&program, INSERTED, 1).await, [1]);
    let events = world::events(&program).await;
    let count = |of: &str| {
        events
            .iter()
            .filter(|event| &*event.event_type == of)
            .count()
    };
    let found = [
        "public.bare.read",
        "public.bare.inserted",
        "public.computed.read",
        "public.computed.inserted",
    ]
    .map(count);
    assert_eq!(found, [1, 1, 2, 1]);
    program.stop().await;
}

const PARTS: &str = "create table parts(id int primary key) partition by range (id); \
    create table part partition of parts for values from (0) to (10); \
    insert into parts values (7);";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partitioned_table_needs_no_publication() {
    let (server, url, folder) = shop(&[], PARTS);
    let program = start(folder.path(), source(&url, &["parts"])).await;
    assert_eq!(ids_of(&program, "public.parts.read", 1).await, [7]);
    following(&program).await;
    server.psql("shop", "insert into parts values (8)");
    assert_eq!(ids_of(&program, "public.parts.inserted", 1).await, [8]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_of_partitions_says_how_it_is_mended() {
    let setup = format!("{PARTS} create publication cdc_pub for table parts");
    let (server, url, folder) = shop(&[], &setup);
    let parts = source(&url, &["parts"]).publication("cdc_pub");
    let program = start(folder.path(), parts).await;
    let why = stopped(&program).await;
    let mend = "alter publication \"cdc_pub\" set (publish_via_partition_root = true)";
    assert!(why.contains(mend), "{why}");
    server.psql("shop", mend);
    assert_eq!(ids_of(&program, "public.parts.read", 1).await, [7]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_lacks_no_rows_that_a_policy_hides() {
    let setup = format!(
        "{EX} insert into ex(v) values ('seen'), ('hidden'); create role reader login replication; \
         grant usage on schema public to reader; grant select on ex to reader; \
         alter table ex enable row level security; \
         create policy seen on ex to reader using (v = 'seen'); \
         create publication cdc_pub for table ex"
    );
    let (server, url, folder) = shop(&[], &setup);
    let url = url.replace("postgres@", "reader@");
    let tables = source(&url, &["ex"]).publication("cdc_pub");
    let program = start(folder.path(), tables).await;
    let why = stopped(&program).await;
    assert!(why.contains("`alter role … bypassrls`"), "{why}");
    server.psql("shop", "alter role reader bypassrls");
    let mut read = ids_of(&program, "public.ex.read", 2).await;
    read.sort_unstable();
    assert_eq!(read, [1, 2]);
    program.stop().await;
}
