//! What moved on an account, month by month.

use std::io::{self, Write};
use std::ops::Bound;

use annals::prelude::*;
use annals::projections::ViewError;

use crate::account::AccountEvent;
use crate::money::Money;
use crate::month::Month;
use crate::views;

/// What moved on an account in a month, without what was there before.
///
/// Opening and closing balances are not kept: a slip that turns up late would have to change every
/// month after its own. They are summed up when a statement is asked for, over at most a row a
/// month.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, View)]
#[view(name = "monthly-statements", version = 1, key = (String, Month), events(AccountEvent))]
pub(crate) struct MonthlyStatement {
    pub(crate) credits: Money,
    pub(crate) debits: Money,
    pub(crate) transactions: u64,
}

impl Project<AccountEvent> for MonthlyStatement {
    fn keys(event: &Recorded<AccountEvent>) -> Result<Vec<(String, Month)>, Poison> {
        let key = event.change().map(|_| {
            (
                event.record.stream.id().to_owned(),
                Month::of(&event.record.occurred_at),
            )
        });
        Ok(key.into_iter().collect())
    }

    fn on(month: &mut Row<'_, Self>, event: &Recorded<AccountEvent>) -> Result<(), Poison> {
        month.credits += event.credit();
        month.debits += event.debit();
        month.transactions += 1;
        Ok(())
    }
}

/// A month of an account, with the balance before and after it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Statement {
    pub(crate) month: Month,
    pub(crate) opening: Money,
    pub(crate) moved: MonthlyStatement,
    pub(crate) closing: Money,
}

/// The statements of every month in which an account had a transaction, oldest first.
pub(crate) async fn statements(db: &Program, account: &str) -> Result<Vec<Statement>, ViewError> {
    up_to(db, account, None).await
}

/// The statement of one month; nothing when the account had no transaction by the end of it.
pub(crate) async fn statement(
    db: &Program,
    account: &str,
    month: Month,
) -> Result<Option<Statement>, ViewError> {
    Ok(up_to(db, account, Some(month))
        .await?
        .pop()
        .map(|last| match last.month == month {
            true => last,
            // A quiet month: it closes as it opened.
            false => Statement {
                month,
                opening: last.closing,
                moved: MonthlyStatement::default(),
                closing: last.closing,
            },
        }))
}

async fn up_to(
    db: &Program,
    account: &str,
    month: Option<Month>,
) -> Result<Vec<Statement>, ViewError> {
    let head = views::head(db).await?;
    let of = |month| (account.to_owned(), month);
    let last = month.unwrap_or_else(Month::last);
    let months = (
        Bound::Included(of(Month::first())),
        Bound::Included(of(last)),
    );
    let mut statements = Vec::new();
    let mut balance = Money::ZERO;
    let rows = || {
        db.view::<MonthlyStatement>()
            .rows()
            .keys(months.clone())
            .at_least(head.clone())
    };
    views::each_row(rows, |row| {
        let opening = balance;
        let moved = row.value;
        balance += moved.credits;
        balance += -moved.debits;
        statements.push(Statement {
            month: row.key.1,
            opening,
            moved,
            closing: balance,
        });
    })
    .await?;
    Ok(statements)
}

/// Prints one line a month.
pub(crate) fn print(statements: &[Statement], out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "{:7}  {:>14}  {:>14}  {:>14}  {:>14}  {:>12}",
        "month", "opening", "credits", "debits", "closing", "transactions"
    )?;
    for Statement {
        month,
        opening,
        moved:
            MonthlyStatement {
                credits,
                debits,
                transactions,
            },
        closing,
    } in statements
    {
        let month = month.to_string();
        writeln!(
            out,
            "{month:7}  {opening:>14}  {credits:>14}  {debits:>14}  {closing:>14}  \
             {transactions:>12}"
        )?;
    }
    Ok(())
}
