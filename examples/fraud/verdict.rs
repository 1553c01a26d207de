//! What is done about alerts: the worst verdict of a user is a view, blocking is a process, and
//! asking a service about a merchant is a reactor.

use annals::Store;
use annals::prelude::*;
use annals::projections::{Listens, On, Process, ReactError, Reactor, Request, Step};
use annals::store::{Append, NewEvent};
use chrono::TimeDelta;
use std::sync::Arc;

use crate::bank::{AlertEvent, CustomerEvent, MerchantEvent, PaymentEvent, Verdict};
use crate::rules::LOOKED_UP;

/// The worst verdict of a user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "verdicts", version = 1, events(AlertEvent))]
pub(crate) struct Worst {
    pub(crate) verdict: Verdict,
    pub(crate) alerts: u64,
}

impl Project<AlertEvent> for Worst {
    fn on(worst: &mut Row<'_, Self>, event: &Recorded<AlertEvent>) -> Result<(), Poison> {
        let AlertEvent::Raised { alert, .. } = &**event;
        worst.verdict = worst.verdict.max(alert.verdict());
        worst.alerts += 1;
        Ok(())
    }
}

/// A user, as far as it is decided here.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Customer {
    blocked: bool,
}

impl Aggregate for Customer {
    type Event = CustomerEvent;

    fn apply(&mut self, event: &CustomerEvent) {
        let CustomerEvent::Blocked { .. } = event;
        self.blocked = true;
    }
}

/// A command: nothing more is paid by this user.
#[derive(Debug)]
pub(crate) struct Block {
    because: String,
}

impl Handle<Block> for Customer {
    type Error = std::convert::Infallible;

    fn handle(&self, block: &Block) -> Result<impl IntoEvents<CustomerEvent>, Self::Error> {
        let because = block.because.clone();
        Ok((!self.blocked).then_some(CustomerEvent::Blocked { because }))
    }
}

/// Blocks who has a verdict that says so.
#[derive(Debug, Default)]
pub(crate) struct Blocking;

#[derive(Clone, Debug, Event, Serialize, Deserialize)]
#[event(category = "blocking")]
pub(crate) enum BlockingEvent {
    Asked,
}

impl Process for Blocking {
    const NAME: &'static str = "blocking";
    type Event = BlockingEvent;

    fn listens() -> Listens<Blocking> {
        Listens::new().to::<AlertEvent>()
    }

    fn apply(&mut self, _: &BlockingEvent) {}
}

impl On<AlertEvent> for Blocking {
    fn on(&self, event: &Recorded<AlertEvent>) -> Vec<Step<Blocking>> {
        let AlertEvent::Raised { user, alert } = &**event;
        if alert.verdict() < Verdict::Block {
            return Vec::new();
        }
        let because = alert.rule().to_owned();
        vec![
            Step::send::<Customer, _>(user, Block { because }),
            Step::emit(BlockingEvent::Asked),
        ]
    }
}

/// Asks who knows about a merchant, and writes down the answer: a rebuild reads it there and does
/// not ask again.
#[derive(Debug)]
pub(crate) struct AsksAboutMerchants(pub(crate) Arc<dyn Store>);

impl AsksAboutMerchants {
    /// Of four payments one gets no answer, and of the others some get a bad one.
    fn answer(payment: &str) -> Option<bool> {
        let number: u64 = payment.bytes().map(u64::from).sum();
        (!number.is_multiple_of(4)).then_some(!number.is_multiple_of(3))
    }
}

impl Reactor for AsksAboutMerchants {
    const NAME: &'static str = "merchants";
    type Event = PaymentEvent;

    async fn react(
        &self,
        event: &Recorded<PaymentEvent>,
        request: &Request,
    ) -> Result<(), ReactError> {
        let PaymentEvent::Paid(payment) = &**event;
        if payment.cents < LOOKED_UP {
            return Ok(());
        }
        let Some(trusted) = AsksAboutMerchants::answer(&payment.id) else {
            return Ok(());
        };
        let stream = StreamId::new(format!("merchant-{}", payment.id));
        let stream = stream.map_err(ReactError::permanent)?;
        let payment = payment.id.clone();
        let answered = MerchantEvent::Answered { payment, trusted };
        let answered = NewEvent::of(&answered).map_err(ReactError::permanent)?;
        let id = annals::EventId::derived(&stream, &request.idempotency_key(), 0);
        // The answer takes a while.
        let at = event.record.occurred_at + TimeDelta::seconds(2);
        let append = Append::new(stream, [answered.id(id).at(at)]);
        let appended = self.0.append(append).await;
        appended.map(drop).map_err(ReactError::retry)
    }
}
