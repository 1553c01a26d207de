//! Workers that are killed with `SIGKILL`: 200 times at each of their steps.

use std::time::{Duration, Instant};

use annals::prelude::*;
use annals::{Log, Partition};
use tempfile::TempDir;

use crate::tally::{Counted, Dice, Forgetful, Tally, append, caught_up, differences, history, open, options};
use crate::tally::{program, replay, rows};
use crate::victim::{Step, Victim, Work};

const KILLS: u64 = 200;
const KEYS: u64 = 20;

/// How many events the rows have twice, and how many are missing, after a worker was killed at this step again and again.
async fn killed_at<V: Counted>(step: Step, kills: u64, times_max: u64) -> (u64, u64) {
    let began = Instant::now();
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("log.db");
    let store = open(&file).await;
    program::<V>(&store, options()).await.stop().await;
    let work = if V::NAME == Tally::NAME { Work::Follow } else { Work::FollowForgetful };
    let mut dice = Dice(kills + times_max);
    // Microseconds within which a process that writes is killed, and how many commits were broken off.
    let (mut within, mut broken_off) = (1_000, 0);
    for _ in 0..kills {
        append(&store, &mut dice, KEYS, 30).await;
        let victim = Victim::start(&file, work, step, 1 + dice.below(times_max));
        victim.says("here");
        if step == Step::InWrite {
            let until = Instant::now() + Duration::from_micros(dice.below(within));
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        // The time that it is given follows on how long commits take, so that about half of them are broken off.
        if victim.killed().iter().any(|line| line == "took") {
            within -= within / 8;
        } else {
            (within, broken_off) = (within + within / 8, broken_off + 1);
        }
    }
    let head = store.head(Partition(0)).await.unwrap().visible;
    let db = program::<V>(&store, options().batch_events_max(5_000)).await;
    caught_up::<V>(&db).await;
    let history = history(&store).await;
    let (found, expected) = (rows::<V>(&db, None).await, replay(&history));
    let (twice, missing) = differences(&found, &expected);
    print!("{kills} kills at {step}, {:.1} s: {head} events over {KEYS} keys", began.elapsed().as_secs_f64());
    print!(", {twice} applied twice, {missing} missing");
    println!("{}", if step == Step::InWrite { format!("; {broken_off} commits broken off") } else { String::new() });
    if step != Step::Torn {
        assert_eq!(found, expected, "the rows are not those of a replay");
    }
    if V::NAME == Tally::NAME {
        for _ in 0..20 {
            let moment = dice.below(head.get() + 1);
            let past = rows::<V>(&db, Some(Position::new(moment))).await;
            assert_eq!(past, replay(&history[..moment as usize]), "as of {moment}");
        }
    }
    db.stop().await;
    (twice, missing)
}

async fn survives(step: Step, times_max: u64) {
    assert_eq!(killed_at::<Tally>(step, KILLS, times_max).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_after_it_has_read_harms_nothing() {
    survives(Step::AfterRead, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_while_it_folds_harms_nothing() {
    survives(Step::InFold, 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_before_it_writes_harms_nothing() {
    survives(Step::BeforeWrite, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_while_it_writes_harms_nothing() {
    survives(Step::InWrite, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_after_a_commit_harms_nothing() {
    survives(Step::AfterCommit, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_before_it_renews_its_lease_harms_nothing() {
    survives(Step::BeforeRenewal, 1).await;
}

/// The tests above can fail: with the checkpoint in a transaction of its own they do.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_in_a_second_transaction_applies_events_twice() {
    let (twice, missing) = killed_at::<Forgetful>(Step::Torn, 10, 2).await;
    assert!(twice > 0 && missing == 0, "{twice} twice, {missing} missing");
}
