//! What a program tells of its projections: while it starts, while it works, when it cannot go on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals_core::chrono::TimeDelta;
use annals_core::conformance::faulty::{FaultyStore, StoreFault};
use annals_core::{Acquired, Annals, Append, ManualClock, NewEvent, Position, ReadLog, StreamId};
use annals_projections::{
    Kind, Program, ReadModels, SlotState, StartError, Status, View, ViewError, With,
};

use super::bank::{Balance, deposited, happens, noted, options, program};
use super::test_store::store;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Waits until the status of one is this text.
pub(super) async fn told(db: &Program, text: &str) {
    status(db, |of| of.to_string() == text).await;
}

/// Waits until the status is as expected, and gives it.
async fn status(db: &Program, expected: impl Fn(&Status) -> bool) -> Status {
    let seen = async {
        loop {
            if let Some(status) = db.status().into_iter().find(&expected) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    };
    match tokio::time::timeout(TIMEOUT, seen).await {
        Ok(status) => status,
        Err(_) => panic!("{:#?}", db.status()),
    }
}

pub(crate) async fn a_status_shows_progress_and_rows_at_hand() {
    let store = store().await;
    let db = program(&store).await;
    for cents in 1..=3 {
        happens(&db, "alice", deposited(cents)).await;
    }
    let done = happens(&db, "bob", noted("poison")).await;
    db.view::<Balance>().wait_for(&done, TIMEOUT).await.unwrap();

    let status = status(&db, |status| status.slots[0].state == SlotState::Live).await;
    assert_eq!(
        (status.kind, &*status.view, status.version),
        (Kind::View, "balances", 1)
    );
    assert_eq!(status.why(), "up to date; 1 key in dead letters");
    assert_eq!(
        (status.lag_events(), status.lag(), status.dead_letter_keys()),
        (0, Duration::ZERO, 1)
    );
    let slot = &status.slots[0];
    let stored = br#"{"cents":6,"events":3}"#.len() as u64;
    // Also a row that does not exist is known.
    assert_eq!(
        (slot.settled_events, slot.rows_at_hand, slot.bytes_at_hand),
        (4, 2, stored)
    );
    assert!(
        slot.commits
            .is_some_and(|commits| commits.count > 0 && commits.p50 <= commits.p99),
        "{slot:?}"
    );
    assert!(
        slot.owner.is_some() && slot.last_error.is_none() && slot.rest.is_none(),
        "{slot:?}"
    );
    db.stop().await;
}

/// A log of which nothing more is read, until it is mended.
#[derive(Clone, Debug, Default)]
struct Stalls {
    is_mended: Arc<AtomicBool>,
}

impl StoreFault for Stalls {
    fn stalled(&self, _: Option<String>) -> Option<String> {
        let is_mended = self.is_mended.load(Ordering::SeqCst);
        (!is_mended).then(|| "its topic was made again".to_owned())
    }
}

pub(crate) async fn a_log_that_stalls_says_so_in_the_status() {
    let store = store().await;
    let stalls = Stalls::default();
    let db = Annals::on(FaultyStore::new(store.handle(), stalls.clone()));
    let setup = Balance::projection().options(options());
    let db = db.with(setup).start().await.unwrap();
    let waits = status(&db, |status| status.why().contains("waits")).await;
    let said = "slot 0 waits: partition 0 of the log is not read on: its topic was made again";
    assert_eq!(waits.why(), said);
    assert_eq!(waits.lag_events(), 0, "nothing is known to lag");
    stalls.is_mended.store(true, Ordering::SeqCst);
    status(&db, |status| status.why() == "up to date").await;
    db.stop().await;
}

pub(crate) async fn a_slot_held_elsewhere_shows_owner_and_lag() {
    let store = store().await;
    program(&store).await.stop().await;
    let generation = store
        .views()
        .generations("balances")
        .await
        .unwrap()
        .remove(0);
    let asked = store
        .views()
        .acquire_lease(&generation.lease_name(0), "another", TIMEOUT)
        .await
        .unwrap();
    assert!(matches!(asked, Acquired::Granted(_)));
    let writer = Annals::on(store.handle());
    happens(&writer, "alice", deposited(1)).await;
    let recorded = store
        .read(ReadLog::after(Position::START))
        .await
        .unwrap()
        .events[0]
        .recorded_at;

    let clock = Arc::new(ManualClock::at(recorded + TimeDelta::seconds(75)));
    let db = writer
        .with_clock(clock)
        .with(Balance::projection())
        .start()
        .await
        .unwrap();
    let seen = |status: &Status| status.lag_events() == 1 && status.lag() > Duration::ZERO;
    let status = status(&db, seen).await;
    assert!(
        matches!(&status.slots[0].state, SlotState::Elsewhere { owner, .. } if owner == "another"),
        "{status:?}"
    );
    assert_eq!(
        (status.lag(), status.slots[0].owner.as_deref()),
        (Duration::from_secs(75), Some("another"))
    );
    let why = status.why();
    assert!(
        why.starts_with("lags 1 events, 1 min 15 s: slot 0 is held by another until "),
        "{why}"
    );
    db.stop().await;
}

pub(crate) async fn waiting_for_a_stopped_projection_fails_at_once() {
    let store = store().await;
    let db = program(&store).await;
    let stream = StreamId::new("account-alice").unwrap();
    let unreadable = NewEvent::json("account.deposited", r#"{"cents":"many"}"#);
    let bad = store
        .append(Append::new(stream, [unreadable]))
        .await
        .unwrap()
        .last()
        .position;
    let done = happens(&db, "bob", deposited(2)).await;

    let view = db.view::<Balance>();
    let forever = Duration::from_secs(1 << 40);
    let error = view.wait_for(&done, forever).await.unwrap_err();
    assert!(
        matches!(&error, ViewError::Stopped { reason } if reason.contains("`skip_event`")),
        "{error}"
    );
    // What came after it is seen although its worker pauses.
    let status = status(&db, |status| {
        status.slots[0].last_error.is_some() && status.lag_events() == 2
    })
    .await;
    assert!(
        status
            .why()
            .starts_with("slot 0 stopped: cannot read version 1"),
        "{status}"
    );

    // What was said before does not hold up who waits after a person has looked.
    view.skip_event(bad, "sent by a broken client")
        .await
        .unwrap();
    view.wait_for(&done, forever).await.unwrap();
    assert_eq!(
        view.get("bob").await.unwrap(),
        Some(Balance {
            cents: 2,
            events: 1
        })
    );
    assert!(
        db.status()[0].slots[0].last_error.is_some(),
        "it is kept for those who look later"
    );
    db.stop().await;
}

pub(crate) async fn starting_reports_progress_until_complete() {
    let store = store().await;
    let writer = Annals::on(store.handle());
    program(&store).await.stop().await;
    for number in 0..50 {
        happens(&writer, &number.to_string(), deposited(1)).await;
    }
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let tell = Arc::clone(&told);
    let projection =
        annals_projections::ViewSetup::<Balance>::new().options(options().batch_events_max(7));
    let db = writer
        .with(projection)
        .caught_up()
        .on_progress(move |all| {
            tell.lock()
                .unwrap()
                .extend(all.iter().map(ToString::to_string));
        })
        .start()
        .await
        .unwrap();
    assert_eq!(
        told.lock().unwrap().last().unwrap(),
        "balances v1: up to date"
    );
    assert_eq!(db.view::<Balance>().rows().await.unwrap().rows.len(), 50);
    db.stop().await;
}

pub(crate) async fn caught_up_fails_when_a_view_stops() {
    let store = store().await;
    program(&store).await.stop().await;
    let stream = StreamId::new("account-alice").unwrap();
    store
        .append(Append::new(
            stream,
            [NewEvent::json("account.deposited", "1")],
        ))
        .await
        .unwrap();
    let db = Annals::on(store.handle());
    let error = db
        .clone()
        .with(Balance::projection())
        .caught_up()
        .start()
        .await
        .unwrap_err();
    assert!(
        matches!(&error, StartError::Stopped { name, .. } if name == "balances"),
        "{error}"
    );
    // Its slot was given back, and who only wants what there is gets it.
    db.with(Balance::projection())
        .start()
        .await
        .unwrap()
        .stop()
        .await;
}
