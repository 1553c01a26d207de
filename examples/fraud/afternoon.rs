//! An afternoon at the bank: made up, the same each time, and not in order.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use annals::pipeline::Time;
use annals::prelude::*;
use annals::projections::{Options, ProcessSetup, ReactorSetup, StartError};
use annals::store::{Append, NewEvent, ReadLog};
use annals::{MemoryStore, Store};
use chrono::{DateTime, TimeDelta, Utc};

use crate::bank::{AlertEvent, CustomerEvent, LoginEvent, Payment, PaymentEvent, Verdict};
use crate::rules::fraud;
use crate::verdict::{AsksAboutMerchants, Blocking, Worst};

const WAIT: Duration = Duration::from_secs(60);
/// Users who do nothing special, and how many payments they make.
const USERS: u64 = 40;
const PAYMENTS: u64 = 1_200;
const COUNTRIES: [&str; 3] = ["DE", "FR", "PL"];
/// Deliveries of one append.
const APPEND: usize = 60;

/// Something that becomes known at a moment.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    known: DateTime<Utc>,
    at: DateTime<Utc>,
    event: Happened,
}

#[derive(Clone, Debug)]
enum Happened {
    Paid(Payment),
    LoggedIn { user: String, country: String },
}

/// Numbers that are the same each time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn noon() -> DateTime<Utc> {
    DateTime::from_timestamp(1_774_958_400, 0).unwrap_or_default()
}

/// Everything in the order in which it becomes known: up to 20 s late, each tenth payment twice.
pub(crate) fn deliveries() -> Vec<Delivery> {
    let mut draw = Draw(11);
    let mut happened = Vec::new();
    for number in 0..PAYMENTS {
        let user = draw.below(USERS);
        let at = noon() + TimeDelta::milliseconds((number * 9_000 + draw.below(9_000)) as i64);
        let country = COUNTRIES[(user % 3) as usize];
        let cents = 500 + draw.below(8_000) as i64;
        happened.push((
            at,
            paid(
                format!("p{number}"),
                format!("user-{user:02}"),
                cents,
                country,
            ),
        ));
    }
    special(&mut happened);
    let mut deliveries = Vec::new();
    for (at, event) in happened {
        let mut deliver = |draw: &mut Draw| {
            let known = at + TimeDelta::milliseconds(draw.below(19_000) as i64);
            let event = event.clone();
            deliveries.push(Delivery { known, at, event });
        };
        deliver(&mut draw);
        if draw.below(10) == 0 {
            deliver(&mut draw);
        }
    }
    deliveries.sort_by_key(|of| of.known);
    deliveries
}

fn paid(id: String, user: String, cents: i64, country: &str) -> Happened {
    Happened::Paid(Payment {
        id,
        user,
        at: 0,
        cents,
        country: country.to_owned(),
    })
}

/// Those who do something that a rule is about.
fn special(happened: &mut Vec<(DateTime<Utc>, Happened)>) {
    let mut at = |second: i64, event| happened.push((noon() + TimeDelta::seconds(second), event));
    // Seven payments in a minute and a half.
    for number in 0..7 {
        at(
            600 + 15 * number,
            paid(format!("fast-{number}"), "eve".into(), 900, "DE"),
        );
    }
    // A large one, and several that are large together.
    at(1_800, paid("large".into(), "mallory".into(), 150_000, "FR"));
    for number in 0..3 {
        at(
            3_600 + number,
            paid(format!("sum-{number}"), "oscar".into(), 40_000, "PL"),
        );
    }
    // Two countries within an hour.
    at(4_000, paid("here".into(), "trudy".into(), 2_000, "DE"));
    at(5_000, paid("there".into(), "trudy".into(), 2_000, "FR"));
    // The sixth is much larger than the five before it.
    for number in 0..6 {
        let cents = if number == 5 { 30_000 } else { 1_000 };
        at(
            2_000 + 1_000 * number,
            paid(format!("slow-{number}"), "walter".into(), cents, "PL"),
        );
    }
    // Logged in at home, and paid abroad.
    let country = "DE".into();
    at(
        7_000,
        Happened::LoggedIn {
            user: "peggy".into(),
            country,
        },
    );
    at(7_120, paid("abroad".into(), "peggy".into(), 3_000, "FR"));
    // Large enough for the merchant to be looked up.
    for number in 0..8 {
        at(
            8_000 + 30 * number,
            paid(format!("shop-{number}"), format!("v{number}"), 60_000, "DE"),
        );
    }
}

impl Delivery {
    pub(crate) fn event(&self) -> Result<(StreamId, NewEvent), Box<dyn Error>> {
        let (stream, event) = match &self.event {
            Happened::Paid(payment) => {
                let at = self.at.timestamp_micros();
                let stream = StreamId::new(format!("payment-{}", payment.user))?;
                let payment = Payment {
                    at,
                    ..payment.clone()
                };
                (stream, NewEvent::of(&PaymentEvent::Paid(payment))?)
            }
            Happened::LoggedIn { user, country } => {
                let stream = StreamId::new(format!("login-{user}"))?;
                let user = user.clone();
                let country = country.clone();
                (
                    stream,
                    NewEvent::of(&LoginEvent::LoggedIn { user, country })?,
                )
            }
        };
        Ok((stream, event.at(self.at)))
    }
}

/// What an afternoon came to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// How often each rule fired.
    pub(crate) rules: BTreeMap<&'static str, usize>,
    /// The users of each verdict.
    pub(crate) verdicts: BTreeMap<Verdict, Vec<String>>,
    /// Who was blocked.
    pub(crate) blocked: Vec<String>,
}

/// The program: the pipeline, the worst verdicts, who asks about merchants, and who blocks.
pub(crate) async fn program(
    store: Arc<dyn Store>,
    options: Options,
    slots: u16,
) -> Result<Program, StartError> {
    let asks = ReactorSetup::of(AsksAboutMerchants(Arc::clone(&store)));
    let blocks = ProcessSetup::<Blocking>::new();
    let db = Annals::on(store)
        .with(fraud().options(options.clone()).slots(slots))
        .with(Worst::projection().options(options.clone()))
        .with(asks.poll(options.poll).lease(options.lease))
        .with(blocks.poll(options.poll).lease(options.lease));
    db.start().await
}

/// Runs the afternoon, and gives every alert as it is appended.
pub(crate) async fn run(
    store: Arc<dyn Store>,
    slots: u16,
    mut print: impl FnMut(&Recorded<AlertEvent>),
) -> Result<Outcome, Box<dyn Error>> {
    let options = Options::default().poll(Duration::from_millis(20));
    let db = program(store, options, slots).await?;
    let pipeline = db
        .pipeline("fraud")
        .ok_or("the program has no pipeline `fraud`")?;
    let mut printed = Position::START;
    let mut outcome = Outcome::default();
    let deliveries = deliveries();
    for batch in deliveries.chunks(APPEND) {
        let mut append = Append::default();
        for delivery in batch {
            let (stream, event) = delivery.event()?;
            append = append.event(stream, event);
        }
        let last = db.store().append(append).await?.last().position;
        let done = Token::new(db.store().id()).with(annals::Partition(0), last);
        // The merchants are asked before time goes on.
        db.reactor::<AsksAboutMerchants>()
            .wait_for(done.clone(), WAIT)
            .await?;
        pipeline.wait_until_sent(done, WAIT).await?;
        take_alerts(&db, &mut printed, &mut outcome, &mut print).await?;
    }
    let end = db.advance_clock(Time::MAX).await?;
    pipeline.wait_until_sent(end, WAIT).await?;
    take_alerts(&db, &mut printed, &mut outcome, &mut print).await?;
    (outcome.verdicts, outcome.blocked) = decided(&db).await?;
    db.stop().await;
    Ok(outcome)
}

type Decided = (BTreeMap<Verdict, Vec<String>>, Vec<String>);

/// The users of each verdict and who was blocked, once everything in the log was seen.
pub(crate) async fn decided(db: &Program) -> Result<Decided, Box<dyn Error>> {
    let head = db.store().head(annals::Partition(0)).await?.visible;
    let all = Token::new(db.store().id()).with(annals::Partition(0), head);
    let rows = db.view::<Worst>().rows().at_least(all.clone()).within(WAIT);
    let mut verdicts: BTreeMap<Verdict, Vec<String>> = BTreeMap::new();
    for row in rows.await?.rows {
        verdicts.entry(row.value.verdict).or_default().push(row.key);
    }
    db.process::<Blocking>().wait_for(all, WAIT).await?;
    Ok((verdicts, blocked(&**db.store()).await?))
}

/// The alerts after a position.
async fn take_alerts(
    db: &Program,
    after: &mut Position,
    outcome: &mut Outcome,
    print: &mut impl FnMut(&Recorded<AlertEvent>),
) -> Result<(), Box<dyn Error>> {
    loop {
        let page = db.store().read(ReadLog::after(*after)).await?;
        *after = page.scanned;
        let alerts = page.events.into_iter();
        for record in alerts.filter(|of| of.stream.as_str().starts_with("alert-")) {
            for alert in Recorded::<AlertEvent>::decode(record)? {
                let AlertEvent::Raised { alert: of, .. } = &*alert;
                *outcome.rules.entry(of.rule()).or_default() += 1;
                print(&alert);
            }
        }
        if page.end {
            return Ok(());
        }
    }
}

async fn blocked(store: &dyn Store) -> Result<Vec<String>, Box<dyn Error>> {
    let mut blocked = Vec::new();
    let mut read = ReadLog::after(Position::START);
    loop {
        let page = store.read(read.clone()).await?;
        let ours = page.events.into_iter();
        for record in ours.filter(|of| of.stream.as_str().starts_with("customer-")) {
            let user = record.stream.id().to_owned();
            for event in Recorded::<CustomerEvent>::decode(record)? {
                let CustomerEvent::Blocked { .. } = &*event;
                blocked.push(user.clone());
            }
        }
        if page.end {
            blocked.sort();
            return Ok(blocked);
        }
        read.after = page.scanned;
    }
}

/// Prints the afternoon.
pub(crate) async fn tell(slots: u16, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let mut written = Ok(());
    let outcome = run(Arc::new(MemoryStore::new()), slots, |event| {
        let AlertEvent::Raised { user, alert } = &**event;
        let at = event.record.occurred_at.format("%H:%M:%S");
        if written.is_ok() {
            written = writeln!(out, "{at} {user:<8} {:<19} {alert:?}", alert.rule());
        }
    })
    .await?;
    written?;
    let all: usize = outcome.rules.values().sum();
    writeln!(out, "\n{all} alerts")?;
    for (rule, count) in &outcome.rules {
        writeln!(out, "{count:>5} {rule}")?;
    }
    for (verdict, users) in &outcome.verdicts {
        writeln!(out, "{verdict:?}: {}", users.join(", "))?;
    }
    writeln!(out, "blocked: {}", outcome.blocked.join(", "))?;
    Ok(())
}
