//! What an account says yes and no to. No store is needed to know.

use annals::prelude::*;

use crate::account::{Account, AccountError, AccountEvent, Direction, Slip, TransferError, transfer};
use crate::money::Money;

fn opened() -> AccountEvent {
    AccountEvent::Opened { owner: "Alice".to_owned() }
}

fn deposited(crowns: i64) -> AccountEvent {
    AccountEvent::Deposited { amount: Money::crowns(crowns), slip: None }
}

#[test]
fn an_overdraft_is_refused() {
    let story = Account::given([opened(), deposited(50)])
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
        Account::given([opened(), deposited(50)])
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
        .step("record 80 out", |account| account.record(Direction::Out, Money::crowns(80), slip));
    insta::assert_snapshot!(story);
}

#[test]
fn a_transfer_takes_from_one_what_it_gives_to_the_other() {
    let (alice, bob) = (account(100), account(0));
    let moved = transfer(("alice", &alice), ("bob", &bob), Money::crowns(60));
    let (sent, received) = moved.unwrap();
    assert_eq!(sent.change(), Some(Money::crowns(-60)));
    assert_eq!(received.change(), Some(Money::crowns(60)));
}

#[test]
fn a_transfer_is_refused_by_the_side_that_cannot() {
    let (alice, bob, nobody) = (account(100), account(0), Account::default());
    let refused = |from, to, crowns| transfer(("from", from), ("to", to), Money::crowns(crowns)).unwrap_err();
    let (balance, amount) = (Money::crowns(100), Money::crowns(101));
    assert_eq!(refused(&alice, &bob, 101), TransferError::Sender(AccountError::Overdraft { balance, amount }));
    assert_eq!(refused(&alice, &nobody, 1), TransferError::Recipient(AccountError::Unopened));
    assert_eq!(refused(&nobody, &bob, 1).to_string(), "sender: the account was never opened");
}

/// An open account that holds so much.
fn account(crowns: i64) -> Account {
    let mut account = Account::default();
    for event in [opened(), deposited(crowns)] {
        account.apply(&event);
    }
    account
}
