//! What every account held: by the bank's own dates, and as far as it was known at a time.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Bound;

use annals::Partition;
use annals::chrono::{DateTime, Datelike, NaiveDate, Utc};
use annals::prelude::*;

use crate::account::AccountEvent;
use crate::arguments::{by_time, day};
use crate::money::Money;
use crate::month::Month;
use crate::views;

/// By how much the balance of an account changed in a month, day by day.
///
/// A balance is the sum of what changed up to the day that is asked for, and the row's history
/// knows what had been recorded by when. So a slip that turns up late changes the row of its own
/// month, and no later one has to change. A row holds at most 31 days, and a question reads a row a
/// month instead of an event a transaction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "balances", version = 1, key = (Month, String), events(AccountEvent), history)]
pub(crate) struct BalanceChange {
    /// By the day of the month.
    pub(crate) days: BTreeMap<u32, Money>,
}

impl Project<AccountEvent> for BalanceChange {
    fn keys(event: &Recorded<AccountEvent>) -> Result<Vec<(Month, String)>, Poison> {
        Ok(changed(event).into_iter().collect())
    }

    fn on(change: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        add(&mut change.days, event);
        Ok(())
    }
}

/// By how much the balance of an account changed in a month, day by day: what
/// [`BalanceChange`] is, of a log whose partitions have no common
/// past: without a history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "current-balances", version = 1, key = (Month, String), events(AccountEvent))]
pub(crate) struct CurrentChange {
    pub(crate) days: BTreeMap<u32, Money>,
}

impl Project<AccountEvent> for CurrentChange {
    fn keys(event: &Recorded<AccountEvent>) -> Result<Vec<(Month, String)>, Poison> {
        Ok(changed(event).into_iter().collect())
    }

    fn on(change: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        add(&mut change.days, event);
        Ok(())
    }
}

/// The month and the account whose balance an event changes.
pub(crate) fn changed(event: &Recorded<AccountEvent>) -> Option<(Month, String)> {
    let month = Month::of(&event.record.occurred_at);
    let account = event.record.stream.id().to_owned();
    event.change().map(|_| (month, account))
}

/// Adds what an event changes to its day of the month.
pub(crate) fn add(days: &mut BTreeMap<u32, Money>, event: &Recorded<AccountEvent>) {
    if let Some(amount) = event.change() {
        *days.entry(event.record.occurred_at.day()).or_default() += amount;
    }
}

/// The moments that a question is about: what happened, and was recorded, no later than that.
/// Without them, it is about now.
#[derive(clap::Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AsOf {
    /// What had happened up to and including that day, by the bank's own dates (1993-06-30).
    #[arg(id = "as_of", long = "as-of", value_name = "DATE", value_parser = day)]
    pub(crate) happened: Option<NaiveDate>,
    /// What had been recorded by then: a day, or a time such as 2026-03-31T12:00:00Z.
    #[arg(id = "known_at", long = "known-at", value_name = "TIME", value_parser = by_time)]
    pub(crate) known: Option<DateTime<Utc>>,
}

impl AsOf {
    pub(crate) const NOW: AsOf = AsOf {
        happened: None,
        known: None,
    };
}

/// An account's name, as readers sort it: numbers by their size, then the rest
/// by the alphabet.
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
/// All of it is as of one position of the log, however many pages are read and whatever is recorded
/// meanwhile. Memory grows with the accounts, never with their months.
pub(crate) async fn balances(
    db: &Program,
    as_of: AsOf,
) -> Result<Balances, Box<dyn std::error::Error>> {
    if !views::has_one_past(db) {
        return current_balances(db, as_of).await;
    }
    let known = match as_of.known {
        Some(time) => {
            Moment::from(time)
                .resolve(&**db.store(), Partition(0))
                .await?
        }
        None => views::head(db).await?.position(Partition(0)),
    };
    let months = up_to(as_of.happened);
    let mut balances = Balances::new();
    let rows = || {
        db.view::<BalanceChange>()
            .rows()
            .keys(months.clone())
            .as_of(known)
    };
    views::each_row(rows, |row| {
        add_up(&mut balances, &row.key, &row.value.days, as_of.happened);
    })
    .await?;
    Ok(balances)
}

/// The same on a log of several partitions.
async fn current_balances(
    db: &Program,
    as_of: AsOf,
) -> Result<Balances, Box<dyn std::error::Error>> {
    if as_of.known.is_some() {
        return Err(
            "the accounts of this store have no common past: `history` shows when each \
            event of one account was recorded"
                .into(),
        );
    }
    let head = views::head(db).await?;
    let months = up_to(as_of.happened);
    let rows = || {
        db.view::<CurrentChange>()
            .rows()
            .keys(months.clone())
            .at_least(head.clone())
    };
    let mut balances = Balances::new();
    views::each_row(rows, |row| {
        add_up(&mut balances, &row.key, &row.value.days, as_of.happened);
    })
    .await?;
    Ok(balances)
}

/// A range of keys.
type Months = (Bound<(Month, String)>, Bound<(Month, String)>);

/// The keys of all months in which something happened by a day.
pub(crate) fn up_to(day: Option<NaiveDate>) -> Months {
    let end = day.map_or(Bound::Unbounded, |day| {
        Bound::Excluded((Month::of(&day).next(), String::new()))
    });
    (Bound::Unbounded, end)
}

/// Adds what one month changed by a day to the balance of its account.
pub(crate) fn add_up(
    balances: &mut Balances,
    (month, account): &(Month, String),
    days: &BTreeMap<u32, Money>,
    happened: Option<NaiveDate>,
) {
    let until = happened
        .filter(|day| Month::of(day) == *month)
        .map_or(31, |day| day.day());
    let mut changes = days.range(..=until).map(|(_, change)| *change).peekable();
    if changes.peek().is_some() {
        *balances.entry(AccountName::new(account)).or_default() += changes.sum();
    }
}

/// How balances are printed.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Csv,
}

/// Prints one line an account.
pub(crate) fn print(balances: &Balances, format: Format, out: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Csv => {
            let mut rows = csv::Writer::from_writer(out);
            rows.write_record(["account", "balance"])?;
            for (account, balance) in balances {
                rows.write_record([account.as_str(), &balance.to_string()])?;
            }
            rows.flush()?;
        }
        Format::Table => {
            let total: Money = balances.values().copied().sum();
            let names = balances
                .keys()
                .map(|account| account.as_str().chars().count());
            let wide = names.max().unwrap_or(0).max(7);
            let total_name = "total";
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
