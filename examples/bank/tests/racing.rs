//! What holds when many do things at once.

use annals::CommandError;
use annals::prelude::*;

use crate::account::{Account, AccountError, TransferError, transfer};
use crate::money::Money;

#[tokio::test(flavor = "multi_thread")]
async fn money_that_moves_in_circles_is_neither_made_nor_lost() {
    let db = Annals::in_memory();
    let names = ["alice", "bob", "carol"];
    for name in names {
        let account = db.aggregate::<Account>(name);
        account.create(|account| account.open(name)).await.unwrap();
        account
            .run(|account| account.deposit(Money::crowns(100)))
            .await
            .unwrap();
    }
    let mut movers = tokio::task::JoinSet::new();
    for mover in 0..12 {
        let db = db.clone();
        movers.spawn(async move {
            let from = names[mover % 3];
            let to = names[(mover + 1) % 3];
            let moved = db.decide(
                (Account::at(from), Account::at(to)),
                |(sender, recipient)| transfer((from, sender), (to, recipient), Money::crowns(70)),
            );
            match moved.await {
                Ok(_)
                | Err(CommandError::Refused(TransferError::Sender(AccountError::Overdraft {
                    ..
                }))) => {}
                Err(error) => panic!("{error:?}"),
            }
        });
    }
    movers.join_all().await;
    let mut total = Money::ZERO;
    for name in names {
        let balance = db.aggregate::<Account>(name).load().await.unwrap().balance;
        assert!(balance >= Money::ZERO, "{name} has {balance}");
        total += balance;
    }
    assert_eq!(total, Money::crowns(300));
}
