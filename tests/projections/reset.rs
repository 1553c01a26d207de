//! Projections that go back to a moment, or pass over what was not done yet.

use std::collections::BTreeMap;
use std::time::Duration;

use annals_core::{Annals, Committed, Moment, Phase, Position, Recorded};
use annals_macros::View;
use annals_projections::{
    Options, Poison, Program, Project, ReadModels, RebuildError, Row, View, ViewError, ViewSetup,
    With,
};
use serde::{Deserialize, Serialize};

use super::bank::{
    Account, AccountEvent, Balance, deposited, happens, mend, noted, options, program_with,
};
use super::test_store::{TestStore, store};

const TIMEOUT: Duration = Duration::from_secs(60);

/// Events in the log of these tests: two stretches of the past, and a part of a third.
const EVENTS: u64 = 2_100;

/// Deposits of some accounts in turn, with an event that makes no sense as the first and as the
/// last one of account `0`.
async fn filled(store: &TestStore) -> Committed {
    let writer = Annals::on(store.handle());
    happens(&writer, "0", noted("poison")).await;
    let mut written = 1;
    for number in 0_i64.. {
        let left = EVENTS - 1 - written;
        if left == 0 {
            break;
        }
        let events: Vec<_> = (0..left.min(37) as i64)
            .map(|cents| deposited(number + cents))
            .collect();
        written += events.len() as u64;
        let account = writer.aggregate::<Account>((number % 7).to_string());
        account
            .run(|_| Ok::<_, String>(events.clone()))
            .await
            .unwrap();
    }
    happens(&writer, "6", noted("poison")).await
}

async fn contents(db: &Program) -> BTreeMap<String, Balance> {
    db.view::<Balance>()
        .rows()
        .await
        .unwrap()
        .rows
        .into_iter()
        .map(|row| (row.key, row.value))
        .collect()
}

async fn then(db: &Program, moment: u64) -> BTreeMap<String, Balance> {
    let rows = db
        .view::<Balance>()
        .rows()
        .as_of(Position::new(moment))
        .await
        .unwrap()
        .rows;
    rows.into_iter().map(|row| (row.key, row.value)).collect()
}

/// The queue of each key that waits.
async fn waiting(db: &Program) -> Vec<(String, u64, u64)> {
    let dead_letters = db.dead_letters("balances").unwrap();
    let keys = dead_letters.keys(None, 100).await.unwrap();
    keys.into_iter()
        .map(|of| (of.key, of.position.get(), of.queued))
        .collect()
}

fn batches_of(events: usize, slots: u16) -> Options {
    options().batch_events_max(events).slots(slots)
}

pub(crate) async fn a_reset_to_any_position_gives_the_same_rows() {
    let store = store().await;
    let last = filled(&store).await;
    let db = program_with(&store, batches_of(700, 3)).await;
    let view = db.view::<Balance>();
    view.wait_for(&last, TIMEOUT).await.unwrap();
    let rows = contents(&db).await;
    let queues = waiting(&db).await;
    assert_eq!(
        queues
            .iter()
            .map(|(key, at, _)| (key.as_str(), *at))
            .collect::<Vec<_>>(),
        [("0", 1), ("6", EVENTS)]
    );
    let moments = [1_024, 1_500, 2_048, EVENTS];
    let mut past = Vec::new();
    for moment in moments {
        past.push(then(&db, moment).await);
    }
    for to in [
        0,
        1,
        699,
        700,
        701,
        1_023,
        1_024,
        1_025,
        2_047,
        2_048,
        2_049,
        EVENTS - 1,
        EVENTS,
        EVENTS + 1_000,
    ] {
        let building = db
            .rebuild::<Balance>()
            .reset_to(Position::new(to))
            .await
            .unwrap();
        let begins_at = building.begins_at().get();
        assert_eq!(begins_at, to.min(EVENTS) / 1_024 * 1_024);
        building.finished(|_| ()).await.unwrap();
        assert_eq!(contents(&db).await, rows, "reset to {to}");
        assert_eq!(waiting(&db).await, queues, "reset to {to}");
        for (moment, past) in moments
            .into_iter()
            .zip(&past)
            .filter(|(moment, _)| *moment >= begins_at)
        {
            assert_eq!(
                then(&db, moment).await,
                *past,
                "reset to {to}, as of {moment}"
            );
        }
        if begins_at > 0 {
            let error = view
                .get("1")
                .as_of(Position::new(begins_at - 1))
                .await
                .unwrap_err();
            assert!(
                matches!(error, ViewError::BeforeHistory { since } if since.get() == begins_at),
                "{error}"
            );
            // What it was before is gone, so the next one begins with a build from the log.
            let error = db
                .rebuild::<Balance>()
                .reset_to(Position::new(begins_at - 1))
                .await;
            match error {
                Ok(building) => assert_eq!(building.begins_at(), Position::START),
                Err(RebuildError::CannotReset { .. }) => {
                    _ = db.rebuild::<Balance>().begin().await.unwrap();
                }
                Err(error) => panic!("{error}"),
            }
            let building = db.rebuild::<Balance>().under_way().await.unwrap().unwrap();
            building.finished(|_| ()).await.unwrap();
            assert_eq!(
                contents(&db).await,
                rows,
                "built from the log after a reset to {to}"
            );
        }
        db.rebuild::<Balance>().drop_kept().await.unwrap();
    }
}

pub(crate) async fn a_reset_keeps_the_dead_letters_of_then() {
    let store = store().await;
    let last = filled(&store).await;
    let db = program_with(&store, batches_of(100, 2)).await;
    db.view::<Balance>().wait_for(&last, TIMEOUT).await.unwrap();
    db.rebuild::<Balance>()
        .reset_to(Position::new(EVENTS))
        .await
        .unwrap()
        .finished(|_| ())
        .await
        .unwrap();
    db.rebuild::<Balance>().drop_kept().await.unwrap();
    mend();
    let retried = db.view::<Balance>().retry_all().await.unwrap();
    assert_eq!((retried.still, waiting(&db).await), (None, Vec::new()));
    let events: u64 = contents(&db).await.values().map(|row| row.events).sum();
    assert_eq!(events, EVENTS, "every event is in the rows once");
}

pub(crate) async fn a_reset_goes_on_where_the_last_program_died() {
    let store = store().await;
    let writer = Annals::on(store.handle());
    // More rows than are put back at once, each touched in both stretches of the past.
    let mut last = None;
    for round in 0..2_i64 {
        for number in 0..1_300 {
            last = Some(
                happens(
                    &writer,
                    &format!("{number:04}"),
                    deposited(round * 10 + number % 3),
                )
                .await,
            );
        }
    }
    let db = program_with(&store, batches_of(500, 1)).await;
    db.view::<Balance>()
        .wait_for(&last.unwrap(), TIMEOUT)
        .await
        .unwrap();
    let rows = all(&db).await;
    db.stop().await;
    // No worker runs while it is begun, so all of it is done by programs that live for a moment
    // each.
    let begun =
        Annals::on(store.handle()).with(ViewSetup::<Balance>::new().options(batches_of(500, 1)));
    let begun = begun.start().await.unwrap();
    let rebuild = begun.rebuild::<Balance>();
    begun.stop().await;
    let building = rebuild.reset_to(Position::new(2_100)).await.unwrap();
    assert_eq!(building.begins_at(), Position::new(2_048));
    let mut checkpoints = Vec::new();
    for _ in 0..400 {
        let options = batches_of(500, 1).lease(Duration::from_millis(20));
        let db = Annals::on(store.handle()).with(ViewSetup::<Balance>::new().options(options));
        let started = db.start_in_background().await.unwrap();
        for _ in 0..checkpoints.len() % 13 {
            tokio::task::yield_now().await;
        }
        let found = store
            .views()
            .checkpoints(building.generation())
            .await
            .unwrap();
        checkpoints.extend(
            found
                .into_iter()
                .map(|of| (of.position.get(), of.state.len())),
        );
        drop(started);
        if checkpoints
            .last()
            .is_some_and(|(position, _)| *position == 2_600)
        {
            break;
        }
    }
    let db = program_with(&store, batches_of(500, 1)).await;
    let generations = store.views().generations("balances").await.unwrap();
    while store
        .views()
        .live_generation("balances", 1)
        .await
        .unwrap()
        .unwrap()
        .id
        != building.generation()
    {
        tokio::task::yield_now().await;
    }
    assert_eq!((all(&db).await, generations.len()), (rows, 2));
    assert!(
        checkpoints.iter().all(|(position, _)| *position >= 2_048),
        "nothing before it was folded: {checkpoints:?}"
    );
}

/// All rows, page by page.
async fn all(db: &Program) -> BTreeMap<String, Balance> {
    let mut rows = BTreeMap::new();
    let mut after = None;
    loop {
        let page = db
            .view::<Balance>()
            .rows()
            .limit(500)
            .after(after)
            .await
            .unwrap();
        rows.extend(page.rows.into_iter().map(|row| (row.key, row.value)));
        after = page.next;
        if after.is_none() {
            return rows;
        }
    }
}

/// The present only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "counts",
    version = 1,
    events(AccountEvent),
    crate = "annals_projections"
)]
struct Count {
    events: u64,
}

impl Project<AccountEvent> for Count {
    fn on(count: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        count.events += 1;
        Ok(())
    }
}

/// One row for everything, under the shortest key that there is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "all_events",
    version = 1,
    key = (),
    events(AccountEvent),
    history(bitemporal),
    crate = "annals_projections"
)]
struct Everything {
    events: u64,
}

impl Project<AccountEvent> for Everything {
    fn keys(_: &Recorded<AccountEvent>) -> Result<Vec<()>, Poison> {
        Ok(vec![()])
    }

    fn on(everything: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        everything.events += 1;
        Ok(())
    }
}

/// What happened, by when it had occurred.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "occurred",
    version = 1,
    events(AccountEvent),
    history(bitemporal),
    crate = "annals_projections"
)]
struct Occurred {
    events: u64,
}

impl Project<AccountEvent> for Occurred {
    fn on(occurred: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        occurred.events += 1;
        Ok(())
    }
}

pub(crate) async fn a_reset_without_history_says_to_rebuild() {
    let store = store().await;
    let last = filled(&store).await;
    let db = Annals::on(store.handle())
        .with(Count::projection().options(options()))
        .start()
        .await
        .unwrap();
    db.view::<Count>().wait_for(&last, TIMEOUT).await.unwrap();
    let error = db
        .rebuild::<Count>()
        .reset_to(Position::new(1_100))
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        RebuildError::CannotReset { view: "counts", .. }
    ));
    assert_eq!(
        error.to_string(),
        "view `counts` cannot be reset to position 1024: it keeps no history, so its rows of \
         then are unknown. Build it from the log with `begin`, which gives the same rows"
    );
    let phases = store
        .views()
        .generations("counts")
        .await
        .unwrap()
        .iter()
        .map(|of| of.phase)
        .collect::<Vec<_>>();
    assert_eq!(phases, [Phase::Live], "nothing was begun");
    let error = db
        .rebuild::<Count>()
        .reset_to("yesterday")
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`yesterday` is no RFC 3339 time"),
        "{error}"
    );
}

pub(crate) async fn event_time_answers_survive_a_reset() {
    let store = store().await;
    let last = filled(&store).await;
    let db = Annals::on(store.handle())
        .with(Occurred::projection().options(options()))
        .start()
        .await
        .unwrap();
    let view = db.view::<Occurred>();
    view.wait_for(&last, TIMEOUT).await.unwrap();
    let by = db.clock().now();
    let before = view.get("3").valid_at(by).await.unwrap();
    let building = db
        .rebuild::<Occurred>()
        .reset_to(Moment::from(by))
        .await
        .unwrap();
    assert_eq!(building.begins_at(), Position::new(2_048));
    building.finished(|_| ()).await.unwrap();
    let after = view.get("3").valid_at(by).await.unwrap();
    assert!(before.is_some_and(|row| row.events > 100) && after == before_again(&db, by).await);
    assert_eq!(
        after.map(|row| row.events),
        view.get("3").await.unwrap().map(|row| row.events)
    );
}

pub(crate) async fn a_view_of_one_row_can_be_reset() {
    let store = store().await;
    let last = filled(&store).await;
    let db = Annals::on(store.handle())
        .with(Everything::projection().options(options()))
        .start()
        .await
        .unwrap();
    let view = db.view::<Everything>();
    view.wait_for(&last, TIMEOUT).await.unwrap();
    let building = db
        .rebuild::<Everything>()
        .reset_to(Position::new(1_100))
        .await
        .unwrap();
    assert_eq!(building.begins_at(), Position::new(1_024));
    tokio::time::timeout(TIMEOUT, building.finished(|_| ()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        view.get(()).await.unwrap(),
        Some(Everything { events: EVENTS })
    );
    let by = db.clock().now();
    assert_eq!(
        view.get(()).valid_at(by).await.unwrap(),
        Some(Everything { events: EVENTS })
    );
}

async fn before_again(
    db: &Program,
    by: annals_core::chrono::DateTime<annals_core::chrono::Utc>,
) -> Option<Occurred> {
    db.rebuild::<Occurred>().roll_back().await.unwrap();
    let row = db.view::<Occurred>().get("3").valid_at(by).await.unwrap();
    db.rebuild::<Occurred>().roll_back().await.unwrap();
    row
}
