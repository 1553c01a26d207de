//! The contract of a store, on a real broker.

#![cfg(feature = "store")]
#![allow(clippy::unwrap_used)] // A fixture that cannot be made fails its test.

#[path = "it/broker.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod broker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use annals_core::conformance::{Fixture, OwnedFixture};
use annals_core::{Clock, Store};
use annals_kafka::KafkaStore;
use annals_kafka::store::{Options, Owns};
use async_trait::async_trait;
use tempfile::TempDir;

/// A topic and a folder of its own.
#[derive(Debug)]
struct OnKafka {
    topic: String,
    folder: TempDir,
    /// How often the local copies were lost.
    losses: AtomicU32,
}

impl OnKafka {
    fn new() -> OnKafka {
        OnKafka {
            topic: broker::fresh("store"),
            folder: TempDir::new().unwrap(),
            losses: AtomicU32::new(0),
        }
    }

    /// Opens it as a process that has a folder of its own.
    async fn open_as(&self, process: &str, owns: Owns) -> Arc<KafkaStore> {
        let options = self.options(process, owns);
        Arc::new(KafkaStore::open_with(options).await.unwrap())
    }

    fn options(&self, process: &str, owns: Owns) -> Options {
        let losses = self.losses.load(Ordering::SeqCst);
        let folder = self.folder.path().join(format!("{process}-{losses}"));
        Options::new(broker::url(), &self.topic, folder)
            .partitions(3)
            .advertise(process)
            .owns(owns)
    }
}

#[async_trait]
impl Fixture for OnKafka {
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        let options = Options::new(broker::url(), &self.topic, self.folder.path())
            .partitions(3)
            .owns(Owns::All)
            .clock(clock);
        Arc::new(KafkaStore::open_with(options).await.unwrap())
    }

    fn is_shared(&self) -> bool {
        false
    }
}

#[async_trait]
impl OwnedFixture for OnKafka {
    async fn open_owner(&self, process: &str) -> Arc<dyn Store> {
        self.open_as(process, Owns::All).await
    }

    async fn open_reader(&self) -> Arc<dyn Store> {
        self.open_as("reader", Owns::None).await
    }

    async fn lose_copies(&self) {
        self.losses.fetch_add(1, Ordering::SeqCst);
    }
}

mod on_kafka {
    annals_core::conformance! {
        fixture: super::OnKafka::new(),
        traits: [],
    }

    use std::time::Duration;

    use std::fs::File;
    use std::path::{Path, PathBuf};

    use annals_core::{
        Append, AppendError, ChangeStream, EventStore as _, Failure, Log as _, NewEvent, Partition,
        StoreError, StreamChange, StreamId, Version,
    };
    use annals_kafka::store::Owns;
    use annals_kafka::{KafkaStore, NewRecord};
    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};

    /// How many of the three partitions each of them owns, once every partition has one owner.
    async fn shares(stores: &[&KafkaStore]) -> Vec<usize> {
        let mut hint = stores[0].hint();
        loop {
            let owned = |store: &&KafkaStore| {
                let partitions = (0..3).map(Partition);
                partitions.filter(|of| store.owns(*of)).count()
            };
            let shares: Vec<usize> = stores.iter().map(owned).collect();
            if shares.iter().sum::<usize>() == 3 && shares.iter().all(|share| *share > 0) {
                return shares;
            }
            hint.wait(Duration::from_millis(50)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn processes_share_the_partitions_and_the_last_one_has_all() {
        let place = super::OnKafka::new();
        let one = place.open_as("one", Owns::Shared).await;
        assert_eq!(shares(&[&one]).await, [3]);
        let two = place.open_as("two", Owns::Shared).await;
        shares(&[&one, &two]).await;
        let names: Vec<StreamId> = (0..12)
            .map(|n| StreamId::new(format!("shared-{n}")).unwrap())
            .collect();
        let append = |to: &StreamId| Append::new(to.clone(), [NewEvent::json("a", "1")]);
        for to in &names {
            let (owner, other, name) = match one.owns(one.partition_of(to)) {
                true => (&one, &two, "one"),
                false => (&two, &one, "two"),
            };
            owner.append(append(to)).await.unwrap();
            let refused = other.append(append(to)).await;
            assert!(
                matches!(refused, Err(AppendError::NotOwner { .. })),
                "{refused:?}"
            );
            assert_eq!(owner.owner_of(to).as_deref(), Some(name));
        }
        drop(one);
        assert_eq!(shares(&[&two]).await, [3]);
        for to in &names {
            let appended = two.append(append(to)).await.unwrap();
            assert_eq!(appended.last().version, Version::new(2));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_process_that_gives_up_a_partition_never_names_itself() {
        let place = super::OnKafka::new();
        let one = place.open_as("one", Owns::Shared).await;
        assert_eq!(shares(&[&one]).await, [3]);
        let names: Vec<StreamId> = (0..12)
            .map(|n| StreamId::new(format!("given-{n}")).unwrap())
            .collect();
        let appends = async {
            let mut elsewhere = 0;
            for to in names.iter().cycle() {
                let append = Append::new(to.clone(), [NewEvent::json("a", "1")]);
                match one.append(append).await {
                    Err(AppendError::NotOwner { owner }) => {
                        assert_eq!(owner.as_deref(), Some("two"));
                        elsewhere += 1;
                    }
                    Ok(_) | Err(AppendError::OwnershipMoving) => {}
                    Err(error) => panic!("{error:?}"),
                }
                if elsewhere == names.len() {
                    return;
                }
            }
        };
        let (two, ()) = tokio::join!(place.open_as("two", Owns::Shared), appends);
        assert!(shares(&[&one, &two]).await.iter().all(|share| *share < 3));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_idle_owner_reads_what_the_next_one_writes() {
        let place = super::OnKafka::new();
        let one = place.open_as("one", Owns::All).await;
        let to = StreamId::new("idle-1").unwrap();
        let append = || Append::new(to.clone(), [NewEvent::json("a", "1")]);
        one.append(append()).await.unwrap();
        let two = place.open_as("two", Owns::All).await;
        two.append(append()).await.unwrap();
        let mut hint = one.hint();
        let reads = async {
            while one.stream_state(&to).await.unwrap().version < Version::new(2) {
                hint.wait(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(super::broker::TIMEOUT, reads)
            .await
            .unwrap();
        // It leaves the partition to the other one, until it is to append itself.
        assert_eq!(one.owner_of(&to).as_deref(), Some("two"));
        two.append(append()).await.unwrap();
        let appended = loop {
            match one.append(append()).await {
                // It takes longer than an append waits.
                Err(AppendError::Store(error)) if error.failure() == Failure::Unavailable => {}
                appended => break appended.unwrap(),
            }
        };
        assert_eq!(appended.last().version, Version::new(4));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_owner_that_runs_stops_at_a_foreign_record() {
        let place = super::OnKafka::new();
        let owner = place.open_as("one", Owns::All).await;
        let to = StreamId::new("foreign-1").unwrap();
        let append =
            |event_type: &'static str| Append::new(to.clone(), [NewEvent::json(event_type, "1")]);
        owner.append(append("a")).await.unwrap();
        let partition = owner.partition_of(&to);
        let kafka = super::broker::kafka().await;
        let foreign = NewRecord::to(&place.topic)
            .partition(partition.0)
            .value("x");
        let (_, offset) = kafka.publisher().unwrap().send(foreign).await.unwrap();
        for _ in 0..2 {
            let refused = owner.append(append("b")).await;
            let Err(AppendError::Store(error)) = refused else {
                panic!("it was not written, and it is {refused:?}");
            };
            assert_eq!(error.failure(), Failure::Corrupt);
            let said = error.to_string();
            let expected = format!("holds a record at offset {offset} that Annals did not write");
            assert!(said.contains(&expected), "{said}");
        }
        drop(owner);
        let accepted = place
            .options("one", Owns::All)
            .accept_foreign(partition.0, offset);
        let owner = KafkaStore::open_with(accepted).await.unwrap();
        let appended = owner.append(append("c")).await.unwrap();
        assert_eq!(appended.last().version, Version::new(2));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_foreign_record_stalls_readers_after_what_precedes_it() {
        let place = super::OnKafka::new();
        let owner = place.open_as("one", Owns::All).await;
        let reader = place.open_as("reader", Owns::None).await;
        let to = StreamId::new("before-1").unwrap();
        let append = Append::new(to.clone(), [NewEvent::json("a", "1")]);
        owner.append(append).await.unwrap();
        let partition = owner.partition_of(&to);
        assert_eq!(reader.stalled(partition), None);
        let kafka = super::broker::kafka().await;
        let foreign = NewRecord::to(&place.topic)
            .partition(partition.0)
            .value("x");
        let (_, offset) = kafka.publisher().unwrap().send(foreign).await.unwrap();
        let expected = format!("holds a record at offset {offset} that Annals did not write");
        let stalls = async {
            loop {
                match reader.stalled(partition) {
                    Some(why) if why.contains(&expected) => return,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(super::broker::TIMEOUT, stalls)
            .await
            .unwrap();
        let others = (0..3).map(Partition).filter(|of| *of != partition);
        assert!(others.map(|of| reader.stalled(of)).all(|why| why.is_none()));
        // One that reads everything at once.
        let said = refused(&place, "two", Owns::None).await.to_string();
        assert!(said.contains(&expected), "{said}");
        let folder = place.options("two", Owns::None).local().to_owned();
        let file = folder.join(format!("{}.db", partition.0));
        let copy = format!("sqlite:{}?mode=ro", file.display());
        let copy = annals_sqlite::SqliteStore::open(&copy).await.unwrap();
        let state = copy.stream_state(&to).await.unwrap();
        assert_eq!(state.version, Version::FIRST);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_owner_whose_copy_was_closed_owns_no_more() {
        let place = super::OnKafka::new();
        let owner = place.open_as("one", Owns::All).await;
        let (closed, other) = (Partition(0), Partition(1));
        let folder = place.options("one", Owns::All).local().to_owned();
        std::fs::remove_file(folder.join("0.db")).unwrap();
        let mut look = tokio::time::interval(Duration::from_millis(10));
        let gives_up = async {
            while owner.owns(closed) || owner.stalled(closed).is_none() {
                look.tick().await;
            }
        };
        tokio::time::timeout(super::broker::TIMEOUT, gives_up)
            .await
            .unwrap();
        let why = owner.stalled(closed).unwrap();
        assert!(why.contains("the store is closed"), "{why}");
        let of = |partition| {
            let mut names = names().into_iter();
            names
                .find(|to| owner.partition_of(to) == partition)
                .unwrap()
        };
        let append = |to| Append::new(to, [NewEvent::json("a", "1")]);
        let refused = owner.append(append(of(closed))).await.unwrap_err();
        assert!(refused.to_string().contains("is closed"), "{refused}");
        owner.append(append(of(other))).await.unwrap();
        assert_eq!(owner.stalled(other), None);
    }

    /// The error of opening it.
    async fn refused(place: &super::OnKafka, process: &str, owns: Owns) -> StoreError {
        let opened = KafkaStore::open_with(place.options(process, owns)).await;
        opened.expect_err("it is refused")
    }

    fn names() -> Vec<StreamId> {
        let name = |n| StreamId::new(format!("account-{n}")).unwrap();
        (0..12).map(name).collect()
    }

    /// One event in each of some streams, of all partitions.
    async fn fill(store: &KafkaStore) {
        for to in names() {
            let append = Append::new(to, [NewEvent::json("a", "1")]);
            store.append(append).await.unwrap();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_recreated_topic_is_refused_whatever_the_copy_ends_with() {
        for ends_with in ["note", "event", "change"] {
            let place = super::OnKafka::new();
            let write = async |process: &str| {
                let store = place.open_as(process, Owns::All).await;
                fill(&store).await;
                match ends_with {
                    "note" => {
                        drop(store);
                        place.open_as(process, Owns::All).await;
                    }
                    "change" => {
                        for name in names() {
                            let change = ChangeStream::new(&name, StreamChange::Delete);
                            store.change_stream(change).await.unwrap();
                        }
                    }
                    _ => {}
                }
            };
            write("one").await;
            let kafka = super::broker::kafka().await;
            kafka.delete_topic(&place.topic).await.unwrap();
            while kafka.partitions_of(&place.topic).await.is_ok() {}
            write("two").await;
            let error = refused(&place, "one", Owns::None).await;
            let said = error.to_string();
            assert!(
                said.contains("is not of what") && said.contains("at the end of the copy"),
                "{ends_with}: {said}"
            );
            assert_eq!(error.failure(), Failure::Corrupt);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn added_partitions_are_refused_with_and_without_a_copy() {
        let place = super::OnKafka::new();
        fill(&*place.open_as("one", Owns::All).await).await;
        let kafka = super::broker::kafka().await;
        kafka.grow_topic(&place.topic, 4).await.unwrap();
        while kafka.partitions_of(&place.topic).await.unwrap() != 4 {}
        for process in ["one", "fresh"] {
            let said = refused(&place, process, Owns::All).await.to_string();
            let expected = "was written as one of 3 partitions and has 4";
            assert!(said.contains(expected), "{process}: {said}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_process_that_is_refused_interrupts_no_owner() {
        let place = super::OnKafka::new();
        let owner = place.open_as("one", Owns::All).await;
        let to = StreamId::new("grown-1").unwrap();
        let append = Append::new(to.clone(), [NewEvent::json("a", "1")]);
        owner.append(append).await.unwrap();
        let kafka = super::broker::kafka().await;
        kafka.grow_topic(&place.topic, 4).await.unwrap();
        while kafka.partitions_of(&place.topic).await.unwrap() != 4 {}
        refused(&place, "fresh", Owns::All).await;
        assert_not_fenced(&place, &owner, &to).await;
    }

    /// Appends one event, and looks at what that has written.
    async fn assert_not_fenced(place: &super::OnKafka, owner: &KafkaStore, to: &StreamId) {
        let broker = super::broker::url();
        let reader: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", broker.trim_start_matches("kafka://"))
            .create()
            .unwrap();
        let partition = owner.partition_of(to).0.cast_signed();
        let end = || {
            let bounds = reader.fetch_watermarks(&place.topic, partition, super::broker::TIMEOUT);
            bounds.unwrap().1
        };
        let before = end();
        let append = Append::new(to.clone(), [NewEvent::json("a", "1")]);
        owner.append(append).await.unwrap();
        // The event and its marker: an owner that was fenced would have said first that it is one.
        assert_eq!(end(), before + 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_copy_that_is_refused_interrupts_no_owner() {
        let place = super::OnKafka::new();
        let owner = place.open_as("one", Owns::All).await;
        let to = StreamId::new("behind-1").unwrap();
        let append = || Append::new(to.clone(), [NewEvent::json("a", "1")]);
        owner.append(append()).await.unwrap();
        drop(place.open_as("two", Owns::None).await);
        owner.append(append()).await.unwrap();
        owner.append(append()).await.unwrap();
        // The owner's note and two events, each with its marker: the copy of the other process ends
        // before.
        let kafka = super::broker::kafka().await;
        let partition = owner.partition_of(&to);
        let removed = kafka.delete_records(&place.topic, partition, 6).await;
        removed.unwrap();
        let error = refused(&place, "two", Owns::All).await;
        assert_eq!(error.failure(), Failure::Corrupt);
        let said = format!("has lost its records before offset 6 of partition {partition}");
        assert!(error.to_string().contains(&said), "{error}");
        // Also those of the other partitions, whose copies are right.
        for to in names() {
            assert_not_fenced(&place, &owner, &to).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn removed_records_are_told_and_no_copy_is_given_up() {
        let place = super::OnKafka::new();
        let store = place.open_as("one", Owns::All).await;
        let to = StreamId::new("removed-1").unwrap();
        let partition = store.partition_of(&to);
        let append = Append::new(to, [NewEvent::json("a", "1")]);
        store.append(append).await.unwrap();
        drop(store);
        // The owner's note, its marker, and the event.
        let kafka = super::broker::kafka().await;
        let removed = kafka.delete_records(&place.topic, partition, 3).await;
        removed.unwrap();
        let lost = format!(
            "topic `{}` has lost its records before offset 3 of partition {partition}",
            place.topic
        );
        for (process, way_out) in [
            ("one", "Do not remove it, it may be all that is left"),
            ("fresh", "there is no local copy of them"),
        ] {
            let said = refused(&place, process, Owns::None).await.to_string();
            assert!(said.contains(&lost) && said.contains(way_out), "{said}");
        }
    }

    /// Waits until no process uses the folder.
    async fn released(folder: &Path) {
        let lock = File::open(folder.join("lock")).unwrap();
        let locked = tokio::task::spawn_blocking(move || lock.lock());
        locked.await.unwrap().unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_unusable_copy_names_its_file_and_the_way_out() {
        let place = super::OnKafka::new();
        fill(&*place.open_as("one", Owns::All).await).await;
        let folder = place.options("one", Owns::None).local().to_owned();
        let file = |number: u32| -> PathBuf { folder.join(format!("{number}.db")) };
        let says = async |why: &str, number: u32| {
            let said = refused(&place, "one", Owns::None).await.to_string();
            let named = format!("partition {number}, `{}`", file(number).display());
            assert!(
                said.contains(why) && said.contains(&named) && said.contains("move the file away"),
                "{said}"
            );
            assert!(!said.contains("backup"), "{said}");
            released(&folder).await;
        };
        released(&folder).await;
        let aside = folder.join("aside");
        std::fs::rename(file(0), &aside).unwrap();
        std::fs::copy(file(1), file(0)).unwrap();
        says("it is of another partition", 0).await;
        std::fs::write(file(0), "no database at all".repeat(1_000)).unwrap();
        says("file is not a database", 0).await;
        std::fs::remove_file(file(0)).unwrap();
        let store = place.open_as("one", Owns::None).await;
        for to in names() {
            let state = store.stream_state(&to).await.unwrap();
            assert_eq!(state.version, Version::FIRST);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_topic_that_cannot_be_made_is_invalid_and_named() {
        let place = super::OnKafka::new();
        let options = || place.options("one", Owns::All);
        for (options, said) in [
            (options().replicas(3), "`replicas=3`"),
            (options().partitions(100_001), "`partitions=100001`"),
        ] {
            let error = KafkaStore::open_with(options).await.unwrap_err();
            assert_eq!(error.failure(), Failure::Invalid, "{error}");
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    mod owners {
        annals_core::conformance_of_owners! {
            fixture: crate::OnKafka::new(),
        }
    }
}
