//! The broker that tests are given, and topics of their own on it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use annals_kafka::{Kafka, NewRecord, TopicSpec};

/// How long anything may take that a test waits for.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Connects to it.
pub(crate) async fn kafka() -> Kafka {
    // A group notices in six seconds that a member was killed: as soon as a broker allows.
    let settings = [("session.timeout.ms", "6000")];
    Kafka::connect_with(&url(), settings).await.unwrap()
}

pub(crate) fn url() -> String {
    let bootstrap = std::env::var("ANNALS_TEST_KAFKA").expect(
        "ANNALS_TEST_KAFKA names no broker: run `cargo xtask test -p annals-kafka`, or set it to \
         what `cargo xtask kafka up` prints, without `kafka://`",
    );
    format!("kafka://{bootstrap}")
}

/// A name that no other test has.
pub(crate) fn fresh(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let random = annals_core::EventId::random().as_uuid().as_u128() as u32;
    format!("{what}-{random:08x}-{count}")
}

/// Makes a topic with a name of its own.
pub(crate) async fn topic(kafka: &Kafka, what: &str, partitions: u32) -> String {
    let name = fresh(what);
    let spec = TopicSpec::named(&name).partitions(partitions);
    kafka.ensure([spec]).await.unwrap();
    name
}

/// Sends records with keys and values, in order.
pub(crate) async fn send(kafka: &Kafka, topic: &str, records: &[(&str, &str)]) {
    let publisher = kafka.publisher().unwrap();
    for (key, value) in records {
        let record = NewRecord::to(topic).key(*key).value(*value);
        publisher.queue(&record).await.unwrap();
    }
    publisher.flush().await.unwrap();
}

/// Whether the long forms of tests run.
pub(crate) fn is_long() -> bool {
    std::env::var("ANNALS_TEST_LONG").is_ok_and(|long| long == "1")
}
