//! Processes that are killed at each step of their work: what is in the log afterwards is what the
//! server committed, once and in its order.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use annals::Store;
use annals::cdc::{
    Body, Chunk, Ingest, Mark, Postgres, ReadAgain, Resume, RowOp, Snapshotting, Source,
    SourceError, TableName,
};
use annals::prelude::*;
use annals::store::{Append, AppendError, Appended};
use annals_core::conformance::faulty::{FaultyStore, StoreFault};
use annals_core::conformance::rounds;

use super::procedures::kills::Process;
use super::procedures::{EX, Ex, INSERTED, confirmed, resume, shop};
use super::servers;
use crate::server::{Psql, Server};
use crate::slot;
use crate::world::{self, following, ids_of, mark, source, start, start_with_copy, until};

const URL: &str = "ANNALS_CDC_URL";
const FOLDER: &str = "ANNALS_CDC_FOLDER";
const STEP: &str = "ANNALS_CDC_STEP";

/// Where a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Some rows of a snapshot are in.
    Copying,
    /// Some rows of a table that is read again are in.
    ReadingAgain,
    /// Records are there, and nothing was done with them.
    Decoded,
    /// They are about to be appended.
    BeforeAppend,
    /// They are appended, and the answer is lost.
    Unanswered,
    /// It is known, and the source was not told.
    BeforeConfirm,
    /// A part of a large transaction is in.
    BetweenParts,
    /// Some parts of it are in.
    LaterPart,
}

const STREAMING: [Step; 5] = [
    Step::Decoded,
    Step::BeforeAppend,
    Step::Unanswered,
    Step::BeforeConfirm,
    Step::BetweenParts,
];

/// As `kill -9` does, from inside.
fn die() -> ! {
    let own = std::process::id().to_string();
    let _ = Command::new("kill").args(["-9", &own]).status();
    std::process::abort()
}

struct Deadly(Postgres, Step);

#[async_trait::async_trait]
impl Source for Deadly {
    async fn begin(&mut self, ingest: &str, last: Option<&Mark>) -> Result<(), SourceError> {
        self.0.begin(ingest, last).await
    }

    async fn next(&mut self) -> Result<Chunk, SourceError> {
        let chunk = self.0.next().await?;
        let is_deadly = match (self.1, &chunk.snapshot) {
            (Step::Copying, Some(Snapshotting::Rows(so_far))) => so_far.rows > 4_000,
            (Step::ReadingAgain, None) if matches!(chunk.again, Some(ReadAgain::Rows)) => {
                chunk.records.iter().any(|row| row.at.ordinal > 4_000)
            }
            (Step::Decoded, None) => !chunk.records.is_empty(),
            _ => false,
        };
        if is_deadly {
            die();
        }
        Ok(chunk)
    }

    async fn confirm(&mut self, up_to: &Mark) -> Result<(), SourceError> {
        match self.1 {
            Step::BeforeConfirm if up_to.events > 0 => die(),
            Step::BetweenParts if up_to.partial.is_some() => die(),
            Step::LaterPart if up_to.partial.is_some_and(|of| of.through > 300) => die(),
            _ => self.0.confirm(up_to).await,
        }
    }

    fn can_resync(&self) -> bool {
        self.0.can_resync()
    }

    fn read_again(&mut self, tables: &[TableName]) {
        self.0.read_again(tables);
    }
}

#[derive(Debug)]
struct DeadlyStore(Step);

#[async_trait::async_trait]
impl StoreFault for DeadlyStore {
    async fn append(&self, store: &dyn Store, append: Append) -> Result<Appended, AppendError> {
        let has_events = append.events.len() > 1;
        if has_events && self.0 == Step::BeforeAppend {
            die();
        }
        let appended = store.append(append).await;
        if has_events && self.0 == Step::Unanswered {
            die();
        }
        appended
    }
}

/// The process that dies: it takes in until then.
#[tokio::test]
#[ignore = "it is the process that the other tests start"]
async fn takes_in_until_a_step() {
    let variable = |name| std::env::var(name).ok();
    let (Some(url), Some(folder), Some(step)) = (variable(URL), variable(FOLDER), variable(STEP))
    else {
        return;
    };
    let step = STREAMING
        .into_iter()
        .chain([Step::Copying, Step::ReadingAgain, Step::LaterPart])
        .find(|of| format!("{of:?}") == step)
        .unwrap();
    let db = world::open(folder.as_ref()).await;
    let store = FaultyStore::new(Arc::clone(db.store()), DeadlyStore(step));
    let _program = Annals::on(store)
        .with(Ingest::named("shop").from(Deadly(careful(&url), step)))
        .start()
        .await
        .unwrap();
    std::future::pending::<()>().await;
}

/// A source for which 500 rows are a large transaction.
fn careful(url: &str) -> Postgres {
    source(url, &["ex"])
        .publication("cdc_pub")
        .spool_bytes(10_000)
        .part_records(200)
}

/// Runs a process until it has died at the step.
pub(super) async fn dies_at(step: Step, url: &str, folder: &std::path::Path) {
    let name = "on_postgres::steps::takes_in_until_a_step";
    let child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--ignored"])
        .env(URL, url)
        .env(FOLDER, folder)
        .env(STEP, format!("{step:?}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = Process(child.unwrap());
    let ended = until(&format!("it dies at {step:?}"), || {
        let ended = child.0.try_wait().unwrap();
        async move { ended }
    })
    .await;
    assert_eq!(ended.signal(), Some(9), "{step:?}");
}

/// What the server committed since the slot `oracle` was made, in its order.
pub(super) fn committed(server: &Server) -> Vec<(String, String)> {
    let rows = slot::decoded(server, "shop", "oracle").into_iter();
    let rows = rows.filter_map(|record| match record.body {
        Body::Row(row) => {
            let what = match row.op {
                RowOp::Read => "read",
                RowOp::Insert => "inserted",
                RowOp::Update => "updated",
                RowOp::Delete => "deleted",
            };
            Some((what.to_owned(), row.key.get("id")??.to_owned()))
        }
        _ => None,
    });
    rows.collect()
}

/// What of it is in the log, in its order.
pub(super) async fn taken(db: &Annals) -> Vec<(String, String)> {
    let events = world::events(db).await.into_iter();
    let events = events.map(|event| {
        let what = event.event_type.rsplit('.').next().unwrap().to_owned();
        (what, event.stream.id().to_owned())
    });
    let of_rows = events.filter(|(what, _)| !matches!(&**what, "schema" | "moved" | "read"));
    of_rows.collect()
}

/// A shop whose ingest follows, and has a second slot that sees the same.
pub(super) async fn with_oracle(settings: &[&str]) -> (Server, String, tempfile::TempDir) {
    let setup = format!("{EX} create publication cdc_pub for all tables");
    let (server, url, folder) = shop(settings, &setup);
    let program = start(folder.path(), careful(&url)).await;
    following(&program).await;
    program.stop().await;
    server.psql(
        "shop",
        "select pg_create_logical_replication_slot('oracle', 'pgoutput')",
    );
    (server, url, folder)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_any_step_ingests_once() {
    let (server, url, folder) = with_oracle(&[]).await;
    let work = "do $$ begin for i in 1..5 loop \
        insert into ex(v) select 'x' from generate_series(1, 10); \
        update ex set v = 'y' where id = (select max(id) from ex); \
        delete from ex where id = (select min(id) from ex); commit; end loop; end $$; \
        insert into ex(v) select 'large' from generate_series(1, 500)";
    for _ in 0..rounds(2, 40) {
        for step in STREAMING {
            server.psql("shop", work);
            dies_at(step, &url, folder.path()).await;
        }
    }
    let committed = committed(&server);
    let program = start(folder.path(), careful(&url)).await;
    until("everything is in", || async {
        (taken(&program).await.len() >= committed.len()).then_some(())
    })
    .await;
    assert_eq!(taken(&program).await, committed);
    // And the server was told no more than that.
    let durable = resume(&mark(&program).await.unwrap());
    assert!(confirmed(&server, "annals_shop").await <= durable);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_killed_begins_again_and_is_exact() {
    let setup = format!("{EX} create publication cdc_pub for all tables");
    let (server, url, folder) = shop(&[], &setup);
    server.psql(
        "shop",
        "insert into ex(v) select 'v' || g from generate_series(1, 12000) g",
    );
    for round in 1..=rounds(1, 10) {
        dies_at(Step::Copying, &url, folder.path()).await;
        let db = world::open(folder.path()).await;
        let begun = mark(&db).await.unwrap();
        assert!(begun.snapshot.is_some_and(|so_far| so_far.rows > 0));
        assert_eq!(begun.resume.and_then(|resume: Resume| resume.lsn()), None);
        // Rows that were copied are gone, are others, or have another key.
        server.psql(
            "shop",
            &format!(
                "delete from ex where id % 97 = {round}; \
                 update ex set v = 'round {round}' where id % 5 = 1; \
                 update ex set id = -id where id % 11 = {round}"
            ),
        );
    }
    let program = start_with_copy::<Ex>(folder.path(), careful(&url)).await;
    following(&program).await;
    servers::is_equal(&server, &program).await;
    server.psql("shop", "delete from ex where id > 6000");
    servers::is_equal(&server, &program).await;
    program.stop().await;
}

/// Heartbeats of others, each far from the next in the log, as a slow transaction has them between
/// its rows.
const BETWEEN: &str = "do $$ begin for i in 1..30 loop \
    perform pg_logical_emit_message(false, 'annals.heartbeat', 'another'); \
    insert into noise(v) select repeat('n', 100) from generate_series(1, 3000); commit; \
    end loop; end $$";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_known_transaction_survives_heartbeats_before_its_commit() {
    let setup = format!(
        "{EX} create table noise(id bigserial, v text); create publication cdc_pub for table ex"
    );
    let (server, url, folder) = shop(&[], &setup);
    let program = start(folder.path(), careful(&url)).await;
    following(&program).await;
    program.stop().await;
    drop(program);
    let mut open = Psql::open(&url);
    open.run("begin; insert into ex(v) select 'large' from generate_series(1, 500)");
    server.psql("shop", BETWEEN);
    open.run("commit");
    open.end();
    dies_at(Step::BetweenParts, &url, folder.path()).await;
    let db = world::open(folder.path()).await;
    assert!(mark(&db).await.unwrap().partial.is_some());
    let program = start(folder.path(), careful(&url)).await;
    server.psql("shop", "insert into ex(v) values ('last')");
    let found = ids_of(&program, INSERTED, 501).await;
    assert_eq!(found, (1..=501).collect::<Vec<_>>());
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_right_after_a_message_is_taken_in() {
    let (server, url, folder) = with_oracle(&[]).await;
    // The message ends where the commit begins, and is in before the first part.
    server.psql(
        "shop",
        "begin; insert into ex(v) select 'large' from generate_series(1, 500); \
         select pg_logical_emit_message(false, 'app', 'outside'); commit",
    );
    dies_at(Step::BetweenParts, &url, folder.path()).await;
    let program = start(folder.path(), careful(&url)).await;
    server.psql("shop", "insert into ex(v) values ('last')");
    let found = until("the last row is in", || async {
        let found = world::ids(&program, INSERTED).await;
        (found.last() == Some(&501)).then_some(found)
    })
    .await;
    assert_eq!(found, (1..=501).collect::<Vec<_>>());
    let events = world::events(&program).await.into_iter();
    let of_app = events.filter(|event| &*event.event_type == "message.app");
    assert_eq!(of_app.count(), 1);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_a_large_transaction_forgets_no_part() {
    let (server, url, folder) = with_oracle(&[]).await;
    // What is in is more than a part may have.
    let large = "insert into ex(v) select repeat('x', 10000) from generate_series(1, 600)";
    server.psql("shop", large);
    let through = async || {
        let db = world::open(folder.path()).await;
        mark(&db).await.unwrap().partial.unwrap().through
    };
    dies_at(Step::LaterPart, &url, folder.path()).await;
    let known = through().await;
    assert!(known > 300, "{known}");
    dies_at(Step::BetweenParts, &url, folder.path()).await;
    assert!(through().await >= known, "{} of {known}", through().await);
    let program = start(folder.path(), careful(&url)).await;
    ids_of(&program, INSERTED, 600).await;
    assert_eq!(taken(&program).await, committed(&server));
    program.stop().await;
}
