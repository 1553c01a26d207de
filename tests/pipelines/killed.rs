//! Real processes that are killed with `SIGKILL` while they write.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use annals::prelude::*;
use annals_core::conformance::{Dice, rounds};

use crate::shop::{Location, Picture, caught_up, open, options, order, rebuild, sales};

const STORE: &str = "ANNALS_PIPELINES_STORE";

/// The process that is killed: appends and folds until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is the process that the other tests start and kill"]
async fn a_process_that_is_killed() {
    let store = open(&std::env::var(STORE).unwrap()).await;
    let head = store.head(annals::Partition(0)).await.unwrap();
    let mut number = head.visible.get();
    let mut dice = Dice::new(number);
    // A parent that is gone ends its child.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let options = options().lease(Duration::from_millis(300));
    let db = Annals::on(store).with(sales().options(options));
    let db = db.start().await.unwrap();
    caught_up(&db, "sales").await;
    loop {
        println!("\nwrites");
        order(&**db.store(), &mut dice, number, 5).await;
        number += 5;
    }
}

pub(crate) async fn killed_processes_leave_the_rows_of_a_rebuild(location: Location) {
    // The first one finds the store as it will be.
    location.open().await;
    let mut dice = Dice::new(11);
    for _ in 0..rounds(5, 50) {
        let this = "killed::a_process_that_is_killed";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", this, "--nocapture"])
            .env(STORE, location.name())
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
