//! Processes and servers that end in the middle of their work.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annals::cdc::Transactions;
use annals::prelude::*;
use annals::store::{Append, NewEvent, ReadStream};
use annals_core::conformance::rounds;

use super::{EX, INSERTED, confirmed, resume, shop};
use crate::server::Psql;
use crate::world::{self, following, ids, ids_of, mark, source, start, until, within};

const URL: &str = "ANNALS_CDC_URL";
const FOLDER: &str = "ANNALS_CDC_FOLDER";

/// A process that is killed at the latest when it is dropped.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn process(url: &str, folder: &std::path::Path) -> Process {
    let name = "on_postgres::procedures::kills::takes_in_until_it_is_killed";
    let child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--ignored"])
        .env(URL, url)
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Process(child.unwrap())
}

/// The process that is killed: it takes in until then.
#[tokio::test]
#[ignore = "it is the process that the other tests start and kill"]
async fn takes_in_until_it_is_killed() {
    let (Ok(url), Ok(folder)) = (std::env::var(URL), std::env::var(FOLDER)) else {
        return;
    };
    let source = source(&url, &["ex"]).spool_bytes(100_000);
    let _program = start(folder.as_ref(), source).await;
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_kill9_exactly_once() {
    let (_server, url, folder) = shop(&[], EX);
    let writer = "do $$ begin for i in 1..60 loop \
        insert into ex(v) select 'x' from generate_series(1, 50); commit; \
        perform pg_sleep(0.02); end loop; end $$";
    // The slot is there before the first row.
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    program.stop().await;
    drop(program);
    let mut session = Psql::open(&url);
    session.send(writer);
    let db = world::open(folder.path()).await;
    let mut kills = 0;
    let mut seen = 0;
    while seen < 3_000 {
        let child = process(&url, folder.path());
        until("it takes in more", || async {
            (ids(&db, INSERTED).await.len() > seen).then_some(())
        })
        .await;
        drop(child);
        kills += 1;
        seen = ids(&db, INSERTED).await.len();
    }
    session.end();
    assert!(kills >= 2, "{kills} kills");
    assert_eq!(ids(&db, INSERTED).await, (1..=3_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_kill9_inside_transaction() {
    let (server, url, folder) = shop(&[], EX);
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    program.stop().await;
    drop(program);
    let rows = rounds(40_000, 200_000) as i64;
    let mut open = Psql::open(&url);
    let insert = format!("insert into ex(v) select 'x' from generate_series(1, {rows})");
    open.run(&format!("begin; {insert}"));
    let db = world::open(folder.path()).await;
    // Until its commit nothing of it is there, and what others commit after its rows is.
    let mut before = Vec::new();
    for single in rows + 1..=rows + 2 {
        let child = process(&url, folder.path());
        server.psql("shop", "insert into ex(v) values ('single')");
        before.push(single);
        assert_eq!(ids_of(&db, INSERTED, before.len()).await, before);
        drop(child);
    }
    open.run("commit");
    open.end();
    let mut kills = 0;
    let mut seen = before.len();
    let complete = before.len() + rows as usize;
    // Between any two parts, and before the first.
    while seen < complete {
        let child = process(&url, folder.path());
        until("a part more is in", || async {
            (ids(&db, INSERTED).await.len() > seen).then_some(())
        })
        .await;
        drop(child);
        kills += 1;
        seen = ids(&db, INSERTED).await.len();
        let found = mark(&db).await.unwrap();
        assert_eq!(found.partial.is_none(), seen == complete, "{found:?}");
        // Who asks for transactions sees nothing of it before it is there in whole.
        let largest = largest_transaction(&db).await;
        let of_singles = 2;
        let wanted = if seen == complete {
            rows as usize
        } else {
            of_singles
        };
        assert_eq!(largest, wanted);
    }
    assert!(kills >= 2, "{kills} kills");
    println!("{rows} rows in one transaction, and {kills} kills after its commit");
    let wanted: Vec<_> = before.iter().copied().chain(1..=rows).collect();
    assert_eq!(ids(&db, INSERTED).await, wanted);
    let last: Vec<_> = world::events(&db)
        .await
        .into_iter()
        .filter(|event| event.metadata.keys.contains_key("cdc.last"))
        .map(|event| event.stream.id().to_owned())
        .collect();
    let wanted: Vec<_> = before.iter().chain([&rows]).map(i64::to_string).collect();
    assert_eq!(last, wanted);
}

async fn largest_transaction(db: &Annals) -> usize {
    let mut transactions = Transactions::of(db.events().pages());
    let mut largest = 0;
    while let Some(events) = transactions.next().await.unwrap() {
        largest = largest.max(events.len());
    }
    largest
}

impl Process {
    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([name, &self.0.id().to_string()])
            .status();
        assert!(sent.unwrap().success(), "{name}");
    }

    /// Its anonymous memory in bytes, which no file backs: neither its program nor what it maps of
    /// the store counts.
    fn anonymous(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let lines = status.lines();
        let line = lines
            .filter_map(|line| line.strip_prefix("RssAnon:"))
            .next();
        let kilobytes = line.unwrap().split_whitespace().next().unwrap();
        kilobytes.parse::<u64>().unwrap() << 10
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_paused_writes_nothing_twice() {
    // The server gives up one that does not answer.
    let (server, url, folder) = shop(&["wal_sender_timeout=1s"], EX);
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    program.stop().await;
    drop(program);
    let db = world::open(folder.path()).await;
    let mut processes = Vec::new();
    let mut expected = 0;
    for _ in 0..rounds(2, 20) {
        // Each is paused while it takes in, and goes on after another one has taken over.
        processes.push(process(&url, folder.path()));
        let insert = "insert into ex(v) select 'x' from generate_series(1, 500)";
        let writer = format!("do $$ begin for i in 1..10 loop {insert}; commit; end loop; end $$");
        server.psql("shop", &writer);
        until("it takes in", || async {
            (ids(&db, INSERTED).await.len() > expected).then_some(())
        })
        .await;
        expected += 5_000;
        let newest = processes.last().unwrap();
        newest.signal("-STOP");
        while !can_be_written(&db).await {
            // It was paused in a transaction, and no other can write before it has ended that.
            newest.signal("-CONT");
            newest.signal("-STOP");
        }
        processes
            .iter()
            .rev()
            .skip(1)
            .for_each(|earlier| earlier.signal("-CONT"));
    }
    processes.iter().for_each(|process| process.signal("-CONT"));
    let found = ids_of(&db, INSERTED, expected).await;
    assert_eq!(found, (1..=expected as i64).collect::<Vec<_>>());
}

async fn can_be_written(db: &Annals) -> bool {
    let probe = NewEvent::json("probed", "{}");
    let append = Append::new(StreamId::new("probe-1").unwrap(), [probe]);
    db.store().append(append).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transaction_needs_no_more_memory_than_small_ones() {
    let (server, url, folder) = shop(&[], EX);
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    program.stop().await;
    drop(program);
    let db = world::open(folder.path()).await;
    assert_eq!(ids(&db, INSERTED).await, [0_i64; 0]);
    let mut peaks = Vec::new();
    let mut last = 0;
    for rows in [1_000, rounds(40_000, 1_000_000)] {
        let child = process(&url, folder.path());
        last += rows;
        server.psql(
            "shop",
            &format!("insert into ex(v) select repeat('x', 1000) from generate_series(1, {rows})"),
        );
        let stream = StreamId::new(format!("public.ex-{last}")).unwrap();
        let peak = AtomicU64::new(0);
        within(Duration::from_secs(900), "it is in whole", || async {
            peak.fetch_max(child.anonymous(), Ordering::Relaxed);
            let row = ReadStream::of(stream.clone());
            let row = db.store().read_stream(row).await.unwrap();
            let mark = mark(&db).await.unwrap();
            (!row.events.is_empty() && mark.partial.is_none()).then_some(())
        })
        .await;
        let peak = peak.into_inner();
        println!(
            "{rows} rows of 1,000 bytes: {} KiB of anonymous memory",
            peak >> 10
        );
        peaks.push(peak);
    }
    let more = peaks[1].saturating_sub(peaks[0]);
    println!("{} KiB more", more >> 10);
    assert!(more < 20 << 20, "{peaks:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_server_restart() {
    let (server, url, folder) = shop(&[], EX);
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    let mut expected = 0;
    for fast in [true, false, true, false] {
        server.psql(
            "shop",
            "insert into ex(v) select 'a' from generate_series(1, 200)",
        );
        if fast {
            server.stop();
        } else {
            server.crash();
        }
        server.start_again();
        server.psql(
            "shop",
            "insert into ex(v) select 'b' from generate_series(1, 200)",
        );
        expected += 400;
        ids_of(&program, INSERTED, expected).await;
    }
    let mut found = ids(&program, INSERTED).await;
    assert_eq!(found.len(), expected);
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), expected);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_slot_position_goes_back() {
    let (server, url, folder) = shop(&[], EX);
    for crash in [false, true] {
        let program = start(folder.path(), source(&url, &["ex"])).await;
        following(&program).await;
        let before = ids(&program, INSERTED).await.len();
        for _ in 0..3 {
            server.psql("shop", "insert into ex(v) values ('x')");
        }
        ids_of(&program, INSERTED, before + 3).await;
        let at = resume(&mark(&program).await.unwrap());
        until("it is confirmed", || async {
            (confirmed(&server, "annals_shop").await >= at).then_some(())
        })
        .await;
        program.stop().await;
        drop(program);
        if crash {
            server.crash();
        } else {
            server.stop();
        }
        server.start_again();
        // Whatever is sent again is passed over.
        let again = start(folder.path(), source(&url, &["ex"])).await;
        following(&again).await;
        server.psql("shop", "insert into ex(v) values ('y')");
        let found = ids_of(&again, INSERTED, before + 4).await;
        let last: i64 = server
            .psql("shop", "select max(id) from ex")
            .parse()
            .unwrap();
        assert_eq!(found.last(), Some(&last));
        assert_eq!(found.len(), before + 4);
        assert!(found.is_sorted_by(|one, other| one < other), "{found:?}");
        again.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_streaming_in_progress() {
    let (server, url, folder) = shop(&["logical_decoding_work_mem=64kB"], EX);
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    server.psql(
        "shop",
        "begin; insert into ex values (1, 'a'); savepoint s; \
         insert into ex select g, 'rolled back' from generate_series(10, 8000) g; \
         rollback to s; insert into ex values (2, 'b'); commit; \
         begin; insert into ex select g, 'aborted' from generate_series(10, 8000) g; rollback; \
         insert into ex values (3, 'c')",
    );
    assert_eq!(ids_of(&program, INSERTED, 3).await, [1, 2, 3]);
    program.stop().await;
}
