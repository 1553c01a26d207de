//! A file of payments in, a file of alerts out: three rules, judged payment by payment in the order
//! of time.

use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use annals::pipeline::{Pipeline, Time};
use annals::prelude::*;
use annals::store::{Append, NewEvent, ReadLog};
use annals::{EventId, Store};
use chrono::{DateTime, Utc};

use crate::bank::{Payment, PaymentEvent};
use crate::rules::payments;

/// The time of a window, both ends included, in microseconds.
const WINDOW: i64 = 300_000_000;
const PAYMENTS_MAX: usize = 5;
const CENTS_MAX: i128 = 100_000;
const SPIKE_FROM: i64 = 5;
/// Rows of one append.
const APPEND: usize = 500;
const COLUMNS: [&str; 4] = ["id", "user", "at", "cents"];
const WAIT: Duration = Duration::from_secs(600);

/// A payment on which a rule fires.
#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
#[event(category = "judgement")]
pub(crate) enum JudgementEvent {
    Suspicious {
        payment: String,
        user: String,
        count: usize,
        cents: i128,
        rules: Vec<String>,
    },
}

/// What is known of a user: the payments of the last five minutes, and all before.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Known {
    recent: Vec<(i64, i64)>,
    payments: i64,
    cents: i128,
}

impl Known {
    fn judge(&mut self, at: i64, payment: &Payment) -> Option<JudgementEvent> {
        let cents = payment.cents;
        self.recent.retain(|(time, _)| *time >= at - WINDOW);
        self.recent.push((at, cents));
        self.payments += 1;
        self.cents += i128::from(cents);
        let count = self.recent.len();
        let recent = self.recent.iter().map(|(_, cents)| i128::from(*cents));
        let total: i128 = recent.sum();
        let times = i128::from(cents) * i128::from(self.payments);
        let rules = [
            (count > PAYMENTS_MAX, "velocity"),
            (total > CENTS_MAX, "total"),
            (
                self.payments >= SPIKE_FROM && times > 3 * self.cents,
                "spike",
            ),
        ];
        let fires = rules.into_iter().filter(|(fires, _)| *fires);
        let rules: Vec<_> = fires.map(|(_, rule)| rule.to_owned()).collect();
        (!rules.is_empty()).then(|| JudgementEvent::Suspicious {
            payment: payment.id.clone(),
            user: payment.user.clone(),
            count,
            cents: total,
            rules,
        })
    }
}

/// Judges each payment when no earlier one is expected.
pub(crate) fn judge() -> Pipeline {
    Pipeline::new("judge", 1, |log| {
        let forever = Duration::from_hours(24 * 365 * 100);
        payments(log)
            .in_time_order()
            .scan(forever, |known: &mut Known, payment| {
                known.judge(payment.at, payment)
            })
            .append(|user, judgement| (format!("judgement-{user}"), judgement.clone()))
            .from_the_beginning();
    })
}

/// Reads payments into a log. Rows that are there already are passed over, so that an import that
/// was stopped is simply begun again. A log that holds other payments is refused, and so is one
/// that was closed before all of these were in it: they would all be late.
pub(crate) async fn import(store: &dyn Store, file: &Path) -> Result<u64, Box<dyn Error>> {
    let name = file.display();
    let before = Before::of(store).await?;
    let other = |what: String| {
        format!("{name}: {what}; the store was filled from another file, so give this one its own")
    };
    let open = File::open(file).map_err(|error| format!("cannot open {name}: {error}"))?;
    let mut rows = csv::Reader::from_reader(BufReader::new(open));
    let header = rows
        .headers()
        .map_err(|error| format!("{name}: {error}"))?
        .clone();
    if let Some(unknown) = header.iter().find(|column| !COLUMNS.contains(column)) {
        let known = COLUMNS.join(", ");
        return Err(format!("{name}: unknown column `{unknown}`; known are {known}").into());
    }
    let column = |wanted: &str| {
        let mut named = header
            .iter()
            .enumerate()
            .filter(|(_, column)| *column == wanted);
        match (named.next(), named.next()) {
            (Some((at, _)), None) => Ok(at),
            (None, _) => Err(format!("{name}: there is no column `{wanted}`")),
            (Some(_), Some(_)) => Err(format!("{name}: there are two columns `{wanted}`")),
        }
    };
    let [id, user, at, cents] = COLUMNS.map(column);
    let (id, user, at, cents) = (id?, user?, at?, cents?);
    let mut append = Append::default();
    let mut count = 0;
    for row in rows.records() {
        let row = row.map_err(|error| format!("{name}: {error}"))?;
        let line = row.position().map_or(0, csv::Position::line);
        let number = |of: usize, what: &str| {
            let text = &row[of];
            let wrong =
                |_| format!("{name}, line {line}: `{text}` in column `{what}` is no integer");
            text.parse::<i64>().map_err(wrong)
        };
        let micros = number(at, "at")?;
        let Some(moment) = DateTime::<Utc>::from_timestamp_micros(micros) else {
            return Err(format!("{name}, line {line}: {micros} µs is no time").into());
        };
        if row[id].is_empty() || row[user].is_empty() {
            return Err(format!("{name}, line {line}: the id or the user is empty").into());
        }
        let payment = Payment {
            id: row[id].to_owned(),
            user: row[user].to_owned(),
            at: micros,
            cents: number(cents, "cents")?,
            country: String::new(),
        };
        match before.payments.get(count as usize) {
            Some(known) if *known == payment => {
                count += 1;
                continue;
            }
            Some(known) => {
                let known = &known.id;
                let what = format!("line {line} is not payment `{known}`, which the store holds");
                return Err(other(what).into());
            }
            None if before.closed => {
                return Err(other(format!("the store is done, without line {line}")).into());
            }
            None => {}
        }
        let payment = PaymentEvent::Paid(payment);
        let stream = StreamId::new(format!("payment-{}", &row[user]));
        let stream = stream.map_err(|error| format!("{name}, line {line}: {error}"))?;
        // By its line, because a payment may be delivered twice.
        let event_id = EventId::caused_by(&stream, &format!("line {line}"), 0);
        append = append.event(stream, NewEvent::of(&payment)?.id(event_id).at(moment));
        count += 1;
        if append.events.len() == APPEND {
            store.append(std::mem::take(&mut append)).await?;
        }
    }
    if !append.events.is_empty() {
        store.append(append).await?;
    }
    if (count as usize) < before.payments.len() {
        let held = before.payments.len();
        return Err(other(format!("{count} payments, and the store holds {held}")).into());
    }
    Ok(count)
}

/// What a log holds from a run before this one.
#[derive(Default)]
struct Before {
    payments: Vec<Payment>,
    /// Whether the end of time was said.
    closed: bool,
}

impl Before {
    async fn of(store: &dyn Store) -> Result<Before, Box<dyn Error>> {
        let mut before = Before::default();
        let mut read = ReadLog::after(Position::START);
        loop {
            let page = store.read(read.clone()).await?;
            for record in page.events {
                match record.stream.as_str() {
                    name if name.starts_with("$clock-") => before.closed = true,
                    name if name.starts_with("payment-") => {
                        let paid = Recorded::<PaymentEvent>::decode(record)?.into_iter();
                        before.payments.extend(paid.map(|of| {
                            let PaymentEvent::Paid(payment) = of.event;
                            payment
                        }));
                    }
                    _ => {}
                }
            }
            if page.end {
                return Ok(before);
            }
            read.after = page.scanned;
        }
    }
}

/// Waits until every payment was judged.
pub(crate) async fn judged(db: &Program) -> Result<(), Box<dyn Error>> {
    let done = db.advance_clock(Time::MAX).await?;
    let pipeline = db
        .pipeline("judge")
        .ok_or("the program has no pipeline `judge`")?;
    pipeline.wait_until_sent(done, WAIT).await?;
    Ok(())
}

/// Writes all alerts of a log, in its order.
pub(crate) async fn export(store: &dyn Store, file: &Path) -> Result<u64, Box<dyn Error>> {
    let name = file.display();
    let cannot = |error: &dyn std::fmt::Display| format!("cannot write {name}: {error}");
    let open = File::create(file).map_err(|error| cannot(&error))?;
    let mut rows = csv::Writer::from_writer(open);
    let head = ["id", "user", "count_5m", "cents_5m", "rules"];
    rows.write_record(head).map_err(|error| cannot(&error))?;
    let mut count = 0;
    for judgement in judgements(store).await? {
        let JudgementEvent::Suspicious {
            payment,
            user,
            count: payments,
            cents,
            rules,
        } = judgement;
        let row = [
            payment,
            user,
            payments.to_string(),
            cents.to_string(),
            rules.join("+"),
        ];
        rows.write_record(row).map_err(|error| cannot(&error))?;
        count += 1;
    }
    rows.flush().map_err(|error| cannot(&error))?;
    Ok(count)
}

async fn judgements(store: &dyn Store) -> Result<Vec<JudgementEvent>, Box<dyn Error>> {
    let mut found = Vec::new();
    let mut read = ReadLog::after(Position::START);
    loop {
        let page = store.read(read.clone()).await?;
        let ours = page.events.into_iter();
        for record in ours.filter(|of| of.stream.as_str().starts_with("judgement-")) {
            let decoded = Recorded::<JudgementEvent>::decode(record)?;
            found.extend(decoded.into_iter().map(|of| of.event));
        }
        if page.end {
            return Ok(found);
        }
        read.after = page.scanned;
    }
}
