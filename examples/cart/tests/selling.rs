//! A product is sold as often as it is there, however many buy it at once and from how many
//! processes.

use std::process::{Command, Stdio};

use annals::CommandError;
use annals::prelude::*;

use crate::cart::{Cart, CartError};
use crate::checkout::{CheckoutError, check_out};
use crate::price::Price;
use crate::stock::Stock;

/// Where the other process finds the store.
const STORE: &str = "ANNALS_TEST_SHOP";
const TASKS: usize = 32;
const CARTS_OF_A_TASK: usize = 3;
const PIECES: u32 = 100;

async fn cart_with(db: &Annals, id: &str, skus: &[&str]) {
    for sku in skus {
        db.aggregate::<Cart>(id)
            .run(|cart| cart.add(sku, 1, Price::euros(1, 0)))
            .await
            .unwrap();
    }
}

/// Fills and checks out carts from many tasks: how many were sold.
async fn buy(db: &Annals, process: &str) -> u32 {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let db = db.clone();
        let process = process.to_owned();
        tasks.spawn(async move {
            let mut sold = 0;
            for number in 0..CARTS_OF_A_TASK {
                let id = format!("{process}x{task}x{number}");
                cart_with(&db, &id, &["lamp"]).await;
                loop {
                    match check_out(&db, &id).await {
                        Ok(_) => sold += 1,
                        Err(CommandError::Refused(CheckoutError::Stock { .. })) => {}
                        // Others were first again and again: it may be asked once more.
                        Err(CommandError::Contended { .. }) => continue,
                        Err(error) => panic!("{error:?}"),
                    }
                    break;
                }
            }
            sold
        });
    }
    tasks.join_all().await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_sell_exactly_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", directory.path().join("shop.db").display());
    let db = Annals::open(&store).await.unwrap();
    let lamps = db.aggregate::<Stock>("lamp");
    lamps.run(|stock| stock.receive(PIECES)).await.unwrap();
    let other = Command::new(std::env::current_exe().unwrap())
        .args([
            "tests::selling::another_process_buys",
            "--exact",
            "--ignored",
        ])
        .args(["--nocapture"])
        .env(STORE, &store)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let here = buy(&db, "here").await;
    let there = tokio::task::spawn_blocking(move || other.wait_with_output());
    let there = there.await.unwrap().unwrap();
    let printed = String::from_utf8(there.stdout).unwrap();
    assert!(there.status.success(), "{printed}");
    let (_, there) = printed.split_once("sold ").unwrap();
    let there: u32 = there.split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(here + there, PIECES);
    assert_eq!(lamps.load().await.unwrap().pieces, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is the process that the other test starts"]
async fn another_process_buys() {
    let Ok(store) = std::env::var(STORE) else {
        return;
    };
    let db = Annals::open(&store).await.unwrap();
    println!("sold {}", buy(&db, "there").await);
}

#[tokio::test]
async fn a_cart_is_sold_whole_or_not_at_all() {
    let db = Annals::in_memory();
    db.aggregate::<Stock>("tea")
        .run(|stock| stock.receive(5))
        .await
        .unwrap();
    cart_with(&db, "ada", &["tea", "pot"]).await;
    let refused = check_out(&db, "ada").await.unwrap_err();
    let CommandError::Refused(why) = refused else {
        panic!("it is refused, but: {refused:?}")
    };
    assert_eq!(why.to_string(), "of `pot` 0 are left, and 1 are wanted");
    let tea = db.aggregate::<Stock>("tea").load().await.unwrap();
    assert_eq!(tea.pieces, 5);

    db.aggregate::<Stock>("pot")
        .run(|stock| stock.receive(1))
        .await
        .unwrap();
    assert!(!check_out(&db, "ada").await.unwrap().was_repeated());
    assert!(check_out(&db, "ada").await.unwrap().was_repeated());
    let tea = db.aggregate::<Stock>("tea").load().await.unwrap();
    assert_eq!(tea.pieces, 4);
}

#[tokio::test]
async fn an_empty_cart_is_not_sold() {
    let outcome = check_out(&Annals::in_memory(), "ada").await;
    assert!(matches!(
        outcome,
        Err(CommandError::Refused(CheckoutError::Cart(CartError::Empty)))
    ));
}
