//! What every account held: by the bank's own dates, and as far as it was known at a time.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Bound;

use annals::chrono::{DateTime, Utc};
use annals::prelude::*;
use annals::{Filter, ReplayError};

use crate::account::AccountEvent;
use crate::money::Money;

/// The moments that a question is about. Both are open ends of a span: what happened, and was recorded, no later than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AsOf {
    /// In the world, by the bank's dates.
    pub(crate) happened: Bound<DateTime<Utc>>,
    /// In the log.
    pub(crate) known: Bound<DateTime<Utc>>,
}

impl AsOf {
    pub(crate) const NOW: AsOf = AsOf { happened: Bound::Unbounded, known: Bound::Unbounded };
}

/// An account's name, in the order in which people expect it: numbers by their size, then the rest by the alphabet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AccountName {
    Number(u64, String),
    Text(String),
}

impl AccountName {
    pub(crate) fn new(name: &str) -> AccountName {
        match name.parse() {
            Ok(number) => AccountName::Number(number, name.to_owned()),
            Err(_) => AccountName::Text(name.to_owned()),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            AccountName::Number(_, name) | AccountName::Text(name) => name,
        }
    }
}

pub(crate) type Balances = BTreeMap<AccountName, Money>;

/// The balance of every account that had a transaction by then.
///
/// Answered by reading the log once, in pages: memory grows with the accounts, never with their transactions.
pub(crate) async fn balances(db: &Annals, as_of: AsOf) -> Result<Balances, ReplayError> {
    let by_then =
        Filter::default().occurred((Bound::Unbounded, as_of.happened)).recorded((Bound::Unbounded, as_of.known));
    let mut pages = db.events().filter(by_then).typed::<AccountEvent>();
    let mut balances = Balances::new();
    while let Some(page) = pages.next().await? {
        for event in page {
            if let Some(change) = event.change() {
                *balances.entry(AccountName::new(event.record.stream.id())).or_default() += change;
            }
        }
    }
    Ok(balances)
}

/// How balances are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Csv,
}

/// Prints one line an account.
pub(crate) fn print(balances: &Balances, format: Format, out: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Csv => {
            writeln!(out, "account,balance")?;
            for (account, balance) in balances {
                writeln!(out, "{},{balance}", csv_field(account.as_str()))?;
            }
        }
        Format::Table => {
            let total: Money = balances.values().copied().sum();
            let names = balances.keys().map(|account| account.as_str().chars().count());
            let (wide, total_name) = (names.max().unwrap_or(0).max(7), "total");
            writeln!(out, "{:>wide$}  {:>16}", "account", "balance")?;
            for (account, balance) in balances {
                writeln!(out, "{:>wide$}  {balance:>16}", account.as_str())?;
            }
            writeln!(out, "{:>wide$}  {:->16}", "", "")?;
            writeln!(out, "{total_name:>wide$}  {total:>16}")?;
        }
    }
    Ok(())
}

/// A name may hold what CSV means something by.
fn csv_field(text: &str) -> String {
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
