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
    async fn open_as(&self, process: &str, owns: Owns) -> Arc<dyn Store> {
        let losses = self.losses.load(Ordering::SeqCst);
        let folder = self.folder.path().join(format!("{process}-{losses}"));
        let options = Options::new(broker::url(), &self.topic, folder)
            .partitions(3)
            .advertise(process)
            .owns(owns);
        Arc::new(KafkaStore::open_with(options).await.unwrap())
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

    mod owners {
        annals_core::conformance_of_owners! {
            fixture: crate::OnKafka::new(),
        }
    }
}
