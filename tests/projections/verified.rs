//! A generation is compared with a replay of its events before it serves.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use annals_core::conformance::faulty::{FaultyStore, StoreFault};
use annals_core::{
    Acquired, Annals, Checkpoint, CommitError, LogPage, Partition, Phase, Position, ReadLog,
    ReadRows, Recorded, RowsBy, RowsPage, Store, StoreError, ViewCommit, ViewStore,
};
use annals_projections::{
    Handlers, Options, Poison, Project, ReadModels, Row, SlotState, StartError, View, ViewError,
    ViewSetup, With,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::bank::{AccountEvent, Balance, deposited, happens, noted, options};
use super::rebuild::{filled, phases};
use super::test_store::{TestStore, store};

/// Gives another row for the same event every time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Moody {
    count: i64,
}

static MOOD: AtomicI64 = AtomicI64::new(0);

impl View for Moody {
    const NAME: &'static str = "moody";
    type Key = String;

    fn handlers() -> Handlers<Self> {
        Handlers::new().on::<AccountEvent>()
    }
}

impl Project<AccountEvent> for Moody {
    fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.count = MOOD.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

pub(crate) async fn a_generation_unlike_a_replay_is_never_switched_to() {
    let store = store().await;
    filled(&store, 20).await;
    let error = Annals::on(store.handle())
        .with(ViewSetup::<Moody>::new())
        .start()
        .await
        .unwrap_err();
    let StartError::Stopped { reason, .. } = error else {
        panic!("{error}")
    };
    assert!(
        reason.contains("differs from a replay of its events"),
        "{reason}"
    );
    assert_eq!(
        store.views().generations("moody").await.unwrap()[0].phase,
        Phase::Building
    );
}

/// Impure for every account but the first and the last few.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct ImpureInside {
    count: i64,
}

impl View for ImpureInside {
    const NAME: &'static str = "impure-inside";
    type Key = u64;

    fn handlers() -> Handlers<Self> {
        Handlers::new().on::<AccountEvent>()
    }
}

impl Project<AccountEvent> for ImpureInside {
    fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        if (10..90).contains(&row.key().unwrap()) {
            row.count = MOOD.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

pub(crate) async fn rows_from_all_over_the_view_are_compared() {
    let store = store().await;
    let db = Annals::on(store.handle());
    for account in 0..100 {
        happens(&db, &account.to_string(), deposited(1)).await;
    }
    let error = Annals::on(store.handle())
        .with(ViewSetup::<ImpureInside>::new())
        .start()
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("differs from a replay of its events: field `count` is "),
        "{error}"
    );
    let says = "repair the fold, raise its version, and build it again";
    assert!(error.to_string().contains(says), "{error}");
    let db = Annals::on(store.handle()).with(ViewSetup::<PureInside>::new());
    let db = db.start().await.unwrap();
    let row = db.view::<PureInside>().get(20_u64).await.unwrap();
    assert_eq!(row, Some(PureInside { count: 1 }));
    db.stop().await;
}

/// `ImpureInside` with its fold repaired.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct PureInside {
    count: i64,
}

impl View for PureInside {
    const NAME: &'static str = ImpureInside::NAME;
    const VERSION: u32 = 2;
    type Key = u64;

    fn handlers() -> Handlers<Self> {
        Handlers::new().on::<AccountEvent>()
    }
}

impl Project<AccountEvent> for PureInside {
    fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.count += 1;
        Ok(())
    }
}

/// A store of small pages, in which an event that cannot be folded, and another one, come to a key
/// while its row is compared.
#[derive(Debug)]
struct Poisons(TestStore, AtomicBool);

#[async_trait]
impl StoreFault for Poisons {
    async fn read_log(&self, store: &dyn Store, read: ReadLog) -> Result<LogPage, StoreError> {
        store.read(read.limit(1)).await
    }

    async fn read_rows(
        &self,
        views: &dyn ViewStore,
        read: ReadRows,
    ) -> Result<RowsPage, CommitError> {
        let is_compared = matches!(read.by, RowsBy::Keys(_));
        if is_compared && !self.1.swap(true, Ordering::SeqCst) {
            let writer = Annals::on(self.0.handle());
            happens(&writer, "alice", noted("poison")).await;
            let done = happens(&writer, "alice", deposited(1)).await;
            let end = done.events()[0].position;
            let is_there = |of: &Checkpoint| of.position >= end;
            let folded = async {
                while !views
                    .checkpoints(read.generation)
                    .await?
                    .iter()
                    .any(is_there)
                {
                    tokio::task::yield_now().await;
                }
                Ok::<_, CommitError>(())
            };
            let most = Duration::from_secs(60);
            tokio::time::timeout(most, folded).await.unwrap()?;
        }
        views.read_rows(read).await
    }
}

pub(crate) async fn a_key_that_becomes_a_dead_letter_refuses_no_switch() {
    let store = store().await;
    happens(&Annals::on(store.handle()), "alice", deposited(1)).await;
    let fault = Poisons(store.clone(), AtomicBool::new(false));
    let db = Annals::on(FaultyStore::new(store.handle(), fault));
    let setup = Balance::projection().options(options().verified_keys(2));
    let db = db.with(setup).start().await.unwrap();
    assert_eq!(phases(&store).await, [(1, Phase::Live)]);
    let letters = db.view::<Balance>().dead_letters().all(None, 9).await;
    assert!(!letters.unwrap().is_empty());
    db.stop().await;
}

/// A store that forgets what the rows were before the second event, once three are folded.
#[derive(Debug, Default)]
struct Forgets(AtomicBool);

#[async_trait]
impl StoreFault for Forgets {
    async fn commit_view(
        &self,
        views: &dyn ViewStore,
        step: ViewCommit,
    ) -> Result<(), CommitError> {
        let (generation, to) = (step.generation, step.to.position);
        views.commit_view(step).await?;
        if to >= Position::new(3) && !self.0.swap(true, Ordering::SeqCst) {
            views.forget_history(generation, Position::new(2)).await?;
        }
        Ok(())
    }
}

pub(crate) async fn a_build_whose_past_is_forgotten_is_switched_to() {
    let store = store().await;
    let writer = Annals::on(store.handle());
    for cents in 1..=3 {
        happens(&writer, "alice", deposited(cents)).await;
    }
    let db = Annals::on(FaultyStore::new(store.handle(), Forgets::default()));
    let setup = Balance::projection().options(options().verified_keys(2));
    let db = db.with(setup).start().await.unwrap();
    assert_eq!(phases(&store).await, [(1, Phase::Live)]);
    let view = db.view::<Balance>();
    let error = view.get("alice").as_of(Position::new(1)).await.unwrap_err();
    assert!(matches!(error, ViewError::BeforeHistory { .. }), "{error}");
    for (position, cents) in [(2, 3), (3, 6)] {
        let row = view.get("alice").as_of(Position::new(position)).await;
        assert_eq!(row.unwrap().map(|row| row.cents), Some(cents));
    }
    db.stop().await;
}

/// A view whose workers fold each event of the upper half of the keys when they are let.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Paced {
    events: u64,
}

#[derive(Default)]
struct Pace {
    /// Events that were folded or wait for it.
    came: HashSet<Position>,
    let_through: usize,
}

static PACE: Mutex<Option<Pace>> = Mutex::new(None);
static PACED: Condvar = Condvar::new();

/// The test has its pace alone, on one store after the other.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn is_paced(key: &str) -> bool {
    Partition::of(key, 256).0 >= 128
}

fn let_one_through() {
    PACE.lock().unwrap().get_or_insert_default().let_through += 1;
    PACED.notify_all();
}

fn waits_for_its_turn(position: Position) {
    let mut pace = PACE.lock().unwrap();
    // Comparing folds again, and does not wait.
    if pace.get_or_insert_default().came.insert(position) {
        let is_held = |pace: &mut Option<Pace>| pace.get_or_insert_default().let_through == 0;
        let most = Duration::from_secs(120);
        let (mut pace, _) = PACED.wait_timeout_while(pace, most, is_held).unwrap();
        let pace = pace.get_or_insert_default();
        pace.let_through = pace.let_through.saturating_sub(1);
    }
}

impl View for Paced {
    const NAME: &'static str = "paced";
    type Key = String;

    fn handlers() -> Handlers<Self> {
        Handlers::new().on::<AccountEvent>()
    }
}

impl Project<AccountEvent> for Paced {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        let position = event.record.position;
        if is_paced(event.record.stream.id()) {
            tokio::task::block_in_place(|| waits_for_its_turn(position));
        }
        row.events += 1;
        Ok(())
    }
}

pub(crate) async fn slots_that_are_not_level_are_compared_with_the_log() {
    const TIMEOUT: Duration = Duration::from_secs(60);
    let _alone = ALONE.lock().await;
    *PACE.lock().unwrap() = None;
    let store = store().await;
    let writer = Annals::on(store.handle());
    let keys = || (0..).map(|key: u64| key.to_string());
    let paced = keys().find(|key| is_paced(key)).unwrap();
    let free = keys().find(|key| !is_paced(key)).unwrap();
    happens(&writer, &free, deposited(1)).await;
    happens(&writer, &paced, deposited(1)).await;
    let options = Options::default()
        .slots(2)
        .lease(Duration::from_secs(3_600));
    let setup = ViewSetup::<Paced>::new().options(options.poll(Duration::from_millis(5)));
    let db = Annals::on(store.handle()).with(setup);
    let db = db.start_in_background().await.unwrap();

    // No process switches while this is held.
    let views = store.views();
    let held = async {
        loop {
            let asked = views.acquire_lease("paced/coordination", "a test", TIMEOUT);
            if let Acquired::Granted(lease) = asked.await.unwrap() {
                return lease;
            }
            tokio::task::yield_now().await;
        }
    };
    let held = tokio::time::timeout(TIMEOUT, held).await.unwrap();
    let_one_through();
    let looks = async |what: &str, is_so: &(dyn Fn(&[SlotState]) -> bool + Sync)| {
        let looking = async {
            loop {
                let all = db.status();
                let slots = all.iter().flat_map(|of| &of.slots);
                let states: Vec<_> = slots.map(|slot| slot.state.clone()).collect();
                if is_so(&states) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let looked = tokio::time::timeout(TIMEOUT, looking).await;
        assert!(looked.is_ok(), "{what}: {:#?}", db.status());
    };
    looks("both at the head", &|of| {
        *of == [SlotState::Live, SlotState::Live]
    })
    .await;
    // One slot waits at an event, the other goes on.
    happens(&writer, &paced, deposited(1)).await;
    let done = happens(&writer, &free, deposited(1)).await;
    let generation = views.generations("paced").await.unwrap()[0].id;
    let end = done.events()[0].position;
    let went_on = async {
        loop {
            let checkpoints = views.checkpoints(generation).await.unwrap();
            let at = |is_end| checkpoints.iter().any(|of| (of.position >= end) == is_end);
            if at(true) && at(false) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, went_on).await.unwrap();
    views.release_lease(&held).await.unwrap();
    let switched = async {
        while views.generations("paced").await.unwrap()[0].phase != Phase::Live {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, switched).await.unwrap();
    assert_eq!(db.status()[0].unverified, None);
    let_one_through();
    let view = db.view::<Paced>();
    for key in [paced, free] {
        let row = view.get(key).at_least(&done).await.unwrap();
        assert_eq!(row, Some(Paced { events: 2 }));
    }
    db.stop().await;
}
