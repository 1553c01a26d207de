//! Leases: one holder at a time by the clock of the store, and an epoch that never returns.

use std::sync::Arc;
use std::time::Duration;

use super::Fixture;
use super::view_words::*;
use super::words::*;
use crate::chrono::TimeDelta;
use crate::clock::{Clock, ManualClock};
use crate::lease::{Acquired, LeaseState, Leases};

const MICROSECOND: TimeDelta = TimeDelta::microseconds(1);

async fn held(leases: &dyn Leases, name: &str, owner: &str) -> LeaseState {
    match leases.acquire_lease(name, owner, TTL).await.unwrap() {
        Acquired::Held(state) => state,
        Acquired::Granted(lease) => panic!("it had to be held, but {lease:?} was granted"),
    }
}

pub async fn are_held_by_one_until_the_store_clock_ends_them(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::default());
    let store = open_at(fixture, &clock).await;
    let leases = views(&*store);
    let first = granted(
        leases
            .acquire_lease("a/1/0", "worker-a", TTL)
            .await
            .unwrap(),
    );
    assert_eq!(
        (first.name.as_str(), first.owner.as_str()),
        ("a/1/0", "worker-a")
    );
    let end = clock.now() + TTL;
    for moment in [
        clock.now(),
        clock.now() + TimeDelta::seconds(5),
        end - MICROSECOND,
    ] {
        clock.set(moment);
        for owner in ["worker-b", "worker-a"] {
            let state = LeaseState {
                lease: first.clone(),
                until: end,
                expired: false,
            };
            assert_eq!(
                held(leases, "a/1/0", owner).await,
                state,
                "{owner} asks at {moment}"
            );
        }
    }
    granted(
        leases
            .acquire_lease("a/1/1", "worker-b", TTL)
            .await
            .unwrap(),
    );
    clock.set(end);
    assert_eq!(
        leases.leases("a/1/0").await.unwrap(),
        [LeaseState {
            lease: first.clone(),
            until: end,
            expired: true
        }]
    );
    let second = granted(
        leases
            .acquire_lease("a/1/0", "worker-b", TTL)
            .await
            .unwrap(),
    );
    assert!(second.epoch > first.epoch, "{second:?} after {first:?}");
    assert_eq!(held(leases, "a/1/0", "worker-a").await.lease, second);
}

pub async fn are_renewed_until_another_worker_takes_them(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::default());
    let store = open_at(fixture, &clock).await;
    let leases = views(&*store);
    let first = granted(leases.acquire_lease("a", "worker-a", TTL).await.unwrap());
    clock.advance(TimeDelta::seconds(6));
    assert!(leases.renew_lease(&first, TTL).await.unwrap());
    clock.advance(TimeDelta::seconds(6));
    assert_eq!(
        held(leases, "a", "worker-b").await.until,
        clock.now() + TimeDelta::seconds(4)
    );
    // It has ended, and was not taken.
    clock.advance(TimeDelta::seconds(60));
    assert!(leases.renew_lease(&first, TTL).await.unwrap());
    assert_eq!(held(leases, "a", "worker-b").await.lease, first);
    // The same owner loses it to itself: another process with its name, or itself before it was
    // restarted.
    clock.advance(TimeDelta::seconds(10));
    let second = granted(leases.acquire_lease("a", "worker-a", TTL).await.unwrap());
    assert!(second.epoch > first.epoch);
    let end = clock.now() + TTL;
    clock.advance(TimeDelta::seconds(1));
    assert!(!leases.renew_lease(&first, TTL).await.unwrap());
    assert_eq!(
        held(leases, "a", "worker-b").await.until,
        end,
        "the end of the newer one was moved"
    );
    assert!(leases.renew_lease(&second, TTL).await.unwrap());
    let never = crate::lease::Lease {
        name: "b".into(),
        ..second
    };
    assert!(!leases.renew_lease(&never, TTL).await.unwrap());
    assert!(leases.leases("b").await.unwrap().is_empty());
}

pub async fn are_renewed_together_each_by_itself(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::default());
    let store = open_at(fixture, &clock).await;
    let leases = views(&*store);
    let mut all = Vec::new();
    for name in ["a", "b", "c"] {
        all.push(granted(
            leases.acquire_lease(name, "worker-a", TTL).await.unwrap(),
        ));
    }
    leases.release_lease(&all[1]).await.unwrap();
    clock.advance(TimeDelta::seconds(6));
    // An older lease of a name that is held again is as lost as it is alone.
    leases.release_lease(&all[2]).await.unwrap();
    let again = leases.acquire_lease("c", "worker-a", TTL).await.unwrap();
    all.push(granted(again));
    let renewed = leases.renew_leases(&all, TTL).await.unwrap();
    assert_eq!(renewed, [true, false, false, true]);
    for name in ["a", "c"] {
        assert_eq!(
            held(leases, name, "worker-b").await.until,
            clock.now() + TTL
        );
    }
    assert!(leases.renew_leases(&[], TTL).await.unwrap().is_empty());
}

pub async fn that_are_given_back_are_free_at_once(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::default());
    let store = open_at(fixture, &clock).await;
    let leases = views(&*store);
    let first = granted(leases.acquire_lease("a", "worker-a", TTL).await.unwrap());
    leases.release_lease(&first).await.unwrap();
    let states = leases.leases("a").await.unwrap();
    assert!(states.iter().all(|state| state.expired), "{states:?}");
    assert!(
        !leases.renew_lease(&first, TTL).await.unwrap(),
        "what was given back is not renewed"
    );
    let second = granted(leases.acquire_lease("a", "worker-b", TTL).await.unwrap());
    assert!(second.epoch > first.epoch);
    leases.release_lease(&first).await.unwrap();
    assert_eq!(
        held(leases, "a", "worker-c").await.lease,
        second,
        "the lease of another was given back"
    );
    leases.release_lease(&second).await.unwrap();
    leases.release_lease(&second).await.unwrap();
    granted(leases.acquire_lease("a", "worker-c", TTL).await.unwrap());
}

pub async fn never_reuse_an_epoch(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::default());
    let mut store = open_at(fixture, &clock).await;
    let mut newest = 0;
    for round in 0..20 {
        let lease = granted(
            views(&*store)
                .acquire_lease("a", "worker-a", TTL)
                .await
                .unwrap(),
        );
        assert!(
            lease.epoch > newest,
            "epoch {} after {newest}, round {round}",
            lease.epoch
        );
        newest = lease.epoch;
        if round % 2 == 0 {
            views(&*store).release_lease(&lease).await.unwrap();
        } else {
            clock.advance(TimeDelta::seconds(10));
        }
        if round % 5 == 0 {
            store = reopen_at(fixture, &clock, store).await;
        }
    }
}

pub async fn asked_for_by_many_are_granted_to_exactly_one(fixture: &dyn Fixture) {
    let one = open(fixture).await;
    let two = another(fixture, &one).await;
    for round in 0..10 {
        let answers = at_once((0..8).map(|task| {
            let store = Arc::clone(if task % 2 == 0 { &one } else { &two });
            let name = format!("a/{round}");
            async move {
                views(&*store)
                    .acquire_lease(&name, &format!("worker-{task}"), TTL)
                    .await
                    .unwrap()
            }
        }))
        .await;
        let winners = answers.iter().filter_map(|answer| match answer {
            Acquired::Granted(lease) => Some(lease),
            Acquired::Held(_) => None,
        });
        let winners: Vec<_> = winners.collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        for answer in &answers {
            let (Acquired::Granted(lease) | Acquired::Held(LeaseState { lease, .. })) = answer;
            assert_eq!(lease, winners[0]);
        }
    }
}

pub async fn are_listed_by_prefix_byte_by_byte(fixture: &dyn Fixture) {
    let store = open(fixture).await;
    let leases = views(&*store);
    for name in [
        "a/1/0", "a_/1/0", "A/1/0", "a%/1/0", "a/10/0", "ab/1/0", "ä/1/0", "a/1/10", "a/1/2",
    ] {
        granted(leases.acquire_lease(name, "worker-a", TTL).await.unwrap());
    }
    let all = [
        "A/1/0", "a%/1/0", "a/1/0", "a/1/10", "a/1/2", "a/10/0", "a_/1/0", "ab/1/0", "ä/1/0",
    ];
    for prefix in [
        "",
        "a",
        "A",
        "a/",
        "a/1",
        "a/1/",
        "a/1/0",
        "a_",
        "a%",
        "a__",
        "ä",
        "\u{10ffff}",
        "%",
        "b",
        "'",
    ] {
        let found = leases.leases(prefix).await.unwrap();
        let found: Vec<&str> = found
            .iter()
            .map(|state| state.lease.name.as_str())
            .collect();
        let expected: Vec<&str> = all
            .into_iter()
            .filter(|name| name.starts_with(prefix))
            .collect();
        assert_eq!(found, expected, "prefix `{prefix}`");
    }
}

pub async fn survive_reopening(fixture: &dyn Fixture) {
    let clock = Arc::new(ManualClock::default());
    let store = open_at(fixture, &clock).await;
    clock.advance(MICROSECOND);
    let lease = granted(
        views(&*store)
            .acquire_lease("ä'\"/1/0", "wörker 'a'", TTL)
            .await
            .unwrap(),
    );
    let end = clock.now() + TTL;
    let for_ever = granted(
        views(&*store)
            .acquire_lease("for ever", "worker-a", Duration::MAX)
            .await
            .unwrap(),
    );
    let released = granted(
        views(&*store)
            .acquire_lease("released", "worker-a", TTL)
            .await
            .unwrap(),
    );
    views(&*store).release_lease(&released).await.unwrap();
    let store = reopen_at(fixture, &clock, store).await;
    let leases = views(&*store);
    let found = leases.leases("ä").await.unwrap();
    assert_eq!(
        found,
        [LeaseState {
            lease: lease.clone(),
            until: end,
            expired: false
        }]
    );
    assert!(!leases.renew_lease(&released, TTL).await.unwrap());
    assert!(leases.renew_lease(&lease, TTL).await.unwrap());
    clock.advance(TimeDelta::days(365 * 1_000));
    assert_eq!(held(leases, "for ever", "worker-b").await.lease, for_ever);
}
