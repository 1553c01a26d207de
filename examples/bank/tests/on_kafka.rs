//! Balances from a topic, beside those from the store.

use annals::EventId;

use super::importing::{EXCERPT, fresh};
use crate::account::Account;
use crate::balances::{AsOf, Format, balances, print};
use crate::money::Money;
use crate::published;

/// A topic that no other test has, on the broker that `cargo xtask test` starts.
fn fresh_topic() -> String {
    let broker = std::env::var("ANNALS_TEST_KAFKA").expect("`cargo xtask test` names a broker");
    format!("kafka://{broker}/bank-{}", EventId::random())
}

async fn table_of_store(bank: &super::importing::Fresh, as_of: AsOf) -> String {
    let balances = balances(&bank.db, as_of).await.unwrap();
    let mut table = Vec::new();
    print(&balances, Format::Table, &mut table).unwrap();
    String::from_utf8(table).unwrap()
}

async fn table_of_topic(url: &str, as_of: AsOf) -> String {
    let balances = published::balances(url, as_of.happened).await.unwrap();
    let mut table = Vec::new();
    print(&balances, Format::Table, &mut table).unwrap();
    String::from_utf8(table).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_topic_gives_the_table_of_the_store() {
    let bank = fresh().await;
    bank.import(EXCERPT).await;
    let topic = fresh_topic();
    assert_eq!(published::publish(&bank.db, &topic).await.unwrap(), 297);
    let june = AsOf {
        happened: Some("1993-06-30".parse().unwrap()),
        known: None,
    };
    for as_of in [AsOf::NOW, june] {
        let from_store = table_of_store(&bank, as_of).await;
        assert_eq!(table_of_topic(&topic, as_of).await, from_store);
    }
    // What was published is not published again, and what comes later is.
    assert_eq!(published::publish(&bank.db, &topic).await.unwrap(), 0);
    let alice = bank.db.aggregate::<Account>("alice");
    alice.create(|account| account.open("Alice")).await.unwrap();
    let deposits = alice.run(|account| account.deposit(Money::crowns(5)));
    deposits.await.unwrap();
    assert_eq!(published::publish(&bank.db, &topic).await.unwrap(), 2);
    let from_store = table_of_store(&bank, AsOf::NOW).await;
    assert_eq!(table_of_topic(&topic, AsOf::NOW).await, from_store);
}

#[tokio::test]
async fn without_a_broker_one_line_says_how_to_start_one() {
    let bank = fresh().await;
    let url = "kafka://127.0.0.1:1";
    let expected = "no broker at kafka://127.0.0.1:1: start one with `cargo xtask kafka up`, which \
                    prints its URL";
    let (published, balances) = tokio::join!(
        published::publish(&bank.db, url),
        published::balances(url, None)
    );
    assert_eq!(published.unwrap_err().to_string(), expected);
    assert_eq!(balances.unwrap_err().to_string(), expected);
}
