//! Java's own client, from the broker's jars, as the other side.

use std::process::Command;
use std::sync::Arc;

use annals_core::{
    Annals, Append, Log, MemoryStore, NewEvent, Partition, Position, ReadLog, StreamId,
};
use annals_kafka::{Relay, Topic, TopicSpec, murmur2_partition};

use crate::broker::{fresh, kafka, topic, url};

/// Runs the client and returns its lines.
fn java(mode: &str, topic: &str, count: usize) -> Vec<String> {
    let jars = std::env::var("ANNALS_TEST_KAFKA_JARS").expect(
        "ANNALS_TEST_KAFKA_JARS names no directory of jars: run `cargo xtask test -p annals-kafka`",
    );
    let java = std::env::var("JAVA_HOME").map_or("java".into(), |home| format!("{home}/bin/java"));
    let bootstrap = url();
    let output = Command::new(java)
        .args([
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp",
            &format!("{jars}/*"),
        ])
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/java/Client.java"
        ))
        .args([
            mode,
            bootstrap.trim_start_matches("kafka://"),
            topic,
            &count.to_string(),
        ])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn java_puts_ten_thousand_keys_where_annals_expects_them() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "java", 7).await;
    java("produce", &topic, 10_000);
    let log = kafka.log(Topic::named(&topic)).await.unwrap();
    let mut found = 0;
    for partition in (0..7).map(Partition) {
        let mut after = Position::START;
        loop {
            let page = log
                .read(ReadLog::after(after).partition(partition))
                .await
                .unwrap();
            for event in &page.events {
                let key = event.stream.id();
                assert_eq!(partition.0, murmur2_partition(key.as_bytes(), 7), "{key}");
                assert_eq!(log.partition_of(&event.stream), partition);
            }
            found += page.events.len();
            after = page.scanned;
            if page.end {
                break;
            }
        }
    }
    assert_eq!(found, 10_000);
}

#[tokio::test]
async fn java_reads_what_a_relay_publishes() {
    let kafka = kafka().await;
    let name: &'static str = fresh("to-java").leak();
    kafka
        .ensure([TopicSpec::named(name).partitions(3)])
        .await
        .unwrap();
    let store = Arc::new(MemoryStore::new());
    let db = Annals::on(store);
    for number in 0..20 {
        let stream = StreamId::new(format!("account-{number}")).unwrap();
        let payload = format!(r#"{{"cents":{number}}}"#);
        let append = Append::new(stream, [NewEvent::json("account.counted", payload)]);
        db.store().append(append).await.unwrap();
    }
    let relay = Relay::named(name).to(&kafka, TopicSpec::existing(name));
    let reads = tokio::task::spawn_blocking(move || java("consume", name, 20));
    let lines = tokio::select! {
        ended = relay.run(&db, std::future::pending()) => panic!("{ended:?}"),
        lines = reads => lines.unwrap(),
    };
    assert_eq!(lines.len(), 20);
    for number in 0..20 {
        let key = format!("account-{number}");
        let partition = murmur2_partition(key.as_bytes(), 3);
        let begins = format!(r#"{partition}|{key}|{{"cents":{number}}}|ce_specversion=1.0|ce_id="#);
        let line = lines.iter().find(|line| line.starts_with(&begins));
        let line = line.unwrap_or_else(|| panic!("{begins} in {lines:#?}"));
        let source = format!("|ce_source=/annals/{}", db.store().id());
        let subject = format!("|ce_subject={key}|");
        for part in [
            "|ce_type=account.counted|",
            "|content-type=application/json",
            &source,
            &subject,
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}
