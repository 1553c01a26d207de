//! What the read models answer, beside folds that know nothing of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use annals::Filter;
use annals::chrono::{DateTime, Utc};
use annals::prelude::*;
use indicatif::ProgressBar;

use super::importing::{EXCERPT, fresh};
use crate::account::{Account, AccountEvent};
use crate::balances::{AccountName, AsOf, Balances, balances};
use crate::calendar::Day;
use crate::money::Money;
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

fn day(text: &str) -> Day {
    text.parse().unwrap()
}

/// The balances in one pass over the log.
async fn folded(db: &Annals, AsOf { happened, known }: AsOf) -> Balances {
    let happened = happened.and_then(Day::next).map_or(Bound::Unbounded, |next| Bound::Excluded(next.start()));
    let known = known.map_or(Bound::Unbounded, Bound::Included);
    let by_then = Filter::default().occurred((Bound::Unbounded, happened)).recorded((Bound::Unbounded, known));
    let mut pages = db.events().filter(by_then).typed::<AccountEvent>();
    let mut balances = Balances::new();
    while let Some(page) = pages.next().await.unwrap() {
        for event in page {
            if let Some(change) = event.change() {
                *balances.entry(AccountName::new(event.record.stream.id())).or_default() += change;
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
async fn balances_are_those_of_one_pass_over_the_log_for_every_month_end_and_whatever_was_known() {
    let bank = fresh().await;
    bank.import(EXCERPT).await;
    let times = recorded_times(&bank.db).await;
    let some: Vec<_> = times.iter().step_by(times.len().div_ceil(12)).chain(times.last()).collect();
    let known = some.into_iter().map(|time| Some(*time)).chain([None]);
    for known in known {
        for happened in MONTH_ENDS.map(|end| Some(day(end))).into_iter().chain([None]) {
            let as_of = AsOf { happened, known };
            assert_eq!(balances(&bank.db, as_of).await.unwrap(), folded(&bank.db, as_of).await, "{as_of:?}");
        }
    }
}

#[tokio::test]
async fn what_was_recorded_while_nobody_followed_is_folded_before_a_question_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("bank.db").display());
    let alice = |db: &Annals| db.aggregate::<Account>("alice");
    let db = Annals::open(&url).await.unwrap();
    alice(&db).create(|account| account.open("Alice")).await.unwrap();
    alice(&db).run(|account| account.deposit(Money::crowns(5))).await.unwrap();
    drop(db);
    for crowns in [5, 12] {
        let db = views::up(store::open_existing(&url).await.unwrap(), &ProgressBar::hidden()).await.unwrap();
        let found = balances(&db, AsOf::NOW).await.unwrap();
        assert_eq!(found, BTreeMap::from([(AccountName::new("alice"), Money::crowns(crowns))]));
        db.stop().await;
        drop(db);
        let db = Annals::open(&url).await.unwrap();
        alice(&db).run(|account| account.deposit(Money::crowns(7))).await.unwrap();
    }
}
