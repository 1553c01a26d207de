//! The pipeline: eight rules over payments and log-ins, one stream of alerts.

use std::collections::BTreeSet;
use std::time::Duration;

use annals::pipeline::{Fold, Keyed, Log, Pattern, Pipeline, Stream, Within};
use annals::prelude::*;

use crate::bank::{Alert, AlertEvent, LoginEvent, MerchantEvent, Payment, PaymentEvent};

/// How late a payment may become known.
pub(crate) const OUT_OF_ORDER_BY: Duration = Duration::from_secs(20);
/// How long a delivery is recognised as one that was there before.
pub(crate) const REMEMBERED_FOR: Duration = Duration::from_hours(24);
const WINDOW: Duration = Duration::from_mins(5);
const SESSION: Duration = Duration::from_hours(1);
/// One payment, and the payments of a window, in cents.
const LIMIT: i64 = 100_000;
/// How many payments in a window are many, and very many.
const MANY: usize = 4;
const VERY_MANY: usize = 6;
/// A payment is a spike from so many payments before it on.
const SPIKE_AFTER: i64 = 5;
/// From here on the merchant is looked up, and how long its answer may take.
pub(crate) const LOOKED_UP: i64 = 50_000;
const ANSWER: Duration = Duration::from_mins(1);

/// The payments of a window.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Total(i64);

impl Fold<Payment> for Total {
    fn add(&mut self, payment: &Payment) {
        self.0 += payment.cents;
    }

    fn merge(&mut self, other: Total) {
        self.0 += other.0;
    }
}

/// The countries of a session.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Countries(BTreeSet<String>);

impl Fold<Payment> for Countries {
    fn add(&mut self, payment: &Payment) {
        self.0.insert(payment.country.clone());
    }

    fn merge(&mut self, other: Countries) {
        self.0.extend(other.0);
    }
}

/// The payments of a user so far.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Before {
    payments: i64,
    cents: i64,
}

/// Something that a user did.
#[derive(Clone, Serialize, Deserialize)]
enum Act {
    LoggedIn { country: String },
    Paid { country: String },
}

/// Payments as they become known.
fn delivered(log: &Log) -> Stream<Payment> {
    let events = log.events::<PaymentEvent>();
    events.out_of_order_by(OUT_OF_ORDER_BY).map(|event| {
        let PaymentEvent::Paid(payment) = &**event;
        payment.clone()
    })
}

/// Payments by user, each delivery once.
pub(crate) fn payments(log: &Log) -> Keyed<String, Payment> {
    let by_user = delivered(log).key_by(|payment| payment.user.clone());
    by_user.distinct_by(|payment| payment.id.clone(), REMEMBERED_FOR)
}

/// All rules.
pub(crate) fn fraud() -> Pipeline {
    Pipeline::new("fraud", 1, |log| {
        let paid = payments(log);
        let times = |n| Pattern::times(n, |_: &Payment| true).within(WINDOW);
        let many = paid.detect(times(MANY)).map(|_, found| Alert::Many {
            payments: found.len(),
        });
        let very_many = paid
            .detect(times(VERY_MANY))
            .map(|_, found| Alert::VeryMany {
                payments: found.len(),
            });
        let high = paid
            .filter(|payment| payment.cents > LIMIT)
            .map(|_, payment| Alert::High {
                payment: payment.id.clone(),
                cents: payment.cents,
            });
        let total = paid
            .tumbling(WINDOW)
            .folded::<Total>()
            .as_soon_as(|total| total.0 > LIMIT)
            .map(|_, window| Alert::Total {
                cents: window.value.0,
            });
        let countries = paid
            .sessions(SESSION)
            .folded::<Countries>()
            .as_soon_as(|countries| countries.0.len() > 1)
            .map(|_, session| Alert::Countries {
                found: session.value.0.iter().cloned().collect(),
            });
        let rules = [
            very_many,
            high,
            total,
            countries,
            spike(&paid),
            apart(log, &paid),
        ];
        let rules = rules.iter().fold(many, |all, rule| all.merge(rule));
        rules.append(raised);
        merchant(log).append(|_, (user, alert)| raised(user, alert));
    })
}

fn raised(user: &String, alert: &Alert) -> (String, AlertEvent) {
    let stream = format!("alert-{user}");
    let user = user.clone();
    let alert = alert.clone();
    (stream, AlertEvent::Raised { user, alert })
}

/// A payment of more than three times the mean of those before it.
fn spike(paid: &Keyed<String, Payment>) -> Keyed<String, Alert> {
    let month = Duration::from_hours(30 * 24);
    paid.in_time_order()
        .scan(month, |before: &mut Before, payment| {
            let Before { payments, cents } = *before;
            before.payments += 1;
            before.cents += payment.cents;
            let is_spike = payments >= SPIKE_AFTER && payment.cents * payments > 3 * cents;
            is_spike.then(|| Alert::Spike {
                payment: payment.id.clone(),
                cents: payment.cents,
                mean: cents / payments,
            })
        })
}

/// A log-in, and a payment from another country.
fn apart(log: &Log, paid: &Keyed<String, Payment>) -> Keyed<String, Alert> {
    let logins = log.events::<LoginEvent>().out_of_order_by(OUT_OF_ORDER_BY);
    let logins = logins
        .map(|event| {
            let LoginEvent::LoggedIn { user, country } = &**event;
            (user.clone(), country.clone())
        })
        .key_by(|(user, _)| user.clone())
        .map(|_, (_, country)| Act::LoggedIn {
            country: country.clone(),
        });
    let paid = paid.map(|_, payment| Act::Paid {
        country: payment.country.clone(),
    });
    let elsewhere = Pattern::first(|act| matches!(act, Act::LoggedIn { .. }))
        .then(|before, act| match (&before[0], act) {
            (Act::LoggedIn { country: login }, Act::Paid { country }) => login != country,
            _ => false,
        })
        .within(WINDOW);
    logins
        .merge(&paid)
        .detect(elsewhere)
        .filter_map(|_, found| match &found[..] {
            [Act::LoggedIn { country: login }, Act::Paid { country }] => Some(Alert::Apart {
                login: login.clone(),
                payment: country.clone(),
            }),
            _ => None,
        })
}

/// A large payment whose merchant is not trusted; who does not answer in time is not.
///
/// Payments meet answers by the id of the payment: that is another key, so it is taken from the
/// log again.
fn merchant(log: &Log) -> Keyed<String, (String, Alert)> {
    let large = delivered(log).filter(|payment| payment.cents >= LOOKED_UP);
    let large = large
        .key_by(|payment| payment.id.clone())
        .distinct_by(|payment| payment.id.clone(), REMEMBERED_FOR);
    let answers = log.events::<MerchantEvent>();
    let answers = answers
        .out_of_order_by(OUT_OF_ORDER_BY)
        .map(|event| {
            let MerchantEvent::Answered { payment, trusted } = &**event;
            (payment.clone(), *trusted)
        })
        .key_by(|(payment, _)| payment.clone())
        .map(|_, (_, trusted)| *trusted);
    large
        .left_join(&answers, Within::after(ANSWER), |payment, trusted| {
            (payment.clone(), trusted.copied())
        })
        .filter_map(|_, (payment, trusted)| {
            let alert = Alert::Merchant {
                payment: payment.id.clone(),
                answered: trusted.is_some(),
            };
            (*trusted != Some(true)).then(|| (payment.user.clone(), alert))
        })
}
