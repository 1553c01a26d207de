//! Appending: in batches, and one by one from many tasks.

use std::sync::Arc;

use annals::store::{Append, Expected, NewEvent};
use annals::{EventId, Store, StreamId, Version};
use tokio::task::JoinSet;

use crate::Outcome;
use crate::account;
use crate::rate::{Rate, Watch};
use crate::seed::Seed;

/// Appends batches, each to one of some streams in turn, one after another in each task.
///
/// ```no_run
/// # async fn example(store: std::sync::Arc<dyn annals::Store>) -> annals_benches::Outcome<()> {
/// use annals_benches::append::Batches;
///
/// let batches = Batches { events: 100_000, batch_events: 1_000, streams: 100, tasks: 1 };
/// println!("{} events/s", batches.run(&store, batches.make()?).await?.per_second());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Batches {
    /// Events in all.
    pub events: usize,
    /// Events in each append.
    pub batch_events: usize,
    /// Streams that get them.
    pub streams: usize,
    /// Tasks that append.
    pub tasks: usize,
}

impl Batches {
    /// What is to be appended, made before the clock starts.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn make(&self) -> Outcome<Vec<(StreamId, Vec<NewEvent>)>> {
        let mut seed = Seed::new(1);
        (0..self.events.div_ceil(self.batch_events))
            .map(|batch| {
                let first = batch / self.streams * self.batch_events;
                let count = self
                    .batch_events
                    .min(self.events - batch * self.batch_events);
                Ok((
                    account::stream(batch % self.streams)?,
                    account::events(&mut seed, first, count)?,
                ))
            })
            .collect()
    }

    /// Appends it.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn run(
        &self,
        store: &Arc<dyn Store>,
        made: Vec<(StreamId, Vec<NewEvent>)>,
    ) -> Outcome<Rate> {
        let mut shares: Vec<Vec<_>> = (0..self.tasks).map(|_| Vec::new()).collect();
        for (index, batch) in made.into_iter().enumerate() {
            shares[index % self.tasks].push(batch);
        }
        let watch = Watch::start();
        let mut tasks = JoinSet::new();
        for share in shares {
            let store = Arc::clone(store);
            tasks.spawn(async move {
                for (stream, events) in share {
                    store.append(Append::new(stream, events)).await?;
                }
                Outcome::Ok(())
            });
        }
        join(tasks).await?;
        Ok(watch.stop(self.events))
    }
}

/// Appends single events, each task to a stream of its own whose version it expects, one after
/// another in each task.
///
/// ```no_run
/// # async fn example(store: std::sync::Arc<dyn annals::Store>) -> annals_benches::Outcome<()> {
/// use annals_benches::append::Singles;
///
/// let singles = Singles { events: 10_000, tasks: 64 };
/// println!("{} events/s", singles.run(&store, singles.make()?).await?.per_second());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Singles {
    /// Events in all.
    pub events: usize,
    /// Tasks that append.
    pub tasks: usize,
}

impl Singles {
    /// What is to be appended by each task, made before the clock starts.
    ///
    /// # Errors
    ///
    /// Never.
    pub fn make(&self) -> Outcome<Vec<(StreamId, Vec<NewEvent>)>> {
        let mut seed = Seed::new(2);
        let share = self.events / self.tasks;
        (0..self.tasks)
            .map(|task| {
                Ok((
                    account::stream(task)?,
                    account::events(&mut seed, 0, share)?,
                ))
            })
            .collect()
    }

    /// Appends it.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn run(
        &self,
        store: &Arc<dyn Store>,
        made: Vec<(StreamId, Vec<NewEvent>)>,
    ) -> Outcome<Rate> {
        let count = made.iter().map(|(_, events)| events.len()).sum();
        let watch = Watch::start();
        let mut tasks = JoinSet::new();
        for (stream, events) in made {
            let store = Arc::clone(store);
            tasks.spawn(async move {
                for (version, event) in (0..).zip(events) {
                    // Made when it is needed, as programs do: ids that ascend with time are cheap
                    // to index.
                    let event = event.id(EventId::random());
                    let expected = Expected::Version(Version::new(version));
                    store
                        .append(Append::new(stream.clone(), [event]).expecting(expected))
                        .await?;
                }
                Outcome::Ok(())
            });
        }
        join(tasks).await?;
        Ok(watch.stop(count))
    }
}

/// Waits for all of them; the first error is the outcome.
pub(crate) async fn join(mut tasks: JoinSet<Outcome<()>>) -> Outcome<()> {
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
