//! A worker that is paused for longer than its lease, with a commit on its lips: what it says when it wakes up changes nothing.

use std::time::{Duration, Instant};

use annals::Leases;
use annals::sqlite::SqliteStore;
use tempfile::TempDir;

use crate::tally::{Dice, Tally, append, caught_up, history, open, options, program, replay, rows};
use crate::victim::{Step, Victim, Work};

const PAUSES: u64 = 100;

/// Stops it at a moment at which it does not write: whoever is stopped in the middle of that keeps the file from everybody else.
async fn stop(sleeper: &Victim, store: &SqliteStore) {
    loop {
        sleeper.stops();
        let writes = store.acquire_lease("whether it can be written", "the test", Duration::ZERO);
        match tokio::time::timeout(Duration::from_millis(500), writes).await {
            Ok(written) => return drop(written.unwrap()),
            Err(_) => sleeper.signal("CONT"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_paused_past_its_lease_is_refused_100_times() {
    let began = Instant::now();
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("log.db");
    let store = open(&file).await;
    program::<Tally>(&store, options()).await.stop().await;
    let mut dice = Dice(PAUSES);
    let mut sleeper = Victim::start(&file, Work::Follow, Step::Asks, 0);
    for pause in 0..PAUSES {
        append(&store, &mut dice, 20, 30).await;
        sleeper.says("here");
        stop(&sleeper, &store).await;
        let other = program::<Tally>(&store, options()).await;
        caught_up::<Tally>(&other).await;
        sleeper.signal("CONT");
        sleeper.goes_on();
        assert_eq!(sleeper.says("came: "), "came: fenced", "pause {pause}");
        assert_eq!(rows::<Tally>(&other, None).await, replay(&history(&store).await), "pause {pause}");
        other.stop().await;
        // It works again, on what comes next.
        append(&store, &mut dice, 20, 5).await;
        sleeper.says("here");
        sleeper.goes_on();
        assert_eq!(sleeper.says("came: "), "came: committed", "pause {pause}");
    }
    sleeper.killed();
    println!("{PAUSES} pauses past the lease in {:.1} s: {PAUSES} commits refused", began.elapsed().as_secs_f64());
}
