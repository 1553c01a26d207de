//! What a program asks its stores while nothing happens.

#![allow(missing_docs, dead_code, clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use annals_core::conformance::faulty::{Call, FaultyStore, StoreFault};
use annals_core::{Annals, MemoryStore, StoreError};
use annals_macros::View;
use annals_projections::{ReadModels, View, With};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use bank::{AccountEvent, Balance, deposited, happens};

#[path = "../../tests/projections/bank.rs"]
mod bank;
#[path = "../../tests/projections/test_store.rs"]
mod test_store;

/// How often the store was asked.
#[derive(Debug, Default)]
struct Calls {
    heads: AtomicU64,
    log_reads: AtomicU64,
    view_reads: AtomicU64,
}

/// A store that counts.
#[derive(Clone, Debug, Default)]
struct CountsCalls(Arc<Calls>);

#[async_trait]
impl StoreFault for CountsCalls {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        let counter = match call {
            Call::Head => &self.0.heads,
            Call::ReadLog => &self.0.log_reads,
            Call::ReadView => &self.0.view_reads,
            _ => return Ok(()),
        };
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[derive(Debug, Default, Serialize, Deserialize, View)]
#[view(event = AccountEvent, crate = "annals_projections")]
struct Other {
    events: u64,
}

impl Other {
    fn apply(&mut self, _: &AccountEvent) {
        self.events += 1;
    }
}

#[tokio::test]
async fn an_idle_program_polls_once_for_all_its_views() {
    let counted = CountsCalls::default();
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), counted.clone());
    let calls = counted.0;
    let db = Annals::on(store)
        .with(Balance::projection())
        .with(Other::projection())
        .start()
        .await
        .unwrap();
    let done = happens(&db, "alice", deposited(1)).await;
    db.view::<Balance>()
        .get("alice")
        .at_least(&done)
        .await
        .unwrap();
    db.view::<Other>()
        .get("alice")
        .at_least(&done)
        .await
        .unwrap();
    let watchers: Vec<_> = (0..100)
        .map(|key| db.view::<Balance>().watch(key.to_string()))
        .collect();

    // What is asked from here on is the poll: one call about both views, and no read of the log.
    let now = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    let polls = async |count: u64| {
        let before = now(&calls.heads);
        while now(&calls.heads) < before + count {
            tokio::task::yield_now().await;
        }
    };
    polls(3).await;
    let heads = now(&calls.heads);
    let log_reads = now(&calls.log_reads);
    let view_reads = now(&calls.view_reads);
    polls(6).await;
    assert_eq!(now(&calls.log_reads), log_reads);
    let polled = now(&calls.heads) - heads;
    assert!(now(&calls.view_reads) - view_reads <= polled);
    drop(watchers);
    db.stop().await;
}
