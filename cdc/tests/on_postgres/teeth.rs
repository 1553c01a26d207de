//! Faults that a source could have: each is noticed, by the ingest or by the comparison that the
//! other tests make.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

use std::sync::Arc;

use annals::cdc::{
    Body, Chunk, Lsn, Mark, Postgres, Record, Resume, Source, SourceError, SourceFailure, TableOf,
};
use annals::prelude::*;

use super::procedures::{Ex, INSERTED, confirmed, shop};
use super::steps::{committed, taken, with_oracle};
use crate::server::Server;
use crate::world::{
    self, copied, following, ids, ids_of, source, start, start_with_copy, stopped, until,
};

/// A fault of a source.
enum Fault {
    /// None.
    Sound,
    /// It confirms what it gives, and then breaks off, as a process that dies before its append.
    ConfirmsFirst,
    /// It goes on at the LSN of a row, and not after its commit.
    ResumesAtARow,
    /// It goes on where the slot is, whatever the log says.
    TrustsTheSlot(u64),
    /// It gives what it gave last together with what comes next.
    Regroups(Vec<Record>),
    /// It takes what was not sent for null.
    UnchangedIsNull,
}

struct Faulty {
    inner: Postgres,
    fault: Fault,
}

#[async_trait::async_trait]
impl Source for Faulty {
    async fn begin(&mut self, ingest: &str, last: Option<&Mark>) -> Result<(), SourceError> {
        let mut last = last.cloned();
        if let Some(Resume::Lsn(at)) = last.as_mut().and_then(|last| last.resume.as_mut()) {
            match &self.fault {
                // A commit is 48 bytes or more.
                Fault::ResumesAtARow => *at = Lsn::new(at.get() - 48),
                Fault::TrustsTheSlot(confirmed) => *at = Lsn::new(*confirmed),
                _ => {}
            }
        }
        self.inner.begin(ingest, last.as_ref()).await
    }

    async fn next(&mut self) -> Result<Chunk, SourceError> {
        let mut chunk = self.inner.next().await?;
        if chunk.records.is_empty() || chunk.snapshot.is_some() {
            return Ok(chunk);
        }
        match &mut self.fault {
            Fault::ConfirmsFirst => {
                let mut mark = Mark::begun(Arc::clone(&chunk.source));
                mark.resume = chunk.resume.clone();
                self.inner.confirm(&mark).await?;
                self.inner.end().await;
                let broken = "broken off before the append";
                return Err(SourceError::new(SourceFailure::Retry, broken));
            }
            Fault::Regroups(last) => {
                let new = chunk.records.clone();
                chunk.records.splice(0..0, std::mem::replace(last, new));
            }
            Fault::UnchangedIsNull => {
                for record in &mut chunk.records {
                    if let Body::Row(row) = &mut record.body {
                        let unchanged = std::mem::take(&mut row.unchanged);
                        let after = row.after.get_or_insert_default();
                        unchanged.iter().for_each(|name| after.set(name, None));
                    }
                }
            }
            _ => {}
        }
        Ok(chunk)
    }

    async fn confirm(&mut self, up_to: &Mark) -> Result<(), SourceError> {
        self.inner.confirm(up_to).await
    }

    async fn end(&mut self) {
        self.inner.end().await;
    }
}

async fn with_fault(url: &str, folder: &std::path::Path, fault: Fault) -> Program {
    let inner = source(url, &["ex"]).publication("cdc_pub");
    start_with_copy::<Ex>(folder, Faulty { inner, fault }).await
}

/// Takes in one row in order, and stops.
async fn one_row(server: &Server, url: &str, folder: &std::path::Path) {
    let program = with_fault(url, folder, Fault::Sound).await;
    following(&program).await;
    server.psql("shop", "insert into ex(v) values ('a')");
    ids_of(&program, INSERTED, 1).await;
    program.stop().await;
    assert_eq!(taken(&program).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmation_before_the_append_is_noticed() {
    let (server, url, folder) = with_oracle(&[]).await;
    one_row(&server, &url, folder.path()).await;
    let program = with_fault(&url, folder.path(), Fault::ConfirmsFirst).await;
    server.psql("shop", "insert into ex(v) values ('b')");
    let why = stopped(&program).await;
    assert!(why.contains("what is in between is lost"), "{why}");
    assert_eq!(ids(&program, INSERTED).await, [1]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resuming_at_the_lsn_of_a_row_is_noticed() {
    let (server, url, folder) = with_oracle(&[]).await;
    one_row(&server, &url, folder.path()).await;
    let program = with_fault(&url, folder.path(), Fault::ResumesAtARow).await;
    let why = stopped(&program).await;
    assert!(why.contains("begins at"), "{why}");
    assert_eq!(taken(&program).await, committed(&server));
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trust_in_the_slot_is_seen_in_the_comparison() {
    let (server, url, folder) = with_oracle(&[]).await;
    one_row(&server, &url, folder.path()).await;
    server.psql(
        "shop",
        "insert into ex(v) values ('b'); \
         select pg_replication_slot_advance('annals_shop', pg_current_wal_lsn())",
    );
    let at = confirmed(&server, "annals_shop").await;
    let program = with_fault(&url, folder.path(), Fault::TrustsTheSlot(at)).await;
    server.psql("shop", "insert into ex(v) values ('c')");
    ids_of(&program, INSERTED, 2).await;
    let (taken, committed) = (taken(&program).await, committed(&server));
    program.stop().await;
    let lost: Vec<_> = committed.iter().filter(|of| !taken.contains(of)).collect();
    assert_eq!(lost, [&("inserted".to_owned(), "2".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_records_in_other_groups_stop_it() {
    let (server, url, folder) = with_oracle(&[]).await;
    one_row(&server, &url, folder.path()).await;
    let program = with_fault(&url, folder.path(), Fault::Regroups(Vec::new())).await;
    server.psql("shop", "insert into ex(v) values ('b')");
    ids_of(&program, INSERTED, 2).await;
    server.psql("shop", "insert into ex(v) values ('c')");
    let why = stopped(&program).await;
    // Nothing is said to be in that is not.
    let durable = super::procedures::resume(&world::mark(&program).await.unwrap());
    assert!(confirmed(&server, "annals_shop").await <= durable, "{why}");
    assert_eq!(ids(&program, INSERTED).await, [1, 2], "{why}");
    program.stop().await;
    drop(program);
    let program = with_fault(&url, folder.path(), Fault::Sound).await;
    assert_eq!(ids_of(&program, INSERTED, 3).await, [1, 2, 3]);
    assert_eq!(taken(&program).await, committed(&server));
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_null_for_what_was_not_sent_is_a_difference() {
    let setup = "create table ex(id bigint primary key, v text, n int); \
        alter table ex alter v set storage external; \
        create publication cdc_pub for all tables; \
        insert into ex values (1, repeat('v', 9000), 0)";
    for (fault, is_kept) in [(Fault::Sound, true), (Fault::UnchangedIsNull, false)] {
        let (server, url, folder) = shop(&[], setup);
        let program = with_fault(&url, folder.path(), fault).await;
        following(&program).await;
        server.psql("shop", "update ex set n = 1");
        ids_of(&program, "public.ex.updated", 1).await;
        until("the view has it", || async {
            let row = program.view::<TableOf<Ex>>().get(1).await.ok()??;
            (row.columns().get("n") == Some(Some("1"))).then_some(())
        })
        .await;
        let row = &copied::<Ex>(&program).await.unwrap()[0];
        assert_eq!(row.v == Some("v".repeat(9_000)), is_kept);
        program.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_comparison_finds_two_logs_equal() {
    let (server, url, folder) = with_oracle(&[]).await;
    one_row(&server, &url, folder.path()).await;
    let program = start(folder.path(), source(&url, &["ex"]).publication("cdc_pub")).await;
    server.psql("shop", "update ex set id = 7; delete from ex");
    until("it is in", || async {
        (taken(&program).await.len() == 3).then_some(())
    })
    .await;
    assert_eq!(taken(&program).await, committed(&server));
    program.stop().await;
}
