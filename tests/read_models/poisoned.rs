//! A poison event among a thousand others, twenty times (a hundred with `ANNALS_TEST_LONG=1`): its
//! key waits, the others go on, and after the fix nothing is missing.

use std::sync::atomic::Ordering;
use std::time::Instant;

use annals::prelude::*;
use annals::projections::Options;
use annals::store::{Append, NewEvent};
use annals_core::conformance::{Dice, rounds};
use tokio::sync::Mutex;

use crate::fixture::SharedLogs;
use crate::oracle::{
    MENDED, Rows, TIMEOUT, Tallied, Tally, caught_up, history, program, replay, rows,
};

const KEYS: u64 = 2_000;

fn key(number: u64) -> String {
    format!("{number:04}")
}

/// What is mended is so in all of this process.
static ONE_AFTER_ANOTHER: Mutex<()> = Mutex::const_new(());

pub(crate) async fn poison_delays_its_key_alone_and_drains_in_order(fixture: &dyn SharedLogs) {
    let _alone = ONE_AFTER_ANOTHER.lock().await;
    MENDED.store(false, Ordering::SeqCst);
    let store = fixture.place("log").await.open().await;
    // What there is before the first poison of each key, and the events that must wait.
    let mut before = Rows::new();
    let mut waiting = std::collections::BTreeMap::<String, u64>::new();
    let mut dice = Dice::new(9);
    let thousands = rounds(20, 100);
    for _ in 0..thousands {
        let mut append = Append::default();
        let poison = dice.roll(1_000);
        for number in 0..1_000 {
            let key = key(dice.roll(KEYS));
            let amount = dice.roll(1_000);
            let event = if number == poison {
                Tallied::Spoilt { amount }
            } else {
                Tallied::Added { amount }
            };
            match waiting.get_mut(&key) {
                Some(events) => *events += 1,
                None if number == poison => _ = waiting.insert(key.clone(), 1),
                None => before.entry(key.clone()).or_default().add(amount),
            }
            append = append.event(
                StreamId::new(format!("tally-{key}")).unwrap(),
                NewEvent::of(&event).unwrap(),
            );
        }
        store.append(append).await.unwrap();
    }
    let began = Instant::now();
    let db = program::<Tally>(&store, Options::default()).await;
    caught_up::<Tally>(&db).await;
    let folded = began.elapsed();
    let view = db.view::<Tally>();
    let dead_letters = view.dead_letter_keys(None, 1_000).await.unwrap();
    let found: Vec<_> = dead_letters
        .iter()
        .map(|of| (of.key.clone(), of.queued + 1))
        .collect();
    assert_eq!(found, waiting.clone().into_iter().collect::<Vec<_>>());
    assert_eq!(rows::<Tally>(&db, None).await, before);

    // Poison goes on coming, and the others are seen all the same.
    let clean = (0..KEYS)
        .map(key)
        .find(|key| !waiting.contains_key(key))
        .unwrap();
    let bad = waiting.keys().next().unwrap().clone();
    let good = clean;
    let mut lag = std::time::Duration::ZERO;
    for amount in 0..20 {
        let event = |event: Tallied| [NewEvent::of(&event).unwrap()];
        let stream = |key: &str| StreamId::new(format!("tally-{key}")).unwrap();
        store
            .append(Append::new(stream(&bad), event(Tallied::Spoilt { amount })))
            .await
            .unwrap();
        let appended = store
            .append(Append::new(stream(&good), event(Tallied::Added { amount })))
            .await
            .unwrap();
        let began = Instant::now();
        let token =
            Token::new(db.store().id()).with(appended.last().partition, appended.last().position);
        view.wait_for(token, TIMEOUT).await.unwrap();
        lag = lag.max(began.elapsed());
    }
    MENDED.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let settled = view.retry_all().await.unwrap();
    assert_eq!(
        (settled.events, settled.still),
        (waiting.values().sum::<u64>() + 20, None)
    );
    println!(
        "{thousands},000 events with {} poisoned keys folded in {:.1} s; the others were at most \
         {} ms of lag; {} events that waited drained in {:.1} s",
        waiting.len(),
        folded.as_secs_f64(),
        lag.as_millis(),
        settled.events,
        began.elapsed().as_secs_f64(),
    );
    assert_eq!(view.dead_letter_keys(None, 1_000).await.unwrap(), []);
    assert_eq!(
        rows::<Tally>(&db, None).await,
        replay(&history(&*store).await)
    );
    db.stop().await;
}
