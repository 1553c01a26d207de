//! Keys of tables that send whole old rows: the protocol does not say which columns they are.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use annals::prelude::*;

use super::procedures::{EX, INSERTED, shop};
use crate::world::{self, following, source, start, until};

/// Waits until so many rows were inserted, and says the streams that they are in.
async fn streams(db: &Annals, count: usize) -> Vec<String> {
    until("the rows are in", || async {
        let events = world::events(db).await.into_iter();
        let inserted = events.filter(|event| &*event.event_type == INSERTED);
        let streams: Vec<_> = inserted.map(|event| event.stream.to_string()).collect();
        (streams.len() == count).then_some(streams)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_changes_while_streaming_stays_a_key() {
    let setup = format!("{EX} alter table ex replica identity full");
    let (server, url, folder) = shop(&[], &setup);
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    server.psql(
        "shop",
        "insert into ex(v) values ('a'); \
         alter table ex rename id to uid; insert into ex(v) values ('b')",
    );
    assert_eq!(streams(&program, 2).await, ["public.ex-1", "public.ex-2"]);
    server.psql(
        "shop",
        "alter table ex drop constraint ex_pkey, add primary key (v); \
         insert into ex(v) values ('c')",
    );
    assert_eq!(streams(&program, 3).await[2], "public.ex-c");
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_from_before_a_key_was_renamed_keep_it() {
    let setup = format!("{EX} alter table ex replica identity full");
    let (server, url, folder) = shop(&[], &setup);
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    program.stop().await;
    drop(program);
    server.psql(
        "shop",
        "insert into ex(v) values ('a'); \
         alter table ex rename id to uid; insert into ex(v) values ('b')",
    );
    let program = start(folder.path(), source(&url, &["ex"])).await;
    assert_eq!(streams(&program, 2).await, ["public.ex-1", "public.ex-2"]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_that_a_key_only_includes_are_not_of_it() {
    let setup = "create table ex(id bigserial, v text, primary key (id) include (v)); \
        create table whole(id bigserial, v text, primary key (id) include (v)); \
        alter table whole replica identity full; \
        insert into ex(v) values ('a'); insert into whole(v) values ('a')";
    let (server, url, folder) = shop(&[], setup);
    let program = start(folder.path(), source(&url, &["ex", "whole"])).await;
    following(&program).await;
    server.psql("shop", "update ex set v = 'b'; update whole set v = 'b'");
    let mut found = until("the rows are another", || async {
        let events = world::events(&program).await.into_iter();
        let of_rows = events.filter(|event| event.event_type.ends_with("ed"));
        let streams: Vec<_> = of_rows.map(|event| event.stream.to_string()).collect();
        (streams.len() == 2).then_some(streams)
    })
    .await;
    found.sort();
    assert_eq!(found, ["public.ex-1", "public.whole-1"]);
    let read = world::events(&program).await.into_iter();
    let read = read.filter(|event| event.event_type.ends_with(".read"));
    let mut read: Vec<_> = read.map(|event| event.stream.to_string()).collect();
    read.sort();
    assert_eq!(read, found);
    program.stop().await;
}
