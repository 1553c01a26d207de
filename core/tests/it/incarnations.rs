//! A log that was restored or failed over: what is remembered of the older incarnation counts no
//! more.

use std::sync::Arc;

use annals_core::{
    Annals, Append, AppendError, EventStore, Log, MemoryStore, NewEvent, Position, StreamId,
    Violation,
};

use crate::bank::{Account, AccountEvent, deposited, withdrawn};
use crate::store::alice;

async fn deposit(db: &Annals, cents: i64) {
    let account = alice(db);
    account
        .run(|_| Ok::<_, String>(deposited(cents)))
        .await
        .unwrap();
}

fn withdraw(account: &Account, cents: i64) -> Result<AccountEvent, String> {
    if account.cents < cents {
        return Err(format!("only {} are left", account.cents));
    }
    Ok(withdrawn(cents))
}

#[tokio::test]
async fn a_cached_state_of_a_lost_history_decides_nothing() {
    let store = MemoryStore::new();
    let db = Annals::on(Arc::new(store.clone()));
    deposit(&db, 1).await;
    deposit(&db, 1_000).await;
    // The second deposit is lost, and another process appends in its place: the version is the
    // one that the cached state expects.
    store.rewind(Position::new(1));
    let other = Annals::on(Arc::new(store.clone()));
    deposit(&other, 1).await;
    let refused = alice(&db).run(|account| withdraw(account, 900)).await;
    assert_eq!(refused.unwrap_err().to_string(), "only 2 are left");
    assert_eq!(alice(&db).load().await.unwrap().cents, 2);
    assert_eq!(alice(&db).query(|account| account.cents).await.unwrap(), 2);
}

#[tokio::test]
async fn an_append_decided_on_a_lost_history_is_refused() {
    let store = MemoryStore::new();
    let before = store.incarnation();
    let stream = StreamId::new("account-alice").unwrap();
    let append = Append::new(stream.clone(), [NewEvent::json("t", "1")]).decided_on(before);
    store.append(append.clone()).await.unwrap();
    store
        .append(Append::new(stream.clone(), [NewEvent::json("t", "2")]))
        .await
        .unwrap();
    store.rewind(Position::new(1));
    assert_ne!(store.incarnation(), before);
    // What is known is answered; what is not was decided on another incarnation.
    assert!(store.append(append).await.unwrap().was_repeated());
    let late = Append::new(stream, [NewEvent::json("t", "3")]).decided_on(before);
    let Err(AppendError::Conflict(violations)) = store.append(late).await else {
        panic!("a conflict")
    };
    assert!(matches!(violations[..], [Violation::Incarnation { .. }]));
}
