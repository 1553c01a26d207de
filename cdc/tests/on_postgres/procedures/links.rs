//! Links and settings: quiet, slow and dead ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals::cdc::{Chunk, Ingest, IngestState, Mark, Postgres, Source, SourceError};
use annals::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{EX, INSERTED, confirmed, resume, shop};
use crate::server::Psql;
use crate::world::{self, following, ids, ids_of, mark, source, start, status, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_idle_publication_busy_database() {
    let (server, url, folder) = shop(
        &[],
        "create table ex(id int primary key); \
        create table busy(id bigserial, v text)",
    );
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    server.psql(
        "shop",
        "insert into busy(v) select repeat('x', 400) \
        from generate_series(1, 20000)",
    );
    let busy: u64 = server
        .psql(
            "shop",
            "select (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint",
        )
        .parse()
        .unwrap();
    until("the slot follows the server", || async {
        let lag = busy.saturating_sub(confirmed(&server, "annals_shop").await);
        (lag < 64 << 10).then_some(())
    })
    .await;
    program.stop().await;
    // What was confirmed while it was idle is no gap.
    let again = start(folder.path(), source(&url, &["ex"])).await;
    following(&again).await;
    server.psql("shop", "insert into ex values (7)");
    assert_eq!(ids_of(&again, INSERTED, 1).await, [7]);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_ack_after_traffic_stops() {
    let (server, url, folder) = shop(&["wal_sender_timeout=60s"], EX);
    // No heartbeat: nothing follows the row.
    let source = source(&url, &["ex"]).heartbeat(Duration::from_secs(600));
    let program = start(folder.path(), source).await;
    following(&program).await;
    server.psql("shop", "insert into ex(v) values ('x')");
    ids_of(&program, INSERTED, 1).await;
    let at = resume(&mark(&program).await.unwrap());
    until("the last transaction is confirmed", || async {
        (confirmed(&server, "annals_shop").await >= at).then_some(())
    })
    .await;
    program.stop().await;
}

/// A source whose first rows are held for longer than the server waits for an answer.
struct Slow {
    inner: Postgres,
    slept: bool,
}

#[async_trait::async_trait]
impl Source for Slow {
    async fn begin(&mut self, ingest: &str, last: Option<&Mark>) -> Result<(), SourceError> {
        self.inner.begin(ingest, last).await
    }

    async fn next(&mut self) -> Result<Chunk, SourceError> {
        let chunk = self.inner.next().await?;
        if !chunk.records.is_empty() && !self.slept {
            self.slept = true;
            let mut ticks = tokio::time::interval(Duration::from_millis(500));
            for _ in 0..7 {
                ticks.tick().await;
            }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_slow_handler() {
    let (server, url, folder) = shop(&["wal_sender_timeout=1s"], EX);
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    program.stop().await;
    drop(program);
    server.psql(
        "shop",
        "insert into ex(v) select 'x' from generate_series(1, 30000)",
    );
    let slow = Slow {
        inner: source(&url, &["ex"]),
        slept: false,
    };
    let db = world::open(folder.path()).await;
    let program = db
        .with(Ingest::named("shop").from(slow))
        .start()
        .await
        .unwrap();
    let found = ids_of(&program, INSERTED, 30_000).await;
    assert_eq!(found, (1..=30_000).collect::<Vec<_>>());
    program.stop().await;
}

/// What becomes a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hole {
    None,
    Replication,
    All,
}

/// What a client says at the beginning of a replication session.
const REPLICATION: &[u8] = b"\0replication\0";

/// Passes bytes on until it is told to pass none, without closing anything.
async fn link(to: u16, holes: tokio::sync::watch::Receiver<Hole>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else {
                continue;
            };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            // One that was made after the hole passes.
            let old = *holes.borrow() == Hole::None;
            let replicates = Arc::new(AtomicBool::new(false));
            for (mut from, mut to) in [(from_client, to_server), (from_server, to_client)] {
                let mut holes = holes.clone();
                let replicates = Arc::clone(&replicates);
                tokio::spawn(async move {
                    let mut bytes = vec![0; 1 << 16];
                    loop {
                        let hole = async {
                            let is_one = |hole: &Hole| match hole {
                                Hole::None => false,
                                Hole::Replication => replicates.load(Ordering::SeqCst),
                                Hole::All => true,
                            };
                            let _ = holes.wait_for(|hole| old && is_one(hole)).await;
                        };
                        let read = tokio::select! {
                            () = hole => {
                                std::future::pending::<()>().await;
                                return;
                            }
                            read = from.read(&mut bytes) => read,
                        };
                        match read {
                            Ok(count) if count > 0 => {
                                let mut parts = bytes[..count].windows(REPLICATION.len());
                                if parts.any(|part| part == REPLICATION) {
                                    replicates.store(true, Ordering::SeqCst);
                                }
                                if to.write_all(&bytes[..count]).await.is_err() {
                                    return;
                                }
                            }
                            _ => return,
                        }
                    }
                });
            }
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_dead_link() {
    a_hole_is_noticed(Hole::All).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_session_is_given_up_while_the_server_answers() {
    a_hole_is_noticed(Hole::Replication).await;
}

async fn a_hole_is_noticed(what: Hole) {
    let (server, url, folder) = shop(&["wal_sender_timeout=3s"], EX);
    let (hole, holes) = tokio::sync::watch::channel(Hole::None);
    let port = link(server.port(), holes).await;
    let through = url.replace(&server.port().to_string(), &port.to_string());
    let program = start(folder.path(), source(&through, &["ex"])).await;
    following(&program).await;
    hole.send_replace(what);
    server.psql("shop", "insert into ex(v) values ('x')");
    // Noticed by heartbeats; the server releases the slot, and a new link takes the row.
    assert_eq!(ids_of(&program, INSERTED, 1).await, [1]);
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_reads_a_large_transaction_is_waited_for() {
    let tables = format!("{EX} create table other(id bigint)");
    let (server, url, folder) = shop(&["logical_decoding_work_mem=64kB"], &tables);
    let quick = || source(&url, &["ex"]).heartbeat(Duration::from_millis(50));
    let program = start(folder.path(), quick()).await;
    following(&program).await;
    program.stop().await;
    drop(program);
    // Before the commit the server reads all rows and sends none; then only some are published.
    server.psql(
        "shop",
        "begin;
         insert into ex(v) select 'x' from generate_series(1, 5000);
         insert into other select generate_series(1, 600000);
         commit;",
    );
    let program = start(folder.path(), quick()).await;
    let found = ids_of(&program, INSERTED, 5_000).await;
    assert_eq!(found, (1..=5_000).collect::<Vec<_>>());
    // It is past all of it, and the link is alive.
    server.psql("shop", "insert into ex(v) values ('y')");
    let found = ids_of(&program, INSERTED, 5_001).await;
    assert_eq!(found, (1..=5_001).collect::<Vec<_>>());
    program.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_bounded_read_stops_on_commit() {
    let (_server, url, folder) = shop(&[], EX);
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    // Stopped while transactions arrive, it ends at a commit.
    let mut session = Psql::open(&url);
    session.send("insert into ex(v) select 'x' from generate_series(1, 3000)");
    session.send("insert into ex(v) select 'y' from generate_series(1, 3000)");
    ids_of(&program, INSERTED, 1).await;
    program.stop().await;
    session.end();
    let found = ids(&program, INSERTED).await;
    assert!(
        found.len() == 3_000 || found.len() == 6_000,
        "{}",
        found.len()
    );
    assert!(mark(&program).await.unwrap().partial.is_none());
    assert_eq!(status(&program).state, IngestState::Ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proc_session_settings() {
    let (server, url, folder) = shop(
        &[],
        "create table ex(id bigint primary key, d date, t timestamptz, i interval, f float8, \
         b bytea)",
    );
    server.psql(
        "postgres",
        "alter database shop set datestyle = 'German';
         alter database shop set bytea_output = 'escape';
         alter database shop set intervalstyle = 'sql_standard';
         alter database shop set timezone = 'Asia/Tokyo';
         alter database shop set extra_float_digits = -5;",
    );
    let row = |id: i64| {
        format!(
            "insert into ex values ({id}, '2024-01-02', '2024-01-02 03:04:05+00', '1 day 2 \
             hours', 0.30000000000000004, '\\x0001ff')"
        )
    };
    server.psql("shop", &row(1));
    let program = start(folder.path(), source(&url, &["ex"])).await;
    following(&program).await;
    server.psql("shop", &row(2));
    ids_of(&program, INSERTED, 1).await;
    // Read in the snapshot and from the stream, it is the same text.
    for (event_type, id) in [("public.ex.read", 1), (INSERTED, 2)] {
        let events = world::events(&program).await;
        let event = events
            .iter()
            .find(|of| &*of.event_type == event_type)
            .unwrap();
        let payload = String::from_utf8_lossy(&event.payload);
        let wanted = format!(
            r#""after":{{"id":"{id}","d":"2024-01-02","t":"2024-01-02 03:04:05+00","i":"1 day 02:00:00","f":"0.30000000000000004","b":"\\x0001ff"}}"#
        );
        assert!(payload.contains(&wanted), "{payload}");
    }
    program.stop().await;
}
