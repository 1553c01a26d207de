//! A store while its broker is killed, its writers are paused, and several processes want to own
//! the same: a program of its own, because nothing else can use the broker meanwhile.

#![cfg(feature = "store")]
#![allow(clippy::unwrap_used)] // What must not fail is unwrapped.

#[path = "it/broker.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod broker;
#[path = "it/cluster.rs"]
mod cluster;

mod on_own_broker {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;
    use std::process::Command;
    use std::sync::{Mutex, PoisonError, mpsc};
    use std::time::{Duration, Instant};

    use annals_core::{
        Append, AppendError, Appended, EventId, EventStore as _, Expected, Log as _, LogId,
        NewEvent, Outgoing, Outlet as _, OutletError, OutletMark, Partition, Position, ReadLog,
        RecordedEvent, StreamId, Version,
    };
    use annals_kafka::store::{Options, Owns};
    use annals_kafka::testing::{Step, at_steps};
    use annals_kafka::{KafkaOutlet, KafkaStore, Topic, TopicSpec};
    use tempfile::TempDir;

    use super::broker::{fresh, is_long, url};
    use super::cluster::Cluster;

    /// How long an append may take, with a broker that comes back in between.
    const TIMEOUT: Duration = Duration::from_secs(120);

    /// There is one broker and one hook, and each test uses them.
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    type Held = Box<dyn FnOnce() + Send>;

    /// What happens before the next commit.
    static HELD: Mutex<Option<Held>> = Mutex::new(None);

    fn before_the_next_commit(held: impl FnOnce() + Send + 'static) {
        at_steps(|step| {
            if step == Step::BeforeCommit {
                let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(held) = held {
                    held();
                }
            }
        });
        *HELD.lock().unwrap() = Some(Box::new(held));
    }

    fn control_now(word: &str) {
        let program = std::env::var("ANNALS_TEST_KAFKA_CONTROL").expect(
            "ANNALS_TEST_KAFKA_CONTROL names no program: run `cargo xtask test -p annals-kafka`",
        );
        let asked = Command::new(program).args([word, "1"]).status();
        assert!(asked.unwrap().success(), "{word}");
    }

    async fn control(word: &'static str) {
        let asked = tokio::task::spawn_blocking(move || control_now(word));
        asked.await.unwrap();
    }

    /// Opens it as a process of its own; brokers may be away meanwhile.
    async fn open(brokers: &str, topic: &str, folder: &Path, process: &str) -> KafkaStore {
        loop {
            let options = Options::new(brokers, topic, folder.join(process))
                .partitions(3)
                .advertise(process)
                .owns(Owns::All);
            match KafkaStore::open_with(options).await {
                Ok(store) => return store,
                Err(error) if error.failure() == annals_core::Failure::Unavailable => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn events(count: usize) -> Vec<NewEvent> {
        let event = |n: usize| NewEvent::json("thing.happened", n.to_string());
        (0..count).map(event).collect()
    }

    fn ids(events: &[NewEvent]) -> Vec<EventId> {
        events.iter().map(|event| event.id).collect()
    }

    async fn log(store: &KafkaStore, partition: Partition) -> Vec<RecordedEvent> {
        let mut read = ReadLog::after(Position::START).partition(partition);
        let mut all = Vec::new();
        loop {
            let page = store.read(read.clone()).await.unwrap();
            all.extend(page.events);
            if page.end {
                return all;
            }
            read.after = page.scanned;
        }
    }

    /// The answer to an append of two events.
    struct Told {
        given: Vec<NewEvent>,
        to: StreamId,
        outcome: Result<Appended, AppendError>,
    }

    /// Counts of what must not be.
    #[derive(Debug, Default, PartialEq)]
    struct Damage {
        gaps: usize,
        torn: usize,
        lost: usize,
        refused_and_there: usize,
        unresolved: usize,
    }

    /// Compares what was told with what a process finds that has nothing but the topic.
    async fn damage(store: &KafkaStore, told: &[Told]) -> Damage {
        let mut damage = Damage::default();
        let mut placed = BTreeMap::new();
        for partition in (0..store.partitions()).map(Partition) {
            let mut versions: BTreeMap<StreamId, u64> = BTreeMap::new();
            let all = log(store, partition).await;
            for (event, position) in all.iter().zip(1..) {
                let version = versions.entry(event.stream.clone()).or_default();
                *version += 1;
                if event.position.get() != position || event.version.get() != *version {
                    damage.gaps += 1;
                }
                placed.insert(event.id, (event.partition, event.position));
            }
            let whole = |pair: &[RecordedEvent]| {
                matches!(pair, [a, b]
                if (a.append_index, b.append_index) == (0, 1) && a.stream == b.stream)
            };
            damage.torn += all.chunks(2).filter(|pair| !whole(pair)).count();
        }
        for Told { given, to, outcome } in told {
            let found: Vec<_> = ids(given)
                .iter()
                .map(|id| placed.get(id).copied())
                .collect();
            let is_there = found.iter().all(Option::is_some);
            let is_absent = found.iter().all(Option::is_none);
            match outcome {
                Ok(appended) => {
                    let as_told =
                        |placed: &annals_core::Placed| Some((placed.partition, placed.position));
                    let said: Vec<_> = appended.events().iter().map(as_told).collect();
                    damage.lost += usize::from(said != found);
                }
                Err(AppendError::Unknown(_)) => {
                    // Asking again tells.
                    let again = Append::new(to.clone(), given.clone());
                    // One that was closed just now may still have taken it over once.
                    let mut hint = store.hint();
                    let again = loop {
                        match store.append(again.clone()).await {
                            Err(AppendError::NotOwner { .. }) => {
                                hint.wait(Duration::from_millis(100)).await;
                            }
                            again => break again.unwrap(),
                        }
                    };
                    let is_right = again.was_repeated() == is_there && is_there != is_absent;
                    damage.unresolved += usize::from(!is_right);
                }
                Err(_) => damage.refused_and_there += usize::from(!is_absent),
            }
        }
        damage
    }

    /// Appends under versions until the moment, two events each.
    async fn contend(store: KafkaStore, until: Instant, seed: usize) -> Vec<Told> {
        let mut told = Vec::new();
        let mut hint = store.hint();
        for turn in seed.. {
            if Instant::now() >= until {
                break;
            }
            let to = StreamId::new(format!("contended-{}", turn % 6)).unwrap();
            let state = store.stream_state(&to).await.unwrap();
            let given = events(2);
            let append =
                Append::new(to.clone(), given.clone()).expecting(Expected::Version(state.version));
            let outcome = store.append(append).await;
            if outcome.is_err() {
                hint.wait(Duration::from_millis(100)).await;
            }
            told.push(Told { given, to, outcome });
        }
        told
    }

    /// Three processes that all want everything, while something happens to the brokers.
    async fn contention(
        brokers: &str,
        topic: &str,
        lasts: Duration,
        fault: impl Future<Output = ()>,
    ) -> Vec<Told> {
        let folder = TempDir::new().unwrap();
        let until = Instant::now() + lasts;
        let mut tasks = Vec::new();
        for process in ["one", "two", "three"] {
            let store = open(brokers, topic, folder.path(), process).await;
            for seed in 0..4 {
                tasks.push(tokio::spawn(contend(store.clone(), until, seed)));
            }
        }
        fault.await;
        let mut told = Vec::new();
        for task in tasks {
            told.extend(task.await.unwrap());
        }
        let fresh = TempDir::new().unwrap();
        let store = open(brokers, topic, fresh.path(), "checker").await;
        assert_eq!(damage(&store, &told).await, Damage::default());
        told
    }

    /// One broker that is killed; in the long form three of them, in turn.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_three_owners_and_killed_brokers_nothing_is_damaged() {
        let _turn = TURN.lock().await;
        let topic = fresh("contended");
        let told = if is_long() {
            let cluster = Cluster::borrow();
            make(&cluster.url, &topic, 3).await;
            let fault = async {
                for node in [1, 2, 3] {
                    cluster.control("kill", node).await;
                    cluster.control("start", node).await;
                }
            };
            contention(&cluster.url, &topic, Duration::from_secs(60), fault).await
        } else {
            let fault = async {
                control("kill").await;
                control("start").await;
            };
            contention(&url(), &topic, Duration::from_secs(8), fault).await
        };
        let count = |of: fn(&Result<Appended, AppendError>) -> bool| {
            told.iter().filter(|told| of(&told.outcome)).count()
        };
        let acknowledged = count(Result::is_ok);
        let unknown = count(|outcome| matches!(outcome, Err(AppendError::Unknown(_))));
        let refused = told.len() - acknowledged - unknown;
        println!("{acknowledged} acknowledged, {refused} refused, {unknown} unknown");
        assert!(acknowledged > 0);
    }

    /// Makes the topic with so many replicas.
    async fn make(brokers: &str, topic: &str, replicas: u16) {
        let folder = TempDir::new().unwrap();
        let options = Options::new(brokers, topic, folder.path())
            .partitions(3)
            .replicas(replicas)
            .owns(Owns::All);
        KafkaStore::open_with(options).await.unwrap();
    }

    /// What became of an append. Where that is unknown it is asked for again, also while the
    /// partition is being opened, until it is told.
    async fn told(
        store: &KafkaStore,
        append: &Append,
        outcome: Result<Appended, AppendError>,
    ) -> Appended {
        let mut hint = store.hint();
        let mut outcome = outcome;
        let began = Instant::now();
        loop {
            match outcome {
                Ok(appended) => return appended,
                Err(AppendError::Unknown(_) | AppendError::NotOwner { .. })
                    if began.elapsed() < TIMEOUT => {}
                Err(error) => panic!("{error}"),
            }
            hint.wait(Duration::from_millis(100)).await;
            outcome = store.append(append.clone()).await;
        }
    }

    /// What is done before the commit, and what afterwards.
    struct BrokerFault {
        before: &'static str,
        after: &'static str,
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn an_append_whose_commit_was_cut_off_is_resolved() {
        let _turn = TURN.lock().await;
        let topic = fresh("cut-off");
        let folder = TempDir::new().unwrap();
        let store = open(&url(), &topic, folder.path(), "one").await;
        let to = StreamId::new("cut-off").unwrap();
        // The request of the commit is lost; its answer is (and the broker commits when it goes
        // on); the transaction is open for longer than it may be.
        let mut faults = vec![BrokerFault {
            before: "stop",
            after: "start",
        }];
        if is_long() {
            faults.push(BrokerFault {
                before: "pause",
                after: "resume",
            });
            faults.push(BrokerFault {
                before: "",
                after: "",
            });
        }
        let mut version = 0;
        for BrokerFault { before, after } in faults {
            let (reached, is_reached) = mpsc::channel();
            before_the_next_commit(move || {
                match before {
                    "" => std::thread::park_timeout(Duration::from_secs(13)),
                    word => control_now(word),
                }
                let _ = reached.send(());
            });
            let given = events(2);
            let append = Append::new(to.clone(), given.clone())
                .expecting(Expected::Version(Version::new(version)));
            let appends = {
                let (store, append) = (store.clone(), append.clone());
                tokio::spawn(async move { store.append(append).await })
            };
            let waits = tokio::task::spawn_blocking(move || is_reached.recv());
            waits.await.unwrap().unwrap();
            if before == "pause" {
                // The client gives up, and what it had asked for is done afterwards.
                let mut hint = store.hint();
                while store.owns(store.partition_of(&to)) {
                    hint.wait(Duration::from_millis(100)).await;
                }
            }
            if !after.is_empty() {
                control(after).await;
            }
            let done = tokio::time::timeout(TIMEOUT, appends)
                .await
                .unwrap()
                .unwrap();
            let done = told(&store, &append, done).await;
            version += 2;
            assert_eq!(done.last().version, Version::new(version), "`{before}`");
            let again = store.append(append).await.unwrap();
            assert_eq!((&again, again.was_repeated()), (&done, true));
            let log = log(&store, store.partition_of(&to)).await;
            let there = log.iter().filter(|event| ids(&given).contains(&event.id));
            assert_eq!(
                (there.count(), log.len() as u64),
                (2, version),
                "`{before}`"
            );
        }
        drop(store);
        let fresh = TempDir::new().unwrap();
        let store = open(&url(), &topic, fresh.path(), "checker").await;
        let state = store.stream_state(&to).await.unwrap();
        assert_eq!(state.version, Version::new(version));
    }

    /// What is about to be committed, held until it is released.
    struct AtCommit<T> {
        work: tokio::task::JoinHandle<T>,
        release: mpsc::Sender<()>,
    }

    impl<T: Send + 'static> AtCommit<T> {
        /// Begins the work; it has come to its commit when this returns.
        async fn hold(work: impl Future<Output = T> + Send + 'static) -> AtCommit<T> {
            let (reached, is_reached) = mpsc::channel();
            let (release, is_released) = mpsc::channel::<()>();
            before_the_next_commit(move || {
                let _ = reached.send(());
                let _ = is_released.recv();
            });
            let work = tokio::spawn(work);
            let waits = tokio::task::spawn_blocking(move || is_reached.recv());
            waits.await.unwrap().unwrap();
            AtCommit { work, release }
        }

        async fn go_on(self) -> T {
            drop(self.release);
            let done = tokio::time::timeout(TIMEOUT, self.work).await;
            done.unwrap().unwrap()
        }
    }

    fn outgoing(topic: &str) -> Outgoing {
        Outgoing {
            to: topic.into(),
            key: "ada".into(),
            payload: Some("1".into()),
            headers: Vec::new(),
            occurred_at: annals_core::chrono::DateTime::UNIX_EPOCH,
        }
    }

    /// The coordinator aborts both transactions while no broker leads their partitions, and never
    /// tells the partitions (KAFKA-20734).
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn what_a_crashed_broker_left_open_is_ended() {
        let _turn = TURN.lock().await;
        let (topic, published) = (fresh("crashed"), fresh("published"));
        let folder = TempDir::new().unwrap();
        let store = open(&url(), &topic, folder.path(), "one").await;
        let kafka = super::broker::kafka().await;
        let spec = TopicSpec::named(&published).partitions(1);
        kafka.ensure([spec]).await.unwrap();
        let mut outlet = KafkaOutlet::named(&kafka, &published).unwrap();
        outlet.open().await.unwrap();
        let mark = OutletMark {
            log: LogId::random(),
            partition: Partition(0),
            position: Position::new(1),
            event: None,
            note: Default::default(),
        };
        let (batch, its_mark) = (vec![outgoing(&published)], mark.clone());
        let takes = AtCommit::hold(async move { (outlet.take(batch, its_mark).await, outlet) });
        let takes = takes.await;
        let to = StreamId::new("crashed").unwrap();
        let append = Append::new(to.clone(), events(2));
        let appends = {
            let (store, append) = (store.clone(), append.clone());
            AtCommit::hold(async move { store.append(append).await }).await
        };
        control("kill").await;
        // Until both transactions are older than they may be.
        let passes = || std::thread::park_timeout(Duration::from_secs(11));
        tokio::task::spawn_blocking(passes).await.unwrap();
        control("start").await;

        let done = told(&store, &append, appends.go_on().await).await;
        assert_eq!(done.last().version, Version::new(2));
        let log = log(&store, store.partition_of(&to)).await;
        assert_eq!(log.len(), 2);

        let (taken, mut outlet) = takes.go_on().await;
        match taken {
            Err(OutletError::Undecided(_)) => {
                assert_eq!(outlet.open().await.unwrap(), []);
                let batch = vec![outgoing(&published)];
                outlet.take(batch, mark.clone()).await.unwrap();
            }
            // On a busy machine the commit may come before the coordinator has aborted it.
            other => other.unwrap(),
        }
        assert_eq!(outlet.open().await.unwrap(), [mark]);
        let published = kafka.log(Topic::named(&published)).await.unwrap();
        let page = published.read(ReadLog::after(Position::START)).await;
        assert_eq!(page.unwrap().events.len(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_writer_that_was_paused_is_shut_out() {
        let _turn = TURN.lock().await;
        let topic = fresh("paused");
        let folder = TempDir::new().unwrap();
        let one = open(&url(), &topic, folder.path(), "one").await;
        let to = StreamId::new("paused").unwrap();
        let (reached, is_reached) = mpsc::channel();
        let (release, is_released) = mpsc::channel::<()>();
        before_the_next_commit(move || {
            let _ = reached.send(());
            let _ = is_released.recv();
        });
        let given = events(2);
        let appends = {
            let append =
                Append::new(to.clone(), given.clone()).expecting(Expected::Version(Version::NONE));
            let one = one.clone();
            tokio::spawn(async move { one.append(append).await })
        };
        let waits = tokio::task::spawn_blocking(move || is_reached.recv());
        waits.await.unwrap().unwrap();
        // Everything of it was sent and acknowledged; another process opens the store now.
        let two = open(&url(), &topic, folder.path(), "two").await;
        let first = two
            .append(Append::new(to.clone(), events(1)))
            .await
            .unwrap();
        assert_eq!(first.last().version, Version::FIRST);
        drop(release);
        let outcome = tokio::time::timeout(TIMEOUT, appends)
            .await
            .unwrap()
            .unwrap();
        let refused = matches!(
            outcome,
            Err(AppendError::NotOwner { .. } | AppendError::Conflict(_))
        );
        assert!(refused, "{outcome:?}");
        drop((one, two));
        let fresh = TempDir::new().unwrap();
        let store = open(&url(), &topic, fresh.path(), "checker").await;
        let found: BTreeSet<EventId> = log(&store, store.partition_of(&to))
            .await
            .iter()
            .map(|event| event.id)
            .collect();
        assert_eq!(found, [first.last().id].into());
    }
}
