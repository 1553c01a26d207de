//! A pipeline that programs declare with keys of other types: each has rows of its own.

use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::{Pipeline, Time, Window};
use annals::prelude::*;
use annals::{MemoryStore, Store};
use annals_core::conformance::Dice;

use crate::shop::{caught_up, options, order, sold};

macro_rules! sold_by {
    ($view:ident, $pipeline:ident, $key:ty, $of:expr) => {
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
        #[view(name = "sold_by", key = (Window, $key))]
        struct $view {
            sales: u64,
        }

        fn $pipeline() -> Pipeline {
            Pipeline::new("sold_by", 1, |log| {
                let keyed = sold(log).key_by($of);
                let counts = keyed.tumbling(Duration::from_mins(1)).count();
                counts.into_view_as::<$view>(|_, _, sales| $view { sales: *sales });
            })
        }
    };
}

sold_by!(ByProduct, by_product, String, |sale| sale.product.clone());
sold_by!(ByCents, by_cents, i64, |sale| sale.cents);

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_of_other_keys_share_no_rows() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    order(&*store, &mut Dice::new(8), 0, 100).await;
    let one = Annals::on(store.clone()).with(by_product().options(options()));
    let one = one.start().await.unwrap();
    let other = Annals::on(store.clone()).with(by_cents().options(options()));
    let other = other.start().await.unwrap();
    one.advance_clock(Time::MAX).await.unwrap();
    for db in [&one, &other] {
        caught_up(db, "sold_by").await;
    }
    let by_product = one.view::<ByProduct>().rows().await.unwrap().rows;
    let by_cents = other.view::<ByCents>().rows().await.unwrap().rows;
    let products: u64 = by_product.iter().map(|row| row.value.sales).sum();
    let cents: u64 = by_cents.iter().map(|row| row.value.sales).sum();
    assert!(products > 0);
    assert_eq!(products, cents);
    one.stop().await;
    other.stop().await;
}
