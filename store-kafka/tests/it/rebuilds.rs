//! Builds over several partitions, as topics have them, are compared with the log, or say that they
//! were not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use annals::prelude::*;
use annals::projections::StartError;
use annals_core::{Append, EventStore as _, MemoryStore, NewEvent};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "account")]
enum AccountEvent {
    Deposited,
}

/// Its keys are streams, which have one partition each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "deposits", version = 1, events(AccountEvent))]
struct Deposits {
    count: u64,
}

impl Project<AccountEvent> for Deposits {
    fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.count += 1;
        Ok(())
    }
}

/// Gives other rows each time that it is folded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "calls", version = 1, events(AccountEvent))]
struct Calls {
    call: u64,
}

impl Project<AccountEvent> for Calls {
    fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        row.call = CALLS.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Has one key, whose events come from all partitions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "total", version = 1, events(AccountEvent))]
struct Total {
    count: u64,
}

impl Project<AccountEvent> for Total {
    fn keys(_: &Recorded<AccountEvent>) -> Result<Vec<String>, Poison> {
        Ok(vec!["all".to_owned()])
    }

    fn on(row: &mut Row<'_, Self>, _: &Recorded<AccountEvent>) -> Result<(), Poison> {
        row.count += 1;
        Ok(())
    }
}

/// A log of three partitions with events in each.
async fn log() -> Annals {
    let store = MemoryStore::with_partitions(3);
    for account in 0..12 {
        let stream = StreamId::new(format!("account-{account}")).unwrap();
        let events = (0..3).map(|_| NewEvent::json("account.deposited", "null"));
        store.append(Append::new(stream, events)).await.unwrap();
    }
    Annals::on(Arc::new(store))
}

#[tokio::test]
async fn keys_of_one_partition_each_are_compared() {
    let db = log().await.with(Deposits::projection()).start().await;
    let db = db.unwrap();
    assert_eq!(db.status()[0].unverified, None);
    assert_eq!(
        db.view::<Deposits>().get("7").await.unwrap(),
        Some(Deposits { count: 3 })
    );
    db.stop().await;
    let other = log().await.with(Calls::projection()).start().await;
    let Err(StartError::Stopped { reason, .. }) = other else {
        panic!("{other:?}");
    };
    assert!(reason.contains("differs from a replay"), "{reason}");
}

#[tokio::test]
async fn what_cannot_be_compared_says_so_in_its_status() {
    let db = log().await.with(Total::projection()).start().await.unwrap();
    let status = db.status()[0].to_string();
    assert!(
        status.contains("sampled keys come from several"),
        "{status}"
    );
    db.stop().await;
}
