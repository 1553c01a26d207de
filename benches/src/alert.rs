//! From an append to the event that a pipeline appends because of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use annals::pipeline::Pipeline;
use annals::store::{Append, NewEvent, ReadLog};
use annals::{Annals, EventId, Filter, Partition, Position, Store, StreamId, prelude::*};

use crate::Outcome;
use crate::account::AccountEvent;
use crate::latency::{Laps, Latencies};
use crate::live::{Live, Ready};

/// Something was paid in.
#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(category = "alert")]
pub enum AlertEvent {
    /// Some event of an account.
    Moved {
        /// The account.
        account: String,
    },
}

const TYPE: &str = "alert.moved";

/// Appends single events, one after another, to accounts in turn, and waits until the alert that a
/// pipeline appends because of it is read from the log.
///
/// ```no_run
/// # async fn example(store: std::sync::Arc<dyn annals::Store>) -> annals_benches::Outcome<()> {
/// use annals_benches::alert::Alerts;
///
/// let alerts = Alerts { appends: 1_000, per_second: 100 };
/// println!("{:?}", alerts.run(&store).await?.percentile(99));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct Alerts {
    /// Appends in all.
    pub appends: usize,
    /// How many in a second.
    pub per_second: u32,
}

fn alerts() -> Pipeline {
    Pipeline::new("bench-alerts", 1, |log| {
        let moved = log
            .events::<AccountEvent>()
            .map(|event| event.record.stream.to_string());
        moved.key_by(String::clone).append(|account, _| {
            let account = account.clone();
            (format!("alert-{account}"), AlertEvent::Moved { account })
        });
    })
}

impl Alerts {
    fn live(&self) -> Live {
        Live {
            appends: self.appends,
            tasks: 1,
            per_second: Some(self.per_second),
        }
    }

    /// Runs it. The time of each is from the call of the append to the alert in hand.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn run(&self, store: &Arc<dyn Store>) -> Outcome<Latencies> {
        let program = Annals::on(Arc::clone(store)).with(alerts()).start().await?;
        let live = self.live();
        let laps = Laps::start();
        let start = Instant::now();
        let mut each = Vec::with_capacity(self.appends);
        for (index, ready) in live.share(0)?.into_iter().enumerate() {
            tokio::time::sleep_until((start + live.due(0, index)).into()).await;
            let begun = Instant::now();
            let after = append(&**store, ready).await?;
            alert_after(&**store, after).await?;
            each.push(begun.elapsed());
        }
        let latencies = laps.stop_with(each);
        program.stop().await;
        Ok(latencies)
    }

    /// What it cannot be faster than: two durable appends, one after the other.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn two_appends(&self, store: &Arc<dyn Store>) -> Outcome<Latencies> {
        let live = self.live();
        let laps = Laps::start();
        let start = Instant::now();
        let mut each = Vec::with_capacity(self.appends);
        for (index, ready) in live.share(0)?.into_iter().enumerate() {
            tokio::time::sleep_until((start + live.due(0, index)).into()).await;
            let account = ready.stream.to_string();
            let begun = Instant::now();
            append(&**store, ready).await?;
            let stream = StreamId::new(format!("alert-{account}"))?;
            let alert = NewEvent::of(&AlertEvent::Moved { account })?;
            store.append(Append::new(stream, [alert])).await?;
            each.push(begun.elapsed());
        }
        Ok(laps.stop_with(each))
    }
}

async fn append(store: &dyn Store, ready: Ready) -> Outcome<Position> {
    let new = ready.new.id(EventId::random());
    let appended = store.append(Append::new(ready.stream, [new])).await?;
    Ok(appended.last().position)
}

async fn alert_after(store: &dyn Store, mut after: Position) -> Outcome<()> {
    let filter = Filter::default().types([TYPE]);
    let mut hint = store.hint();
    loop {
        hint.reset();
        let read = ReadLog::after(after)
            .partition(Partition(0))
            .filter(filter.clone());
        let page = store.read(read).await?;
        if !page.events.is_empty() {
            return Ok(());
        }
        after = page.scanned;
        hint.wait(Duration::from_secs(1)).await;
    }
}
