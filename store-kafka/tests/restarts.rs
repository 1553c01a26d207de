//! Brokers that are stopped and killed while they are used: a program of its own, because nothing
//! else can use them meanwhile.

#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

#[path = "it/broker.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod broker;

mod on_own_broker {
    mod lost_marks;

    use std::collections::BTreeMap;
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use annals_core::{
        Annals, Append, EventStore as _, Invalid, Log as _, LogId, MemoryStore, NewEvent, Outgoing,
        Outlet as _, OutletError, OutletMark, Partition, Position, ReadLog, StreamId,
    };
    use annals_kafka::testing::{Step, at_steps};
    use annals_kafka::{Kafka, KafkaOutlet, Processor, Relay, Topic, TopicLog, TopicSpec};
    use tokio::sync::oneshot;

    use super::broker::{fresh, is_long, kafka};

    /// How long everything may take, with a broker that recovers in between.
    const TIMEOUT: Duration = Duration::from_secs(180);

    const STREAMS: usize = 40;

    /// The long form begins no restart more after this.
    const LONGEST: Duration = Duration::from_secs(240);

    /// How long what a caller waits for may take while no broker answers.
    const WITHOUT_BROKER: Duration = Duration::from_secs(45);

    /// There is one broker, and each test stops it.
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    /// Asks the program that controls the brokers for something.
    async fn control(word: &'static str) {
        let asked = tokio::task::spawn_blocking(move || control_now(word));
        asked.await.unwrap();
    }

    fn control_now(word: &str) {
        let program = std::env::var("ANNALS_TEST_KAFKA_CONTROL").expect(
            "ANNALS_TEST_KAFKA_CONTROL names no program: run `cargo xtask test -p annals-kafka`, \
             or set it to one that takes `stop`, `kill` or `start` and the number of a node",
        );
        let asked = Command::new(program).args([word, "1"]).status();
        assert!(asked.unwrap().success(), "{word}");
    }

    /// Reads on until it has seen so many events, as soon as one knows how many; brokers may be
    /// away meanwhile.
    async fn read_on(log: &TopicLog, count: &AtomicUsize) -> BTreeMap<StreamId, Vec<u64>> {
        let mut places = vec![Position::START; log.partitions() as usize];
        let mut versions: BTreeMap<StreamId, Vec<u64>> = BTreeMap::new();
        let mut seen = 0;
        let mut hint = log.hint();
        while seen < count.load(Ordering::SeqCst) {
            for (partition, place) in places.iter_mut().enumerate() {
                let read = ReadLog::after(*place).partition(Partition(partition as u32));
                let Ok(page) = log.read(read).await else {
                    continue;
                };
                *place = page.scanned;
                seen += page.events.len();
                for event in page.events {
                    versions
                        .entry(event.stream)
                        .or_default()
                        .push(event.version.get());
                }
            }
            hint.wait(Duration::from_millis(100)).await;
        }
        versions
    }

    async fn opened(kafka: &Kafka, topic: &str) -> TopicLog {
        kafka.log(Topic::named(topic).cloud_events()).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_relay_publishes_each_event_once_over_broker_restarts() {
        let _turn = TURN.lock().await;
        let (events, rounds) = if is_long() { (100_000, 5) } else { (20_000, 1) };
        let kafka = kafka().await;
        let name = fresh("restarts").leak() as &str;
        kafka
            .ensure([TopicSpec::named(name).partitions(3)])
            .await
            .unwrap();
        let store = Arc::new(MemoryStore::new());
        let relay = Relay::named(name)
            .batch_events_max(200)
            .to(&kafka, TopicSpec::existing(name));
        let db = Annals::on(Arc::<MemoryStore>::clone(&store));
        let publishes = tokio::spawn(async move { relay.run(&db, std::future::pending()).await });
        // A reader that follows all the time, and sees each event once too.
        let follows = opened(&kafka, name).await;
        let count = Arc::new(AtomicUsize::new(usize::MAX));
        let counts = Arc::clone(&count);
        let reads = tokio::spawn(async move { read_on(&follows, &counts).await });

        let began = Instant::now();
        let per_step = events / STREAMS / (rounds * 2);
        let mut steps = 0;
        for step in (0..rounds * 2).take_while(|_| began.elapsed() < LONGEST) {
            steps += 1;
            for stream in 0..STREAMS {
                let stream = StreamId::new(format!("account-{stream}")).unwrap();
                let event = |number| NewEvent::json("a.counted", format!("{number}"));
                let append = Append::new(stream, (0..per_step).map(event));
                store.append(append).await.unwrap();
            }
            control(if step % 2 == 0 { "kill" } else { "stop" }).await;
            control("start").await;
        }
        let per_stream = (per_step * steps) as u64;
        let events = per_step * steps * STREAMS;
        count.store(events, Ordering::SeqCst);
        println!("{events} events over {steps} restarts");
        let versions = tokio::time::timeout(TIMEOUT, reads).await.unwrap().unwrap();
        publishes.abort();
        let expected: BTreeMap<StreamId, Vec<u64>> = (0..STREAMS)
            .map(|stream| {
                let stream = StreamId::new(format!("account-{stream}")).unwrap();
                (stream, (1..=per_stream).collect())
            })
            .collect();
        assert_eq!(versions, expected);
        // And so does one that reads everything afterwards.
        let log = opened(&kafka, name).await;
        let all = tokio::time::timeout(TIMEOUT, read_on(&log, &count)).await;
        assert_eq!(all.unwrap(), expected);
        let mut extra = 0;
        for partition in (0..3).map(Partition) {
            let head = log.head(partition).await.unwrap().visible;
            let read = ReadLog::after(head).partition(partition);
            extra += log.read(read).await.unwrap().events.len();
        }
        assert_eq!(extra, 0);
    }

    /// Whether the broker is stopped before the next commit.
    static STOPS: AtomicBool = AtomicBool::new(false);

    fn stop_at(step: Step) {
        if step == Step::BeforeCommit && STOPS.swap(false, Ordering::SeqCst) {
            control_now("stop");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_commit_without_a_broker_ends_undecided() {
        let _turn = TURN.lock().await;
        let kafka = kafka().await;
        let name = fresh("undecided");
        let spec = TopicSpec::named(&name).partitions(1);
        kafka.ensure([spec]).await.unwrap();
        let mut outlet = KafkaOutlet::named(&kafka, &name).unwrap();
        outlet.open().await.unwrap();
        at_steps(stop_at);
        STOPS.store(true, Ordering::SeqCst);
        let outgoing = Outgoing {
            to: name.as_str().into(),
            key: "ada".into(),
            payload: Some("1".into()),
            headers: Vec::new(),
            occurred_at: annals_core::chrono::DateTime::UNIX_EPOCH,
        };
        let mark = OutletMark {
            log: LogId::random(),
            partition: Partition(0),
            position: Position::new(1),
            event: None,
            note: Default::default(),
        };
        let taken = outlet.take(vec![outgoing], mark.clone());
        let taken = tokio::time::timeout(WITHOUT_BROKER, taken).await;
        control("start").await;
        let taken = taken.expect("it ends without a broker");
        assert!(matches!(taken, Err(OutletError::Undecided(_))), "{taken:?}");
        // Opening it again decides: the mark is there with its record, or neither is.
        let marks = tokio::time::timeout(TIMEOUT, async {
            loop {
                if let Ok(marks) = outlet.open().await {
                    return marks;
                }
            }
        });
        let marks = marks.await.unwrap();
        let log = kafka.log(Topic::named(&name)).await.unwrap();
        let page = log.read(ReadLog::after(Position::START)).await.unwrap();
        assert!(marks.is_empty() || marks == [mark]);
        assert_eq!(page.events.len(), marks.len());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_processor_that_is_stopped_without_a_broker_ends() {
        let _turn = TURN.lock().await;
        let kafka = kafka().await;
        let name = fresh("stopped");
        let spec = TopicSpec::named(&name).partitions(1);
        kafka.ensure([spec]).await.unwrap();
        super::broker::send(&kafka, &name, &[("ada", "1")]).await;
        let (commits, committed) = oneshot::channel();
        let commits = std::sync::Mutex::new(Some(commits));
        let processor = Processor::named(&name)
            .reads(&name)
            .on_commit(move |_| drop(commits.lock().unwrap().take()))
            .each_bytes(|_, _| Ok::<_, Invalid>(()));
        let (stop, stopped) = oneshot::channel::<()>();
        let runs = tokio::spawn(async move {
            let until = async { drop(stopped.await) };
            processor.run(&kafka, until).await
        });
        let first: Result<(), _> = tokio::time::timeout(TIMEOUT, committed).await.unwrap();
        assert!(first.is_err(), "the sender is dropped at the first commit");
        control("kill").await;
        drop(stop);
        let ended = tokio::time::timeout(WITHOUT_BROKER, runs).await;
        control("start").await;
        ended.expect("it ends without a broker").unwrap().unwrap();
    }
}
