//! ProcessHandle: every command takes effect once, and deadlines are told when the clock says so.

use std::sync::Arc;
use std::time::Duration;

use annals_core::chrono::TimeDelta;
use annals_core::{Aggregate, Annals, Partition, Recorded, Token};
use annals_macros::Event;
use annals_projections::{Listens, On, Process, ProcessSetup, ReadModels, Step, With};
use serde::{Deserialize, Serialize};

use super::shop::{
    Fulfilment, FulfilmentEvent, Order, OrderEvent, Release, Shop, Stock, StockEvent, TIMEOUT,
};

pub(crate) async fn a_paid_order_is_shipped_and_its_process_finished() {
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

pub(crate) async fn a_deadline_is_reached_once_when_the_clock_says_so() {
    let shop = Shop::new().await;
    let db = shop.program().await;
    shop.happens::<Stock>("tea", StockEvent::Delivered).await;
    shop.placed("7").await;
    shop.until("fulfilment-7", "fulfilment.started").await;
    // Set again, it is reached later.
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

pub(crate) async fn a_deadline_passed_while_stopped_is_reached_after_restart() {
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

/// What deletes the stream of a process manager.
#[derive(Default)]
struct Stream;

impl Aggregate for Stream {
    type Event = FulfilmentEvent;

    fn apply(&mut self, _: &FulfilmentEvent) {}
}

pub(crate) async fn a_process_that_begins_anew_reaches_its_deadline() {
    let shop = Shop::new().await;
    let db = shop.program().await;
    let times = async |event_type: &str, times: usize| {
        let seen = async {
            let mut hint = shop.store.hint();
            loop {
                let told = shop.told("fulfilment-7").await;
                if told.iter().filter(|told| *told == event_type).count() == times {
                    return;
                }
                hint.wait(Duration::from_millis(20)).await;
            }
        };
        let seen = tokio::time::timeout(TIMEOUT, seen).await;
        seen.unwrap_or_else(|_| panic!("{event_type} does not come {times} times"));
    };
    shop.happens::<Stock>("tea", StockEvent::Delivered).await;
    for life in [1, 2] {
        shop.placed("7").await;
        times("$process.deadline_set", life).await;
        shop.clock.advance(TimeDelta::hours(1));
        times("$process.deadline_reached", life).await;
        if life == 1 {
            times("$process.finished", 1).await;
            db.aggregate::<Stream>("7").delete().await.unwrap();
        }
    }
    db.stop().await;
}

pub(crate) async fn a_command_that_is_refused_means_what_the_process_says() {
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
    let token = Token::new(shop.store.id()).with(Partition(0), head);
    let processes = db.process::<Fulfilment>();
    processes.wait_for(token, TIMEOUT).await.unwrap();
    let dead_letters = processes.dead_letters().all(None, 10).await.unwrap();
    assert_eq!(
        (&*dead_letters[0].key, dead_letters[0].reason.as_deref()),
        ("8", Some("a command was refused: the order is over"))
    );
    db.stop().await;
}

pub(crate) async fn what_a_process_does_is_caused_by_the_event() {
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

/// What is stored as `order.placed` is read by two types of one process.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "order", crate = "annals_core")]
enum Placement {
    Placed { sku: String },
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "audit", crate = "annals_core")]
enum AuditEvent {
    Ordered,
    Placed { sku: String },
}

#[derive(Default)]
struct Audit;

impl Process for Audit {
    const NAME: &'static str = "audit";
    type Event = AuditEvent;

    fn listens() -> Listens<Audit> {
        Listens::new().to::<OrderEvent>().to::<Placement>()
    }

    fn apply(&mut self, _: &AuditEvent) {}
}

impl On<OrderEvent> for Audit {
    fn on(&self, _: &Recorded<OrderEvent>) -> Vec<Step<Audit>> {
        vec![Step::emit(AuditEvent::Ordered)]
    }
}

impl On<Placement> for Audit {
    fn on(&self, event: &Recorded<Placement>) -> Vec<Step<Audit>> {
        let Placement::Placed { sku } = &**event;
        vec![
            Step::send::<Stock, _>(sku, Release),
            Step::emit(AuditEvent::Placed { sku: sku.clone() }),
        ]
    }
}

pub(crate) async fn two_reactions_of_a_process_to_one_event_take_effect() {
    let shop = Shop::new().await;
    let db = Annals::on(shop.store.handle()).with_clock(Arc::clone(&shop.clock) as _);
    let audits = ProcessSetup::<Audit>::new().from_the_beginning();
    let db = db.with(audits).start().await.unwrap();
    shop.placed("7").await;
    let head = shop.store.head(Partition(0)).await.unwrap().visible;
    let token = Token::new(shop.store.id()).with(Partition(0), head);
    db.process::<Audit>()
        .wait_for(token, TIMEOUT)
        .await
        .unwrap();
    assert_eq!(
        shop.told("audit-7").await,
        ["$process.handled", "audit.ordered", "audit.placed"]
    );
    assert_eq!(shop.told("stock").await, ["stock.released"]);
    db.stop().await;
}
