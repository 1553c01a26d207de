//! JSON in memory through the boxed stages of a pipeline, without a store.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use annals::streams::{
    Aligned, AlignedWindows, Batch, Branch, Codec, Count, Each, Emission, Joint, Operator,
    OutOfOrder, Page, Place, Row, Sessions, Sink, Span, Stage, State, StateError, Stateful,
    Strategy, Time, TopOfWindow, Window, WindowJoin, WindowOptions,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Query;
use crate::workload::{Answer, Bid, Bids, DELAY_MS, SIZE_MS, SLIDE_MS, cpu_seconds};

/// Records of a page.
const PAGE: usize = 4_096;

struct Json;

impl Codec for Json {
    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, StateError> {
        serde_json::to_vec(value).map_err(|error| StateError::new(error.to_string()))
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StateError> {
        serde_json::from_slice(bytes).map_err(|error| StateError::new(error.to_string()))
    }
}

type Port<T> = Box<dyn Stage<T, Json>>;
type Counted<K> = Emission<K, Count>;

fn span(millis: u64) -> Span {
    Span::from_micros(millis as i64 * 1_000)
}

fn stage<O>(number: u16, operator: O, then: Port<O::Out>) -> Port<O::In>
where
    O: Operator + State + Send + 'static,
    O::Out: Send,
    O::Late: Send,
    O::In: 'static,
{
    Box::new(Stateful::new(number, Span::ZERO, operator, then))
}

/// The sums of all counts.
fn sums(answer: &Arc<Mutex<Answer>>) -> Port<Counted<u64>> {
    let answer = Arc::clone(answer);
    Box::new(Sink::new(move |batch: &Batch<Counted<u64>>| {
        let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = batch.rows.iter().filter_map(|row| row.item.value.as_ref());
        counts.for_each(|count| answer.add(count.0));
    }))
}

/// The largest of each window.
fn largest(answer: &Arc<Mutex<Answer>>) -> Port<Counted<u64>> {
    let answer = Arc::clone(answer);
    let sink = Sink::new(move |batch: &Batch<Emission<(), Vec<(u64, u64)>>>| {
        let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
        let best = batch.rows.iter().filter_map(|row| row.item.value.as_ref());
        best.filter_map(|best| best.first())
            .for_each(|(_, count)| answer.add(*count));
    });
    let top = TopOfWindow::<u64, u64>::new(1, Span::ZERO);
    let counts = |of: &Counted<u64>| Emission {
        key: of.key,
        window: of.window,
        kind: of.kind,
        value: of.value.as_ref().map(|count| count.0),
        max_time: of.max_time,
    };
    Box::new(Each::map(counts, stage(2, top, Box::new(sink))))
}

/// Bidder, window, and the prices of both bids.
type Pair = (u64, (Window, (u64, u64)));

/// Even bids with odd ones, by bidder.
fn pairs(windows: Aligned, answer: &Arc<Mutex<Answer>>) -> Port<Bid> {
    let answer = Arc::clone(answer);
    let sink = Sink::new(move |batch: &Batch<Pair>| {
        let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
        batch.rows.iter().for_each(|_| answer.add(1));
    });
    let prices = |even: &u64, odd: &u64| (*even, *odd);
    let join = WindowJoin::<u64, u64, u64, _>::new(windows, Span::ZERO, prices);
    let (even, odd) = Joint::<(u64, u64), (u64, u64), Json>::ports(stage(1, join, Box::new(sink)));
    let half = |rest: u64, then: Port<(u64, u64)>| -> Port<Bid> {
        let price = move |bid: &Bid| (bid.number % 2 == rest).then_some((bid.bidder, bid.price));
        Box::new(Each::filter_map(price, then))
    };
    let halves = vec![half(0, Box::new(even)), half(1, Box::new(odd))];
    Box::new(Branch::new(halves))
}

fn stages(query: Query, answer: &Arc<Mutex<Answer>>) -> Option<Port<Bid>> {
    let options = WindowOptions::on_close();
    let size = span(SIZE_MS);
    let aligned = match query {
        Query::Tumble | Query::Join => Aligned::tumbling(size).ok(),
        Query::Hop | Query::Hopmax => Aligned::hopping(size, span(SLIDE_MS)).ok(),
        Query::Session => None,
    };
    let then = match query {
        Query::Hopmax => largest(answer),
        _ => sums(answer),
    };
    Some(match query {
        Query::Join => pairs(aligned?, answer),
        Query::Session => {
            let sessions = Sessions::<u64, Bid, Count>::new(size, options);
            Box::new(Each::map(
                |bid: &Bid| (bid.bidder, *bid),
                stage(1, sessions, then),
            ))
        }
        _ => {
            let windows = AlignedWindows::<u64, Bid, Count>::new(aligned?, options);
            Box::new(Each::map(
                |bid: &Bid| (bid.auction, *bid),
                stage(1, windows, then),
            ))
        }
    })
}

/// The answer, and the CPU it took to decode and fold.
pub(crate) fn run(query: Query, events: u64) -> (Answer, f64, f64) {
    let mut bids = Bids::new();
    let mut text = String::new();
    let mut ends = Vec::new();
    for _ in 0..events {
        text.push_str(&bids.bid().json());
        ends.push(text.len());
    }
    let answer: Arc<Mutex<Answer>> = Arc::default();
    let Some(mut first) = stages(query, &answer) else {
        return (Answer::default(), 0.0, 0.0);
    };
    let mut clock = OutOfOrder::by(span(DELAY_MS));
    let began = cpu_seconds();
    let wall = Instant::now();
    let mut from = 0;
    let mut number = 0;
    for page in ends.chunks(PAGE) {
        let mut rows = Vec::with_capacity(page.len());
        let mut records = Vec::with_capacity(page.len());
        for end in page {
            let Ok(mut bid) = serde_json::from_str::<Bid>(&text[from..*end]) else {
                continue;
            };
            from = *end;
            bid.number = number;
            let time = Time::from_micros(bid.ts * 1_000);
            clock.observe(time, time);
            number += 1;
            let when = 2 * records.len() as u32 + 1;
            records.push((Place::at(number), clock.watermark()));
            rows.push(Row {
                when,
                time,
                item: bid,
            });
        }
        let page = Page::new(records);
        first.take(&Batch { page, rows });
    }
    let end = Page::new([(Place::at(number + 1), Time::MAX)]);
    let rows = Vec::new();
    first.take(&Batch { page: end, rows });
    let took = cpu_seconds() - began;
    let wall = wall.elapsed().as_secs_f64();
    let answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
    (*answer, took, wall)
}
