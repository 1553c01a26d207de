//! How long after an append a row of a pipeline is seen by those who watch it.

use std::error::Error;
use std::time::{Duration, Instant};

use annals::chrono::DateTime;
use annals::pipeline::{Count, Pipeline, Window};
use annals::prelude::*;
use annals::projections::Update;
use annals::store::{Append, NewEvent};

use crate::durable::{BidEvent, Counts, runtime};

const SIZE: Duration = Duration::from_secs(10);
/// Appends before the first that counts.
const WARM_UP: u64 = 50;

fn pipeline(on_update: bool) -> Pipeline {
    let name = if on_update { "updates" } else { "closes" };
    Pipeline::new(name, 1, move |log| {
        let bids = log.events::<BidEvent>().key_by(|_| 0_u64);
        let mut counts = bids.tumbling(SIZE).folded::<Count>();
        if on_update {
            counts = counts.on_update();
        }
        counts.into_view_as::<Counts>(|_, _, count| Counts { count: count.0 });
    })
}

/// Half of them, and all but one in a hundred, were seen within this.
pub(crate) struct Latency {
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
}

/// Each append closes the window of the one before, or updates one of its own.
pub(crate) fn run(on_update: bool, appends: u64, url: &str) -> Result<Latency, Box<dyn Error>> {
    runtime()?.block_on(async {
        let db = Annals::open(url).await?.with(pipeline(on_update));
        let db = db.start().await?;
        let mut rows = db.view::<Counts>().watch_all();
        let first = db.store().head(annals::Partition(0)).await?.visible.get();
        let mut took = Vec::new();
        for number in first..first + WARM_UP + appends {
            let seconds = 1_700_000_000 + (number * SIZE.as_secs()) as i64;
            let at = DateTime::from_timestamp(seconds, 0).ok_or("a time")?;
            let mut new = NewEvent::of(&BidEvent::one())?;
            new.occurred_at = at;
            let append = Append::new(StreamId::new(format!("bid-{number}"))?, [new]);
            let awaited = if on_update {
                seconds
            } else {
                seconds - SIZE.as_secs() as i64
            };
            let began = Instant::now();
            db.store().append(append).await?;
            if number == first && !on_update {
                continue;
            }
            seen(&mut rows, awaited).await?;
            if number >= first + WARM_UP {
                took.push(began.elapsed());
            }
        }
        db.stop().await;
        took.sort_unstable();
        let at = |part: usize| took.get(took.len() * part / 100).copied();
        Ok(Latency {
            median: at(50).ok_or("no appends")?,
            p99: at(99).ok_or("no appends")?,
        })
    })
}

/// Waits for the row of the window that starts then.
async fn seen(
    rows: &mut annals::projections::WatchAll<Counts>,
    start: i64,
) -> Result<(), Box<dyn Error>> {
    loop {
        match rows.next().await? {
            Some(Update::Changed(change)) if starts(&change.key.0) == start => return Ok(()),
            Some(_) => {}
            None => return Err("the program stopped".into()),
        }
    }
}

fn starts(window: &Window) -> i64 {
    window.start.micros() / 1_000_000
}
