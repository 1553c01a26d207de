//! A consumer that is ten times slower than its producer: what waits is bounded, nothing is lost,
//! and the status says who holds whom. A link that is too slow for a batch gets smaller ones.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use annals::pipeline::Pipeline;
use annals::prelude::*;
use annals::projections::Program;
use annals::status::SlotState;
use annals::store::{Append, NewEvent};
use annals::{Failure, MemoryStore, Partition, Store, StoreError};
use annals_core::{Outgoing, Outlet, OutletError, OutletMark};
use async_trait::async_trait;
use chrono::DateTime;
use tokio::sync::Semaphore;

use crate::shop::{noon, options, ordered, sold};

const WAIT: Duration = Duration::from_secs(60);
/// Events that may wait to be sent, and those of a batch.
const OUTBOX: u64 = 20;
const BATCH: u64 = 20;

/// Takes a record when it may.
#[derive(Clone, Debug)]
struct Slow(Arc<Taking>);

#[derive(Debug)]
struct Taking {
    may_take: Semaphore,
    taken: Mutex<Vec<i64>>,
    marks: Mutex<Vec<OutletMark>>,
}

#[async_trait]
impl Outlet for Slow {
    async fn open(&mut self) -> Result<Vec<OutletMark>, OutletError> {
        Ok(self.0.marks.lock().unwrap().clone())
    }

    async fn take(&mut self, batch: Vec<Outgoing>, mark: OutletMark) -> Result<(), OutletError> {
        for record in batch {
            self.0.may_take.acquire().await.unwrap().forget();
            self.0.taken.lock().unwrap().push(number_of(&record));
        }
        *self.0.marks.lock().unwrap() = vec![mark];
        Ok(())
    }
}

fn number_of(record: &Outgoing) -> i64 {
    let payload = record.payload.as_deref().unwrap();
    std::str::from_utf8(payload).unwrap().parse().unwrap()
}

/// Delivers two records in the time that it has, and not more.
#[derive(Clone, Debug, Default)]
struct SlowLink(Arc<Mutex<Delivered>>);

#[derive(Debug, Default)]
struct Delivered {
    numbers: Vec<i64>,
    marks: Vec<OutletMark>,
    failures: usize,
}

#[async_trait]
impl Outlet for SlowLink {
    async fn open(&mut self) -> Result<Vec<OutletMark>, OutletError> {
        Ok(self.0.lock().unwrap().marks.clone())
    }

    async fn take(&mut self, batch: Vec<Outgoing>, mark: OutletMark) -> Result<(), OutletError> {
        let mut delivered = self.0.lock().unwrap();
        if batch.len() > 2 {
            delivered.failures += 1;
            let late = StoreError::new(Failure::Unavailable, "not delivered in time");
            return Err(OutletError::Undecided(late));
        }
        delivered.numbers.extend(batch.iter().map(number_of));
        delivered.marks = vec![mark];
        Ok(())
    }
}

fn slow<O: Outlet + Clone + Sync + 'static>(outlet: &O) -> Pipeline {
    let outlet = outlet.clone();
    let pipeline = Pipeline::new("slow", 1, move |log| {
        let sold = sold(log).key_by(|sale| sale.product.clone());
        let open = move || -> Result<Box<dyn Outlet>, StoreError> { Ok(Box::new(outlet.clone())) };
        sold.publish_to(open, |product, sale| Outgoing {
            to: "sales".into(),
            key: product.clone().into(),
            payload: Some(sale.cents.to_string().into()),
            headers: Vec::new(),
            occurred_at: DateTime::UNIX_EPOCH,
        });
    });
    let options = options().batch_events_max(BATCH as usize);
    pipeline.options(options).outbox_events_max(OUTBOX)
}

/// Why the slot goes no further, once it does not.
async fn held(db: &Program) -> String {
    let mut polls = tokio::time::interval(Duration::from_millis(5));
    loop {
        polls.tick().await;
        let status = db.status();
        let slots = status.iter().filter(|of| of.view == "slow");
        let mut slots = slots.flat_map(|of| &of.slots);
        let waits = slots.find_map(|slot| match &slot.state {
            SlotState::Waiting { reason } => Some(reason.clone()),
            _ => None,
        });
        if let Some(reason) = waits {
            return reason;
        }
    }
}

/// How many events wait to be sent, and how far the slot has come.
async fn waiting(store: &dyn Store) -> (u64, u64) {
    let views = store.views().unwrap();
    let live = views.generations("slow").await.unwrap()[0].id;
    let outbox = views.read_state(live, 0, Some(&[2]), 1 << 20).await;
    let counts = outbox.unwrap().into_iter().map(|(_, value)| {
        let count: [u8; 4] = value[9..13].try_into().unwrap();
        u64::from(u32::from_be_bytes(count))
    });
    let reached = views.checkpoints(live).await.unwrap();
    (counts.sum(), reached[0].position.get())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_ten_times_slower_is_waited_for() {
    let outlet = Slow(Arc::new(Taking {
        may_take: Semaphore::new(0),
        taken: Mutex::default(),
        marks: Mutex::default(),
    }));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let db = Annals::on(store.clone()).with(slow(&outlet)).start();
    let db = db.await.unwrap();
    let mut produced = 0;
    for _ in 0..30 {
        // Ten are produced for each that is consumed.
        let events = (produced..produced + 100).map(|number| {
            let event = NewEvent::of(&ordered("tea", number)).unwrap();
            event.at(noon() + chrono::TimeDelta::milliseconds(number))
        });
        let stream = StreamId::new(format!("order-{produced}")).unwrap();
        let append = Append::new(stream, events.collect::<Vec<_>>());
        store.append(append).await.unwrap();
        produced += 100;
        outlet.0.may_take.add_permits(10);
        let reason = held(&db).await;
        assert!(reason.contains("the sender of `slow` has sent"), "{reason}");
        let taken = outlet.0.taken.lock().unwrap().len() as u64;
        let (waits, reached) = waiting(&*store).await;
        // The log is what holds the rest.
        let most = OUTBOX + 2 * BATCH;
        assert!(waits <= most, "{waits} wait");
        assert!(reached <= taken + 10 + most, "{reached} of {taken}");
    }
    assert!(outlet.0.taken.lock().unwrap().len() <= 300);
    outlet.0.may_take.add_permits(produced as usize);
    let head = store.head(Partition(0)).await.unwrap().visible;
    let token = Token::new(store.id()).with(Partition(0), head);
    let pipeline = db.pipeline("slow").unwrap();
    pipeline.wait_until_sent(token, WAIT).await.unwrap();
    let all: Vec<i64> = (0..produced).collect();
    assert_eq!(*outlet.0.taken.lock().unwrap(), all);
    db.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_not_delivered_comes_again_in_parts() {
    let outlet = SlowLink::default();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let db = Annals::on(store.clone()).with(slow(&outlet)).start();
    let db = db.await.unwrap();
    let count = BATCH as i64;
    let events = (0..count).map(|number| {
        let event = NewEvent::of(&ordered("tea", number)).unwrap();
        event.at(noon() + chrono::TimeDelta::milliseconds(number))
    });
    let stream = StreamId::new("order-1").unwrap();
    let append = Append::new(stream, events.collect::<Vec<_>>());
    store.append(append).await.unwrap();
    let head = store.head(Partition(0)).await.unwrap().visible;
    let token = Token::new(store.id()).with(Partition(0), head);
    let pipeline = db.pipeline("slow").unwrap();
    pipeline.wait_until_sent(token, WAIT).await.unwrap();
    db.stop().await;
    let delivered = outlet.0.lock().unwrap();
    assert_eq!(delivered.numbers, (0..count).collect::<Vec<_>>());
    assert!(delivered.failures > 0, "no batch was too large");
}
