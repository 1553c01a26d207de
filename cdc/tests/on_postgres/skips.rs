//! Rows of a copy that cannot be taken in: they are skipped by their keys, and the stream goes on
//! beside a resync.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use annals::cdc::{
    Body, Change, Chunk, Ingest, Ingests as _, Mark, Postgres, Record, RowOp, Source, SourceError,
};
use annals::prelude::*;

use super::procedures::{EX, Ex, INSERTED, shop};
use crate::world::{self, following, ids, ids_of, mark, source, status, stopped, until};

#[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "number")]
enum Number {
    Given { number: i64 },
}

/// A program for which each `v` is a number.
async fn numbers(folder: &std::path::Path, source: impl Source + 'static) -> Program {
    let number = |change: &Change<Ex>| match change {
        Change::Read { after } | Change::Inserted { after } => {
            let number = after.v.as_deref().unwrap().parse().unwrap();
            Some((format!("number-{number}"), Number::Given { number }))
        }
        _ => None,
    };
    world::open(folder)
        .await
        .with(Ingest::named("shop").from(source).translate(number))
        .start()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_stops_a_snapshot_is_skippable() {
    let setup = format!(
        "{EX} create table a_heap(v text); insert into a_heap values ('a'), ('a'); \
         insert into ex(v) values ('1'), ('bad'), ('worse'), ('4')"
    );
    let (server, url, folder) = shop(&[], &setup);
    // One after the other: the rows without a key are in when a bad one is met.
    let tables = source(&url, &["a_heap", "ex"]).snapshot_readers(1);
    let program = numbers(folder.path(), tables).await;
    let shop = program.ingest("shop").unwrap();
    for bad in ["2", "3"] {
        let wanted =
            format!("skip it with `skip_row(\"public.ex\", &[(\"id\", \"{bad}\")], reason)`");
        until("it says how to skip it", || async {
            let why = stopped(&program).await;
            why.contains(&wanted).then_some(())
        })
        .await;
        let why = "no number, ticket 7";
        shop.skip_row("ex", &[("id", bad)], why).await.unwrap();
    }
    following(&program).await;
    server.psql("shop", "insert into ex(v) values ('5')");
    assert_eq!(ids_of(&program, INSERTED, 1).await, [5]);
    // The first of them was met by two copies.
    assert_eq!(status(&program).skipped, 2);
    let mut read = ids(&program, "public.ex.read").await;
    read.sort_unstable();
    read.dedup();
    assert_eq!(read, [1, 4]);
    let events = world::events(&program).await.into_iter();
    let of_heap = events.filter(|event| &*event.event_type == "public.a_heap.read");
    assert_eq!(of_heap.count(), 2);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_begins_again_appends_what_is_new() {
    // More than a copy reads at once.
    let rows = "insert into ex(v) select g::text from generate_series(1, 3000) g; \
        update ex set v = 'bad' where id = 2";
    let (server, url, folder) = shop(&[], &format!("{EX} {rows}"));
    let tables = source(&url, &["ex"]).snapshot_readers(1);
    let program = numbers(folder.path(), tables).await;
    let shop = program.ingest("shop").unwrap();
    // The row was moved to the end of the table.
    until("it says how to skip it", || async {
        let why = stopped(&program).await;
        why.contains("&[(\"id\", \"2\")]").then_some(())
    })
    .await;
    let before = ids(&program, "public.ex.read").await.len();
    assert!(before > 0);
    server.psql("shop", "update ex set v = '77777' where id = 5");
    shop.skip_row("ex", &[("id", "2")], "no number")
        .await
        .unwrap();
    following(&program).await;
    let mut wanted: Vec<i64> = (1..=3000).filter(|id| *id != 2).collect();
    wanted.push(5);
    wanted.sort_unstable();
    let mut read = ids(&program, "public.ex.read").await;
    read.sort_unstable();
    assert_eq!(read, wanted);
    let mut given = ids(&program, "number.given").await;
    given.sort_unstable();
    let mut wanted: Vec<i64> = (1..=3000).filter(|id| *id != 2).collect();
    wanted.push(77_777);
    assert_eq!(given, wanted);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resync_that_cannot_go_on_leaves_the_stream() {
    let setup = format!(
        "{EX} create publication cdc_pub for table ex; insert into ex(v) values ('1'), ('2')"
    );
    let (server, url, folder) = shop(&[], &setup);
    let tables = source(&url, &["ex"]).publication("cdc_pub");
    let program = numbers(folder.path(), tables).await;
    following(&program).await;
    server.psql(
        "shop",
        "alter publication cdc_pub drop table ex; update ex set v = 'bad' where id = 1; \
         update ex set v = '3' where id = 2; alter publication cdc_pub add table ex",
    );
    let shop = program.ingest("shop").unwrap();
    shop.resync("ex", "it was not published").await.unwrap();
    until("it warns", || async {
        let warnings = status(&program).source.warnings;
        let is_it = |of: &String| {
            of.contains("table `public.ex` is not read again") && of.contains("skip_row(")
        };
        warnings.iter().any(is_it).then_some(())
    })
    .await;
    server.psql("shop", "insert into ex(v) values ('4')");
    assert_eq!(ids_of(&program, INSERTED, 1).await, [3]);
    shop.skip_row("ex", &[("id", "1")], "no number")
        .await
        .unwrap();
    until("it is read again", || async {
        (mark(&program).await?.read_again?.get() >= 2).then_some(())
    })
    .await;
    assert!(ids(&program, "public.ex.deleted").await.is_empty());
    program.stop().await;
}

/// A source that gives what comes before an insert together with it.
struct Together(Postgres);

#[async_trait::async_trait]
impl Source for Together {
    async fn begin(&mut self, ingest: &str, last: Option<&Mark>) -> Result<(), SourceError> {
        self.0.begin(ingest, last).await
    }

    async fn next(&mut self) -> Result<Chunk, SourceError> {
        let mut chunk = self.0.next().await?;
        let is_insert = |of: &Record| matches!(&of.body, Body::Row(row) if row.op == RowOp::Insert);
        while !chunk.records.is_empty() && !chunk.records.iter().any(is_insert) {
            let next = self.0.next().await?;
            if next.records.is_empty() {
                continue;
            }
            chunk.records.extend(next.records);
            chunk.transactions += next.transactions;
            chunk.resume = next.resume;
        }
        Ok(chunk)
    }

    async fn confirm(&mut self, up_to: &Mark) -> Result<(), SourceError> {
        self.0.confirm(up_to).await
    }

    async fn end(&mut self) {
        self.0.end().await;
    }
}

/// Skips the record that an ingest names when it stops, and says its commit.
async fn skip_what_stops(program: &Program) -> String {
    let why = stopped(program).await;
    let (_, named) = why.rsplit_once("commit 0/").unwrap();
    let (commit, named) = named.split_once(", record ").unwrap();
    let (record, _) = named.split_once(':').unwrap();
    let commit = format!("0/{commit}");
    let shop = program.ingest("shop").unwrap();
    let skipped = shop.skip(
        commit.parse().unwrap(),
        record.parse().unwrap(),
        "no number",
    );
    skipped.await.unwrap();
    commit
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_before_a_part_is_taken_in_once() {
    // More rows than one append has events.
    let rows = "insert into ex(v) select g::text from generate_series(1, 9000) g";
    let (server, url, folder) = shop(&[], &format!("{EX} {rows}"));
    let program = numbers(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    program.stop().await;
    drop(program);
    server.psql(
        "shop",
        "select pg_logical_emit_message(false, 'app', 'hello'); truncate ex; \
         insert into ex(v) values ('bad'); insert into ex(v) values ('9001')",
    );
    let together = Together(source(&url, &["ex"]));
    let program = numbers(folder.path(), together).await;
    skip_what_stops(&program).await;
    assert_eq!(ids_of(&program, INSERTED, 1).await, [9002]);
    let events = world::events(&program).await;
    let of_type = |wanted: &str| events.iter().filter(|of| &*of.event_type == wanted).count();
    assert_eq!(of_type("message.app"), 1);
    assert_eq!(of_type("public.ex.truncated"), 1);
    assert_eq!(of_type("public.ex.deleted"), 9000);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_record_that_is_skipped_leaves_a_last_event() {
    let (server, url, folder) = shop(&[], EX);
    let parts = || source(&url, &["ex"]).spool_bytes(1_000).part_records(200);
    let program = numbers(folder.path(), parts()).await;
    following(&program).await;
    // The last part has one record.
    server.psql(
        "shop",
        "begin; insert into ex(v) select g::text from generate_series(1, 400) g; \
         insert into ex(v) values ('bad'); commit",
    );
    let commit = skip_what_stops(&program).await;
    server.psql("shop", "insert into ex(v) values ('402')");
    assert_eq!(ids_of(&program, INSERTED, 401).await.len(), 401);
    let events = world::events(&program).await.into_iter();
    let of_it = events.filter(|of| of.metadata.keys.get("cdc.commit") == Some(&commit));
    let last: Vec<_> = of_it
        .map(|of| of.metadata.keys.contains_key("cdc.last"))
        .collect();
    // A number and a row of each, and how the table looks.
    assert_eq!(last.len(), 801);
    assert_eq!(last.iter().position(|is_last| *is_last), Some(800));
    program.stop().await;
}
