//! Who comes to the market: bids, the auctions that they are about, and the persons who sell, in
//! one log. The events of Nexmark, and for tests some that come late and rest.

use std::error::Error;

use annals::Store;
use annals::chrono::DateTime;
use annals::prelude::*;
use annals::store::{Append, NewEvent};
use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::Event as Generated;

/// Events of one append.
const APPEND: usize = 1_000;
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

/// An auction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Auction {
    pub(crate) id: i64,
    pub(crate) seller: i64,
    pub(crate) category: i64,
    pub(crate) time: i64,
    pub(crate) expires: i64,
}

/// A person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Person {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) city: String,
    pub(crate) state: String,
    pub(crate) time: i64,
}

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(category = "bid")]
pub(crate) enum BidEvent {
    Placed(Bid),
}

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(category = "auction")]
pub(crate) enum AuctionEvent {
    Opened(Auction),
}

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(category = "person")]
pub(crate) enum PersonEvent {
    Came(Person),
}

/// Something that happens.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    Bid(Bid),
    Auction(Auction),
    Person(Person),
}

/// Everything that happens, in the order of the log.
pub(crate) struct Market(pub(crate) Vec<Happening>);

impl Market {
    /// The first so many events of the generator, which has its defaults.
    pub(crate) fn first(events: u64) -> Market {
        let config = NexmarkConfig {
            base_time: BASE,
            ..NexmarkConfig::default()
        };
        let events = EventGenerator::new(config).take(events as usize);
        let events = events.map(|event| match event {
            Generated::Bid(bid) => Happening::Bid(Bid {
                auction: bid.auction as i64,
                bidder: bid.bidder as i64,
                price: bid.price as i64,
                time: bid.date_time as i64,
            }),
            Generated::Auction(auction) => Happening::Auction(Auction {
                id: auction.id as i64,
                seller: auction.seller as i64,
                category: auction.category as i64,
                time: auction.date_time as i64,
                expires: auction.expires as i64,
            }),
            Generated::Person(person) => Happening::Person(Person {
                id: person.id as i64,
                name: person.name,
                city: person.city,
                state: person.state,
                time: person.date_time as i64,
            }),
        });
        Market(events.collect())
    }

    /// So many bids, most on hot auctions, most by hot bidders, prices over five orders of
    /// magnitude, up to three seconds late, and with rests; an auction opens with each fifteenth, a
    /// person comes with each fiftieth.
    #[cfg(test)]
    pub(crate) fn lively(count: u64) -> Market {
        let mut state = 42_u64;
        let mut draw = move |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % below) as i64
        };
        let mut all = Vec::new();
        for number in 0..count as i64 {
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
            if number % 50 == 0 {
                let id = 1_000 + number / 50;
                let place = draw(6) as usize;
                let cities = ["Portland", "Boise", "Fresno", "Reno", "Tucson", "Laramie"];
                all.push(Happening::Person(Person {
                    id,
                    name: format!("person {id}"),
                    city: cities[place].into(),
                    state: ["or", "id", "ca", "nv", "az", "wy"][place].into(),
                    time,
                }));
            }
            if number % 15 == 0 {
                let newest_person = 1_000 + number / 50;
                let seller = match draw(4) {
                    // A person who comes later, now and then.
                    0 => newest_person + draw(3),
                    _ => newest_person - draw(12),
                };
                all.push(Happening::Auction(Auction {
                    id: newest,
                    seller,
                    category: 10 + draw(5),
                    time,
                    expires: time + 2_000 + draw(18_000),
                }));
            }
            all.push(Happening::Bid(Bid {
                auction,
                bidder,
                price,
                time,
            }));
        }
        Market(all)
    }

    /// How long the longest auction lasts, in milliseconds.
    pub(crate) fn longest_ms(&self) -> u64 {
        let lasts = self.0.iter().filter_map(|of| match of {
            Happening::Auction(auction) => u64::try_from(auction.expires - auction.time).ok(),
            _ => None,
        });
        lasts.max().unwrap_or(0)
    }

    /// Appends all of it.
    pub(crate) async fn append_to(&self, store: &dyn Store) -> Result<(), Box<dyn Error>> {
        for (number, part) in self.0.chunks(APPEND).enumerate() {
            let events = part.iter().map(Happening::event);
            let events = events.collect::<Result<Vec<_>, _>>()?;
            let stream = StreamId::new(format!("market-{number}"))?;
            store.append(Append::new(stream, events)).await?;
        }
        Ok(())
    }
}

impl Happening {
    fn event(&self) -> Result<NewEvent, Box<dyn Error>> {
        let (mut event, time) = match self {
            Happening::Bid(bid) => (NewEvent::of(&BidEvent::Placed(*bid))?, bid.time),
            Happening::Auction(of) => (NewEvent::of(&AuctionEvent::Opened(of.clone()))?, of.time),
            Happening::Person(of) => (NewEvent::of(&PersonEvent::Came(of.clone()))?, of.time),
        };
        event.occurred_at = DateTime::from_timestamp_millis(time).ok_or("a time")?;
        Ok(event)
    }
}
