//! The bids of Nexmark, and for tests some that come late and rest.

use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::Event;
use serde::{Deserialize, Serialize};

/// When the first event happens, in milliseconds.
const BASE: u64 = 1_436_918_400_000;

/// A bid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Bid {
    pub(crate) auction: i64,
    pub(crate) bidder: i64,
    pub(crate) price: i64,
    pub(crate) time: i64,
}

/// The bids among the first so many events of the generator, which has its defaults.
pub(crate) fn among_first(events: u64) -> Vec<Bid> {
    let config = NexmarkConfig {
        base_time: BASE,
        ..NexmarkConfig::default()
    };
    let events = EventGenerator::new(config).take(events as usize);
    let bids = events.filter_map(|event| match event {
        Event::Bid(bid) => Some(Bid {
            auction: bid.auction as i64,
            bidder: bid.bidder as i64,
            price: bid.price as i64,
            time: bid.date_time as i64,
        }),
        Event::Person(_) | Event::Auction(_) => None,
    });
    bids.collect()
}

/// Most on hot auctions, most by hot bidders, prices over five orders of magnitude, up to three
/// seconds late, and with rests.
#[cfg(test)]
pub(crate) fn lively(count: u64) -> Vec<Bid> {
    let mut state = 42_u64;
    let mut draw = move |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % below) as i64
    };
    let bids = (0..count as i64).map(|number| {
        let newest = 1_000 + number / 15;
        let hot = newest / 100 * 100;
        let auction = if draw(2) == 0 {
            hot
        } else {
            newest - draw(100)
        };
        let bidder = if draw(4) == 0 {
            1_000 + draw(1_000)
        } else {
            1_000 + newest / 100
        };
        let digits = draw(6) as u32;
        let price = 100 + 10_i64.pow(digits) * (1 + draw(90));
        // Now and then the market rests.
        let rest = number / 2_000 * 3_600_000;
        let time = BASE as i64 + number * 20 + rest - draw(3_000);
        Bid {
            auction,
            bidder,
            price,
            time,
        }
    });
    bids.collect()
}
