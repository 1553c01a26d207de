//! Three brokers that are stopped and killed in turn, while a relay publishes, a processor copies
//! and readers follow: a program of its own, which borrows a cluster of its own.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

#[path = "it/broker.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod broker;
#[path = "it/cluster.rs"]
mod cluster;

mod on_own_broker {
    use std::collections::BTreeMap;
    use std::ops::Range;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use annals_core::{
        Annals, Append, EventStore as _, Invalid, Log as _, MemoryStore, NewEvent, Partition,
        Position, ReadLog, RecordedEvent, StreamId,
    };
    use annals_kafka::{Kafka, NewRecord, Processor, Relay, Topic, TopicLog, TopicSpec};

    use super::broker::{fresh, is_long};
    use super::cluster::Cluster;

    /// How long readers may take after the last broker is back.
    const TIMEOUT: Duration = Duration::from_secs(90);

    const STREAMS: usize = 40;

    /// The numbers of each key, in the order in which they were read.
    type Numbers = BTreeMap<String, Vec<u64>>;

    /// Reads on until it has seen so many events; brokers may be away meanwhile.
    async fn read_on(log: &TopicLog, count: usize, seen: &AtomicUsize) -> Numbers {
        let mut places = vec![Position::START; log.partitions() as usize];
        let mut numbers = Numbers::new();
        let mut hint = log.hint();
        while seen.load(Ordering::SeqCst) < count {
            let more = read_once(log, &mut places, &mut numbers).await;
            seen.fetch_add(more, Ordering::SeqCst);
            hint.wait(Duration::from_millis(100)).await;
        }
        numbers
    }

    async fn read_once(log: &TopicLog, places: &mut [Position], numbers: &mut Numbers) -> usize {
        let mut seen = 0;
        for (partition, place) in (0..).map(Partition).zip(places) {
            let read = ReadLog::after(*place).partition(partition);
            let Ok(page) = log.read(read).await else {
                continue;
            };
            *place = page.scanned;
            seen += page.events.len();
            collect(numbers, page.events);
        }
        seen
    }

    fn collect(numbers: &mut Numbers, events: Vec<RecordedEvent>) {
        for event in events {
            let number = std::str::from_utf8(&event.payload).unwrap();
            let key = event.stream.id().trim_start_matches("account-").to_owned();
            let of_key = numbers.entry(key).or_default();
            of_key.push(number.parse().unwrap());
        }
    }

    /// Everything that is there now, by a reader of its own.
    async fn read_all(log: &TopicLog) -> Numbers {
        let mut numbers = Numbers::new();
        for partition in (0..log.partitions()).map(Partition) {
            let mut after = Position::START;
            loop {
                let read = ReadLog::after(after).partition(partition);
                // A partition may have no leader for longer than one read waits.
                let Ok(page) = log.read(read).await else {
                    continue;
                };
                collect(&mut numbers, page.events);
                after = page.scanned;
                if page.end {
                    break;
                }
            }
        }
        numbers
    }

    /// Appends an event with each of these numbers to each stream.
    async fn append(store: &MemoryStore, numbers: Range<usize>) {
        for stream in (0..STREAMS).filter(|_| !numbers.is_empty()) {
            let event = |number| NewEvent::json("a.counted", format!("{number}"));
            let stream = StreamId::new(format!("account-{stream}")).unwrap();
            let append = Append::new(stream, numbers.clone().map(event));
            store.append(append).await.unwrap();
        }
    }

    async fn opened(kafka: &Kafka, topic: &str) -> TopicLog {
        kafka.log(Topic::named(topic).cloud_events()).await.unwrap()
    }

    /// Copies records to a topic with as many partitions.
    fn copier(from: &'static str, to: &'static str) -> Processor {
        Processor::named(to)
            .reads(from)
            .writes(TopicSpec::existing(to))
            .each_bytes(move |record, out| {
                let key = record.key().unwrap_or_default();
                let copy = NewRecord::to(to).key(key);
                out.record(copy.value(record.value().unwrap_or_default()));
                Ok::<_, Invalid>(())
            })
    }

    async fn opened_copy(kafka: &Kafka, topic: &str) -> TopicLog {
        let named = Topic::named(topic).every_record_is("a.counted");
        kafka.log(named.category("copy")).await.unwrap()
    }

    /// A reader that follows all the time, and how much it has seen.
    struct Reader {
        reads: tokio::task::JoinHandle<Numbers>,
        seen: Arc<AtomicUsize>,
        log: TopicLog,
    }

    impl Reader {
        fn of(log: TopicLog, events: usize) -> Reader {
            let seen = Arc::new(AtomicUsize::new(0));
            let (of_reader, counts) = (log.clone(), Arc::clone(&seen));
            let reads = tokio::spawn(async move { read_on(&of_reader, events, &counts).await });
            Reader { reads, seen, log }
        }

        async fn ends(self, events: usize) -> Numbers {
            match tokio::time::timeout(TIMEOUT, self.reads).await {
                Ok(numbers) => numbers.unwrap(),
                Err(_) => {
                    let seen = self.seen.load(Ordering::SeqCst);
                    let later = read_all(&self.log).await;
                    let later: usize = later.values().map(Vec::len).sum();
                    panic!("the reader saw {seen} of {events} events, a later one {later}");
                }
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_event_is_relayed_and_copied_once_while_nodes_bounce() {
        let (events, rounds) = if is_long() { (100_000, 4) } else { (12_000, 1) };
        let began = Instant::now();
        let cluster = Cluster::borrow();
        let settings = [("session.timeout.ms", "6000")];
        let kafka = Kafka::connect_with(&cluster.url, settings).await.unwrap();
        let published: &'static str = fresh("bounced").leak();
        let copied: &'static str = fresh("copied").leak();
        let specs = [published, copied].map(|name| TopicSpec::named(name).partitions(3));
        let specs = specs.map(|spec| spec.replicas(3));
        kafka.ensure(specs).await.unwrap();

        let store = Arc::new(MemoryStore::new());
        let db = Annals::on(Arc::<MemoryStore>::clone(&store));
        let relay = Relay::named(published)
            .batch_events_max(200)
            .to(&kafka, TopicSpec::existing(published));
        let mut publishes =
            tokio::spawn(async move { relay.run(&db, std::future::pending()).await });
        let (copier, of_copier) = (copier(published, copied), kafka.clone());
        let mut copies =
            tokio::spawn(async move { copier.run(&of_copier, std::future::pending()).await });
        // Readers that follow all the time see each event once too.
        let relayed = Reader::of(opened(&kafka, published).await, events);
        let copy = Reader::of(opened_copy(&kafka, copied).await, events);

        let bounces: Vec<(&'static str, usize)> = (0..rounds)
            .flat_map(|_| [1, 2, 3])
            .flat_map(|node| [("stop", node), ("kill", node)])
            .collect();
        let per_bounce = events / STREAMS / bounces.len();
        let mut next = 0;
        for (word, node) in &bounces {
            append(&store, next..next + per_bounce).await;
            next += per_bounce;
            cluster.control(word, *node).await;
            cluster.control("start", *node).await;
        }
        // What is left of the division.
        append(&store, next..events / STREAMS).await;
        let expected: Numbers = (0..STREAMS)
            .map(|stream| (stream.to_string(), (0..(events / STREAMS) as u64).collect()))
            .collect();
        // Nothing twice, nothing missing, in order per key.
        let both = async {
            assert!(relayed.ends(events).await == expected, "what was relayed");
            assert!(copy.ends(events).await == expected, "what was copied");
        };
        tokio::select! {
            () = both => {}
            ended = &mut publishes => panic!("the relay ended: {ended:?}"),
            ended = &mut copies => panic!("the processor ended: {ended:?}"),
        }
        publishes.abort();
        copies.abort();
        // And so do those who read everything afterwards: nothing came later.
        for log in [
            opened(&kafka, published).await,
            opened_copy(&kafka, copied).await,
        ] {
            let all = tokio::time::timeout(TIMEOUT, read_all(&log)).await;
            assert!(all.unwrap() == expected, "a reader of all");
        }
        let (bounces, seconds) = (bounces.len(), began.elapsed().as_secs());
        println!("{events} events, relayed and copied over {bounces} bounces in {seconds} s");
    }
}
