//! The timeline of one account.

use std::io::Write;

use annals::prelude::*;

use crate::account::{Account, AccountEvent, Slip};
use crate::money::Money;

/// Prints what happened to the account, oldest first, with the balance after each event. Answers
/// whether anything has, and prints nothing when not.
pub(crate) async fn print(
    db: &Annals,
    account: &str,
    title: &str,
    out: &mut impl Write,
) -> Result<bool, Box<dyn std::error::Error>> {
    let account = db.aggregate::<Account>(account);
    let mut next = Some(Version::FIRST);
    let mut balance = Money::ZERO;
    let mut nothing_yet = true;
    while let Some(from) = next {
        let page = account.history().from(from).await?;
        for entry in page.entries {
            if nothing_yet {
                nothing_yet = false;
                writeln!(out, "{title}\n")?;
                writeln!(
                    out,
                    "{:>7}  {:10}  {:32}  {:>14}  {:>14}  recorded at",
                    "version", "date", "what", "amount", "balance"
                )?;
            }
            let record = &entry.record;
            let version = record.version.get();
            let date = record.occurred_at.format("%Y-%m-%d");
            let recorded_at = record.recorded_at.format("%Y-%m-%d %H:%M:%S%.3f UTC");
            match entry.events {
                Ok(events) => {
                    for event in events {
                        let change = event.change();
                        balance += change.unwrap_or_default();
                        let amount = change.map(|change| change.to_string()).unwrap_or_default();
                        let what = describe(&event);
                        writeln!(
                            out,
                            "{version:>7}  {date}  {what:32}  {amount:>14}  {balance:>14}  \
                             {recorded_at}"
                        )?;
                    }
                }
                // One that cannot be read is shown as such; the others still are.
                Err(error) => writeln!(out, "{version:>7}  {date}  {error}")?,
            }
        }
        next = page.next;
    }
    Ok(!nothing_yet)
}

fn describe(event: &AccountEvent) -> String {
    match event {
        AccountEvent::Opened { owner } => format!("opened by {owner}"),
        AccountEvent::Deposited { slip, .. } => with_slip("deposited", slip.as_ref()),
        AccountEvent::Withdrawn { slip, .. } => with_slip("withdrawn", slip.as_ref()),
        AccountEvent::Sent { to, .. } => format!("sent to {to}"),
        AccountEvent::Received { from, .. } => format!("received from {from}"),
        AccountEvent::Closed => "closed".to_owned(),
    }
}

/// With the bank's own words for it, where there are some.
fn with_slip(what: &str, slip: Option<&Slip>) -> String {
    let words = slip
        .into_iter()
        .flat_map(|slip| [&*slip.operation, &*slip.k_symbol]);
    let words: Vec<&str> = words
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect();
    if words.is_empty() {
        what.to_owned()
    } else {
        format!("{what} ({})", words.join(", "))
    }
}
