//! The procedures of the cases, each a test of its name: kills, restarts, lost slots, snapshots.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

pub(crate) mod kills;
mod links;
mod slots;
mod snapshots;

use annals::cdc::{Mark, Resume, TableRow};

use crate::server::Server;

pub(crate) const EX: &str = "create table ex(id bigserial primary key, v text);";
pub(crate) const INSERTED: &str = "public.ex.inserted";

/// The source of the tests: which procedures there are.
const TESTS: [&str; 4] = [
    include_str!("kills.rs"),
    include_str!("links.rs"),
    include_str!("slots.rs"),
    include_str!("snapshots.rs"),
];

/// Whether a procedure has a test of its name that is run.
pub(crate) fn is_tested(id: &str) -> bool {
    let test = format!(
        "#[tokio::test(flavor = \"multi_thread\", worker_threads = 2)]\nasync fn {}()",
        id.replace('-', "_")
    );
    TESTS.iter().any(|source| source.contains(&test))
}

#[derive(TableRow, Clone, Debug, PartialEq)]
#[table("public.ex")]
pub(crate) struct Ex {
    #[key]
    pub(crate) id: i64,
    pub(crate) v: Option<String>,
}

/// How far a slot is confirmed.
pub(crate) async fn confirmed(server: &Server, slot: &str) -> u64 {
    let ask = format!(
        "select coalesce(confirmed_flush_lsn - '0/0'::pg_lsn, 0)::bigint \
         from pg_replication_slots where slot_name = '{slot}'"
    );
    server.psql("shop", &ask).parse().unwrap_or_default()
}

/// Where a mark goes on.
pub(crate) fn resume(mark: &Mark) -> u64 {
    match mark.resume {
        Some(Resume::Lsn(lsn)) => lsn.get(),
        _ => 0,
    }
}

/// A server with the database `shop`, and a folder for a log.
pub(crate) fn shop(settings: &[&str], setup: &str) -> (Server, String, tempfile::TempDir) {
    let server = Server::start(settings);
    let url = server.database("shop");
    server.psql("shop", setup);
    (server, url, tempfile::tempdir().unwrap())
}
