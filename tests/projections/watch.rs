//! Pages that update themselves.

use std::time::Duration;

use annals_core::Annals;
use annals_projections::{Change, ReadModels, Update, ViewHandle};

use super::bank::{
    AccountEvent, Balance, deposited, happens, mend, noted, options, program, program_with,
};
use super::test_store::store;

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .unwrap()
}

/// The next change of any row; looking again brings nothing new here.
async fn changed(watch: &mut annals_projections::WatchAll<Balance>) -> Change<Balance> {
    loop {
        if let Update::Changed(change) = within(watch.next()).await.unwrap().unwrap() {
            return change;
        }
    }
}

async fn shown(view: &ViewHandle<Balance>, key: &str) -> i64 {
    view.get(key).await.unwrap().map_or(0, |row| row.cents)
}

pub(crate) async fn a_watcher_sees_every_change_of_its_row() {
    let store = store().await;
    let db = program(&store).await;
    happens(&db, "alice", deposited(1)).await;
    let view = db.view::<Balance>();
    let mut alice = view.watch("alice");
    for cents in [10, 100] {
        happens(&db, "bob", deposited(1)).await;
        let done = happens(&db, "alice", deposited(cents)).await;
        // It may tell of what was there before, too.
        loop {
            let change = within(alice.next()).await.unwrap().unwrap();
            assert_eq!(change.key, "alice");
            if change.token.position(done.events()[0].partition) >= done.events()[0].position {
                assert_eq!(
                    change.value.map(|row| row.cents),
                    Some(shown(&view, "alice").await)
                );
                break;
            }
        }
    }
    happens(&db, "alice", AccountEvent::Closed).await;
    assert_eq!(within(alice.next()).await.unwrap().unwrap().value, None);
    db.stop().await;
    assert_eq!(
        within(alice.next()).await.unwrap(),
        None,
        "the program has stopped"
    );
}

pub(crate) async fn watch_all_sees_every_row_change() {
    let store = store().await;
    let db = program(&store).await;
    let mut all = db.view::<Balance>().watch_all();
    for number in 0..20_i64 {
        let key = (number % 3).to_string();
        let done = happens(&db, &key, deposited(1)).await;
        let change = changed(&mut all).await;
        assert_eq!(
            (change.key, change.value.map(|row| row.events)),
            (key, Some(number as u64 / 3 + 1))
        );
        // What is read at the token of a change has seen it.
        assert_eq!(
            change.token.position(done.events()[0].partition),
            done.events()[0].position
        );
    }
}

pub(crate) async fn what_is_settled_late_is_told_too() {
    let store = store().await;
    let db = program(&store).await;
    happens(&db, "alice", noted("poison")).await;
    let done = happens(&db, "alice", deposited(5)).await;
    let view = db.view::<Balance>();
    view.wait_for(&done, Duration::from_secs(30)).await.unwrap();
    let mut alice = view.watch("alice");
    mend();
    view.retry("alice").await.unwrap();
    let change = within(alice.next()).await.unwrap().unwrap();
    assert_eq!(
        change.value,
        Some(Balance {
            cents: 5,
            events: 2
        })
    );
}

pub(crate) async fn a_slow_watcher_reads_again_and_sees_the_newest() {
    let store = store().await;
    let db = program(&store).await;
    let view = db.view::<Balance>();
    let mut alice = view.watch("alice");
    let mut all = view.watch_all();
    let mut last = None;
    for _ in 0..200 {
        let done = happens(&db, "alice", deposited(1)).await;
        view.wait_for(&done, Duration::from_secs(30)).await.unwrap();
        last = Some(done);
    }
    assert!(matches!(
        within(all.next()).await.unwrap(),
        Some(Update::LookAgain)
    ));
    let change = within(alice.next()).await.unwrap().unwrap();
    assert_eq!(
        change.value,
        Some(Balance {
            cents: 200,
            events: 200
        })
    );
    let last = last.unwrap();
    assert_eq!(
        change.token.position(last.events()[0].partition),
        last.events()[0].position
    );
    // What comes next follows on that.
    happens(&db, "alice", deposited(1)).await;
    assert_eq!(
        within(alice.next())
            .await
            .unwrap()
            .unwrap()
            .value
            .unwrap()
            .cents,
        201
    );
    assert_eq!(changed(&mut all).await.value.unwrap().cents, 201);
}

pub(crate) async fn a_switch_to_another_generation_tells_watchers_to_look_again() {
    let store = store().await;
    let db = program(&store).await;
    happens(&db, "alice", deposited(1)).await;
    let mut all = db.view::<Balance>().watch_all();
    db.rebuild::<Balance>()
        .begin()
        .await
        .unwrap()
        .finished(|_| ())
        .await
        .unwrap();
    while !matches!(
        within(all.next()).await.unwrap().unwrap(),
        Update::LookAgain
    ) {}
    happens(&db, "alice", deposited(1)).await;
    while changed(&mut all).await.value
        != Some(Balance {
            cents: 2,
            events: 2,
        })
    {}
}

pub(crate) async fn what_another_process_folds_is_noticed() {
    let store = store().await;
    let working = program(&store).await;
    let watching = program_with(&store, options().poll(Duration::from_millis(5))).await;
    assert_eq!(
        store.views().generations("balances").await.unwrap().len(),
        1
    );
    let mut alice = watching.view::<Balance>().watch("alice");
    let mut all = watching.view::<Balance>().watch_all();
    let writer = Annals::on(store.another_handle().await);
    happens(&writer, "alice", deposited(3)).await;
    loop {
        let change = within(alice.next()).await.unwrap().unwrap();
        if change.value.map(|row| row.cents) == Some(3) {
            break;
        }
    }
    assert!(matches!(
        within(all.next()).await.unwrap(),
        Some(Update::LookAgain)
    ));
    working.stop().await;
}

pub(crate) async fn what_another_process_retries_is_noticed() {
    let store = store().await;
    let working = program(&store).await;
    let watching = program_with(&store, options().poll(Duration::from_millis(5))).await;
    let writer = Annals::on(store.another_handle().await);
    happens(&writer, "alice", noted("poison")).await;
    let done = happens(&writer, "alice", deposited(3)).await;
    let view = watching.view::<Balance>();
    within(view.wait_for(&done, Duration::from_secs(30)))
        .await
        .unwrap();
    let mut alice = view.watch("alice");
    // It has seen how far the other process is, and that there is no row.
    let change = within(alice.next()).await.unwrap().unwrap();
    assert_eq!(change.value, None);
    mend();
    let settled = working.view::<Balance>().retry("alice").await.unwrap();
    assert_eq!((settled.events, settled.still), (2, None));
    let change = within(alice.next()).await.unwrap().unwrap();
    assert_eq!(change.value.map(|row| row.cents), Some(3));
    working.stop().await;
}
