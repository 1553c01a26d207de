//! The views say what looking through everything by hand says.

use std::collections::BTreeMap;
use std::time::Duration;

use annals::pipeline::{Time, window_at};
use annals::prelude::*;
use chrono::TimeDelta;

use crate::enrich::{Impression, Margin, NearMargin, Revenue, Unshipped, enrich};
use crate::shop::{
    AdEvent, CatalogueEvent, OrderEvent, PurchaseEvent, What, happenings, open_shop, opens,
};

/// What there should be in each view.
#[derive(Debug, Default, PartialEq)]
struct Views {
    near: BTreeMap<u64, NearMargin>,
    then: BTreeMap<u64, Margin>,
    impressions: BTreeMap<u64, Impression>,
    unshipped: BTreeMap<u64, Unshipped>,
    /// By minute.
    revenue: BTreeMap<i64, Revenue>,
}

fn by_hand() -> Views {
    let all = happenings();
    let mut views = Views::default();
    let entries: Vec<_> = all
        .iter()
        .filter_map(|(at, what)| match what {
            What::Catalogue(CatalogueEvent::Listed { product, cost }) => {
                Some((*at, product, Some(*cost)))
            }
            What::Catalogue(CatalogueEvent::Gone { product }) => Some((*at, product, None)),
            _ => None,
        })
        .collect();
    let happened = |wanted: &What, from: i64, to: i64| {
        let mut all = all.iter();
        all.any(|(at, what)| what == wanted && (from..=to).contains(at))
    };
    for (at, what) in &all {
        match what {
            What::Purchase(PurchaseEvent::Made {
                number,
                product,
                cents,
            }) => {
                let of_product = || entries.iter().filter(|(_, of, _)| *of == product);
                let near = |entry: &&(i64, &String, Option<i64>)| (entry.0 - at).abs() <= 300;
                let mut near = of_product().filter(near).filter_map(|entry| entry.2);
                let row = NearMargin {
                    product: product.clone(),
                    cents: *cents,
                    margin: near.next().map(|cost| cents - cost),
                };
                assert_eq!(near.next(), None, "there is one entry at most");
                views.near.insert(*number, row);
                let then = of_product().rfind(|entry| entry.0 <= *at);
                let row = Margin {
                    product: product.clone(),
                    cents: *cents,
                    margin: then.and_then(|entry| entry.2).map(|cost| cents - cost),
                };
                views.then.insert(*number, row);
                let minute = views.revenue.entry(at / 60).or_default();
                minute.purchases += 1;
                minute.cents += cents;
            }
            What::Ad(AdEvent::Shown { impression, ad }) => {
                let click = What::Ad(AdEvent::Clicked {
                    impression: *impression,
                });
                let row = Impression {
                    ad: ad.clone(),
                    clicked: happened(&click, *at, at + 3_600),
                };
                views.impressions.insert(*impression, row);
            }
            What::Order(OrderEvent::Placed { order }) => {
                let shipped = What::Order(OrderEvent::Shipped { order: *order });
                if !happened(&shipped, *at, at + 7_199) {
                    views.unshipped.insert(*order, Unshipped { order: *order });
                }
            }
            _ => {}
        }
    }
    views
}

async fn found(db: &annals::projections::Program) -> Views {
    let near = db.view::<NearMargin>().rows().limit(1_000).await.unwrap();
    let then = db.view::<Margin>().rows().limit(1_000).await.unwrap();
    let shown = db.view::<Impression>().rows().limit(1_000).await.unwrap();
    let unshipped = db.view::<Unshipped>().rows().limit(1_000).await.unwrap();
    let revenue = db.view::<Revenue>().rows().limit(1_000).await.unwrap();
    let minute = |start: Time| {
        let start = start.micros() - opens().timestamp_micros();
        start / 60_000_000
    };
    Views {
        near: near
            .rows
            .into_iter()
            .map(|row| (row.key, row.value))
            .collect(),
        then: then
            .rows
            .into_iter()
            .map(|row| (row.key, row.value))
            .collect(),
        impressions: shown
            .rows
            .into_iter()
            .map(|row| (row.key, row.value))
            .collect(),
        unshipped: unshipped
            .rows
            .into_iter()
            .map(|row| (row.key, row.value))
            .collect(),
        revenue: revenue
            .rows
            .into_iter()
            .map(|row| (minute(row.key.start), row.value))
            .collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_view_says_what_counting_by_hand_says() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("shop.db").display());
    let wanted = by_hand();
    assert!(wanted.near.values().any(|row| row.margin.is_none()));
    assert_eq!(wanted.unshipped.len(), 6);
    let db = Annals::open(&url).await.unwrap();
    open_shop(&**db.store()).await.unwrap();
    let db = db.with(enrich()).start().await.unwrap();
    let done = db.advance_clock(Time::MAX).await.unwrap();
    let enriched = db.pipeline("enrich").unwrap();
    let wait = Duration::from_secs(60);
    for rebuilt in [false, true] {
        if rebuilt {
            let rebuild = enriched.rebuild().begin().await.unwrap();
            rebuild.finished(|_| ()).await.unwrap();
        }
        enriched.wait_for(done.clone(), wait).await.unwrap();
        assert_eq!(found(&db).await, wanted);
    }
    let start = opens() + TimeDelta::minutes(90);
    let minute = window_at(Time::from_micros(start.timestamp_micros()));
    let revenue = db.view::<Revenue>().get(minute).await.unwrap();
    assert_eq!(revenue, wanted.revenue.get(&90).cloned());
    db.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_tells_where_the_two_margins_differ() {
    let told = crate::run("sqlite::memory:").await.unwrap();
    let views = by_hand();
    let known = views
        .near
        .values()
        .filter(|row| row.margin.is_some())
        .count();
    let line = format!("360 purchases: {known} with an entry within five minutes");
    assert!(told.starts_with(&line), "{told}");
    assert!(told.contains("as of then"), "{told}");
    assert!(
        told.contains("not shipped within two hours: 1, 4, 7, 10, 13, 16"),
        "{told}"
    );
}
