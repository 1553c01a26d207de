//! The queries that join bids, auctions and persons, as one pipeline.

use std::time::Duration;

use annals::pipeline::{Fold, Keyed, Pipeline, Stream, TakeBack, Window, Within};
use annals::prelude::*;

use crate::market::{Auction, AuctionEvent, Bid, BidEvent, Person, PersonEvent};
use crate::queries::millis;
use crate::rows::{Lines, text_rows};

/// The category and the states that are asked for.
const CATEGORY: i64 = 10;
const STATES: [&str; 3] = ["or", "id", "ca"];
const FOR_EVER: Duration = Duration::MAX;

text_rows! {
    Q3 = "q3" by i64,
    Q4 = "q4" by i64,
    Q8 = "q8" by (Window, i64),
    Q9 = "q9" by i64,
    Q18 = "q18" by (i64, i64),
    Q19 = "q19" by i64,
    Q20 = "q20" by u64,
}

/// The final prices of a category.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Finals {
    sum: i64,
    count: i64,
}

/// Category and price.
type Sold = (i64, i64);

impl Fold<Sold> for Finals {
    fn add(&mut self, (_, price): &Sold) {
        self.sum += price;
        self.count += 1;
    }

    fn merge(&mut self, other: Finals) {
        self.sum += other.sum;
        self.count += other.count;
    }
}

impl TakeBack<Sold> for Finals {
    fn take_back(&mut self, (_, price): &Sold) {
        self.sum -= price;
        self.count -= 1;
    }
}

/// For auctions that last at most so long.
pub(crate) fn queries(longest_ms: u64) -> Pipeline {
    let seconds = Duration::from_secs;
    Pipeline::new("nexmark-joins", 1, move |log| {
        let bids = log.events::<BidEvent>().out_of_order_by(seconds(3));
        let bids = bids.map(|event| {
            let BidEvent::Placed(bid) = &**event;
            (event.record.position.get(), *bid)
        });
        let auctions = log.events::<AuctionEvent>().out_of_order_by(seconds(3));
        let auctions = auctions.map(|event| {
            let AuctionEvent::Opened(auction) = &**event;
            auction.clone()
        });
        let persons = log.events::<PersonEvent>().out_of_order_by(seconds(3));
        let persons = persons.map(|event| {
            let PersonEvent::Came(person) = &**event;
            person.clone()
        });
        local_items(&auctions, &persons);
        new_sellers(&auctions, &persons);
        let longest = Duration::from_millis(longest_ms);
        winning_bids(&auctions, &bids, Within::after(longest));
        bids_of_auctions(&auctions, &bids);
    })
}

/// q3: who sells in some category in some states.
fn local_items(auctions: &Stream<Auction>, persons: &Stream<Person>) {
    let items = auctions.filter(|auction| auction.category == CATEGORY);
    let items = items.key_by(|auction| auction.id);
    let items = items.table(|auction| Some(auction.clone()));
    let locals = persons.filter(|person| STATES.contains(&&*person.state));
    let locals = locals.key_by(|person| person.id);
    let locals = locals.table(|person| Some(person.clone()));
    let rows = items.join_on(
        &locals,
        |auction| Some(auction.seller),
        |auction, person| {
            let Person {
                name, city, state, ..
            } = person;
            let row = format!("{name}|{city}|{state}|{}", auction.id);
            Q3 { rows: vec![row] }
        },
    );
    rows.into_view();
}

/// q8: who sells within the ten seconds in which they came.
fn new_sellers(auctions: &Stream<Auction>, persons: &Stream<Person>) {
    let size = Duration::from_secs(10);
    let came = persons.key_by(|person| person.id).tumbling(size);
    let sold = auctions.key_by(|auction| auction.seller).tumbling(size);
    let sellers = came.join(&sold, |person, _| person.name.clone());
    sellers.into_view_with::<Q8>(|person, of| {
        let row = format!("{person}|{}|{}", of.value, millis(of.window.start));
        ((of.window, *person), Q8 { rows: vec![row] })
    });
}

/// q4 and q9: the highest bid of each auction while it is open, and the mean of a category.
fn winning_bids(auctions: &Stream<Auction>, bids: &Stream<(u64, Bid)>, within: Within) {
    let bids: Keyed<i64, Bid> = bids.key_by(|(_, bid)| bid.auction).map(|_, (_, bid)| *bid);
    let auctions = auctions.key_by(|auction| auction.id);
    let valid = auctions.join(&bids, within, |auction, bid| {
        (bid.time <= auction.expires).then_some((auction.category, bid.price))
    });
    let valid = valid.filter_map(|_, sold| *sold).in_time_order();
    let highest = valid.scan(FOR_EVER, |highest: &mut Option<i64>, (category, price)| {
        let is_higher = highest.is_none_or(|highest| highest < *price);
        is_higher.then(|| {
            *highest = Some(*price);
            (*category, *price)
        })
    });
    let highest = highest.table(|sold| Some(*sold));
    highest.into_view_as::<Q9>(|auction, (_, price)| Q9 {
        rows: vec![format!("{auction}|{price}")],
    });
    let categories = highest.group_by(|_, (category, _)| *category);
    let categories = categories.folded::<Finals>();
    categories.into_view_as::<Q4>(|category, finals| {
        let mean = finals.sum.div_euclid(finals.count.max(1));
        Q4 {
            rows: vec![format!("{category}|{mean}")],
        }
    });
}

/// q18, q19 and q20: the last bid of each bidder on an auction, the ten highest of an auction, and
/// bids with the auctions of a category.
fn bids_of_auctions(auctions: &Stream<Auction>, bids: &Stream<(u64, Bid)>) {
    let last = bids.key_by(|(_, bid)| (bid.bidder, bid.auction));
    let last = last.table(|(_, bid)| Some(bid.time));
    last.into_view_as::<Q18>(|(bidder, auction), time| Q18 {
        rows: vec![format!("{bidder}|{auction}|{time}")],
    });

    let prices = bids.key_by(|(_, bid)| bid.auction);
    let highest = prices.scan(FOR_EVER, |highest: &mut Vec<i64>, (_, bid)| {
        let rank = highest.partition_point(|price| *price >= bid.price);
        (rank < 10).then(|| {
            highest.insert(rank, bid.price);
            highest.truncate(10);
            highest.clone()
        })
    });
    highest.into_view_with::<Q19>(|auction, highest| {
        let row = |(rank, price): (u64, &i64)| format!("{auction}|{rank}|{price}");
        let rows = (1..).zip(highest).map(row).collect();
        (*auction, Q19 { rows })
    });

    let items = auctions.filter(|auction| auction.category == CATEGORY);
    let items = items.key_by(|auction| auction.id);
    let items = items.table(|auction| Some(auction.clone()));
    let each = bids.key_by(|(position, _)| *position);
    let each = each.table(|(_, bid)| Some(*bid));
    let rows = each.join_on(
        &items,
        |bid| Some(bid.auction),
        |bid, auction| {
            let Bid {
                auction: id,
                bidder,
                price,
                time,
            } = bid;
            let row = format!("{id}|{bidder}|{price}|{time}|{}", auction.seller);
            Q20 { rows: vec![row] }
        },
    );
    rows.into_view();
}
