//! Workers that are killed with `SIGKILL`, again and again at each of their steps.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::prelude::*;
use annals::{Partition, Store};
use annals_core::conformance::Dice;

use crate::child::{ChildProcess, Step, Work};
use crate::fixture::{SharedLogs, kills};
use crate::oracle::{Forgetful, HasCount, Tally, append, caught_up, differences, history, options};
use crate::oracle::{program, replay, rows};

const KEYS: u64 = 20;

/// How many events the rows have twice, and how many are missing, after a worker was killed at this
/// step again and again.
async fn killed_at<V: HasCount>(
    fixture: &dyn SharedLogs,
    step: Step,
    kills: u64,
    times_max: u64,
) -> (u64, u64) {
    let began = Instant::now();
    let place = fixture.place("log").await;
    let store = place.open().await;
    program::<V>(&store, options()).await.stop().await;
    let work = if V::NAME == Tally::NAME {
        Work::Follow
    } else {
        Work::FollowForgetful
    };
    let mut dice = Dice::new(kills + times_max);
    // Microseconds within which a process that writes is killed, and how many commits were broken
    // off.
    let mut within = 1_000;
    let mut broken_off = 0;
    for _ in 0..kills {
        // Enough for every step that it is killed at: five pages of ten.
        append(&*store, &mut dice, KEYS, 60).await;
        let child = ChildProcess::start(&place, work, step, 1 + dice.roll(times_max));
        child.says("here");
        if step == Step::InWrite {
            let until = Instant::now() + Duration::from_micros(dice.roll(within));
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        // The time that it is given follows on how long commits take, so that about half of them
        // are broken off.
        if child.killed().iter().any(|line| line == "took") {
            within -= within / 8;
        } else {
            within = within + within / 8;
            broken_off += 1;
        }
    }
    let found = found::<V>(&store, &mut dice, step == Step::Torn).await;
    let broken_off = if step == Step::InWrite {
        format!("; {broken_off} commits broken off")
    } else {
        String::new()
    };
    println!(
        "{kills} kills at {step}, {:.1} s: {found}{broken_off}",
        began.elapsed().as_secs_f64()
    );
    (found.twice, found.missing)
}

/// What the rows say in the end.
struct Found {
    events: u64,
    twice: u64,
    missing: u64,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found {
            events,
            twice,
            missing,
        } = self;
        write!(
            f,
            "{events} events over {KEYS} keys, {twice} applied twice, {missing} missing"
        )
    }
}

/// Brings the view to the head and compares it with a replay, and 20 moments of its past when it
/// has one. They are equal unless they may differ.
async fn found<V: HasCount>(store: &Arc<dyn Store>, dice: &mut Dice, may_differ: bool) -> Found {
    let head = store.head(Partition(0)).await.unwrap().visible;
    let db = program::<V>(store, options().batch_events_max(5_000)).await;
    caught_up::<V>(&db).await;
    let history = history(&**store).await;
    let found = rows::<V>(&db, None).await;
    let expected = replay(&history);
    let (twice, missing) = differences(&found, &expected);
    assert!(
        may_differ || found == expected,
        "the rows are not those of a replay: {twice} twice, {missing} missing"
    );
    if V::NAME == Tally::NAME {
        for _ in 0..20 {
            let moment = dice.roll(head.get() + 1);
            let past = rows::<V>(&db, Some(Position::new(moment))).await;
            assert_eq!(past, replay(&history[..moment as usize]), "as of {moment}");
        }
    }
    db.stop().await;
    Found {
        events: head.get(),
        twice,
        missing,
    }
}

async fn survives(fixture: &dyn SharedLogs, step: Step, times_max: u64) {
    assert_eq!(
        killed_at::<Tally>(fixture, step, kills(), times_max).await,
        (0, 0)
    );
}

pub(crate) async fn a_worker_killed_after_reading_harms_nothing(fixture: &dyn SharedLogs) {
    survives(fixture, Step::AfterRead, 5).await;
}

pub(crate) async fn a_worker_killed_while_folding_harms_nothing(fixture: &dyn SharedLogs) {
    survives(fixture, Step::InFold, 30).await;
}

pub(crate) async fn a_worker_killed_before_writing_harms_nothing(fixture: &dyn SharedLogs) {
    survives(fixture, Step::BeforeWrite, 3).await;
}

pub(crate) async fn a_worker_killed_while_writing_harms_nothing(fixture: &dyn SharedLogs) {
    survives(fixture, Step::InWrite, 3).await;
}

pub(crate) async fn a_worker_killed_after_a_commit_harms_nothing(fixture: &dyn SharedLogs) {
    survives(fixture, Step::AfterCommit, 3).await;
}

pub(crate) async fn a_worker_killed_before_a_renewal_harms_nothing(fixture: &dyn SharedLogs) {
    survives(fixture, Step::BeforeRenewal, 1).await;
}

/// The step of a process that is killed there is rolled back as a whole, or a server still commits
/// it as a whole.
pub(crate) async fn a_worker_killed_before_its_commit_ends_harms_nothing(fixture: &dyn SharedLogs) {
    let began = Instant::now();
    let place = fixture.place("log").await;
    let store = place.open().await;
    program::<Tally>(&store, options()).await.stop().await;
    let mut dice = Dice::new(6);
    let kills = kills();
    let mut kept = 0;
    for kill in 0..kills {
        // Enough for every step that it is killed at: five pages of ten.
        append(&*store, &mut dice, KEYS, 60).await;
        let mut child = ChildProcess::start(&place, Work::Follow, Step::Asks, 0);
        for _ in 0..dice.roll(3) {
            child.says("here");
            child.goes_on();
            child.says("came: ");
        }
        child.says("here");
        let before = stands_at(&*store).await;
        let mut held = fixture.hold_commits("log").await;
        child.goes_on();
        held.is_reached_by(&mut child).await;
        let said = child.killed();
        assert!(
            !said.iter().any(|line| line.starts_with("came: ")),
            "it was not held: {said:?}"
        );
        assert_eq!(
            stands_at(&*store).await,
            before,
            "what is not committed is seen"
        );
        let is_kept = held.end(kill % 2 == 0).await;
        assert_eq!(stands_at(&*store).await > before, is_kept);
        kept += u64::from(is_kept);
    }
    let found = found::<Tally>(&store, &mut dice, false).await;
    print!(
        "{kills} kills between write and COMMIT, {:.1} s: {found}",
        began.elapsed().as_secs_f64()
    );
    println!("; {kept} commits of dead processes");
}

/// How far the view has come.
async fn stands_at(store: &dyn Store) -> Position {
    let views = store.views().unwrap();
    let live = views
        .live_generation(Tally::NAME, Tally::VERSION)
        .await
        .unwrap()
        .expect("none serves");
    let checkpoints = views.checkpoints(live.id).await.unwrap();
    checkpoints
        .first()
        .map_or(Position::START, |of| of.position)
}

/// The tests above can fail: with the checkpoint in a transaction of its own they do.
pub(crate) async fn a_checkpoint_in_a_second_transaction_applies_events_twice(
    fixture: &dyn SharedLogs,
) {
    let (twice, missing) = killed_at::<Forgetful>(fixture, Step::Torn, 10, 2).await;
    assert!(
        twice > 0 && missing == 0,
        "{twice} twice, {missing} missing"
    );
}
