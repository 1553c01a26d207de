//! What is checked of a new generation before readers see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use annals::pipeline::{Fold, Pipeline, Time, Window};
use annals::prelude::*;
use annals::projections::RebuildError;
use annals::{MemoryStore, Store};
use annals_core::conformance::Dice;

use crate::kinds::keyed;
use crate::shop::{Picture, Sale, caught_up, options, order};

static CALLS: AtomicI64 = AtomicI64::new(0);

/// A fold that is no function of its items.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "drifting", key = (Window, String))]
struct Drifting {
    calls: i64,
}

impl Fold<Sale> for Drifting {
    fn add(&mut self, _: &Sale) {
        self.calls += CALLS.fetch_add(1, Ordering::Relaxed);
    }

    fn merge(&mut self, other: Drifting) {
        self.calls += other.calls;
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "busiest", key = Window)]
struct Busiest {
    products: Vec<(String, u64)>,
}

fn drifting() -> Pipeline {
    Pipeline::new("drifting", 1, |log| {
        let minutes = keyed(log).tumbling(Duration::from_mins(1));
        minutes.folded::<Drifting>().into_view();
    })
}

fn busiest() -> Pipeline {
    Pipeline::new("busiest", 1, |log| {
        let counts = keyed(log).tumbling(Duration::from_mins(1)).count();
        let best = counts.top(1, |count| *count);
        best.into_view_as::<Busiest>(|(), _, products| Busiest {
            products: products.clone(),
        });
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_unlike_its_replay_is_not_switched_to() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    for slots in [1, 3] {
        let db = Annals::on(store.clone())
            .with(drifting().options(options()).slots(slots))
            .start_in_background()
            .await
            .unwrap();
        if slots == 1 {
            // An empty log has nothing that differs.
            caught_up(&db, "drifting").await;
        }
        order(&*store, &mut Dice::new(8), 0, 200).await;
        caught_up(&db, "drifting").await;
        let live = Picture::of(&*store, "drifting").await;
        assert!(live.rows.len() > 5);
        let rebuild = db.pipeline("drifting").unwrap().rebuild();
        let building = rebuild.begin().await.unwrap();
        let error = building.finished(|_| ()).await.unwrap_err();
        assert!(matches!(error, RebuildError::Stopped { .. }), "{error:?}");
        let error = error.to_string();
        assert!(
            error.contains("of view `drifting` differs from a replay"),
            "{error}"
        );
        assert_eq!(Picture::of(&*store, "drifting").await, live, "it serves on");
        let under_way = rebuild.under_way().await.unwrap().unwrap();
        under_way.call_off().await.unwrap();
        db.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_brings_keys_together_is_switched_to_unverified() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    order(&*store, &mut Dice::new(8), 0, 100).await;
    let db = Annals::on(store.clone())
        .with(busiest())
        .start()
        .await
        .unwrap();
    db.advance_clock(Time::MAX).await.unwrap();
    caught_up(&db, "busiest").await;
    assert!(!db.view::<Busiest>().rows().await.unwrap().rows.is_empty());
    let status = db.status();
    let status = status.iter().find(|of| of.view == "busiest").unwrap();
    let why = "not verified: its stages bring several keys together";
    assert!(status.why().contains(why), "{status}");
    db.stop().await;
}
