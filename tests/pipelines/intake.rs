//! Sources that are no log: what is taken in, what is dropped, and what waits for what.

use std::sync::Arc;

use annals::pipeline::{Intake, Offered, Overload};
use annals::prelude::*;
use annals::store::ReadLog;
use annals::{Clock as _, Failure, ManualClock, MemoryStore, Store, StoreError};
use annals_core::conformance::faulty::{Call, FaultyStore, StoreFault};
use async_trait::async_trait;
use tokio::sync::Semaphore;

#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(category = "sensor")]
enum SensorEvent {
    Measured { number: u64 },
}

/// A store that takes an append whenever it is allowed one.
#[derive(Debug)]
struct Allows(Semaphore);

#[async_trait]
impl StoreFault for Allows {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        if call == Call::Append {
            self.0.acquire().await.unwrap().forget();
        }
        Ok(())
    }
}

/// A store that fails now and then.
#[derive(Debug, Default)]
struct Flickers(std::sync::atomic::AtomicU64);

#[async_trait]
impl StoreFault for Flickers {
    async fn after(&self, call: Call) -> Result<(), StoreError> {
        let count = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        match call {
            Call::Append if count == 1 => {
                Err(StoreError::new(Failure::Unavailable, "the answer was lost"))
            }
            _ => Ok(()),
        }
    }
}

async fn numbers(store: &dyn Store) -> Vec<u64> {
    let page = store
        .read(ReadLog::after(Position::START).limit(100_000))
        .await
        .unwrap();
    assert!(page.end);
    let numbers = page.events.into_iter().flat_map(|record| {
        let decoded = Recorded::<SensorEvent>::decode(record).unwrap();
        decoded.into_iter().map(|of| {
            let SensorEvent::Measured { number } = of.event;
            number
        })
    });
    numbers.collect()
}

async fn offer(intake: &Intake, number: u64) -> Offered {
    let measured = SensorEvent::Measured { number };
    intake.offer("sensor-7", &measured).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_holds_up_who_offers_and_loses_nothing() {
    const BOUND: usize = 20;
    const OFFERED: u64 = 2_000;
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let store = FaultyStore::new(inner.clone(), Allows(Semaphore::new(0)));
    let db = Annals::on(store.clone());
    let intake = Intake::into(&db).events_max(BOUND).open();
    let producer = tokio::spawn({
        let intake = intake.clone();
        async move {
            for number in 0..OFFERED {
                offer(&intake, number).await;
            }
        }
    });
    // The store stands still: as much waits as may, and who offers more is held up.
    let held = loop {
        let status = intake.status();
        if status.blocked == 1 {
            break status;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(held.appended, 0);
    assert!(
        held.to_string()
            .contains("the store holds up 1 who offer more"),
        "{held}"
    );
    // It goes on, an append at a time, and never is there more in memory.
    while !producer.is_finished() {
        let before = intake.status().appended;
        store.fault().0.add_permits(1);
        while intake.status().appended == before && !producer.is_finished() {
            tokio::task::yield_now().await;
        }
    }
    producer.await.unwrap();
    store.fault().0.add_permits(OFFERED as usize);
    let done = intake.finish().await;
    // Those that wait, and those of the append on its way.
    assert!(done.most_waiting <= 2 * BOUND as u64, "{done:?}");
    assert_eq!((done.appended, done.dropped, done.waiting), (OFFERED, 0, 0));
    assert_eq!(numbers(&*inner).await, (0..OFFERED).collect::<Vec<_>>());
    let closed = intake
        .offer("sensor-7", &SensorEvent::Measured { number: 1 })
        .await;
    assert_eq!(closed.unwrap_err().failure(), Failure::Closed);
}

#[tokio::test]
async fn the_oldest_make_room_and_are_counted() {
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let store = FaultyStore::new(inner.clone(), Allows(Semaphore::new(0)));
    let db = Annals::on(store.clone());
    let setup = Intake::into(&db)
        .events_max(10)
        .when_full(Overload::DropOldest);
    let intake = setup.open();
    for number in 0..100 {
        assert_eq!(offer(&intake, number).await, Offered::Taken);
    }
    store.fault().0.add_permits(100);
    let done = intake.finish().await;
    assert_eq!(done.offered, 100);
    assert_eq!(done.appended + done.dropped, 100);
    assert!(done.dropped >= 80, "{done:?}");
    let found = numbers(&*inner).await;
    assert_eq!(found[found.len() - 10..], (90..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn samples_and_rates_drop_the_configured_share() {
    let clock = Arc::new(ManualClock::default());
    let store = Arc::new(MemoryStore::new().on_clock(Arc::<ManualClock>::clone(&clock)));
    let db = Annals::on(store.clone()).with_clock(clock.clone());
    let sample = Intake::into(&db)
        .when_full(Overload::Sample { one_of: 10 })
        .open();
    for number in 0..30 {
        offer(&sample, number).await;
    }
    let done = sample.finish().await;
    assert_eq!((done.appended, done.dropped), (3, 27));
    assert_eq!(numbers(&*store).await, [0, 10, 20]);
    let rate = Intake::into(&db)
        .when_full(Overload::AtMost { per_second: 2 })
        .open();
    let mut taken = Vec::new();
    for number in 100..108 {
        if number == 104 {
            clock.set(clock.now() + chrono::TimeDelta::seconds(1));
        }
        if offer(&rate, number).await == Offered::Taken {
            taken.push(number);
        }
    }
    assert_eq!(taken, [100, 101, 104, 105]);
    assert_eq!(rate.finish().await.dropped, 4);
}

#[tokio::test]
async fn lost_answers_and_refusals_cost_no_other_event() {
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let store = FaultyStore::new(inner.clone(), Flickers::default());
    let db = Annals::on(store);
    let intake = Intake::into(&db).open();
    for number in 0..50 {
        offer(&intake, number).await;
    }
    assert!(
        intake
            .offer("$no", &SensorEvent::Measured { number: 1 })
            .await
            .is_err()
    );
    let done = intake.finish().await;
    assert_eq!((done.appended, done.refused), (50, 0), "{done}");
    assert_eq!(numbers(&*inner).await, (0..50).collect::<Vec<_>>());
}
