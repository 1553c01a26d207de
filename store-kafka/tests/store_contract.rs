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

    use annals_core::{Append, AppendError, EventStore as _, Failure, Log as _, NewEvent};
    use annals_core::{Partition, StreamId, Version};
    use annals_kafka::store::Owns;
    use annals_kafka::{KafkaStore, NewRecord};

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

    mod owners {
        annals_core::conformance_of_owners! {
            fixture: crate::OnKafka::new(),
        }
    }
}
