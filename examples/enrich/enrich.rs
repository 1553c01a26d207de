//! The pipeline: purchases beside the catalogue, clicks beside impressions, orders that
//! are not shipped, and revenue per minute.

use std::time::Duration;

use annals::pipeline::{Fold, Keyed, Log, Pattern, Pipeline, Stream, Window, Within};
use annals::prelude::*;

use crate::shop::{AdEvent, CatalogueEvent, OUT_OF_ORDER_SECONDS, OrderEvent, PurchaseEvent};

/// A purchase with an entry of the catalogue at most five minutes away, before it or after.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "near-margins", key = u64)]
pub(crate) struct NearMargin {
    pub(crate) product: String,
    pub(crate) cents: i64,
    pub(crate) margin: Option<i64>,
}

/// A purchase with the catalogue as it was at that moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "margins", key = u64)]
pub(crate) struct Margin {
    pub(crate) product: String,
    pub(crate) cents: i64,
    pub(crate) margin: Option<i64>,
}

/// An impression, and whether it was clicked within an hour.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "impressions", key = u64)]
pub(crate) struct Impression {
    pub(crate) ad: String,
    pub(crate) clicked: bool,
}

/// An order that was not shipped within two hours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "unshipped", key = u64)]
pub(crate) struct Unshipped {
    pub(crate) order: u64,
}

/// What a minute brought in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "revenue", key = Window)]
pub(crate) struct Revenue {
    pub(crate) purchases: u64,
    pub(crate) cents: i64,
}

/// Number and price of a purchase.
type Purchase = (u64, i64);

impl Fold<Purchase> for Revenue {
    fn add(&mut self, (_, cents): &Purchase) {
        self.purchases += 1;
        self.cents += cents;
    }

    fn merge(&mut self, other: Revenue) {
        self.purchases += other.purchases;
        self.cents += other.cents;
    }
}

/// Purchases with their products.
fn purchases(log: &Log) -> Stream<(String, Purchase)> {
    let made = log.events::<PurchaseEvent>();
    let made = made.out_of_order_by(Duration::from_secs(OUT_OF_ORDER_SECONDS));
    made.map(|event| match &**event {
        PurchaseEvent::Made {
            number,
            product,
            cents,
        } => (product.clone(), (*number, *cents)),
    })
}

/// What a product costs, or that it is gone, by product.
fn costs(log: &Log) -> Keyed<String, Option<i64>> {
    let said = log.events::<CatalogueEvent>();
    let said = said.out_of_order_by(Duration::from_secs(OUT_OF_ORDER_SECONDS));
    said.map(|event| match &**event {
        CatalogueEvent::Listed { product, cost } => (product.clone(), Some(*cost)),
        CatalogueEvent::Gone { product } => (product.clone(), None),
    })
    .key_by(|(product, _)| product.clone())
    .map(|_, (_, cost)| *cost)
}

fn margins(log: &Log) {
    let purchases = purchases(log);
    let sold = purchases.key_by(|(product, _)| product.clone());
    let sold = sold.map(|_, (_, purchase)| *purchase);
    let costs = costs(log);
    // An entry that comes after the purchase counts as well, so the two meet within bounds.
    let listed = costs.filter_map(|_, cost| *cost);
    let near = Within::around(Duration::from_mins(5));
    sold.left_join(&listed, near, |purchase, cost| (*purchase, cost.copied()))
        .into_view_with::<NearMargin>(|product, ((number, cents), cost)| {
            let row = NearMargin {
                product: product.clone(),
                cents: *cents,
                margin: cost.map(|cost| cents - cost),
            };
            (*number, row)
        });
    // What was known to hold then: a table, looked up as of the purchase.
    let catalogue = costs.table(|cost| *cost);
    sold.look_up(&catalogue, |purchase, cost| (*purchase, cost.copied()))
        .into_view_with::<Margin>(|product, ((number, cents), cost)| {
            let row = Margin {
                product: product.clone(),
                cents: *cents,
                margin: cost.map(|cost| cents - cost),
            };
            (*number, row)
        });
    let all = purchases.key_by(|_| ()).map(|(), (_, purchase)| *purchase);
    all.tumbling(Duration::from_mins(1))
        .folded::<Revenue>()
        .into_view();
}

fn impressions(log: &Log) {
    let ads = log.events::<AdEvent>();
    let ads = ads.out_of_order_by(Duration::from_secs(OUT_OF_ORDER_SECONDS));
    let ads = ads.map(|event| (**event).clone());
    let ads = ads.key_by(|event| match event {
        AdEvent::Shown { impression, .. } | AdEvent::Clicked { impression } => *impression,
    });
    let shown = ads.filter_map(|_, event| match event {
        AdEvent::Shown { ad, .. } => Some(ad.clone()),
        AdEvent::Clicked { .. } => None,
    });
    let clicked = ads.filter_map(|_, event| matches!(event, AdEvent::Clicked { .. }).then_some(()));
    let hour = Within::after(Duration::from_hours(1));
    shown
        .left_join(&clicked, hour, |ad, click| Impression {
            ad: ad.clone(),
            clicked: click.is_some(),
        })
        .into_view();
}

fn unshipped(log: &Log) {
    let orders = log.events::<OrderEvent>();
    let orders = orders.out_of_order_by(Duration::from_secs(OUT_OF_ORDER_SECONDS));
    let orders = orders.map(|event| (**event).clone());
    let orders = orders.key_by(|event| match event {
        OrderEvent::Placed { order } | OrderEvent::Shipped { order } => *order,
    });
    let forgotten = Pattern::first(|event: &OrderEvent| matches!(event, OrderEvent::Placed { .. }))
        .never(|_, event| matches!(event, OrderEvent::Shipped { .. }))
        .within(Duration::from_hours(2));
    orders
        .detect(forgotten)
        .map(|order, _| Unshipped { order: *order })
        .into_view();
}

/// All of it: one pipeline, so that its views are of one moment of the log.
pub(crate) fn enrich() -> Pipeline {
    Pipeline::new("enrich", 1, |log| {
        margins(log);
        impressions(log);
        unshipped(log);
    })
}
