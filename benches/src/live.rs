//! From an append to the row of a view that shows it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::projections::Program;
use annals::store::{Append, NewEvent};
use annals::{Annals, EventId, Store, StreamId, prelude::*};
use tokio::task::JoinSet;

use crate::Outcome;
use crate::account::{self, AccountEvent};
use crate::latency::{Laps, Latencies};
use crate::seed::Seed;
use crate::view::Balance;

/// Appends single events, each task to accounts of its own, and then looks at the row that shows
/// the event.
///
/// ```no_run
/// # async fn example(store: std::sync::Arc<dyn annals::Store>) -> annals_benches::Outcome<()> {
/// use annals_benches::live::Live;
///
/// let live = Live { appends: 1_000, tasks: 1, per_second: Some(200) };
/// println!("{:?}", live.run(&store).await?.percentile(99));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Live {
    /// Appends in all.
    pub appends: usize,
    /// Tasks that append and look.
    pub tasks: usize,
    /// How many all of them together append in a second; none: each goes on as soon as it has seen
    /// the last one.
    pub per_second: Option<u32>,
}

/// Accounts of each task.
const ACCOUNTS: usize = 10;

/// What a task appends, and how many events the row counts then.
pub(crate) struct Ready {
    pub(crate) number: usize,
    pub(crate) stream: StreamId,
    pub(crate) event: AccountEvent,
    pub(crate) new: NewEvent,
    pub(crate) events: u64,
}

impl Live {
    /// What a task appends, in order.
    pub(crate) fn share(&self, task: usize) -> Outcome<Vec<Ready>> {
        let mut seed = Seed::new(6 + task as u64);
        (0..self.appends / self.tasks)
            .map(|index| {
                let number = task * ACCOUNTS + index % ACCOUNTS;
                let earlier = index / ACCOUNTS;
                let event = account::event(&mut seed, earlier);
                let new = NewEvent::of(&event)?;
                Ok(Ready {
                    number,
                    stream: account::stream(number)?,
                    event,
                    new,
                    events: earlier as u64 + 1,
                })
            })
            .collect()
    }

    /// When the `index`-th append of a task is due, counted from the start: the tasks take turns.
    pub(crate) fn due(&self, task: usize, index: usize) -> Duration {
        let place = (index * self.tasks + task) as u32;
        self.per_second.map_or(Duration::ZERO, |per_second| {
            Duration::from_secs(1) * place / per_second
        })
    }

    /// Runs it, with the view beside the log. The time of each is from the call of the append to
    /// the row in hand.
    ///
    /// # Errors
    ///
    /// Those of the store and the view, and a row that does not show what was appended.
    pub async fn run(&self, store: &Arc<dyn Store>) -> Outcome<Latencies> {
        let program = Arc::new(
            Annals::on(Arc::clone(store))
                .with(Balance::projection())
                .start()
                .await?,
        );
        let shares = (0..self.tasks)
            .map(|task| self.share(task))
            .collect::<Outcome<Vec<_>>>()?;
        let laps = Laps::start();
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for (task, share) in shares.into_iter().enumerate() {
            let live = *self;
            let store = Arc::clone(store);
            let program = Arc::clone(&program);
            tasks.spawn(async move {
                let mut each = Vec::with_capacity(share.len());
                for (index, ready) in share.into_iter().enumerate() {
                    tokio::time::sleep_until((start + live.due(task, index)).into()).await;
                    each.push(append_and_see(&store, &program, ready).await?);
                }
                Outcome::Ok(each)
            });
        }
        let mut each = Vec::with_capacity(self.appends);
        while let Some(done) = tasks.join_next().await {
            each.extend(done??);
        }
        let latencies = laps.stop_with(each);
        if let Some(program) = Arc::into_inner(program) {
            program.stop().await;
        }
        Ok(latencies)
    }
}

async fn append_and_see(
    store: &Arc<dyn Store>,
    program: &Program,
    ready: Ready,
) -> Outcome<Duration> {
    let Ready {
        number,
        stream,
        new,
        events,
        ..
    } = ready;
    let start = Instant::now();
    let appended = store
        .append(Append::new(stream, [new.id(EventId::random())]))
        .await?;
    let row = program
        .view::<Balance>()
        .get(number.to_string())
        .at_least(&appended)
        .await?;
    let took = start.elapsed();
    match row {
        Some(row) if row.events == events => Ok(took),
        row => Err(format!("the row of account {number} is {row:?} after {events} events").into()),
    }
}
