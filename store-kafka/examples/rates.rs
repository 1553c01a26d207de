//! How fast records go in and out, beside a bare client in the same run.
//!
//! `cargo xtask bench kafka` starts brokers for it; on yours
//! `cargo run --release --all-features -p annals-kafka --example rates -- BROKERS [REPLICAS]`

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "this is a program that measures"
)]

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annals_core::{
    Annals, Append, EventId, EventStore as _, Log as _, LogId, MemoryStore, NewEvent, Outgoing,
    Outlet as _, OutletMark, Partition, Position, ReadLog, StreamId,
};
use annals_kafka::{Kafka, KafkaOutlet, NewRecord, Relay, Topic, TopicSpec};
use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const RECORDS: usize = 1_000_000;
const BATCHES: usize = 200;
const BATCH: usize = 1_000;
const PARTITIONS: u32 = 4;
const RELAYED: usize = 200_000;
/// What a relay takes at most.
const RELAY_BATCH: usize = 5_000;

type Done<T> = Result<T, Box<dyn Error>>;

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("compression.type", "lz4")
        .set("enable.idempotence", "true")
        .set("linger.ms", "5");
    config
}

/// Records a second of the work.
async fn rate(what: &str, records: usize, work: impl Future<Output = Done<()>>) -> Done<f64> {
    let began = Instant::now();
    work.await?;
    let rate = records as f64 / began.elapsed().as_secs_f64();
    println!("{what:<44}{:>12.0} records/s", rate);
    Ok(rate)
}

fn value(number: usize) -> String {
    format!("{{\"cents\":{number:>188}}}")
}

async fn bare_producer(bootstrap: &str, topic: &str) -> Done<()> {
    let producer: BaseProducer = client(bootstrap).create()?;
    for number in 0..RECORDS {
        let key = format!("k{}", number % 1_000);
        let value = value(number);
        let mut record = BaseRecord::to(topic).key(&key).payload(&value);
        while let Err((error, full)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(rdkafka::types::RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            record = full;
            producer.poll(Duration::from_millis(1));
        }
        if number % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(())
}

async fn publisher(kafka: &Kafka, topic: &str) -> Done<()> {
    let publisher = kafka.publisher()?;
    for number in 0..RECORDS {
        let record = NewRecord::to(topic).key(format!("k{}", number % 1_000));
        publisher.queue(&record.value(value(number))).await?;
    }
    publisher.flush().await?;
    Ok(())
}

async fn bare_consumer(bootstrap: &str, topic: &str) -> Done<()> {
    let consumer: BaseConsumer = client(bootstrap)
        .set("group.id", "bare")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS as i32 {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let mut seen = 0;
    let mut bytes = 0;
    while seen < RECORDS {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            bytes += message?.payload_len();
            seen += 1;
        }
    }
    assert!(bytes > RECORDS * 190);
    Ok(())
}

async fn follow(kafka: &Kafka, topic: &str) -> Done<()> {
    let log = kafka
        .log(Topic::named(topic).every_record_is("counted"))
        .await?;
    let reads = (0..PARTITIONS).map(Partition).map(|partition| {
        let log = log.clone();
        tokio::spawn(async move {
            let mut after = Position::START;
            let mut seen = 0;
            loop {
                let read = ReadLog::after(after).partition(partition).limit(8_192);
                let page = log.read(read).await.expect("the broker answers");
                seen += page.events.len();
                after = page.scanned;
                if page.end {
                    return seen;
                }
            }
        })
    });
    let mut seen = 0;
    for read in reads.collect::<Vec<_>>() {
        seen += read.await?;
    }
    assert_eq!(seen, RECORDS);
    Ok(())
}

async fn bare_transactions(bootstrap: &str, topic: &str) -> Done<()> {
    let producer: BaseProducer = client(bootstrap)
        .set("transactional.id", EventId::random().to_string())
        .set("linger.ms", "0")
        .create()?;
    producer.init_transactions(Duration::from_secs(30))?;
    for batch in 0..BATCHES {
        producer.begin_transaction()?;
        for number in 0..BATCH {
            let key = format!("k{}", number % 1_000);
            let value = value(batch * BATCH + number);
            let record = BaseRecord::to(topic).key(&key).payload(&value);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_micros(500));
        }
        producer.commit_transaction(rdkafka::util::Timeout::Never)?;
    }
    Ok(())
}

async fn outlet(kafka: &Kafka, topic: &str) -> Done<()> {
    let mut outlet = KafkaOutlet::named(kafka, topic)?;
    outlet.open().await?;
    let log = LogId::random();
    let to: Arc<str> = topic.into();
    for batch in 0..BATCHES {
        let outgoing = (0..BATCH).map(|number| Outgoing {
            to: Arc::clone(&to),
            key: Bytes::from(format!("k{}", number % 1_000)),
            payload: Some(Bytes::from(value(batch * BATCH + number))),
            headers: Vec::new(),
            occurred_at: annals_core::chrono::DateTime::UNIX_EPOCH,
        });
        let mark = OutletMark {
            log,
            partition: Partition(0),
            position: Position::new((batch + 1) as u64),
            event: None,
            note: Bytes::new(),
        };
        outlet.take(outgoing.collect(), mark).await?;
    }
    Ok(())
}

/// What a relay says about an event, in the same names and lengths.
const HEADERS: [(&str, &str); 10] = [
    ("ce_specversion", "1.0"),
    ("ce_id", "0198c9a5-7c1e-7d35-9c5c-0e4f1f6a2b3c"),
    ("ce_source", "/annals/0198c9a5-7c1e-7d35-9c5c-0e4f1f6a2b3c"),
    ("ce_type", "account.counted"),
    ("ce_time", "2026-03-31T12:00:00.000000Z"),
    ("ce_subject", "account-123"),
    ("content-type", "application/json"),
    ("ce_sequence", "123456"),
    ("ce_recordedtime", "2026-03-31T12:00:00.000000Z"),
    ("ce_streamversion", "1234"),
];

async fn bare_relay(bootstrap: &str, topic: &str) -> Done<()> {
    let producer: BaseProducer = client(bootstrap)
        .set("transactional.id", EventId::random().to_string())
        .set("linger.ms", "0")
        .create()?;
    producer.init_transactions(Duration::from_secs(30))?;
    for batch in 0..RELAYED / RELAY_BATCH {
        producer.begin_transaction()?;
        for number in 0..RELAY_BATCH {
            let key = format!("account-{}", number % 1_000);
            let value = value(batch * RELAY_BATCH + number);
            let headers = OwnedHeaders::new_with_capacity(HEADERS.len());
            let headers = HEADERS.iter().fold(headers, |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(*value),
                })
            });
            let record = BaseRecord::to(topic).key(&key).payload(&value);
            producer
                .send(record.headers(headers))
                .map_err(|(error, _)| error)?;
        }
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_micros(500));
        }
        producer.commit_transaction(rdkafka::util::Timeout::Never)?;
    }
    Ok(())
}

/// A log in memory of so many events.
async fn log() -> Done<Annals> {
    let store = MemoryStore::new();
    for batch in 0..RELAYED / 1_000 {
        let stream = StreamId::new(format!("account-{batch}"))?;
        let event = |number| NewEvent::json("account.counted", value(batch * 1_000 + number));
        store
            .append(Append::new(stream, (0..1_000).map(event)))
            .await?;
    }
    Ok(Annals::on(Arc::new(store)))
}

async fn relay(kafka: &Kafka, db: &Annals, topic: &'static str) -> Done<()> {
    let relay = Relay::named(topic).to(kafka, TopicSpec::existing(topic));
    assert_eq!(relay.catch_up(db).await?, RELAYED as u64);
    Ok(())
}

/// Resident memory of this process, in MiB.
fn resident() -> Done<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.ok_or("no VmRSS")?.parse::<u64>()? / 1_024)
}

/// Reads one page of each partition and then nothing for a while.
async fn slow_reader(kafka: &Kafka, topic: &str) -> Done<()> {
    let before = resident()?;
    let log = kafka
        .log(Topic::named(topic).every_record_is("counted"))
        .await?;
    for partition in (0..PARTITIONS).map(Partition) {
        let read = ReadLog::after(Position::START).partition(partition);
        assert!(!log.read(read.limit(10)).await?.end);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (after, megabytes) = (resident()?, (RECORDS * 200) >> 20);
    println!(
        "a reader of {PARTITIONS} partitions that stopped after a page of {megabytes} MiB: {} MiB \
         more",
        after.saturating_sub(before)
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Done<()> {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().ok_or("name a broker: 127.0.0.1:PORT")?;
    let replicas = arguments.next().map_or(Ok(1), |count| count.parse())?;
    let spec = |name: &str| {
        TopicSpec::named(name)
            .partitions(PARTITIONS)
            .replicas(replicas)
    };
    let kafka = Kafka::connect(&format!("kafka://{bootstrap}")).await?;
    let run = EventId::random();
    let topics = ["a", "b", "c", "d"].map(|name| format!("rates-{run}-{name}"));
    kafka
        .ensure(topics.each_ref().map(|name| spec(name)))
        .await?;
    let [bare, ours, transactions, taken] = &topics;
    let ratio = |ours: f64, bare: f64| println!("{:<44}{:>12.2}\n", "", ours / bare);

    let by_client = rate(
        "produce, bare client",
        RECORDS,
        bare_producer(&bootstrap, bare),
    )
    .await?;
    let by_us = rate(
        "produce, Publisher::queue",
        RECORDS,
        publisher(&kafka, ours),
    )
    .await?;
    ratio(by_us, by_client);
    let by_client = rate(
        "read, bare client",
        RECORDS,
        bare_consumer(&bootstrap, bare),
    )
    .await?;
    let by_us = rate("read, TopicLog to events", RECORDS, follow(&kafka, bare)).await?;
    ratio(by_us, by_client);
    let records = BATCHES * BATCH;
    let work = bare_transactions(&bootstrap, transactions);
    let by_client = rate("transactions of 1,000, bare client", records, work).await?;
    let by_us = rate(
        "transactions of 1,000, KafkaOutlet",
        records,
        outlet(&kafka, taken),
    )
    .await?;
    ratio(by_us, by_client);
    let db = log().await?;
    let [by_bare, by_relay] = ["e", "f"].map(|name| format!("rates-{run}-{name}"));
    let by_relay: &'static str = by_relay.leak();
    for topic in [by_bare.as_str(), by_relay] {
        kafka.ensure([spec(topic)]).await?;
    }
    let work = bare_relay(&bootstrap, &by_bare);
    let by_client = rate(
        "transactions of 5,000 CloudEvents, bare client",
        RELAYED,
        work,
    )
    .await?;
    let work = relay(&kafka, &db, by_relay);
    let by_us = rate("transactions of 5,000 CloudEvents, Relay", RELAYED, work).await?;
    ratio(by_us, by_client);
    slow_reader(&kafka, bare).await?;
    let made = topics.iter().map(String::as_str);
    for topic in made.chain([by_bare.as_str(), by_relay]) {
        kafka.delete_topic(topic).await?;
    }
    Ok(())
}
