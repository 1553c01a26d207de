//! A cart and the stock of each of its products: decisions over any number of aggregates, in two
//! looks, from cached states.

use annals_core::conformance::faulty::Call;
use annals_core::{Aggregate, Annals, CommandError, Emit};
use annals_macros::Event;
use serde::{Deserialize, Serialize};

use crate::bank::deposited;
use crate::queries::{Total, total};
use crate::store::{CallCounts, alice, faulty, given, processes};

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "cart", crate = "annals_core")]
enum CartEvent {
    Added { sku: String },
    CheckedOut,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Cart {
    skus: Vec<String>,
    checked_out: bool,
}

impl Aggregate for Cart {
    type Event = CartEvent;

    fn apply(&mut self, event: &CartEvent) {
        match event {
            CartEvent::Added { sku } => self.skus.push(sku.clone()),
            CartEvent::CheckedOut => self.checked_out = true,
        }
    }
}

#[derive(Event, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[event(category = "stock", crate = "annals_core")]
enum StockEvent {
    Arrived { pieces: u64 },
    Sold,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Stock {
    pieces: u64,
}

impl Aggregate for Stock {
    type Event = StockEvent;

    fn apply(&mut self, event: &StockEvent) {
        match event {
            StockEvent::Arrived { pieces } => self.pieces += pieces,
            StockEvent::Sold => self.pieces -= 1,
        }
    }
}

fn added(sku: &str) -> CartEvent {
    CartEvent::Added { sku: sku.into() }
}

async fn arrived(db: &Annals, sku: &str, pieces: u64) {
    given(
        db,
        &format!("stock-{sku}"),
        [StockEvent::Arrived { pieces }],
    )
    .await;
}

async fn check_out(
    db: &Annals,
    cart: &str,
    key: &str,
) -> Result<annals_core::Committed, CommandError<String>> {
    db.decide_in_two_looks(
        Cart::at(cart),
        |cart| Stock::at_each(&cart.skus),
        |(cart, stocks)| {
            if cart.checked_out {
                return Err("checked out already".to_owned());
            }
            let sell = |(sku, stock): (&String, &Stock)| match stock.pieces {
                0 => Err(format!("no {sku} left")),
                _ => Ok((sku.clone(), StockEvent::Sold)),
            };
            let sold = stocks.iter().map(sell).collect::<Result<Vec<_>, _>>()?;
            Ok((CartEvent::CheckedOut, sold))
        },
    )
    .idempotency_key(key)
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_checkouts_sell_exactly_the_stock() {
    let handles: [_; 2] = processes();
    arrived(&handles[0], "cup", 20).await;
    arrived(&handles[0], "plate", 100).await;
    for cart in 0..64 {
        given(
            &handles[0],
            &format!("cart-{cart}"),
            [added("cup"), added("plate")],
        )
        .await;
    }
    let mut tasks = Vec::new();
    for cart in 0..64 {
        let db = handles[cart % 2].clone();
        tasks.push(tokio::spawn(async move {
            let cart = cart.to_string();
            match check_out(&db, &cart, "order").await {
                Ok(_) => true,
                Err(CommandError::Refused(reason)) => {
                    assert_eq!(reason, "no cup left");
                    false
                }
                Err(error) => panic!("{error}"),
            }
        }));
    }
    let mut sold = 0;
    for task in tasks {
        sold += u64::from(task.await.unwrap());
    }
    let [cups, plates] = ["cup", "plate"].map(|sku| handles[1].aggregate::<Stock>(sku));
    assert_eq!(sold, 20);
    assert_eq!(cups.load().await.unwrap().pieces, 0);
    assert_eq!(plates.load().await.unwrap().pieces, 80);
}

#[tokio::test]
async fn a_request_over_two_reads_is_deduplicated() {
    let [db] = processes();
    arrived(&db, "cup", 1).await;
    arrived(&db, "plate", 1).await;
    given(&db, "cart-c", [added("cup")]).await;
    let first = check_out(&db, "c", "order-7").await.unwrap();
    assert_eq!(first.events().len(), 2);
    // The cart would lead elsewhere by now.
    given(&db, "cart-c", [added("plate")]).await;
    let again = check_out(&db, "c", "order-7").await.unwrap();
    assert!(again.was_repeated());
    assert_eq!(again.events(), first.events());
}

#[tokio::test]
async fn a_second_look_that_leads_elsewhere_is_taken_again() {
    let [db] = processes();
    arrived(&db, "cup", 1).await;
    arrived(&db, "plate", 1).await;
    given(&db, "cart-c", [added("cup")]).await;
    // The cart is cached as it was; another process adds to it.
    db.aggregate::<Cart>("c").query(|_| ()).await.unwrap();
    given(&db, "cart-c", [added("plate")]).await;
    let done = check_out(&db, "c", "order-7").await.unwrap();
    assert_eq!(done.events().len(), 3);
}

#[tokio::test]
async fn a_decision_reads_nothing_that_is_cached() {
    let [plain] = processes();
    let (db, store) = faulty(&plain, CallCounts::default());
    for sku in ["cup", "plate"] {
        arrived(&plain, sku, 100).await;
    }
    for _ in 0..10 {
        db.decide((Stock::at_each(["cup", "plate"]),), |(stocks,)| {
            let sold = stocks.keys().map(|sku| (sku.clone(), StockEvent::Sold));
            Ok::<_, String>((sold.collect::<Vec<_>>(),))
        })
        .await
        .unwrap();
    }
    let reads = store.fault().calls(Call::ReadStream);
    assert_eq!((reads, store.fault().calls(Call::Append)), (2, 10));
    assert_eq!(
        db.aggregate::<Stock>("cup").load().await.unwrap().pieces,
        90
    );
}

#[tokio::test]
async fn a_refusal_from_cached_states_is_decided_again() {
    let [db, other] = processes();
    arrived(&db, "cup", 0).await;
    let buy = || {
        db.decide(
            (Stock::at_each(["cup"]),),
            |(stocks,)| match stocks["cup"].pieces {
                0 => Err("sold out"),
                _ => Ok((vec![("cup", StockEvent::Sold)],)),
            },
        )
    };
    assert!(matches!(
        buy().await,
        Err(CommandError::Refused("sold out"))
    ));
    arrived(&other, "cup", 1).await;
    assert!(buy().await.is_ok());
    assert!(matches!(
        buy().await,
        Err(CommandError::Refused("sold out"))
    ));
}

#[tokio::test]
async fn events_for_an_aggregate_that_was_not_loaded_are_invalid() {
    let [db] = processes();
    let wrong = db
        .decide((Stock::at_each(["cup"]),), |_| {
            Ok::<_, String>((vec![("plate", StockEvent::Sold)],))
        })
        .await
        .unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "the decision has events for `plate`, which it did not look at"
    );
}

#[tokio::test]
async fn a_fold_over_a_query_continues_from_its_last_state() {
    let [plain] = processes();
    let (db, store) = faulty(&plain, CallCounts::default());
    given(&plain, "account-bob", (0..5_000).map(|_| deposited(1))).await;
    let deposit = |expected: usize| {
        let db = &db;
        async move {
            db.decide(total(), |total: &Total| {
                assert_eq!(total.events, expected);
                Ok::<_, String>(Emit::to("account-alice", deposited(1)))
            })
            .await
            .unwrap()
        }
    };
    deposit(5_000).await;
    let reads = store.fault().calls(Call::ReadQuery);
    deposit(5_001).await;
    assert_eq!(store.fault().calls(Call::ReadQuery), reads + 1);
}

#[tokio::test]
async fn a_key_reused_for_another_request_is_an_error() {
    let [db] = processes();
    let account = alice(&db);
    let deposit = |cents: i64| {
        account
            .run(move |a| a.deposit(cents))
            .idempotency_key("req-1")
            .fingerprint(format!("deposit {cents}"))
    };
    deposit(5).await.unwrap();
    assert!(deposit(5).await.unwrap().was_repeated());
    let reused = deposit(6).await.unwrap_err();
    assert!(matches!(reused, CommandError::KeyReused { .. }), "{reused}");
    assert_eq!(
        reused.to_string(),
        "the idempotency key `req-1` was used for another request"
    );
    assert_eq!(alice(&db).load().await.unwrap().cents, 5);
}

#[tokio::test]
async fn an_empty_id_is_refused() {
    let [db] = processes();
    let error = db.aggregate::<Cart>("").load().await.unwrap_err();
    assert_eq!(error.to_string(), "an id of category `cart` is empty");
}

#[tokio::test]
async fn a_key_over_other_parts_is_another_request() {
    let [db] = processes();
    let arrived = StockEvent::Arrived { pieces: 1 };
    let one = (Stock::at_each(["cup"]), Stock::at("plate"));
    let decided = db.decide(one, |_| {
        Ok::<_, String>((vec![("cup", arrived.clone())], ()))
    });
    assert!(!decided.idempotency_key("k").await.unwrap().was_repeated());
    let other = (Stock::at_each(["cup", "plate"]),);
    let decided = db.decide(other, |_| {
        Ok::<_, String>((vec![("plate", arrived.clone())],))
    });
    assert!(!decided.idempotency_key("k").await.unwrap().was_repeated());
    for sku in ["cup", "plate"] {
        let stock = db.aggregate::<Stock>(sku).load().await.unwrap();
        assert_eq!(stock.pieces, 1, "{sku}");
    }
}
