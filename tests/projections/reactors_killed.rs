//! Reactors whose programs die at any moment miss nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annals_core::Annals;
use annals_projections::With;

use super::bank::{deposited, happens};
use super::gateway::{Gateway, Message, reacting, settled, texts};
use super::test_store::store;

/// Kills a program again and again, by dropping everything it does wherever it is, while events
/// are appended.
async fn killed_again_and_again(gateway: &Gateway, at_most_once: bool) -> Vec<Message> {
    const ACCOUNTS: i64 = 7;
    const EVENTS: i64 = 400;
    const KILLS: usize = 40;
    let store = store().await;
    let reaction = |gateway: &Gateway| match at_most_once {
        true => texts(gateway).at_most_once(),
        false => texts(gateway),
    };
    // What a killed program asked for last may still be done: its lease ends by itself then.
    let reaction = |gateway: &Gateway| reaction(gateway).lease(Duration::from_secs(5));
    let writer = reacting(&store, reaction(gateway)).await;
    writer.stop().await;
    let mut done = None;
    for number in 0..EVENTS {
        done = Some(
            happens(
                &writer,
                &format!("a{}", number % ACCOUNTS),
                deposited(number),
            )
            .await,
        );
    }
    let mut dice = 42_usize;
    for _ in 0..KILLS {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let on = Annals::on(store.handle());
        let reaction = reaction(gateway);
        let mut begun = gateway.begun.subscribe();
        runtime.spawn(async move {
            let _program = on.with(reaction).start().await.unwrap();
            std::future::pending::<()>().await;
        });
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let until = *begun.borrow() + (dice >> 33) % 12;
        // At the end nothing is left to be done, and a program is killed that has nothing to do.
        let _ = tokio::time::timeout(
            Duration::from_millis(50),
            begun.wait_for(|begun| *begun > until),
        )
        .await;
        runtime.shutdown_background();
        for state in store.views().leases("$reactor/").await.unwrap() {
            store.views().release_lease(&state.lease).await.unwrap();
        }
    }
    let last = reacting(&store, reaction(gateway)).await;
    settled(&last, &done.unwrap()).await;
    last.stop().await;
    gateway.sent()
}

pub(crate) async fn nothing_is_missed_and_every_repetition_has_the_same_key() {
    let gateway = Gateway::default();
    let sent = killed_again_and_again(&gateway, false).await;
    let mut keys: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for (_, cents, key) in &sent {
        keys.entry(*cents).or_default().insert(key.clone());
    }
    assert_eq!(keys.len(), 400, "none is missed");
    assert!(
        keys.values().all(|keys| keys.len() == 1),
        "the key of an event is always the same"
    );
    assert_eq!(
        keys.values().flatten().collect::<BTreeSet<_>>().len(),
        400,
        "and another one for each event"
    );
    for account in (0..7).map(|number| format!("a{number}")) {
        let mut seen = BTreeSet::new();
        let first_times: Vec<_> = gateway
            .sent_to(&account)
            .into_iter()
            .filter(|cents| seen.insert(*cents))
            .collect();
        assert!(first_times.is_sorted(), "{first_times:?}");
    }
}

pub(crate) async fn programs_that_keep_taking_over_from_each_other_miss_nothing() {
    let store = store().await;
    let gateway = Gateway::default();
    let mut programs = Vec::new();
    for _ in 0..3 {
        let reaction = texts(&gateway).lease(Duration::from_millis(40));
        programs.push(
            Annals::on(store.another_handle().await)
                .with(reaction)
                .start()
                .await
                .unwrap(),
        );
    }
    let robbed = store.clone();
    let robber = tokio::spawn(async move {
        loop {
            for state in robbed.views().leases("$reactor/").await.unwrap() {
                // Ends the lease under its holder, which goes on working until it notices.
                robbed.views().release_lease(&state.lease).await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    });
    let mut done = None;
    for number in 0..300 {
        done = Some(happens(&programs[0], &format!("a{}", number % 7), deposited(number)).await);
    }
    gateway.sends(50).await;
    robber.abort();
    settled(&programs[0], &done.unwrap()).await;
    let keys: BTreeSet<_> = gateway
        .sent()
        .into_iter()
        .map(|(_, cents, key)| (cents, key))
        .collect();
    assert_eq!(
        keys.len(),
        300,
        "each has one key, by whom ever it was called"
    );
    for program in programs {
        program.stop().await;
    }
}

pub(crate) async fn at_most_once_is_never_twice() {
    let sent = killed_again_and_again(&Gateway::default(), true).await;
    let different: BTreeSet<_> = sent.iter().map(|(_, cents, _)| *cents).collect();
    assert_eq!(different.len(), sent.len());
    assert!(sent.len() > 100, "{}", sent.len());
}
