//! A view is rebuilt while the old one serves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals_core::{Acquired, Annals, Checkpoint, Generation, Lease, Phase, Recorded, ViewCommit};
use annals_projections::{
    Handlers, Poison, Program, Project, ReadModels, RebuildError, Row, View, ViewError, ViewKey,
    ViewSetup, With,
};
use serde::{Deserialize, Serialize};

use super::bank::{AccountEvent, Balance, deposited, happens, options, program, program_with};
use super::test_store::{TestStore, store};

/// The same name as `Balance`, and another version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct BalanceV2 {
    euros: i64,
}

impl View for BalanceV2 {
    const NAME: &'static str = "balances";
    const VERSION: u32 = 2;
    type Key = String;

    fn handlers() -> Handlers<Self> {
        Handlers::new().on::<AccountEvent>()
    }
}

impl Project<AccountEvent> for BalanceV2 {
    fn on(balance: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        if let AccountEvent::Deposited { cents } = &event.event {
            balance.euros += cents / 100;
        }
        Ok(())
    }
}

pub(super) async fn filled(store: &TestStore, events: i64) {
    let writer = Annals::on(store.handle());
    for number in 0..events {
        happens(&writer, &(number % 10).to_string(), deposited(100)).await;
    }
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

pub(super) async fn phases(store: &TestStore) -> Vec<(u32, Phase)> {
    store
        .views()
        .generations("balances")
        .await
        .unwrap()
        .iter()
        .map(|of| (of.spec.version, of.phase))
        .collect()
}

pub(crate) async fn readers_see_a_complete_view_throughout_a_rebuild() {
    let store = store().await;
    filled(&store, 500).await;
    let db = program_with(&store, options().batch_events_max(7).slots(2)).await;
    let building = db.rebuild::<Balance>().begin().await.unwrap();

    let over = Arc::new(AtomicBool::new(false));
    let reader = db.clone();
    let seen_over = Arc::clone(&over);
    let reader = tokio::spawn(async move {
        let mut reads = 0;
        let mut last = 0;
        while !seen_over.load(Ordering::SeqCst) {
            let rows = contents(&reader).await;
            let events = rows.values().map(|row| row.events).sum::<u64>();
            assert!(
                rows.len() == 10 && events >= last,
                "{} rows, {events} events after {last}",
                rows.len()
            );
            assert!(
                rows.values()
                    .all(|row| row.cents == row.events as i64 * 100),
                "a mixed view: {rows:?}"
            );
            // A new generation may lag the one that it follows by a step; it never lags
            // the beginning of the build.
            last = 500;
            reads += 1;
            tokio::task::yield_now().await;
        }
        reads
    });
    let writing = filled(&store, 300);
    let (finished, ()) = tokio::join!(building.finished(|_| ()), writing);
    finished.unwrap();
    let last = happens(&db, "0", deposited(100)).await;
    db.view::<Balance>()
        .wait_for(&last, Duration::from_secs(30))
        .await
        .unwrap();
    over.store(true, Ordering::SeqCst);
    assert!(reader.await.unwrap() > 0);
    let rows = contents(&db).await;
    assert_eq!(rows.values().map(|row| row.events).sum::<u64>(), 801);
    assert_eq!(phases(&store).await, [(1, Phase::Kept), (1, Phase::Live)]);
}

pub(crate) async fn a_build_goes_on_where_the_last_program_died() {
    let store = store().await;
    filled(&store, 400).await;
    let mut builds = Vec::new();
    // Each program lives for a few steps only.
    for _ in 0..20 {
        let db = Annals::on(store.handle());
        let options = options()
            .batch_events_max(9)
            .lease(Duration::from_millis(20));
        let started = db
            .with(ViewSetup::<Balance>::new().options(options))
            .start_in_background()
            .await
            .unwrap();
        tokio::task::yield_now().await;
        builds.push(store.views().generations("balances").await.unwrap().len());
        drop(started);
    }
    let db = program(&store).await;
    assert_eq!(
        contents(&db)
            .await
            .values()
            .map(|row| row.events)
            .sum::<u64>(),
        400
    );
    assert_eq!(
        (builds, phases(&store).await),
        (vec![1; 20], vec![(1, Phase::Live)]),
        "one generation for all of them"
    );
}

pub(crate) async fn a_build_writes_a_row_seldom_that_changes_often() {
    let store = store().await;
    filled(&store, 500).await;
    let mut options = options().batch_events_max(7);
    options.build_events_max = 500_000;
    let projection = ViewSetup::<BalanceV2>::new().options(options);
    let db = Annals::on(store.handle())
        .with(projection)
        .start()
        .await
        .unwrap();
    let euros = async || {
        db.view::<BalanceV2>()
            .rows()
            .await
            .unwrap()
            .rows
            .iter()
            .map(|row| row.value.euros)
            .sum::<i64>()
    };
    assert_eq!(euros().await, 500);
    // Each of them may take a second.
    let commits = db.status()[0].slots[0].commits.as_ref().unwrap().count;
    assert!(commits < 500 / 7, "{commits} commits");
    let done = happens(&db, "0", deposited(100)).await;
    db.view::<BalanceV2>()
        .wait_for(&done, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(euros().await, 501);
}

pub(crate) async fn a_build_finds_rows_that_are_not_at_hand() {
    let store = store().await;
    filled(&store, 300).await;
    let db = program_with(&store, options().batch_events_max(7).rows_kept_max(3)).await;
    assert_eq!(
        db.status()[0].slots[0].rows_at_hand,
        6,
        "those of the last batch"
    );
    let rows = contents(&db).await;
    assert!(
        rows.len() == 10 && rows.values().all(|row| row.events == 30),
        "{rows:?}"
    );
}

pub(crate) async fn one_rebuild_at_a_time_and_it_is_cancellable() {
    let store = store().await;
    filled(&store, 50).await;
    let db = program(&store).await;
    let rebuild = db.rebuild::<Balance>();
    let building = rebuild.begin().await.unwrap();
    match rebuild.begin().await {
        Err(RebuildError::AlreadyBuilding("balances")) => building.call_off().await.unwrap(),
        other => panic!("{other:?}"),
    }
    assert!(rebuild.under_way().await.unwrap().is_none());
    assert_eq!(phases(&store).await, [(1, Phase::Live)]);
    assert_eq!(contents(&db).await.len(), 10);
}

pub(crate) async fn a_roll_back_is_current_and_kept_can_be_dropped() {
    let store = store().await;
    filled(&store, 50).await;
    let db = program(&store).await;
    let rebuild = db.rebuild::<Balance>();
    assert!(matches!(
        rebuild.roll_back().await,
        Err(RebuildError::NothingKept("balances"))
    ));
    rebuild
        .begin()
        .await
        .unwrap()
        .finished(|_| ())
        .await
        .unwrap();
    let done = happens(&db, "0", deposited(1)).await;

    rebuild.roll_back().await.unwrap();
    assert_eq!(phases(&store).await, [(1, Phase::Live), (1, Phase::Kept)]);
    let row = db.view::<Balance>().get("0").at_least(&done).await.unwrap();
    assert_eq!(
        row,
        Some(Balance {
            cents: 501,
            events: 6
        })
    );
    rebuild.drop_kept().await.unwrap();
    assert_eq!(phases(&store).await, [(1, Phase::Live)]);
}

/// Takes the slot of a generation from its worker, as another process that makes no progress.
pub(super) async fn hold(store: &TestStore, generation: &Generation) -> Lease {
    let views = store.views();
    let name = generation.lease_name(0);
    loop {
        for held in views.leases(&name).await.unwrap() {
            views.release_lease(&held.lease).await.unwrap();
        }
        let hour = Duration::from_secs(3_600);
        let asked = views.acquire_lease(&name, "another", hour).await.unwrap();
        if let Acquired::Granted(lease) = asked {
            return lease;
        }
    }
}

/// Rebuilds the view, and holds the generation that served before where it is.
pub(super) async fn rebuilt_and_held(db: &Program, store: &TestStore) -> Lease {
    let building = db.rebuild::<Balance>().begin().await.unwrap();
    building.finished(|_| ()).await.unwrap();
    loop {
        let generations = store.views().generations("balances").await.unwrap();
        let kept: Vec<_> = generations
            .iter()
            .filter(|of| of.phase == Phase::Kept)
            .collect();
        // What was kept before it is dropped after the switch.
        if let [kept] = kept[..] {
            return hold(store, kept).await;
        }
        tokio::task::yield_now().await;
    }
}

/// What is served while a roll-back waits is waited for, too.
async fn a_roll_back_follows_what_serves(db: &Program, store: &TestStore) {
    let held = rebuilt_and_held(db, store).await;
    let view = db.view::<Balance>();
    let long = Duration::from_secs(60);
    let first = happens(db, "0", deposited(1)).await;
    view.wait_for(&first, long).await.unwrap();
    let rebuild = db.rebuild::<Balance>();
    let mut rolled = std::pin::pin!(rebuild.roll_back());
    let a_while = Duration::from_millis(1_500);
    let waits = tokio::time::timeout(a_while, &mut rolled).await;
    assert!(waits.is_err(), "{waits:?}");
    let second = happens(db, "0", deposited(1)).await;
    view.wait_for(&second, long).await.unwrap();
    // Programs start while it waits.
    let other = tokio::time::timeout(long, program(store)).await.unwrap();
    other.stop().await;

    // It comes to where the other one was, and no further.
    let generations = store.views().generations("balances").await.unwrap();
    let kept = generations.iter().find(|of| of.phase == Phase::Kept);
    let kept = kept.unwrap().id;
    let at = store.views().checkpoints(kept).await.unwrap().remove(0);
    let to = Checkpoint {
        position: first.events()[0].position,
        event: None,
        ..at.clone()
    };
    let step = ViewCommit::new(kept, held.clone(), at.position, to);
    store.views().commit_view(step).await.unwrap();
    let waits = tokio::time::timeout(Duration::from_millis(200), &mut rolled).await;
    assert!(waits.is_err(), "{waits:?}");
    store.views().release_lease(&held).await.unwrap();
    rolled.await.unwrap();
}

pub(crate) async fn a_roll_back_never_goes_to_a_generation_that_lags() {
    let store = store().await;
    filled(&store, 20).await;
    let db = program(&store).await;
    let held = rebuilt_and_held(&db, &store).await;
    let done = happens(&db, "0", deposited(1)).await;
    let view = db.view::<Balance>();
    let long = Duration::from_secs(60);
    view.wait_for(&done, long).await.unwrap();
    let rebuild = db.rebuild::<Balance>();
    // It waits for as long as another process makes no progress.
    let waits = tokio::time::timeout(Duration::from_millis(200), rebuild.roll_back()).await;
    assert!(waits.is_err(), "{waits:?}");
    assert_eq!(phases(&store).await, [(1, Phase::Kept), (1, Phase::Live)]);
    store.views().release_lease(&held).await.unwrap();
    rebuild.roll_back().await.unwrap();
    assert_eq!(phases(&store).await, [(1, Phase::Live), (1, Phase::Kept)]);
    let row = view.get("0").await.unwrap();
    assert_eq!(row.map(|row| row.events), Some(3));

    a_roll_back_follows_what_serves(&db, &store).await;

    // A program that was stopped brings it no further.
    let _held = rebuilt_and_held(&db, &store).await;
    db.stop().await;
    let other = program(&store).await;
    let done = happens(&other, "0", deposited(1)).await;
    other.view::<Balance>().wait_for(&done, long).await.unwrap();
    let refused = rebuild.roll_back().await.unwrap_err();
    assert!(
        matches!(
            refused,
            RebuildError::Lags {
                view: "balances",
                ..
            }
        ),
        "{refused}"
    );
    let says = "build a new generation with `begin`";
    assert!(refused.to_string().contains(says), "{refused}");
    let building = other.rebuild::<Balance>().begin().await.unwrap();
    building.finished(|_| ()).await.unwrap();
    other.stop().await;
}

pub(crate) async fn a_new_version_is_built_while_the_old_serves() {
    let store = store().await;
    filled(&store, 50).await;
    program(&store).await.stop().await;

    let db = Annals::on(store.handle());
    let setup = db
        .with(ViewSetup::<BalanceV2>::new().options(options()))
        .with(Balance::projection().previously());
    let db = setup.start().await.unwrap();
    let done = happens(&db, "0", deposited(100)).await;
    let new = db
        .view::<BalanceV2>()
        .get("0")
        .at_least(&done)
        .await
        .unwrap();
    let old = db.view::<Balance>().get("0").at_least(&done).await.unwrap();
    assert_eq!(
        (new, old),
        (
            Some(BalanceV2 { euros: 6 }),
            Some(Balance {
                cents: 600,
                events: 6
            })
        )
    );
    assert_eq!(phases(&store).await, [(1, Phase::Live), (2, Phase::Live)]);
}

pub(crate) async fn an_old_version_that_was_never_built_is_an_error() {
    let store = store().await;
    let db = Annals::on(store.handle());
    let db = db
        .with(ViewSetup::<BalanceV2>::new())
        .with(Balance::projection().previously())
        .start()
        .await
        .unwrap();
    assert!(matches!(
        db.view::<Balance>().get("0").await,
        Err(ViewError::Building { .. })
    ));
    assert_eq!(phases(&store).await, [(2, Phase::Live)], "none was begun");
}

/// The same version of a view in two builds of a program: the version was not raised.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct EventCount {
    events: u64,
}

impl Project<AccountEvent> for EventCount {
    fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.events += 1;
        Ok(())
    }
}

impl View for EventCount {
    const NAME: &'static str = "counted";
    type Key = String;

    fn handlers() -> Handlers<Self> {
        Handlers::new().on::<AccountEvent>()
    }
}

/// The newer build, which has an index more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct EventCountIndexed {
    events: u64,
}

impl Project<AccountEvent> for EventCountIndexed {
    fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.events += 1;
        Ok(())
    }
}

impl View for EventCountIndexed {
    const NAME: &'static str = "counted";
    const INDEXES: &'static [&'static str] = &["events"];
    type Key = String;

    fn handlers() -> Handlers<Self> {
        Handlers::new().on::<AccountEvent>()
    }

    fn indexed(&self) -> Vec<String> {
        vec![self.events.to_key()]
    }
}

pub(crate) async fn readers_see_what_their_program_follows() {
    let store = store().await;
    filled(&store, 10).await;
    let new = || async {
        Annals::on(store.handle())
            .with(ViewSetup::<EventCountIndexed>::new().options(options()))
            .start()
            .await
            .unwrap()
    };
    let running = new().await;
    // An old instance restarts once, builds its own, and leaves.
    let old = Annals::on(store.handle())
        .with(ViewSetup::<EventCount>::new().options(options()))
        .start()
        .await
        .unwrap();
    old.stop().await;
    let done = happens(&running, "0", deposited(1)).await;
    let view = running.view::<EventCountIndexed>();
    let row = view.get("0").at_least(&done).await.unwrap();
    assert_eq!(row, Some(EventCountIndexed { events: 2 }));
    assert!(
        running.status().iter().any(|of| of.lag_events() == 0),
        "what readers see is in the status"
    );

    // Going back is refused where nothing of this program is kept, and others can be dropped.
    let rebuild = running.rebuild::<EventCountIndexed>();
    assert!(matches!(
        rebuild.roll_back().await,
        Err(RebuildError::NothingKept(_))
    ));
    running.stop().await;
    let running = new().await;
    let rebuild = running.rebuild::<EventCountIndexed>();
    rebuild.drop_others().await.unwrap();
    let generations = store.views().generations("counted").await.unwrap();
    assert!(
        generations.iter().all(|of| of.spec.indexes == ["events"]),
        "{generations:?}"
    );
    running.stop().await;
}

mod grown {
    use super::*;

    /// The newer build of `EventCount`, which has a field more.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    pub(super) struct EventCount {
        pub(super) events: u64,
        pub(super) cents: i64,
    }

    impl Project<AccountEvent> for EventCount {
        fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
            row.events += 1;
            if let AccountEvent::Deposited { cents } = **event {
                row.cents += cents;
            }
            Ok(())
        }
    }

    impl View for EventCount {
        const NAME: &'static str = "counted";
        type Key = String;

        fn handlers() -> Handlers<Self> {
            Handlers::new().on::<AccountEvent>()
        }
    }
}

pub(crate) async fn rows_of_other_fields_are_rebuilt() {
    let store = store().await;
    let db = Annals::on(store.handle());
    happens(&db, "alice", deposited(7)).await;
    let old = db
        .clone()
        .with(ViewSetup::<EventCount>::new())
        .start()
        .await;
    old.unwrap().stop().await;
    // The version was not raised.
    for _ in 0..2 {
        let setup = db.clone().with(ViewSetup::<grown::EventCount>::new());
        let new = setup.start().await.unwrap();
        let row = new.view::<grown::EventCount>().get("alice").await.unwrap();
        assert_eq!(
            row,
            Some(grown::EventCount {
                events: 1,
                cents: 7
            })
        );
        new.stop().await;
    }
    let generations = store.views().generations("counted").await.unwrap();
    assert_eq!(generations.len(), 2, "{generations:?}");
}

pub(crate) async fn one_generation_is_kept_to_go_back_to() {
    let store = store().await;
    filled(&store, 20).await;
    let db = program(&store).await;
    let rebuild = db.rebuild::<Balance>();
    for _ in 0..3 {
        let building = rebuild.begin().await.unwrap();
        building.finished(|_| ()).await.unwrap();
        let bounded = async {
            while phases(&store).await != [(1, Phase::Kept), (1, Phase::Live)] {
                tokio::task::yield_now().await;
            }
        };
        let bounded = tokio::time::timeout(Duration::from_secs(60), bounded).await;
        assert!(bounded.is_ok(), "{:?}", phases(&store).await);
    }
    rebuild.roll_back().await.unwrap();
    assert_eq!(phases(&store).await, [(1, Phase::Live), (1, Phase::Kept)]);
    // What was gone back from is not what the next build goes back to.
    let building = rebuild.begin().await.unwrap();
    building.finished(|_| ()).await.unwrap();
    let done = happens(&db, "0", deposited(1)).await;
    rebuild.roll_back().await.unwrap();
    let row = db.view::<Balance>().get("0").at_least(&done).await.unwrap();
    assert_eq!(row.map(|row| row.events), Some(3));
    db.stop().await;
}
