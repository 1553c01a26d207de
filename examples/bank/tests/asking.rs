//! What the read models answer, beside folds that know nothing of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::ops::Bound;

use annals::chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use annals::prelude::*;
use annals::{Filter, testing};
use indicatif::ProgressBar;

use super::importing::{EXCERPT, fresh};
use crate::account::{Account, AccountEvent, transfer};
use crate::balances::{AccountName, AsOf, BalanceChange, Balances, balances};
use crate::money::Money;
use crate::month::Month;
use crate::statements::{MonthlyStatement, statement, statements};
use crate::volume::{DailyVolume, volumes};
use crate::{store, views};

const MONTH_ENDS: [&str; 13] = [
    "1992-12-31",
    "1993-01-31",
    "1993-02-28",
    "1993-03-31",
    "1993-04-30",
    "1993-05-31",
    "1993-06-30",
    "1993-07-31",
    "1993-08-31",
    "1993-09-30",
    "1993-10-31",
    "1993-11-30",
    "1993-12-31",
];

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

/// The balances in one pass over the log.
async fn folded(db: &Annals, AsOf { happened, known }: AsOf) -> Balances {
    let happened = happened
        .and_then(|day| day.succ_opt())
        .map(|next| next.and_time(NaiveTime::MIN).and_utc())
        .map_or(Bound::Unbounded, Bound::Excluded);
    let known = known.map_or(Bound::Unbounded, Bound::Included);
    let by_then = Filter::default()
        .occurred((Bound::Unbounded, happened))
        .recorded((Bound::Unbounded, known));
    let mut pages = db.events().filter(by_then).typed::<AccountEvent>();
    let mut balances = Balances::new();
    while let Some(page) = pages.next().await.unwrap() {
        for event in page {
            if let Some(change) = event.change() {
                *balances
                    .entry(AccountName::new(event.record.stream.id()))
                    .or_default() += change;
            }
        }
    }
    balances
}

/// Every time at which something was recorded, oldest first.
async fn recorded_times(db: &Annals) -> BTreeSet<DateTime<Utc>> {
    let mut pages = db.events().pages();
    let mut times = BTreeSet::new();
    while let Some(page) = pages.next().await.unwrap() {
        times.extend(page.events.iter().map(|event| event.recorded_at));
    }
    times
}

#[tokio::test]
async fn balances_equal_one_pass_over_the_log_at_every_moment() {
    let bank = fresh().await;
    bank.import(EXCERPT).await;
    let times = recorded_times(&bank.db).await;
    let some: Vec<_> = times
        .iter()
        .step_by(times.len().div_ceil(12))
        .chain(times.last())
        .collect();
    let known = some.into_iter().map(|time| Some(*time)).chain([None]);
    for known in known {
        for happened in MONTH_ENDS
            .map(|end| Some(day(end)))
            .into_iter()
            .chain([None])
        {
            let as_of = AsOf { happened, known };
            assert_eq!(
                balances(&bank.db, as_of).await.unwrap(),
                folded(&bank.db, as_of).await,
                "{as_of:?}"
            );
        }
    }
}

#[tokio::test]
async fn what_no_program_followed_is_folded_before_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("bank.db").display());
    let alice = |db: &Annals| db.aggregate::<Account>("alice");
    let db = Annals::open(&url).await.unwrap();
    alice(&db)
        .create(|account| account.open("Alice"))
        .await
        .unwrap();
    alice(&db)
        .run(|account| account.deposit(Money::crowns(5)))
        .await
        .unwrap();
    drop(db);
    for crowns in [5, 12] {
        let db = views::up(
            store::open_existing(&url).await.unwrap(),
            None,
            &ProgressBar::hidden(),
        )
        .await
        .unwrap();
        let found = balances(&db, AsOf::NOW).await.unwrap();
        assert_eq!(
            found,
            BTreeMap::from([(AccountName::new("alice"), Money::crowns(crowns))])
        );
        db.stop().await;
        drop(db);
        let db = Annals::open(&url).await.unwrap();
        alice(&db)
            .run(|account| account.deposit(Money::crowns(7)))
            .await
            .unwrap();
    }
}

/// Credits, debits and number of the rows of the excerpt, by what `by` makes of a row's account and
/// date (YYMMDD).
fn moved<K: Ord>(by: impl Fn(&str, &str) -> K) -> BTreeMap<K, (Money, Money, u64)> {
    let mut moved: BTreeMap<K, (Money, Money, u64)> = BTreeMap::new();
    for row in std::fs::read_to_string(EXCERPT).unwrap().lines().skip(1) {
        let fields: Vec<&str> = row.split(';').collect();
        let amount: Money = fields[5].parse().unwrap();
        let (credits, debits, transactions) = moved.entry(by(fields[1], fields[2])).or_default();
        *(if fields[3] == "\"PRIJEM\"" {
            credits
        } else {
            debits
        }) += amount;
        *transactions += 1;
    }
    moved
}

#[tokio::test]
async fn statements_sum_the_rows_and_open_where_the_last_closed() {
    let bank = fresh().await;
    bank.import(EXCERPT).await;
    let rows = moved(|account, date| {
        (
            account.to_owned(),
            format!("19{}-{}", &date[..2], &date[2..4]),
        )
    });
    let mut found = BTreeMap::new();
    for account in ["47", "576", "704", "5442", "8564", "9188"] {
        let mut balance = Money::ZERO;
        for of_month in statements(&bank.db, account).await.unwrap() {
            let MonthlyStatement {
                credits,
                debits,
                transactions,
            } = of_month.moved;
            assert_eq!(of_month.opening, balance);
            balance += credits;
            balance += -debits;
            assert_eq!(of_month.closing, balance);
            assert_eq!(
                statement(&bank.db, account, of_month.month).await.unwrap(),
                Some(of_month.clone())
            );
            found.insert(
                (account.to_owned(), of_month.month.to_string()),
                (credits, debits, transactions),
            );
        }
        assert_eq!(
            balances(&bank.db, AsOf::NOW).await.unwrap()[&AccountName::new(account)],
            balance
        );
        for end in MONTH_ENDS {
            let closing = statement(&bank.db, account, Month::of(&day(end)))
                .await
                .unwrap();
            let then = balances(
                &bank.db,
                AsOf {
                    happened: Some(day(end)),
                    known: None,
                },
            )
            .await
            .unwrap();
            assert_eq!(
                closing.map(|of| of.closing).as_ref(),
                then.get(&AccountName::new(account)),
                "{account} {end}"
            );
        }
    }
    assert_eq!(found, rows);
}

#[tokio::test]
async fn volumes_are_the_sums_of_the_rows_of_each_day() {
    let bank = fresh().await;
    bank.import(EXCERPT).await;
    let rows = moved(|_, date| day(&format!("19{}-{}-{}", &date[..2], &date[2..4], &date[4..])));
    for (from, to) in [
        (None, None),
        (Some("1993-02-28"), None),
        (None, Some("1993-02-28")),
        (Some("1993-05-01"), Some("1993-05-31")),
    ] {
        let from = from.map(day);
        let to = to.map(day);
        let found: BTreeMap<_, _> = volumes(&bank.db, from, to)
            .await
            .unwrap()
            .into_iter()
            .collect();
        let mut expected = rows.clone();
        expected.retain(|day, _| {
            from.is_none_or(|from| from <= *day) && to.is_none_or(|to| *day <= to)
        });
        let found: BTreeMap<_, _> = found
            .into_iter()
            .map(
                |(
                    day,
                    DailyVolume {
                        transactions,
                        credits,
                        debits,
                    },
                )| (day, (credits, debits, transactions)),
            )
            .collect();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn rebuilt_read_models_have_the_same_rows() {
    let bank = fresh().await;
    bank.import(EXCERPT).await;
    let before = rows(&bank.db).await;
    let mut said = Vec::new();
    views::rebuild(&bank.db, &ProgressBar::hidden(), &mut said)
        .await
        .unwrap();
    assert_eq!(rows(&bank.db).await, before);
    let said = String::from_utf8(said).unwrap();
    // How long it took is another in every run.
    let said: Vec<_> = said
        .lines()
        .map(|line| {
            format!(
                "{} … {}",
                line.split_once(" in ").unwrap().0,
                line.split_once("). ").unwrap().1
            )
        })
        .collect();
    insta::assert_snapshot!(said.join("\n"));
}

/// A line for each row of each read model.
async fn rows(db: &Program) -> Vec<String> {
    let head = views::head(db).await.unwrap();
    let mut lines = Vec::new();
    let changes = || db.view::<BalanceChange>().rows().at_least(head.clone());
    views::each_row(changes, |row| {
        lines.push(format!(
            "balances            {} {:5}     {:?}",
            row.key.0, row.key.1, row.value
        ));
    })
    .await
    .unwrap();
    let months = || db.view::<MonthlyStatement>().rows().at_least(head.clone());
    views::each_row(months, |row| {
        lines.push(format!(
            "monthly-statements  {:5} {}     {:?}",
            row.key.0, row.key.1, row.value
        ));
    })
    .await
    .unwrap();
    let days = || db.view::<DailyVolume>().rows().at_least(head.clone());
    views::each_row(days, |row| {
        lines.push(format!(
            "daily-volumes       {}        {:?}",
            row.key, row.value
        ))
    })
    .await
    .unwrap();
    lines
}

/// A story, and what each part of it changed in the read models.
struct Told {
    db: Program,
    rows: Vec<String>,
    text: String,
}

impl Told {
    /// What was just recorded, and the rows that are new or other than before.
    async fn happened(&mut self, what: &str) {
        let rows = rows(&self.db).await;
        writeln!(self.text, "{what}").unwrap();
        for line in rows.iter().filter(|line| !self.rows.contains(line)) {
            writeln!(self.text, "  {line}").unwrap();
        }
        self.rows = rows;
    }
}

#[tokio::test]
async fn a_late_transaction_changes_its_own_day_and_month() {
    let db = views::up(testing::annals().clone(), None, &ProgressBar::hidden())
        .await
        .unwrap();
    let alice = db.aggregate::<Account>("alice");
    let bob = db.aggregate::<Account>("bob");
    let at = |text: &str| day(text).and_time(NaiveTime::MIN).and_utc();
    let mut told = Told {
        db: db.clone(),
        rows: Vec::new(),
        text: String::new(),
    };

    alice
        .create(|account| account.open("Alice"))
        .occurred_at(at("2026-01-05"))
        .await
        .unwrap();
    told.happened("5 January: Alice opens an account").await;
    bob.create(|account| account.open("Bob"))
        .occurred_at(at("2026-01-05"))
        .await
        .unwrap();
    told.happened("5 January: Bob opens an account").await;
    alice
        .run(|account| account.deposit(Money::crowns(1_200)))
        .occurred_at(at("2026-01-09"))
        .await
        .unwrap();
    told.happened("9 January: Alice deposits 1200").await;
    alice
        .run(|account| account.withdraw(Money::halers(19_950)))
        .occurred_at(at("2026-01-09"))
        .await
        .unwrap();
    told.happened("9 January: Alice withdraws 199.50").await;
    db.decide((Account::at("alice"), Account::at("bob")), |(from, to)| {
        transfer(("alice", from), ("bob", to), Money::crowns(450))
    })
    .occurred_at(at("2026-02-03"))
    .await
    .unwrap();
    told.happened("3 February: Alice sends Bob 450").await;
    let refused = bob
        .run(|account| account.withdraw(Money::crowns(800)))
        .occurred_at(at("2026-02-10"))
        .await;
    assert!(refused.is_err());
    told.happened("10 February: Bob asks for 800 and is refused")
        .await;
    alice
        .run(|account| account.deposit(Money::halers(5_050)))
        .occurred_at(at("2026-01-28"))
        .await
        .unwrap();
    told.happened("28 January, recorded after all that: Alice deposited 50.50")
        .await;
    insta::assert_snapshot!(told.text);
}
