//! What is counted: a read model in which an event that is missing, comes twice or in another order
//! leaves its mark, and a replay.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annals::prelude::*;
use annals::projections::Options;
use annals::store::{Append, AppendError, NewEvent, ReadLog, RecordedEvent};
use annals::{Failure, Partition, Recorded, Store};
use annals_core::conformance::Dice;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "tally")]
pub(crate) enum Tallied {
    Added { amount: u64 },
    Spoilt { amount: u64 },
}

impl Tallied {
    pub(crate) fn amount(&self) -> u64 {
        let (Tallied::Added { amount } | Tallied::Spoilt { amount }) = self;
        *amount
    }
}

/// How many events there were, their sum, and a number that depends on their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) events: u64,
    pub(crate) sum: u64,
    order: u64,
}

impl Count {
    pub(crate) fn add(&mut self, amount: u64) {
        self.events += 1;
        self.sum += amount;
        self.order = self.order.wrapping_mul(31).wrapping_add(amount) % 1_000_000_007;
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "tally", version = 1, events(Tallied), history)]
pub(crate) struct Tally {
    #[serde(flatten)]
    pub(crate) count: Count,
}

/// The same, and its past is not kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "forgetful", version = 1, events(Tallied))]
pub(crate) struct Forgetful {
    #[serde(flatten)]
    pub(crate) count: Count,
}

/// Whether what is spoilt can be folded.
pub(crate) static MENDED: AtomicBool = AtomicBool::new(true);

fn fold(count: &mut Count, event: &Tallied) -> Result<(), Poison> {
    crate::child::in_the_fold();
    if matches!(event, Tallied::Spoilt { .. }) && !MENDED.load(Ordering::SeqCst) {
        return Err(Poison::new("spoilt"));
    }
    count.add(event.amount());
    Ok(())
}

impl Project<Tallied> for Tally {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<Tallied>) -> Result<(), Poison> {
        fold(&mut row.count, event)
    }
}

impl Project<Tallied> for Forgetful {
    fn on(row: &mut Row<'_, Self>, event: &Recorded<Tallied>) -> Result<(), Poison> {
        fold(&mut row.count, event)
    }
}

pub(crate) trait HasCount: View<Key = String> {
    fn count(&self) -> Count;
}

impl HasCount for Tally {
    fn count(&self) -> Count {
        self.count
    }
}

impl HasCount for Forgetful {
    fn count(&self) -> Count {
        self.count
    }
}

pub(crate) type Rows = BTreeMap<String, Count>;

/// How the workers of these tests work: in small steps, under leases that end soon.
pub(crate) fn options() -> Options {
    Options::default()
        .lease(Duration::from_millis(60))
        .batch_events_max(10)
        .poll(Duration::from_millis(5))
}

pub(crate) async fn program<V: View>(store: &Arc<dyn Store>, options: Options) -> Program {
    let db = Annals::on(Arc::clone(store));
    db.with(ViewSetup::<V>::new().options(options))
        .start()
        .await
        .unwrap()
}

/// Appends events of random keys at once.
pub(crate) async fn append(store: &dyn Store, dice: &mut Dice, keys: u64, events: u64) {
    let mut append = Append::default();
    for _ in 0..events {
        let stream = StreamId::new(format!("tally-{:03}", dice.roll(keys))).unwrap();
        append = append.event(
            stream,
            NewEvent::of(&Tallied::Added {
                amount: dice.roll(1_000),
            })
            .unwrap(),
        );
    }
    loop {
        match store.append(append.clone()).await {
            Ok(_) => return,
            // Asking again with the same ids tells.
            Err(AppendError::Unknown(_)) => {}
            Err(AppendError::Store(error)) if error.failure() == Failure::Unavailable => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// The key and the amount of an event, if it counts.
pub(crate) fn counted(record: &RecordedEvent) -> Option<(String, u64)> {
    let payload: serde_json::Value = serde_json::from_slice(&record.payload).unwrap();
    Some((record.stream.id().to_owned(), payload["amount"].as_u64()?))
}

/// The events of the log that count, from its beginning.
pub(crate) async fn history(store: &dyn Store) -> Vec<(String, u64)> {
    let mut history = Vec::new();
    let mut after = Position::START;
    loop {
        let page = store.read(ReadLog::after(after)).await.unwrap();
        history.extend(page.events.iter().filter_map(counted));
        after = page.scanned;
        if page.end {
            return history;
        }
    }
}

pub(crate) fn replay(history: &[(String, u64)]) -> Rows {
    let mut rows = Rows::new();
    history
        .iter()
        .for_each(|(key, amount)| rows.entry(key.clone()).or_default().add(*amount));
    rows
}

pub(crate) async fn caught_up<V: View>(db: &Program) {
    let head = db.store().head(Partition(0)).await.unwrap().visible;
    let token = Token::new(db.store().id()).with(Partition(0), head);
    db.view::<V>().wait_for(token, TIMEOUT).await.unwrap();
}

pub(crate) async fn rows<V: HasCount>(db: &Program, moment: Option<Position>) -> Rows {
    let mut rows = Rows::new();
    let mut after = None;
    loop {
        let scan = db.view::<V>().rows().after(after);
        let page = match moment {
            Some(moment) => scan.as_of(moment).await.unwrap(),
            None => scan.await.unwrap(),
        };
        rows.extend(
            page.rows
                .into_iter()
                .map(|row| (row.key, row.value.count())),
        );
        after = page.next;
        if after.is_none() {
            return rows;
        }
    }
}

/// How many events rows have too often, and how many not at all.
pub(crate) fn differences(found: &Rows, expected: &Rows) -> (u64, u64) {
    let mut twice = 0;
    let mut missing = 0;
    for (key, count) in expected {
        let found = found.get(key).map_or(0, |count| count.events);
        twice += found.saturating_sub(count.events);
        missing += count.events.saturating_sub(found);
    }
    (twice, missing)
}
