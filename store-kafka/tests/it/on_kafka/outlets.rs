//! The proof of exactly-once publishing, and its trap.

use std::time::Duration;

use annals_core::chrono::{DateTime, Utc};
use annals_core::{
    EventId, Log, LogId, Outgoing, Outlet, OutletError, OutletMark, Partition, Position, ReadLog,
};
use annals_kafka::{Kafka, KafkaOutlet, Topic, murmur2_partition};
use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::broker::{fresh, kafka, topic, url};

fn outgoing(topic: &str, number: u64) -> Outgoing {
    Outgoing {
        to: topic.into(),
        key: Bytes::from(format!("k{}", number % 3)),
        payload: Some(Bytes::from(number.to_string())),
        headers: Vec::new(),
        occurred_at: DateTime::<Utc>::UNIX_EPOCH,
    }
}

fn mark(log: LogId, position: u64) -> OutletMark {
    OutletMark {
        log,
        partition: Partition(0),
        position: Position::new(position),
        event: Some(EventId::random()),
        note: Bytes::from_static(b"note"),
    }
}

/// What a reader of committed records sees in a topic of one partition, and the end that it
/// reaches.
async fn published(kafka: &Kafka, topic: &str) -> Vec<u64> {
    let log = kafka.log(Topic::named(topic)).await.unwrap();
    let mut numbers = Vec::new();
    let mut after = Position::START;
    loop {
        let page = log.read(ReadLog::after(after)).await.unwrap();
        let payloads = page
            .events
            .iter()
            .map(|event| std::str::from_utf8(&event.payload));
        numbers.extend(payloads.map(|payload| payload.unwrap().parse::<u64>().unwrap()));
        after = page.scanned;
        if page.end {
            // Markers have offsets too: the end is reached all the same.
            assert_eq!(after, log.head(Partition(0)).await.unwrap().visible);
            return numbers;
        }
    }
}

#[tokio::test]
async fn a_batch_and_its_mark_are_taken_together() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "taken", 1).await;
    let log = LogId::random();
    let mut outlet = KafkaOutlet::named(&kafka, fresh("taken")).unwrap();
    assert_eq!(outlet.open().await.unwrap(), []);
    let first = mark(log, 3);
    let batch = (1..=3).map(|number| outgoing(&topic, number)).collect();
    outlet.take(batch, first.clone()).await.unwrap();
    assert_eq!(outlet.open().await.unwrap(), [first]);
    let second = mark(log, 4);
    outlet
        .take(vec![outgoing(&topic, 4)], second.clone())
        .await
        .unwrap();
    assert_eq!(outlet.open().await.unwrap(), [second]);
    assert_eq!(published(&kafka, &topic).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_writer_that_was_fenced_takes_nothing() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "zombie", 1).await;
    let log = LogId::random();
    let name = fresh("zombie");
    let mut zombie = KafkaOutlet::named(&kafka, &name).unwrap();
    zombie.open().await.unwrap();
    zombie
        .take(vec![outgoing(&topic, 1)], mark(log, 1))
        .await
        .unwrap();
    let mut owner = KafkaOutlet::named(&kafka, &name).unwrap();
    assert_eq!(owner.open().await.unwrap()[0].position, Position::new(1));
    let refused = zombie.take(vec![outgoing(&topic, 9)], mark(log, 9)).await;
    assert!(
        matches!(refused, Err(OutletError::Undecided(_))),
        "{refused:?}"
    );
    owner
        .take(vec![outgoing(&topic, 2)], mark(log, 2))
        .await
        .unwrap();
    assert_eq!(published(&kafka, &topic).await, [1, 2]);
}

#[tokio::test]
async fn a_batch_that_cannot_be_sent_leaves_no_trace() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "refused", 1).await;
    let log = LogId::random();
    let mut outlet = KafkaOutlet::named(&kafka, fresh("refused")).unwrap();
    outlet.open().await.unwrap();
    let missing = outgoing(&fresh("nowhere"), 2);
    let batch = vec![outgoing(&topic, 1), missing];
    let refused = outlet.take(batch, mark(log, 2)).await;
    assert!(
        matches!(refused, Err(OutletError::Destination(_))),
        "{refused:?}"
    );
    // The client may find that numbers of the refused batch were skipped; that is undecided, and
    // opening again decides it.
    while let Err(error) = outlet.take(vec![outgoing(&topic, 1)], mark(log, 1)).await {
        assert!(matches!(error, OutletError::Undecided(_)), "{error:?}");
        if !outlet.open().await.unwrap().is_empty() {
            break;
        }
    }
    assert_eq!(published(&kafka, &topic).await, [1]);
}

/// The trap: partitions of the progress topic are shared. While another outlet's transaction is
/// open, the last stable offset lies before this outlet's last mark; who stops there finds an older
/// mark and publishes twice.
#[tokio::test]
async fn an_open_transaction_of_another_outlet_hides_no_mark() {
    let kafka = kafka().await;
    let topic = topic(&kafka, "trap", 1).await;
    let log = LogId::random();
    let name = fresh("trap");
    let mut outlet = KafkaOutlet::named(&kafka, &name).unwrap();
    outlet.open().await.unwrap();
    outlet
        .take(vec![outgoing(&topic, 1)], mark(log, 1))
        .await
        .unwrap();

    // Another writer has a record in the same partition, in a transaction that stays open.
    let progress = "annals.progress";
    let partitions = kafka.partitions_of(progress).await.unwrap();
    let partition = murmur2_partition(name.as_bytes(), partitions) as i32;
    let other: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", url().trim_start_matches("kafka://"))
        .set("transactional.id", fresh("other"))
        .create()
        .unwrap();
    other.init_transactions(Duration::from_secs(30)).unwrap();
    other.begin_transaction().unwrap();
    let record = BaseRecord::to(progress)
        .key("other/0")
        .payload("{}")
        .partition(partition);
    other.send(record).map_err(|(error, _)| error).unwrap();
    other.flush(Duration::from_secs(30)).unwrap();

    // This outlet's second mark comes after it.
    outlet
        .take(vec![outgoing(&topic, 2)], mark(log, 2))
        .await
        .unwrap();
    // It ends while the marks are read: long enough for a reader that trusts the stable offset to
    // have read the older mark.
    let ends = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let aborts = move || other.abort_transaction(Duration::from_secs(30));
        tokio::task::spawn_blocking(aborts).await.unwrap().unwrap();
    };
    let (marks, ()) = tokio::join!(outlet.open(), ends);
    assert_eq!(marks.unwrap()[0].position, Position::new(2));
}
