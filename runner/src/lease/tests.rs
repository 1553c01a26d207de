//! Leases of owners that have ended, of one whose answer got lost, and of one that was dropped.

use std::sync::Arc;

use annals_core::{
    Acquired, Annals, Generation, GenerationSpec, GenerationStore, Leases, Log, MemoryStore,
};

use super::*;
use crate::kind::Kind;
use crate::location::ViewLocation;

async fn begun() -> (Arc<MemoryStore>, Generation) {
    let store = Arc::new(MemoryStore::new());
    let spec = GenerationSpec::new("balances", 1, store.id());
    let generation = store.begin_generation(spec).await.unwrap();
    (store, generation)
}

fn context(store: &Arc<MemoryStore>, owner: &str) -> WorkerContext {
    let db = Annals::on(Arc::clone(store) as _);
    let views = ViewLocation::Own(Arc::clone(store) as _);
    let mut context = WorkerContext::new(&db, &views, owner);
    context.timing.lease = Duration::from_secs(31_536_000);
    context
}

/// What `owner` was granted for a year is `next`'s at once, under another epoch.
async fn is_free_at_once(owner: &str, next: &str) {
    let (store, generation) = begun().await;
    let lease = Duration::from_secs(31_536_000);
    let name = generation.lease_name(0);
    let Acquired::Granted(before) = store.acquire_lease(&name, owner, lease).await.unwrap() else {
        panic!()
    };
    let context = context(&store, next);
    let claim = SlotClaim::of(&context, &generation, 0);
    let progress = Progress::of(Kind::View, &generation, 0, context.clock());
    let look = || async { Ok(()) };
    let acquire = HeldLease::acquire(&claim, &progress, look, std::future::pending());
    let held = tokio::time::timeout(Duration::from_secs(60), acquire)
        .await
        .expect("it is waited for");
    assert!(
        held.unwrap().unwrap().lease().epoch > before.epoch,
        "what was begun before is fenced"
    );
}

#[tokio::test]
async fn a_slot_of_a_killed_process_is_free_at_once() {
    let Some((process, rest)) = owner::name()
        .split_once('-')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
    else {
        panic!()
    };
    let Some((began, rest)) = rest.split_once('-') else {
        panic!()
    };
    let began: u64 = began.parse().unwrap();
    is_free_at_once(&format!("{process}-{}-{rest}", began + 1), "next").await;
}

#[tokio::test]
async fn a_slot_granted_by_a_lost_answer_is_free() {
    let name = owner::name();
    is_free_at_once(&name, &name).await;
}

#[tokio::test]
async fn a_dropped_lease_is_released() {
    let (store, generation) = begun().await;
    let first = context(&store, "first");
    let held = HeldLease::steal(&SlotClaim::of(&first, &generation, 0))
        .await
        .unwrap();
    drop(held);
    let next = context(&store, "next");
    let claim = SlotClaim::of(&next, &generation, 0);
    while claim.is_held_by_another().await.unwrap() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_lease_whose_request_was_dropped_is_released() {
    let (store, _) = begun().await;
    let first = context(&store, "first");
    let asked = Coordination::take(&first, "balances");
    // Polled once: the request is on its way.
    let _ = tokio::time::timeout(Duration::ZERO, asked).await;
    let next = context(&store, "next");
    Coordination::take(&next, "balances")
        .await
        .unwrap()
        .release()
        .await;
}
