//! Bids like those of Nexmark: most on hot auctions, most by hot bidders, prices over five orders
//! of magnitude, up to three seconds late.

use serde::{Deserialize, Serialize};

/// When the first bid is made, in milliseconds.
const BASE: i64 = 1_436_918_400_000;

/// A bid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Bid {
    pub(crate) auction: i64,
    pub(crate) bidder: i64,
    pub(crate) price: i64,
    pub(crate) time: i64,
}

/// The first `count` bids.
pub(crate) fn first(count: u64) -> Vec<Bid> {
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
        let time = BASE + number * 20 + rest - draw(3_000);
        Bid {
            auction,
            bidder,
            price,
            time,
        }
    });
    bids.collect()
}
