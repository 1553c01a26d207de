//! A poison event delays only its own key, and everything it delays is kept in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use annals_core::chrono::TimeDelta;
use annals_core::conformance::rounds;
use annals_core::{
    Annals, Append, DeadLetter, ManualClock, NewEvent, Partition, Position, Recorded, StreamId,
    Token,
};
use annals_macros::{Event, View};
use annals_projections::{
    Handlers, Poison, Program, Project, ReactError, ReadModels, Row, View, ViewError, ViewHandle,
    ViewSetup, With,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::bank::{
    AccountEvent, Balance, deposited, happens, mend, mended, noted, options, program, program_with,
};
use super::gateway::{Gateway, Texts, settled, texts};
use super::status::told;
use super::test_store::{TestStore, make_stores_with, store, store_on, stores};

pub(crate) async fn a_poison_event_delays_only_its_own_key() {
    for poison in ["poison", "panic"] {
        let store = store().await;
        let db = program(&store).await;
        happens(&db, "alice", deposited(5)).await;
        let bad = happens(&db, "alice", noted(poison)).await;
        let later = happens(&db, "alice", deposited(7)).await;
        let done = happens(&db, "bob", deposited(1)).await;

        let view = db.view::<Balance>();
        view.wait_for(&done, Duration::from_secs(30)).await.unwrap();
        assert_eq!(
            view.get("bob").await.unwrap(),
            Some(Balance {
                cents: 1,
                events: 1
            })
        );
        assert_eq!(
            view.get("alice").await.unwrap(),
            Some(Balance {
                cents: 5,
                events: 1
            }),
            "as before the poison"
        );

        let generation = store.views().generations("balances").await.unwrap()[0].id;
        let dead_letters = store
            .views()
            .dead_letters(generation, None, 10)
            .await
            .unwrap();
        let found: Vec<_> = dead_letters
            .iter()
            .map(|dead_letters| {
                (
                    dead_letters.position,
                    dead_letters.reason.is_some(),
                    &*dead_letters.key,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                (bad.events()[0].position, true, "alice"),
                (later.events()[0].position, false, "alice")
            ]
        );
        told(&db, "balances v1: up to date; 1 key in dead letters").await;
        db.stop().await;
    }
}

pub(crate) async fn asking_for_a_dead_lettered_write_is_an_error() {
    let store = store().await;
    let db = program(&store).await;
    happens(&db, "alice", deposited(1)).await;
    let dead = happens(&db, "alice", noted("poison")).await;
    let done = happens(&db, "alice", deposited(2)).await;
    let view = db.view::<Balance>();
    let error = view.get("alice").at_least(&done).await.unwrap_err();
    let position = dead.events()[0].position;
    assert!(
        matches!(&error, ViewError::DeadLetters { position: at, .. } if *at == position),
        "{error}"
    );
    assert!(
        error.to_string().contains("retry, skip or discard"),
        "{error}"
    );
    let row = Some(Balance {
        cents: 1,
        events: 1,
    });
    assert_eq!(view.get("alice").await.unwrap(), row, "as it is");
    assert_eq!(view.get("bob").at_least(&done).await.unwrap(), None);
    let several = view.many(["bob", "alice"]).at_least(&done).await;
    assert!(
        matches!(several, Err(ViewError::DeadLetters { key, .. }) if key == "alice"),
        "one of several lacks its events"
    );
    // The way out that the text names.
    view.discard("alice", "a test").await.unwrap();
    assert_eq!(view.get("alice").at_least(&done).await.unwrap(), row);
    db.stop().await;
}

pub(crate) async fn a_key_that_waits_still_waits_after_a_restart() {
    let store = store().await;
    let first = program(&store).await;
    let done = happens(&first, "alice", noted("poison")).await;
    first
        .view::<Balance>()
        .wait_for(&done, Duration::from_secs(30))
        .await
        .unwrap();
    first.stop().await;

    let second = program(&store).await;
    let done = happens(&second, "alice", deposited(7)).await;
    second
        .view::<Balance>()
        .wait_for(&done, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(second.view::<Balance>().get("alice").await.unwrap(), None);
}

/// Histories of three accounts with poison in them, and how many events are in a batch.
fn histories() -> impl Strategy<Value = (Vec<(u8, AccountEvent)>, usize)> {
    let event = prop_oneof![
        4 => (1..100_i64).prop_map(deposited),
        2 => Just(noted("poison")),
        1 => Just(AccountEvent::Closed),
    ];
    (prop::collection::vec((0..3_u8, event), 0..40), 1..45_usize)
}

/// The rows after each event, from the first on, when everything can be folded.
fn replayed(history: &[(u8, AccountEvent)]) -> Vec<BTreeMap<String, Balance>> {
    let mut rows: BTreeMap<String, Balance> = BTreeMap::new();
    let mut after = vec![rows.clone()];
    for (account, event) in history {
        match event {
            AccountEvent::Closed => _ = rows.remove(&account.to_string()),
            event => {
                let row = rows.entry(account.to_string()).or_default();
                row.events += 1;
                if let AccountEvent::Deposited { cents } = event {
                    row.cents += cents;
                }
            }
        }
        after.push(rows.clone());
    }
    after
}

pub(super) async fn contents(view: &ViewHandle<Balance>) -> BTreeMap<String, Balance> {
    view.rows()
        .await
        .unwrap()
        .rows
        .into_iter()
        .map(|row| (row.key, row.value))
        .collect()
}

async fn contents_at(view: &ViewHandle<Balance>, position: usize) -> BTreeMap<String, Balance> {
    let page = view
        .rows()
        .as_of(Position::new(position as u64))
        .await
        .unwrap();
    page.rows
        .into_iter()
        .map(|row| (row.key, row.value))
        .collect()
}

pub(super) async fn all_of(db: &Program, store: &TestStore) {
    let head = store.head(Partition(0)).await.unwrap().visible;
    let token = Token::new(store.id()).with(Partition(0), head);
    db.view::<Balance>()
        .wait_for(token, Duration::from_secs(30))
        .await
        .unwrap();
}

async fn check_retried(history: &[(u8, AccountEvent)], batch: usize, slots: u16) {
    let store = store().await;
    let writer = Annals::on(store.handle());
    let (before, after) = history.split_at(history.len() / 2);
    for (account, event) in before {
        happens(&writer, &account.to_string(), event.clone()).await;
    }
    let db = program_with(&store, options().batch_events_max(batch).slots(slots)).await;
    for (account, event) in after {
        happens(&writer, &account.to_string(), event.clone()).await;
    }
    all_of(&db, &store).await;
    let view = db.view::<Balance>();
    let poisoned: BTreeSet<String> = history
        .iter()
        .filter(|(_, event)| *event == noted("poison"))
        .map(|(of, _)| of.to_string())
        .collect();
    let dead_letters = view.dead_letter_keys(None, 100).await.unwrap();
    assert_eq!(
        dead_letters
            .iter()
            .map(|key| key.key.clone())
            .collect::<BTreeSet<_>>(),
        poisoned
    );
    assert!(
        dead_letters
            .iter()
            .all(|key| key.reason == "a poisoned note" && key.attempts == 1)
    );

    // In vain, and nothing changes but the number of attempts.
    let rows = contents(&view).await;
    view.retry_all().await.unwrap();
    assert_eq!(contents(&view).await, rows);
    let again = view.dead_letter_keys(None, 100).await.unwrap();
    assert!(
        again
            .iter()
            .zip(&dead_letters)
            .all(|(again, before)| again.attempts == 2 && again.position == before.position)
    );

    mend();
    let waited: u64 = dead_letters.iter().map(|key| key.queued + 1).sum();
    let settled = view.retry_all().await.unwrap();
    assert_eq!((settled.events, settled.still), (waited, None));
    assert_eq!(view.dead_letter_keys(None, 100).await.unwrap(), []);
    let moments = replayed(history);
    assert_eq!(contents(&view).await, moments[history.len()]);
    for (position, expected) in moments.iter().enumerate() {
        assert_eq!(
            contents_at(&view, position).await,
            *expected,
            "as of {position}"
        );
    }
    // The workers go on after it.
    happens(&writer, "0", deposited(1)).await;
    all_of(&db, &store).await;
    let events = moments[history.len()].get("0").map_or(0, |row| row.events);
    assert_eq!(view.get("0").await.unwrap().unwrap().events, events + 1);
    db.stop().await;
}

pub(crate) fn retried_dead_letters_fold_as_if_never_delayed() {
    let cases = ProptestConfig::with_cases(rounds(4, 64) as u32);
    proptest!(cases, |(
        (history, batch) in histories(),
        slots in 1..4_u16,
    )| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let stores = stores();
        // A thread of its own, because what is mended is so for the thread.
        std::thread::scope(|scope| {
            let checked = || {
                make_stores_with(stores);
                runtime.block_on(check_retried(&history, batch, slots));
            };
            scope.spawn(checked).join()
        })
        .unwrap();
    });
}

pub(crate) async fn a_fold_with_attempts_is_retried_by_itself() {
    let clock = Arc::new(ManualClock::default());
    let store = store_on(Arc::clone(&clock) as _).await;
    let db = Annals::on(store.handle()).with_clock(Arc::clone(&clock) as _);
    let options = options()
        .attempts(1_000, Duration::from_secs(60))
        .poll(Duration::from_millis(5));
    let db = db
        .with(Balance::projection().options(options))
        .start()
        .await
        .unwrap();
    happens(&db, "alice", noted("poison")).await;
    happens(&db, "alice", deposited(5)).await;
    all_of(&db, &store).await;
    let view = db.view::<Balance>();
    // A worker whose lease the clock has ended is followed by one that waits from then on, so time
    // goes on again until it is done.
    let attempts = async |done: fn(Option<u32>) -> bool| {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        for looks in 0_u64.. {
            let keys = view.dead_letter_keys(None, 1).await.unwrap();
            if done(keys.first().map(|key| key.attempts)) {
                break;
            }
            if looks % 400 == 0 {
                clock.advance(TimeDelta::seconds(60));
            }
            look.tick().await;
        }
    };
    attempts(|made| made.is_some_and(|made| made >= 2)).await;
    mend();
    attempts(|made| made.is_none()).await;
    assert_eq!(
        view.get("alice").await.unwrap(),
        Some(Balance {
            cents: 5,
            events: 2
        })
    );
    let done = happens(&db, "alice", deposited(5)).await;
    assert_eq!(
        view.get("alice").at_least(&done).await.unwrap(),
        Some(Balance {
            cents: 10,
            events: 3
        })
    );
}

pub(crate) async fn poison_among_many_events_delays_its_keys_and_no_other() {
    // Also the first and the last event, and the borders of batches.
    const EVENTS: usize = 6_000;
    let store = store().await;
    let stream = |key: usize| StreamId::new(format!("account-{key}")).unwrap();
    let is_poison = |number: usize| number.is_multiple_of(1_000) || number % 1_000 == 999;
    let event = |number: usize| match is_poison(number) {
        true => noted("poison"),
        false => deposited(1),
    };
    for first in (0..EVENTS).step_by(100) {
        let of = |append: Append, number: usize| {
            let event = NewEvent::of(&event(number)).unwrap();
            append.event(stream(number % 601), event)
        };
        let append = (first..first + 100).fold(Append::default(), of);
        store.append(append).await.unwrap();
    }
    let poisoned: BTreeSet<String> = (0..EVENTS)
        .filter(|number| is_poison(*number))
        .map(|number| (number % 601).to_string())
        .collect();
    let db = program_with(&store, options().batch_events_max(1_000).slots(2)).await;
    let view = db.view::<Balance>();
    let dead_letters: BTreeSet<String> = view
        .dead_letter_keys(None, 1_000)
        .await
        .unwrap()
        .into_iter()
        .map(|key| key.key)
        .collect();
    assert_eq!(dead_letters, poisoned);
    assert_eq!(db.status()[0].dead_letter_keys(), poisoned.len() as u64);
    let expected = |key: usize| (key..EVENTS).step_by(601).count() as u64;
    for key in (0..601).filter(|key| !poisoned.contains(&key.to_string())) {
        assert_eq!(
            view.get(key.to_string())
                .await
                .unwrap()
                .map(|row| row.events),
            Some(expected(key)),
            "{key}"
        );
    }
    mend();
    view.retry_all().await.unwrap();
    let rows = contents(&view).await;
    assert!((0..601).all(|key| rows[&key.to_string()].events == expected(key)));
}

/// One stored event that reads as several, as an upcaster makes it; the second of them may be a
/// poison.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(
    category = "account",
    crate = "annals_core",
    retired("account.batched", version = 1, upcast = apart)
)]
enum Single {
    Added { cents: i64 },
}

fn apart(cents: Vec<i64>) -> Vec<Single> {
    cents
        .into_iter()
        .map(|cents| Single::Added { cents })
        .collect()
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "sums",
    version = 1,
    events(Single),
    history,
    crate = "annals_projections"
)]
struct Sum {
    cents: i64,
}

impl Project<Single> for Sum {
    fn on(sum: &mut Row<'_, Self>, event: &Recorded<Single>) -> Result<(), Poison> {
        let Single::Added { cents } = event.event;
        if cents < 0 && !mended() {
            return Err(Poison::new("less than nothing"));
        }
        sum.cents += cents;
        Ok(())
    }
}

pub(crate) async fn an_upcast_to_several_is_folded_whole_or_not() {
    let store = store().await;
    let stream = StreamId::new("account-alice").unwrap();
    for payload in ["[1]", "[2, -10, 3]", "[4]"] {
        store
            .append(Append::new(
                stream.clone(),
                [NewEvent::json("account.batched", payload)],
            ))
            .await
            .unwrap();
    }
    let db = Annals::on(store.handle())
        .with(Sum::projection().options(options()))
        .start()
        .await
        .unwrap();
    let view = db.view::<Sum>();
    let at = async |position| {
        view.get("alice")
            .as_of(Position::new(position))
            .await
            .unwrap()
            .map_or(0, |row| row.cents)
    };
    assert_eq!(view.get("alice").await.unwrap(), Some(Sum { cents: 1 }));
    assert_eq!(view.waiting("alice", None, 100).await.unwrap().len(), 2);
    assert_eq!((at(1).await, at(2).await, at(3).await), (1, 1, 1));
    mend();
    view.retry("alice").await.unwrap();
    assert_eq!(view.get("alice").await.unwrap(), Some(Sum { cents: 0 }));
    assert_eq!((at(1).await, at(2).await, at(3).await), (1, -4, 0));
}

/// Refuses every note, at length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Wordy {}

impl View for Wordy {
    const NAME: &'static str = "wordy";
    type Key = String;

    fn handlers() -> Handlers<Self> {
        Handlers::new().on::<AccountEvent>()
    }
}

impl Project<AccountEvent> for Wordy {
    fn on(_: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        Err(Poison::new("ä".repeat(1 << 20)))
    }
}

pub(crate) async fn a_long_reason_is_recorded_as_far_as_it_is_read() {
    let store = store().await;
    let gateway = Gateway::default();
    gateway.refuse("alice", ReactError::permanent("ä".repeat(1 << 20)));
    let db = Annals::on(store.handle())
        .with(ViewSetup::<Wordy>::new().options(options()))
        .with(texts(&gateway));
    let db = db.start().await.unwrap();
    let done = happens(&db, "alice", deposited(1)).await;
    settled(&db, &done).await;
    let view = db.view::<Wordy>();
    view.wait_for(&done, Duration::from_secs(60)).await.unwrap();
    let of_view = view.dead_letters().all(None, 10).await.unwrap();
    let reactor = db.reactor::<Texts>();
    let of_reactor = reactor.dead_letters().all(None, 10).await.unwrap();
    let is_cut = |reasons: Vec<DeadLetter>, of: &str| {
        assert_eq!(reasons.len(), 1, "{of}");
        let reason = reasons[0].reason.clone().unwrap();
        assert!(reason.len() <= DeadLetter::REASON_BYTES_MAX, "{of}");
        assert!(reason.starts_with("ä"), "{of}");
        assert!(reason.ends_with("… (cut, of 2097152 bytes)"), "{of}");
    };
    is_cut(of_view, "a view");
    is_cut(of_reactor, "a reactor");
    view.retry("alice").await.unwrap();
    let again = view.dead_letters().all(None, 10).await.unwrap();
    is_cut(again, "a view again");
    reactor.retry("account-alice").await.unwrap();
    let again = async {
        loop {
            let again = reactor.dead_letters().all(None, 10).await.unwrap();
            // It has no reason while it is tried.
            if again.iter().any(|letter| letter.reason.is_some()) {
                return again;
            }
            tokio::task::yield_now().await;
        }
    };
    let again = tokio::time::timeout(Duration::from_secs(60), again).await;
    is_cut(again.unwrap(), "a reactor again");
    db.stop().await;
}
