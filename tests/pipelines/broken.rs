//! Commits that fail, or whose answer is lost, at every step.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use annals::prelude::*;
use annals::{Failure, StoreError};
use annals_core::conformance::Dice;
use annals_core::conformance::faulty::{Call, FaultyStore, StoreFault};
use async_trait::async_trait;

use crate::shop::{Location, Picture, caught_up, options, order, rebuild, sales};

/// Of three commits about one fails, and one is made without an answer: in no order that workers
/// which take turns could keep in step with.
#[derive(Debug, Default)]
pub(crate) struct TwoOfThree(AtomicU64);

impl TwoOfThree {
    /// The next number of a sequence without order (the golden ratio's multiples).
    fn draw(&self) -> u64 {
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        count.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40
    }
}

#[async_trait]
impl StoreFault for TwoOfThree {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        let broken = StoreError::new(Failure::Unavailable, "the connection was lost");
        if call == Call::CommitView && self.draw().is_multiple_of(3) {
            return Err(broken);
        }
        Ok(())
    }

    async fn after(&self, call: Call) -> Result<(), StoreError> {
        let broken = StoreError::new(Failure::Unavailable, "the answer was lost");
        if call == Call::CommitView && self.draw().is_multiple_of(2) {
            return Err(broken);
        }
        Ok(())
    }
}

pub(crate) async fn sales_survive_every_broken_commit_and_equal_a_rebuild(location: Location) {
    let inner = location.open().await;
    let faulty = FaultyStore::new(Arc::clone(&inner), TwoOfThree::default());
    let db = Annals::on(faulty.clone())
        .with(sales().options(options()))
        .start()
        .await
        .unwrap();
    let mut dice = Dice::new(7);
    for round in 0..12 {
        order(&*inner, &mut dice, round * 30, 30).await;
        caught_up(&db, "sales").await;
    }
    let live = Picture::of(&*inner, "sales").await;
    assert!(faulty.fault().0.load(Ordering::Relaxed) > 20);
    assert!(!live.state.is_empty(), "windows are open");
    assert!(live.rows.len() > 20, "{:?}", live.rows.len());
    assert!(
        live.rows
            .iter()
            .any(|(key, _)| key.starts_with("sales-too-late"))
    );
    rebuild(&db, "sales").await;
    assert_eq!(Picture::of(&*inner, "sales").await, live);
    db.stop().await;
    // A program that builds it in other batches, from the beginning.
    let other = Annals::on(inner.clone())
        .with(sales())
        .caught_up()
        .start()
        .await
        .unwrap();
    rebuild(&other, "sales").await;
    assert_eq!(Picture::of(&*inner, "sales").await, live);
    other.stop().await;
}
