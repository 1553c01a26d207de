//! Two versions of a pipeline at once, as in a deployment: one of them has the sender.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals::pipeline::Pipeline;
use annals::prelude::*;
use annals::projections::{Kind, Program};
use annals::status::SlotState;
use annals::store::ReadLog;
use annals::{Failure, MemoryStore, Partition, Store, StoreError};
use annals_core::conformance::faulty::{FaultyStore, StoreFault};
use annals_core::{CommitError, Filter, GenerationId, Phase, ViewCommit, ViewStore};
use async_trait::async_trait;

use crate::shop::{append, noon, options, ordered, sold};

const WAIT: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(category = "receipt")]
enum ReceiptEvent {
    Printed { cents: i64 },
}

fn receipts(version: u32) -> Pipeline {
    Pipeline::new("receipts", version, |log| {
        let sold = sold(log).key_by(|sale| sale.product.clone());
        sold.append(|product, sale| {
            let cents = sale.cents;
            (
                format!("receipt-{product}"),
                ReceiptEvent::Printed { cents },
            )
        });
    })
}

/// A store that takes no steps of one generation.
#[derive(Debug, Default)]
struct Fails(Mutex<Option<GenerationId>>);

#[async_trait]
impl StoreFault for Fails {
    async fn commit_view(
        &self,
        views: &dyn ViewStore,
        step: ViewCommit,
    ) -> Result<(), CommitError> {
        let fails = *self.0.lock().unwrap();
        if fails == Some(step.generation) {
            return Err(StoreError::new(Failure::Unavailable, "no answer").into());
        }
        views.commit_view(step).await
    }
}

/// The generation of a version, once it is the live one.
async fn live(store: &dyn Store, version: u32) -> GenerationId {
    let looking = async {
        loop {
            let generations = store.views().unwrap().generations("receipts").await;
            let generations = generations.unwrap().into_iter();
            let mut live = generations.filter(|of| of.phase == Phase::Live);
            if let Some(found) = live.find(|of| of.spec.version == version) {
                return found.id;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT, looking).await.unwrap()
}

async fn all_sent(db: &Program) {
    let head = db.store().head(Partition(0)).await.unwrap().visible;
    let token = Token::new(db.store().id()).with(Partition(0), head);
    let pipeline = db.pipeline("receipts").unwrap();
    pipeline.wait_until_sent(token, WAIT).await.unwrap();
}

/// How many receipts are in the log.
async fn printed(store: &dyn Store) -> usize {
    let filter = Filter::default().types(["receipt.printed"]);
    let read = ReadLog::after(Position::START).filter(filter);
    store.read(read).await.unwrap().events.len()
}

/// Waits until the sender waits, and says this among why.
async fn sender_says(db: &Program, says: &str) {
    let waits = async {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        loop {
            looks.tick().await;
            let status = db.status();
            let senders = status.iter().filter(|of| of.kind == Kind::Sender);
            let slots = senders.flat_map(|of| &of.slots);
            let mut reasons = slots.filter_map(|slot| match &slot.state {
                SlotState::Waiting { reason } => Some(reason),
                _ => None,
            });
            if reasons.any(|reason| reason.contains(says)) {
                return;
            }
        }
    };
    let said = tokio::time::timeout(WAIT, waits).await;
    assert!(said.is_ok(), "{:#?}", db.status());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_whose_generation_makes_no_progress_says_so() {
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let store = FaultyStore::new(inner.clone(), Fails::default());
    let first = Annals::on(store.clone()).with(receipts(1).options(options()));
    let first = first.caught_up().start().await.unwrap();
    all_sent(&first).await;
    append(&*inner, noon(), &ordered("tea", 500)).await;
    all_sent(&first).await;
    assert_eq!(printed(&*inner).await, 1);
    let older = live(&*inner, 1).await;

    let second = Annals::on(inner.clone()).with(receipts(2).options(options()));
    let second = second.start_in_background().await.unwrap();
    let newer = live(&*inner, 2).await;
    *store.fault().0.lock().unwrap() = Some(older);
    append(&*inner, noon(), &ordered("tea", 600)).await;
    let says = format!("stop the programs that follow generation {older}");
    sender_says(&first, &says).await;
    sender_says(&first, &format!("generation {newer} is the live one")).await;
    assert_eq!(printed(&*inner).await, 1);

    // It is the way out.
    first.stop().await;
    all_sent(&second).await;
    assert_eq!(printed(&*inner).await, 2);
    second.stop().await;
}
