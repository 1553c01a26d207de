//! An order is taken at the price that was shown, also when that changed less than ten minutes ago.

use std::collections::HashMap;

use annals_core::chrono::{DateTime, TimeDelta, Utc};
use annals_core::{Annals, CommandError, Emit, Fold, Query, Recorded, Tag};
use annals_macros::Event;
use serde::{Deserialize, Serialize};

use crate::store::{at_a_held_clock, given, head, since};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "product", crate = "annals_core")]
enum ProductEvent {
    Defined {
        #[event(tag)]
        product: String,
        price: u64,
    },
    PriceChanged {
        #[event(tag)]
        product: String,
        price: u64,
    },
    Ordered {
        items: Vec<(String, u64)>,
    },
}

use ProductEvent::{Defined, Ordered, PriceChanged};

/// Every price of the products that were asked about, the newest last, and since when.
#[derive(Debug, Default)]
struct Prices(HashMap<String, Vec<(u64, DateTime<Utc>)>>);

impl Fold for Prices {
    type Event = ProductEvent;

    fn apply(&mut self, event: &Recorded<ProductEvent>) {
        if let Defined { product, price } | PriceChanged { product, price } = &**event {
            self.0
                .entry(product.clone())
                .or_default()
                .push((*price, event.record.occurred_at));
        }
    }
}

const GRACE: TimeDelta = TimeDelta::minutes(10);

impl Prices {
    /// The present price, or one that ended within the grace period.
    fn accepts(&self, product: &str, shown: u64, now: DateTime<Utc>) -> bool {
        let prices = self.0.get(product).map_or(&[][..], |prices| prices);
        let ended = prices
            .iter()
            .skip(1)
            .map(|(_, since)| Some(*since))
            .chain([None]);
        prices.iter().zip(ended).any(|((price, _), ended)| {
            *price == shown && ended.is_none_or(|end| now - end <= GRACE)
        })
    }
}

async fn order(db: &Annals, items: &[(&str, u64)]) -> Result<(), CommandError<String>> {
    let now = db.clock().now();
    let item = |product: &str| Query::tagged([Tag::new("product", product).unwrap()]);
    let query = items.iter().fold(Query::default(), |query, (product, _)| {
        query.or(item(product))
    });
    let decide = |prices: &Prices| {
        if let Some((product, shown)) = items
            .iter()
            .find(|(product, shown)| !prices.accepts(product, *shown, now))
        {
            return Err(format!("{product} does not cost {shown}"));
        }
        let items = items
            .iter()
            .map(|(product, price)| ((*product).to_owned(), *price))
            .collect();
        Ok(Emit::to("product-orders", Ordered { items }))
    };
    db.decide(Prices::over(query), decide).await.map(|_| ())
}

fn defined(product: &str, price: u64) -> ProductEvent {
    Defined {
        product: product.into(),
        price,
    }
}

fn changed(product: &str, price: u64) -> ProductEvent {
    PriceChanged {
        product: product.into(),
        price,
    }
}

/// What happened, how many minutes ago; then an order.
async fn check(history: &[(i64, ProductEvent)], items: &[(&str, u64)], expected: Result<(), &str>) {
    let (db, clock) = at_a_held_clock();
    let mut ago = 60;
    for (minutes, event) in history {
        clock.advance(TimeDelta::minutes(ago - minutes));
        ago = *minutes;
        given(&db, "product-given", [event.clone()]).await;
    }
    clock.advance(TimeDelta::minutes(ago));
    let before = head(&db).await;
    let outcome = order(&db, items).await.map_err(|error| error.to_string());
    assert_eq!(
        outcome,
        expected.map_err(str::to_owned),
        "{items:?} after {history:?}"
    );
    assert_eq!(
        since::<ProductEvent>(&db, before).await.len(),
        usize::from(expected.is_ok())
    );
}

#[tokio::test]
async fn a_shown_price_holds_ten_minutes_after_it_changed() {
    let once = [(30, defined("p1", 123))];
    check(&once, &[("p1", 100)], Err("p1 does not cost 100")).await;
    check(&once, &[("p1", 123)], Ok(())).await;
    check(&[], &[("p1", 123)], Err("p1 does not cost 123")).await;
    let long_ago = [(30, defined("p1", 123)), (20, changed("p1", 134))];
    check(&long_ago, &[("p1", 123)], Err("p1 does not cost 123")).await;
    check(&long_ago, &[("p1", 134)], Ok(())).await;
    let just_now = [(30, defined("p1", 123)), (9, changed("p1", 134))];
    check(&just_now, &[("p1", 123)], Ok(())).await;
    check(&just_now, &[("p1", 134)], Ok(())).await;
    check(&just_now, &[("p1", 135)], Err("p1 does not cost 135")).await;
}

#[tokio::test]
async fn an_order_of_several_products_is_one_decision() {
    let both = [
        (40, defined("p1", 123)),
        (30, defined("p2", 321)),
        (9, changed("p1", 124)),
        (8, changed("p2", 333)),
    ];
    check(&both, &[("p1", 123), ("p2", 333)], Ok(())).await;
    check(&both, &[("p1", 124), ("p2", 321)], Ok(())).await;
    check(
        &both,
        &[("p1", 123), ("p2", 300)],
        Err("p2 does not cost 300"),
    )
    .await;
}
