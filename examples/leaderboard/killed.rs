//! Real processes that are killed with `SIGKILL` in the middle of a game, and started again.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use annals::ManualClock;
use annals::pipeline::Time;
use annals::prelude::*;
use annals::projections::Options;
use annals::sqlite::{Options as File, SqliteStore};
use annals_core::conformance::{Dice, rounds};
use chrono::{DateTime, TimeDelta, Utc};

use crate::board::{Board, hour, leaderboard};
use crate::game::{EVENTS, Game, Scored, begin, play};
use crate::tests::counted_in;

const FILE: &str = "ANNALS_LEADERBOARD_FILE";

/// The part of the game that is played: from before the end of the first hour, or all of it.
fn part() -> Vec<Scored> {
    let events = rounds(5_000, EVENTS) as usize;
    let first = if events as u64 == EVENTS { 0 } else { 14_000 };
    Game::new(7).skip(first).take(events).collect()
}

async fn started(file: &str, clock: &Arc<ManualClock>) -> Program {
    let options = File::file(file).clock(Arc::<ManualClock>::clone(clock));
    let store = SqliteStore::open_with(options).await.unwrap();
    let options = Options::default().lease(Duration::from_millis(300));
    let db = Annals::on(Arc::new(store)).with(leaderboard().options(options));
    db.start_in_background().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is the process that the other test starts and kills"]
async fn a_game_that_is_killed() {
    // A parent that is gone ends its child.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let clock = Arc::new(ManualClock::at(begin()));
    let db = started(&std::env::var(FILE).unwrap(), &clock).await;
    let game = part().into_iter();
    play(&**db.store(), &clock, game, || println!("\nplayed"))
        .await
        .unwrap();
    loop {
        println!("\nplayed");
        std::thread::yield_now();
    }
}

fn played(child: &mut Child, appends: u64) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..appends {
        let mut said = lines.by_ref().map_while(Result::ok);
        assert!(said.any(|line| line == "played"), "it plays on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boards_of_killed_games_are_those_of_a_count() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("leaderboard.db");
    let file = file.to_str().unwrap();
    let mut dice = Dice::new(17);
    let kills = rounds(4, 50);
    let all = part();
    let each = all.len() as u64 / 100 / kills;
    for _ in 0..kills {
        let this = "killed::a_game_that_is_killed";
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", this, "--nocapture"])
            .env(FILE, file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        played(&mut child, 1 + dice.roll(2 * each));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let clock = Arc::new(ManualClock::at(begin()));
    let db = started(file, &clock).await;
    play(&**db.store(), &clock, all.clone().into_iter(), || ())
        .await
        .unwrap();
    // No lease of a killed process lasts so long.
    clock.set(begin() + TimeDelta::hours(9));
    let end = begin() + TimeDelta::hours(4);
    let done = db
        .advance_clock(Time::from_micros(end.timestamp_micros()))
        .await
        .unwrap();
    let boards = db.view::<Board>();
    boards
        .wait_for(done, Duration::from_secs(60))
        .await
        .unwrap();
    let first = all[0].recorded;
    let last = all.last().unwrap().recorded;
    let counted = |number, by: DateTime<Utc>| counted_in(all.clone().into_iter(), number, by);
    let hours = (first - begin()).num_hours()..=(last - begin()).num_hours();
    assert!(hours.clone().count() > 1, "an hour begins again");
    for rebuilt in [false, true] {
        if rebuilt {
            let rebuild = db.pipeline("leaderboard").unwrap().rebuild();
            let building = rebuild.begin().await.unwrap();
            building.finished(|_| ()).await.unwrap();
        }
        for number in hours.clone() {
            let board = boards.get(hour(number)).await.unwrap().unwrap();
            assert_eq!(board.best, counted(number, last), "hour {number}");
        }
        for part in 1..10 {
            let then = first + (last - first) / 10 * part;
            let number = (then - begin()).num_hours();
            let board = boards.get(hour(number)).as_of(then).await.unwrap();
            let board = board.unwrap_or_default();
            assert_eq!(board.best, counted(number, then), "at {then}");
        }
    }
    db.stop().await;
}
