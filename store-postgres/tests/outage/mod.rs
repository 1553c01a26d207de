//! Stopping, killing and starting the test server.

// What must not fail is unwrapped; each test uses some of this.
#![allow(clippy::unwrap_used, dead_code)]

use std::process::Command;

use annals_postgres::sqlx;

use crate::server::connection;

/// One test at a time has the server.
pub(crate) static SERVER: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Fifty with `ANNALS_TEST_LONG=1`.
pub(crate) fn rounds() -> u64 {
    annals_core::conformance::rounds(4, 50)
}

/// Stops, kills (as in a crash) or starts the server, and waits until it is done.
pub(crate) async fn control(word: &'static str) {
    let control = std::env::var("ANNALS_TEST_POSTGRES_CONTROL").expect(
        "this test stops and starts the server: `cargo xtask test` allows it, or set \
         ANNALS_TEST_POSTGRES_CONTROL to a program that takes stop, kill or start; or leave it out \
         with `-- --skip server_restarts::`",
    );
    let done = tokio::task::spawn_blocking(move || Command::new(control).arg(word).status());
    let done = done.await.unwrap().unwrap();
    assert!(done.success(), "the server did not {word}");
}

/// -9 to every process of the server at once, as when the machine stops.
pub(crate) async fn kill_all() {
    let mut asked = connection().await;
    let file: String = sqlx::query_scalar("select pg_read_file('postmaster.pid', 0, 20)")
        .fetch_one(&mut asked)
        .await
        .unwrap();
    let postmaster = file.lines().next().unwrap().to_owned();
    let pids: Vec<i32> =
        sqlx::query_scalar("select pid from pg_stat_activity where pid is not null")
            .fetch_all(&mut asked)
            .await
            .unwrap();
    drop(asked);
    // Those that ended meanwhile are no longer there to be killed.
    let killed = Command::new("kill")
        .arg("-9")
        .arg(&postmaster)
        .args(pids.iter().map(i32::to_string))
        .stderr(std::process::Stdio::null())
        .status();
    killed.unwrap();
    // What is left of a killed server ends by itself before another one starts.
    control("stop").await;
}
