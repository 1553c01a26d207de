//! Events beside what belongs to them: purchases with the catalogue, impressions with clicks,
//! orders with shipments, and revenue per minute.
//!
//! ```text
//! cargo run --example enrich [-- sqlite:enrich.db]
//! ```
//!
//! Three hours of a shop, delivered up to twenty seconds out of order. A purchase meets the
//! catalogue in two ways, and the program prints where they differ: within five minutes, also with
//! an entry that comes after it, and as the catalogue was at that moment.

#[path = "../ended/mod.rs"]
mod ended;
mod enrich;
mod shop;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use annals::pipeline::Time;
use annals::prelude::*;

use enrich::{Impression, Margin, NearMargin, Revenue, Unshipped, enrich};
use shop::open_shop;

#[tokio::main]
async fn main() -> ExitCode {
    let url = std::env::args().nth(1);
    let told = run(url.as_deref().unwrap_or("sqlite::memory:")).await;
    let said = told.and_then(|told| Ok(io::stdout().write_all(told.as_bytes())?));
    ended::ended("enrich", said)
}

/// What the views say in the end.
async fn run(url: &str) -> Result<String, Box<dyn Error>> {
    let db = Annals::open(url).await?.with(enrich()).start().await?;
    let store = db.store();
    if store.head(annals::Partition(0)).await?.visible == Position::START {
        open_shop(&**store).await?;
    }
    // Nothing more comes: who still waits for a partner waits no longer.
    let done = db.advance_clock(Time::MAX).await?;
    let enriched = db
        .pipeline("enrich")
        .ok_or("the program has its pipeline")?;
    enriched.wait_for(done, Duration::from_secs(60)).await?;

    let mut told = String::new();
    let mut say = |line: String| {
        told.push_str(&line);
        told.push('\n');
    };
    let near = db.view::<NearMargin>().rows().limit(1_000).await?.rows;
    let then = db.view::<Margin>().rows().limit(1_000).await?.rows;
    let known = near.iter().filter(|row| row.value.margin.is_some());
    let known_then = then.iter().filter(|row| row.value.margin.is_some());
    say(format!(
        "{} purchases: {} with an entry within five minutes, {} with one that held",
        near.len(),
        known.count(),
        known_then.count()
    ));
    let both = near.iter().zip(&then);
    let differ = both.filter(|(near, then)| near.value.margin != then.value.margin);
    for (near, then) in differ.take(3) {
        let NearMargin { product, cents, .. } = &near.value;
        let margin = |margin: Option<i64>| margin.map_or("none".into(), |cents| cents.to_string());
        say(format!(
            "  purchase {} of {product} for {cents}: margin {} within five minutes, {} as of then",
            near.key,
            margin(near.value.margin),
            margin(then.value.margin)
        ));
    }
    let shown = db.view::<Impression>().rows().limit(1_000).await?.rows;
    let clicked = shown.iter().filter(|row| row.value.clicked).count();
    say(format!(
        "{} impressions, {clicked} clicked within an hour",
        shown.len()
    ));
    let unshipped = db.view::<Unshipped>().rows().await?.rows;
    let orders: Vec<String> = unshipped.iter().map(|row| row.key.to_string()).collect();
    say(format!(
        "not shipped within two hours: {}",
        orders.join(", ")
    ));
    let minutes = db.view::<Revenue>().rows().limit(1_000).await?.rows;
    let cents: i64 = minutes.iter().map(|row| row.value.cents).sum();
    say(format!("{cents} cents in {} minutes", minutes.len()));
    say(enriched.status().to_string().trim_end().to_owned());
    db.stop().await;
    Ok(told)
}
