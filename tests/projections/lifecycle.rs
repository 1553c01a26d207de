//! Starting, following, stopping, going on.

use std::sync::Arc;
use std::time::Duration;

use annals_core::{Annals, MemoryStore, Phase};
use annals_projections::{
    Options, Program, ReadModels, SlotState, StartError, View, ViewError, With,
};

use super::bank::{Balance, deposited, happens, options, program, program_with};
use super::gateway::{Gateway, texts};
use super::test_store::store;

pub(crate) async fn a_reader_that_waits_for_a_command_sees_it() {
    let store = store().await;
    let db = program(&store).await;
    let done = happens(&db, "alice", deposited(50)).await;
    let row = db
        .view::<Balance>()
        .get("alice")
        .at_least(&done)
        .await
        .unwrap();
    assert_eq!(
        row,
        Some(Balance {
            cents: 50,
            events: 1
        })
    );
    assert_eq!(db.view::<Balance>().get("bob").await.unwrap(), None);
}

pub(crate) async fn a_program_goes_on_where_the_last_one_stopped() {
    let store = store().await;
    let first = program(&store).await;
    let done = happens(&first, "alice", deposited(1)).await;
    first
        .view::<Balance>()
        .get("alice")
        .at_least(&done)
        .await
        .unwrap();
    first.stop().await;
    let done = happens(&first, "alice", deposited(2)).await;

    let second = program(&store).await;
    let row = second
        .view::<Balance>()
        .get("alice")
        .at_least(&done)
        .await
        .unwrap();
    assert_eq!(
        row,
        Some(Balance {
            cents: 3,
            events: 2
        })
    );
    assert_eq!(
        store.views().generations("balances").await.unwrap().len(),
        1,
        "one generation for both programs"
    );
}

pub(crate) async fn starting_waits_for_everything_that_is_in_the_log() {
    for events in [0, 1, 19, 20, 21, 100] {
        let store = store().await;
        let writer = Annals::on(store.handle());
        for number in 0..events {
            happens(&writer, &format!("{}", number % 7), deposited(1)).await;
        }
        let db = program_with(&store, options().batch_events_max(20)).await;
        let rows = db.view::<Balance>().rows().await.unwrap().rows;
        assert_eq!(rows.iter().map(|row| row.value.events).sum::<u64>(), events);
        assert!(
            db.status()
                .iter()
                .all(|status| status.phase == Phase::Live && status.lag_events() == 0),
            "{:?}",
            db.status()
        );
    }
}

pub(crate) async fn slots_divide_the_keys_and_lose_none() {
    let store = store().await;
    let db = program_with(&store, options().slots(7)).await;
    let mut last = None;
    for number in 0..200 {
        last = Some(happens(&db, &number.to_string(), deposited(number)).await);
    }
    db.view::<Balance>()
        .wait_for(&last.unwrap(), Duration::from_secs(30))
        .await
        .unwrap();
    let rows = db.view::<Balance>().rows().await.unwrap().rows;
    assert_eq!(
        rows.iter().map(|row| row.value.cents).sum::<i64>(),
        (0..200).sum::<i64>()
    );
    assert_eq!(rows.len(), 200);
}

pub(crate) async fn a_view_being_built_answers_building() {
    let store = store().await;
    let db = Annals::on(store.handle());
    happens(&db, "alice", deposited(1)).await;
    // Another process holds the slot of the first generation, so that nothing is built.
    store
        .views()
        .acquire_lease("balances/1/0", "another", Duration::from_secs(3600))
        .await
        .unwrap();

    let program = db
        .with(Balance::projection())
        .start_in_background()
        .await
        .unwrap();
    let error = program.view::<Balance>().get("alice").await.unwrap_err();
    assert!(
        matches!(error, ViewError::Building { done: 0, .. }),
        "{error}"
    );
    assert_eq!(
        store.views().generations("balances").await.unwrap()[0].phase,
        Phase::Building
    );
}

pub(crate) async fn a_dead_programs_slot_is_free_after_its_lease() {
    let store = store().await;
    program(&store).await.stop().await;
    let generation = store
        .views()
        .generations("balances")
        .await
        .unwrap()
        .remove(0);
    // Left by a program with shorter leases than the next one has.
    let name = generation.lease_name(0);
    store
        .views()
        .acquire_lease(&name, "dead", Duration::from_millis(200))
        .await
        .unwrap();
    let db = program_with(&store, options().lease(Duration::from_secs(86_400))).await;
    let done = happens(&db, "alice", deposited(1)).await;
    db.view::<Balance>()
        .wait_for(&done, Duration::from_secs(60))
        .await
        .unwrap();
}

pub(crate) async fn a_stopped_programs_slot_is_taken_at_once() {
    let store = store().await;
    let year = options().lease(Duration::from_secs(31_536_000));
    let first = program_with(&store, year.clone()).await;
    let second = Annals::on(store.another_handle().await)
        .with(Balance::projection().options(year))
        .start()
        .await
        .unwrap();
    let is_elsewhere = |db: &Program| {
        let state = db.status()[0].slots[0].state.clone();
        matches!(state, SlotState::Elsewhere { .. })
    };
    while !is_elsewhere(&second) {
        tokio::task::yield_now().await;
    }
    first.stop().await;
    let done = happens(&second, "alice", deposited(1)).await;
    second
        .view::<Balance>()
        .wait_for(&done, Duration::from_secs(60))
        .await
        .unwrap();
}

pub(crate) async fn two_projections_of_one_name_are_an_error() {
    let db = Annals::in_memory();
    let twice = db.with(Balance::projection()).with(Balance::projection());
    assert!(matches!(
        twice.start().await,
        Err(StartError::Twice("balances"))
    ));
}

/// Fields can be set to anything.
fn zero(set: fn(&mut Options)) -> Options {
    let mut options = options();
    set(&mut options);
    options
}

pub(crate) async fn settings_that_nothing_could_work_with_are_refused() {
    let store = store().await;
    let never = Duration::ZERO;
    for (options, setting) in [
        (options().lease(never), "`lease` is 0ns"),
        (options().poll(never), "`poll` is 0ns"),
        (zero(|of| of.back_off = Duration::ZERO), "`back_off` is 0ns"),
        (zero(|of| of.slots = 0), "`slots` is 0"),
        (zero(|of| of.slots = 257), "`slots` is 257"),
        (
            zero(|of| of.batch_events_max = 0),
            "`batch_events_max` is 0",
        ),
        (
            zero(|of| of.build_events_max = 0),
            "`build_events_max` is 0",
        ),
        (zero(|of| of.batch_bytes_max = 0), "`batch_bytes_max` is 0"),
        (zero(|of| of.attempts = 0), "`attempts` is 0"),
    ] {
        let db = Annals::on(store.handle());
        let setup = db.with(Balance::projection().options(options));
        let error = setup.start().await.unwrap_err();
        assert!(
            matches!(
                &error,
                StartError::Setting {
                    name: "balances",
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.to_string().contains(setting), "{error}");
    }
    let gateway = Gateway::default();
    for (reactor, setting) in [
        (texts(&gateway).lease(never), "`lease`"),
        (texts(&gateway).poll(never), "`poll`"),
        (texts(&gateway).call_timeout(never), "`call_timeout`"),
    ] {
        let setup = Annals::on(store.handle()).with(reactor);
        let error = setup.start().await.unwrap_err();
        assert!(matches!(error, StartError::Setting { .. }), "{error}");
        assert!(error.to_string().contains(setting), "{error}");
    }
    let begun = store.views().generations("balances").await.unwrap();
    assert_eq!(begun, [], "nothing was begun");
}

pub(crate) async fn another_log_is_noticed_and_stops_the_projection() {
    let log = store().await;
    let views = Arc::new(MemoryStore::new());
    let db = Annals::on(log.handle());
    let program = db
        .with(Balance::projection())
        .views_in(Arc::clone(&views) as _)
        .start()
        .await
        .unwrap();
    happens(&program, "alice", deposited(1)).await;
    program.stop().await;

    let another = store().await;
    let other = Annals::on(another.handle());
    let error = other
        .with(Balance::projection())
        .views_in(views as _)
        .start()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("`balances` was built from another log than this; open the log"),
        "{error}"
    );
}
