//! A short story: what happened, what the balances were then, and what they are now.

use std::error::Error;
use std::io::Write;

use annals::CommandError;
use annals::chrono::{DateTime, NaiveDate, Utc};
use annals::prelude::*;

use crate::account::{Account, AccountError, transfer};
use crate::balances::{AsOf, balances};
use crate::money::Money;

/// Tells it on a store where nothing has happened yet.
pub(crate) async fn tell(db: &Program, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let alice = db.aggregate::<Account>("alice");
    let bob = db.aggregate::<Account>("bob");

    writeln!(out, "In January, Alice and Bob open accounts.\n")?;
    // A command looks at the account and returns what happens. It is recorded under the version
    // that was looked at, so whatever else happens meanwhile, the decision was right.
    alice
        .create(|account| account.open("Alice"))
        .occurred_at(day(1, 5))
        .await?;
    bob.create(|account| account.open("Bob"))
        .occurred_at(day(1, 5))
        .await?;
    alice
        .run(|account| account.deposit(Money::crowns(1_200)))
        .occurred_at(day(1, 9))
        .await?;
    bob.run(|account| account.deposit(Money::crowns(300)))
        .occurred_at(day(1, 12))
        .await?;
    let withdrawn = alice
        .run(|account| account.withdraw(Money::halers(19_950)))
        .occurred_at(day(1, 20))
        .await?;
    writeln!(out, "  9 January   Alice deposits              1200.00")?;
    writeln!(out, " 12 January   Bob deposits                 300.00")?;
    writeln!(out, " 20 January   Alice withdraws              199.50")?;
    // The log as it is now, to come back to.
    let first_look = position(&withdrawn);

    writeln!(out, "\nIn February, money moves between them.\n")?;
    // One decision over two accounts: both halves are recorded, or neither is.
    db.decide((Account::at("alice"), Account::at("bob")), |(from, to)| {
        transfer(("alice", from), ("bob", to), Money::crowns(450))
    })
    .occurred_at(day(2, 3))
    .await?;
    writeln!(out, "  3 February  Alice sends Bob              450.00")?;

    let refused = bob
        .run(|account| account.withdraw(Money::crowns(800)))
        .occurred_at(day(2, 10))
        .await;
    // A refusal is the domain's own type, apart from what can go wrong with a store. It leaves no
    // trace.
    match refused {
        Err(CommandError::Refused(AccountError::Overdraft { balance, amount })) => {
            writeln!(
                out,
                " 10 February  Bob asks for                 {amount}   refused: he has {balance}"
            )?;
        }
        other => return Err(format!("an overdraft is refused, but: {other:?}").into()),
    }

    // The same request twice is one deposit: the key says that it is the same.
    for attempt in 1..=2 {
        let done = bob
            .run(|account| account.deposit(Money::crowns(75)))
            .idempotency_key("slip-17")
            .occurred_at(day(2, 14));
        let what = if done.await?.was_repeated() {
            "nothing new: it was done before"
        } else {
            "done"
        };
        writeln!(
            out,
            " 14 February  Bob deposits slip 17          75.00   attempt {attempt}: {what}"
        )?;
    }

    writeln!(out, "\nThen a slip turns up that was lost in January.\n")?;
    alice
        .run(|account| account.deposit(Money::halers(5_050)))
        .occurred_at(day(1, 28))
        .await?;
    writeln!(
        out,
        " 28 January   Alice deposited               50.50   recorded last"
    )?;

    writeln!(out, "\nIn March, Alice moves abroad.\n")?;
    if let Err(refused) = alice.run(Account::close).occurred_at(day(3, 2)).await {
        writeln!(
            out,
            "  2 March     Alice closes her account              refused: {refused}"
        )?;
    }
    // The amount is decided inside too: all that there is when the transfer is recorded, not what
    // there was a moment before.
    db.decide((Account::at("alice"), Account::at("bob")), |(from, to)| {
        transfer(("alice", from), ("bob", to), from.balance)
    })
    .occurred_at(day(3, 3))
    .await?;
    alice.run(Account::close).occurred_at(day(3, 3)).await?;
    writeln!(out, "  3 March     Alice sends Bob the rest     601.00")?;
    writeln!(out, "  3 March     Alice closes her account")?;

    writeln!(out, "\nWhat the balances were, and are:\n")?;
    writeln!(out, "{:38}  {:>9}  {:>9}", "", "alice", "bob")?;
    let mut line =
        |what: &str, [alice, bob]: [Money; 2]| writeln!(out, "{what:38}  {alice:>9}  {bob:>9}");
    let believed = [
        alice.load().as_of(first_look).await?.balance,
        bob.load().as_of(first_look).await?.balance,
    ];
    line("end of January, as it was known then", believed)?;
    for (what, last) in [
        ("end of January, as it is known now", day(1, 31)),
        ("end of February", day(2, 28)),
    ] {
        let then = balances(
            db,
            AsOf {
                happened: Some(last.date_naive()),
                ..AsOf::NOW
            },
        )
        .await?;
        line(what, in_order(then.values()))?;
    }
    line("now", in_order(balances(db, AsOf::NOW).await?.values()))?;
    Ok(())
}

fn in_order<'a>(mut amounts: impl Iterator<Item = &'a Money>) -> [Money; 2] {
    std::array::from_fn(|_| amounts.next().copied().unwrap_or_default())
}

fn position(done: &Committed) -> Position {
    done.events()
        .last()
        .map_or(Position::START, |event| event.position)
}

/// A day of the year in which this happens.
fn day(month: u32, day: u32) -> DateTime<Utc> {
    let date = NaiveDate::from_ymd_opt(2026, month, day)
        .expect("the story happens on days that there are");
    date.and_time(annals::chrono::NaiveTime::MIN).and_utc()
}
