//! Replaying the whole log: to typed events, as fast as they can be read.

use std::sync::Arc;

use annals::codec::Stored;
use annals::{Annals, Event, Position, Store};

use crate::Outcome;
use crate::account::AccountEvent;
use crate::append::Batches;
use crate::rate::{Rate, Watch};

/// Fills a store with small events of some accounts, `batch_events` of one account after the other.
///
/// ```no_run
/// # async fn example(store: std::sync::Arc<dyn annals::Store>) -> annals_benches::Outcome<()> {
/// use annals_benches::replay::Fill;
///
/// Fill { events: 1_000_000, batch_events: 10, streams: 10_000 }.run(&store).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Fill {
    /// Events in all.
    pub events: usize,
    /// Events in each append.
    pub batch_events: usize,
    /// Accounts.
    pub streams: usize,
}

impl Fill {
    /// Fills it.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn run(&self, store: &Arc<dyn Store>) -> Outcome<()> {
        // In rounds over all accounts, so that filling needs little memory, too.
        let round = (self.batch_events * self.streams).max(1);
        let mut left = self.events;
        while left > 0 {
            let batch_events = self.batch_events;
            let streams = self.streams;
            let batches = Batches {
                events: left.min(round),
                batch_events,
                streams,
                tasks: 64,
            };
            batches.run(store, batches.make()?).await?;
            left -= batches.events;
        }
        Ok(())
    }
}

/// What a replay came to: its rate, and a sum over all events by which two replays are compared.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Replayed {
    /// How fast.
    pub rate: Rate,
    /// The balance of all accounts together.
    pub cents: i64,
}

/// What an event does to the sum.
pub(crate) fn cents(event: &AccountEvent) -> i64 {
    match event {
        AccountEvent::Deposited { cents } => *cents,
        AccountEvent::Withdrawn { cents } => -cents,
        AccountEvent::Opened { .. } | AccountEvent::Closed => 0,
    }
}

/// As typed events with their records: `db.events().typed()`.
///
/// # Errors
///
/// Those of the store, and an event that cannot be read.
pub async fn typed(db: &Annals, up_to: Position) -> Outcome<Replayed> {
    let watch = Watch::start();
    let mut count = 0;
    let mut sum = 0;
    let mut pages = db.events().up_to(up_to).typed::<AccountEvent>();
    while let Some(events) = pages.next().await? {
        count += events.len();
        sum += events.iter().map(|event| cents(event)).sum::<i64>();
    }
    Ok(Replayed {
        rate: watch.stop(count),
        cents: sum,
    })
}

/// As pages of bytes, decoded one by one: `db.events().pages()` and `E::decode`.
///
/// # Errors
///
/// Those of the store, and an event that cannot be read.
pub async fn pages(db: &Annals) -> Outcome<Replayed> {
    let watch = Watch::start();
    let mut count = 0;
    let mut sum = 0;
    let mut pages = db.events().pages();
    while let Some(page) = pages.next().await? {
        for record in &page.events {
            for event in AccountEvent::decode(Stored::from(record))? {
                sum += cents(&event);
            }
        }
        count += page.events.len();
    }
    Ok(Replayed {
        rate: watch.stop(count),
        cents: sum,
    })
}
