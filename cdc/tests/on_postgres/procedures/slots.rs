//! Slots and publications that are not what they were.

use std::time::Duration;

use annals::cdc::{IngestState, Ingests as _, Lsn, TableOf};
use annals::prelude::*;
use annals::store::ReadStream;

use super::{EX, Ex, INSERTED, confirmed, resume, shop};
use crate::server::Psql;
use crate::world::{
    self, following, ids, ids_of, mark, source, start, start_with_copy, stopped, until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_slot_lost() {
    let settings = ["max_slot_wal_keep_size=32MB", "max_wal_size=64MB"];
    let (server, url, folder) = shop(&settings, EX);
    server.psql(
        "shop",
        "create table busy(v text); insert into ex(v) values ('old')",
    );
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    program.stop().await;
    server.psql(
        "shop",
        "update ex set v = 'new'; insert into ex(v) values ('more')",
    );
    let lose = "insert into busy select repeat('x', 1000) from generate_series(1, 20000); \
        select pg_switch_wal(); checkpoint";
    until("the slot is lost", || async {
        server.psql("shop", lose);
        let ask = "select wal_status from pg_replication_slots";
        (server.psql("shop", ask) == "lost").then_some(())
    })
    .await;
    let again = start_with_copy::<Ex>(folder.path(), source(&url, &["ex"])).await;
    let why = stopped(&again).await;
    assert!(why.contains("slot `annals_shop` is lost"), "{why}");
    assert!(
        why.contains("max_slot_wal_keep_size") && why.contains("resync_all"),
        "{why}"
    );
    assert_eq!(
        server.psql("shop", "select count(*) from pg_replication_slots"),
        "1"
    );

    // The remedy: the copy equals the table again.
    let shop = again.ingest("shop").unwrap();
    shop.resync_all("the slot was lost").await.unwrap();
    until("the table is read again", || async {
        let row = again
            .view::<TableOf<Ex>>()
            .get(1)
            .await
            .ok()??
            .row()
            .unwrap();
        (row.v.as_deref() == Some("new")).then_some(())
    })
    .await;
    following(&again).await;
    server.psql("shop", "insert into ex(v) values ('last')");
    ids_of(&again, INSERTED, 1).await;
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_slot_missing_or_recreated() {
    let (server, url, folder) = shop(&[], EX);
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    server.psql("shop", "insert into ex(v) values ('a')");
    ids_of(&program, INSERTED, 1).await;
    until("what the slot keeps is known", || async {
        world::status(&program).source.slot
    })
    .await;
    let drop = "select pg_terminate_backend(active_pid) from pg_replication_slots; \
        select pg_drop_replication_slot('annals_shop')";
    until("the slot is dropped", || async {
        server.try_psql("shop", drop).then_some(())
    })
    .await;
    let why = stopped(&program).await;
    assert!(why.contains("slot `annals_shop` is gone"), "{why}");
    // It keeps nothing.
    let status = world::status(&program);
    assert_eq!(status.source.slot, None, "{status}");
    assert!(!status.to_string().contains("keeps"), "{status}");
    server.psql(
        "shop",
        "insert into ex(v) values ('lost');
         select pg_create_logical_replication_slot('annals_shop', 'pgoutput');
         insert into ex(v) values ('b')",
    );
    let shop = program.ingest("shop").unwrap();
    let why = until("it sees the new one", || async {
        match shop.status().state {
            IngestState::Stopped(why) if why.contains("begins at") => Some(why),
            _ => None,
        }
    })
    .await;
    assert!(why.contains("what is in between is lost"), "{why}");
    assert_eq!(ids(&program, INSERTED).await, [1]);
    // Rows that are gone meanwhile are deleted by the comparison.
    server.psql("shop", "delete from ex where v = 'a'");
    shop.resync_all("the slot was dropped").await.unwrap();
    assert_eq!(ids_of(&program, "public.ex.read", 2).await, [2, 3]);
    assert_eq!(ids_of(&program, "public.ex.deleted", 1).await, [1]);
    following(&program).await;
    // What is not in the history is said where the history is.
    let gaps = StreamId::any("$cdc_gap-shop").unwrap();
    let gaps = program
        .store()
        .read_stream(ReadStream::of(gaps))
        .await
        .unwrap()
        .events;
    let [gap] = &gaps[..] else {
        panic!("{gaps:?}");
    };
    let gap: serde_json::Value = serde_json::from_slice(&gap.payload).unwrap();
    let lsn = |name: &str| gap[name].as_str().unwrap().parse::<Lsn>().unwrap();
    assert!(lsn("after") < lsn("up_to"), "{gap}");
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_publication_missing_at_slot_start() {
    let (server, url, folder) = shop(&[], EX);
    let with_own = || source(&url, &["ex"]).publication("theirs");
    let program = start(folder.path(), with_own()).await;
    let why = stopped(&program).await;
    assert!(why.contains("publication `theirs` does not exist"), "{why}");
    assert_eq!(
        server.psql("shop", "select count(*) from pg_replication_slots"),
        "0"
    );
    server.psql("shop", "create publication theirs for table ex");
    following(&program).await;
    server.psql("shop", "insert into ex(v) values ('a')");
    ids_of(&program, INSERTED, 1).await;
    program.stop().await;
    // Made again between two writes, it was not there when the first was written.
    server.psql(
        "shop",
        "drop publication theirs; insert into ex(v) values ('b'); \
         create publication theirs for table ex; insert into ex(v) values ('c')",
    );
    let program = start(folder.path(), with_own()).await;
    let why = stopped(&program).await;
    assert!(
        why.contains("publication") && why.contains("42704"),
        "{why}"
    );
    assert_eq!(ids(&program, INSERTED).await, [1]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_start_ahead_of_confirmed() {
    let (server, url, folder) = shop(&[], EX);
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    program.stop().await;
    drop(program);
    server.psql(
        "shop",
        "insert into ex(v) values ('a'); insert into ex(v) values ('b')",
    );
    // What is confirmed is never ahead of what is durable here.
    let db = world::open(folder.path()).await;
    let durable = resume(&mark(&db).await.unwrap());
    assert!(confirmed(&server, "annals_shop").await <= durable);
    // Another client takes what is there: the slot is ahead, and this is a gap.
    server.psql(
        "shop",
        "select pg_replication_slot_advance('annals_shop', pg_current_wal_lsn())",
    );
    let program = start(folder.path(), source(&url, &["ex"])).await;
    let why = stopped(&program).await;
    assert!(why.contains("what is in between is lost"), "{why}");
    assert_eq!(ids(&program, INSERTED).await, [0_i64; 0]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_slot_without_a_snapshot_deletes_no_row() {
    let (server, url, folder) = shop(&[], EX);
    server.psql("shop", "insert into ex(v) values ('before')");
    let changes = source(&url, &["ex"]).without_snapshot();
    let program = start(folder.path(), changes).await;
    following(&program).await;
    server.psql("shop", "insert into ex(v) values ('a')");
    assert_eq!(ids_of(&program, INSERTED, 1).await, [2]);
    let shop = program.ingest("shop").unwrap();
    shop.resync_all("the slot was lost").await.unwrap();
    until("there is a new slot", || async {
        let mark = mark(&program).await?;
        (mark.snapshot.is_none() && mark.decided?.get() == 1).then_some(())
    })
    .await;
    server.psql("shop", "insert into ex(v) values ('b')");
    assert_eq!(ids_of(&program, INSERTED, 2).await, [2, 3]);
    for event_type in ["public.ex.deleted", "public.ex.read"] {
        let found = ids(&program, event_type).await;
        assert_eq!(found, [0_i64; 0], "{event_type}");
    }
    program.stop().await;
}

const UNKNOWN: &str = "this log knows nothing of it";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_another_program_made_is_not_dropped() {
    let (server, url, folder) = shop(&[], EX);
    let mut open = Psql::open(&url);
    open.run("begin; insert into ex(v) values ('open')");
    // Its log says that a copy begins, and it gets no slot.
    let other = tempfile::tempdir().unwrap();
    let quick = source(&url, &["ex"]).slot_timeout(Duration::from_millis(300));
    let program = start(other.path(), quick).await;
    until("it gives up for now", || async {
        match world::status(&program).state {
            IngestState::Retrying(why) => why.contains("was not made within").then_some(()),
            _ => None,
        }
    })
    .await;
    program.stop().await;
    drop(program);
    open.run("commit");
    open.end();
    let owner = start(folder.path(), source(&url, &["ex"])).await;
    following(&owner).await;
    owner.stop().await;
    drop(owner);
    let program = start(other.path(), source(&url, &["ex"])).await;
    let why = stopped(&program).await;
    assert!(why.contains(UNKNOWN), "{why}");
    program.stop().await;
    server.psql("shop", "insert into ex(v) values ('a')");
    let owner = start(folder.path(), source(&url, &["ex"])).await;
    assert_eq!(ids_of(&owner, INSERTED, 1).await, [2]);
    owner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resync_drops_no_slot_of_another_name() {
    let (server, url, folder) = shop(&[], EX);
    let theirs = "select pg_create_logical_replication_slot('theirs', 'pgoutput')";
    server.psql("shop", theirs);
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    program.stop().await;
    drop(program);
    let program = start(folder.path(), source(&url, &["ex"]).slot("theirs")).await;
    let why = stopped(&program).await;
    let wanted = "the last mark is of slot `annals_shop`";
    assert!(why.contains(wanted), "{why}");
    let shop = program.ingest("shop").unwrap();
    shop.resync_all("it has another slot").await.unwrap();
    until("it says that it is not its own", || async {
        match world::status(&program).state {
            IngestState::Stopped(why) => why.contains(UNKNOWN).then_some(()),
            _ => None,
        }
    })
    .await;
    program.stop().await;
    drop(program);
    let program = start(folder.path(), source(&url, &["ex"]).slot("ours")).await;
    until("it names the slot that is left", || async {
        let warnings = world::status(&program).source.warnings;
        let left = "slot `annals_shop` was read before, and keeps the log of the server";
        warnings.iter().any(|of| of.contains(left)).then_some(())
    })
    .await;
    until("it has a slot of its own", || async {
        let slots = "select string_agg(slot_name, ' ' order by slot_name) \
            from pg_replication_slots";
        (server.psql("shop", slots) == "annals_shop ours theirs").then_some(())
    })
    .await;
    program.stop().await;
}
