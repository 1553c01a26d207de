//! ViewHandle whose rows are written with the appends of commands.

use std::time::Duration;

use annals_core::{Annals, Position, Recorded};
use annals_macros::View;
use annals_projections::{
    Poison, Program, Project, ReadModels, Row, StartError, ViewError, ViewSetup, With,
};
use serde::{Deserialize, Serialize};

use super::bank::{Account, AccountEvent, Balance, deposited, happens, noted, options, program};
use super::test_store::{TestStore, store};

const WAIT: Duration = Duration::from_secs(30);

async fn inline(store: &TestStore) -> Program {
    let db = Annals::on(store.handle());
    db.with(ViewSetup::<Balance>::new().inline().options(options()))
        .start()
        .await
        .unwrap()
}

/// A program whose worker does nothing, because another one has the slot.
async fn without_worker(store: &TestStore) -> Program {
    inline(store).await.stop().await;
    let generation = store
        .views()
        .live_generation("balances", 1)
        .await
        .unwrap()
        .unwrap();
    store
        .views()
        .acquire_lease(
            &generation.lease_name(0),
            "another",
            Duration::from_secs(3600),
        )
        .await
        .unwrap();
    inline(store).await
}

async fn by_cents(db: &Program) -> Vec<(String, i64)> {
    let rows = db
        .view::<Balance>()
        .rows()
        .by_index::<i64>("cents", ..)
        .await
        .unwrap()
        .rows;
    rows.into_iter()
        .map(|row| (row.key, row.value.cents))
        .collect()
}

fn row(cents: i64, events: u64) -> Option<Balance> {
    Some(Balance { cents, events })
}

pub(crate) async fn inline_rows_are_read_at_once_by_every_query() {
    let store = store().await;
    let db = without_worker(&store).await;
    happens(&db, "alice", deposited(50)).await;
    happens(&db, "bob", deposited(20)).await;
    happens(&db, "alice", AccountEvent::Withdrawn { cents: 45 }).await;
    let view = db.view::<Balance>();
    assert_eq!(view.get("alice").await.unwrap(), row(5, 2));
    assert_eq!(
        view.many(["bob", "alice", "nobody"]).await.unwrap(),
        [row(20, 1), row(5, 2), None]
    );
    assert_eq!(
        by_cents(&db).await,
        [("alice".to_owned(), 5), ("bob".to_owned(), 20)]
    );
    happens(&db, "alice", AccountEvent::Closed).await;
    assert_eq!(view.get("alice").await.unwrap(), None);
    assert_eq!(by_cents(&db).await, [("bob".to_owned(), 20)]);
    happens(&db, "alice", deposited(1)).await;
    assert_eq!(view.get("alice").await.unwrap(), row(1, 1));
}

pub(crate) async fn a_decision_over_several_takes_all_rows_along() {
    use annals_core::Aggregate as _;

    let store = store().await;
    let db = without_worker(&store).await;
    happens(&db, "alice", deposited(50)).await;
    let transfer = |(_, _): &(Account, Account)| {
        Ok::<_, String>((
            AccountEvent::Withdrawn { cents: 30 },
            [deposited(10), deposited(20)],
        ))
    };
    db.decide((Account::at("alice"), Account::at("bob")), transfer)
        .await
        .unwrap();
    assert_eq!(
        by_cents(&db).await,
        [("alice".to_owned(), 20), ("bob".to_owned(), 30)]
    );
}

pub(crate) async fn a_request_that_is_repeated_counts_once() {
    let store = store().await;
    let db = without_worker(&store).await;
    for _ in 0..3 {
        let alice = db.aggregate::<Account>("alice");
        alice
            .run(|_| Ok::<_, String>(deposited(7)))
            .idempotency_key("req-1")
            .await
            .unwrap();
    }
    assert_eq!(by_cents(&db).await, [("alice".to_owned(), 7)]);
}

pub(crate) async fn concurrent_commands_on_one_row_fold_once_each() {
    let store = store().await;
    let db = without_worker(&store).await;
    // Each has a cache of its own, so they overtake each other and decide again.
    let others = [inline(&store).await, inline(&store).await];
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..30_usize {
        let db = [&db, &others[0], &others[1]][number % 3].clone();
        tasks.spawn(async move {
            let alice = db.aggregate::<Account>("alice");
            while alice.run(|_| Ok::<_, String>(deposited(1))).await.is_err() {}
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(
        db.view::<Balance>().get("alice").await.unwrap(),
        row(30, 30)
    );
    assert_eq!(
        by_cents(&db).await,
        [("alice".to_owned(), 30)],
        "every row travelled"
    );
}

pub(crate) async fn get_folds_what_another_program_appended() {
    let store = store().await;
    let db = without_worker(&store).await;
    happens(&db, "alice", deposited(1)).await;
    let foreign = Annals::on(store.handle());
    happens(&foreign, "alice", deposited(10)).await;
    let view = db.view::<Balance>();
    assert_eq!(view.get("alice").await.unwrap(), row(11, 2));
    assert_eq!(
        by_cents(&db).await,
        [("alice".to_owned(), 1)],
        "no worker brought it up"
    );
    // The row lags, so it is not written with it: what it was in between must be kept too.
    let done = happens(&db, "alice", deposited(100)).await;
    assert_eq!(view.get("alice").await.unwrap(), row(111, 3));
    db.stop().await;
    let generation = store
        .views()
        .live_generation("balances", 1)
        .await
        .unwrap()
        .unwrap();
    for lease in store
        .views()
        .leases(&generation.lease_name(0))
        .await
        .unwrap()
    {
        store.views().release_lease(&lease.lease).await.unwrap();
    }
    let db = inline(&store).await;
    db.view::<Balance>().wait_for(&done, WAIT).await.unwrap();
    assert_eq!(by_cents(&db).await, [("alice".to_owned(), 111)]);
    for (position, cents) in [(1, 1), (2, 11), (3, 111)] {
        let row = db
            .view::<Balance>()
            .get("alice")
            .as_of(Position::new(position))
            .await
            .unwrap();
        assert_eq!(row.map(|row| row.cents), Some(cents), "as of {position}");
    }
}

pub(crate) async fn a_poison_event_does_not_fail_its_command() {
    let store = store().await;
    let db = inline(&store).await;
    happens(&db, "alice", deposited(1)).await;
    happens(&db, "alice", noted("poison")).await;
    let done = happens(&db, "alice", deposited(1)).await;
    let view = db.view::<Balance>();
    view.wait_for(&done, WAIT).await.unwrap();
    assert_eq!(view.get("alice").await.unwrap(), row(1, 1));
    let dead_letters = view.dead_letter_keys(None, 9).await.unwrap();
    assert_eq!((dead_letters.len(), dead_letters[0].queued), (1, 1));
    view.skip("alice", dead_letters[0].position, "a test")
        .await
        .unwrap();
    assert_eq!(view.get("alice").await.unwrap(), row(2, 2));
    let done = happens(&db, "alice", deposited(5)).await;
    assert_eq!(
        by_cents(&db).await,
        [("alice".to_owned(), 7)],
        "it is written with it again"
    );
    view.wait_for(&done, WAIT).await.unwrap();
    assert_eq!(
        by_cents(&db).await,
        [("alice".to_owned(), 7)],
        "and is not folded twice"
    );
}

pub(crate) async fn asking_inline_for_a_dead_lettered_write_is_an_error() {
    let store = store().await;
    let db = inline(&store).await;
    let first = happens(&db, "alice", deposited(1)).await;
    let dead = happens(&db, "alice", noted("poison")).await;
    let done = happens(&db, "alice", deposited(2)).await;
    let view = db.view::<Balance>();
    let error = view.get("alice").at_least(&done).await.unwrap_err();
    let position = dead.events()[0].position;
    assert!(
        matches!(&error, ViewError::DeadLetters { position: at, .. } if *at == position),
        "{error}"
    );
    assert_eq!(view.get("alice").await.unwrap(), row(1, 1), "as it is");
    let before = view.get("alice").at_least(&first).await.unwrap();
    assert_eq!(before, row(1, 1), "only what is asked for counts");
    // The way out that the text names.
    view.wait_for(&done, WAIT).await.unwrap();
    view.discard("alice", "a test").await.unwrap();
    let after = view.get("alice").at_least(&done).await.unwrap();
    assert_eq!(after, row(1, 1));
    db.stop().await;
}

pub(crate) async fn a_watcher_is_told_of_rows_that_appends_wrote() {
    let store = store().await;
    let db = inline(&store).await;
    let mut alice = db.view::<Balance>().watch("alice");
    happens(&db, "alice", deposited(5)).await;
    loop {
        let change = tokio::time::timeout(WAIT, alice.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        if change.value == row(5, 1) {
            break;
        }
    }
}

pub(crate) async fn becoming_inline_rebuilds_and_a_rebuilt_view_stays_inline() {
    let store = store().await;
    let db = program(&store).await;
    happens(&db, "alice", deposited(1)).await;
    db.stop().await;
    let db = inline(&store).await;
    let generations = store.views().generations("balances").await.unwrap();
    assert_eq!(
        generations
            .iter()
            .map(|of| of.spec.inline)
            .collect::<Vec<_>>(),
        [false, true]
    );
    happens(&db, "alice", deposited(2)).await;
    db.rebuild::<Balance>()
        .begin()
        .await
        .unwrap()
        .finished(|_| ())
        .await
        .unwrap();
    let done = happens(&db, "alice", deposited(4)).await;
    assert_eq!(db.view::<Balance>().get("alice").await.unwrap(), row(7, 3));
    db.view::<Balance>().wait_for(&done, WAIT).await.unwrap();
    assert_eq!(by_cents(&db).await, [("alice".to_owned(), 7)]);
    db.rebuild::<Balance>().roll_back().await.unwrap();
    db.view::<Balance>().wait_for(&done, WAIT).await.unwrap();
    assert_eq!(
        by_cents(&db).await,
        [("alice".to_owned(), 7)],
        "what is kept is followed"
    );
}

/// Looks at what is known only once an event is recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "places",
    version = 1,
    events(AccountEvent),
    crate = "annals_projections"
)]
struct LastPlace {
    position: u64,
    events: u64,
}

impl Project<AccountEvent> for LastPlace {
    fn on(place: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        place.position = event.record.position.get();
        place.events += 1;
        Ok(())
    }
}

pub(crate) async fn a_fold_that_reads_the_position_is_right_inline() {
    let store = store().await;
    let db = Annals::on(store.handle());
    let db = db
        .with(ViewSetup::<LastPlace>::new().inline().options(options()))
        .start()
        .await
        .unwrap();
    for number in 1..=3 {
        let done = happens(&db, "alice", deposited(1)).await;
        let expected = Some(LastPlace {
            position: number,
            events: number,
        });
        assert_eq!(db.view::<LastPlace>().get("alice").await.unwrap(), expected);
        db.view::<LastPlace>().wait_for(&done, WAIT).await.unwrap();
        assert_eq!(
            db.view::<LastPlace>().many(["alice"]).await.unwrap(),
            [expected]
        );
    }
    let error = db
        .view::<LastPlace>()
        .get("alice")
        .as_of(Position::START)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ViewError::Invalid(_)),
        "it keeps no past: {error}"
    );
}

/// Changes other rows than that of the event's stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(
    name = "sums",
    version = 1,
    events(AccountEvent),
    crate = "annals_projections"
)]
struct Sum {
    events: u64,
}

impl Project<AccountEvent> for Sum {
    fn keys(_: &Recorded<AccountEvent>) -> Result<Vec<String>, Poison> {
        Ok(vec!["all".into()])
    }

    fn on(sum: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        sum.events += 1;
        Ok(())
    }
}

/// Has a key that is no stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "one", version = 1, events(AccountEvent), key = (), crate = "annals_projections")]
struct One {
    events: u64,
}

impl Project<AccountEvent> for One {
    fn on(sum: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        sum.events += 1;
        Ok(())
    }
}

pub(crate) async fn a_view_that_cannot_be_inline_is_refused_at_start() {
    let refused = |started: Result<Program, StartError>| match started {
        Err(StartError::Lifecycle { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let store = store().await;
    let db = || Annals::on(store.handle());
    for projection in [
        ViewSetup::<One>::new().inline(),
        ViewSetup::new().live_by_stream(),
    ] {
        let reason = refused(db().with(projection).start().await);
        assert!(
            reason.contains("its key is not the id of a stream"),
            "{reason}"
        );
    }
    let elsewhere = std::sync::Arc::new(annals_core::MemoryStore::new());
    let elsewhere = db()
        .with(ViewSetup::<Balance>::new().inline())
        .views_in(elsewhere)
        .start()
        .await;
    let reason = refused(elsewhere);
    assert!(
        reason.contains("kept in the store of the log only; do without `views_in`"),
        "{reason}"
    );
    let here = db().with(ViewSetup::<Balance>::new().inline());
    here.start().await.unwrap().stop().await;
}

pub(crate) async fn an_event_for_another_streams_row_stops_the_view() {
    let store = store().await;
    let writer = Annals::on(store.handle());
    happens(&writer, "alice", deposited(1)).await;
    let error = writer
        .with(ViewSetup::<Sum>::new().inline())
        .start()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(r#"changes rows ["all"] of inline view `sums`"#),
        "{error}"
    );
}
