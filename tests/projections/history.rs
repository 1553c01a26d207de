//! How rows became what they are: exact, whatever the batches were.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::conformance::rounds;
use annals_core::{Acquired, Annals, Checkpoint, ManualClock, Position, Recorded};
use annals_macros::View;
use annals_projections::{Options, Poison, Project, ReadModels, Row, View, ViewError, With};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::bank::{Account, AccountEvent, Balance, deposited, happens, options, program_with};
use super::test_store::{store, store_on};

type Rows = BTreeMap<String, Balance>;

fn event() -> impl Strategy<Value = AccountEvent> {
    prop_oneof![
        4 => (1..100_i64).prop_map(deposited),
        1 => Just(AccountEvent::Closed),
    ]
}

/// The rows after each event, from before the first on.
fn replayed(history: &[(u8, AccountEvent)]) -> Vec<Rows> {
    let mut moments = vec![Rows::new()];
    for (account, event) in history {
        let mut rows = moments[moments.len() - 1].clone();
        match event {
            AccountEvent::Deposited { cents } => {
                let row = rows.entry(account.to_string()).or_default();
                row.cents += cents;
                row.events += 1;
            }
            _ => _ = rows.remove(&account.to_string()),
        }
        moments.push(rows);
    }
    moments
}

pub(crate) fn row_history_and_changes_equal_a_replay() {
    let cases = ProptestConfig::with_cases(rounds(4, 64) as u32);
    proptest!(cases, |(
        history in prop::collection::vec((0..3_u8, event()), 0..40),
        batch in 1..45_usize,
        slots in 1..3_u16,
        limit in 1..9_usize,
        ends in (0..41_usize, 0..41_usize),
    )| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let store = store().await;
            let writer = Annals::on(store.handle());
            let (before, after) = history.split_at(history.len() * 2 / 3);
            for (account, event) in before {
                happens(&writer, &account.to_string(), event.clone()).await;
            }
            let db = program_with(&store, options().batch_events_max(batch).slots(slots)).await;
            for (account, event) in after {
                let done = happens(&writer, &account.to_string(), event.clone()).await;
                db.view::<Balance>()
                    .wait_for(&done, Duration::from_secs(30))
                    .await
                    .unwrap();
            }
            let view = db.view::<Balance>();
            let moments = replayed(&history);
            for account in 0..3 {
                let key = account.to_string();
                let mut expected: Vec<(u64, Option<&Balance>)> = Vec::new();
                let mut last = None;
                for (position, rows) in moments.iter().enumerate() {
                    if rows.get(&key) != last {
                        last = rows.get(&key);
                        expected.push((position as u64, last));
                    }
                }
                let mut found = Vec::new();
                let mut after = Some(Position::START);
                while let Some(place) = after {
                    let page = view
                        .history(key.clone())
                        .after(place)
                        .limit(limit)
                        .await
                        .unwrap();
                    assert!(page.versions.len() <= limit);
                    found.extend(page.versions);
                    after = page.next;
                }
                let told: Vec<_> = found
                    .iter()
                    .map(|of| (of.from.get(), of.value.as_ref()))
                    .collect();
                assert_eq!(told, expected, "{key}");
                let untils: Vec<_> = found
                    .iter()
                    .map(|of| of.until.map(|(position, _)| position))
                    .collect();
                let ends: Vec<_> = found
                    .iter()
                    .skip(1)
                    .map(|of| Some(of.from))
                    .chain([None])
                    .take(found.len())
                    .collect();
                assert_eq!(untils, ends, "{key}");
            }
            let from = ends.0.min(ends.1).min(history.len());
            let to = ends.0.max(ends.1).min(history.len());
            let mut found = BTreeMap::new();
            let mut after = None;
            loop {
                let between = (Position::new(from as u64), Position::new(to as u64));
                let page = view
                    .changed_between(between.0, between.1)
                    .after(after)
                    .limit(limit)
                    .await
                    .unwrap();
                assert_eq!(page.between, between);
                found.extend(
                    page.changes
                        .into_iter()
                        .map(|of| (of.key, (of.before, of.after))),
                );
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            let mut expected = BTreeMap::new();
            for key in ["0", "1", "2"].map(str::to_owned) {
                let before = moments[from].get(&key).cloned();
                let after = moments[to].get(&key).cloned();
                if before != after {
                    expected.insert(key, (before, after));
                }
            }
            assert_eq!(found, expected, "between {from} and {to}");
            let keys = ["2", "0", "nobody", "1", "0"];
            let many = view
                .many(keys)
                .as_of(Position::new(to as u64))
                .await
                .unwrap();
            assert_eq!(many, keys.map(|key| moments[to].get(key).cloned()));
            let many = view.many(keys).await.unwrap();
            assert_eq!(
                many,
                keys.map(|key| moments[history.len()].get(key).cloned())
            );
            db.stop().await;
        });
    });
}

pub(crate) async fn several_rows_are_read_as_of_one_moment() {
    let store = store().await;
    let db = program_with(&store, options().slots(1)).await;
    let writer = Annals::on(store.handle());
    let writing = tokio::spawn(async move {
        for _ in 0..200 {
            for key in ["a", "b"] {
                happens(&writer, key, deposited(1)).await;
            }
        }
    });
    let view = db.view::<Balance>();
    while !writing.is_finished() {
        let rows = view.many(["a", "b"]).await.unwrap();
        let [a, b] = [0, 1].map(|index| rows[index].as_ref().map_or(0, |row: &Balance| row.cents));
        assert!(
            a == b || a == b + 1,
            "{a} and {b} were never there together"
        );
    }
}

/// What was paid, by what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "paid",
    version = 1,
    events(AccountEvent),
    history(bitemporal),
    crate = "annals_projections"
)]
struct Paid {
    cents: i64,
}

impl Project<AccountEvent> for Paid {
    fn on(paid: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        match event.event {
            AccountEvent::Deposited { cents } => paid.cents += cents,
            AccountEvent::Withdrawn { cents } if cents > paid.cents => {
                return Err(Poison::new("more than there is"));
            }
            AccountEvent::Withdrawn { cents } => paid.cents -= cents,
            _ => {}
        }
        Ok(())
    }
}

fn day(day: u32) -> DateTime<Utc> {
    format!("2026-03-{day:02}T12:00:00Z").parse().unwrap()
}

pub(crate) async fn valid_at_folds_what_had_occurred_by_then() {
    let store = store().await;
    let db = Annals::on(store.handle())
        .with(Paid::projection().options(options()))
        .start()
        .await
        .unwrap();
    let alice = db.aggregate::<Account>("alice");
    let mut last = None;
    // Told in this order, occurred on these days.
    for (cents, on) in [(1, 5), (10, 3), (100, 7), (1_000, 1)] {
        last = Some(
            alice
                .run(|_| Ok::<_, String>(deposited(cents)))
                .occurred_at(day(on))
                .await
                .unwrap(),
        );
    }
    let view = db.view::<Paid>();
    view.wait_for(&last.unwrap(), Duration::from_secs(30))
        .await
        .unwrap();
    for known in 1..=4_u64 {
        for on in 1..=8 {
            let told = &[(1, 5), (10, 3), (100, 7), (1_000, 1)][..known as usize];
            let expected: i64 = told
                .iter()
                .filter(|(_, day)| *day <= on)
                .map(|(cents, _)| cents)
                .sum();
            let row = view
                .get("alice")
                .as_of(Position::new(known))
                .valid_at(day(on))
                .await
                .unwrap();
            assert_eq!(
                row.map_or(0, |row| row.cents),
                expected,
                "day {on}, by what was known at {known}"
            );
            if known == 4 {
                let row = view.get("alice").valid_at(day(on)).await.unwrap();
                assert_eq!(row.map_or(0, |row| row.cents), expected, "day {on}");
            }
        }
    }
    assert_eq!(
        view.get("nobody")
            .valid_at("2026-03-08T00:00:00Z")
            .await
            .unwrap(),
        None
    );
    let error = view.get("alice").valid_at("monday").await.unwrap_err();
    assert!(
        error.to_string().contains("`monday` is no RFC 3339 time"),
        "{error}"
    );
    let done = alice
        .run(|_| Ok::<_, String>(AccountEvent::Withdrawn { cents: 500 }))
        .occurred_at(day(1) - TimeDelta::days(1))
        .await
        .unwrap();
    view.wait_for(&done, Duration::from_secs(30)).await.unwrap();
    let error = view
        .get("alice")
        .valid_at(day(1) - TimeDelta::hours(1))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(
            "without what occurred later, the event at 5 cannot be folded: more than there is"
        ),
        "{error}"
    );
}

pub(crate) async fn questions_beyond_the_kept_history_are_errors() {
    let store = store().await;
    let db = program_with(&store, options()).await;
    let error = db
        .view::<Balance>()
        .get("alice")
        .valid_at(day(1))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ViewError::Invalid(_))
            && error.to_string().contains("history(bitemporal)"),
        "{error}"
    );
    happens(&db, "alice", deposited(1)).await;
    let error = db
        .view::<Balance>()
        .changed_between(Position::new(1), Position::START)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "a change from position 1 back to 0");
}

pub(crate) async fn history_past_its_retention_is_forgotten_with_an_error() {
    let clock = Arc::new(ManualClock::default());
    let store = store_on(Arc::clone(&clock) as _).await;
    let db = Annals::on(store.handle()).with_clock(Arc::clone(&clock) as _);
    let options = options()
        .history_for(Duration::from_secs(86_400 * 10))
        .poll(Duration::from_millis(5));
    let db = db
        .with(Balance::projection().options(options))
        .start()
        .await
        .unwrap();
    let view = db.view::<Balance>();
    for cents in [1, 10, 100, 1_000] {
        let done = happens(&db, "alice", deposited(cents)).await;
        view.wait_for(&done, Duration::from_secs(30)).await.unwrap();
        clock.advance(TimeDelta::days(4));
    }
    // It is the 17th day: what was recorded on the first and the fifth is older than ten days, and
    // the second of them still held then.
    let forgotten = async {
        loop {
            match view.get("alice").as_of(Position::new(1)).await {
                Err(ViewError::BeforeHistory { since }) => break since,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    let since = tokio::time::timeout(Duration::from_secs(30), forgotten)
        .await
        .unwrap();
    assert_eq!(since, Position::new(2));
    for (position, cents) in [(2, 11), (3, 111), (4, 1_111)] {
        let row = view
            .get("alice")
            .as_of(Position::new(position))
            .await
            .unwrap();
        assert_eq!(row.map(|row| row.cents), Some(cents));
    }
    let versions = view.history("alice").await.unwrap().versions;
    assert_eq!(
        versions.iter().map(|of| of.from.get()).collect::<Vec<_>>(),
        [2, 3, 4]
    );
    let error = view
        .changed_between(Position::START, Position::new(4))
        .await
        .unwrap_err();
    assert!(matches!(error, ViewError::BeforeHistory { .. }), "{error}");
}

pub(crate) async fn no_past_is_forgotten_that_a_slot_still_makes() {
    const TIMEOUT: Duration = Duration::from_secs(60);
    let clock = Arc::new(ManualClock::default());
    let store = store_on(Arc::clone(&clock) as _).await;
    let writer = Annals::on(store.handle()).with_clock(Arc::clone(&clock) as _);
    // Longer than the clock is advanced.
    let lease = Duration::from_secs(86_400 * 1_000);
    let options = Options::default()
        .lease(lease)
        .slots(2)
        .history_for(Duration::from_secs(86_400 * 10))
        .poll(Duration::from_millis(5));
    let db = || {
        let setup = Balance::projection().options(options.clone());
        writer.clone().with(setup)
    };
    let first = db().start().await.unwrap();
    let done = happens(&writer, "alice", deposited(1)).await;
    first
        .view::<Balance>()
        .wait_for(&done, TIMEOUT)
        .await
        .unwrap();
    first.stop().await;

    // The second slot stays where it is, because another program has it.
    let views = store.views();
    let generation = async || views.generations("balances").await.unwrap().remove(0);
    let begun = generation().await;
    let slot = begun.lease_name(1);
    let taken = views.acquire_lease(&slot, "another", lease).await;
    assert!(matches!(taken.unwrap(), Acquired::Granted(_)));
    let done = happens(&writer, "alice", deposited(2)).await;
    let db = db().start_in_background().await.unwrap();
    let end = done.events()[0].position;
    let read = async {
        let is_there = |of: &Checkpoint| of.position == end;
        let checkpoints = async || views.checkpoints(begun.id).await.unwrap();
        while !checkpoints().await.iter().any(is_there) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, read).await.unwrap();
    clock.advance(TimeDelta::days(30));
    let forgotten = async {
        loop {
            match generation().await.history_since {
                Position::START => tokio::task::yield_now().await,
                since => break since,
            }
        }
    };
    let since = tokio::time::timeout(TIMEOUT, forgotten).await.unwrap();
    assert_eq!(since, Position::new(1));
    db.stop().await;
}
