//! How fast a store on Kafka appends, beside a bare transactional client with batches of the same
//! size in the same run; how long a take-over takes, and a lost local copy.
//!
//! `cargo xtask bench kafka` starts brokers for it; on yours
//! `cargo run --release --all-features -p annals-kafka --example store_rates -- BROKERS [REPLICAS]`

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "this is a program that measures"
)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use annals_core::{Append, EventId, EventStore as _, Log as _, NewEvent, Partition, StreamId};
use annals_kafka::KafkaStore;
use annals_kafka::store::{Options, Owns};
use annals_kafka::testing::{Step, at_steps};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

/// Callers that append one event each, one after another.
const TASKS: usize = 256;
const LASTS: Duration = Duration::from_secs(10);
/// Events that a lost copy is made of.
const COPIED: usize = 200_000;
const PER_APPEND: usize = 1_000;

/// Transactions that the store has committed.
static COMMITS: AtomicUsize = AtomicUsize::new(0);

type Done<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A store in a topic, and what it is reached by.
struct Place {
    brokers: String,
    topic: String,
    replicas: u16,
    folder: tempfile::TempDir,
}

impl Place {
    async fn open(&self, process: &str, owns: Owns) -> Done<KafkaStore> {
        let options = Options::new(
            format!("kafka://{}", self.brokers),
            &self.topic,
            self.folder.path().join(Path::new(process)),
        );
        let options = options
            .partitions(1)
            .replicas(self.replicas)
            .advertise(process)
            .owns(owns);
        Ok(KafkaStore::open_with(options).await?)
    }
}

fn payload(number: usize) -> String {
    format!("{{\"cents\":{number:>188}}}")
}

fn percentile(sorted: &[Duration], of: f64) -> Duration {
    let index = (sorted.len() as f64 * of) as usize;
    sorted
        .get(index.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// Single appends of many callers: how many a second, and how long each took.
async fn appends(store: &KafkaStore, tasks: usize) -> Done<(f64, Vec<Duration>)> {
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let callers: Vec<_> = (0..tasks)
        .map(|task| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut took = Vec::new();
                let stream = StreamId::new(format!("counter-{task}"))?;
                while !stop.load(Ordering::Relaxed) {
                    let event = NewEvent::json("counted", payload(took.len()));
                    let asked = Instant::now();
                    store.append(Append::new(stream.clone(), [event])).await?;
                    took.push(asked.elapsed());
                }
                Ok::<_, Box<dyn Error + Send + Sync>>(took)
            })
        })
        .collect();
    tokio::time::sleep(LASTS).await;
    stop.store(true, Ordering::Relaxed);
    let mut took = Vec::new();
    for caller in callers {
        took.extend(caller.await??);
    }
    let rate = took.len() as f64 / began.elapsed().as_secs_f64();
    took.sort_unstable();
    Ok((rate, took))
}

/// Transactions of so many records with the same key, headers and payload, one after another.
fn bare(place: &Place, topic: &str, batch: usize) -> Done<(f64, f64)> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &place.brokers)
        .set("compression.type", "lz4")
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("transactional.id", topic)
        .create()?;
    producer.init_transactions(Duration::from_secs(30))?;
    let header = [7; 77];
    let began = Instant::now();
    let mut transactions = 0;
    while began.elapsed() < LASTS {
        producer.begin_transaction()?;
        for number in 0..batch {
            let headers = OwnedHeaders::new_with_capacity(3)
                .insert(Header {
                    key: "a",
                    value: Some(&header[..]),
                })
                .insert(Header {
                    key: "type",
                    value: Some("counted"),
                })
                .insert(Header {
                    key: "codec",
                    value: Some("json"),
                });
            let key = format!("counter-{number}");
            let payload = payload(transactions);
            let record = BaseRecord::to(topic).partition(0).key(&key);
            let record = record.payload(&payload).headers(headers);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_micros(500));
        }
        producer.commit_transaction(Duration::from_secs(30))?;
        transactions += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok((
        (transactions * batch) as f64 / seconds,
        transactions as f64 / seconds,
    ))
}

#[tokio::main]
async fn main() -> Done<()> {
    let mut arguments = std::env::args().skip(1);
    let brokers = arguments.next().ok_or("name a broker: 127.0.0.1:PORT")?;
    let replicas = arguments.next().map_or(Ok(1), |count| count.parse())?;
    let run = EventId::random();
    let place = Place {
        brokers,
        topic: format!("store-rates-{run}"),
        replicas,
        folder: tempfile::TempDir::new()?,
    };
    at_steps(|step| {
        if step == Step::AfterCommit {
            COMMITS.fetch_add(1, Ordering::Relaxed);
        }
    });
    let store = place.open("one", Owns::All).await?;

    let (rate, took) = appends(&store, 1).await?;
    println!(
        "1 caller: {rate:.0} appends/s, p50 {:?}, p99 {:?}",
        percentile(&took, 0.5),
        percentile(&took, 0.99)
    );
    let before = COMMITS.load(Ordering::Relaxed);
    let (rate, took) = appends(&store, TASKS).await?;
    let transactions = COMMITS.load(Ordering::Relaxed) - before;
    println!(
        "{TASKS} callers: {rate:.0} appends/s, p50 {:?}, p99 {:?}",
        percentile(&took, 0.5),
        percentile(&took, 0.99)
    );
    // What the store took together, on average.
    let batch = (took.len() / transactions.max(1)).clamp(1, TASKS);
    let other = Place {
        topic: format!("store-rates-{run}-bare"),
        folder: tempfile::TempDir::new()?,
        brokers: place.brokers.clone(),
        ..place
    };
    drop(other.open("one", Owns::All).await?);
    let (bare, transactions) = bare(&other, &other.topic, batch)?;
    println!(
        "bare client, transactions of {batch}: {bare:.0} records/s, {transactions:.0} \
         transactions/s, ratio {:.2}",
        rate / bare
    );

    let began = Instant::now();
    let place = Place {
        topic: format!("store-rates-{run}"),
        folder: place.folder,
        ..other
    };
    let two = place.open("two", Owns::All).await?;
    println!(
        "take-over, with the copy read from nothing: {:?}",
        began.elapsed()
    );
    drop((store, two));
    let began = Instant::now();
    let one = place.open("one", Owns::All).await?;
    println!("take-over, with a copy: {:?}", began.elapsed());

    let began = Instant::now();
    for number in 0..COPIED / PER_APPEND {
        let stream = StreamId::new(format!("copied-{number}"))?;
        let event = |number| NewEvent::json("counted", payload(number));
        one.append(Append::new(stream, (0..PER_APPEND).map(event)))
            .await?;
    }
    let rate = COPIED as f64 / began.elapsed().as_secs_f64();
    println!("1 caller, appends of {PER_APPEND}: {rate:.0} events/s");
    let events = one.head(Partition(0)).await?.visible.get();
    let began = Instant::now();
    let reader = place.open("reader", Owns::None).await?;
    assert_eq!(reader.head(Partition(0)).await?.visible.get(), events);
    let took = began.elapsed();
    println!(
        "a lost copy of {events} events: {took:?}, {:.1} s per million",
        took.as_secs_f64() / events as f64 * 1e6
    );
    Ok(())
}
