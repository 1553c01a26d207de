//! What moved on all accounts, day by day.

use std::io::{self, Write};
use std::ops::Bound;

use annals::chrono::NaiveDate;
use annals::prelude::*;
use annals::projections::ViewError;

use crate::account::AccountEvent;
use crate::money::Money;
use crate::views;

/// What moved on a day, over all accounts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "daily-volumes", version = 1, key = NaiveDate, events(AccountEvent))]
pub(crate) struct DailyVolume {
    pub(crate) transactions: u64,
    pub(crate) credits: Money,
    pub(crate) debits: Money,
}

impl Project<AccountEvent> for DailyVolume {
    fn keys(event: &Recorded<AccountEvent>) -> Result<Vec<NaiveDate>, Poison> {
        Ok(event
            .change()
            .map(|_| event.record.occurred_at.date_naive())
            .into_iter()
            .collect())
    }

    fn on(day: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        day.transactions += 1;
        day.credits += event.credit();
        day.debits += event.debit();
        Ok(())
    }
}

/// The days of a span on which something moved, oldest first. Both ends count; without an end it is
/// open.
pub(crate) async fn volumes(
    db: &Program,
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
) -> Result<Vec<(NaiveDate, DailyVolume)>, ViewError> {
    let head = views::head(db).await?;
    let days = (
        from.map_or(Bound::Unbounded, Bound::Included),
        to.map_or(Bound::Unbounded, Bound::Included),
    );
    let mut volumes = Vec::new();
    let rows = || {
        db.view::<DailyVolume>()
            .rows()
            .keys(days)
            .at_least(head.clone())
    };
    views::each_row(rows, |row| volumes.push((row.key, row.value))).await?;
    Ok(volumes)
}

/// Prints one line a day, and the sum of them.
pub(crate) fn print(volumes: &[(NaiveDate, DailyVolume)], out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:10}  {:>12}  {:>16}  {:>16}",
        "day", "transactions", "credits", "debits"
    )?;
    let mut total = DailyVolume::default();
    for (
        day,
        DailyVolume {
            transactions,
            credits,
            debits,
        },
    ) in volumes
    {
        writeln!(
            out,
            "{day}  {transactions:>12}  {credits:>16}  {debits:>16}"
        )?;
        total.transactions += transactions;
        total.credits += *credits;
        total.debits += *debits;
    }
    let DailyVolume {
        transactions,
        credits,
        debits,
    } = total;
    writeln!(out, "{:10}  {:->12}  {:->16}  {:->16}", "", "", "", "")?;
    writeln!(
        out,
        "{:10}  {transactions:>12}  {credits:>16}  {debits:>16}",
        "total"
    )
}
