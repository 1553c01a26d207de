//! What an account says yes and no to. No store is needed to know.

use annals::prelude::*;
use annals::testing;

use crate::account::{
    Account, AccountError, AccountEvent, Direction, Slip, TransferError, transfer,
};
use crate::money::Money;

fn opened(owner: &str) -> AccountEvent {
    AccountEvent::Opened {
        owner: owner.to_owned(),
    }
}

fn deposited(crowns: i64) -> AccountEvent {
    AccountEvent::Deposited {
        amount: Money::crowns(crowns),
        slip: None,
    }
}

#[test]
fn an_overdraft_is_refused() {
    let story = Account::given([opened("Alice"), deposited(50)])
        .step("withdraw 80", |account| account.withdraw(Money::crowns(80)))
        .step("withdraw 50", |account| account.withdraw(Money::crowns(50)));
    insta::assert_snapshot!(story);
}

#[test]
fn an_account_is_opened_once_and_closed_empty() {
    let story = Account::given([])
        .step("deposit 10", |account| account.deposit(Money::crowns(10)))
        .step("open", |account| account.open("Alice"))
        .step("open", |account| account.open("Alice"))
        .step("deposit 10", |account| account.deposit(Money::crowns(10)))
        .step("close", Account::close)
        .step("withdraw 10", |account| account.withdraw(Money::crowns(10)))
        .step("close", Account::close)
        .step("open", |account| account.open("Alice"));
    insta::assert_snapshot!(story);
}

#[test]
fn nothing_and_less_than_nothing_cannot_be_moved() {
    for amount in [Money::ZERO, Money::halers(-1)] {
        Account::given([opened("Alice"), deposited(50)])
            .when(|account| account.deposit(amount))
            .assert_refused(format!("{amount} is not more than nothing"))
            .when(|account| account.withdraw(amount))
            .assert_refused(format!("{amount} is not more than nothing"));
    }
}

#[test]
fn what_a_bank_recorded_is_not_refused() {
    let slip = Slip {
        trans_id: 7,
        kind: "VYBER".to_owned(),
        operation: "VYBER".to_owned(),
        k_symbol: " ".to_owned(),
        bank: String::new(),
        account: String::new(),
    };
    let story = Account::given([deposited(50), AccountEvent::Closed])
        .step("record 80 out", |account| {
            account.record(Direction::Out, Money::crowns(80), slip)
        });
    insta::assert_snapshot!(story);
}

#[test]
fn a_transfer_is_one_decision_over_two_accounts() {
    let moves = |crowns| {
        move |(from, to): &(Account, Account)| {
            transfer(("alice", from), ("bob", to), Money::crowns(crowns))
        }
    };
    let story = testing::world()
        .given("account-alice", [opened("Alice"), deposited(100)])
        .given("account-bob", [opened("Bob")])
        .when("alice sends bob 101")
        .decide((Account::at("alice"), Account::at("bob")), moves(101))
        .when("alice sends bob 60")
        .decide((Account::at("alice"), Account::at("bob")), moves(60))
        .when("alice sends bob 60 again")
        .decide((Account::at("alice"), Account::at("bob")), moves(60))
        .when("alice sends 10 to an account that is not there")
        .decide((Account::at("alice"), Account::at("nobody")), moves(10));
    insta::assert_snapshot!(story);
    assert_eq!(
        story.refusal_as(),
        Some(&TransferError::Recipient(AccountError::Unopened))
    );
}
