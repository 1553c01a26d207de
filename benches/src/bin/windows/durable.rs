//! A pipeline over the log of a store: rows, state and checkpoint in the same transactions.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::chrono::DateTime;
use annals::pipeline::{Count, Keyed, Log, Pipeline, Results, Time, Window};
use annals::prelude::*;
use annals::projections::Options;
use annals::store::{Append, NewEvent};
use annals::{MemoryStore, Partition};

use crate::Query;
use crate::workload::{Answer, Bids, DELAY_MS, SIZE_MS, SLIDE_MS, cpu_seconds};

/// Events of one append.
const APPEND: usize = 1_000;
/// How long the pipeline may take.
const TIMEOUT: Duration = Duration::from_secs(3_600);

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(category = "bid")]
pub(crate) enum BidEvent {
    Placed {
        auction: u64,
        bidder: u64,
        price: u64,
    },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "counts", key = (Window, u64))]
pub(crate) struct Counts {
    pub(crate) count: u64,
}

/// A pair, by its window, its even and its odd bid.
#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "pairs", key = (Window, (u64, u64)))]
struct Pairs {
    bidder: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, View)]
#[view(name = "largest", key = Window)]
struct Largest {
    count: u64,
}

impl BidEvent {
    /// Any bid.
    pub(crate) fn one() -> BidEvent {
        BidEvent::Placed {
            auction: 1,
            bidder: 1,
            price: 1,
        }
    }
}

/// What a bid is counted by.
fn counted_by(log: &Log, key: fn(&BidEvent) -> u64) -> Keyed<u64, ()> {
    log.events::<BidEvent>()
        .out_of_order_by(Duration::from_millis(DELAY_MS))
        .map(move |event| key(event))
        .key_by(|key| *key)
        .map(|_, _| ())
}

fn auction(event: &BidEvent) -> u64 {
    let BidEvent::Placed { auction, .. } = event;
    *auction
}

fn bidder(event: &BidEvent) -> u64 {
    let BidEvent::Placed { bidder, .. } = event;
    *bidder
}

/// Even bids with odd ones, by bidder.
fn write_pairs(log: &Log, size: Duration) {
    let bids = log.events::<BidEvent>();
    let bids = bids.out_of_order_by(Duration::from_millis(DELAY_MS));
    // Positions are numbers from 1 on.
    let bids = bids.map(|event| (event.record.position.get() - 1, bidder(event)));
    let bids = bids.key_by(|(_, bidder)| *bidder);
    let half = |rest: u64| {
        let half = bids.filter(move |(number, _)| number % 2 == rest);
        half.map(|_, (number, _)| *number).tumbling(size)
    };
    let pairs = half(0).join(&half(1), |even, odd| (*even, *odd));
    pairs.into_view_with::<Pairs>(|bidder, pair| {
        let row = Pairs { bidder: *bidder };
        ((pair.window, pair.value), row)
    });
}

fn write(counts: &Results<u64, Count>) {
    counts.into_view_as::<Counts>(|_, _, count| Counts { count: count.0 });
}

fn pipeline(query: Query) -> Pipeline {
    let size = Duration::from_millis(SIZE_MS);
    let slide = Duration::from_millis(SLIDE_MS);
    Pipeline::new("windows", 1, move |log| match query {
        Query::Tumble => write(&counted_by(log, auction).tumbling(size).folded::<Count>()),
        Query::Hop => write(
            &counted_by(log, auction)
                .hopping(size, slide)
                .folded::<Count>(),
        ),
        Query::Join => write_pairs(log, size),
        Query::Session => write(&counted_by(log, bidder).sessions(size).folded::<Count>()),
        Query::Hopmax => {
            let counts = counted_by(log, auction)
                .hopping(size, slide)
                .folded::<Count>();
            let best = counts.top(1, |count| count.0);
            best.into_view_as::<Largest>(|(), _, best| Largest {
                count: best.first().map_or(0, |(_, count)| *count),
            });
        }
    })
}

pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build()
}

/// The answer, and the CPU it took from the first event to the last row.
pub(crate) fn run(
    query: Query,
    events: u64,
    options: Options,
    url: &str,
) -> Result<(Answer, f64, f64), Box<dyn Error>> {
    runtime()?.block_on(async {
        let db = match url {
            "memory:" => Annals::on(Arc::new(MemoryStore::new())),
            url => Annals::open(url).await?,
        };
        if db.store().head(Partition(0)).await?.visible > Position::START {
            return Err("the store has events already; name an empty one".into());
        }
        fill(&db, events).await?;
        let began = cpu_seconds();
        let wall = Instant::now();
        let db = db
            .with(pipeline(query).options(options))
            .start_in_background()
            .await?;
        let token = db.advance_clock(Time::MAX).await?;
        let windows = db
            .pipeline("windows")
            .ok_or("the program has its pipeline")?;
        windows.wait_for(token, TIMEOUT).await?;
        let took = cpu_seconds() - began;
        let wall = wall.elapsed().as_secs_f64();
        let answer = match query {
            Query::Hopmax => answer::<Largest>(&db, |row| row.count).await?,
            Query::Join => answer::<Pairs>(&db, |_| 1).await?,
            _ => answer::<Counts>(&db, |row| row.count).await?,
        };
        db.stop().await;
        Ok((answer, took, wall))
    })
}

async fn fill(db: &Annals, events: u64) -> Result<(), Box<dyn Error>> {
    let mut bids = Bids::new();
    let mut number = 0;
    while number < events {
        let stream = StreamId::new(format!("bid-{number}"))?;
        let mut batch = Vec::with_capacity(APPEND);
        while number < events && batch.len() < APPEND {
            let bid = bids.bid();
            let mut event = NewEvent::json("bid.placed", bid.json());
            event.occurred_at = DateTime::from_timestamp_millis(bid.ts).ok_or("a time")?;
            batch.push(event);
            number += 1;
        }
        db.store().append(Append::new(stream, batch)).await?;
    }
    Ok(())
}

async fn answer<V: annals::projections::View>(
    db: &annals::projections::Program,
    count: fn(&V) -> u64,
) -> Result<Answer, Box<dyn Error>> {
    let mut answer = Answer::default();
    let mut after = None;
    loop {
        let page = db.view::<V>().rows().limit(10_000).after(after).await?;
        page.rows
            .iter()
            .for_each(|row| answer.add(count(&row.value)));
        match page.next {
            None => return Ok(answer),
            next => after = next,
        }
    }
}
