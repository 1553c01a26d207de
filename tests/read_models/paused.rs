//! A worker that is paused for longer than its lease, with a commit on its lips: what it says when
//! it wakes up changes nothing.

use std::time::{Duration, Instant};

use annals::Store;
use annals_core::conformance::Dice;

use crate::child::{ChildProcess, Step, Work};
use crate::fixture::{SharedLogs, kills};
use crate::oracle::{Tally, append, caught_up, history, options, program, replay, rows};

/// Stops it at a moment at which it does not write: one that is stopped in the middle of that keeps
/// a file from everybody else.
pub(crate) async fn stop(sleeper: &ChildProcess, store: &dyn Store) {
    loop {
        sleeper.stops();
        let writes = store.views().unwrap().acquire_lease(
            "whether it can be written",
            "the test",
            Duration::ZERO,
        );
        match tokio::time::timeout(Duration::from_millis(500), writes).await {
            Ok(written) => return drop(written.unwrap()),
            Err(_) => sleeper.signal("CONT"),
        }
    }
}

pub(crate) async fn a_worker_paused_past_its_lease_is_fenced(fixture: &dyn SharedLogs) {
    let began = Instant::now();
    let pauses = kills() / 2;
    let place = fixture.place("log").await;
    let store = place.open().await;
    program::<Tally>(&store, options()).await.stop().await;
    let mut dice = Dice::new(pauses);
    let mut sleeper = ChildProcess::start(&place, Work::Follow, Step::Asks, 0);
    for pause in 0..pauses {
        append(&*store, &mut dice, 20, 30).await;
        sleeper.says("here");
        stop(&sleeper, &*store).await;
        let other = program::<Tally>(&store, options()).await;
        caught_up::<Tally>(&other).await;
        sleeper.signal("CONT");
        sleeper.goes_on();
        assert_eq!(sleeper.says("came: "), "came: fenced", "pause {pause}");
        assert_eq!(
            rows::<Tally>(&other, None).await,
            replay(&history(&*store).await),
            "pause {pause}"
        );
        other.stop().await;
        // It works again, on what comes next.
        append(&*store, &mut dice, 20, 5).await;
        sleeper.says("here");
        sleeper.goes_on();
        assert_eq!(sleeper.says("came: "), "came: committed", "pause {pause}");
    }
    sleeper.killed();
    println!(
        "{pauses} pauses past the lease in {:.1} s: {pauses} commits refused",
        began.elapsed().as_secs_f64()
    );
}
