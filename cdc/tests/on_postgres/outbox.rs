//! An outbox whose rows stay: a row that is read again is the event that it was, and one that
//! takes the id of another is named.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use annals::cdc::{Ingest, Ingests as _, Outbox};
use annals::prelude::*;

use super::procedures::{EX, shop};
use crate::world::{self, following, mark, source, stopped, until};

const OUTBOX: &str = "create table outbox(id uuid primary key, aggregatetype text, \
    aggregateid text, type text, payload jsonb); \
    insert into outbox select gen_random_uuid(), 'invoice', g, 'invoice.asked', '{}' \
    from generate_series(1, 300) g; \
    insert into ex(v) select 'v' from generate_series(1, 20)";

async fn start(url: &str, folder: &std::path::Path) -> Program {
    let ingest = Ingest::named("shop")
        .from(source(url, &["ex", "outbox"]))
        .outbox(Outbox::table("outbox"));
    let db = world::open(folder).await;
    db.with(ingest).start().await.unwrap()
}

async fn count(db: &Annals, event_type: &str) -> usize {
    let events = world::events(db).await.into_iter();
    let of_type = events.filter(|event| &*event.event_type == event_type);
    of_type.count()
}

async fn has(db: &Annals, event_type: &str, wanted: usize) {
    until(&format!("{wanted} {event_type}"), || async {
        (count(db, event_type).await >= wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_an_outbox_are_events_once_whatever_reads_them() {
    let (server, url, folder) = shop(&[], &format!("{EX} {OUTBOX}"));
    let program = start(&url, folder.path()).await;
    following(&program).await;
    assert_eq!(count(&program, "invoice.asked").await, 300);
    let shop = program.ingest("shop").unwrap();
    shop.resync_all("all of it").await.unwrap();
    until("all is read again", || async {
        let mark = mark(&program).await?;
        (mark.decided?.get() >= 1 && mark.snapshot.is_none()).then_some(())
    })
    .await;
    shop.resync("outbox", "the table").await.unwrap();
    until("the table is read again", || async {
        (mark(&program).await?.read_again?.get() >= 2).then_some(())
    })
    .await;
    server.psql(
        "shop",
        "insert into outbox values (gen_random_uuid(), 'invoice', '301', 'invoice.sent', '{}')",
    );
    has(&program, "invoice.sent", 1).await;
    assert_eq!(count(&program, "invoice.asked").await, 300);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_used_twice_is_named_with_its_record() {
    let (server, url, folder) = shop(&[], &format!("{EX} {OUTBOX}"));
    let program = start(&url, folder.path()).await;
    following(&program).await;
    program.stop().await;
    drop(program);
    // Many transactions of one append.
    let before: String = (1..=10)
        .map(|id| format!("update ex set v = 'before' where id = {id}; "))
        .collect();
    let after = before.replace("before", "after");
    server.psql(
        "shop",
        &format!(
            "{before} begin; insert into outbox values \
             (gen_random_uuid(), 'invoice', '998', 'invoice.sent', '{{}}'); \
             update outbox set id = gen_random_uuid() where aggregateid = '7'; \
             insert into outbox select id, 'invoice', '999', 'invoice.twice', '{{}}' from taken; \
             commit; {after}"
        )
        .replacen(
            "begin;",
            "create table taken as select id from outbox where aggregateid = '7'; begin;",
            1,
        ),
    );
    let program = start(&url, folder.path()).await;
    let why = stopped(&program).await;
    assert!(
        why.contains("event `invoice.twice` of stream `invoice-999`"),
        "{why}"
    );
    let (_, named) = why.rsplit_once("commit 0/").unwrap();
    let (commit, named) = named.split_once(", record ").unwrap();
    // An insert and an update are before it.
    assert!(named.starts_with("2:"), "{why}");
    let commit = format!("0/{commit}").parse().unwrap();
    let shop = program.ingest("shop").unwrap();
    shop.skip(commit, 2, "an id used twice").await.unwrap();
    has(&program, "public.ex.updated", 20).await;
    assert_eq!(count(&program, "invoice.sent").await, 1);
    assert_eq!(count(&program, "invoice.twice").await, 0);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_that_is_no_json_stops_at_its_row() {
    let (server, url, folder) = shop(
        &[],
        &format!(
            "{EX} create table outbox(id uuid primary key, aggregatetype text, aggregateid text, \
             type text, payload text)"
        ),
    );
    let program = start(&url, folder.path()).await;
    following(&program).await;
    server.psql(
        "shop",
        "begin; insert into outbox values (gen_random_uuid(), 'invoice', '1', 'invoice.sent', \
         ' {\"cents\": 1} '); \
         insert into outbox values (gen_random_uuid(), 'invoice', '2', 'invoice.bad', \
         '{cents: 2}'); commit",
    );
    let why = stopped(&program).await;
    assert!(why.contains("its `payload` is no JSON"), "{why}");
    let (_, named) = why.rsplit_once("commit 0/").unwrap();
    let (commit, named) = named.split_once(", record ").unwrap();
    assert!(named.starts_with("1:"), "{why}");
    let commit = format!("0/{commit}").parse().unwrap();
    let shop = program.ingest("shop").unwrap();
    shop.skip(commit, 1, "no JSON, ticket 812").await.unwrap();
    has(&program, "invoice.sent", 1).await;
    assert_eq!(count(&program, "invoice.bad").await, 0);
    program.stop().await;
}
