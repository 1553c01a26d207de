//! ProcessHandle: every command takes effect once, and deadlines are told when the clock says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use annals_core::chrono::TimeDelta;
use annals_core::{
    Aggregate, Annals, Append, AppendError, Appended, ChangeStream, EventId, EventStore, Found,
    Handle, Head, Hint, IntoEvents, Log, LogId, LogPage, ManualClock, Partition, ReadLog,
    ReadStream, Recorded, Store, StoreError, StreamId, StreamPage, StreamState, ViewStore,
};
use annals_macros::Event;
use annals_projections::{Listens, On, Process, ProcessSetup, Program, ReadModels, Step, With};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::place::{Place, store_on};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "order", crate = "annals_core")]
enum OrderEvent {
    Placed { sku: String },
    Extended,
    Shipped,
    Cancelled,
}

#[derive(Default)]
struct Order {
    over: bool,
}

impl Aggregate for Order {
    type Event = OrderEvent;

    fn apply(&mut self, event: &OrderEvent) {
        self.over |= matches!(event, OrderEvent::Shipped | OrderEvent::Cancelled);
    }
}

struct Ship;
struct Cancel;

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
enum StockEvent {
    Delivered,
    Reserved,
    Released,
}

#[derive(Default)]
struct Stock {
    left: i64,
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

struct Reserve;
struct Release;

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
enum PaymentEvent {
    Received { order: String },
}

#[derive(Default)]
struct Payment;

impl Aggregate for Payment {
    type Event = PaymentEvent;

    fn apply(&mut self, _: &PaymentEvent) {}
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "fulfilment", crate = "annals_core")]
enum FulfilmentEvent {
    Started { sku: String },
    OutOfStock,
    Paid,
    TimedOut,
}

#[derive(Default)]
struct Fulfilment {
    sku: String,
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
struct Shop {
    store: Place,
    clock: Arc<ManualClock>,
    db: Annals,
}

fn fulfilments() -> ProcessSetup<Fulfilment> {
    let poll = Duration::from_millis(5);
    // Longer than the clock is advanced.
    let lease = Duration::from_secs(30 * 86_400);
    ProcessSetup::new()
        .from_the_beginning()
        .lease(lease)
        .poll(poll)
        .attempts(2, poll)
}

impl Shop {
    async fn new() -> Shop {
        let clock = Arc::new(ManualClock::default());
        let store = store_on(Arc::clone(&clock) as _).await;
        let db = Annals::on(store.handle()).with_clock(Arc::clone(&clock) as _);
        Shop { store, clock, db }
    }

    async fn program(&self) -> Program {
        self.program_on(self.store.handle()).await
    }

    async fn program_on(&self, store: Arc<dyn Store>) -> Program {
        let db = Annals::on(store).with_clock(Arc::clone(&self.clock) as _);
        db.with(fulfilments()).start().await.unwrap()
    }

    async fn happens<A: Aggregate>(&self, id: &str, event: A::Event)
    where
        A::Event: Clone,
    {
        self.db
            .aggregate::<A>(id)
            .run(|_| Ok::<_, String>(event.clone()))
            .await
            .unwrap();
    }

    async fn placed(&self, order: &str) {
        self.happens::<Order>(order, OrderEvent::Placed { sku: "tea".into() })
            .await;
    }

    async fn paid(&self, order: &str) {
        self.happens::<Payment>(
            "1",
            PaymentEvent::Received {
                order: order.into(),
            },
        )
        .await;
    }

    /// The types of the events whose stream begins so, in order.
    async fn told(&self, stream: &str) -> Vec<String> {
        let page = self.db.events().pages().next().await.unwrap();
        let events = page.into_iter().flat_map(|page| page.events);
        let of_stream = events.filter(|event| event.stream.as_str().starts_with(stream));
        of_stream
            .map(|event| event.event_type.to_string())
            .collect()
    }

    /// Waits until an event of this type stands in a stream.
    async fn until(&self, stream: &str, event_type: &str) {
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
        if tokio::time::timeout(PATIENCE, seen).await.is_err() {
            panic!("no {event_type} in {:?}", self.told("").await);
        }
    }

    async fn release_leases(&self) {
        for state in self.store.views().leases("").await.unwrap() {
            self.store
                .views()
                .release_lease(&state.lease)
                .await
                .unwrap();
        }
    }
}

#[tokio::test]
async fn an_order_that_is_paid_is_shipped_and_nobody_waits_any_more() {
    let shop = Shop::new().await;
    let db = shop.program().await;
    shop.happens::<Stock>("tea", StockEvent::Delivered).await;
    shop.placed("7").await;
    shop.until("fulfilment-7", "fulfilment.started").await;
    let processes = db.process::<Fulfilment>();
    assert_eq!(
        processes
            .query("7", |process| process.sku.clone())
            .await
            .unwrap(),
        "tea"
    );
    assert_eq!(processes.deadlines("7").await.unwrap().len(), 1);
    shop.paid("7").await;
    shop.until("fulfilment-7", "$process.finished").await;
    assert_eq!(processes.deadlines("7").await.unwrap().len(), 0);
    assert!(processes.has_finished("7").await.unwrap());
    shop.clock.advance(TimeDelta::hours(1));
    shop.placed("8").await;
    shop.until("fulfilment-8", "fulfilment.out_of_stock").await;
    assert_eq!(
        shop.told("order-7").await,
        ["order.placed", "order.shipped"]
    );
    assert_eq!(
        shop.told("stock").await,
        ["stock.delivered", "stock.reserved"]
    );
    db.stop().await;
}

#[tokio::test]
async fn a_deadline_is_reached_once_when_the_clock_says_so() {
    let shop = Shop::new().await;
    let db = shop.program().await;
    shop.happens::<Stock>("tea", StockEvent::Delivered).await;
    shop.placed("7").await;
    shop.until("fulfilment-7", "fulfilment.started").await;
    // Set anew, it is reached later.
    shop.clock.advance(TimeDelta::minutes(20));
    shop.happens::<Order>("7", OrderEvent::Extended).await;
    shop.until("fulfilment-7", "$process.deadline_cancelled")
        .await;
    shop.clock.advance(TimeDelta::minutes(29));
    shop.placed("8").await;
    shop.until("fulfilment-8", "$process.finished").await;
    assert_eq!(
        shop.told("order-7").await,
        ["order.placed", "order.extended"]
    );
    shop.clock.advance(TimeDelta::minutes(1));
    shop.until("fulfilment-7", "$process.finished").await;
    shop.clock.advance(TimeDelta::days(1));
    shop.placed("9").await;
    shop.until("fulfilment-9", "fulfilment.started").await;
    assert_eq!(
        shop.told("order-7").await,
        ["order.placed", "order.extended", "order.cancelled"]
    );
    let reached = shop
        .told("fulfilment-7")
        .await
        .iter()
        .filter(|told| *told == "$process.deadline_reached")
        .count();
    assert_eq!(reached, 1);
    db.stop().await;
}

#[tokio::test]
async fn a_deadline_that_passed_while_no_program_ran_is_reached_after_the_restart() {
    let shop = Shop::new().await;
    let first = shop.program().await;
    shop.happens::<Stock>("tea", StockEvent::Delivered).await;
    shop.placed("7").await;
    shop.until("fulfilment-7", "fulfilment.started").await;
    first.stop().await;
    shop.clock.advance(TimeDelta::hours(1));
    let second = shop.program().await;
    shop.until("fulfilment-7", "$process.finished").await;
    assert_eq!(
        shop.told("order-7").await,
        ["order.placed", "order.cancelled"]
    );
    assert_eq!(
        shop.told("stock").await,
        ["stock.delivered", "stock.reserved", "stock.released"]
    );
    second.stop().await;
}

#[tokio::test]
async fn a_command_that_is_refused_means_what_the_process_says() {
    let shop = Shop::new().await;
    let db = shop.program().await;
    shop.placed("7").await;
    shop.until("fulfilment-7", "$process.finished").await;
    assert_eq!(
        shop.told("order-7").await,
        ["order.placed", "order.cancelled"]
    );

    // Where it says nothing, the process in dead letters.
    shop.happens::<Stock>("tea", StockEvent::Delivered).await;
    shop.placed("8").await;
    shop.until("fulfilment-8", "fulfilment.started").await;
    shop.happens::<Order>("8", OrderEvent::Cancelled).await;
    shop.paid("8").await;
    let head = shop.store.head(Partition(0)).await.unwrap().visible;
    let token = annals_core::Token::new(shop.store.id()).with(Partition(0), head);
    let processes = db.process::<Fulfilment>();
    processes.wait_for(token, PATIENCE).await.unwrap();
    let dead_letters = processes.dead_letters().all(None, 10).await.unwrap();
    assert_eq!(
        (&*dead_letters[0].key, dead_letters[0].cause.as_deref()),
        ("8", Some("a command was refused: the order is over"))
    );
    db.stop().await;
}

#[tokio::test]
async fn what_a_process_does_is_caused_by_the_event() {
    let shop = Shop::new().await;
    let db = shop.program().await;
    shop.happens::<Stock>("tea", StockEvent::Delivered).await;
    shop.placed("7").await;
    shop.until("fulfilment-7", "fulfilment.started").await;
    let events = shop
        .db
        .events()
        .pages()
        .next()
        .await
        .unwrap()
        .unwrap()
        .events;
    let of = |event_type: &str| {
        events
            .iter()
            .find(|event| &*event.event_type == event_type)
            .unwrap()
    };
    for effect in [
        "stock.reserved",
        "fulfilment.started",
        "$process.deadline_set",
    ] {
        assert_eq!(
            of(effect).metadata.causation,
            Some(of("order.placed").id),
            "{effect}"
        );
        assert_eq!(
            of(effect).metadata.correlation,
            of("order.placed").metadata.correlation,
            "{effect}"
        );
    }
    let handled = of("$process.handled");
    assert_eq!(
        handled.payload,
        format!(
            "{{\"partition\":0,\"position\":{}}}",
            of("order.placed").position
        )
    );
    db.stop().await;
}

/// A store that stops answering at one of its calls: before it does what it was asked, or after.
#[derive(Debug)]
struct Stops {
    store: Arc<dyn Store>,
    left: AtomicI64,
    stopped: watch::Sender<bool>,
}

impl Stops {
    async fn step(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.stopped.send_replace(true);
            std::future::pending::<()>().await;
        }
    }

    async fn around<T>(&self, call: impl Future<Output = T>) -> T {
        self.step().await;
        let answer = call.await;
        self.step().await;
        answer
    }
}

#[async_trait::async_trait]
impl EventStore for Stops {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.around(self.store.append(append)).await
    }

    async fn read_stream(&self, read: ReadStream) -> Result<StreamPage, StoreError> {
        self.around(self.store.read_stream(read)).await
    }

    async fn find(
        &self,
        partition: Partition,
        ids: &[EventId],
    ) -> Result<Vec<Option<Found>>, StoreError> {
        self.around(self.store.find(partition, ids)).await
    }

    async fn stream_state(&self, stream: &StreamId) -> Result<StreamState, StoreError> {
        self.around(self.store.stream_state(stream)).await
    }

    async fn change_stream(&self, change: ChangeStream) -> Result<StreamState, AppendError> {
        self.around(self.store.change_stream(change)).await
    }
}

#[async_trait::async_trait]
impl Log for Stops {
    fn id(&self) -> LogId {
        self.store.id()
    }

    fn partitions(&self) -> u32 {
        self.store.partitions()
    }

    async fn read(&self, read: ReadLog) -> Result<LogPage, StoreError> {
        self.store.read(read).await
    }

    async fn head(&self, partition: Partition) -> Result<Head, StoreError> {
        self.store.head(partition).await
    }

    fn hint(&self) -> Hint {
        self.store.hint()
    }
}

impl Store for Stops {
    fn views(&self) -> Option<&dyn ViewStore> {
        self.store.views()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_dropped_at_any_call_gives_every_command_once() {
    for paid in [true, false] {
        let mut calls = 0;
        loop {
            let shop = Arc::new(Shop::new().await);
            shop.happens::<Stock>("tea", StockEvent::Delivered).await;
            shop.placed("7").await;
            if paid {
                shop.paid("7").await;
            } else {
                shop.clock.advance(TimeDelta::hours(1));
            }
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            // Whatever its connections do ends with the program.
            let opens = Arc::clone(&shop);
            let opened = async move {
                opens
                    .store
                    .another_handle_on(Arc::clone(&opens.clock) as _)
                    .await
            };
            let store = runtime.spawn(opened).await.unwrap();
            let stops = Arc::new(Stops {
                store,
                left: AtomicI64::new(calls),
                stopped: watch::Sender::new(false),
            });
            let in_program = Arc::clone(&shop);
            let on = Arc::clone(&stops);
            runtime.spawn(async move {
                let _program = in_program.program_on(on).await;
                std::future::pending::<()>().await;
            });
            let mut stopped = stops.stopped.subscribe();
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => {}
                () = shop.until("fulfilment-7", "$process.finished") => {}
            }
            let was_stopped = *stops.stopped.borrow();
            runtime.shutdown_background();
            shop.release_leases().await;

            let db = shop.program().await;
            shop.until("fulfilment-7", "$process.finished").await;
            db.stop().await;
            let order = shop.told("order").await;
            let stock = shop.told("stock").await;
            if paid {
                assert_eq!(
                    order,
                    ["order.placed", "order.shipped"],
                    "stopped at {calls}"
                );
                assert_eq!(
                    stock,
                    ["stock.delivered", "stock.reserved"],
                    "stopped at {calls}"
                );
            } else {
                assert_eq!(
                    order,
                    ["order.placed", "order.cancelled"],
                    "stopped at {calls}"
                );
                assert_eq!(
                    stock,
                    ["stock.delivered", "stock.reserved", "stock.released"],
                    "stopped at {calls}"
                );
            }
            let process = shop.told("fulfilment").await;
            let expected = match paid {
                true => 7,
                false => 8,
            };
            assert_eq!(process.len(), expected, "stopped at {calls}: {process:?}");
            calls += 1;
            if !was_stopped {
                break;
            }
        }
        assert!(calls > 15, "it was dropped at {calls} calls");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_survive_a_program_that_is_killed_again_and_again() {
    let shop = Arc::new(Shop::new().await);
    for _ in 0..40 {
        shop.happens::<Stock>("tea", StockEvent::Delivered).await;
    }
    let orders: Vec<String> = (0..40).map(|number| format!("{number:02}")).collect();
    for order in &orders {
        shop.placed(order).await;
        if **order < *"10" {
            shop.paid(order).await;
        }
    }
    shop.clock.advance(TimeDelta::hours(1));
    let mut events = shop.store.head(Partition(0)).await.unwrap().visible.get();
    for kill in 0..30 {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let in_program = Arc::clone(&shop);
        runtime.spawn(async move {
            let _program = in_program.program().await;
            std::future::pending::<()>().await;
        });
        // Killed after some events more, wherever it stands then.
        let mut hint = shop.store.hint();
        for _ in 0..50 {
            let head = shop.store.head(Partition(0)).await.unwrap().visible.get();
            if head >= events + kill % 7 {
                break;
            }
            hint.wait(Duration::from_millis(10)).await;
        }
        runtime.shutdown_background();
        shop.release_leases().await;
        events = shop.store.head(Partition(0)).await.unwrap().visible.get();
    }
    let db = shop.program().await;
    for order in &orders {
        shop.until(&format!("fulfilment-{order}"), "$process.finished")
            .await;
    }
    for order in &orders {
        let history = db
            .aggregate::<Order>(order)
            .history()
            .await
            .unwrap()
            .entries;
        let end = if **order < *"10" {
            "order.shipped"
        } else {
            "order.cancelled"
        };
        let told: Vec<_> = history
            .iter()
            .map(|entry| &*entry.record.event_type)
            .collect();
        assert_eq!(told, ["order.placed", end], "{order}");
    }
    let count = |told: &[String], wanted: &str| told.iter().filter(|of| *of == wanted).count();
    let stock = shop.told("stock").await;
    assert_eq!(
        (
            count(&stock, "stock.reserved"),
            count(&stock, "stock.released")
        ),
        (40, 30)
    );
    db.stop().await;
}
