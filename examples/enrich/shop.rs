//! What happens in a shop in three hours, delivered up to twenty seconds out of order.

use std::error::Error;

use annals::Store;
use annals::prelude::*;
use annals::store::{Append, NewEvent};
use chrono::{DateTime, TimeDelta, Utc};

/// How much later than later events one may be delivered.
pub(crate) const OUT_OF_ORDER_SECONDS: u64 = 20;
const MINUTES: i64 = 180;
const PRODUCTS: [&str; 4] = ["tea", "rum", "salt", "rope"];

#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(category = "purchase")]
pub(crate) enum PurchaseEvent {
    Made {
        number: u64,
        product: String,
        cents: i64,
    },
}

#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(category = "catalogue")]
pub(crate) enum CatalogueEvent {
    Listed { product: String, cost: i64 },
    Gone { product: String },
}

#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(category = "ad")]
pub(crate) enum AdEvent {
    Shown { impression: u64, ad: String },
    Clicked { impression: u64 },
}

#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(category = "order")]
pub(crate) enum OrderEvent {
    Placed { order: u64 },
    Shipped { order: u64 },
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    Purchase(PurchaseEvent),
    Catalogue(CatalogueEvent),
    Ad(AdEvent),
    Order(OrderEvent),
}

/// When the shop opens.
pub(crate) fn opens() -> DateTime<Utc> {
    DateTime::from_timestamp(1_774_951_200, 0).unwrap_or_default()
}

/// Everything with its second after the shop opened, in that order.
pub(crate) fn happenings() -> Vec<(i64, What)> {
    let mut all = Vec::new();
    for minute in 0..MINUTES {
        let now = minute * 60;
        for (half, product) in [(0, minute % 4), (1, (minute + 1) % 3)] {
            let purchase = PurchaseEvent::Made {
                number: (2 * minute + half) as u64,
                product: PRODUCTS[product as usize].to_owned(),
                cents: 200 + (minute * 37 + half * 11) % 300,
            };
            all.push((now + 7 + 30 * half, What::Purchase(purchase)));
        }
        // Each product is listed again every twenty minutes, a minute or two after some purchases.
        let index = minute % 20;
        if index % 5 == 0 {
            let product = PRODUCTS[(index / 5) as usize].to_owned();
            let is_last = product == "rope" && minute > 100;
            let event = match is_last {
                true => CatalogueEvent::Gone { product },
                false => CatalogueEvent::Listed {
                    product,
                    cost: 100 + minute / 2,
                },
            };
            all.push((now + 50, What::Catalogue(event)));
        }
        let impression = minute as u64;
        let ad = ["spring", "summer"][(minute % 2) as usize].to_owned();
        all.push((now + 3, What::Ad(AdEvent::Shown { impression, ad })));
        if minute % 3 == 0 {
            // Every ninth click comes when the hour is over.
            let after = if minute % 9 == 0 { 3_601 } else { 20 * minute };
            let clicked = AdEvent::Clicked { impression };
            all.push((now + 3 + after, What::Ad(clicked)));
        }
        if minute % 10 == 0 {
            let order = (minute / 10) as u64;
            all.push((now + 1, What::Order(OrderEvent::Placed { order })));
            // One in six is forgotten, another one shipped too late.
            let after = match order % 6 {
                1 => None,
                4 => Some(2 * 3_600),
                _ => Some(1_800 + 600 * order as i64 % 3_600),
            };
            if let Some(after) = after {
                all.push((now + 1 + after, What::Order(OrderEvent::Shipped { order })));
            }
        }
    }
    all.sort_by_key(|(at, _)| *at);
    all
}

/// The same in the order in which it is delivered.
pub(crate) fn deliveries() -> Vec<(i64, What)> {
    let mut state = 18_u64;
    let mut delayed: Vec<_> = happenings()
        .into_iter()
        .map(|(at, what)| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let delay = (state >> 33) % OUT_OF_ORDER_SECONDS;
            (at + delay as i64, at, what)
        })
        .collect();
    delayed.sort_by_key(|(delivered, ..)| *delivered);
    delayed
        .into_iter()
        .map(|(_, at, what)| (at, what))
        .collect()
}

/// Appends all deliveries.
pub(crate) async fn open_shop(store: &dyn Store) -> Result<(), Box<dyn Error>> {
    for (number, part) in deliveries().chunks(100).enumerate() {
        let mut events = Vec::with_capacity(part.len());
        for (at, what) in part {
            let mut event = match what {
                What::Purchase(event) => NewEvent::of(event)?,
                What::Catalogue(event) => NewEvent::of(event)?,
                What::Ad(event) => NewEvent::of(event)?,
                What::Order(event) => NewEvent::of(event)?,
            };
            event.occurred_at = opens() + TimeDelta::seconds(*at);
            events.push(event);
        }
        let stream = StreamId::new(format!("shop-{number}"))?;
        store.append(Append::new(stream, events)).await?;
    }
    Ok(())
}
