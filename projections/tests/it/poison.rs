//! A poison event delays only its own key, and everything it delays is kept in order.

use std::time::Duration;

use annals_core::ViewStore;

use crate::bank::{Balance, deposited, happens, noted, program, store};

#[tokio::test]
async fn a_poison_event_delays_only_its_own_key() {
    for poison in ["poison", "panic"] {
        let store = store();
        let db = program(&store).await;
        happens(&db, "alice", deposited(5)).await;
        let bad = happens(&db, "alice", noted(poison)).await;
        let behind = happens(&db, "alice", deposited(7)).await;
        let done = happens(&db, "bob", deposited(1)).await;

        let view = db.view::<Balance>();
        view.wait_for(&done, Duration::from_secs(30)).await.unwrap();
        assert_eq!(view.get("bob").await.unwrap(), Some(Balance { cents: 1, events: 1 }));
        assert_eq!(view.get("alice").await.unwrap(), Some(Balance { cents: 5, events: 1 }), "as before the poison");

        let generation = store.generations("balances").await.unwrap()[0].id;
        let parked = store.parked(generation, None, 10).await.unwrap();
        let found: Vec<_> =
            parked.iter().map(|parked| (parked.position, parked.cause.is_some(), &*parked.key)).collect();
        assert_eq!(found, [(bad.events()[0].position, true, "alice"), (behind.events()[0].position, false, "alice")]);
        assert_eq!(db.status()[0].to_string(), "balances v1: up to date; 1 key waits for a person");
        db.stop().await;
    }
}

#[tokio::test]
async fn a_key_that_waits_still_waits_after_a_restart() {
    let store = store();
    let first = program(&store).await;
    let done = happens(&first, "alice", noted("poison")).await;
    first.view::<Balance>().wait_for(&done, Duration::from_secs(30)).await.unwrap();
    first.stop().await;

    let second = program(&store).await;
    let done = happens(&second, "alice", deposited(7)).await;
    second.view::<Balance>().wait_for(&done, Duration::from_secs(30)).await.unwrap();
    assert_eq!(second.view::<Balance>().get("alice").await.unwrap(), None);
}
