//! Slots and publications that are not what they were.

use annals::cdc::{IngestState, Ingests as _, Lsn, TableOf};
use annals::prelude::*;
use annals::store::ReadStream;

use super::{EX, Ex, INSERTED, confirmed, resume, shop};
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
