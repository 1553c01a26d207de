//! What only a broker of this run has: a listener that asks for TLS and SCRAM.

use annals_core::{Failure, Partition};
use annals_kafka::{Kafka, NewRecord};

use crate::broker::{send, topic};

/// Its URL, with the user, the password and the certificate.
fn url() -> String {
    std::env::var("ANNALS_TEST_KAFKA_SECURE").expect(
        "ANNALS_TEST_KAFKA_SECURE names no listener: run `cargo xtask test -p annals-kafka`, or \
         set it to a URL with `tls=true` and `sasl=scram-sha-512`",
    )
}

#[tokio::test]
async fn records_go_over_tls_with_a_password() {
    // What librdkafka knows and the URL does not is passed on.
    let settings = [("socket.keepalive.enable", "true")];
    let kafka = Kafka::connect_with(&url(), settings).await.unwrap();
    let topic = topic(&kafka, "secure", 2).await;
    send(&kafka, &topic, &[("ada", "1"), ("ada", "2")]).await;
    let sent = kafka.publisher().unwrap();
    let (_, offset) = sent
        .send(NewRecord::to(&topic).key("ada").value("3"))
        .await
        .unwrap();
    assert_eq!(offset, 2);
    assert_eq!(kafka.partitions_of(&topic).await.unwrap(), 2);
    let log = kafka.log(annals_kafka::Topic::named(&topic)).await.unwrap();
    let mut read = 0;
    for partition in (0..2).map(Partition) {
        let after = annals_core::ReadLog::after(annals_core::Position::START);
        let page = annals_core::Log::read(&log, after.partition(partition)).await;
        read += page.unwrap().events.len();
    }
    assert_eq!(read, 3);
}

#[tokio::test]
async fn who_is_not_known_is_told_so() {
    let wrong_password = url().replacen(":private@", ":guessed@", 1);
    let known = url();
    let (without_authority, _) = known.split_once("&ca=").unwrap();
    let without_tls = without_authority.replacen("tls=true", "tls=false", 1);
    let with_setting = [("ssl.ca.location", "/nowhere/ca.pem")];
    let (password, plain, authority) = tokio::join!(
        Kafka::connect(&wrong_password),
        Kafka::connect(&without_tls),
        Kafka::connect_with(&known, with_setting)
    );
    let password = password.unwrap_err();
    assert_eq!(password.failure(), Failure::Unavailable);
    let said = password.to_string();
    assert!(said.contains("authentication"), "{said}");
    assert!(!said.contains("guessed"), "{said}");
    assert_eq!(plain.unwrap_err().failure(), Failure::Unavailable);
    // Settings come after those of the URL.
    assert_eq!(authority.unwrap_err().failure(), Failure::Invalid);
}
