//! Snapshots: exact under writers, and begun again when they are lost.

use std::sync::Arc;
use std::time::Duration;

use annals::cdc::{Ingest, IngestState, Ingests as _};
use annals::prelude::*;
use annals_core::conformance::rounds;
use tokio::sync::Notify;

use super::super::servers;
use super::{EX, Ex, shop};
use crate::server::Psql;
use crate::world::{self, following, ids_of, source, start, start_with_copy, status, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_snapshot_handover() {
    for _ in 0..rounds(1, 10) {
        handover().await;
    }
}

async fn handover() {
    let (server, url, folder) = shop(&[], EX);
    server.psql(
        "shop",
        "insert into ex(v) select 'v' from generate_series(1, 5000)",
    );
    let mut open = Psql::open(&url);
    open.run("begin; insert into ex(v) values ('open')");
    let mut writers = Vec::new();
    for writer in 0..3 {
        let mut session = Psql::open(&url);
        session.send(&format!(
            "do $$ declare i int; begin for i in 1..80 loop \
             insert into ex(v) values ('w{writer}'); \
             update ex set v = 'u' || i where id = {writer} * 1000 + i; \
             update ex set id = id + 1000000 where id = {writer} * 1000 + 500 + i; \
             delete from ex where id = {writer} * 1000 + 200 + i; \
             commit; perform pg_sleep(0.01); end loop; end $$"
        ));
        writers.push(session);
    }
    let held = Arc::new(Notify::new());
    let held_source = source(&url, &["ex"]).hold_snapshot(Arc::clone(&held));
    let program = start_with_copy::<Ex>(folder.path(), held_source).await;
    open.run("commit");
    open.end();
    until("the slot is made", || async {
        let ask = "select count(*) from pg_replication_slots where confirmed_flush_lsn is not null";
        (server.psql("shop", ask) == "1").then_some(())
    })
    .await;
    server.psql("shop", "insert into ex(v) values ('after the snapshot')");
    held.notify_one();
    writers.into_iter().for_each(|session| drop(session.end()));
    following(&program).await;
    server.psql("shop", "insert into ex(v) values ('last')");
    servers::is_equal(&server, &program).await;
    // No insert of a key that is there, no update or delete of one that is not.
    let mut live = std::collections::HashSet::new();
    for event in world::events(&program).await {
        let id = event.stream.id().to_owned();
        match event.event_type.rsplit('.').next().unwrap() {
            "read" | "inserted" => assert!(live.insert(id.clone()), "{id} twice"),
            "deleted" | "moved" => assert!(live.remove(&id), "{id} was not there"),
            "updated" if event.payload.windows(9).any(|part| part == b"\"before\":") => {
                assert!(live.insert(id.clone()), "{id} twice");
            }
            "updated" => assert!(live.contains(&id), "{id} was not there"),
            _ => {}
        }
    }
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_snapshot_name_expires() {
    let (server, url, folder) = shop(&[], EX);
    server.psql("shop", "insert into ex(v) values ('a')");
    let held = Arc::new(Notify::new());
    let program = start(
        folder.path(),
        source(&url, &["ex"]).hold_snapshot(Arc::clone(&held)),
    )
    .await;
    until("the slot is made", || async {
        let ask = "select count(*) from pg_replication_slots where confirmed_flush_lsn is not null";
        (server.psql("shop", ask) == "1").then_some(())
    })
    .await;
    // The session that exported it ends: its snapshot is gone with it.
    server.psql(
        "shop",
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where backend_type = 'walsender' and application_name = 'annals cdc'",
    );
    server.psql("shop", "insert into ex(v) values ('b')");
    held.notify_one();
    until("it says so", || async {
        matches!(&status(&program).state,
            IngestState::Retrying(why) | IngestState::Stopped(why) if why.contains("snapshot"))
        .then_some(())
    })
    .await;
    // Another slot, from the beginning; what was in stays once.
    held.notify_one();
    assert_eq!(ids_of(&program, "public.ex.read", 2).await, [1, 2]);
    following(&program).await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_slot_creation_waits() {
    let (server, url, folder) = shop(&[], EX);
    let mut open = Psql::open(&url);
    open.run("begin; insert into ex(v) values ('open')");
    let quick = source(&url, &["ex"]).slot_timeout(Duration::from_millis(300));
    let program = start(folder.path(), quick).await;
    let why = until("it gives up for now", || async {
        match status(&program).state {
            IngestState::Retrying(why) if why.contains("was not made within") => Some(why),
            _ => None,
        }
    })
    .await;
    assert!(why.contains("backend_xid is not null"), "{why}");
    open.run("commit");
    open.end();
    assert_eq!(ids_of(&program, "public.ex.read", 1).await, [1]);
    following(&program).await;
    drop(server);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_without_a_key_are_counted_once() {
    let setup = "create table heap(v text); alter table heap replica identity full; \
        insert into heap values ('a'), ('a'), ('b'), (null)";
    let (server, url, folder) = shop(&[], setup);
    let program = start(folder.path(), source(&url, &["heap"])).await;
    following(&program).await;
    let counts = async || {
        let events = world::events(&program).await;
        ["read", "inserted", "updated", "deleted"].map(|what| {
            let is_it = |event: &&annals::store::RecordedEvent| event.event_type.ends_with(what);
            events.iter().filter(is_it).count()
        })
    };
    let are = async |wanted: [usize; 4]| {
        until("so many of each", || async {
            (counts().await == wanted).then_some(())
        })
        .await;
    };
    server.psql(
        "shop",
        "insert into heap values ('c'); update heap set v = 'd' where v = 'b'; \
         delete from heap where v is null",
    );
    are([4, 1, 1, 1]).await;
    for round in 1..=2 {
        let shop = program.ingest("shop").unwrap();
        shop.resync_all("to be sure").await.unwrap();
        until("it is compared", || async {
            let mark = world::mark(&program).await?;
            (mark.snapshot.is_none() && mark.decided?.get() == round).then_some(())
        })
        .await;
    }
    server.psql("shop", "insert into heap values ('a')");
    are([4, 2, 1, 1]).await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_parent_has_no_rows_of_its_children() {
    let (_server, url, folder) = shop(
        &[],
        &format!(
            "{EX} create table child(primary key (id)) inherits (ex); \
             create table parts(id int primary key) partition by range (id); \
             create table part partition of parts for values from (0) to (10); \
             insert into ex(v) values ('parent'); insert into child(v) values ('child'); \
             insert into parts values (7); \
             create publication cdc_pub for table ex, parts \
             with (publish_via_partition_root = true)"
        ),
    );
    let source = source(&url, &["ex", "child", "parts"]).publication("cdc_pub");
    let program = start(folder.path(), source).await;
    following(&program).await;
    for (table, wanted) in [("ex", 1), ("child", 2), ("parts", 7)] {
        let read = format!("public.{table}.read");
        assert_eq!(world::ids(&program, &read).await, [wanted], "{table}");
    }
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timeouts_of_the_role_do_not_end_a_copy() {
    let (server, _, folder) = shop(
        &[],
        &format!(
            "{EX} insert into ex(v) select 'v' from generate_series(1, 20000); \
             create role hasty login superuser; alter role hasty set statement_timeout = '1ms'; \
             alter role hasty set idle_in_transaction_session_timeout = '1ms'; \
             alter role hasty set idle_session_timeout = '1ms'"
        ),
    );
    let url = server.url("shop").replace("postgres@", "hasty@");
    let program = start_with_copy::<Ex>(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    servers::is_equal(&server, &program).await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_made_again_during_a_copy_is_not_dropped() {
    let (server, url, folder) = shop(&[], EX);
    server.psql("shop", "insert into ex(v) values ('a')");
    let held = Arc::new(Notify::new());
    let held_source = source(&url, &["ex"]).hold_snapshot(Arc::clone(&held));
    let program = start_with_copy::<Ex>(folder.path(), held_source).await;
    until("the slot is made", || async {
        let ask = "select count(*) from pg_replication_slots \
            where confirmed_flush_lsn is not null and not active";
        (server.psql("shop", ask) == "1").then_some(())
    })
    .await;
    server.psql(
        "shop",
        "select pg_drop_replication_slot('annals_shop'); insert into ex(v) values ('between'); \
         select pg_create_logical_replication_slot('annals_shop', 'pgoutput')",
    );
    held.notify_one();
    let why = until("it says that it is not its own", || async {
        match status(&program).state {
            IngestState::Stopped(why) => Some(why),
            _ => None,
        }
    })
    .await;
    assert!(why.contains("this log knows nothing of it"), "{why}");
    program.stop().await;
    drop(program);
    server.psql("shop", "select pg_drop_replication_slot('annals_shop')");
    let program = start_with_copy::<Ex>(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    servers::is_equal(&server, &program).await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_has_columns_that_came_before_its_slot() {
    let setup = format!("{EX} create table other(id int); insert into ex(v) values ('a')");
    let (server, url, folder) = shop(&[], &setup);
    let mut open = Psql::open(&url);
    open.run("begin; insert into other values (1)");
    let program = start(folder.path(), source(&url, &["ex"])).await;
    until("its slot waits", || async {
        let ask = "select count(*) from pg_replication_slots";
        (server.psql("shop", ask) == "1").then_some(())
    })
    .await;
    server.psql(
        "shop",
        "alter table ex add c text; update ex set c = 'filled'",
    );
    open.run("commit");
    open.end();
    following(&program).await;
    let events = world::events(&program).await.into_iter();
    let mut read = events.filter(|event| &*event.event_type == "public.ex.read");
    let payload = read.next().unwrap().payload;
    let payload = String::from_utf8_lossy(&payload);
    assert!(payload.contains("filled"), "{payload}");
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_rewritten_after_the_snapshot_is_copied_in_whole() {
    let (server, url, folder) = shop(&[], EX);
    server.psql("shop", "insert into ex(v) values ('a'), ('b')");
    let held = Arc::new(Notify::new());
    let held_source = source(&url, &["ex"]).hold_snapshot(Arc::clone(&held));
    let program = start_with_copy::<Ex>(folder.path(), held_source).await;
    until("the slot is made", || async {
        let ask = "select count(*) from pg_replication_slots where confirmed_flush_lsn is not null";
        (server.psql("shop", ask) == "1").then_some(())
    })
    .await;
    server.psql("shop", "alter table ex alter id type int");
    until("it follows", || async {
        // Also the copy that begins again.
        held.notify_one();
        let is_copied = world::mark(&program).await?.snapshot.is_none();
        is_copied.then_some(())
    })
    .await;
    servers::is_equal(&server, &program).await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_timeout_of_the_role_ends_no_copy() {
    let setup = format!(
        "{EX} insert into ex(v) values ('a'); create role hasty login superuser; \
         alter role hasty set lock_timeout = '1ms'"
    );
    let (server, url, folder) = shop(&[], &setup);
    let mut open = Psql::open(&url);
    open.run("begin; lock table ex in access exclusive mode");
    let hasty = url.replace("postgres@", "hasty@");
    let program = start(folder.path(), source(&hasty, &["ex"])).await;
    until("it waits for the table", || async {
        let ask = "select count(*) from pg_stat_activity \
            where application_name = 'annals cdc' and wait_event_type = 'Lock'";
        (server.psql("shop", ask) == "1").then_some(())
    })
    .await;
    open.run("commit");
    open.end();
    following(&program).await;
    assert_eq!(world::ids(&program, "public.ex.read").await, [1]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_which_no_event_is_made_are_not_swept() {
    let (server, url, folder) = shop(&[], EX);
    server.psql("shop", "insert into ex(v) values ('a'), ('b')");
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    program.stop().await;
    drop(program);
    let db = world::open(folder.path()).await;
    let ingest = Ingest::named("shop").from(source(&url, &["ex"]));
    let program = db.with(ingest.only_translated()).start().await.unwrap();
    following(&program).await;
    server.psql("shop", "delete from ex where id = 2");
    let handle = program.ingest("shop").unwrap();
    handle.resync_all("to be sure").await.unwrap();
    let deleted = "public.ex.deleted";
    assert_eq!(ids_of(&program, deleted, 1).await, [2]);
    following(&program).await;
    assert_eq!(world::ids(&program, deleted).await, [2]);
    program.stop().await;
}
