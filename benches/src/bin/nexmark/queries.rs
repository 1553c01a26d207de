//! The queries about bids alone, as one pipeline.

use std::collections::BTreeSet;
use std::time::Duration;

use annals::pipeline::{Fold, Pipeline, Time, Window};
use annals::prelude::*;

use crate::market::{Bid, BidEvent};
use crate::rows::{Lines, text_rows};

const GAP_MS: i64 = 10_000;
const DAY_MS: i64 = 86_400_000;

text_rows! {
    Q0 = "q0" by u64,
    Q1 = "q1" by u64,
    Q2 = "q2" by u64,
    Q5 = "q5" by Window,
    Q7 = "q7" by Window,
    Q11 = "q11" by (Window, i64),
    Q15 = "q15" by Window,
    Q17 = "q17" by (Window, i64),
}

/// The highest bids of a window.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Highest(Vec<Bid>);

impl Fold<Bid> for Highest {
    fn add(&mut self, bid: &Bid) {
        self.merge(Highest(vec![*bid]));
    }

    fn merge(&mut self, mut other: Highest) {
        self.0.append(&mut other.0);
        let highest = self.0.iter().map(|bid| bid.price).max();
        self.0.retain(|bid| Some(bid.price) == highest);
    }
}

/// The bids of a day.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Day {
    bids: u64,
    /// Below 10,000, below 1,000,000, and all others.
    ranks: [u64; 3],
    bidders: BTreeSet<i64>,
    auctions: BTreeSet<i64>,
}

impl Fold<Bid> for Day {
    fn add(&mut self, bid: &Bid) {
        self.bids += 1;
        let rank = match bid.price {
            ..10_000 => 0,
            10_000..1_000_000 => 1,
            _ => 2,
        };
        self.ranks[rank] += 1;
        self.bidders.insert(bid.bidder);
        self.auctions.insert(bid.auction);
    }

    fn merge(&mut self, other: Day) {
        self.bids += other.bids;
        for (rank, more) in self.ranks.iter_mut().zip(other.ranks) {
            *rank += more;
        }
        self.bidders.extend(other.bidders);
        self.auctions.extend(other.auctions);
    }
}

/// The prices of an auction.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Prices {
    count: i64,
    least: Option<i64>,
    most: Option<i64>,
    sum: i64,
}

impl Fold<Bid> for Prices {
    fn add(&mut self, bid: &Bid) {
        let price = Some(bid.price);
        self.merge(Prices {
            count: 1,
            least: price,
            most: price,
            sum: bid.price,
        });
    }

    fn merge(&mut self, other: Prices) {
        self.count += other.count;
        self.least = self.least.into_iter().chain(other.least).min();
        self.most = self.most.max(other.most);
        self.sum += other.sum;
    }
}

/// Milliseconds since 1970.
pub(crate) fn millis(time: Time) -> i64 {
    time.micros().div_euclid(1_000)
}

pub(crate) fn queries() -> Pipeline {
    let seconds = Duration::from_secs;
    Pipeline::new("nexmark", 1, move |log| {
        let events = log.events::<BidEvent>().out_of_order_by(seconds(3));
        let bids = events.map(|event| {
            let BidEvent::Placed(bid) = &**event;
            (event.record.position.get(), *bid)
        });
        let each = bids
            .key_by(|(position, _)| *position)
            .map(|_, (_, bid)| *bid);
        each.into_view_with::<Q0>(|position, bid| {
            let row = format!("{}|{}|{}|{}", bid.auction, bid.bidder, bid.price, bid.time);
            (*position, Q0 { rows: vec![row] })
        });
        each.into_view_with::<Q1>(|position, bid| {
            let thousandths = bid.price * 908;
            let row = format!("{}|{}|{thousandths}|{}", bid.auction, bid.bidder, bid.time);
            (*position, Q1 { rows: vec![row] })
        });
        let some = each.filter(|bid| bid.auction % 123 == 0);
        some.into_view_with::<Q2>(|position, bid| {
            let row = format!("{}|{}", bid.auction, bid.price);
            (*position, Q2 { rows: vec![row] })
        });
        let auctions = bids.key_by(|(_, bid)| bid.auction).map(|_, (_, bid)| *bid);
        let counts = auctions.hopping(seconds(10), seconds(2)).count();
        let hottest = counts.top_with_ties(1, |count| *count);
        hottest.into_view_as::<Q5>(|(), window, best| {
            let start = millis(window.start);
            let row = |(auction, count): &(i64, u64)| format!("{start}|{auction}|{count}");
            Q5 {
                rows: best.iter().map(row).collect(),
            }
        });
        let all = bids.key_by(|_| ()).map(|(), (_, bid)| *bid);
        let highest = all.tumbling(seconds(10)).folded::<Highest>();
        highest.into_view_as::<Q7>(|(), window, highest| {
            let start = millis(window.start);
            let row = |bid: &Bid| {
                let Bid {
                    auction,
                    bidder,
                    price,
                    time,
                } = bid;
                format!("{auction}|{bidder}|{price}|{time}|{start}")
            };
            Q7 {
                rows: highest.0.iter().map(row).collect(),
            }
        });
        let bidders = bids.key_by(|(_, bid)| bid.bidder);
        let gap = Duration::from_millis(GAP_MS as u64);
        bidders
            .sessions(gap)
            .count()
            .into_view_as::<Q11>(|bidder, window, count| {
                let end = millis(window.end) + GAP_MS;
                let row = format!("{bidder}|{count}|{}|{end}", millis(window.start));
                Q11 { rows: vec![row] }
            });
        let days = all.tumbling(seconds(86_400)).folded::<Day>();
        days.into_view_as::<Q15>(|(), window, of| {
            let day = millis(window.start) / DAY_MS;
            let [low, middle, high] = of.ranks;
            let (bidders, auctions) = (of.bidders.len(), of.auctions.len());
            let row = format!(
                "{day}|{}|{low}|{middle}|{high}|{bidders}|{auctions}",
                of.bids
            );
            Q15 { rows: vec![row] }
        });
        let prices = auctions.tumbling(seconds(86_400)).folded::<Prices>();
        prices.into_view_as::<Q17>(|auction, window, of| {
            let day = millis(window.start) / DAY_MS;
            let (least, most) = (of.least.unwrap_or(0), of.most.unwrap_or(0));
            let mean = of.sum.div_euclid(of.count.max(1));
            let Prices { count, sum, .. } = of;
            let row = format!("{auction}|{day}|{count}|{least}|{most}|{mean}|{sum}");
            Q17 { rows: vec![row] }
        });
    })
}
