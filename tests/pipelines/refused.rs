//! Programs that make no sense: refused before anything is read.

use std::sync::Arc;
use std::time::Duration;

use annals::MemoryStore;
use annals::pipeline::{Keyed, Pipeline, Window};
use annals::prelude::*;

use crate::shop::{Sale, ShopEvent, sold};

#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "best", key = Window)]
struct Best {
    products: Vec<(String, u64)>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "items", key = String)]
struct Items(i64);

async fn refused(what: &str, build: impl FnOnce(&Keyed<String, Sale>)) {
    let wrong = Pipeline::new("wrong", 1, |log| {
        let keyed = sold(log).key_by(|sale| sale.product.clone());
        keyed.into_view_with::<Items>(|key, sale| (key.clone(), Items(sale.cents)));
        build(&keyed);
    });
    let started = Annals::on(Arc::new(MemoryStore::new())).with(wrong);
    let error = started.start().await.unwrap_err().to_string();
    assert!(error.contains(what), "{what}: {error}");
}

fn best(counts: &annals::pipeline::Results<String, u64>, count: usize) {
    let best = counts.top(count, |count| *count);
    best.into_view_as::<Best>(|(), _, products| Best {
        products: products.clone(),
    });
}

#[tokio::test]
async fn the_best_of_sessions_is_refused() {
    let second = Duration::from_secs(1);
    let what = "each key has sessions of its own";
    refused(what, |keyed| best(&keyed.sessions(second).count(), 1)).await;
    let by = |keyed: &Keyed<String, Sale>| keyed.sessions_by(move |_| second).count();
    refused(what, |keyed| best(&by(keyed).map(|count| count + 1), 1)).await;
    let calm = |keyed: &Keyed<String, Sale>| by(keyed).on_update().at_most_every(second);
    refused(what, |keyed| best(&calm(keyed), 1)).await;
    refused(what, |keyed| {
        by(keyed).top_with_ties(1, |count| *count);
    })
    .await;
}

#[tokio::test]
async fn the_best_of_none_is_refused() {
    let minute = Duration::from_mins(1);
    let what = "`top` of 0 keys is always empty";
    refused(what, |keyed| best(&keyed.tumbling(minute).count(), 0)).await;
}

#[tokio::test]
async fn parts_of_a_microsecond_are_refused() {
    let odd = Duration::from_nanos(1_500);
    let even = Duration::from_secs(1);
    let what = |of: &str| format!("1.5µs of `{of}` are no whole microseconds");
    refused(&what("tumbling"), |keyed| {
        keyed.tumbling(odd).count();
    })
    .await;
    refused(&what("hopping"), |keyed| {
        keyed.hopping(even, odd).count();
    })
    .await;
    refused(&what("sliding"), |keyed| {
        keyed.sliding(odd).count();
    })
    .await;
    refused(&what("sessions"), |keyed| {
        keyed.sessions(odd).count();
    })
    .await;
    refused(&what("allow_late"), |keyed| {
        keyed.tumbling(even).allow_late(odd).count();
    })
    .await;
    refused(&what("offset"), |keyed| {
        keyed.tumbling(even).offset(odd).count();
    })
    .await;
    refused(&what("at_most_every"), |keyed| {
        let _ = keyed.tumbling(even).count().on_update().at_most_every(odd);
    })
    .await;
    refused(&what("distinct_by"), |keyed| {
        keyed.distinct_by(|sale| sale.cents, odd);
    })
    .await;
    refused(&what("scan"), |keyed| {
        keyed.scan(odd, |count: &mut u64, _| Some(*count));
    })
    .await;
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "wrong", version = 2, key = String, events(ShopEvent))]
struct Folded {
    orders: u64,
}

impl Project<ShopEvent> for Folded {
    fn on(row: &mut Row<'_, Self>, _: &Recorded<ShopEvent>) -> Result<(), Poison> {
        row.orders += 1;
        Ok(())
    }
}

#[tokio::test]
async fn a_pipeline_with_the_name_of_a_view_is_refused() {
    let wrong = || {
        Pipeline::new("wrong", 1, |log| {
            let keyed = sold(log).key_by(|sale| sale.product.clone());
            keyed.into_view_with::<Items>(|key, sale| (key.clone(), Items(sale.cents)));
        })
    };
    let program = || Annals::on(Arc::new(MemoryStore::new()));
    let after = program().with(wrong()).with(Folded::projection());
    let before = program().with(Folded::projection()).with(wrong());
    for started in [after, before] {
        let error = started.start().await.unwrap_err().to_string();
        assert!(error.contains("a view is called so too"), "{error}");
    }
}
