//! A checkout: one decision over a cart and the stock of its product, which has been sold often.

use std::sync::Arc;
use std::time::Instant;

use annals::store::{Append, NewEvent};
use annals::{Annals, Snapshots, Store, StreamId, prelude::*};

use crate::Outcome;
use crate::latency::{Laps, Latencies};

/// Pieces in stock: never too few.
const PIECES: u64 = 1 << 40;
/// Events of one append of the past.
const BATCH: usize = 1_000;

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "shelf")]
enum ShelfEvent {
    Received { pieces: u64 },
    Taken { cart: String },
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Shelf {
    pieces: u64,
}

impl Aggregate for Shelf {
    type Event = ShelfEvent;

    fn apply(&mut self, event: &ShelfEvent) {
        match event {
            ShelfEvent::Received { pieces } => self.pieces += pieces,
            ShelfEvent::Taken { .. } => self.pieces -= 1,
        }
    }

    fn snapshots() -> Option<Snapshots<Shelf>> {
        Some(Snapshots::every(1_000))
    }
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "basket")]
enum BasketEvent {
    Filled { sku: String },
    CheckedOut,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Basket {
    skus: Vec<String>,
    is_checked_out: bool,
}

impl Aggregate for Basket {
    type Event = BasketEvent;

    fn apply(&mut self, event: &BasketEvent) {
        match event {
            BasketEvent::Filled { sku } => self.skus.push(sku.clone()),
            BasketEvent::CheckedOut => self.is_checked_out = true,
        }
    }
}

/// Checkouts of one product, one after another.
///
/// ```no_run
/// # async fn example(store: std::sync::Arc<dyn annals::Store>) -> annals_benches::Outcome<()> {
/// use annals_benches::checkout::Checkouts;
///
/// let often_sold = Checkouts { sold: 100_000, checkouts: 500, is_cold: false };
/// println!("{:?}", often_sold.run(&store).await?.percentile(50));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Checkouts {
    /// Events that the product has before.
    pub sold: usize,
    /// How many carts are checked out.
    pub checkouts: usize,
    /// Whether each is the first of its process, with nothing cached.
    pub is_cold: bool,
}

impl Checkouts {
    /// Runs them. The time of each is from the decision's begin to its commit, without the
    /// filling of the cart.
    ///
    /// # Errors
    ///
    /// Those of the store and the decisions.
    pub async fn run(&self, store: &Arc<dyn Store>) -> Outcome<Latencies> {
        self.sell(store).await?;
        let mut db = Annals::on(Arc::clone(store));
        // The first one reads the past, and keeps a snapshot of it.
        check_out(&db, "first").await?;
        let mut laps = Laps::start();
        for number in 0..self.checkouts {
            let id = number.to_string();
            let fills = |_: &Basket| Ok::<_, String>(BasketEvent::Filled { sku: SKU.into() });
            db.aggregate::<Basket>(&id).create(fills).await?;
            if self.is_cold {
                db = Annals::on(Arc::clone(store));
            }
            let start = Instant::now();
            check_out(&db, &id).await?;
            laps.took(start);
        }
        Ok(laps.stop())
    }

    /// Puts the past of the product into the log.
    async fn sell(&self, store: &Arc<dyn Store>) -> Outcome<()> {
        let stream = StreamId::new(format!("shelf-{SKU}"))?;
        let mut left = self.sold;
        let mut next = ShelfEvent::Received { pieces: PIECES };
        while left > 0 {
            let events = (0..left.min(BATCH)).map(|_| {
                let taken = ShelfEvent::Taken {
                    cart: "an earlier cart".into(),
                };
                NewEvent::of(&std::mem::replace(&mut next, taken))
            });
            let events = events.collect::<Result<Vec<_>, _>>()?;
            left -= events.len();
            store.append(Append::new(stream.clone(), events)).await?;
        }
        Ok(())
    }
}

/// What is sold.
const SKU: &str = "lamp";

async fn check_out(db: &Annals, id: &str) -> Outcome<()> {
    let decide = |(basket, shelves): &(Basket, _)| sell(id, basket, shelves);
    db.decide_in_two_looks(
        Basket::at(id),
        |basket: &Basket| Shelf::at_each(skus(basket)),
        decide,
    )
    .idempotency_key("checkout")
    .await?;
    Ok(())
}

/// An empty basket buys the one product there is.
fn skus(basket: &Basket) -> Vec<String> {
    match &*basket.skus {
        [] => vec![SKU.into()],
        skus => skus.to_vec(),
    }
}

type Sold = (BasketEvent, Vec<(String, ShelfEvent)>);

fn sell(
    id: &str,
    basket: &Basket,
    shelves: &std::collections::BTreeMap<String, Shelf>,
) -> Result<Sold, String> {
    if basket.is_checked_out {
        return Err("it is checked out already".into());
    }
    let taken = skus(basket).into_iter().map(|sku| match shelves.get(&sku) {
        Some(shelf) if shelf.pieces > 0 => Ok((sku, ShelfEvent::Taken { cart: id.into() })),
        _ => Err(format!("no `{sku}` is left")),
    });
    Ok((BasketEvent::CheckedOut, taken.collect::<Result<_, _>>()?))
}
