//! A table that is read again while the stream goes on.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::sync::Arc;

use annals::cdc::{Change, Ingest, IngestState, Ingests as _, Postgres, TableRow};
use annals::prelude::*;
use annals_core::conformance::rounds;
use tokio::sync::Notify;

use super::procedures::{EX, Ex, INSERTED, shop};
use super::servers;
use super::steps::{Step, dies_at};
use crate::server::{Psql, Server};
use crate::world::{
    self, copy_has, following, ids, ids_of, mark, source, start, start_with_copy, status, until,
};

/// A table with values that an update does not send again.
const DOCS: &str = "create table doc(id int primary key, v text, big text); \
    alter table doc alter big set storage external; \
    create table other(id bigserial primary key); \
    insert into doc select g, 'v', repeat(md5(g::text), 100) from generate_series(1, 4000) g; \
    create publication cdc_pub for table doc, other";

#[derive(TableRow, Clone, Debug, PartialEq)]
#[table("public.doc")]
struct Doc {
    #[key]
    id: i32,
    v: Option<String>,
    big: Option<String>,
}

fn docs(url: &str) -> Postgres {
    source(url, &["doc", "other"])
        .publication("cdc_pub")
        .spool_bytes(200_000)
        .part_records(300)
}

/// A program that follows the table and holds the snapshot of the next resync, and a table that
/// changed while it was not published.
struct Held {
    server: Server,
    url: String,
    program: Program,
    held: Arc<Notify>,
    _folder: tempfile::TempDir,
}

impl Held {
    async fn changed_unpublished() -> Held {
        let (server, url, folder) = shop(&[], DOCS);
        let held = lets_one();
        let source = docs(&url).hold_snapshot(Arc::clone(&held));
        let program = start_with_copy::<Doc>(folder.path(), source).await;
        following(&program).await;
        server.psql("shop", CHANGED_UNPUBLISHED);
        Held {
            server,
            url,
            program,
            held,
            _folder: folder,
        }
    }

    /// Asks for a resync, and waits until its snapshot is there and held.
    async fn resync(&self, table: &str) {
        let shop = self.program.ingest("shop").unwrap();
        let why = "it was not published for a while";
        shop.resync(table, why).await.unwrap();
        until("its slot is there", || async {
            let ask = "select count(*) from pg_replication_slots \
                where temporary and confirmed_flush_lsn is not null";
            (self.server.psql("shop", ask) == "1").then_some(())
        })
        .await;
    }

    /// Lets go of its snapshot, and of those that come after it, until it is complete.
    async fn is_read_again(&self) {
        until("it is read again", || async {
            self.held.notify_one();
            let complete = mark(&self.program).await?.read_again?;
            (complete.get() >= 1).then_some(())
        })
        .await;
    }

    async fn is_equal(&self) {
        let table = "select id || '|' || coalesce(v, '') || '|' || coalesce(big, '') from doc";
        let line = |row: &Doc| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            format!("{}|{}|{}", row.id, text(&row.v), text(&row.big))
        };
        copy_has(&self.program, || self.server.psql("shop", table), line).await;
    }
}

/// Holds every snapshot but the first.
fn lets_one() -> Arc<Notify> {
    let held = Arc::new(Notify::new());
    held.notify_one();
    held
}

const CHANGED_UNPUBLISHED: &str = "alter publication cdc_pub drop table doc; \
    update doc set big = repeat(md5(v || id), 100) where id % 2 = 0; \
    update doc set v = 'unpublished' where id % 3 = 0; \
    delete from doc where id % 5 = 0; \
    update doc set id = id + 10000 where id % 7 = 0; \
    insert into doc select g, 'new', repeat('n', 3000) from generate_series(20001, 20100) g; \
    alter publication cdc_pub add table doc";

/// Changes of all kinds, of rows that the log has and of rows that it does not.
fn writers(url: &str) -> Vec<Psql> {
    let writers = (0..3).map(|writer| {
        let mut session = Psql::open(url);
        session.send(&format!(
            "do $$ declare i int; begin for i in 1..60 loop begin \
             update doc set v = 'w{writer}' where id % 3 = {writer} and id % 61 = i; \
             update doc set id = id + 100000 * (1 + {writer}) where id = {writer} + 1 + 9 * i; \
             update doc set id = {writer} + 1 + 9 * i, v = 'back' \
                 where id = 100000 * (1 + {writer}) + {writer} + 1 + 9 * i and i % 2 = 0; \
             delete from doc where id = 2000 + {writer} + 11 * i; \
             insert into doc values (30000 + 1000 * {writer} + i, 'i', repeat('i', 3000)), \
                 (2000 + {writer} + 11 * i, 'same', 'key') on conflict do nothing; \
             exception when unique_violation or deadlock_detected then null; end; \
             commit; perform pg_sleep(0.005); end loop; end $$"
        ));
        session
    });
    writers.collect()
}

/// Waits until so many requests are complete.
async fn read_again(db: &Annals, requests: u64) {
    until("it is read again", || async {
        let complete = mark(db).await?.read_again?;
        (complete.get() >= requests).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_read_again_under_writers_and_is_equal() {
    for round in 0..rounds(1, 10) {
        let shop = Held::changed_unpublished().await;
        let (server, program) = (&shop.server, &shop.program);
        let before = writers(&shop.url);
        shop.resync("doc").await;
        let after = (round % 2 == 0).then(|| writers(&shop.url));
        // The stream goes on meanwhile.
        let inserted = "public.other.inserted";
        server.psql("shop", "insert into other default values");
        ids_of(program, inserted, 1).await;
        let large = "insert into other select from generate_series(1, 2000)";
        server.psql("shop", large);
        shop.held.notify_one();
        for session in before.into_iter().chain(after.into_iter().flatten()) {
            session.end();
        }
        read_again(program, 1).await;
        shop.is_equal().await;
        ids_of(program, inserted, 2001).await;
        let wanted: Vec<_> = (1..=2001).collect();
        assert_eq!(ids(program, inserted).await, wanted);
        // Its slot is gone, and the other one goes on.
        until("its slot is gone", || async {
            let ask = "select string_agg(slot_name, ' ') from pg_replication_slots";
            (server.psql("shop", ask) == "annals_shop").then_some(())
        })
        .await;
        server.psql("shop", "delete from doc where id % 4 = 1; truncate other");
        shop.is_equal().await;
        program.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_digest_is_not_digested_again() {
    let (server, url, folder) = shop(&[], DOCS);
    let held = lets_one();
    let source = docs(&url).hold_snapshot(Arc::clone(&held));
    let ingest = Ingest::named("shop").from(source);
    let ingest = ingest.large_values_as_digest("public.doc", "v");
    let db = world::open(folder.path()).await;
    let program = db.with(ingest).start().await.unwrap();
    following(&program).await;
    server.psql("shop", CHANGED_UNPUBLISHED);
    let shop = Held {
        server,
        url,
        program,
        held,
        _folder: folder,
    };
    shop.resync("doc").await;
    // The copy has its other columns.
    let update = "update doc set v = 'abc' where id = 2";
    shop.server.psql("shop", update);
    shop.held.notify_one();
    read_again(&shop.program, 1).await;
    let events = world::events(&shop.program).await.into_iter();
    let of_row = events.filter(|event| event.stream.as_str() == "public.doc-2");
    let last = of_row.last().unwrap();
    let payload = String::from_utf8_lossy(&last.payload);
    assert_eq!(&*last.event_type, "public.doc.read");
    assert!(payload.contains(" of 3 bytes"), "{payload:.300}");
    shop.program.stop().await;
}

#[derive(Event, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "note")]
enum Note {
    Made { text: String },
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_the_log_refuses_does_not_stop_the_stream() {
    let setup = format!("{EX} create publication cdc_pub for table ex");
    let (server, url, folder) = shop(&[], &setup);
    let ingest = Ingest::named("shop").from(source(&url, &["ex"]).publication("cdc_pub"));
    // More than an event may have.
    let too_long = |change: &Change<Ex>| match change {
        Change::Read { .. } => {
            let text = "x".repeat(17 << 20);
            Some(("note-1".to_owned(), Note::Made { text }))
        }
        _ => None,
    };
    let db = world::open(folder.path()).await;
    let with_notes = db.with(ingest.translate(too_long));
    let program = with_notes.start().await.unwrap();
    following(&program).await;
    server.psql(
        "shop",
        "alter publication cdc_pub drop table ex; insert into ex(v) values ('unpublished'); \
         alter publication cdc_pub add table ex",
    );
    let shop = program.ingest("shop").unwrap();
    shop.resync("ex", "it was not published").await.unwrap();
    until("it says so", || async {
        let warnings = status(&program).source.warnings;
        let why = "table `public.ex` is not read again";
        warnings.iter().any(|of| of.contains(why)).then_some(())
    })
    .await;
    server.psql("shop", "insert into ex(v) values ('a')");
    assert_eq!(ids_of(&program, INSERTED, 1).await, [2]);
    assert_eq!(status(&program).state, IngestState::Following);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_while_a_table_is_read_again_is_newer() {
    let shop = Held::changed_unpublished().await;
    shop.resync("public.doc").await;
    let truncate =
        "update doc set v = 'u'; truncate doc; insert into doc values (2, 'after', null)";
    shop.server.psql("shop", truncate);
    shop.is_read_again().await;
    shop.is_equal().await;
    shop.program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_rewritten_while_it_is_read_again_is_equal() {
    let shop = Held::changed_unpublished().await;
    shop.resync("public.doc").await;
    let rewrite = "alter table doc alter id type bigint";
    shop.server.psql("shop", rewrite);
    shop.is_read_again().await;
    shop.is_equal().await;
    shop.program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_without_connections_leaves_the_stream_alone() {
    let (server, url, folder) = shop(&["max_wal_senders=2"], EX);
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    // The stream has one of them, and this has the other.
    let mut other = Psql::open(&format!("{url}?replication=database"));
    other.run("select 1");
    let shop = program.ingest("shop").unwrap();
    shop.resync("ex", "to be sure").await.unwrap();
    until("it says so", || async {
        let warnings = status(&program).source.warnings;
        let why = "table `public.ex` is not read again yet, and is tried again: ";
        warnings.iter().any(|of| of.contains(why)).then_some(())
    })
    .await;
    let streams = || {
        let ask = "select active_pid from pg_replication_slots where slot_name = 'annals_shop'";
        server.psql("shop", ask)
    };
    let before = streams();
    server.psql("shop", "insert into ex(v) values ('a')");
    assert_eq!(ids_of(&program, INSERTED, 1).await, [1]);
    other.end();
    read_again(&program, 1).await;
    assert_eq!(streams(), before);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_read_again_by_killed_processes_is_equal() {
    let setup = format!("{EX} create publication cdc_pub for table ex");
    let (server, url, folder) = shop(&[], &setup);
    let rows = "insert into ex(v) select 'v' || g from generate_series(1, 12000) g";
    server.psql("shop", rows);
    let source = || source(&url, &["ex"]).publication("cdc_pub");
    let program = start(folder.path(), source().hold_snapshot(lets_one())).await;
    following(&program).await;
    server.psql(
        "shop",
        "alter publication cdc_pub drop table ex; \
         update ex set v = 'unpublished' where id % 2 = 0; \
         delete from ex where id % 3 = 0; alter publication cdc_pub add table ex",
    );
    let shop = program.ingest("shop").unwrap();
    shop.resync("ex", "it was not published").await.unwrap();
    program.stop().await;
    drop(program);
    for round in 0..rounds(2, 10) {
        dies_at(Step::ReadingAgain, &url, folder.path()).await;
        let db = world::open(folder.path()).await;
        let followed = mark(&db).await.unwrap().read_again;
        assert!(followed.is_none_or(|version| version.get() == 0));
        let script = format!(
            "update ex set v = 'round {round}' where id % 7 = {round}; \
             update ex set id = -id where id % 11 = {round}; delete from ex where id % 97 = {round}"
        );
        server.psql("shop", &script);
    }
    let program = start_with_copy::<Ex>(folder.path(), source()).await;
    read_again(&program, 1).await;
    servers::is_equal(&server, &program).await;
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_cannot_be_read_again_is_refused() {
    let (server, url, folder) = shop(&[], &format!("{EX} create table heap(v text);"));
    let program = start(folder.path(), source(&url, &["ex", "heap"])).await;
    following(&program).await;
    let shop = program.ingest("shop").unwrap();
    let refused = shop.resync("orders", "why").await.unwrap_err().to_string();
    let wanted = "ingest `shop` does not take in table `public.orders`: it has public.ex, \
        public.heap";
    assert_eq!(refused, wanted);
    // A table without a key cannot be compared; the stream goes on.
    shop.resync("heap", "why").await.unwrap();
    until("it says so", || async {
        let warnings = status(&program).source.warnings;
        let why = "table `public.heap` is not read again";
        warnings.iter().any(|of| of.contains(why)).then_some(())
    })
    .await;
    server.psql("shop", "insert into ex(v) values ('a')");
    assert_eq!(ids_of(&program, INSERTED, 1).await, [1]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_another_process_is_followed() {
    let (server, url, folder) = shop(&[], EX);
    server.psql("shop", "insert into ex(v) values ('a')");
    let works = start(folder.path(), source(&url, &["ex"])).await;
    following(&works).await;
    let waits = start(folder.path(), source(&url, &["ex"])).await;
    let shop = waits.ingest("shop").unwrap();
    let refused = shop.resync("nosuch", "why").await.unwrap_err().to_string();
    assert!(
        refused.ends_with("table `public.nosuch`: it has public.ex"),
        "{refused}"
    );
    shop.resync("ex", "to be sure").await.unwrap();
    read_again(&works, 1).await;
    assert_eq!(ids(&works, "public.ex.read").await, [1, 1]);
    waits.stop().await;
    works.stop().await;
}
