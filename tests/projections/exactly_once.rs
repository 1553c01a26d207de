//! Exactly once, whatever is paused or taken over when.

use std::time::Duration;

use annals_core::conformance::rounds;
use annals_core::{Annals, Checkpoint, CommitError, Lease, Position, ViewCommit};
use annals_projections::{ReadModels, View, With};

use super::bank::{Balance, deposited, happens, options, program};
use super::test_store::store;

pub(crate) async fn a_worker_that_lost_its_slot_changes_nothing() {
    let store = store().await;
    let db = program(&store).await;
    let done = happens(&db, "alice", deposited(5)).await;
    db.view::<Balance>()
        .wait_for(&done, Duration::from_secs(30))
        .await
        .unwrap();

    let generation = store
        .views()
        .generations("balances")
        .await
        .unwrap()
        .remove(0);
    let zombie = Lease {
        name: generation.lease_name(0),
        owner: "zombie".into(),
        epoch: 0,
    };
    let to = Checkpoint {
        position: Position::new(2),
        ..Checkpoint::start(0, annals_core::Partition(0))
    };
    let refused = store
        .views()
        .commit_view(ViewCommit::new(generation.id, zombie, Position::new(1), to))
        .await;
    assert!(
        matches!(refused, Err(CommitError::Fenced { .. })),
        "{refused:?}"
    );
    let row = db.view::<Balance>().get("alice").await.unwrap();
    assert_eq!(
        row,
        Some(Balance {
            cents: 5,
            events: 1
        })
    );
}

pub(crate) async fn workers_stealing_each_others_lease_apply_every_event_once() {
    let store = store().await;
    let writer = Annals::on(store.handle());
    // Three programs over the same slots. The holder of one is robbed of it again and again.
    let mut programs = Vec::new();
    for _ in 0..3 {
        let db = Annals::on(store.another_handle().await);
        let options = options()
            .slots(3)
            .lease(Duration::from_millis(40))
            .batch_events_max(5)
            .poll(Duration::from_millis(5));
        programs.push(
            db.with(Balance::projection().options(options))
                .start_in_background()
                .await
                .unwrap(),
        );
    }
    let robbed = store.clone();
    let robber = tokio::spawn(async move {
        loop {
            for state in robbed.views().leases("balances/").await.unwrap() {
                // Ends the lease under its holder, which goes on working until it notices.
                robbed.views().release_lease(&state.lease).await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    });
    let mut last = None;
    let events = rounds(240, 600);
    for number in 0..events {
        last = Some(happens(&writer, &(number % 10).to_string(), deposited(1)).await);
    }
    robber.abort();
    let view = programs[0].view::<Balance>();
    view.wait_for(&last.unwrap(), Duration::from_secs(60))
        .await
        .unwrap();
    let rows = view.rows().await.unwrap().rows;
    let counts: Vec<_> = rows
        .iter()
        .map(|row| (row.value.events, row.value.cents))
        .collect();
    assert_eq!(counts, [(events / 10, (events / 10) as i64); 10]);
    for program in programs {
        program.stop().await;
    }
}
