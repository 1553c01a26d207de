//! Balances from a topic, beside those from the store.

use annals::EventId;
use annals::kafka::{Kafka, NewRecord, TopicSpec};

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
    let (published, balances) = tokio::join!(
        published::publish(&bank.db, url),
        published::balances(url, None)
    );
    for error in [published.unwrap_err(), balances.unwrap_err()] {
        let said = error.to_string();
        // With what the client says of it.
        for part in [
            "no broker of kafka://127.0.0.1:1 has answered for 10 s (",
            "Connection refused",
            "; `cargo xtask kafka up` starts one, and prints its URL",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains('\n'), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_without_events_of_the_bank_says_so() {
    let url = fresh_topic();
    let (broker, topic) = url.rsplit_once('/').unwrap();
    let kafka = Kafka::connect(broker).await.unwrap();
    kafka
        .ensure([TopicSpec::named(topic).partitions(1)])
        .await
        .unwrap();
    let said = published::balances(&url, None).await.unwrap_err();
    assert!(said.to_string().contains("is empty"), "{said}");
    let order = NewRecord::to(topic).key("tea").value(r#"{"pieces":1}"#);
    kafka.publisher().unwrap().send(order).await.unwrap();
    let said = published::balances(&url, None).await.unwrap_err();
    let expected = format!("topic `{topic}` holds no events of the bank");
    assert!(said.to_string().contains(&expected), "{said}");
}
