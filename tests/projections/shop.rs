//! A shop whose orders are fulfilled by a process, shared by the tests.

use std::sync::Arc;
use std::time::Duration;

use annals_core::chrono::TimeDelta;
use annals_core::{Aggregate, Annals, Handle, IntoEvents, ManualClock, Recorded, Store};
use annals_macros::Event;
use annals_projections::{Listens, On, Process, ProcessSetup, Program, Step, With};
use serde::{Deserialize, Serialize};

use super::test_store::{TestStore, store_on};

pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "order", crate = "annals_core")]
pub(super) enum OrderEvent {
    Placed { sku: String },
    Extended,
    Shipped,
    Cancelled,
}

#[derive(Default)]
pub(super) struct Order {
    pub(super) over: bool,
}

impl Aggregate for Order {
    type Event = OrderEvent;

    fn apply(&mut self, event: &OrderEvent) {
        self.over |= matches!(event, OrderEvent::Shipped | OrderEvent::Cancelled);
    }
}

pub(super) struct Ship;
pub(super) struct Cancel;

impl Handle<Ship> for Order {
    type Error = String;

    fn handle(&self, _: &Ship) -> Result<impl IntoEvents<OrderEvent>, String> {
        if self.over {
            Err("the order is over".into())
        } else {
            Ok(OrderEvent::Shipped)
        }
    }
}

impl Handle<Cancel> for Order {
    type Error = String;

    fn handle(&self, _: &Cancel) -> Result<impl IntoEvents<OrderEvent>, String> {
        if self.over {
            Err("the order is over".into())
        } else {
            Ok(OrderEvent::Cancelled)
        }
    }
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "stock", crate = "annals_core")]
pub(super) enum StockEvent {
    Delivered,
    Reserved,
    Released,
}

#[derive(Default)]
pub(super) struct Stock {
    pub(super) left: i64,
}

impl Aggregate for Stock {
    type Event = StockEvent;

    fn apply(&mut self, event: &StockEvent) {
        self.left += if *event == StockEvent::Reserved {
            -1
        } else {
            1
        };
    }
}

pub(super) struct Reserve;
pub(super) struct Release;

impl Handle<Reserve> for Stock {
    type Error = String;

    fn handle(&self, _: &Reserve) -> Result<impl IntoEvents<StockEvent>, String> {
        if self.left == 0 {
            Err("nothing is left".into())
        } else {
            Ok(StockEvent::Reserved)
        }
    }
}

impl Handle<Release> for Stock {
    type Error = String;

    fn handle(&self, _: &Release) -> Result<impl IntoEvents<StockEvent>, String> {
        Ok(StockEvent::Released)
    }
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "payment", crate = "annals_core")]
pub(super) enum PaymentEvent {
    Received { order: String },
}

#[derive(Default)]
pub(super) struct Payment;

impl Aggregate for Payment {
    type Event = PaymentEvent;

    fn apply(&mut self, _: &PaymentEvent) {}
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "fulfilment", crate = "annals_core")]
pub(super) enum FulfilmentEvent {
    Started { sku: String },
    OutOfStock,
    Paid,
    TimedOut,
}

#[derive(Default)]
pub(super) struct Fulfilment {
    pub(super) sku: String,
}

impl Process for Fulfilment {
    const NAME: &'static str = "fulfilment";
    type Event = FulfilmentEvent;

    fn listens() -> Listens<Fulfilment> {
        Listens::new()
            .to::<OrderEvent>()
            .to::<PaymentEvent>()
            .to::<FulfilmentEvent>()
    }

    fn apply(&mut self, event: &FulfilmentEvent) {
        if let FulfilmentEvent::Started { sku } = event {
            self.sku = sku.clone();
        }
    }

    fn reached(&self, id: &str, _: &str) -> Vec<Step<Fulfilment>> {
        vec![
            Step::send::<Order, _>(id, Cancel),
            Step::send::<Stock, _>(&self.sku, Release),
            Step::emit(FulfilmentEvent::TimedOut),
            Step::finish(),
        ]
    }
}

impl On<OrderEvent> for Fulfilment {
    fn on(&self, event: &Recorded<OrderEvent>) -> Vec<Step<Fulfilment>> {
        let half_an_hour = event.record.occurred_at + TimeDelta::minutes(30);
        match &**event {
            OrderEvent::Placed { sku } => vec![
                Step::send::<Stock, _>(sku, Reserve).if_refused(FulfilmentEvent::OutOfStock),
                Step::deadline("payment", half_an_hour),
                Step::emit(FulfilmentEvent::Started { sku: sku.clone() }),
            ],
            OrderEvent::Extended => vec![Step::deadline("payment", half_an_hour)],
            OrderEvent::Shipped | OrderEvent::Cancelled => vec![],
        }
    }
}

impl On<PaymentEvent> for Fulfilment {
    fn id(event: &Recorded<PaymentEvent>) -> Option<String> {
        let PaymentEvent::Received { order } = &**event;
        Some(order.clone())
    }

    fn on(&self, event: &Recorded<PaymentEvent>) -> Vec<Step<Fulfilment>> {
        let PaymentEvent::Received { order } = &**event;
        vec![
            Step::send::<Order, _>(order, Ship),
            Step::emit(FulfilmentEvent::Paid),
            Step::finish(),
        ]
    }
}

impl On<FulfilmentEvent> for Fulfilment {
    fn on(&self, event: &Recorded<FulfilmentEvent>) -> Vec<Step<Fulfilment>> {
        match &**event {
            FulfilmentEvent::OutOfStock => {
                vec![
                    Step::send::<Order, _>(event.record.stream.id(), Cancel),
                    Step::finish(),
                ]
            }
            _ => vec![],
        }
    }
}

/// A shop whose log, read models and clock outlive its programs.
pub(super) struct Shop {
    pub(super) store: TestStore,
    pub(super) clock: Arc<ManualClock>,
    pub(super) db: Annals,
}

impl Shop {
    pub(super) async fn new() -> Shop {
        let clock = Arc::new(ManualClock::default());
        let store = store_on(Arc::clone(&clock) as _).await;
        let db = Annals::on(store.handle()).with_clock(Arc::clone(&clock) as _);
        Shop { store, clock, db }
    }

    pub(super) async fn program(&self) -> Program {
        self.program_on(self.store.handle()).await
    }

    pub(super) async fn program_on(&self, store: Arc<dyn Store>) -> Program {
        let db = Annals::on(store).with_clock(Arc::clone(&self.clock) as _);
        db.with(fulfilments()).start().await.unwrap()
    }

    pub(super) async fn happens<A: Aggregate>(&self, id: &str, event: A::Event)
    where
        A::Event: Clone,
    {
        self.db
            .aggregate::<A>(id)
            .run(|_| Ok::<_, String>(event.clone()))
            .await
            .unwrap();
    }

    pub(super) async fn placed(&self, order: &str) {
        self.happens::<Order>(order, OrderEvent::Placed { sku: "tea".into() })
            .await;
    }

    pub(super) async fn paid(&self, order: &str) {
        self.happens::<Payment>(
            "1",
            PaymentEvent::Received {
                order: order.into(),
            },
        )
        .await;
    }

    /// The types of the events whose stream begins so, in order.
    pub(super) async fn told(&self, stream: &str) -> Vec<String> {
        let page = self.db.events().pages().next().await.unwrap();
        let events = page.into_iter().flat_map(|page| page.events);
        let of_stream = events.filter(|event| event.stream.as_str().starts_with(stream));
        of_stream
            .map(|event| event.event_type.to_string())
            .collect()
    }

    /// Waits until a stream has an event of this type.
    pub(super) async fn until(&self, stream: &str, event_type: &str) {
        let seen = async {
            let mut hint = self.store.hint();
            while !self
                .told(stream)
                .await
                .iter()
                .any(|told| told == event_type)
            {
                hint.wait(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(TIMEOUT, seen).await.is_err() {
            panic!("no {event_type} in {:?}", self.told("").await);
        }
    }

    /// Waits for something after programs were killed. One of them may have got a lease when all
    /// were released; the clock does not move, so that would never end.
    pub(super) async fn after_kills<T>(&self, what: impl Future<Output = T>) -> T {
        let mut what = std::pin::pin!(what);
        for _ in 0..30 {
            let pause = Duration::from_secs(2);
            if let Ok(done) = tokio::time::timeout(pause, &mut what).await {
                return done;
            }
            self.release_leases().await;
        }
        panic!("it does not come: {:?}", self.told("").await);
    }

    pub(super) async fn release_leases(&self) {
        for state in self.store.views().leases("").await.unwrap() {
            self.store
                .views()
                .release_lease(&state.lease)
                .await
                .unwrap();
        }
    }
}

pub(super) fn fulfilments() -> ProcessSetup<Fulfilment> {
    let poll = Duration::from_millis(5);
    // Longer than the clock is advanced.
    let lease = Duration::from_secs(30 * 86_400);
    ProcessSetup::new()
        .from_the_beginning()
        .lease(lease)
        .poll(poll)
        .attempts(2, poll)
}
