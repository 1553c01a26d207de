//! Real processes that are killed with `SIGKILL` while they write.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use annals::prelude::*;
use annals_core::conformance::Dice;
use tempfile::TempDir;

use crate::shop::{Location, Picture, caught_up, options, order, rebuild, sales};

const FILE: &str = "ANNALS_PIPELINES_FILE";

/// The process that is killed: appends and folds until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed() {
    let Ok(file) = std::env::var(FILE) else {
        return;
    };
    let db = Annals::open(&format!("sqlite:{file}")).await.unwrap();
    let head = db.store().head(annals::Partition(0)).await.unwrap();
    let mut number = head.visible.get();
    let mut dice = Dice::new(number);
    // A parent that is gone ends its child.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let options = options().lease(Duration::from_millis(300));
    let db = db.with(sales().options(options)).start().await.unwrap();
    caught_up(&db, "sales").await;
    loop {
        println!("\nwrites");
        order(&**db.store(), &mut dice, number, 5).await;
        number += 5;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_processes_leave_the_rows_of_a_rebuild() {
    let location = Location::File(TempDir::new().unwrap());
    let Location::File(directory) = &location else {
        unreachable!()
    };
    let file = directory.path().join("shop.db");
    let mut dice = Dice::new(11);
    for _ in 0..10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::a_process_that_is_killed", "--nocapture"])
            .env(FILE, &file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut says = |word: &str| {
            let mut said = lines.by_ref().map_while(Result::ok);
            assert!(said.any(|line| line == word), "it never said {word}");
        };
        for _ in 0..1 + dice.roll(12) {
            says("writes");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let store = location.open().await;
    let db = Annals::on(store.clone())
        .with(sales().options(options()))
        .caught_up()
        .start()
        .await
        .unwrap();
    caught_up(&db, "sales").await;
    let live = Picture::of(&*store, "sales").await;
    assert!(live.rows.len() > 10, "{} rows", live.rows.len());
    rebuild(&db, "sales").await;
    assert_eq!(Picture::of(&*store, "sales").await, live);
    db.stop().await;
}
