//! Orders that are shipped when they are paid for, and cancelled when they are not paid within half
//! an hour: a process manager.
//!
//! `cargo run --example order` tells a short story in memory. The clock is held by hand, so that
//! half an hour takes no time.

#[path = "ended/mod.rs"]
mod ended;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use annals::prelude::*;
use annals::projections::ProcessHandle;
use annals::projections::{Listens, On, Process, ProcessSetup, Step};
use annals::{ManualClock, chrono::TimeDelta};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "order")]
enum OrderEvent {
    Placed { cents: i64 },
    Shipped,
    Cancelled { reason: String },
}

#[derive(Default)]
struct Order {
    over: bool,
}

impl Aggregate for Order {
    type Event = OrderEvent;

    fn apply(&mut self, event: &OrderEvent) {
        self.over |= !matches!(event, OrderEvent::Placed { .. });
    }
}

struct Ship;

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

struct Cancel {
    reason: String,
}

impl Handle<Cancel> for Order {
    type Error = String;

    fn handle(&self, Cancel { reason }: &Cancel) -> Result<impl IntoEvents<OrderEvent>, String> {
        if self.over {
            Err("the order is over".into())
        } else {
            Ok(OrderEvent::Cancelled {
                reason: reason.clone(),
            })
        }
    }
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "payment")]
enum PaymentEvent {
    Received { order: String, cents: i64 },
}

#[derive(Default)]
struct Payment;

impl Aggregate for Payment {
    type Event = PaymentEvent;

    fn apply(&mut self, _: &PaymentEvent) {}
}

/// What the process manager remembers.
#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "fulfilment")]
enum FulfilmentEvent {
    Expected { cents: i64 },
    Paid { cents: i64 },
}

/// One for each order, and of the same id.
#[derive(Default)]
struct Fulfilment {
    due: i64,
}

impl Process for Fulfilment {
    const NAME: &'static str = "fulfilment";
    type Event = FulfilmentEvent;

    fn listens() -> Listens<Fulfilment> {
        Listens::new().to::<OrderEvent>().to::<PaymentEvent>()
    }

    fn apply(&mut self, event: &FulfilmentEvent) {
        match event {
            FulfilmentEvent::Expected { cents } => self.due += cents,
            FulfilmentEvent::Paid { cents } => self.due -= cents,
        }
    }

    fn reached(&self, order: &str, _: &str) -> Vec<Step<Fulfilment>> {
        let reason = format!("{} cents were not paid in time", self.due);
        vec![
            Step::send::<Order, _>(order, Cancel { reason }),
            Step::finish(),
        ]
    }
}

impl On<OrderEvent> for Fulfilment {
    fn on(&self, event: &Recorded<OrderEvent>) -> Vec<Step<Fulfilment>> {
        let OrderEvent::Placed { cents } = **event else {
            return Vec::new();
        };
        let half_an_hour = event.record.occurred_at + TimeDelta::minutes(30);
        vec![
            Step::emit(FulfilmentEvent::Expected { cents }),
            Step::deadline("payment", half_an_hour),
        ]
    }
}

impl On<PaymentEvent> for Fulfilment {
    fn id(event: &Recorded<PaymentEvent>) -> Option<String> {
        let PaymentEvent::Received { order, .. } = &**event;
        Some(order.clone())
    }

    fn on(&self, event: &Recorded<PaymentEvent>) -> Vec<Step<Fulfilment>> {
        let PaymentEvent::Received { order, cents } = &**event;
        let paid = Step::emit(FulfilmentEvent::Paid { cents: *cents });
        match self.due - cents {
            ..=0 => vec![Step::send::<Order, _>(order, Ship), paid, Step::finish()],
            _ => vec![paid],
        }
    }
}

async fn tell(db: Annals, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let clock = Arc::new(ManualClock::default());
    let db = db.with_clock(Arc::clone(&clock) as _);
    let db = db
        .with(ProcessSetup::<Fulfilment>::new().poll(Duration::from_millis(5)))
        .start()
        .await?;
    let processes = db.process::<Fulfilment>();

    for order in ["1", "2"] {
        let placed = db
            .aggregate::<Order>(order)
            .run(|_| Ok::<_, String>(OrderEvent::Placed { cents: 2_000 }))
            .await?;
        processes.wait_for(&placed, TIMEOUT).await?;
    }
    pay(&db, &processes, "1", 2_000).await?;
    pay(&db, &processes, "2", 500).await?;
    for (deadline, at) in processes.deadlines("2").await? {
        writeln!(out, "order 2 waits for {deadline} until {at}")?;
    }
    clock.advance(TimeDelta::minutes(30));
    for order in ["1", "2"] {
        finished(&db, &processes, order).await?;
        writeln!(out, "order {order}:")?;
        for entry in db.aggregate::<Order>(order).history().await?.entries {
            for event in entry.events? {
                writeln!(out, "  {event:?}")?;
            }
        }
    }
    db.stop().await;
    Ok(())
}

const TIMEOUT: Duration = Duration::from_secs(10);

async fn pay(
    db: &Program,
    processes: &ProcessHandle<Fulfilment>,
    order: &str,
    cents: i64,
) -> Result<(), Box<dyn Error>> {
    let received = PaymentEvent::Received {
        order: order.into(),
        cents,
    };
    let done = db
        .aggregate::<Payment>(order)
        .run(|_| Ok::<_, String>(received.clone()))
        .await?;
    processes.wait_for(&done, TIMEOUT).await?;
    Ok(())
}

/// Returns when nothing is left to be done for an order.
async fn finished(
    db: &Program,
    processes: &ProcessHandle<Fulfilment>,
    order: &str,
) -> Result<(), Box<dyn Error>> {
    let mut hint = db.store().hint();
    while !processes.has_finished(order).await? {
        hint.wait(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut told = Vec::new();
    let outcome = tell(Annals::in_memory(), &mut told).await;
    let said = outcome.and_then(|()| Ok(io::stdout().write_all(&told)?));
    ended::ended("order", said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_paid_order_ships_and_an_unpaid_one_is_cancelled() {
        let expected = r#"order 2 waits for payment until 2026-01-01 00:30:00 UTC
order 1:
  Placed { cents: 2000 }
  Shipped
order 2:
  Placed { cents: 2000 }
  Cancelled { reason: "1500 cents were not paid in time" }
"#;
        for url in ["memory:", "sqlite::memory:"] {
            let mut told = Vec::new();
            tell(Annals::open(url).await.unwrap(), &mut told)
                .await
                .unwrap();
            assert_eq!(String::from_utf8(told).unwrap(), expected, "{url}");
        }
    }
}
